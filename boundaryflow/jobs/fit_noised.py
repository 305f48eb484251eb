"""Hyperplanes at many noise levels between images of two sides, without stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boundaryflow.boundary import Boundary, Gram, average_neighbours, fit_boundary, separable
from boundaryflow.diffusion import EpsModel, Features
from boundaryflow.diffusion.observation import noised_features
from boundaryflow.runtime.frozen_model import batch_size
from boundaryflow.runtime.process import Progress
from boundaryflow.seeds import item_seed


@dataclass(frozen=True)
class Sides:
    """Images of the two sides of a boundary.

    Attributes:
        x_0: [N,C,H,W] in model range.
        ids: [N] names, from which the noise and the held-out quarter are drawn.
        has: [N] whether the image is on the positive side.
    """

    x_0: Tensor
    ids: list[str]
    has: NDArray[np.bool_]


def fit_noised(
    model: EpsModel,
    sides: Sides,
    timesteps: Sequence[int],
    features: Features,
    name: str,
    *,
    ridge: float | None,
    neighbours: int,
    min_auc: float,
) -> tuple[Boundary, ...]:
    """Fit a hyperplane at every timestep, and keep those that separate the held-out quarter of the images.

    Args:
        model: The frozen model.
        sides: Images.
        timesteps: Timesteps whose noise is added.
        features: Features that the hyperplanes lie in.
        name: Name of the attribute.
        ridge: Penalty of the ridge regression, see `fit_boundaries`.
        neighbours: Timesteps on either side that are averaged, see `average_neighbours`.
        min_auc: Least held-out AUC.

    Raises:
        BoundaryError: A side has fewer than two images to fit on or one to calibrate on.
    """
    quarters = np.array([item_seed(0, item, "held out") % 4 for item in sides.ids])
    train, held_out = np.flatnonzero(quarters > 0), np.flatnonzero(quarters == 0)
    hyperplanes: list[Boundary] = []
    held_out_latents: list[Tensor] = []
    size = batch_size(model)
    with Progress("boundary", len(timesteps), "noise levels") as progress:
        for t in timesteps:
            parts = [
                noised_features(model, sides.x_0[start : start + size], sides.ids[start : start + size], t, 0, features)
                for start in range(0, len(sides.ids), size)
            ]
            latents = torch.cat(parts)
            hyperplane, _report = fit_boundary(
                Gram.of(latents), sides.has, train, held_out, space=features.space, t=t, attribute=name,
                model_sha256=model.sha256, estimator="ridge", ridge=ridge, with_patterns=True,
            )  # fmt: skip
            hyperplanes.append(hyperplane)
            held_out_latents.append(latents[held_out])
            progress.advance(1)
    averaged = average_neighbours(hyperplanes, held_out_latents, sides.has[held_out], neighbours=neighbours)
    return separable(averaged, min_auc)
