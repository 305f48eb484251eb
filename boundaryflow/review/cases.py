"""What there is to review: the edits of a data set, with their measures, as columns."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from boundaryflow.errors import ManifestError
from boundaryflow.evaluation.best_strength import best_strengths
from boundaryflow.review.verdicts import stamp_of
from boundaryflow.store.catalog.edit import EDIT, EDITS
from boundaryflow.store.catalog.evaluate import EVALUATE, PER_IMAGE
from boundaryflow.store.catalog.ingest import INGEST, MANIFEST
from boundaryflow.store.shard_files import shard_index


class Measure(NamedTuple):
    """What was measured of each edited picture.

    Attributes:
        column: Column of the table of the stage evaluate; empty for what is computed here.
        title: Its name on the page.
        meaning: Its definition in a sentence.
    """

    column: str
    title: str
    meaning: str


MEASURES = {
    "success": Measure("target_success", "Target reached", "The judge finds the attribute changed as requested."),
    "clean": Measure("clean_success", "Clean", "The target was reached, and no other attribute changed."),
    "probability": Measure("target_probability", "Probability", "The judge's probability that the target is reached."),
    "uncertainty": Measure("", "Uncertainty", "1 where that probability is 0.5, 0 where it is 0 or 1."),
    "drift": Measure("drift", "Drift", "How far the judge's probabilities of all other attributes moved, on average."),
    "identity": Measure("identity", "Identity", "Cosine of the identity embeddings before and after; 1: the same."),
    "recovery": Measure("counterfactual_recovery", "Recovery", "1: the exact counterfactual; 0: as far from it as the "
                        "unchanged picture."),
    "ssim": Measure("ssim", "SSIM", "Structural similarity before and after; 1: no change."),
}  # fmt: skip


@dataclass(frozen=True)
class Cases:
    """The edits of a data set; a case is one edit of one image, with a picture at each of K strengths.

    Attributes:
        dataset: Name of the data set.
        root: The checkout.
        generation: Changes with the tables that this was read from.
        items: Item of each case [N].
        edits: Names of the edits.
        edit_of: Index of the edit of each case [N].
        strengths: The K strengths.
        targets: JSON of the requested change of each case [N].
        places: Shard and row of the edited pictures of each case.
        inputs: Item to shard and row of its input picture.
        sources: Item to the name of its file.
        measures: Name to values [N,K] float32; NaN where unknown.
    """

    dataset: str
    root: Path
    generation: str
    items: list[str]
    edits: list[str]
    edit_of: NDArray[np.intp]
    strengths: list[float]
    targets: list[str]
    places: list[tuple[str, int]]
    inputs: Mapping[str, tuple[str, int]]
    sources: Mapping[str, str]
    measures: Mapping[str, NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def index(self) -> pd.MultiIndex:
        """(item, edit) of each case."""
        return pd.MultiIndex.from_arrays([self.items, np.asarray(self.edits)[self.edit_of]])

    @cached_property
    def best(self) -> NDArray[np.intp]:
        """Index of the strength at which the report shows each case's edit [N]."""
        means: dict[str, dict[float, dict[str, float | None]]] = {}
        for number, edit in enumerate(self.edits):
            mine = self.edit_of == number
            means[edit] = {
                strength: {
                    "target_success": _mean(self.measures, "success", mine, k),
                    "counterfactual_recovery": _mean(self.measures, "recovery", mine, k),
                }
                for k, strength in enumerate(self.strengths)
            }
        by_edit, _rule = best_strengths(means)
        return np.array([self.strengths.index(by_edit[edit]) for edit in self.edits])[self.edit_of]

    @cached_property
    def weakest(self) -> NDArray[np.intp]:
        """Index of the weakest strength above 0 at which each case reaches its target; that of `best` if none does."""
        if "success" not in self.measures:
            return self.best
        order = np.array(sorted(range(len(self.strengths)), key=lambda k: abs(self.strengths[k])))
        reached = (self.measures["success"] > 0.5)[:, order] & (np.asarray(self.strengths)[order] != 0)
        return np.where(reached.any(1), order[reached.argmax(1)], self.best)

    def shown(self, mode: str | int, judged_at: NDArray[np.intp]) -> NDArray[np.intp]:
        """Index of the strength at which each case is shown [N].

        Args:
            mode: `best`, `weakest`, or the index of one strength for all.
            judged_at: Index of the strength of each case's verdict, which counts first; -1 if there is none.
        """
        chosen = getattr(self, mode) if isinstance(mode, str) else np.full(len(self), mode)
        return np.where(judged_at >= 0, judged_at, chosen)

    def at(self, name: str, shown: NDArray[np.intp]) -> NDArray[np.float32]:
        """A measure of each case at the strength at which it is shown [N]."""
        if name == "strength":
            return np.asarray(self.strengths, np.float32)[shown]
        return self.measures[name][np.arange(len(self)), shown]


def _mean(measures: Mapping[str, NDArray[np.float32]], name: str, rows: NDArray[np.bool_], k: int) -> float | None:
    known = measures[name][rows, k] if name in measures else np.empty(0, np.float32)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else None


def generation_of(dataset: str, root: Path) -> str:
    """Changes with the tables of edits and of their measures."""
    stamps = [
        stamp_of(EDIT.folder(dataset, root) / EDITS.file),
        stamp_of(EVALUATE.folder(dataset, root) / PER_IMAGE.file),
        stamp_of(INGEST.folder(dataset, root) / MANIFEST.file),
    ]
    return hashlib.sha256(repr(stamps).encode()).hexdigest()[:12]


def read_cases(dataset: str, root: Path) -> Cases:
    """Read the edits that `edit.method` made, and their measures if they were judged.

    Raises:
        ManifestError: Nothing was edited yet, or a table is damaged.
    """
    generation, folder = generation_of(dataset, root), EDIT.folder(dataset, root)
    if not (folder / EDITS.file).is_file():
        raise ManifestError(
            f"{folder / EDITS.file}: nothing was edited yet; run `boundaryflow run --dataset {dataset}` first"
        )
    edits, method = EDITS.read(folder), EDIT.read_facts(dataset, root)["method"]
    edits = edits[edits["method"] == method]
    if edits.empty:
        raise ManifestError(f"{folder / EDITS.file}: holds no edited image, so there is nothing to review")
    of_index = edits.drop_duplicates("strength_index").sort_values("strength_index")
    first = edits.drop_duplicates(["edit", "item_id"]).sort_values(["edit", "item_id"])
    names, edit_of = np.unique(first["edit"].to_numpy(str), return_inverse=True)
    ingested = INGEST.folder(dataset, root)
    manifest, inputs = MANIFEST.read(ingested), shard_index(ingested)
    strengths = [float(strength) for strength in of_index["strength"]]
    return Cases(
        dataset=dataset,
        root=root,
        generation=generation,
        items=first["item_id"].tolist(),
        edits=names.tolist(),
        edit_of=edit_of,
        strengths=strengths,
        targets=first["targets"].tolist(),
        places=list(zip(first["shard"].tolist(), first["row"].tolist(), strict=True)),
        inputs={
            item: (shard, row) for item, shard, row in zip(*_lists(inputs, "item_id", "shard", "row"), strict=True)
        },
        sources=dict(zip(*_lists(manifest, "item_id", "source"), strict=True)),
        measures=_measures(EVALUATE.folder(dataset, root), method, first, strengths),
    )


def _lists(table: pd.DataFrame, *columns: str) -> list[list[Any]]:
    return [table[column].tolist() for column in columns]


def _measures(
    folder: Path, method: str, cases: pd.DataFrame, strengths: Sequence[float]
) -> dict[str, NDArray[np.float32]]:
    """Name to values [N,K]; empty if nothing was judged."""
    if not (folder / PER_IMAGE.file).is_file():
        return {}
    judged = PER_IMAGE.read(folder)
    judged = judged[judged["method"] == method]
    keys = ["edit", "item_id"]
    rows = pd.MultiIndex.from_frame(cases[keys]).get_indexer(pd.MultiIndex.from_frame(judged[keys]))
    columns = judged["strength"].map({strength: k for k, strength in enumerate(strengths)})
    known = (rows >= 0) & columns.notna().to_numpy()
    at = rows[known], columns[known].to_numpy(int)
    found: dict[str, NDArray[np.float32]] = {}
    for name, (column, _title, _meaning) in MEASURES.items():
        if column in judged and judged[column].notna().any():
            found[name] = np.full((len(cases), len(strengths)), np.nan, np.float32)
            found[name][at] = judged.loc[known, column].astype(float).to_numpy(np.float32)
    if "probability" in found:
        found["uncertainty"] = 1 - np.abs(2 * found["probability"] - 1)
    return found


def about_measures(cases: Cases) -> dict[str, dict[str, Any]]:
    """Name of each measure to title, meaning, range, and counts in 24 bins, each case at its edit's best strength."""
    found: dict[str, dict[str, Any]] = {}
    for name in (name for name in MEASURES if name in cases.measures):
        low, high = float(np.nanmin(cases.measures[name])), float(np.nanmax(cases.measures[name]))
        values = cases.at(name, cases.best)
        counts, _edges = np.histogram(values[~np.isnan(values)], 24, (low, max(high, low + 1e-6)))
        about = {"title": MEASURES[name].title, "meaning": MEASURES[name].meaning}
        found[name] = {**about, "low": low, "high": high, "counts": counts.tolist()}
    return found
