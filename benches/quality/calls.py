"""What an edit costs: how many calls of the network, and what counts as one."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from boundaryflow.diffusion import EpsModel, Features
from boundaryflow.models.frozen import FrozenModel

BACKWARD = 2.0
"""Forward passes that one backward pass through the whole network counts as; one through a part of the network counts
by the part's share of the multiplications."""


class Counted:
    """A frozen model that counts its calls, an image at a time.

    Args:
        model: The model; all results are its own.

    Attributes:
        calls: Forward passes since `reset`, backward passes counted as `BACKWARD` of them.
        shared: Those of `calls` that all strengths of an image have in common.
    """

    def __init__(self, model: EpsModel) -> None:
        self._model = model
        self.image_size, self.channels, self.value_range = model.image_size, model.channels, model.value_range
        self.schedule, self.sha256 = model.schedule, model.sha256
        self._shares: dict[Features, float] = {}
        self.calls = self.shared = 0.0

    def reset(self) -> None:
        """Start at 0."""
        self.calls = self.shared = 0.0

    def per_strength(self, num_images: int, num_strengths: int) -> float:
        """Calls for one image at one strength, if no other strength were asked for."""
        return ((self.calls - self.shared) / num_strengths + self.shared) / num_images

    @contextmanager
    def for_all_strengths(self) -> Generator[None]:
        """A context for calls that are made once for all strengths of an image."""
        before = self.calls
        yield
        self.shared += self.calls - before

    def eps(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        """See `EpsModel`."""
        self.calls += len(x_t)
        return self._model.eps(x_t, t)

    def eps_and_h(self, x_t: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
        """See `EpsModel`."""
        self.calls += len(x_t)
        return self._model.eps_and_h(x_t, t)

    def eps_with_h(self, x_t: Tensor, t: int | Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """See `EpsModel`."""
        self.calls += len(x_t)
        return self._model.eps_with_h(x_t, t, h)

    def eps_with_h_shift(self, x_t: Tensor, t: int | Tensor, shift: Tensor) -> Tensor:
        """See `EpsModel`."""
        self.calls += len(x_t)
        return self._model.eps_with_h_shift(x_t, t, shift)

    def eps_and_features(self, x_t: Tensor, t: int | Tensor, features: Features) -> tuple[Tensor, Tensor]:
        """See `EpsModel`."""
        self.calls += len(x_t)
        return self._model.eps_and_features(x_t, t, features)

    def pullback(
        self, x_t: Tensor, t: int | Tensor, features: Features, normals: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """See `EpsModel`; a backward pass for each direction, from the layer of the features."""
        if features not in self._shares:
            self._shares[features] = self._share(x_t[:1], features)
        eps, pulled = self._model.pullback(x_t, t, features, normals)
        self.calls += len(x_t) * (1 + BACKWARD * self._shares[features] * pulled.shape[1])
        return eps, pulled

    def differentiable_eps(self, x_t: Tensor, t: int) -> Tensor:
        """Predicted noise with the graph back to x_t, which is to be gone back once."""
        self.calls += len(x_t) * (1 + BACKWARD)
        return cast(FrozenModel, self._model)._forward(x_t, t, None)  # pyright: ignore[reportPrivateUsage]

    def _share(self, x_t: Tensor, features: Features) -> float:
        """Share of the network's multiplications that lie before the features; a gradient needs as many again."""
        with FlopCounterMode(display=False) as forward:
            self._model.eps(x_t, 0)
        with FlopCounterMode(display=False) as both:
            self._model.pullback(x_t, 0, features, lambda seen: torch.ones_like(seen)[:, None])
        return both.get_total_flops() / forward.get_total_flops() - 1
