"""The default method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from torch import Tensor

from benches.quality.calls import Counted
from benches.quality.pictures import Latents, Pictures, in_batches, noise_of
from boundaryflow.boundary import Boundaries
from boundaryflow.diffusion import timestep_path
from boundaryflow.editing import Guidance, guided_edit, observe_noised


class Guided:
    """The default method.

    Args:
        model: The frozen model.
        latents: What it sees of the pictures to fit on.
        num_train: How many of them.
        settings: See `all_rows`.
    """

    strengths = (0.5, 0.75, 1.0, 1.5)

    def __init__(
        self,
        model: Counted,
        latents: Latents,
        num_train: int,
        settings: dict[str, Any],
    ) -> None:
        self._model, self._latents, self._num_train = model, latents, num_train
        self._guidance, self._boundary = Guidance(**settings["guided"]), settings["boundary"]
        path = timestep_path(settings["t_max"], settings["num_steps"], 1.5)
        self._path = self._guidance.path(path)
        self._followed = list(path)

    @cached_property
    def hyperplanes(self) -> Mapping[str, Boundaries]:
        """What is followed; fitted when first asked for."""
        names = list(self._latents.train.has)
        return self._latents.along_path(self._followed, names, self._num_train, **self._boundary)

    def edit(self, pictures: Pictures, attributes: Sequence[str], strengths: Sequence[float] | None = None) -> Tensor:
        """[N,K,C,H,W] in model range."""
        on_path = {name: [b for b in of.noised if b.t in self._path] for name, of in self.hyperplanes.items()}
        held = [hyperplanes for name, hyperplanes in on_path.items() if name not in attributes]
        followed = [on_path[name] for name in attributes]

        def of_batch(some: Pictures) -> Tensor:
            with self._model.for_all_strengths():
                source = observe_noised(
                    self._model, some.x_0, self._path, lambda t, draw: noise_of(some, t, f"guided {draw}"),
                    num_noises=self._guidance.num_noises, features=self._latents.features,
                )  # fmt: skip
            every = strengths or self.strengths
            return guided_edit(
                self._model, source, followed, some.directions(attributes), every, self._guidance,
                preserved=held, num_together=len(every),
            )  # fmt: skip

        return in_batches(pictures, of_batch)
