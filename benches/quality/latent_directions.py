"""Baselines: directions of h, and directions of the sample that move h most, on paths that return the input exactly.

Edit-friendly inversion (Huberman-Spiegelglas et al. 2024) with a direction in h at every step (Haas et al. 2024): the
noisy samples of a path are drawn independently, and the noise that leads from each to the next is kept and used
again. Kept: one forward pass a step, eta 1, a start beyond half of the schedule. Adapted: our hyperplanes in h, those
of the nearest timestep, in place of differences of means; 40 steps; the last noise is kept as well, so that
strength 0 returns the input.

Pullback directions (Park et al. 2023; LOCO-Edit of Chen et al. 2024): right singular vectors of the Jacobian of h at
one timestep of the inverted sample, by subspace iteration. They have no names: labels give them one, and their sign;
taken is the vector that moves h most along the hyperplane of the attribute. The sample is moved along it and denoised,
as LOCO-Edit does. Adapted: 5 vectors and 3 iterations, no mask and no null space, DDIM residuals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from benches.quality.calls import Counted
from benches.quality.counterfactuals import nearest
from benches.quality.pictures import Edit, Latents, Pictures, in_batches, noise_of
from boundaryflow.boundary import Boundaries, Boundary
from boundaryflow.diffusion import BOTTLENECK, ddim_mean, denoise, invert, noised
from boundaryflow.diffusion.schedule import CLEAN

NUM_VECTORS, NUM_ITERATIONS, LEAST_AUC = 5, 3, 0.6
_SMALL = 1.0  # length of the finite differences; a sample's is the root of its number of values


@dataclass(frozen=True)
class LatentDirections:
    """Both baselines.

    Attributes:
        model: The frozen model.
        latents: What it sees in h of the faces to fit on.
        num_train: How many of them.
        planes_at: Timesteps of the hyperplanes, ascending.
        path: Timesteps of the edit, ascending.
    """

    model: Counted
    latents: Latents
    num_train: int
    planes_at: tuple[int, ...]
    path: tuple[int, ...]

    @cached_property
    def hyperplanes(self) -> dict[str, Boundaries]:
        """Between noised faces; fitted when first asked for."""
        return self.latents.along_path(self.planes_at, list(self.latents.train.has), self.num_train, LEAST_AUC, 0)

    def edit_friendly(self, strengths: Sequence[float]) -> Edit:
        """A row: a strength of 1 moves h by the distance between the class means at every step."""

        def edit(pictures: Pictures, attributes: Sequence[str]) -> Tensor:
            followed = [self.hyperplanes[name].noised for name in attributes]
            if not all(followed):
                return _as_they_are(pictures, strengths)

            def of_batch(some: Pictures) -> Tensor:
                with self.model.for_all_strengths():
                    start, noises, shape = self._noise_maps(some)
                directions = some.directions(attributes)
                found: list[Tensor] = []
                for strength in strengths:
                    x_t = start
                    for position, t in reversed(list(enumerate(self.path))):
                        shift = strength * _move(followed, t, directions, shape)
                        eps = self.model.eps_with_h_shift(x_t, t, shift)
                        x_t = self._mean(x_t, eps, position) + noises[position]
                    found.append(x_t)
                return torch.stack(found, 1)

            return in_batches(pictures, of_batch)

        return edit

    def pullback(self, strengths: Sequence[float], timestep: int) -> Edit:
        """A row: the sample at a timestep, one of those with hyperplanes, is moved by this length."""
        path = tuple(t for t in self.path if t < timestep) + (timestep,)

        def edit(pictures: Pictures, attributes: Sequence[str]) -> Tensor:
            (name,) = attributes
            if not self.hyperplanes[name].noised:
                return _as_they_are(pictures, strengths)
            normal = nearest(self.hyperplanes[name].noised, timestep).normal

            def of_batch(some: Pictures) -> Tensor:
                with self.model.for_all_strengths():
                    inversion = invert(self.model, some.x_0, path, keep_residuals=True)
                    vectors, moved = self._singular_vectors(some, inversion.x_mix, timestep)
                along = moved @ normal  # [B,R]
                best = along.abs().argmax(1)
                rows = torch.arange(len(best))
                sign = along[rows, best].sign() * some.directions(attributes)[:, 0]
                direction = vectors[rows, best] * sign[:, None, None, None]
                return torch.stack(
                    [
                        denoise(self.model, inversion.x_mix + s * direction, path, residuals=inversion.residuals)
                        for s in strengths
                    ],
                    1,
                )

            return in_batches(pictures, of_batch)

        return edit

    def _noise_maps(self, pictures: Pictures) -> tuple[Tensor, list[Tensor], torch.Size]:
        """The sample at the end of the path, the noise [B,C,H,W] added by each step down, and the shape of h."""
        samples = {CLEAN: pictures.x_0}
        for t in self.path:
            samples[t] = noised(pictures.x_0, noise_of(pictures, t, "edit-friendly"), self.model.schedule.alpha_bar(t))
        noises: list[Tensor] = []
        shape = torch.Size()
        for position, t in enumerate(self.path):
            eps, h = self.model.eps_and_h(samples[t], t)
            noises.append(samples[self._below(position)] - self._mean(samples[t], eps, position))
            shape = h.shape
        return samples[self.path[-1]], noises, shape

    def _below(self, position: int) -> int:
        return self.path[position - 1] if position else CLEAN

    def _mean(self, x_t: Tensor, eps: Tensor, position: int) -> Tensor:
        levels = [self.model.schedule.alpha_bar(t) for t in (self.path[position], self._below(position))]
        return ddim_mean(x_t, eps, levels[0], levels[1], eta=1.0)

    def _singular_vectors(self, pictures: Pictures, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """The first right singular vectors [B,R,C,H,W] of dh/dx_t, and how they move h [B,R,D]."""
        unmoved = self.model.eps_and_features(x_t, t, BOTTLENECK)[1]

        def moves(vectors: Tensor) -> Tensor:
            moved = [self.model.eps_and_features(x_t + _SMALL * v, t, BOTTLENECK)[1] for v in vectors.unbind(1)]
            return (torch.stack(moved, 1) - unmoved[:, None]) / _SMALL

        drawn = [noise_of(pictures, t, f"vector {number}") for number in range(NUM_VECTORS)]
        vectors = _orthonormal(torch.stack(drawn, 1))
        for _iteration in range(NUM_ITERATIONS):
            seen = moves(vectors)
            vectors = _orthonormal(self.model.pullback(x_t, t, BOTTLENECK, lambda _, seen=seen: seen)[1])
        return vectors, moves(vectors)


def _move(followed: Sequence[Sequence[Boundary]], t: int, directions: Tensor, shape: torch.Size) -> Tensor:
    """[B,Ch,Hh,Wh] along the hyperplanes of all attributes, of the nearest timestep, by the gap between the classes."""
    at = [nearest(of_attribute, t) for of_attribute in followed]
    return (directions @ torch.stack([b.normal * b.calibration.gap for b in at])).reshape(shape)


def _as_they_are(pictures: Pictures, strengths: Sequence[float]) -> Tensor:
    return pictures.x_0[:, None].repeat(1, len(strengths), 1, 1, 1)


def _orthonormal(vectors: Tensor) -> Tensor:
    """[B,R,C,H,W] of length 1, at right angles."""
    return torch.linalg.qr(vectors.flatten(2).mT)[0].mT.reshape(vectors.shape)
