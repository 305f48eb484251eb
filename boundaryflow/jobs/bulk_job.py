"""A job of bulk edits: how arriving pictures are edited and delivered, and what came of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from torch import Tensor

from boundaryflow.config import DatasetParams
from boundaryflow.jobs.batch import EditPlan
from boundaryflow.jobs.finishing import Finishing
from boundaryflow.runtime.fingerprints import code_hash
from boundaryflow.store.fingerprint import fingerprint

NUM_TOLD = 1000
"""Files and items that a run's record names."""
_NUM_SHOWN = 8


class Picture(NamedTuple):
    """A picture to deliver.

    Attributes:
        edit: Name of the edit.
        strength: Its strength.
        pixels: [C,S,S] uint8.
        targets: Attribute to +1 or -1.
        probability: Labeller's probability of the changes.
    """

    edit: str
    strength: float
    pixels: Tensor
    targets: Mapping[str, int]
    probability: float


@dataclass
class Summary:
    """Result of a run.

    Attributes:
        counts: Numbers of files: listed, new, and for the new ones by status (see `delivery.Entry`), or left for the
            next run because they changed or could not be read.
        pictures: Edit to the number of pictures delivered.
        failures: Files that are bad or were left, with the reason; the first thousand.
        items: Ids of the pictures that were edited; the first thousand.
        shown: A few pairs of [C,H,W] pixels, before and after.
    """

    counts: dict[str, int] = field(default_factory=dict[str, int])
    pictures: dict[str, int] = field(default_factory=dict[str, int])
    failures: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    items: list[str] = field(default_factory=list[str])
    shown: list[tuple[Tensor, Tensor]] = field(default_factory=list[tuple[Tensor, Tensor]])

    def count(self, status: str) -> None:
        """Count one more file with a status."""
        self.counts[status] = self.counts.get(status, 0) + 1

    def delivered(self, pictures: Sequence[Picture], before: Tensor) -> None:
        """Count the delivered pictures of one file."""
        for picture in pictures:
            self.pictures[picture.edit] = self.pictures.get(picture.edit, 0) + 1
            if picture.strength and len(self.shown) < _NUM_SHOWN:
                self.shown.append((before, picture.pixels))

    def failed(self, name: str, status: str, reason: str) -> None:
        """Remember a file that was not edited."""
        if len(self.failures) < NUM_TOLD:
            self.failures.append({"file": name, "status": status, "reason": reason})


@dataclass(frozen=True)
class Job:
    """How arriving pictures are edited: an entry of `bulk_edit` in params.yaml, and what it refers to.

    Attributes:
        name: Name of the job.
        dataset: Data set whose model, settings and boundaries to use.
        section: Its section of params.yaml.
        edits: Edit to attribute to add, remove or flip.
        strengths: Strengths that are tried.
        min_probability: Deliver only the smallest strength with at least this probability by the labeller; None
            delivers all.
        plan: How pictures are edited.
        finishing: What becomes of the edits.
    """

    name: str
    dataset: str
    section: DatasetParams
    edits: Mapping[str, Mapping[str, str]]
    strengths: Sequence[float]
    min_probability: float | None
    plan: EditPlan
    finishing: Finishing

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that a delivered picture depends on, except the arriving file."""
        return fingerprint(
            stage="bulk_edit",
            code=code_hash("boundaryflow.jobs.bulk_edit"),
            plan=self.plan.cache_key,
            edits={edit: dict(targets) for edit, targets in self.edits.items()},
            delivery=self.finishing.described(),
            min_probability=self.min_probability,
        )
