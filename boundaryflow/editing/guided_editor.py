"""The guided edit as an `Editor`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from torch import Tensor

from boundaryflow.boundary import Boundaries, Boundary
from boundaryflow.editing.editor import BaseEditor
from boundaryflow.editing.guided import NoisedSource, guided_edit, observe_noised
from boundaryflow.editing.mask import PartSegmenter, parts_mask
from boundaryflow.rng import item_noise

LOG = logging.getLogger(__name__)
_MAX_COSINE = 0.25  # attributes with hyperplanes more similar than this count as one: neither preserves the other


@cache
def _warn_of_no_pattern(attribute: str) -> None:
    """Once in a process."""
    LOG.warning(
        "edit %s: its hyperplanes were fitted by an earlier version and have no pattern, so that "
        "edit.guided.preserve_residual changes nothing and more of the image changes; fit them again (a bundle: make "
        "it again)",
        attribute,
    )


@dataclass(frozen=True)
class GuidedSource:
    """Images prepared for the guided edit.

    Attributes:
        noised: The images with noise at every timestep, and what the network computes from them.
        parts: [B,H,W] index of the part that each pixel shows; None without a segmenter.
        allowed: [B,H,W] in [0, 1], 1 where the image may change; None is everywhere.
    """

    noised: NoisedSource
    parts: Tensor | None
    allowed: Tensor | None = None


@dataclass(frozen=True)
class GuidedEditor(BaseEditor):
    """Uses the boundaries of many noise levels; see `boundaryflow.editing.guided`."""

    segmenter: PartSegmenter | None = None

    def open(self, x_0: Tensor, item_ids: Sequence[str], allowed: Tensor | None = None) -> GuidedSource:
        """See `Editor.open`: one network call per timestep and noise; for `allowed` see `GuidedSource`."""
        noised = observe_noised(
            self.model,
            x_0,
            self.settings.guided.path(self.settings.timesteps),
            lambda t, draw: item_noise(self.run_seed, item_ids, f"guided {t} {draw}", tuple(x_0.shape[1:])),
            num_noises=self.settings.guided.num_noises,
            features=self.settings.features,
        )
        low, high = self.model.value_range
        parts = self.segmenter((x_0.float() - low) / (high - low)) if self.segmenter else None
        return GuidedSource(noised, parts, allowed)

    def edit(
        self,
        source: GuidedSource,
        rows: Sequence[int],
        boundaries: Sequence[Boundaries],
        directions: Tensor,
        preserved: Sequence[Boundaries] = (),
    ) -> Tensor:
        """See `Editor.edit`."""
        settings = self.settings
        others = [
            self._visited(other, source, may_be_empty=True)
            for other in preserved
            if not any(
                edited.attribute == other.attribute or edited.cosine_similarity(other) > _MAX_COSINE
                for edited in boundaries
            )
        ]
        edited = [self._visited(b, source) for b in boundaries]
        if settings.guided.preserve_residual > 0:
            for boundary, visited in zip(boundaries, edited, strict=True):
                if any(hyperplane.pattern is None for hyperplane in visited):
                    _warn_of_no_pattern(boundary.attribute)
        return guided_edit(
            self.model,
            source.noised.take(rows),
            edited,
            directions,
            settings.strengths,
            settings.guided,
            preserved=others,
            mask=self._mask([b.attribute for b in boundaries], source, rows),
            num_together=self.num_together(len(directions)),
        )

    def _visited(
        self, boundaries: Boundaries, source: GuidedSource, *, may_be_empty: bool = False
    ) -> Sequence[Boundary]:
        """The hyperplanes of an attribute that the edit visits; of one to be preserved there may be none."""
        timesteps, space = self.settings.timesteps, source.noised.features.space
        boundaries.along_path(timesteps, self.model.sha256, space, may_be_empty=may_be_empty)
        return self.settings.guided.visited(boundaries, timesteps, may_be_empty=may_be_empty)

    def _mask(self, attributes: Sequence[str], source: GuidedSource, rows: Sequence[int]) -> Tensor | None:
        """[len(rows),H,W] 1 where the images may change: the parts of all edited attributes, where it is allowed."""
        mask, segmenter = self.settings.mask, self.segmenter
        allowed = None if source.allowed is None else source.allowed[list(rows)]
        if mask is None or segmenter is None or source.parts is None or not set(attributes) <= set(mask.parts):
            return allowed
        wanted = {segmenter.parts.index(part) for attribute in attributes for part in mask.parts[attribute]}
        parts = parts_mask(source.parts[list(rows)], wanted, grow=mask.grow)
        return parts if allowed is None else parts * allowed.to(parts)
