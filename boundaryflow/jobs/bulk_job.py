"""A job of bulk edits: how arriving pictures are edited and delivered, and what came of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from torch import Tensor

from boundaryflow.config import DatasetParams
from boundaryflow.jobs.batch import EditPlan
from boundaryflow.jobs.finishing import Finishing
from boundaryflow.jobs.guard import Guard
from boundaryflow.review.verdicts import Decisions
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
        values: Measure to value, of those that the job asks for.
        objection: Why it is held back; empty if it is not.
    """

    edit: str
    strength: float
    pixels: Tensor
    targets: Mapping[str, int]
    probability: float
    values: Mapping[str, float]
    objection: str


@dataclass
class Summary:
    """Result of a run.

    Attributes:
        counts: Numbers of files: listed, new, and for the new ones by status (see `delivery.Entry`), or left for the
            next run because they changed or could not be read.
        pictures: Edit to the number of pictures delivered.
        held: Edit to the number of pictures held back by `deliver_if` or a verdict.
        near_duplicates: New files that look like one whose edits were delivered.
        findings: What the run came to beside what the job expects, see `guard.Finding`.
        quarantine: Folder of the run if it fell short.
        failures: Files that are bad or were left, with the reason; the first thousand.
        items: Ids of the pictures that were edited; the first thousand.
        shown: A few pairs of [C,H,W] pixels, before and after.
    """

    counts: dict[str, int] = field(default_factory=dict[str, int])
    pictures: dict[str, int] = field(default_factory=dict[str, int])
    held: dict[str, int] = field(default_factory=dict[str, int])
    near_duplicates: int = 0
    findings: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    quarantine: str = ""
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

    def held_back(self, pictures: Sequence[Picture]) -> None:
        """Count pictures that are held back."""
        for picture in pictures:
            self.held[picture.edit] = self.held.get(picture.edit, 0) + 1

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
        guard: What the job expects of a run and of each picture.
        decisions: Verdicts on the same edits of the data set.
        skip_duplicates: Leave out files that look like one whose edits were delivered.
    """

    name: str
    dataset: str
    section: DatasetParams
    edits: Mapping[str, Mapping[str, str]]
    strengths: Sequence[float]
    min_probability: float | None
    plan: EditPlan
    finishing: Finishing
    guard: Guard
    decisions: Decisions
    skip_duplicates: bool

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that a delivered picture depends on, except the arriving file."""
        held = {"deliver_if": {name: list(of) for name, of in self.guard.conditions.items()}, **self.guard.identity()}
        return fingerprint(
            stage="bulk_edit",
            code=code_hash("boundaryflow.jobs.bulk_edit"),
            plan=self.plan.cache_key,
            edits={edit: dict(targets) for edit, targets in self.edits.items()},
            delivery=self.finishing.described(),
            min_probability=self.min_probability,
            **(held if self.guard.conditions else {}),
        )

    @cached_property
    def shard_key(self) -> str:
        """Hash of everything that a shard of edits depends on, measures included."""
        measured = self.guard.identity()
        return fingerprint(job=self.fingerprint, **measured) if measured else self.fingerprint
