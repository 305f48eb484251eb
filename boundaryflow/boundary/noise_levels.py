"""Hyperplanes of many noise levels: each averaged with its neighbours, and only those that separate images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from boundaryflow.boundary.fit import calibrate
from boundaryflow.boundary.hyperplane import Boundary


def average_neighbours(
    hyperplanes: Sequence[Boundary],
    held_out: Sequence[Float[Tensor, "m ..."]],
    has_attribute: NDArray[np.bool_],
    *,
    neighbours: int,
) -> list[Boundary]:
    """Average each hyperplane of a path with those of the timesteps next to it.

    The bottlenecks of near timesteps are near each other, and the noise that each hyperplane was fitted
    on is another one, so that an average is steadier than any one hyperplane, at no network call. What is
    averaged are the hyperplanes' log-odds: for two normal distributions of one variance gap / sd^2 times
    the signed distance (see `Calibration.reach`), with weights that fall linearly to 0 one timestep
    after the last neighbour. A hyperplane whose classes do not differ has no say.

    Args:
        hyperplanes: One attribute's, by timestep.
        held_out: For each hyperplane the latents [m,...] to calibrate on, at its timestep.
        has_attribute: [m] their labels.
        neighbours: How many timesteps on either side; 0 leaves the hyperplanes as they are.

    Returns:
        As many hyperplanes, each calibrated at its own timestep.
    """
    if neighbours == 0:
        return list(hyperplanes)
    slopes = [
        max(hyperplane.calibration.gap, 0.0) / max(hyperplane.calibration.sd, 1e-12) ** 2 for hyperplane in hyperplanes
    ]
    found: list[Boundary] = []
    for own, (hyperplane, latents) in enumerate(zip(hyperplanes, held_out, strict=True)):
        near = range(max(0, own - neighbours), min(len(hyperplanes), own + neighbours + 1))
        weights = {k: slopes[k] * (1 - abs(k - own) / (neighbours + 1)) for k in near}
        normal = torch.stack([hyperplanes[k].normal * weight for k, weight in weights.items()]).sum(0)
        length = float(normal.norm())
        if length == 0:
            found.append(hyperplane)
            continue
        intercept = sum(hyperplanes[k].intercept * weight for k, weight in weights.items()) / length
        averaged = replace(hyperplane, normal=normal / length, intercept=intercept)
        distances = averaged.signed_distance(latents).double().cpu().numpy()
        found.append(replace(averaged, calibration=calibrate(distances, has_attribute)))
    return found


def separable(hyperplanes: Sequence[Boundary], min_auc: float) -> tuple[Boundary, ...]:
    """The hyperplanes with a held-out AUC of at least `min_auc`, whose classes lie on the right sides."""
    return tuple(
        hyperplane
        for hyperplane in hyperplanes
        if hyperplane.calibration.auc >= min_auc and hyperplane.calibration.gap > 0
    )
