"""Normals in ε-space without their fine grain, which is mostly what single training images left there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from boundaryflow.blur import gaussian_blur
from boundaryflow.boundary.fit import calibrate
from boundaryflow.boundary.hyperplane import Boundary
from boundaryflow.boundary.rows import LatentRows, project


def low_passed(
    boundary: Boundary,
    shape: Sequence[int],
    width: float,
    held_out: LatentRows,
    has_attribute: NDArray[np.bool_],
) -> Boundary:
    """Smooth the normal of a hyperplane in ε-space as if it were an image, and calibrate the hyperplane again.

    Args:
        boundary: In ε-space.
        shape: (C, H, W) of a latent.
        width: Standard deviation of the Gaussian in pixels; 0 leaves the boundary as it is.
        held_out: m latents to calibrate on.
        has_attribute: [m] their labels.

    Returns:
        The hyperplane with a unit normal, halfway between the held-out class means.
    """
    if width == 0:
        return boundary
    radius = min(round(3 * width), (min(shape[1:]) - 1) // 2)
    smooth = gaussian_blur(boundary.normal.reshape(1, *shape), radius, width).flatten()
    turned = replace(boundary, normal=smooth / smooth.norm(), intercept=0.0)
    distances = project(held_out, turned.normal[None])[:, 0]
    middle = calibrate(distances, has_attribute).middle
    return replace(turned, intercept=-middle, calibration=calibrate(distances - middle, has_attribute))
