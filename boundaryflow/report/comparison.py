"""Edits of the same images by another method, each at its own best strength, for comparison."""

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
        inputs: The report's inputs, with that method's pictures and numbers.
        best: Edit to the strength at which it is shown.
        estimates: Edit and strength to its numbers.
    """

    inputs: Inputs
    best: Mapping[str, float]
    estimates: Estimates

    @property
    def title(self) -> str:
        """Name of the method for the page."""
        return self.inputs.method.replace("_", " ")

    def numbers(self, edit: str) -> dict[str, Estimate]:
        """Metric to its estimate for an edit at its best strength; empty if the method did not make the edit."""
        return self.estimates.get((edit, self.best[edit]), {}) if edit in self.best else {}

    def card(
        self, edit: str, items: Sequence[str], pictures: Pictures, columns: Sequence[str]
    ) -> dict[str, Any] | None:
        """Its part of an edit's card: a picture per item, and its numbers; None if the method did not make the edit."""
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
    """The compared method's edits; None if there are none."""
    other = inputs.compared
    if other is None:
        return None
    found = {} if other.per_image is None else estimates(other.per_image, metrics, other.facts["evaluate"])[0]
    return Comparison(other, shown_strengths(other.per_image, other.edit_names, other.strengths)[0], found)
