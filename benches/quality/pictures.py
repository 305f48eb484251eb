"""Faces to fit on and faces to edit, with what the frozen model sees of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boundaryflow.avatars import ATTRIBUTES, Avatar, render, sample_avatars, segment
from boundaryflow.boundary import (
    Boundaries,
    Boundary,
    Estimator,
    Gram,
    InMemory,
    Labels,
    average_neighbours,
    fit_boundaries,
    fit_boundary,
    separable,
)
from boundaryflow.diffusion import EpsModel, Features, Order, walk_up
from boundaryflow.diffusion.observation import noised_features
from boundaryflow.rng import item_noise
from boundaryflow.runtime.device import device

BATCH = 256 if device().type == "cuda" else 32


@dataclass(frozen=True)
class Pictures:
    """Pictures with what is known of them.

    Attributes:
        x_0: [N,C,H,W] in model range.
        has: Attribute to [N].
        ids: Names, which decide their noise.
    """

    x_0: Tensor
    has: Mapping[str, NDArray[np.bool_]]
    ids: Sequence[str]

    def take(self, rows: Sequence[int]) -> Pictures:
        """Some of them."""
        index = list(rows)
        has = {name: values[index] for name, values in self.has.items()}
        return Pictures(self.x_0[index], has, [self.ids[row] for row in index])

    def directions(self, attributes: Sequence[str]) -> Tensor:
        """[N,A] each attribute flipped the way it is not."""
        return torch.from_numpy(np.stack([1.0 - 2.0 * self.has[name] for name in attributes], 1)).float()


@dataclass(frozen=True)
class Faces(Pictures):
    """Rendered faces.

    Attributes:
        avatars: What they are.
    """

    avatars: Sequence[Avatar]

    @classmethod
    def draw(cls, purpose: int, num: int, seed: int = 0) -> Faces:
        """The first `num` faces of a stream: more of them never change the first."""
        drawn = [sample_avatars(1, np.random.default_rng([20231125, purpose, seed, index]))[0] for index in range(num)]
        return cls(
            torch.stack([_pixels(avatar) for avatar in drawn]) * 2 - 1,
            {name: np.array([avatar.attributes[name] for avatar in drawn]) for name in ATTRIBUTES},
            [f"quality-{purpose}-{seed}-{index}" for index in range(num)],
            drawn,
        )

    def take(self, rows: Sequence[int]) -> Faces:
        """Some of them."""
        some = super().take(rows)
        return Faces(some.x_0, some.has, some.ids, [self.avatars[row] for row in rows])

    def counterfactuals(self, attributes: Sequence[str]) -> tuple[Tensor, Tensor]:
        """[N,3,64,64] in [0, 1] with the attributes flipped, and [N,64,64] where they differ in what they show."""
        pictures, regions = [], []
        for avatar, before in zip(self.avatars, (self.x_0 + 1) / 2, strict=True):
            changed = avatar
            for name in attributes:
                changed = changed.with_attribute(name, not avatar.attributes[name])
            pictures.append(_pixels(changed))
            differs = torch.from_numpy(segment(changed) != segment(avatar))
            regions.append(differs | ((pictures[-1] - before).abs().amax(0) > 1e-6))
        return torch.stack(pictures), torch.stack(regions)


def _pixels(avatar: Avatar) -> Tensor:
    return torch.from_numpy(np.asarray(render(avatar), np.float32).transpose(2, 0, 1) / 255)


Edit = Callable[[Pictures, Sequence[str]], Tensor]


class Latents:
    """What the model sees of the faces to fit on and of those to calibrate on, computed when first asked for.

    Args:
        model: The frozen model.
        train: Faces to fit on, the most that any row wants.
        held_out: Faces to calibrate on.
        features: Fields of the `Features` of noised faces, as in params.yaml; None is h.
        order: Of the inversion, see `walk_up`.
    """

    def __init__(
        self,
        model: EpsModel,
        train: Pictures,
        held_out: Pictures,
        features: Mapping[str, Any] | None = None,
        order: Order = 1,
    ) -> None:
        self.features = Features(**(features or {}))
        self._model, self.train, self.held_out = model, train, held_out
        self.order: Order = order
        self._kept: dict[tuple[str, str, int], list[Tensor]] = {}

    def boundary(
        self, kind: str, path: Sequence[int], attribute: str, num_train: int, estimator: Estimator
    ) -> Boundary:
        """The hyperplane of one attribute.

        Args:
            kind: `eps` or `h` of inverted faces at the end of the path, `paper_h` that of the step before.
            path: Rising timesteps.
            attribute: Which.
            num_train: Fit on so many faces.
            estimator: See `fit_boundary`.
        """
        every = self._latents(kind, tuple(path), num_train)
        key = f"{kind} {path[-1]} {len(path)} {num_train}"
        if self._gram[0] != key:
            self._gram = key, Gram.of(every)
        has = np.concatenate([self.train.has[attribute][:num_train], self.held_out.has[attribute]])
        return fit_boundary(
            self._gram[1], has, np.arange(num_train), np.arange(num_train, len(every)),
            space="eps" if kind == "eps" else "h", t=path[-1],
            attribute=attribute, model_sha256=self._model.sha256, estimator=estimator,
        )[0]  # fmt: skip

    _gram: tuple[str, Gram] = ("", Gram(InMemory(torch.empty(0, 0)), np.empty((0, 0))))

    def along_path(
        self, timesteps: Sequence[int], attributes: Sequence[str], num_train: int, min_auc: float, neighbours: int
    ) -> dict[str, Boundaries]:
        """The hyperplanes of noised pictures that tell them apart well enough."""
        hyperplanes: dict[str, list[Boundary]] = {name: [] for name in attributes}
        held_out: list[Tensor] = []
        train, calibrate = np.arange(num_train), np.arange(num_train, num_train + len(self.held_out.ids))
        labels = [
            Labels(name, np.concatenate([self.train.has[name][:num_train], self.held_out.has[name]]), train, calibrate)
            for name in attributes
        ]
        for t in timesteps:
            every = self._latents("noised", (t,), num_train)
            for hyperplane, _report in fit_boundaries(
                Gram.of(every), labels, space=self.features.space, t=t, model_sha256=self._model.sha256,
                estimator="ridge", with_patterns=True,
            ):  # fmt: skip
                hyperplanes[hyperplane.attribute].append(hyperplane)
            held_out.append(every[num_train:])
        found: dict[str, Boundaries] = {}
        for name, of_attribute in hyperplanes.items():
            has = self.held_out.has[name]
            averaged = average_neighbours(of_attribute, held_out, has, neighbours=neighbours)
            found[name] = Boundaries(name, {}, separable(averaged, min_auc))
        return found

    def _latents(self, kind: str, path: tuple[int, ...], num_train: int) -> Tensor:
        """[N + M, D] float16 of the faces to fit on, then of those to calibrate on."""
        parts = []
        for which, pictures, num in (("train", self.train, num_train), ("held out", self.held_out, None)):
            for start in self._batches(len(pictures.ids) if num is None else num, which, kind, path[-1]):
                rows = range(start, min(start + BATCH, len(pictures.ids)))
                some = pictures.take(rows)
                for name, latents in self._see(kind, path, some.x_0, some.ids).items():
                    self._kept.setdefault((which, name, path[-1]), []).append(latents.flatten(1).half())
            parts.append(torch.cat(self._kept[which, kind, path[-1]])[:num])
        return torch.cat(parts)

    def _batches(self, num: int, which: str, kind: str, t: int) -> range:
        """Where the batches start that are still to be seen."""
        return range(BATCH * len(self._kept.get((which, kind, t), [])), num, BATCH)

    def _see(self, kind: str, path: tuple[int, ...], x_0: Tensor, ids: Sequence[str]) -> dict[str, Tensor]:
        if kind == "noised":
            return {kind: noised_features(self._model, x_0, ids, path[-1], 0, self.features)}
        walk = [(x_t, h) for _t, x_t, _eps, h in walk_up(self._model, x_0, path, order=self.order)]
        return {"eps": walk[-1][0], "h": walk[-1][1], "paper_h": walk[-2][1]}


def noise_of(pictures: Pictures, t: int, purpose: str = "denoise") -> Tensor:
    """[N,C,H,W] what is drawn for the pictures at a timestep."""
    return item_noise(0, pictures.ids, f"{purpose} {t}", pictures.x_0.shape[1:])


def in_batches(pictures: Pictures, edit: Callable[[Pictures], Tensor]) -> Tensor:
    """Apply an edit to a few pictures at a time."""
    num = len(pictures.ids)
    return torch.cat([edit(pictures.take(range(start, min(start + BATCH, num)))) for start in range(0, num, BATCH)])
