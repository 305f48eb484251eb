"""What a job of `bulk_edit` expects of its own run, and which pictures it holds back."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from boundaryflow.config.base import Share
from boundaryflow.config.delivery import NamedDeliveryParams
from boundaryflow.config.wording import nearest
from boundaryflow.errors import CheckpointError, ParamsError
from boundaryflow.files import is_remote
from boundaryflow.text import visible

if TYPE_CHECKING:
    from boundaryflow.config.params import BulkEditParams, Params

BY_LABELLER = ("success", "probability")
BY_CLASSIFIER = ("clean_success", "drift")
BY_EMBEDDER = ("identity", "same_person")
MEASURES = (*BY_LABELLER, *BY_CLASSIFIER, *BY_EMBEDDER, "ssim")
"""Measures of a picture by the labeller of the job, by the judges' classifiers, by their face recognition, by none."""
LOWER_IS_BETTER = ("drift",)
_CONDITION = re.compile(r"\s*(<=|>=|<|>)\s*(-?(?:\d+\.?\d*|\.\d+))\s*")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Condition(NamedTuple):
    """What a measure of a picture must be: on one side of a limit."""

    sign: str
    limit: float

    def is_met(self, value: float) -> bool:
        """Whether a value is on that side; NaN is not."""
        return _COMPARE[self.sign](value, self.limit)

    def __str__(self) -> str:
        return f"{self.sign} {self.limit:g}"


def condition_of(text: str) -> Condition | None:
    """A condition such as `>0.6`; None if it is not one."""
    found = _CONDITION.fullmatch(text)
    return Condition(found[1], float(found[2])) if found else None


class GuardParams(NamedDeliveryParams):
    """The keys are younger than others, params.yaml files lack them."""

    alert_below: dict[str, float] = Field(default_factory=dict[str, float])
    max_failed: Share | None = None
    deliver_if: dict[str, str] = Field(default_factory=dict[str, str])
    skip_duplicates: bool = False

    @model_validator(mode="after")
    def _check_guard(self) -> GuardParams:
        for key, named in (("alert_below", self.alert_below), ("deliver_if", self.deliver_if)):
            for name in named:
                if name not in MEASURES:
                    raise ValueError(f"{key}.{name}|there is no measure {name!r}{nearest(name, MEASURES)}")
        for name, limit in self.alert_below.items():
            if name in LOWER_IS_BETTER:
                raise ValueError(
                    f"alert_below.{name}|is better the lower it is; use deliver_if, such as {name}: '<0.1'"
                )
            if not -1 <= limit <= 1:
                raise ValueError(f"alert_below.{name}|is {limit:g}, must be in [-1, 1]")
        for name, text in self.deliver_if.items():
            if condition_of(text) is None:
                raise ValueError(f"deliver_if.{name}|is {text!r}, must be <, <=, > or >= and a number, such as '>0.6'")
        return self

    @property
    def expects(self) -> bool:
        """Whether a run that falls short is kept out of the outbox."""
        return bool(self.alert_below) or self.max_failed is not None

    @property
    def measures(self) -> list[str]:
        """The measures that are asked for."""
        return sorted({*self.alert_below, *self.deliver_if})

    @property
    def conditions(self) -> dict[str, Condition]:
        """Measure to its condition."""
        return {name: found for name, text in self.deliver_if.items() if (found := condition_of(text))}


def quarantine_of(outbox: str) -> str:
    """The folder beside an outbox that holds the runs that fell short of what the job expects.

    Raises:
        ParamsError: There is nothing beside it: it is a whole bucket, or the root of a disk.
    """
    if is_remote(outbox):
        address = outbox.rstrip("/")
        has_place = urlsplit(address).path.strip("/") != ""
    else:
        address = str(Path(outbox))
        has_place = PurePosixPath(address).name not in ("", "..")
    if not has_place:
        raise ParamsError(f"outbox {visible(outbox)}: has no place beside it for a quarantine; name a folder in it")
    return f"{address}.quarantine"


def unmeasurable(root: Path, params: Params, *, check_files: bool) -> Iterator[str]:
    """Lines `key: what is wrong` about measures that the judges of a job's data set cannot take."""
    for name, job in params.bulk_edit.items():
        judges = params.data[job.dataset].evaluate.judges
        for key in ("alert_below", "deliver_if"):
            asked = [measure for measure in getattr(job, key) if measure in (*BY_CLASSIFIER, *BY_EMBEDDER)]
            if asked and judges is None:
                yield (
                    f"bulk_edit.{name}.{key}.{asked[0]}: is measured by judges, and data.{job.dataset}.evaluate.judges "
                    f"is null; name judges, or leave {asked[0]} out"
                )
            elif asked and judges is not None and check_files and (root / judges).is_dir():
                yield from _beyond_judges(f"bulk_edit.{name}.{key}", asked, root / judges, judges, job)


def _beyond_judges(key: str, asked: Sequence[str], folder: Path, shown: str, job: BulkEditParams) -> Iterator[str]:
    from boundaryflow.evaluation.panel import load_judges  # torch, which takes seconds

    try:
        judges = load_judges(folder)
    except CheckpointError as error:
        yield f"{key}: {error}"
        return
    edited = {attribute for targets in job.edits.values() for attribute in targets}
    unknown = sorted(edited - set(judges.attributes))
    lacks: dict[str, Any] = {
        **dict.fromkeys(BY_CLASSIFIER, unknown and f"do not know the edited {unknown[0]!r}"),
        "identity": judges.embedder is None and "have no face recognition",
        "same_person": (judges.embedder is None or judges.embedder.distance is None)
        and "have no face recognition with a threshold",
    }
    for measure in asked:
        if lacks[measure]:
            yield f"{key}.{measure}: the judges in {shown} {lacks[measure]}; name others, or leave {measure} out"
