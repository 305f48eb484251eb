"""Planes of many noise levels: each averaged with its neighbours, and only those that tell images apart."""

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
    planes: Sequence[Boundary],
    held_out: Sequence[Float[Tensor, "m ..."]],
    has_attribute: NDArray[np.bool_],
    *,
    neighbours: int,
) -> list[Boundary]:
    """Average each plane of a path with those of the timesteps next to it.

    The bottlenecks of near timesteps are near each other, and the noise that each plane was fitted
    on is another one, so that an average is steadier than any one plane, at no network call. What is
    averaged are the planes' log-odds: for two normal distributions of one variance gap / sd^2 times
    the signed distance (see `Calibration.reach`), with weights that fall linearly to 0 one timestep
    after the last neighbour. A plane whose classes do not differ has no say.

    Args:
        planes: One attribute's, by timestep.
        held_out: For each plane the latents [m,...] to calibrate on, at its timestep.
        has_attribute: [m] their labels.
        neighbours: How many timesteps on either side; 0 leaves the planes as they are.

    Returns:
        As many planes, each calibrated at its own timestep.
    """
    if neighbours == 0:
        return list(planes)
    slopes = [max(plane.calibration.gap, 0.0) / max(plane.calibration.sd, 1e-12) ** 2 for plane in planes]
    found: list[Boundary] = []
    for own, (plane, latents) in enumerate(zip(planes, held_out, strict=True)):
        near = range(max(0, own - neighbours), min(len(planes), own + neighbours + 1))
        weights = {k: slopes[k] * (1 - abs(k - own) / (neighbours + 1)) for k in near}
        normal = torch.stack([planes[k].normal * weight for k, weight in weights.items()]).sum(0)
        length = float(normal.norm())
        if length == 0:
            found.append(plane)
            continue
        intercept = sum(planes[k].intercept * weight for k, weight in weights.items()) / length
        averaged = replace(plane, normal=normal / length, intercept=intercept)
        distances = averaged.signed_distance(latents).double().cpu().numpy()
        found.append(replace(averaged, calibration=calibrate(distances, has_attribute)))
    return found


def told_apart(planes: Sequence[Boundary], min_auc: float) -> tuple[Boundary, ...]:
    """The planes with a held-out AUC of at least `min_auc`, whose classes lie on the right sides."""
    return tuple(plane for plane in planes if plane.calibration.auc >= min_auc and plane.calibration.gap > 0)
