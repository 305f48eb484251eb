"""The three ways of editing behind one protocol: guided, in a single step, and as the authors' release does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from boundaryflow.boundary import Boundaries, Boundary
from boundaryflow.boundary.hyperplane import SPACES, Space
from boundaryflow.diffusion import EpsModel, Inversion, Order, denoise, invert, timestep_path
from boundaryflow.editing.guided import Guidance, NoisedSource, guided_edit, observe_noised
from boundaryflow.editing.mask import PartSegmenter, parts_mask
from boundaryflow.editing.paper_mode import paper_edit, paper_invert
from boundaryflow.editing.sweep import edit_at_strengths
from boundaryflow.errors import BoundaryError
from boundaryflow.rng import item_noise

MAX_COSINE = 0.25
"""An attribute whose hyperplanes lie along an edited one's by more than this cosine is the same one, and not held."""
NOT_INVERTED = (
    "edit: a single step needs images inverted to the mixing step, and no edit needed any when the stages ran; run "
    "`boundaryflow run` with edit.method or edit.compare.method: single_step"
)
PerCall = Callable[[EpsModel], int]
"""How many images go through the network in one call."""


@dataclass(frozen=True)
class EditSettings:
    """Section `edit` of params.yaml, with what earlier stages decided.

    Attributes:
        t_mix: The mixing step; None where no edit needed one when the stages ran.
        num_steps: Timesteps of the path, both ends included; those of the inversion that the boundaries saw.
        noise_until: Timestep up to which inversion adds noise; see `boundaryflow.diffusion.walk_up`.
        order: Of the inversion, see there.
        eta: 0 is deterministic, 1 has the variance of DDPM.
        residuals: Follow the image's own path, so that strength 0 returns it.
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

    t_mix: int | None
    num_steps: int
    noise_until: int
    order: Order
    eta: float
    residuals: bool
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
    def spaces(self) -> list[Space]:
        """Spaces in which latents are moved at the mixing step."""
        scales = {"eps": self.eps_scale, "h": self.h_scale}
        return [space for space in SPACES if self.paper_mode or scales[space] != 0]

    @property
    def mixing_step(self) -> int:
        """The mixing step.

        Raises:
            BoundaryError: There is none.
        """
        if self.t_mix is None:
            raise BoundaryError(NOT_INVERTED)
        return self.t_mix

    @property
    def keeps_others(self) -> bool:
        """Does an edit need the boundaries of the attributes that it is to leave as they are?"""
        return self.guided["preserve"] > 0 if self.is_guided else self.conditional and not self.paper_mode


@runtime_checkable
class Editor(Protocol):
    """Prepares images once, then edits them as often as asked."""

    def open(self, x_0: Tensor, item_ids: Sequence[str]) -> Any:
        """Do once what all edits of some images need.

        Args:
            x_0: [B,C,H,W] images in model range.
            item_ids: Their ids, which decide their noise.

        Returns:
            A source for `edit` of the same editor.
        """
        ...

    def edit(
        self,
        source: Any,
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
        ...


def make_editor(
    model: EpsModel,
    settings: EditSettings,
    run_seed: int,
    *,
    segmenter: PartSegmenter | None = None,
    images_per_call: PerCall = lambda _model: 1,
) -> Editor:
    """The editor that the settings ask for.

    Args:
        model: The frozen model.
        settings: See `EditSettings`.
        run_seed: Decides all noise, per image.
        segmenter: Sees the parts that `settings.mask` names.
        images_per_call: How many images the network is given at once.
    """
    if settings.is_guided:
        return GuidedEditor(model, settings, run_seed, images_per_call, segmenter)
    made_by = PaperEditor if settings.paper_mode else SingleStepEditor
    return made_by(model, settings, run_seed, images_per_call)


@dataclass(frozen=True)
class GuidedSource:
    """Images ready to be guided.

    Attributes:
        noised: What the network sees of them along the path.
        parts: [B,H,W] which part each pixel shows, where a mask asks for it.
    """

    noised: NoisedSource
    parts: Tensor | None


@dataclass(frozen=True)
class InvertedSource:
    """Images, or latents that were drawn, ready for a single step.

    Attributes:
        item_ids: Their ids, which decide their noise.
        inversion: Their latents at the mixing step.
        x_0: [B,C,H,W] the images in model range; None of latents that were drawn.
        reconstruction: [B,C,H,W] what strength 0 gives; None where it is not asked for.
    """

    item_ids: Sequence[str]
    inversion: Inversion
    x_0: Tensor | None = None
    reconstruction: Tensor | None = None


@dataclass(frozen=True)
class _Base:
    model: EpsModel
    settings: EditSettings
    run_seed: int
    images_per_call: PerCall

    def _num_together(self, num_images: int) -> int:
        """How many strengths of so many images make up one network call."""
        return max(1, self.images_per_call(self.model) // num_images)


@dataclass(frozen=True)
class GuidedEditor(_Base):
    """Follows the boundaries of many noise levels; see `boundaryflow.editing.guided`."""

    segmenter: PartSegmenter | None = None

    def open(self, x_0: Tensor, item_ids: Sequence[str]) -> GuidedSource:
        """See `Editor.open`: one network call per timestep and noise."""
        noised = observe_noised(
            self.model,
            x_0,
            self.settings.timesteps,
            lambda t, draw: item_noise(self.run_seed, item_ids, f"guided {t} {draw}", tuple(x_0.shape[1:])),
            num_noises=Guidance(**self.settings.guided).num_noises,
        )
        low, high = self.model.value_range
        return GuidedSource(noised, self.segmenter((x_0.float() - low) / (high - low)) if self.segmenter else None)

    def edit(
        self,
        source: GuidedSource,
        rows: Sequence[int],
        boundaries: Sequence[Boundaries],
        directions: Tensor,
        held: Sequence[Boundaries] = (),
    ) -> Tensor:
        """See `Editor.edit`."""
        sha256, settings = self.model.sha256, self.settings
        others = [
            other.along_path(settings.timesteps, sha256, may_be_empty=True)
            for other in held
            if not any(
                asked.attribute == other.attribute or asked.cosine_similarity(other) > MAX_COSINE
                for asked in boundaries
            )
        ]
        return guided_edit(
            self.model,
            source.noised.take(rows),
            [b.along_path(settings.timesteps, sha256) for b in boundaries],
            directions,
            settings.strengths,
            Guidance(**settings.guided),
            preserved=others,
            mask=self._mask([b.attribute for b in boundaries], source, rows),
            num_together=self._num_together(len(directions)),
        )

    def _mask(self, attributes: Sequence[str], source: GuidedSource, rows: Sequence[int]) -> Tensor | None:
        """[len(rows),H,W] where the images may change: on the parts of any of the attributes."""
        mask, segmenter = self.settings.mask, self.segmenter
        if mask is None or segmenter is None or source.parts is None or not set(attributes) <= set(mask["parts"]):
            return None
        wanted = {segmenter.parts.index(part) for attribute in attributes for part in mask["parts"][attribute]}
        return parts_mask(source.parts[list(rows)], wanted, grow=mask["grow"])


@dataclass(frozen=True)
class _AtMixingStep(_Base, ABC):
    """What both edits at the mixing step have in common."""

    def edit(
        self,
        source: InvertedSource,
        rows: Sequence[int],
        boundaries: Sequence[Boundaries],
        directions: Tensor,
        held: Sequence[Boundaries] = (),
    ) -> Tensor:
        """See `Editor.edit`."""
        asked = directions.ne(0).any(1)
        if source.x_0 is None or asked.all():
            return self._edit(source, rows, boundaries, directions, held)
        result = source.x_0[list(rows)].float()[:, None].repeat(1, len(self.settings.strengths), 1, 1, 1)
        some = asked.nonzero().flatten().tolist()
        if some:  # no work on images that nothing is asked of
            part = [rows[row] for row in some]
            result[some] = self._edit(source, part, boundaries, directions[some], held).to(result)
        return result

    @abstractmethod
    def _edit(
        self,
        source: InvertedSource,
        rows: Sequence[int],
        boundaries: Sequence[Boundaries],
        directions: Tensor,
        held: Sequence[Boundaries],
    ) -> Tensor:
        """The same for images that all have something asked of them, or latents that were drawn."""

    def _planes(
        self, boundaries: Sequence[Boundaries], spaces: Sequence[Space], inversion: Inversion
    ) -> dict[Space, list[Boundary]]:
        """The hyperplanes at the mixing step, which have to be of the latents' size."""
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

    def _noise(self, source: InvertedSource, rows: Sequence[int], t: int, extra: str = "") -> Tensor:
        shape = (self.model.channels, self.model.image_size, self.model.image_size)
        return item_noise(self.run_seed, [source.item_ids[row] for row in rows], f"denoise {t} {extra}".rstrip(), shape)


@dataclass(frozen=True)
class SingleStepEditor(_AtMixingStep):
    """Moves the latents once, at the mixing step; see `boundaryflow.editing.single_step`."""

    def open(self, x_0: Tensor, item_ids: Sequence[str]) -> InvertedSource:
        """See `Editor.open`: the inversion, and what strength 0 gives where it is asked for."""
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
            noise=lambda t: self._noise(source, range(len(item_ids)), t),
            residuals=inversion.residuals,
        )
        return replace(source, reconstruction=back)

    def _edit(
        self,
        source: InvertedSource,
        rows: Sequence[int],
        boundaries: Sequence[Boundaries],
        directions: Tensor,
        held: Sequence[Boundaries],
    ) -> Tensor:
        settings, inversion = self.settings, source.inversion.take(rows)
        scales: dict[Space, float] = {"eps": settings.eps_scale, "h": settings.h_scale}
        spaces = settings.spaces
        if settings.conditional:
            others = _others(boundaries, held, spaces)
            boundaries = [*boundaries, *others]
            directions = torch.cat([directions, torch.zeros(len(directions), len(others))], 1)
        by_space = self._planes(boundaries, spaces, inversion)
        back = source.reconstruction
        moving = [s for s in settings.strengths if s != 0 or back is None]
        if not moving and back is not None:
            return torch.stack([back[list(rows)] for _ in settings.strengths], 1)
        edited = edit_at_strengths(
            self.model,
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


@dataclass(frozen=True)
class PaperEditor(_AtMixingStep):
    """Computes what the authors' release computes; see `boundaryflow.editing.paper_mode`."""

    def open(self, x_0: Tensor, item_ids: Sequence[str]) -> InvertedSource:
        """See `Editor.open`."""
        x_lat, h_lat = paper_invert(self.model, x_0, self._path())
        return InvertedSource(item_ids, Inversion(x_lat, h_lat, self._path(), None), x_0)

    def _edit(
        self,
        source: InvertedSource,
        rows: Sequence[int],
        boundaries: Sequence[Boundaries],
        directions: Tensor,
        held: Sequence[Boundaries],
    ) -> Tensor:
        inversion = source.inversion.take(rows)
        by_space = self._planes(boundaries, self.settings.spaces, inversion)
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
                noise=lambda t, s=strength: self._noise(source, rows, t, f"{s}"),
            )
            for strength in self.settings.strengths
        ]
        return torch.stack(results, 1)


def _others(asked: Sequence[Boundaries], held: Sequence[Boundaries], spaces: Sequence[Space]) -> list[Boundaries]:
    """The attributes that are not edited and whose classes are separated in all of the spaces."""
    names = {boundaries.attribute for boundaries in asked}
    return [
        other
        for other in held
        if other.attribute not in names
        and all(s in other.at_mixing_step and other.at_mixing_step[s].calibration.gap > 0 for s in spaces)
    ]
