"""Labelled images, and which of them each attribute's boundary is fitted and calibrated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from boundaryflow.boundary.fit import Labels
from boundaryflow.boundary.selection import balancing_weights, most_certain


@dataclass(frozen=True)
class Choice:
    """Which labelled images count, and how much; see section `boundary` of params.yaml."""

    min_confidence: float
    balance: bool
    balance_others: bool
    max_per_class: int | None


@dataclass(frozen=True)
class Labelled:
    """Images with labels, row by row.

    Attributes:
        items: Their ids.
        split: [n] train, val or test.
        labels: Probability of each attribute, a column each; NaN where unknown.
        choice: Which of them count, and how much.
    """

    items: list[str]
    split: NDArray[np.object_]
    labels: pd.DataFrame
    choice: Choice

    def of(self, attribute: str) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        """Probability of one attribute, the rows to fit on, and those to calibrate on."""
        probability = self.labels[attribute].to_numpy(np.float64)
        confident = np.maximum(probability, 1 - probability) >= self.choice.min_confidence  # not where it is unknown
        train = most_certain(
            np.flatnonzero((self.split == "train") & confident),
            probability,
            self.items,
            balance=self.choice.balance,
            max_per_class=self.choice.max_per_class,
        )
        return probability, train, np.flatnonzero((self.split == "val") & confident)

    def used(self, attributes: Sequence[str]) -> NDArray[np.int64]:
        """The rows that any of the attributes is fitted or calibrated on."""
        rows = [part for attribute in attributes for part in self.of(attribute)[1:]]
        return np.unique(np.concatenate(rows)) if rows else np.empty(0, np.int64)

    def among(self, rows: NDArray[np.int64], attributes: Sequence[str]) -> list[Labels]:
        """The labels of some rows, in that order, which hold all that are used."""
        found: list[Labels] = []
        for attribute in attributes:
            probability, train, held_out = self.of(attribute)
            weights = self._weights(attribute, train)
            found.append(
                Labels(
                    attribute,
                    probability[rows] > 0.5,
                    np.searchsorted(rows, train),
                    np.searchsorted(rows, held_out),
                    None if weights is None else weights[rows],
                )
            )
        return found

    def _weights(self, attribute: str, train: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """How much each image counts, or None where all count the same."""
        if not self.choice.balance_others or self.labels.shape[1] < 2:
            return None
        weights = np.ones(len(self.items))
        others = self.labels.drop(columns=[attribute]).to_numpy(np.float64)
        has_attribute = self.labels[attribute].to_numpy(np.float64) > 0.5
        weights[train] = balancing_weights(has_attribute[train], others[train])
        return weights
