"""The numbers of the report: what each metric means, its mean per edit and strength, the strength to show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from stages.best_strength import RULES, best_strengths

Z_95 = 1.959964


@dataclass(frozen=True)
class Metric:
    """One column of the metrics table.

    Attributes:
        column: Column of per_image.parquet.
        title: Heading.
        better: `high` or `low`.
        meaning: Definition, shown on hover.
        percent: Shown as a percentage.
        digits: Digits after the point.
    """

    column: str
    title: str
    better: str
    meaning: str
    percent: bool = False
    digits: int = 2

    def show(self, value: float) -> str:
        """The value as the page writes it; a dash where there is none."""
        if math.isnan(value):
            return "–"
        shown = round(100 * value if self.percent else value, self.digits) + 0.0  # no negative zero
        return f"{shown:.{self.digits}f}".replace("-", "−") + (" %" if self.percent else "")


METRICS: tuple[Metric, ...] = (
    Metric(
        "target_success", "Target success", "high",
        "Share of images on which the judge, a classifier that no edit ever saw, finds the attribute changed as asked. "
        "The bar in the table is the 95 % Wilson interval.", percent=True, digits=0,
    ),
    Metric(
        "clean_success", "Clean success", "high",
        "Share of images on which the target changed and no other attribute did. The strength with the largest share "
        "is the one shown.", percent=True, digits=0,
    ),
    Metric(
        "drift", "Drift", "low",
        "How far the judge's probabilities of all the other attributes moved, on average.", percent=True, digits=1,
    ),
    Metric(
        "identity", "Identity", "high",
        "Cosine between the identity embeddings of input and edited picture; 1 is the same face.", digits=3,
    ),
    Metric("ssim", "SSIM", "high", "Structural similarity of input and edited picture; 1 is no change.", digits=3),
    Metric(
        "psnr_db", "PSNR (dB)", "high",
        "Peak signal-to-noise ratio of the edited picture against the input. At strength 0 it measures reconstruction.",
        digits=1,
    ),
    Metric(
        "segmentation_consistency", "Segmentation", "high",
        "Share of pixels that the segmenter gives the same part (skin, hair, eyes ...) in input and edited picture.",
        percent=True, digits=1,
    ),
    Metric(
        "segmentation_consistency_outside", "Segm. outside", "high",
        "The same over the pixels that the exact counterfactual leaves alone: what the edit had no business with.",
        percent=True, digits=1,
    ),
    Metric(
        "s_dir", "CLIP direction", "high",
        "Cosine between the change of the CLIP embedding of the image and that of the text; 1 is the same way.",
    ),
    Metric(
        "counterfactual_recovery", "Recovery R", "high",
        "1 − RMSE(edited, truth) / RMSE(input, truth), against the exact picture with the attribute changed. "
        "1 is the truth itself, 0 as good as leaving the image alone, below 0 worse.",
    ),
)  # fmt: skip

DISTANCES: tuple[Metric, ...] = (
    Metric(
        "fid", "FID", "low",
        "Fréchet distance between the CLIP features of the edited pictures and of real images that have what was asked "
        "for. Biased upwards for few images: compare only with the same number.",
    ),
    Metric(
        "kid", "KID", "low",
        "Kernel distance between the same two sets of features, unbiased; about 0 for one distribution, also below it.",
        digits=4,
    ),
)  # fmt: skip
"""Metrics of a set of pictures: no picture has one of its own."""

BY_COLUMN = {metric.column: metric for metric in METRICS}


def with_clean_success(per_image: pd.DataFrame) -> pd.DataFrame:
    """The table with the column `clean_success`, where the judge's verdicts are there to tell."""
    if not {"target_success", "num_others_flipped"} <= set(per_image.columns):
        return per_image
    success, flipped = per_image["target_success"].astype(float), per_image["num_others_flipped"].astype(float)
    clean = ((success > 0.5) & (flipped == 0)).astype(float).where(success.notna() & flipped.notna())
    return per_image.assign(clean_success=clean)


def shown_metrics(per_image: pd.DataFrame) -> list[Metric]:
    """Metrics with at least one value."""
    columns = set(per_image.columns)
    return [m for m in METRICS if m.column in columns and bool(per_image[m.column].notna().any())]


def wilson(num_success: int, num: int) -> tuple[float, float]:
    """95 % Wilson score interval of a share.

    Source: Wilson 1927; the form with centre and half width.

    Returns:
        Lower and upper end in [0, 1]; (0, 1) where there is no image.
    """
    if num == 0:
        return 0.0, 1.0
    share, z2 = num_success / num, Z_95**2
    centre = (share + z2 / (2 * num)) / (1 + z2 / num)
    half = Z_95 / (1 + z2 / num) * math.sqrt(share * (1 - share) / num + z2 / (4 * num**2))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Estimate:
    """Mean over images, with its 95 % interval."""

    mean: float
    low: float
    high: float
    num: int


def estimate(values: pd.Series, *, share: bool) -> Estimate:
    """Mean and 95 % interval: Wilson for a share of yes and no, normal for a mean."""
    known = values.dropna().astype(float).to_numpy()
    if not len(known):
        return Estimate(math.nan, math.nan, math.nan, 0)
    mean = float(known.mean())
    if share:
        return Estimate(mean, *wilson(int((known > 0.5).sum()), len(known)), len(known))
    half = Z_95 * float(known.std(ddof=1)) / math.sqrt(len(known)) if len(known) > 1 else math.nan
    return Estimate(mean, mean - half, mean + half, len(known))


SHARES = frozenset({"target_success", "clean_success"})


Estimates = dict[tuple[str, float], dict[str, Estimate]]
"""(edit, strength) to metric to its estimate."""


def estimates(per_image: pd.DataFrame, metrics: list[Metric]) -> Estimates:
    """Every metric of every edit at every strength."""
    result: Estimates = {}
    for (edit, strength), rows in per_image.groupby(["edit", "strength"], sort=True):
        result[str(edit), float(str(strength))] = {
            m.column: estimate(rows[m.column], share=m.column in SHARES) for m in metrics
        }
    return result


def with_distances(found: Estimates, facts: Mapping[str, Any]) -> tuple[Estimates, list[Metric]]:
    """The estimates with the distances that metrics.json states per edit and strength, and which there are."""
    edits: Mapping[str, Mapping[str, Mapping[str, float | None]]] = facts.get("edits", {})
    stated = {(e, s): edits.get(e, {}).get(f"{s:g}", {}) for e, s in found}
    present = [m for m in DISTANCES if any(row.get(m.column) is not None for row in stated.values())]
    joined: Estimates = {}
    for key, row in found.items():
        values = {m.column: stated[key].get(m.column) for m in present}
        joined[key] = {
            **row,
            **{c: Estimate(math.nan if v is None else v, math.nan, math.nan, 0) for c, v in values.items()},
        }
    return joined, present


def shown_strengths(
    per_image: pd.DataFrame | None, edits: list[str], strengths: list[float]
) -> tuple[dict[str, float], str]:
    """The strength each edit is shown at, and the rule in words (`stages.best_strength`)."""
    table: dict[str, dict[float, dict[str, float | None]]] = {edit: {s: {} for s in strengths} for edit in edits}
    for metric, _words in RULES:
        if per_image is None or metric not in per_image:
            continue
        means = per_image.groupby(["edit", "strength"])[metric].mean()
        for edit, by_strength in table.items():
            for strength, row in by_strength.items():
                mean = float(means.get((edit, strength), math.nan))
                row[metric] = None if math.isnan(mean) else mean
    return best_strengths(table)
