"""Stage label: the probability of each attribute for each image."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from boundaryflow.config import (
    Annotations,
    AttributeRule,
    ClassifierSource,
    ClipSource,
    ColumnRule,
    CombinedRule,
    ProbeSource,
    PromptRule,
    ThresholdRule,
    TruthSource,
    ValueRule,
    load_params,
)
from boundaryflow.errors import LabelError, TooFewLabelsError
from boundaryflow.labelling import Combination, calibrate, combined, probe_labels
from boundaryflow.runtime.image_features import ImageFeatures, remove_features
from boundaryflow.runtime.process import entry, own_folder
from boundaryflow.sources.annotations import read_labels
from boundaryflow.store.catalog.ingest import FACES, INGEST, MANIFEST
from boundaryflow.store.catalog.label import LABEL, LABELS
from boundaryflow.store.catalog.raw import RAW
from boundaryflow.store.tables import write_json

LOG = logging.getLogger(__name__)
_BATCH = 256
_SUREST = 1e-6  # probabilities are clipped this far from 0 and 1, where log-odds are infinite
LEAST_PER_CLASS = {"train": 2, "val": 1}
"""Least images of each class of an attribute, in the split for fitting and the split for calibration."""

Facts = dict[str, dict[str, Any]]
PlainRule = PromptRule | ValueRule | ThresholdRule | ColumnRule


def run(
    dataset: str,
    *,
    source: Annotations | ClipSource | ProbeSource | ClassifierSource | TruthSource,
    attributes: Mapping[str, AttributeRule],
    shard_size: int,
) -> pd.DataFrame:
    """Write the labels of a data set; returns them."""
    ingested, out = INGEST.folder(dataset), own_folder("label", dataset)
    raw = RAW.folder(dataset)
    manifest = MANIFEST.read(ingested)
    usable, again = (manifest[manifest["status"] == status] for status in ("ok", "duplicate"))
    sources = dict(zip(usable["item_id"], usable["source"], strict=True))
    copies = dict(zip(again["source"], again["duplicates_of"], strict=True))
    plain = {name: rule for name, rule in attributes.items() if not isinstance(rule, CombinedRule)}
    about: Facts = {}
    if isinstance(source, ClipSource | ClassifierSource | ProbeSource):
        kind = "classifier" if isinstance(source, ClassifierSource) else "clip"
        features = ImageFeatures(ingested, out, source.weights, shard_size, kind)
        if isinstance(source, ProbeSource):
            labels, about = _by_probe(features, raw, source, plain, sources, copies)
        else:
            labels, about = _by_scores(features, raw, source, plain, sources, copies)
    elif isinstance(source, TruthSource):
        labels = _by_truth(ingested, list(plain))
    else:
        labels, _ = read_labels(raw, source, plain, sources, copies=copies)
    if not isinstance(source, ClipSource | ClassifierSource | ProbeSource):
        remove_features(out)
    made = {name: _combination(rule) for name, rule in attributes.items() if isinstance(rule, CombinedRule)}
    labels = combined(labels, made)[["item_id", *attributes]]
    facts = _facts(labels, ingested, about)
    left_out = too_rare(labels, usable.set_index("item_id")["split"])
    left_out |= {name: entry["left_out"] for name, entry in about.items() if "left_out" in entry}
    for name, reason in left_out.items():
        facts[name]["left_out"] = reason
        LOG.warning("label %s: is left out, and so is every edit that needs it: %s", name, reason)
    if len(left_out) == len(attributes):
        name, reason = next(iter(left_out.items()))
        for file in (LABELS.file, LABEL.facts):  # no stage continues with the labels of an earlier run
            (out / file).unlink(missing_ok=True)
        raise LabelError(f"labels of {dataset}: no attribute has enough images; {name}: {reason}")
    labels = labels.drop(columns=list(left_out))
    units = dict.fromkeys(labels.columns.drop("item_id"), "probability")
    LABELS.write(out, labels, units)
    write_json(out / LABEL.facts, facts)
    for attribute, values in facts.items():
        LOG.info("label %s: %s", attribute, ", ".join(f"{k} {v}" for k, v in values.items()))
    return labels


def too_rare(labels: pd.DataFrame, split: pd.Series) -> dict[str, str]:
    """Attributes with too few images of a class to fit a boundary, with the reason.

    Args:
        labels: item_id, then a probability per attribute.
        split: Item to train, val or test.
    """
    of_item = split.loc[labels["item_id"]].to_numpy()
    found: dict[str, str] = {}
    for name in labels.columns.drop("item_id"):
        probability = labels[name].to_numpy(np.float64)
        for part, least in LEAST_PER_CLASS.items():
            known = probability[(of_item == part) & ~np.isnan(probability)]
            positive = int((known > 0.5).sum())
            if min(positive, len(known) - positive) < least:
                found[str(name)] = (
                    f"{positive} images of {part} have it and {len(known) - positive} have not, must be at least "
                    f"{least} each; label more"
                )
                break
    return found


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


def _by_truth(ingested: Path, attributes: list[str]) -> pd.DataFrame:
    path = ingested / FACES.file
    if not path.exists():
        raise LabelError(
            f"labels: {path} is not there; source kind 'avatars' is for the built-in renderer's faces only"
        )
    truth = FACES.read(ingested)
    unknown = [name for name in attributes if name not in truth.columns]
    if unknown:
        raise LabelError(f"labels: the renderer has no attribute {unknown[0]!r}; see boundaryflow.avatars.ATTRIBUTES")
    return truth[["item_id", *attributes]].astype(dict.fromkeys(attributes, np.float32))


def _combination(rule: CombinedRule) -> Combination:
    return Combination("not" if rule.not_ else "all" if rule.all_ else "any", rule.parts)


def _facts(labels: pd.DataFrame, ingested: Path, further: Facts) -> Facts:
    """Per attribute: counts, quality of the labels, and for avatars their agreement with the truth."""
    from sklearn.metrics import roc_auc_score

    truth_at = ingested / FACES.file
    truth = FACES.read(ingested).set_index("item_id") if truth_at.exists() else None
    facts: Facts = {}
    for name in labels.columns.drop("item_id"):
        known = labels.set_index("item_id")[name].dropna()
        about: dict[str, Any] = {
            "positive": int((known > 0.5).sum()),
            "negative": int((known <= 0.5).sum()),
            "unknown": int(labels[name].isna().sum()),
            **further.get(str(name), {}),
        }
        if truth is not None and name in truth.columns and len(known):
            has = truth.loc[known.index, name].to_numpy(bool)
            about["accuracy"] = round(float(((known > 0.5).to_numpy() == has).mean()), 4)
            about["auc"] = round(float(roc_auc_score(has, known)), 4) if 0 < has.sum() < len(has) else None
        facts[str(name)] = about
    return facts


@entry
def main() -> None:
    """Run for the data set named on the command line."""
    dataset = load_params().dataset(sys.argv[1])
    label = dataset.label
    run(sys.argv[1], source=label.source, attributes=label.attributes, shard_size=dataset.ingest.shard_size)


if __name__ == "__main__":
    main()
