"""Stage label: the probability of each attribute for each image."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from boundaryflow.config import (
    Annotations,
    AttributeRule,
    ClassifierSource,
    ClipSource,
    CombinedRule,
    ProbeSource,
    TruthSource,
    load_params,
)
from boundaryflow.errors import LabelError
from boundaryflow.labelling import Combination, combined
from boundaryflow.runtime.process import entry, own_folder
from boundaryflow.sources.annotations import read_labels
from boundaryflow.store.catalog.ingest import FACES, INGEST, MANIFEST
from boundaryflow.store.catalog.label import LABEL, LABELS
from boundaryflow.store.catalog.raw import RAW
from boundaryflow.store.shard_files import keep_only
from boundaryflow.store.tables import write_json

LOG = logging.getLogger(__name__)
LEAST_PER_CLASS = {"train": 2, "val": 1}
"""Least images of each class of an attribute, in the split for fitting and the split for calibration."""

Facts = dict[str, dict[str, Any]]


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
        from boundaryflow.sources.network_labels import label_images  # torch, which labels from a table do without

        labels, about = label_images(ingested, out, raw, source, plain, sources, copies, shard_size)
    elif isinstance(source, TruthSource):
        labels = _by_truth(ingested, list(plain))
    else:
        labels, _ = read_labels(raw, source, plain, sources, copies=copies)
    if not isinstance(source, ClipSource | ClassifierSource | ProbeSource):
        keep_only(out, set())  # no features of a network of earlier runs
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
            from sklearn.metrics import roc_auc_score  # takes a second to import, for avatars only

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
