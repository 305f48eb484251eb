"""Edits of pictures outside the stage graph: those of an inbox, and those that an augmentation adds.

For the same files and parameters they equal the edits of the stage `edit` (docs/reliability.md says how exactly). The
labeller's probabilities are stored with each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boundaryflow.config import DatasetParams
from boundaryflow.editing.editor import EditSettings
from boundaryflow.files import file_sha256
from boundaryflow.jobs.fitted import fitted_boundaries, model_and_settings, open_boundary
from boundaryflow.jobs.labeller import Labeller, LabellerSpec, identity_of, spec_of
from boundaryflow.pixels import to_model_range, to_u8
from boundaryflow.runtime.device import device
from boundaryflow.runtime.editor import open_editor
from boundaryflow.runtime.fingerprints import code_hash, describe
from boundaryflow.runtime.frozen_model import open_model
from boundaryflow.runtime.memory import in_chunks
from boundaryflow.runtime.process import tick
from boundaryflow.store.fingerprint import fingerprint


@dataclass(frozen=True)
class EditPlan:
    """How pictures are edited and judged: all that `open_batch_editor` needs, here or on another machine.

    Attributes:
        cache_key: Hash of everything that a result depends on, except the picture and its directions.
        dataset: Data set whose model, settings and boundaries are used.
        model: Its model.
        model_sha256: Of the frozen model.
        run_seed: Seed of all noise, with the image's id.
        settings: How the edits are made.
        edits: Name of each edit to the attributes it changes.
        preserved: Attributes whose boundaries an edit needs to leave them as they are.
        labeller: What labels the pictures.
        boundaries: Edited attribute to a hash of its hyperplanes.
    """

    cache_key: str
    dataset: str
    model: str
    model_sha256: str
    run_seed: int
    settings: EditSettings
    edits: Mapping[str, Sequence[str]]
    preserved: Sequence[str]
    labeller: LabellerSpec
    boundaries: Mapping[str, str]

    def __hash__(self) -> int:
        return hash(self.cache_key)

    def about(self) -> dict[str, Any]:
        """Models and hyperplanes, for a run's record."""
        return {
            "model": self.model,
            "model_sha256": self.model_sha256,
            "boundaries": dict(self.boundaries),
            "judged_by": dict(self.labeller.by),
        }

    def params(self) -> dict[str, Any]:
        """Settings, for a run's record."""
        return {"run_seed": self.run_seed, "settings": asdict(self.settings)}


@dataclass(frozen=True)
class Edited:
    """Pictures of one edit.

    Attributes:
        pixels: [N,K,C,H,W] uint8, for K strengths.
        seen: [N,K,A] labeller's probability of each attribute.
    """

    pixels: Tensor
    seen: Tensor


def plan_edits(
    name: str,
    dataset: DatasetParams,
    run_seed: int,
    edits: Mapping[str, Sequence[str]],
    strengths: Sequence[float],
) -> EditPlan:
    """Plan how pictures are edited with the model, settings and fitted boundaries of a data set.

    Args:
        name: Data set whose model, settings and boundaries to use.
        dataset: Its section of params.yaml.
        run_seed: Seed of all noise, with the image's id.
        edits: Name of each edit to the attributes it changes.
        strengths: Used instead of `edit.strengths`.

    Raises:
        PipelineError: A boundary, the model or a judge is missing or does not fit.
    """
    model, settings = model_and_settings(name, dataset)
    settings = replace(settings, strengths=list(strengths))
    attributes = sorted({attribute for targets in edits.values() for attribute in targets})
    hyperplanes = {attribute: open_boundary(name, attribute) for attribute in attributes}
    preserved = {b.attribute: b for b in fitted_boundaries(name)} if settings.keeps_others else {}
    labeller = spec_of(dataset, attributes)
    hashes = {
        a: fingerprint(hyperplanes=describe(b, guided=settings.is_guided))
        for a, b in {**preserved, **hyperplanes}.items()
    }
    cache_key = fingerprint(
        code=code_hash("boundaryflow.jobs.batch"),
        model=model.sha256,
        segmenter=file_sha256(Path(settings.mask.segmenter)) if settings.is_guided and settings.mask else None,
        boundaries=hashes,
        judged_by=identity_of(labeller),
        run_seed=run_seed,
        settings=asdict(settings),
        edits=edits,
        preserved=sorted(preserved),
    )
    return EditPlan(
        cache_key,
        name,
        dataset.model,
        model.sha256,
        run_seed,
        settings,
        edits,
        sorted(preserved),
        labeller,
        {attribute: hashes[attribute] for attribute in attributes},
    )


class BatchEditor:
    """Labels pictures, edits them, and labels the edits; one per process and plan, see `open_batch_editor`."""

    def __init__(self, plan: EditPlan) -> None:
        self._net = open_model(plan.model, plan.settings.dtype)
        self._editor = open_editor(self._net, plan.settings, plan.run_seed)
        self._edits, self._strengths = plan.edits, plan.settings.strengths
        needed = sorted({*plan.labeller.by, *plan.preserved})
        self._planes = {name: open_boundary(plan.dataset, name) for name in needed}
        self._preserved = [self._planes[name] for name in plan.preserved]
        self.labeller = Labeller(plan.labeller, self._planes, self._net, self._editor, plan.settings, plan.run_seed)

    def edit(self, pixels_u8: Tensor, ids: Sequence[str], signs: Mapping[str, Tensor]) -> dict[str, Edited]:
        """Edit pictures at every strength.

        Args:
            pixels_u8: [N,C,H,W] uint8.
            ids: Their ids, which decide their noise.
            signs: Edit to [N,A] +1, -1 or 0 for each of its attributes; a picture with zeros only is not changed.
        """
        parts = in_chunks(
            len(ids),
            lambda some: self._edit_chunk(
                pixels_u8[some], ids[some], {edit: of_edit[some] for edit, of_edit in signs.items()}
            ),
            self._net,
        )
        return {
            edit: Edited(
                torch.cat([part[edit].pixels for part in parts]), torch.cat([part[edit].seen for part in parts])
            )
            for edit in signs
        }

    def _edit_chunk(self, pixels_u8: Tensor, ids: Sequence[str], signs: Mapping[str, Tensor]) -> dict[str, Edited]:
        requested = torch.stack([of_edit.ne(0).any(1) for of_edit in signs.values()]).any(0)
        rows: list[int] = requested.nonzero().flatten().tolist()  # images that at least one edit changes
        place = {row: position for position, row in enumerate(rows)}
        source = None
        if rows:
            x_0 = to_model_range(pixels_u8[rows].to(device()), self._net.value_range)
            source = self._editor.open(x_0, [ids[r] for r in rows])
        done: dict[str, Edited] = {}
        for edit, of_edit in signs.items():
            pixels = pixels_u8[:, None].repeat(1, len(self._strengths), 1, 1, 1)
            mine: list[int] = of_edit.ne(0).any(1).nonzero().flatten().tolist()
            if source is not None and mine:
                boundaries = [self._planes[attribute] for attribute in self._edits[edit]]
                edited = self._editor.edit(source, [place[r] for r in mine], boundaries, of_edit[mine], self._preserved)
                pixels[mine] = to_u8(edited, self._net.value_range).cpu()
            seen = [self.labeller(pixels[:, k], ids) for k in range(len(self._strengths))]
            done[edit] = Edited(pixels, torch.stack(seen, 1))
        tick(len(ids))
        return done


def reached(seen: Tensor, signs: Tensor) -> Tensor:
    """[N,K] the smallest probability of a requested change; 1 where no change was requested.

    Args:
        seen: [N,K,A] probability of each attribute.
        signs: [N,A] +1, -1 or 0.
    """
    requested = signs[:, None]
    return torch.where(requested > 0, seen, torch.where(requested < 0, 1 - seen, torch.ones_like(seen))).amin(2)


def weakest(strengths: Sequence[float], is_good: Sequence[bool]) -> int | None:
    """Index of the weakest accepted strength other than 0; None if there is none."""
    good = [k for k, strength in enumerate(strengths) if strength != 0 and is_good[k]]
    return min(good, key=lambda k: abs(strengths[k]), default=None)


@lru_cache(maxsize=1)
def open_batch_editor(plan: EditPlan) -> BatchEditor:
    """The editor of a plan; each process keeps the last one open."""
    return BatchEditor(plan)
