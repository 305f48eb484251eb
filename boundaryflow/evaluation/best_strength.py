"""At which of its strengths an edit is shown: one rule for the report, the README's picture and the summary."""

from __future__ import annotations

from collections.abc import Mapping

Means = Mapping[str, float | None]
"""Metric to its mean over images; None where there is none."""

SUCCESS_BY = "target_success_by_"
"""Beginning of the column of one judge's verdict, where several judge an edit."""
SHARES = frozenset({"target_success", "clean_success", "same_person"})
"""Metrics that are yes or no of each image, so that their mean is a share; so are the columns of `SUCCESS_BY`."""
RULES = (
    ("clean_success", "the largest clean success"),
    ("counterfactual_recovery", "the largest recovery R"),
    ("target_success", "the largest target success"),
)
"""What decides, and the rule in words: the first that any edit has a value of."""


def best_strengths(edits: Mapping[str, Mapping[float, Means]]) -> tuple[dict[str, float], str]:
    """The strength each edit is shown at, and the rule in words.

    Of equally good strengths the one nearest to 1 is shown: that is where the calibration puts the
    typical member of the other side, and half of it is a half-done edit that the judge happens to
    accept. Strength 0 asks for no change and is not shown while there is another.

    Args:
        edits: Edit to strength to means; every edit has a strength.

    Returns:
        Edit to strength; the rule. Where no metric decides, the largest strength.
    """
    candidates = {edit: _candidates(by_strength) for edit, by_strength in edits.items()}
    for metric, words in RULES:
        values = {
            edit: {s: value for s in candidates[edit] if (value := by_strength[s].get(metric)) is not None}
            for edit, by_strength in edits.items()
        }
        if any(values.values()):
            return {edit: _largest(values[edit]) if values[edit] else candidates[edit][-1] for edit in edits}, (
                f"the strength with {words}, nearest to 1 among equals"
            )
    return {edit: candidates[edit][-1] for edit in edits}, "the largest strength"


def _candidates(by_strength: Mapping[float, Means]) -> list[float]:
    """The weakest first."""
    return sorted((s for s in by_strength if s != 0), key=lambda s: (abs(s), s)) or list(by_strength)


def _largest(values: Mapping[float, float]) -> float:
    best = max(round(value, 9) for value in values.values())
    return min((s for s, value in values.items() if round(value, 9) == best), key=lambda s: (abs(s - 1), abs(s), s))
