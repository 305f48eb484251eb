"""Stage label: how likely each image has each attribute."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from boundaryflow.errors import LabelError
from boundaryflow.labelling import AttributeColumn, join_labels, load_clip, read_annotations
from boundaryflow.storage.images import to_model_range
from boundaryflow.storage.shards import load_items
from boundaryflow.storage.tables import read_table, write_json, write_table
from stages.frozen_model import device
from stages.params import (
    AttributeRule,
    ClipSource,
    CsvSource,
    PromptRule,
    ThresholdRule,
    TruthSource,
    ValueRule,
    load_params,
)
from stages.process import Progress, entry, own_folder

LOG = logging.getLogger(__name__)
_BATCH = 256


def run(
    dataset: str, *, source: ClipSource | CsvSource | TruthSource, attributes: Mapping[str, AttributeRule]
) -> pd.DataFrame:
    """Write the labels of a data set; returns them."""
    ingested, out = Path("data/ingest") / dataset, own_folder("label", dataset)
    manifest = read_table(ingested / "manifest.parquet", schema="manifest/1")
    usable = manifest[manifest["status"] == "ok"]
    if isinstance(source, ClipSource):
        labels = _by_clip(ingested, sorted(usable["item_id"]), source.weights, attributes)
    elif isinstance(source, CsvSource):
        path = Path("data/raw") / dataset / source.path
        sources = dict(zip(usable["item_id"], usable["source"], strict=True))
        columns = {name: _column(name, rule) for name, rule in attributes.items()}
        labels = join_labels(read_annotations(path), path, source.file_column, sources, columns)
    else:
        labels = _by_truth(ingested, list(attributes))
    write_table(out / "labels.parquet", labels, schema="labels/1", units={a: "probability" for a in attributes})
    facts = _facts(labels, ingested)
    write_json(out / "label.json", facts)
    for attribute, about in facts.items():
        LOG.info("label %s: %s", attribute, ", ".join(f"{k} {v}" for k, v in about.items()))
    return labels


def _by_clip(ingested: Path, items: list[str], weights: str, attributes: Mapping[str, AttributeRule]) -> pd.DataFrame:
    labeller = load_clip(weights, device())
    features: list[torch.Tensor] = []
    with Progress("label", len(items), "images") as progress:
        for start in range(0, len(items), _BATCH):
            chunk = items[start : start + _BATCH]
            pixels = load_items(ingested, chunk, ["pixels"])["pixels"]
            features.append(labeller.image_features(to_model_range(pixels, (0.0, 1.0))))
            progress.advance(len(chunk))
    together = torch.cat(features)
    labels = pd.DataFrame({"item_id": items})
    for name, rule in attributes.items():
        if isinstance(rule, PromptRule):  # params.py has seen to it that all are
            labels[name] = labeller.probabilities(together, rule.positive, rule.negative).numpy().astype(np.float32)
    return labels


def _by_truth(ingested: Path, attributes: list[str]) -> pd.DataFrame:
    path = ingested / "factors.parquet"
    if not path.exists():
        raise LabelError(
            f"labels: {path} is not there; source kind 'avatars' is for the built-in renderer's faces only"
        )
    truth = read_table(path, schema="avatars/1")
    unknown = [name for name in attributes if name not in truth.columns]
    if unknown:
        raise LabelError(f"labels: the renderer has no attribute {unknown[0]!r}; see boundaryflow.avatars.ATTRIBUTES")
    return truth[["item_id", *attributes]].astype(dict.fromkeys(attributes, np.float32))


def _column(name: str, rule: AttributeRule) -> AttributeColumn:
    if isinstance(rule, ValueRule):
        return AttributeColumn(rule.column, positive=rule.positive, negative=rule.negative)
    if isinstance(rule, ThresholdRule):
        return AttributeColumn(rule.column, above=rule.above, below=rule.below)
    return AttributeColumn(getattr(rule, "column", None) or name)


def _facts(labels: pd.DataFrame, ingested: Path) -> dict[str, dict[str, Any]]:
    """Per attribute: counts, and for avatars how well the labels agree with the truth."""
    truth_at = ingested / "factors.parquet"
    truth = read_table(truth_at, schema="avatars/1").set_index("item_id") if truth_at.exists() else None
    facts: dict[str, dict[str, Any]] = {}
    for name in labels.columns.drop("item_id"):
        known = labels.set_index("item_id")[name].dropna()
        about: dict[str, Any] = {
            "positive": int((known > 0.5).sum()),
            "negative": int((known <= 0.5).sum()),
            "unknown": int(labels[name].isna().sum()),
        }
        if truth is not None and name in truth.columns:
            has = truth.loc[known.index, name].to_numpy(bool)
            about["accuracy"] = round(float(((known > 0.5).to_numpy() == has).mean()), 4)
            about["auc"] = round(float(roc_auc_score(has, known)), 4) if 0 < has.sum() < len(has) else None
        facts[str(name)] = about
    return facts


@entry
def main() -> None:
    """Run for the data set named on the command line."""
    label = load_params().dataset(sys.argv[1]).label
    run(sys.argv[1], source=label.source, attributes=label.attributes)


if __name__ == "__main__":
    main()
