"""The edits that ours are compared with: of the same images, each edit at its own best strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from boundaryflow.report.figures import number
from boundaryflow.report.grids import Pictures
from boundaryflow.report.inputs import Inputs
from boundaryflow.report.numbers import BY_COLUMN, Estimate, Estimates, Metric, estimates, shown_strengths


@dataclass(frozen=True)
class Comparison:
    """Another method's edits.

    Attributes:
        inputs: As of the report, with that method's pictures and numbers.
        best: Edit to the strength at which it is shown.
        estimates: Edit and strength to its numbers.
    """

    inputs: Inputs
    best: Mapping[str, float]
    estimates: Estimates

    @property
    def title(self) -> str:
        """The method in words."""
        return self.inputs.method.replace("_", " ")

    def numbers(self, edit: str) -> dict[str, Estimate]:
        """Metric to its estimate for an edit at its best strength; empty where there is none."""
        return self.estimates.get((edit, self.best[edit]), {}) if edit in self.best else {}

    def card(
        self, edit: str, items: Sequence[str], pictures: Pictures, columns: Sequence[str]
    ) -> dict[str, Any] | None:
        """What the card of an edit shows of it: a picture of each item, and its numbers; None where it made none."""
        if edit not in self.best:
            return None
        strength, found = self.best[edit], self.numbers(edit)
        return {
            "title": self.title,
            "strength": number(strength),
            "pictures": pictures.compared(self.inputs, edit, items, self.inputs.strengths.index(strength)),
            "numbers": [(BY_COLUMN[c].title, BY_COLUMN[c].show(found[c].mean)) for c in columns if c in found],
        }


def read_comparison(inputs: Inputs, metrics: Sequence[Metric]) -> Comparison | None:
    """The edits that a report's are compared with, if there are any."""
    other = inputs.compared
    if other is None:
        return None
    found = {} if other.per_image is None else estimates(other.per_image, metrics, other.facts["evaluate"])[0]
    return Comparison(other, shown_strengths(other.per_image, other.edit_names, other.strengths)[0], found)
