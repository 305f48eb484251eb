"""The strength at which an edit is shown: one rule for the report, the README's picture and the summary.

A mean at the strength that was best on the same images is too good. So the means that are stated of an edit as a
whole are cross-fitted: each half of the images is measured at the strength that is best on the other half (2-fold
cross-validation, Stone 1974), which costs no edit of further images and leaves none out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pandas as pd

Means = Mapping[str, float | None]
"""Metric to its mean over images; None if it was not measured."""

SUCCESS_BY = "target_success_by_"
"""Prefix of the column of one judge's result, when several judges know the attribute."""
SHARES = frozenset({"target_success", "clean_success", "same_person"})
"""Metrics that are true or false for each image, so that their mean is a share; columns of `SUCCESS_BY` are too."""
ENOUGH = 0.9
"""Target success from which on a strength counts as good; larger ones cost other attributes."""
RULES = (
    ("target_success", f"a target success of {ENOUGH}, or else the largest"),
    ("counterfactual_recovery", "the largest recovery R"),
)
"""Metrics that decide, with the rule in words; the first one that some edit has is used."""


def best_strengths(edits: Mapping[str, Mapping[float, Means]]) -> tuple[dict[str, float], str]:
    """The strength each edit is shown at, and the rule in words.

    Target success decides where it was measured, and more than `ENOUGH` of it counts no more. Clean success does not
    decide: where attributes depend on one another, such as a smile and an open mouth, it is largest where hardly
    anything happens. Of equally good strengths the one nearest to 1 is shown, as strength 1 is calibrated to a typical
    member of the other class. Strength 0 changes nothing and is shown only if it is the only one.

    Args:
        edits: Edit to strength to means; every edit has a strength.

    Returns:
        Edit to strength, and the rule. Without any of the metrics, the largest strength.
    """
    candidates = {edit: _candidates(by_strength) for edit, by_strength in edits.items()}
    for metric, words in RULES:
        values = {
            edit: {
                s: min(value, ENOUGH) if metric == "target_success" else value
                for s in candidates[edit]
                if (value := by_strength[s].get(metric)) is not None
            }
            for edit, by_strength in edits.items()
        }
        if any(values.values()):
            return {edit: _largest(values[edit]) if values[edit] else candidates[edit][-1] for edit in edits}, (
                f"the strength with {words}, nearest to 1 among equals"
            )
    return {edit: candidates[edit][-1] for edit in edits}, "the largest strength"


def best_means(per_image: pd.DataFrame) -> dict[str, dict[float, Means]]:
    """What `best_strengths` decides by: means over images, of a table with a row per image, edit and strength."""
    metrics = [metric for metric, _words in RULES if metric in per_image]
    table: dict[str, dict[float, Means]] = {}
    for (edit, strength), rows in per_image.groupby(["edit", "strength"]):
        known = {metric: rows[metric].dropna().astype(float) for metric in metrics}
        means = {metric: float(values.mean()) if len(values) else None for metric, values in known.items()}
        table.setdefault(str(edit), {})[float(str(strength))] = means
    return table


def cross_fitted(per_image: pd.DataFrame) -> pd.DataFrame:
    """One row per image and edit: the image at the strength that is best on the other half of the edit's images.

    The halves are drawn by a hash of the image's id. An edit of a single image has no other half; its image is shown
    at the best strength. One metric decides for all edits, as in `best_strengths`.

    Args:
        per_image: A row per image, edit and strength, of one method.
    """
    metrics = [metric for metric, _words in RULES if metric in per_image]
    deciding = next((metric for metric in metrics if per_image[metric].notna().any()), "")
    others = [metric for metric in metrics if metric != deciding]
    chosen: list[pd.DataFrame] = []
    for _edit, rows in per_image.groupby("edit", sort=False):
        items = sorted(rows["item_id"].unique(), key=lambda item: hashlib.sha256(str(item).encode()).digest())
        for half, other in ((items[::2], items[1::2] or items), (items[1::2], items[::2])):
            if half:
                best, _rule = best_strengths(best_means(rows[rows["item_id"].isin(other)].drop(columns=others)))
                (strength,) = best.values()
                chosen.append(rows[rows["item_id"].isin(half) & (rows["strength"] == strength)])
    return pd.concat(chosen).sort_index() if chosen else per_image


def _candidates(by_strength: Mapping[float, Means]) -> list[float]:
    """Strengths ordered by absolute value, without 0 if there are others."""
    return sorted((s for s in by_strength if s != 0), key=lambda s: (abs(s), s)) or list(by_strength)


def _largest(values: Mapping[float, float]) -> float:
    best = max(round(value, 9) for value in values.values())
    return min((s for s, value in values.items() if round(value, 9) == best), key=lambda s: (abs(s - 1), abs(s), s))
