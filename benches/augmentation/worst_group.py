"""Accuracy in the worst group, with intervals over test pictures and trainings, the same ones for all arms."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

NUM_DRAWS = 2000


class WorstGroup:
    """Accuracy in the worst group: of each training that of its worst group, and of these the mean.

    Args:
        right: Arm to [S,N], whether each of S trainings is right about each of N test pictures.
        group: [N] 0 to 3, the group of each picture.
    """

    def __init__(self, right: Mapping[str, NDArray[np.bool_]], group: NDArray[np.int64]) -> None:
        self._names = list(right)
        every = np.stack([right[name] for name in self._names]).astype(np.float64)
        of_group = [every[..., group == g] for g in range(4)]
        self.groups = np.stack([part.mean(2) for part in of_group], 2)
        """[arms,S,4] accuracies."""
        rng = np.random.default_rng(0)
        num_seeds = every.shape[1]
        draws = np.empty((len(self._names), NUM_DRAWS))
        for draw in range(NUM_DRAWS):
            seeds = rng.integers(num_seeds, size=num_seeds)
            shares = [rng.multinomial(part.shape[2], np.full(part.shape[2], 1 / part.shape[2])) for part in of_group]
            means = [part @ share / share.sum() for part, share in zip(of_group, shares, strict=True)]
            draws[:, draw] = np.stack(means, 2).min(2)[:, seeds].mean(1)
        self._draws = draws

    def of(self, arm: str) -> tuple[float, list[float]]:
        """Accuracy and 95 % interval of an arm."""
        row = self._names.index(arm)
        return _value(self.groups[row].min(1).mean(), self._draws[row])

    def beyond(self, arm: str, *others: str) -> tuple[float, list[float]]:
        """How much higher an arm is than the best of others, and the 95 % interval of that."""
        row, rows = self._names.index(arm), [self._names.index(other) for other in others]
        values = self.groups.min(2).mean(1)
        return _value(values[row] - values[rows].max(), self._draws[row] - self._draws[rows].max(0))


def _value(value: float, draws: NDArray[np.float64]) -> tuple[float, list[float]]:
    low, high = np.quantile(draws, [0.025, 0.975])
    return round(float(value), 4), [round(float(low), 4), round(float(high), 4)]
