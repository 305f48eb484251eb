"""Attributes that combine others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class Combination:
    """An attribute that combines others.

    Attributes:
        kind: Negation of one part, all parts, or any of them.
        parts: Names of attributes, which may be combinations.
    """

    kind: Literal["not", "all", "any"]
    parts: Sequence[str]


def combined(labels: pd.DataFrame, combinations: Mapping[str, Combination]) -> pd.DataFrame:
    """Labels with combined attributes added; combinations may refer to each other.

    `not` is 1 - p; `all` is the minimum and `any` the maximum of the parts' probabilities. If a part is unknown, so is
    the result, unless the known parts decide it.

    Args:
        labels: A column per attribute, NaN where unknown.
        combinations: Attribute to its combination; all parts must exist, without cycles.
    """
    result = labels.copy()
    for name in TopologicalSorter({name: c.parts for name, c in combinations.items()}).static_order():
        if name in combinations:
            parts = result[list(combinations[name].parts)].to_numpy(np.float64)
            result[name] = _combine(combinations[name].kind, parts).astype(np.float32)
    return result


def _combine(kind: Literal["not", "all", "any"], parts: NDArray[np.float64]) -> NDArray[np.float64]:
    unknown = np.isnan(parts)
    if kind == "not":
        return 1 - parts[:, 0]
    if kind == "all":
        least = np.where(unknown, np.inf, parts).min(axis=1)
        return np.where(unknown.any(axis=1) & (least > 0.5), np.nan, least)
    greatest = np.where(unknown, -np.inf, parts).max(axis=1)
    return np.where(unknown.any(axis=1) & (greatest <= 0.5), np.nan, greatest)
