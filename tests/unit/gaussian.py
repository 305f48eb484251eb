"""A model whose exact noise is known: images are N(0, s^2 I)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from boundaryflow.diffusion import Features, NoiseSchedule


class GaussianModel:
    """The exact ε-predictor for images drawn from N(0, s^2 I), with a bottleneck that adds to the noise.

    eps(x, t) = sqrt(1 - ᾱ) x / (ᾱ s^2 + 1 - ᾱ) + mean(h), where h = mean of x over each channel.
    """

    def __init__(self, s: float = 0.5, size: int = 4, channels: int = 3) -> None:
        self.s, self.image_size, self.channels = s, size, channels
        self.value_range = (-1.0, 1.0)
        self.schedule = NoiseSchedule.linear()
        self.sha256 = "f" * 64
        self.calls = 0

    def radius(self, t: int) -> float:
        """Standard deviation of x_t."""
        alpha_bar = self.schedule.alpha_bar(t)
        return (alpha_bar * self.s**2 + 1 - alpha_bar) ** 0.5

    def _exact(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        self.calls += 1
        alpha_bar = self.schedule.alphas_cumprod[torch.as_tensor(t)].expand(len(x_t))[:, None, None, None].to(x_t)
        return (1 - alpha_bar).sqrt() * x_t / (alpha_bar * self.s**2 + 1 - alpha_bar)

    def eps(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        return self._exact(x_t, t)

    def eps_and_h(self, x_t: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
        return self._exact(x_t, t), x_t.mean((2, 3), keepdim=True)

    def eps_with_h(self, x_t: Tensor, t: int | Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        own = x_t.mean((2, 3), keepdim=True)
        return self._exact(x_t, t) + h - own, own

    def eps_with_h_shift(self, x_t: Tensor, t: int | Tensor, shift: Tensor) -> Tensor:
        return self._exact(x_t, t) + shift

    def eps_and_features(self, x_t: Tensor, t: int | Tensor, features: Features) -> tuple[Tensor, Tensor]:
        eps, h = self.eps_and_h(x_t, t)
        return eps, features.of(h)

    def pullback(
        self, x_t: Tensor, t: int | Tensor, features: Features, normals: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        eps, h = self.eps_and_features(x_t, t, features)
        spread = normals(h)[..., None, None] / (self.image_size * self.image_size)
        return eps, spread.expand(-1, -1, -1, self.image_size, self.image_size)
