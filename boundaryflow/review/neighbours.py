"""Which pictures are alike, by the features that the stage label stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boundaryflow.errors import ManifestError
from boundaryflow.review.cases import Cases
from boundaryflow.store.catalog.label import LABEL
from boundaryflow.store.shard_files import in_batches, load_arrays, shard_files

_AT_ONCE = 4096


@dataclass(frozen=True)
class Features:
    """Features of the inputs of all cases.

    Attributes:
        of_case: Row of each case [N].
        values: Centred features of unit length [items, d] float16.
    """

    of_case: NDArray[np.intp]
    values: NDArray[np.float16]

    def nearest(self, case: int, edit_of: NDArray[np.intp], num: int) -> list[int]:
        """The cases of the same edit whose inputs are most alike, by cosine similarity; the nearest first."""
        same = np.flatnonzero(edit_of == edit_of[case])
        own = self.values[self.of_case[case]].astype(np.float32)
        rows = self.of_case[same]
        parts = np.split(rows, range(_AT_ONCE, len(rows), _AT_ONCE))
        similar = np.concatenate([self.values[part].astype(np.float32) @ own for part in parts])
        similar[same == case] = -2
        return same[np.argsort(-similar, kind="stable")][: min(num, len(same) - 1)].tolist()


def read_features(cases: Cases) -> Features | None:
    """Features of CLIP or of the labelling classifiers; None where the labels came from neither."""
    folder = LABEL.folder(cases.dataset, cases.root)
    if not shard_files(folder):
        return None
    items, of_case = np.unique(cases.items, return_inverse=True)
    try:
        values = _read(folder, items.tolist())
    except ManifestError:  # of other images, or half written: the page does without
        return None
    return Features(of_case, values)


def _read(folder: Path, items: Sequence[str]) -> NDArray[np.float16]:
    """Centred features of unit length."""
    place = {item: row for row, item in enumerate(items)}
    values: NDArray[np.float16] | None = None
    for batch in in_batches(folder, items, _AT_ONCE):
        some = load_arrays(folder, batch, ["features"])["features"]
        values = np.empty((len(items), some.shape[1]), np.float16) if values is None else values
        values[[place[item] for item in batch]] = _unit(some)
    if values is None:
        raise ManifestError(f"{folder}: no features")
    centre = values.mean(0, dtype=np.float32)
    for start in range(0, len(values), _AT_ONCE):
        values[start : start + _AT_ONCE] = _unit(values[start : start + _AT_ONCE] - centre)
    return values


def _unit(values: NDArray[np.floating]) -> NDArray[np.float32]:
    return (values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)).astype(np.float32)
