"""How sure a mean is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_VALUES_AT_ONCE = 2**20


def bootstrap_interval(values: NDArray[np.float64], num: int, seed: int) -> tuple[float, float]:
    """95 % percentile interval of the mean over bootstrap samples (Efron 1979).

    Args:
        values: One per image; NaN are left out.
        num: Bootstrap samples.
        seed: Seed of the samples.

    Returns:
        Lower and upper end; NaN where there is nothing to draw from.
    """
    known = values[~np.isnan(values)]
    if len(known) == 0 or num == 0:
        return float("nan"), float("nan")
    rng, at_once = np.random.default_rng(seed), max(1, _VALUES_AT_ONCE // len(known))
    sizes = [min(at_once, num - done) for done in range(0, num, at_once)]
    means = np.concatenate([rng.choice(known, (size, len(known))).mean(1) for size in sizes])
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
