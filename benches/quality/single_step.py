"""Baselines: everything that goes up to one mixing step and down again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benches.quality.calls import Counted
from benches.quality.pictures import Edit, Latents, Pictures, in_batches, noise_of
from boundaryflow.boundary import Boundary, Estimator
from boundaryflow.boundary.hyperplane import Space
from boundaryflow.diffusion import denoise, invert, noised, timestep_path
from boundaryflow.editing import edit_at_strengths, paper_edit, paper_invert

PAPER_SHARES = (0.25, 0.5, 1.0, 2.0)  # of the release's 150 at 256 x 256, scaled to the length of the latents here
SDEDIT_TIMESTEPS = (100, 200, 300, 400)


@dataclass(frozen=True)
class SingleStep:
    """Rows with one move at the end of a path.

    Attributes:
        model: The frozen model.
        latents: What it sees of the pictures to fit on.
        num_train: How many of them.
        path: Up to the mixing step.
    """

    model: Counted
    latents: Latents
    num_train: int
    path: tuple[int, ...]

    def of(
        self,
        estimator: Estimator,
        scales: dict[Space, float],
        strengths: Sequence[float],
        *,
        eta: float = 0.0,
        residuals: bool = True,
    ) -> Edit:
        """One move at the mixing step."""

        def edit(pictures: Pictures, attributes: Sequence[str]) -> Tensor:
            hyperplanes: dict[Space, list[Boundary]] = {
                space: [self.latents.boundary(space, self.path, name, self.num_train, estimator) for name in attributes]
                for space in scales
            }

            def of_batch(some: Pictures) -> Tensor:
                with self.model.for_all_strengths():
                    inversion = invert(
                        self.model, some.x_0, self.path, keep_residuals=residuals, eta=eta, order=self.latents.order
                    )
                return edit_at_strengths(
                    self.model, inversion, hyperplanes, some.directions(attributes), strengths, scales=scales,
                    h_window=(1.0, 1.0), eta=eta, noise=lambda t: noise_of(some, t),
                )  # fmt: skip

            return in_batches(pictures, of_batch)

        return edit

    @property
    def paper_distances(self) -> tuple[float, ...]:
        """The release's, for latents of as many values as these: the length of noise grows with their root."""
        values = self.latents.train.x_0[0].numel()
        return tuple(round(150 * share * (values / (3 * 256 * 256)) ** 0.5, 2) for share in PAPER_SHARES)

    def paper(self, pictures: Pictures, attributes: Sequence[str]) -> Tensor:
        """The authors' release."""
        distances = self.paper_distances
        (name,) = attributes
        eps = self.latents.boundary("eps", self.path, name, self.num_train, "svm").normal
        h = self.latents.boundary("paper_h", self.path, name, self.num_train, "svm").normal

        def of_batch(some: Pictures) -> Tensor:
            with self.model.for_all_strengths():
                x_lat, h_lat = paper_invert(self.model, some.x_0, self.path)
            signs = some.directions(attributes)[:, 0]
            edited = torch.empty(len(x_lat), len(distances), *x_lat.shape[1:])
            for sign in (-1.0, 1.0):
                rows = (signs == sign).nonzero().flatten().tolist()
                part = some.take(rows)
                for column, distance in enumerate(distances if rows else ()):
                    edited[rows, column] = paper_edit(
                        self.model, x_lat[rows], h_lat[rows], self.path, normal_eps=eps, normal_h=h,
                        distance=sign * distance, eta=1.0, noise=lambda t, d=distance, p=part: noise_of(p, t, f"{d}"),
                    )  # fmt: skip
            return edited

        return in_batches(pictures, of_batch)

    def sdedit(self, pictures: Pictures, _attributes: Sequence[str]) -> Tensor:
        """Noise added up to a timestep, then denoised from there (Meng et al. 2022)."""

        def of_batch(some: Pictures) -> Tensor:
            drawn = []
            for t in SDEDIT_TIMESTEPS:
                x_t = noised(some.x_0, noise_of(some, t, "sdedit"), self.model.schedule.alpha_bar(t))
                drawn.append(denoise(self.model, x_t, timestep_path(t, 12)))
            return torch.stack(drawn, 1)

        return in_batches(pictures, of_batch)
