"""The rows of the table: each edits pictures at its own strengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benches.quality.pictures import Latents, Pictures, in_batches
from boundaryflow.boundary import Boundary, Estimator
from boundaryflow.boundary.hyperplane import Space
from boundaryflow.diffusion import EpsModel, denoise, invert, noised, timestep_path
from boundaryflow.editing import Guidance, edit_at_strengths, guided_edit, observe_noised, paper_edit, paper_invert
from boundaryflow.rng import item_noise

PAPER_SHARES = (0.25, 0.5, 1.0, 2.0)  # of the release's 150 at 256 x 256, scaled to the length of the latents here
SDEDIT_TIMESTEPS = (100, 200, 300, 400)
Edit = Callable[[Pictures, Sequence[str]], Tensor]


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        name: What it is called there.
        what: One line about it.
        strengths: K, rising; units are the row's own.
        edit: (pictures, attributes) to [N,K,C,H,W] in model range.
        edits_pairs: Can it set two attributes at once?
        calls: Network calls per image and strength, gradients through the encoder counted as one.
    """

    name: str
    what: str
    strengths: tuple[float, ...]
    edit: Edit
    edits_pairs: bool
    calls: int


def all_rows(model: EpsModel, latents: Latents, num_train: int, t_mix: int, settings: dict[str, Any]) -> list[Row]:
    """Every row, fitted on `num_train` pictures.

    Args:
        model: The frozen model.
        latents: What it sees of the pictures to fit on.
        num_train: How many of them.
        t_mix: The mixing step of the rows that have one.
        settings: `edit.guided`, `observe` and `boundary.min_auc` of params.yaml.
    """
    single = _SingleStep(model, latents, num_train, timestep_path(t_mix, 40))
    guided = Guided(model, latents, num_train, settings)
    gaps = (1.0, 2.0, 4.0, 8.0)
    return [
        Row("SDEdit", "noise added, then denoised: knows no attribute, the floor", SDEDIT_TIMESTEPS, single.sdedit,
            True, 12),
        Row("paper, as released", "`paper_mode` with eta 1", single.paper_distances, single.paper, False, 40),
        Row("paper, cleaned", "h at the same t, intercepts, unit normals, strengths in gaps between classes, eta 1",
            gaps, single.of("svm", {"eps": 1.0, "h": 1.0}, gaps, eta=1.0, correction=False), True, 40),
        Row("class means", "the line between the class means in ε-space, with the correction, eta 0", gaps,
            single.of("mean", {"eps": 1.0}, gaps), True, 40),
        Row("single step", "`edit.method: single_step`: the SVM in ε-space, with the correction, eta 0", gaps,
            single.of("svm", {"eps": 2.0}, gaps), True, 40),
        Row("guided (default)", "`edit.method: guided`", guided.strengths, guided.edit, True, guided.calls),
    ]  # fmt: skip


@dataclass(frozen=True)
class _SingleStep:
    model: EpsModel
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
        correction: bool = True,
    ) -> Edit:
        """One move at the mixing step."""

        def edit(pictures: Pictures, attributes: Sequence[str]) -> Tensor:
            planes: dict[Space, list[Boundary]] = {
                space: [self.latents.boundary(space, self.path, name, self.num_train, estimator) for name in attributes]
                for space in scales
            }

            def of_batch(some: Pictures) -> Tensor:
                inversion = invert(self.model, some.x_0, self.path, keep_corrections=correction, eta=eta)
                return edit_at_strengths(
                    self.model, inversion, planes, some.directions(attributes), strengths, scales=scales,
                    h_window=(1.0, 1.0), eta=eta, noise=lambda t: _noise(some, t),
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
            x_lat, h_lat = paper_invert(self.model, some.x_0, self.path)
            signs = some.directions(attributes)[:, 0]
            edited = torch.empty(len(x_lat), len(distances), *x_lat.shape[1:])
            for sign in (-1.0, 1.0):
                rows = (signs == sign).nonzero().flatten().tolist()
                part = some.take(rows)
                for column, distance in enumerate(distances if rows else ()):
                    edited[rows, column] = paper_edit(
                        self.model, x_lat[rows], h_lat[rows], self.path, normal_eps=eps, normal_h=h,
                        distance=sign * distance, eta=1.0, noise=lambda t, d=distance, p=part: _noise(p, t, f"{d}"),
                    )  # fmt: skip
            return edited

        return in_batches(pictures, of_batch)

    def sdedit(self, pictures: Pictures, _attributes: Sequence[str]) -> Tensor:
        """Noise added up to a timestep, then denoised from there (Meng et al. 2022)."""

        def of_batch(some: Pictures) -> Tensor:
            drawn = []
            for t in SDEDIT_TIMESTEPS:
                x_t = noised(some.x_0, _noise(some, t, "sdedit"), self.model.schedule.alpha_bar(t))
                drawn.append(denoise(self.model, x_t, timestep_path(t, 12)))
            return torch.stack(drawn, 1)

        return in_batches(pictures, of_batch)


def _noise(pictures: Pictures, t: int, purpose: str = "denoise") -> Tensor:
    return item_noise(0, pictures.ids, f"{purpose} {t}", pictures.x_0.shape[1:])


class Guided:
    """The default method.

    Args:
        model: The frozen model.
        latents: What it sees of the pictures to fit on.
        num_train: How many of them.
        settings: See `all_rows`.
        highest: Follow no plane above this timestep; None follows all.
    """

    strengths = (0.5, 0.7, 1.0, 1.4)

    def __init__(
        self, model: EpsModel, latents: Latents, num_train: int, settings: dict[str, Any], highest: int | None = None
    ) -> None:
        self._model = model
        self._guidance = Guidance(**settings["guided"])
        self._path = timestep_path(settings["t_max"], settings["num_steps"], 1.5)
        self.calls = len(self._path) * self._guidance.num_noises * (3 if self._guidance.look_ahead else 2)
        path = [t for t in self._path if highest is None or t <= highest]
        self._planes = latents.along_path(path, list(latents.train.has), num_train, settings["min_auc"])

    def edit(self, pictures: Pictures, attributes: Sequence[str], strengths: Sequence[float] | None = None) -> Tensor:
        """[N,K,C,H,W] in model range."""
        held = [b.noised for name, b in self._planes.items() if name not in attributes]
        followed = [self._planes[name].noised for name in attributes]

        def of_batch(some: Pictures) -> Tensor:
            source = observe_noised(
                self._model, some.x_0, self._path, lambda t, draw: _noise(some, t, f"guided {draw}"),
                num_noises=self._guidance.num_noises,
            )  # fmt: skip
            return guided_edit(
                self._model, source, followed, some.directions(attributes), strengths or self.strengths, self._guidance,
                held=held,
            )  # fmt: skip

        return in_batches(pictures, of_batch)
