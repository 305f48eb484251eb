"""Confidence intervals of means and shares."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_VALUES_AT_ONCE = 2**20


def wilson_interval(num_success: int, num: int) -> tuple[float, float]:
    """95 % score interval of a share (Wilson 1927); unlike a bootstrap's, that of 0 of 12 is not 0 to 0.

    Args:
        num_success: Number of successes.
        num: Number of trials.

    Returns:
        Lower and upper end in [0, 1]; NaN without trials.

    Example:
        >>> low, high = wilson_interval(0, 12)
        >>> low, round(high, 2)
        (0.0, 0.24)
    """
    if num == 0:
        return float("nan"), float("nan")
    from scipy.stats import binomtest  # takes a second to import, and only who judges edits needs it

    interval = binomtest(num_success, num).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_interval(values: NDArray[np.float64], num: int, seed: int) -> tuple[float, float]:
    """95 % percentile interval of the mean over bootstrap samples (Efron 1979).

    Args:
        values: One per image; NaN are ignored.
        num: Number of bootstrap samples.
        seed: Seed of the samples.

    Returns:
        Lower and upper end; NaN without values or samples.

    Example:
        >>> low, high = bootstrap_interval(np.arange(5.0), 1000, seed=0)
        >>> round(low, 1), round(high, 1)
        (0.8, 3.2)
    """
    known = values[~np.isnan(values)]
    if len(known) == 0 or num == 0:
        return float("nan"), float("nan")
    rng, at_once = np.random.default_rng(seed), max(1, _VALUES_AT_ONCE // len(known))
    sizes = [min(at_once, num - done) for done in range(0, num, at_once)]
    means = np.concatenate([rng.choice(known, (size, len(known))).mean(1) for size in sizes])
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
