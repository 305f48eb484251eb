"""What is known of an edited picture: a row for each, for the layouts that training code and viewers read."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd

from boundaryflow.errors import ManifestError
from boundaryflow.store.catalog.evaluate import EVALUATE, PER_IMAGE
from boundaryflow.store.catalog.label import LABEL, LABELS

LOG = logging.getLogger(__name__)
SPLITS = {"train": "train", "val": "validation", "test": "test"}
"""Split of a data set to its name in an export, which is that of the Hugging Face hub."""
_KEYS = ["item_id", "edit", "method", "strength"]
_TEXTS = ["item_id", "source", "dataset", "split", "edit", "method"]


def records_of(
    chosen: pd.DataFrame, dataset: str, manifest: pd.DataFrame, root: Path
) -> tuple[pd.DataFrame, list[str]]:
    """Add to edited pictures what is known of them.

    Args:
        chosen: Rows of `EDITS`.
        dataset: Name of the data set.
        manifest: Its table of images.
        root: The project's root.

    Returns:
        The rows, in the same order, with further columns; and the names of the columns of a record: item_id, source,
        dataset, split, edit, method, strength, synthetic, `targets` (JSON: attribute to +1 or -1), for each attribute
        `before_NAME` (probability by the labels of the image) and `after_NAME` (1 or 0 where the edit asks for it, else
        as before), and all measures of the stage evaluate. What is unknown is NaN.
    """
    images = manifest.set_index("item_id")
    splits = images["split"].map(SPLITS) if "split" in images else pd.Series("train", index=images.index)
    rows = chosen.assign(
        source=chosen["item_id"].map(images["source"]).fillna(""),
        dataset=dataset,
        split=chosen["item_id"].map(splits).fillna("train"),
        synthetic=True,
    )
    rows, attributes = _with_labels(rows, LABEL.folder(dataset, root))
    rows, measures = _with_measures(rows, dataset, EVALUATE.folder(dataset, root))
    return rows, [*_TEXTS, "strength", "synthetic", "targets", *attributes, *measures]


def labelled(rows: pd.DataFrame, label: str) -> pd.DataFrame:
    """The rows of which an attribute is known, with the column `label`: 1 where the edited picture has it, else 0.

    Raises:
        ManifestError: It is not an attribute, or is known of none.
    """
    column = f"after_{label}"
    if column not in rows:
        names = ", ".join(name.removeprefix("after_") for name in rows.columns if str(name).startswith("after_"))
        raise ManifestError(f"export: --label {label}: is not an attribute of these edits; there are {names}")
    known = rows[rows[column].notna()]
    if known.empty:
        raise ManifestError(f"export: --label {label}: is known of none of these pictures; choose others with --edit")
    return known.assign(label=(known[column] > 0.5).astype("int64"))


def _with_labels(rows: pd.DataFrame, folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Add before_NAME and after_NAME; returns the names of the columns, too."""
    labels = pd.DataFrame(index=pd.Index([], dtype=str))
    if (folder / LABELS.file).is_file():
        labels = LABELS.read(folder).set_index("item_id")
    wanted = {text: json.loads(text) for text in rows["targets"].unique()}
    added: dict[str, pd.Series[float]] = {}
    for name in sorted({*labels.columns, *(name for targets in wanted.values() for name in targets)}):
        before = rows["item_id"].map(labels[name]) if name in labels else pd.Series(np.nan, index=rows.index)
        sign = rows["targets"].map({text: targets.get(name, 0) for text, targets in wanted.items()})
        is_asked = (sign != 0) & (rows["strength"] > 0)
        added[f"before_{name}"] = before.astype("float32")
        added[f"after_{name}"] = before.where(~is_asked, (sign > 0).astype("float32")).astype("float32")
    return rows.assign(**added), list(added)


def _with_measures(rows: pd.DataFrame, dataset: str, folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Add the measures of the stage evaluate; returns their names, too."""
    if not (folder / PER_IMAGE.file).is_file():
        return rows, []
    judged = PER_IMAGE.read(folder)
    measures = [str(name) for name in judged.columns if name not in _KEYS]
    judged = judged.astype(dict.fromkeys(measures, "float32"))
    merged = rows.merge(judged, on=_KEYS, how="left", indicator="judged")
    if lacking := int((merged["judged"] != "both").sum()):
        LOG.warning(
            "export %s: %d of %d pictures were not judged, and have no measures; run `boundaryflow run --dataset %s`",
            dataset, lacking, len(merged), dataset,
        )  # fmt: skip
    return merged.drop(columns="judged"), measures
