"""Which of the labelled images a boundary is fitted on, and how much each counts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def to_fit_on(manifest: pd.DataFrame, labels: pd.DataFrame, max_images: int) -> list[str]:
    """Labelled images: the first to fit on, and half as many to calibrate on; ids are hashes, so as good as random.

    Args:
        manifest: A row per image, with `item_id`, `status` and `split`.
        labels: Probability of each attribute, a column each, indexed by item; NaN where unknown.
        max_images: At most so many of the training split, and half as many (rounded up) of the validation split.

    Returns:
        Their ids, sorted.
    """
    labelled = labels.index[labels.notna().any(axis=1)]
    usable = manifest[(manifest["status"] == "ok") & manifest["item_id"].isin(labelled)]
    chosen: list[str] = []
    for split, limit in (("train", max_images), ("val", (max_images + 1) // 2)):
        chosen += sorted(usable.loc[usable["split"] == split, "item_id"])[:limit]
    return sorted(chosen)


def most_certain(
    rows: NDArray[np.int64],
    probability: NDArray[np.float64],
    item_ids: Sequence[str],
    *,
    balance: bool,
    max_per_class: int | None,
) -> NDArray[np.int64]:
    """The images to fit on: so many of each class, the most certain first.

    Of equally certain ones a hash of the id decides, so that no other image has a say in it.

    Args:
        rows: Images to choose from; their labels are known.
        probability: [n] labels of all images; above 0.5 has the attribute.
        item_ids: [n] their ids.
        balance: As many with the attribute as without: all of the smaller class.
        max_per_class: At most so many of each class; None is no limit.

    Returns:
        The chosen rows, ascending.
    """
    classes = [rows[probability[rows] > 0.5], rows[probability[rows] <= 0.5]]
    limits = [len(of_class) for of_class in classes]
    if balance and min(limits) > 0:  # else the fit says what is missing
        limits = [min(limits)] * 2
    if max_per_class is not None:
        limits = [min(limit, max_per_class) for limit in limits]
    chosen = [_first(of_class, probability, item_ids, n) for of_class, n in zip(classes, limits, strict=True)]
    return np.sort(np.concatenate(chosen))


def _first(
    rows: NDArray[np.int64], probability: NDArray[np.float64], item_ids: Sequence[str], num: int
) -> NDArray[np.int64]:
    if num >= len(rows):
        return rows
    keys = [(-abs(float(probability[row]) - 0.5), _lot(item_ids[int(row)])) for row in rows]
    return rows[sorted(range(len(rows)), key=keys.__getitem__)[:num]]


def _lot(item_id: str) -> bytes:
    return hashlib.sha256(f"selection {item_id}".encode()).digest()


def balancing_weights(
    has_attribute: NDArray[np.bool_], others: NDArray[np.float64], *, num_rounds: int = 50, largest: float = 10.0
) -> NDArray[np.float64]:
    """Weights under which every other attribute is as frequent with the attribute as without it.

    Where hats go with beards, the hyperplane between hats and no hats leans towards beards. Raking
    (Deming and Stephan 1940) scales the images of each side until the other attributes have the
    same shares on both: those that they have in the mean of the two sides.

    Args:
        has_attribute: [n] the attribute.
        others: [n,m] probabilities of the other attributes; NaN where unknown, which changes nothing.
        num_rounds: Passes over the other attributes.
        largest: No image counts more than this many times the mean of its side.

    Returns:
        [n] weights with mean 1 on each side.
    """
    weights = np.ones(len(has_attribute))
    sides = [side for side in (has_attribute, ~has_attribute) if side.any()]
    for _ in range(num_rounds):
        for column in others.T:
            known = ~np.isnan(column)
            has = known & (column > 0.5)
            shares = [weights[side & has].sum() / max(weights[side & known].sum(), 1e-12) for side in sides]
            goal = float(np.mean(shares))
            if not 0 < goal < 1:
                continue
            for side, share in zip(sides, shares, strict=True):
                if 0 < share < 1:
                    weights[side & has] *= goal / share
                    weights[side & known & ~has] *= (1 - goal) / (1 - share)
        for side in sides:
            weights[side] = np.minimum(weights[side] / weights[side].mean(), largest)
            weights[side] /= weights[side].mean()
    return weights
