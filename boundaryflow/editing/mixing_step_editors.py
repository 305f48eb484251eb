"""The two edits at the mixing step as `Editor`s: single step, and paper mode."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from boundaryflow.boundary import Boundaries, Boundary
from boundaryflow.boundary.hyperplane import Space
from boundaryflow.diffusion import Inversion, denoise, invert, timestep_path
from boundaryflow.editing.editor import BaseEditor
from boundaryflow.editing.paper_mode import paper_edit, paper_invert
from boundaryflow.editing.sweep import edit_at_strengths
from boundaryflow.errors import BoundaryError
from boundaryflow.rng import item_noise


@dataclass(frozen=True)
class InvertedSource:
    """Inverted images, or drawn latents, at the mixing step.

    Attributes:
        item_ids: Their ids, from which their noise is drawn.
        inversion: Their latents at the mixing step.
        x_0: [B,C,H,W] images in model range; None for drawn latents.
        reconstruction: [B,C,H,W] result of strength 0; None if 0 is not among the strengths.
    """

    item_ids: Sequence[str]
    inversion: Inversion
    x_0: Tensor | None = None
    reconstruction: Tensor | None = None

    def take(self, rows: Sequence[int]) -> InvertedSource:
        """Select images by row."""
        index = list(rows)
        return InvertedSource(
            [self.item_ids[row] for row in index],
            self.inversion.take(index),
            None if self.x_0 is None else self.x_0[index],
            None if self.reconstruction is None else self.reconstruction[index],
        )


@dataclass(frozen=True)
class _AtMixingStep(BaseEditor, ABC):
    """Common parts of both edits at the mixing step."""

    def edit(
        self,
        source: InvertedSource,
        rows: Sequence[int],
        boundaries: Sequence[Boundaries],
        directions: Tensor,
        preserved: Sequence[Boundaries] = (),
    ) -> Tensor:
        """See `Editor.edit`."""
        is_edited = directions.ne(0).any(1)
        if source.x_0 is None or is_edited.all():
            return self._edit(source.take(rows), boundaries, directions, preserved)
        result = source.x_0[list(rows)].float()[:, None].repeat(1, len(self.settings.strengths), 1, 1, 1)
        edited = is_edited.nonzero().flatten().tolist()
        if edited:
            part = source.take([rows[row] for row in edited])
            result[edited] = self._edit(part, boundaries, directions[edited], preserved).to(result)
        return result

    @abstractmethod
    def _edit(
        self, of: InvertedSource, boundaries: Sequence[Boundaries], directions: Tensor, preserved: Sequence[Boundaries]
    ) -> Tensor:
        """`edit` for drawn latents, or images that each have a direction other than 0."""

    def _hyperplanes(
        self, boundaries: Sequence[Boundaries], spaces: Sequence[Space], inversion: Inversion
    ) -> dict[Space, list[Boundary]]:
        """Hyperplanes at the mixing step by space; raises BoundaryError if one is not of the size of the latents."""
        latents = {"eps": inversion.x_mix, "h": inversion.h_mix}
        by_space: dict[Space, list[Boundary]] = {
            space: [b.in_space(space, self.model.sha256, self.settings.mixing_step) for b in boundaries]
            for space in spaces
        }
        for space, hyperplanes in by_space.items():
            for hyperplane in hyperplanes:
                hyperplane.check_dimensions(latents[space][0].numel())
        return by_space

    def _path(self) -> tuple[int, ...]:
        return timestep_path(self.settings.mixing_step, self.settings.num_steps)

    def _noise(self, item_ids: Sequence[str], t: int, extra: str = "") -> Tensor:
        shape = (self.model.channels, self.model.image_size, self.model.image_size)
        return item_noise(self.run_seed, item_ids, f"denoise {t} {extra}".rstrip(), shape)


@dataclass(frozen=True)
class SingleStepEditor(_AtMixingStep):
    """Moves the latents once, at the mixing step; see `boundaryflow.editing.single_step`."""

    def open(self, x_0: Tensor, item_ids: Sequence[str]) -> InvertedSource:
        """See `Editor.open`: the inversion, and the reconstruction if 0 is among the strengths."""
        settings = self.settings
        inversion = invert(
            self.model,
            x_0,
            self._path(),
            keep_residuals=settings.residuals,
            eta=settings.eta,
            start_noise=item_noise(self.run_seed, item_ids, "inversion", x_0.shape[1:]),
            noise_until=settings.noise_until,
            order=settings.order,
        )
        source = InvertedSource(item_ids, inversion, x_0)
        if 0 not in settings.strengths:
            return source
        back = denoise(
            self.model,
            inversion.x_mix,
            self._path(),
            eta=settings.eta,
            noise=lambda t: self._noise(item_ids, t),
            residuals=inversion.residuals,
        )
        return replace(source, reconstruction=back)

    def _edit(
        self, of: InvertedSource, boundaries: Sequence[Boundaries], directions: Tensor, preserved: Sequence[Boundaries]
    ) -> Tensor:
        settings, inversion, back = self.settings, of.inversion, of.reconstruction
        scales: dict[Space, float] = {"eps": settings.eps_scale, "h": settings.h_scale}
        spaces = settings.spaces
        if settings.conditional:
            others = _others(boundaries, preserved, spaces)
            boundaries = [*boundaries, *others]
            directions = torch.cat([directions, torch.zeros(len(directions), len(others))], 1)
        by_space = self._hyperplanes(boundaries, spaces, inversion)
        moving = [s for s in settings.strengths if s != 0 or back is None]
        if not moving and back is not None:
            return torch.stack([back for _ in settings.strengths], 1)
        edited = edit_at_strengths(
            self.model,
            inversion,
            by_space,
            directions,
            moving,
            scales=scales,
            h_window=(settings.h_window[0], settings.h_window[1]),
            eta=settings.eta,
            noise=lambda t: self._noise(of.item_ids, t),
            num_together=self.num_together(len(directions)),
        )
        at = iter(edited.unbind(1))
        chosen = [back if back is not None and s == 0 else next(at) for s in settings.strengths]
        return torch.stack(chosen, 1)


@dataclass(frozen=True)
class PaperEditor(_AtMixingStep):
    """Computes what the authors' release computes; see `boundaryflow.editing.paper_mode`."""

    def open(self, x_0: Tensor, item_ids: Sequence[str]) -> InvertedSource:
        """See `Editor.open`."""
        x_lat, h_lat = paper_invert(self.model, x_0, self._path())
        return InvertedSource(item_ids, Inversion(x_lat, h_lat, self._path(), None), x_0)

    def _edit(
        self, of: InvertedSource, boundaries: Sequence[Boundaries], directions: Tensor, preserved: Sequence[Boundaries]
    ) -> Tensor:
        inversion = of.inversion
        by_space = self._hyperplanes(boundaries, self.settings.spaces, inversion)
        if directions.shape[1] != 1:
            raise BoundaryError(
                "edit: paper_mode edits one attribute at a time; split the edit, or set paper_mode: false"
            )
        results = [
            paper_edit(
                self.model,
                inversion.x_mix,
                inversion.h_mix,
                self._path(),
                normal_eps=by_space["eps"][0].normal,
                normal_h=by_space["h"][0].normal,
                distance=strength * directions[:, 0],
                inject_h=getattr(self.model, "family", "ddpm") != "iddpm",
                eta=self.settings.eta,
                noise=lambda t, s=strength: self._noise(of.item_ids, t, f"{s}"),
            )
            for strength in self.settings.strengths
        ]
        return torch.stack(results, 1)


def _others(edited: Sequence[Boundaries], preserved: Sequence[Boundaries], spaces: Sequence[Space]) -> list[Boundaries]:
    """Preserved attributes that are not edited and whose classes are separated in all of the spaces."""
    names = {boundaries.attribute for boundaries in edited}
    return [
        other
        for other in preserved
        if other.attribute not in names
        and all(s in other.at_mixing_step and other.at_mixing_step[s].calibration.gap > 0 for s in spaces)
    ]
