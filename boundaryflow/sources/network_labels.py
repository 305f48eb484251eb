"""Labels by networks: the scores of CLIP or of classifiers, or a probe on CLIP's features."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from boundaryflow.config import (
    ClassifierSource,
    ClipSource,
    ColumnRule,
    ProbeSource,
    PromptRule,
    ThresholdRule,
    ValueRule,
)
from boundaryflow.errors import LabelError, TooFewLabelsError
from boundaryflow.labelling import calibrate, probe_labels
from boundaryflow.runtime.image_features import ImageFeatures
from boundaryflow.sources.annotations import read_labels

LOG = logging.getLogger(__name__)
_SUREST = 1e-6  # probabilities are clipped this far from 0 and 1, where log-odds are infinite

Facts = dict[str, dict[str, Any]]
PlainRule = PromptRule | ValueRule | ThresholdRule | ColumnRule


def label_images(
    ingested: Path,
    out: Path,
    raw: Path,
    source: ClipSource | ProbeSource | ClassifierSource,
    rules: Mapping[str, PlainRule],
    sources: Mapping[str, str],
    copies: Mapping[str, str],
    shard_size: int,
) -> tuple[pd.DataFrame, Facts]:
    """Label all images of a data set; only those that are new go through the network.

    Args:
        ingested: Folder of the pixels.
        out: Folder of the network's outputs, which are kept.
        raw: Folder of the raw images, with annotations.
        source: Which network, and how its scores become probabilities.
        rules: Attribute to its rule.
        sources: Item to the name of its image.
        copies: Name of a duplicate to its item.
        shard_size: See `boundaryflow.store.shards.plan_shards`.

    Returns:
        item_id and a probability per attribute; and facts about the attributes.

    Raises:
        LabelError: Annotations or classifiers do not fit the attributes.
    """
    kind = "classifier" if isinstance(source, ClassifierSource) else "clip"
    features = ImageFeatures(ingested, out, source.weights, shard_size, kind)
    if isinstance(source, ProbeSource):
        return _by_probe(features, raw, source, rules, sources, copies)
    return _by_scores(features, raw, source, rules, sources, copies)


def _by_scores(
    features: ImageFeatures,
    raw: Path,
    source: ClipSource | ClassifierSource,
    rules: Mapping[str, PlainRule],
    sources: Mapping[str, str],
    copies: Mapping[str, str],
) -> tuple[pd.DataFrame, Facts]:
    """Labels by the scores of CLIP or of classifiers, calibrated if there are annotations."""
    items = sorted(sources)
    known, stray = None, 0
    if source.calibration is not None:  # read first, as an error in it should show before the networks run
        own = {name: ColumnRule(column=None) for name in rules}
        known, stray = read_labels(raw, source.calibration, own, sources, partial=True, copies=copies)
    if isinstance(source, ClipSource):
        scored = _clip_scores(features, source, rules, items)
    else:
        scored = _classifier_scores(features, rules, items)
    return _calibrated(items, scored, known, stray)


def _clip_scores(
    features: ImageFeatures, source: ClipSource, rules: Mapping[str, PlainRule], items: list[str]
) -> dict[str, torch.Tensor]:
    """Log-odds [n] of each attribute, by CLIP."""
    prompts = {name: rule for name, rule in rules.items() if isinstance(rule, PromptRule)}  # all, as params checks
    features.update(items)
    scored = {name: torch.empty(len(items)) for name in prompts}
    for rows, some in features.read(items):
        for name, rule in prompts.items():
            scored[name][rows] = features.clip.log_odds(
                some.to(features.clip.device),
                rule.positive,
                rule.negative,
                templates=source.templates,
                temperature=source.temperature,
            )
    return scored


def _classifier_scores(
    features: ImageFeatures, rules: Mapping[str, PlainRule], items: list[str]
) -> dict[str, torch.Tensor]:
    """Log-odds [n] of each attribute, by the classifier that decides on it."""
    attributes = features.classifiers.attributes
    columns = {name: getattr(rule, "column", None) or name for name, rule in rules.items()}
    unknown = [column for column in columns.values() if column not in attributes]
    if unknown:
        raise LabelError(f"labels: {features.weights} does not know {unknown[0]!r}, only {', '.join(attributes)}")
    features.update(items)
    probabilities = torch.empty(len(items), len(attributes))
    for rows, some in features.read(items):
        probabilities[rows] = some
    odds = probabilities.double().logit(_SUREST)
    return {name: odds[:, attributes.index(column)] for name, column in columns.items()}


def _calibrated(
    items: list[str], scored: Mapping[str, torch.Tensor], known: pd.DataFrame | None, stray: int
) -> tuple[pd.DataFrame, Facts]:
    """Probabilities from log-odds [n] of each attribute, calibrated if there are annotations."""
    if known is None:
        raw = {name: scores.sigmoid().numpy().astype(np.float32) for name, scores in scored.items()}
        return pd.DataFrame({"item_id": items, **raw}), {}

    def fit(name: str, annotated: NDArray[np.float64]) -> tuple[NDArray[np.float64], dict[str, Any]]:
        odds = scored[name].double().numpy()
        curve, report = calibrate(odds, annotated, name)
        if report.log_loss_after > report.log_loss_before:
            LOG.warning("label %s: calibration makes the log-loss worse; annotate more, or go without", name)
        return curve.probabilities(odds), {**_rounded(report), **_rounded(curve)}

    return _fitted(items, scored, known, stray, fit)


def _by_probe(
    features: ImageFeatures,
    raw: Path,
    source: ProbeSource,
    rules: Mapping[str, PlainRule],
    sources: Mapping[str, str],
    copies: Mapping[str, str],
) -> tuple[pd.DataFrame, Facts]:
    known, stray = read_labels(raw, source.annotations, rules, sources, partial=True, copies=copies)
    items = sorted(sources)
    features.update(items)
    points = np.empty((len(items), features.clip.num_features), np.float32)
    for rows, some in features.read(items):
        points[rows] = some.numpy()

    def fit(name: str, annotated: NDArray[np.float64]) -> tuple[NDArray[np.float64], dict[str, Any]]:
        probability, report = probe_labels(points, annotated, source.num_folds, attribute=name)
        return probability, {
            f"cv_{k}" if k in ("auc", "log_loss", "ece") else k: v for k, v in _rounded(report).items()
        }

    return _fitted(items, rules, known, stray, fit)


def _fitted(
    items: list[str],
    names: Collection[str],
    known: pd.DataFrame,
    stray: int,
    fit: Callable[[str, NDArray[np.float64]], tuple[NDArray[np.float64], dict[str, Any]]],
) -> tuple[pd.DataFrame, Facts]:
    """Probabilities of each attribute, fitted to its annotations; an attribute with too few of them has none."""
    labels, about = pd.DataFrame({"item_id": items}), Facts()
    for name in names:
        try:
            probability, measured = fit(name, known[name].to_numpy(np.float64))
        except TooFewLabelsError as error:
            labels[name], about[name] = np.float32("nan"), {"left_out": str(error)}
            continue
        labels[name], about[name] = probability.astype(np.float32), {**measured, "rows_without_image": stray}
    return labels, about


def _rounded(report: Any) -> dict[str, Any]:
    """The fields of a report, rounded."""
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(report).items()}
