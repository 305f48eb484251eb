"""How sure a mean is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
    drawn = np.random.default_rng(seed).choice(known, (num, len(known)))
    low, high = np.percentile(drawn.mean(1), [2.5, 97.5])
    return float(low), float(high)
