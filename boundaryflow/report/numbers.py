"""The numbers of the report: definition of each metric, its mean per edit and strength, and the strength to show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from boundaryflow.evaluation.best_strength import SUCCESS_BY, best_means, best_strengths, cross_fitted


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
        "Share of images on which the judge, a classifier that no edit used, finds the attribute changed as requested. "
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
    Metric(
        "same_person", "Same person", "high",
        "Share of edited pictures that show the person of the input, by the identity judge and its own threshold.",
        percent=True, digits=0,
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
        "The same over the pixels that the exact counterfactual does not change, so that the edit should not either.",
        percent=True, digits=1,
    ),
    Metric(
        "s_dir", "CLIP direction", "high",
        "Cosine between the change of the CLIP embedding of the image and that of the text; 1 is the same direction.",
    ),
    Metric(
        "counterfactual_recovery", "Recovery R", "high",
        "1 − RMSE(edited, truth) / RMSE(input, truth), against the exact picture with the attribute changed. "
        "1 is the truth itself, 0 as close to it as the unchanged image, below 0 further away.",
    ),
)  # fmt: skip

DISTANCES: tuple[Metric, ...] = (
    Metric(
        "clip_fd", "CLIP-FD", "low",
        "As FID, but on CLIP's features: the Fréchet distance between edited pictures and real images with the "
        "requested attributes. Biased upwards for few images: compare only with the same number.",
    ),
    Metric(
        "clip_kd", "CLIP-KD", "low",
        "As KID, but on CLIP's features: the kernel distance between the same two sets, unbiased; about 0 for one "
        "distribution, also below it.",
        digits=4,
    ),
)  # fmt: skip
"""Metrics of sets of pictures, not of single ones."""

BY_COLUMN = {metric.column: metric for metric in METRICS}


def with_clean_success(per_image: pd.DataFrame) -> pd.DataFrame:
    """The table with the column `clean_success`, if it has the judge's results."""
    if not {"target_success", "num_others_flipped"} <= set(per_image.columns):
        return per_image
    success, flipped = per_image["target_success"].astype(float), per_image["num_others_flipped"].astype(float)
    clean = ((success > 0.5) & (flipped == 0)).astype(float).where(success.notna() & flipped.notna())
    return per_image.assign(clean_success=clean)


def shown_metrics(per_image: pd.DataFrame) -> list[Metric]:
    """Metrics with at least one value; with several judges also the success by each."""
    columns = [str(column) for column in per_image.columns]
    by_each = [
        Metric(
            column,
            f"By {column.removeprefix(SUCCESS_BY)}",
            "high",
            "Target success by this one of several judges.",
            percent=True,
            digits=0,
        )
        for column in columns
        if column.startswith(SUCCESS_BY)
    ]
    return [m for m in (*METRICS, *by_each) if m.column in columns and bool(per_image[m.column].notna().any())]


@dataclass(frozen=True)
class Estimate:
    """Mean over images, with its 95 % interval."""

    mean: float
    low: float
    high: float
    num: int


Estimates = dict[tuple[str, float], dict[str, Estimate]]
"""(edit, strength) to metric to its estimate."""


def estimates(
    per_image: pd.DataFrame, metrics: Sequence[Metric], facts: Mapping[str, Any]
) -> tuple[Estimates, list[Metric]]:
    """Every metric of every edit at every strength, and the distances between sets that were computed.

    Args:
        per_image: One row per image, edit and strength.
        metrics: Its columns to use.
        facts: Content of metrics.json, with the intervals of the means, and the distances.
    """
    stated: Mapping[str, Mapping[str, Mapping[str, float | None]]] = facts.get("edits", {})
    every = [row for of in stated.values() for row in of.values()]
    distances = [metric for metric in DISTANCES if any(row.get(metric.column) is not None for row in every)]
    result: Estimates = {}
    for (edit, strength), rows in per_image.groupby(["edit", "strength"], sort=True):
        about = stated.get(str(edit), {}).get(f"{float(str(strength)):g}", {})
        number = {key: math.nan if value is None else value for key, value in about.items()}
        found = {m.column: Estimate(number.get(m.column, math.nan), math.nan, math.nan, 0) for m in distances}
        for column in (metric.column for metric in metrics):
            known = rows[column].dropna().astype(float)
            low, high = (number.get(f"{column}_{end}", math.nan) for end in ("low", "high"))
            found[column] = Estimate(float(known.mean()), low, high, len(known))
        result[str(edit), float(str(strength))] = found
    return result, distances


def shown_strengths(
    per_image: pd.DataFrame | None, edits: list[str], strengths: list[float]
) -> tuple[dict[str, float], str]:
    """The strength each edit is shown at, and the rule in words (`boundaryflow.evaluation.best_strength`)."""
    found = {} if per_image is None else best_means(per_image)
    return best_strengths({edit: {s: found.get(edit, {}).get(s, {}) for s in strengths} for edit in edits})


def cross_fitted_means(per_image: pd.DataFrame, metrics: Sequence[Metric]) -> dict[str, float]:
    """Metric to its mean over edits, each at the strengths that other images chose; without those of no value."""
    means = cross_fitted(per_image).groupby("edit")[[metric.column for metric in metrics]].mean()
    return {str(column): float(value) for column, value in means.mean().items() if not math.isnan(value)}
