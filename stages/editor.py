"""Edits with one model and one set of settings: what the stage and the command line share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boundaryflow.boundary import Boundaries, Boundary
from boundaryflow.boundary.hyperplane import SPACES, Space
from boundaryflow.diffusion import EpsModel, Inversion, Order, denoise, invert, timestep_path
from boundaryflow.editing import (
    Guidance,
    NoisedSource,
    edit_at_strengths,
    guided_edit,
    observe_noised,
    paper_edit,
    paper_invert,
    parts_mask,
)
from boundaryflow.errors import BoundaryError
from boundaryflow.evaluation import load_segmenter
from boundaryflow.rng import item_noise
from stages.frozen_model import device
from stages.memory import chunk_size

ALIKE = 0.25
"""An attribute whose planes lie along an edited one's by more than this cosine is the same one, and not held."""


@dataclass(frozen=True)
class EditSettings:
    """Section `edit` of params.yaml, with what earlier stages decided.

    Attributes:
        t_mix: The mixing step.
        num_steps: Timesteps of the path, both ends included; those of the inversion that the boundaries saw.
        noise_until: Timestep up to which inversion adds noise; see `boundaryflow.diffusion.walk_up`.
        order: Of the inversion, see there.
        eta: 0 is deterministic, 1 has the variance of DDPM.
        correction: Follow the image's own path, so that strength 0 returns it.
        eps_scale: Move in ε-space per unit of strength, in distances between class means; 0 is none.
        h_scale: The same in h-space.
        h_window: Noisiest and cleanest end of the h window, as shares of t_mix.
        strengths: Strengths; in paper mode absolute distances in latent units.
        paper_mode: Compute what the authors' release computes.
        dtype: What the network computes in.
        method: `guided` follows the boundaries of many noise levels, `single_step` moves once at t_mix.
        guided: How, see `boundaryflow.editing.Guidance`.
        mask: Where images may change: `segmenter` (file), `parts` (attribute to names), `grow` (pixels);
            None is everywhere. For the guided edit.
        conditional: Move orthogonally to the normals of the attributes that nothing is asked of. For the
            single step.
        timesteps: The path of the guided edit, rising.
    """

    t_mix: int
    num_steps: int
    noise_until: int
    order: Order
    eta: float
    correction: bool
    eps_scale: float
    h_scale: float
    h_window: Sequence[float]
    strengths: Sequence[float]
    paper_mode: bool
    dtype: str
    method: str
    guided: Mapping[str, Any]
    mask: Mapping[str, Any] | None
    conditional: bool
    timesteps: Sequence[int]

    @property
    def is_guided(self) -> bool:
        """Are images led along the path of noise levels?"""
        return self.method == "guided" and not self.paper_mode

    @property
    def keeps_others(self) -> bool:
        """Does an edit need the boundaries of the attributes that it is to leave as they are?"""
        return self.guided["hold"] > 0 if self.is_guided else self.conditional and not self.paper_mode


@dataclass(frozen=True)
class Source:
    """Images ready to be edited.

    Attributes:
        item_ids: Their ids, which decide their noise.
        reconstruction: [B,C,H,W] what strength 0 gives, in model range.
        inversion: Their latents, for a single step.
        noised: What the network sees of them along the path, for the guided edit.
        parts: [B,H,W] which part each pixel shows, where a mask asks for it.
        x_0: [B,C,H,W] the images in model range, for a single step; None of latents that were drawn.
    """

    item_ids: Sequence[str]
    reconstruction: Tensor | None
    inversion: Inversion | None = None
    noised: NoisedSource | None = None
    parts: Tensor | None = None
    x_0: Tensor | None = None


class Editor:
    """Inverts images, then edits them as often as asked.

    Args:
        model: The frozen model.
        settings: See `EditSettings`.
        run_seed: Decides the noise where eta > 0.
    """

    def __init__(self, model: EpsModel, settings: EditSettings, run_seed: int) -> None:
        self._model, self._settings, self._run_seed = model, settings, run_seed
        self._path = timestep_path(settings.t_mix, settings.num_steps)
        self._segmenter = load_segmenter(Path(settings.mask["segmenter"]), device()) if settings.mask else None

    def open(self, x_0: Tensor, item_ids: Sequence[str]) -> Source:
        """Do once what all edits of these images need, and what strength 0 gives."""
        settings = self._settings
        if settings.is_guided:
            shape, guidance = tuple(x_0.shape[1:]), Guidance(**settings.guided)
            noised = observe_noised(
                self._model,
                x_0,
                settings.timesteps,
                lambda t, draw: item_noise(self._run_seed, item_ids, f"guided {t} {draw}", shape),
                num_noises=guidance.num_noises,
            )
            low, high = self._model.value_range
            parts = self._segmenter((x_0.float() - low) / (high - low)) if self._segmenter else None
            return Source(item_ids, x_0.float(), noised=noised, parts=parts)
        if settings.paper_mode:
            x_lat, h_lat = paper_invert(self._model, x_0, self._path)
            return Source(item_ids, None, Inversion(x_lat, h_lat, self._path, None), x_0=x_0)
        inversion = invert(
            self._model,
            x_0,
            self._path,
            keep_corrections=settings.correction,
            eta=settings.eta,
            start_noise=item_noise(self._run_seed, item_ids, "inversion", x_0.shape[1:]),
            noise_until=settings.noise_until,
            order=settings.order,
        )
        source = Source(item_ids, None, inversion, x_0=x_0)
        if 0 not in settings.strengths:
            return source
        back = denoise(
            self._model,
            inversion.x_mix,
            self._path,
            eta=settings.eta,
            noise=lambda t: self._noise(source, range(len(item_ids)), t),
            corrections=inversion.corrections,
        )
        return replace(source, reconstruction=back)

    def edit(
        self,
        source: Source,
        rows: Sequence[int],
        boundaries: Sequence[Boundaries],
        directions: Tensor,
        held: Sequence[Boundaries] = (),
    ) -> Tensor:
        """Edit some of the images at every strength; one that nothing is asked of comes back as it is.

        Args:
            source: Of `open`.
            rows: Which images of the source.
            boundaries: Boundaries of the A attributes.
            directions: [len(rows), A] +1, -1 or 0.
            held: Boundaries of attributes that a guided edit, or a conditional single step, leaves as they are.

        Returns:
            [len(rows), K, C, H, W] in model range, not clipped.

        Raises:
            BoundaryError: A boundary is missing where it is needed, or belongs to another model or timestep.
        """
        settings = self._settings
        if source.noised is not None:
            mask = self._mask([b.attribute for b in boundaries], source, rows)
            return self._guided_edit(source.noised.take(rows), boundaries, directions, held, mask)
        if source.inversion is None:
            raise ValueError("the source was opened by an editor of another method")
        asked = directions.ne(0).any(1)
        if source.x_0 is not None and not asked.all():  # no work on images that nothing is asked of
            result = source.x_0[list(rows)].float()[:, None].repeat(1, len(settings.strengths), 1, 1, 1)
            some = asked.nonzero().flatten().tolist()
            if some:
                part = [rows[row] for row in some]
                result[some] = self.edit(source, part, boundaries, directions[some], held).to(result)
            return result
        inversion = source.inversion.take(rows)
        scales: dict[Space, float] = {"eps": settings.eps_scale, "h": settings.h_scale}
        spaces: list[Space] = [s for s in SPACES if scales[s] != 0 or settings.paper_mode]
        if settings.conditional and not settings.paper_mode:
            others = _others(boundaries, held, spaces)
            boundaries = [*boundaries, *others]
            directions = torch.cat([directions, torch.zeros(len(directions), len(others))], 1)
        by_space: dict[Space, list[Boundary]] = {
            space: [b.in_space(space, self._model.sha256, settings.t_mix) for b in boundaries] for space in spaces
        }
        latents = {"eps": inversion.x_mix, "h": inversion.h_mix}
        for space, planes in by_space.items():
            for plane in planes:
                plane.check_dimensions(latents[space][0].numel())
        if settings.paper_mode:
            return self._paper_edit(source, rows, inversion, by_space, directions)
        back = source.reconstruction
        moving = [s for s in settings.strengths if s != 0 or back is None]
        if not moving and back is not None:
            return torch.stack([back[list(rows)] for _ in settings.strengths], 1)
        edited = edit_at_strengths(
            self._model,
            inversion,
            by_space,
            directions,
            moving,
            scales=scales,
            h_window=(settings.h_window[0], settings.h_window[1]),
            eta=settings.eta,
            noise=lambda t: self._noise(source, rows, t),
            num_together=self._num_together(len(rows)),
        )
        at = iter(edited.unbind(1))
        chosen = [back[list(rows)] if back is not None and s == 0 else next(at) for s in settings.strengths]
        return torch.stack(chosen, 1)

    def _mask(self, attributes: Sequence[str], source: Source, rows: Sequence[int]) -> Tensor | None:
        """[len(rows),H,W] where the images may change: on the parts of any of the attributes."""
        mask, segmenter = self._settings.mask, self._segmenter
        if mask is None or segmenter is None or source.parts is None or not set(attributes) <= set(mask["parts"]):
            return None
        wanted = {segmenter.parts.index(part) for attribute in attributes for part in mask["parts"][attribute]}
        return parts_mask(source.parts[list(rows)], wanted, grow=mask["grow"])

    def _guided_edit(
        self,
        noised: NoisedSource,
        boundaries: Sequence[Boundaries],
        directions: Tensor,
        held: Sequence[Boundaries],
        mask: Tensor | None,
    ) -> Tensor:
        sha256, settings = self._model.sha256, self._settings
        followed = [b.along_path(settings.timesteps, sha256) for b in boundaries]
        others = [
            other.along_path(settings.timesteps, sha256, may_be_empty=True)
            for other in held
            if not any(asked.attribute == other.attribute or asked.likeness(other) > ALIKE for asked in boundaries)
        ]
        guidance = Guidance(**settings.guided)
        return guided_edit(
            self._model, noised, followed, directions, settings.strengths, guidance,
            held=others, mask=mask, num_together=self._num_together(len(directions)),
        )  # fmt: skip

    def _num_together(self, num_images: int) -> int:
        """How many strengths of so many images make up one network call."""
        return max(1, chunk_size(self._model) // num_images)

    def _paper_edit(
        self,
        source: Source,
        rows: Sequence[int],
        inversion: Inversion,
        by_space: dict[Space, list[Boundary]],
        directions: Tensor,
    ) -> Tensor:
        if directions.shape[1] != 1:
            raise BoundaryError(
                "edit: paper_mode edits one attribute at a time; split the edit, or set paper_mode: false"
            )
        results = [
            paper_edit(
                self._model,
                inversion.x_mix,
                inversion.h_mix,
                self._path,
                normal_eps=by_space["eps"][0].normal,
                normal_h=by_space["h"][0].normal,
                distance=strength * directions[:, 0],
                inject_h=getattr(self._model, "family", "ddpm") != "iddpm",
                eta=self._settings.eta,
                noise=lambda t, s=strength: self._noise(source, rows, t, f"{s}"),
            )
            for strength in self._settings.strengths
        ]
        return torch.stack(results, 1)

    def _noise(self, source: Source, rows: Sequence[int], t: int, extra: str = "") -> Tensor:
        shape = (self._model.channels, self._model.image_size, self._model.image_size)
        return item_noise(
            self._run_seed, [source.item_ids[row] for row in rows], f"denoise {t} {extra}".rstrip(), shape
        )


def _others(asked: Sequence[Boundaries], held: Sequence[Boundaries], spaces: Sequence[Space]) -> list[Boundaries]:
    """Of the attributes that nothing is asked of those that can be told apart in all of the spaces."""
    names = {boundaries.attribute for boundaries in asked}
    return [
        other
        for other in held
        if other.attribute not in names
        and all(s in other.at_mixing_step and other.at_mixing_step[s].calibration.gap > 0 for s in spaces)
    ]
