"""Directions of an edit for each image, from its labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

TARGET_SIGNS = {"add": (1, 0), "remove": (0, -1), "flip": (1, -1)}
"""Target to the direction for an image without the attribute, and for one with it."""


def directions_of(labels: pd.DataFrame, items: Sequence[str], targets: Mapping[str, str]) -> dict[str, list[int]]:
    """Direction per image and attribute: +1, -1, or 0 if it is on the target side already or its label is unknown."""
    probabilities = labels.loc[list(items), list(targets)].to_numpy(np.float64)
    return {
        item: [
            0 if np.isnan(p) else TARGET_SIGNS[target][int(p > 0.5)]
            for p, target in zip(row, targets.values(), strict=True)
        ]
        for item, row in zip(items, probabilities, strict=True)
    }
