"""Measures of the pictures of a run: which are held back, and whether the run meets what its job expects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from boundaryflow.config.guard import BY_LABELLER, Condition, GuardParams
from boundaryflow.evaluation.panel import Judges, judge_files, load_judges
from boundaryflow.evaluation.per_image import MetricModels, PerImageMetrics
from boundaryflow.files import file_sha256
from boundaryflow.pixels import to_model_range
from boundaryflow.runtime.device import device

_FAILED = "share of failed files"
_OF_CONVINCED = ("success", "clean_success")
"""Measures that an edit fails of which no strength convinced the labeller."""


@dataclass(frozen=True)
class Guard:
    """What a job expects of a run and of each picture.

    Attributes:
        alert_below: Measure to the least mean over a run's pictures of an edit.
        max_failed: Largest share of a run's files that are bad or could not be read; None for any.
        conditions: Measure to what it must be of a delivered picture.
        judges: Folder of the judges that measure; None without.
    """

    alert_below: Mapping[str, float]
    max_failed: float | None
    conditions: Mapping[str, Condition]
    judges: str | None

    @property
    def expects(self) -> bool:
        """Whether a run that falls short is kept out of the outbox."""
        return bool(self.alert_below) or self.max_failed is not None

    @property
    def measures(self) -> list[str]:
        """All measures that are asked for."""
        return sorted({*self.alert_below, *self.conditions})

    @property
    def measured(self) -> list[str]:
        """Those of them that the labeller does not give."""
        return [name for name in self.measures if name not in BY_LABELLER]

    def identity(self) -> dict[str, Any]:
        """Everything that the measures depend on, except pictures; empty without any."""
        if not self.measured:
            return {}
        files = judge_files(Path(self.judges)) if self.judges else []
        return {"measures": self.measured, "judges": {str(path): file_sha256(path) for path in files}}

    def values(self, probability: float, measured: Sequence[float]) -> dict[str, float]:
        """Measure to value.

        Args:
            probability: Labeller's probability that all requested changes are there.
            measured: Values of `measured`.
        """
        by_labeller = {"success": float(probability > 0.5), "probability": probability}
        known = {**by_labeller, **dict(zip(self.measured, measured, strict=True))}
        return {name: known[name] for name in self.measures}

    def objection(self, values: Mapping[str, float]) -> str:
        """Why a picture with these measures is held back; empty if it is not."""
        missed = [(name, wanted) for name, wanted in self.conditions.items() if not wanted.is_met(values[name])]
        return ", ".join(f"{name} is {values[name]:.3g}, must be {wanted}" for name, wanted in missed)


def guard_of(params: GuardParams, judges: str | None) -> Guard:
    """The guard of a job; `judges` are those of its data set."""
    return Guard(params.alert_below, params.max_failed, params.conditions, judges)


def measure(guard: Guard, before: Tensor, after: Tensor, targets: Sequence[dict[str, int]]) -> Tensor:
    """[N,K,M] the values of `guard.measured`; NaN where a measure does not apply.

    Args:
        guard: The guard.
        before: [N,C,S,S] uint8 pictures.
        after: [N,K,C,S,S] uint8 their edits.
        targets: Attribute to +1 or -1 of each.
    """
    models = MetricModels(_open(guard.judges) if guard.judges else None, None, {}, {})
    metrics = PerImageMetrics(models, [], targets, to_model_range(before, (0.0, 1.0)))
    found = torch.full((*after.shape[:2], len(guard.measured)), torch.nan)
    for k in range(after.shape[1]):
        columns, _features = metrics.metrics(to_model_range(after[:, k], (0.0, 1.0)))
        for place, name in enumerate(guard.measured):
            if name in columns:
                found[:, k, place] = torch.as_tensor(columns[name]).float()
    return found


@lru_cache(maxsize=1)
def _open(folder: str) -> Judges:
    return load_judges(Path(folder), device())


@dataclass(frozen=True)
class Finding:
    """An expectation, and what a run came to.

    Attributes:
        what: Such as `identity of glasses`.
        value: Mean or share; None where there was nothing to measure.
        count: Number of pictures or files.
        limit: The least mean, or the largest share.
        is_met: Whether the run meets it; without anything to measure it does.
    """

    what: str
    value: float | None
    count: int
    limit: float
    is_met: bool

    def about(self) -> dict[str, Any]:
        """For a run's record."""
        return asdict(self)

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.what}: nothing to measure"
        side, unit = ("at most", "new files") if self.what == _FAILED else ("at least", "pictures")
        over = f"{self.count} {unit}"
        must = f"{side} {self.limit:g} is met" if self.is_met else f"must be {side} {self.limit:g}"
        return f"{self.what} is {self.value:.4g} over {over}, {must}"


def findings(
    guard: Guard, edits: Iterable[str], checks: pd.DataFrame | None, num_failed: int, num_new: int
) -> list[Finding]:
    """Each expectation of a job with what a run came to.

    Args:
        guard: The guard.
        edits: Names of the edits.
        checks: Measures of the run's pictures, those held back included; see `Delivery.check`.
        num_failed: Files that are bad or could not be read.
        num_new: All files of the run.
    """
    found: list[Finding] = []
    for edit in edits if guard.alert_below else ():
        of_edit = pd.DataFrame() if checks is None else checks[(checks["edit"] == edit) & (checks["strength"] != 0)]
        for name, limit in guard.alert_below.items():
            counted = of_edit
            if len(of_edit) and name not in _OF_CONVINCED:
                counted = of_edit[of_edit["outcome"] != "unsure"]
            value = float(counted[name].mean(skipna=False)) if len(counted) else None
            found.append(Finding(f"{name} of {edit}", value, len(counted), limit, value is None or value >= limit))
    if guard.max_failed is not None:
        share = num_failed / num_new if num_new else None
        found.append(Finding(_FAILED, share, num_new, guard.max_failed, share is None or share <= guard.max_failed))
    return found


def unsure_values(guard: Guard) -> dict[str, float]:
    """Measures of an edit of which no strength convinced the labeller."""
    return {name: 0.0 if name in _OF_CONVINCED else float("nan") for name in guard.measures}
