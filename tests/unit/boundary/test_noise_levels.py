"""Hyperplanes of neighbouring noise levels are averaged, and those that tell nothing apart are left out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from boundaryflow.boundary import Boundary, Gram, average_neighbours, fit_boundary, separable

DIM, NUM, HELD_OUT = 400, 60, 300


def levels(*, num: int, size: float) -> tuple[list[Boundary], list[torch.Tensor], NDArray[np.bool_]]:
    """The same images at several noise levels: one direction, other noise; a hyperplane each."""
    generator = torch.Generator().manual_seed(7)
    has = np.arange(NUM + HELD_OUT) % 2 == 0
    direction = torch.nn.functional.normalize(torch.randn(DIM, generator=generator), dim=0)
    hyperplanes: list[Boundary] = []
    held_out: list[torch.Tensor] = []
    for t in range(num):
        noise = torch.randn(len(has), DIM, generator=generator)
        latents = noise + size * torch.from_numpy(np.where(has, 1.0, -1.0)).float()[:, None] * direction
        hyperplane, _report = fit_boundary(
            Gram.of(latents), has, np.arange(NUM), np.arange(NUM, len(has)), space="h", t=t, attribute="hat",
            model_sha256="m", estimator="ridge",
        )  # fmt: skip
        hyperplanes.append(hyperplane)
        held_out.append(latents[NUM:])
    return hyperplanes, held_out, has[NUM:]


def test_average_of_weak_planes_tells_apart_better_than_any_of_them() -> None:
    hyperplanes, held_out, has = levels(num=5, size=1.2)
    averaged = average_neighbours(hyperplanes, held_out, has, neighbours=2)
    assert [hyperplane.t for hyperplane in averaged] == [0, 1, 2, 3, 4]
    assert averaged[2].calibration.auc > max(hyperplane.calibration.auc for hyperplane in hyperplanes) + 0.02
    for hyperplane, latents in zip(averaged, held_out, strict=True):
        assert float(hyperplane.normal.norm()) == pytest.approx(1, abs=1e-5)
        distances = hyperplane.signed_distance(latents).numpy()
        assert hyperplane.calibration.mean_positive == pytest.approx(distances[has].mean(), abs=1e-5)


def test_average_is_that_of_the_log_odds() -> None:
    hyperplanes, held_out, has = levels(num=3, size=2.0)
    averaged = average_neighbours(hyperplanes, held_out, has, neighbours=1)[1]

    def log_odds(hyperplane: Boundary) -> torch.Tensor:
        return hyperplane.signed_distance(held_out[1]) * hyperplane.calibration.gap / hyperplane.calibration.sd**2

    mean = 0.5 * log_odds(hyperplanes[0]) + log_odds(hyperplanes[1]) + 0.5 * log_odds(hyperplanes[2])
    distance = averaged.signed_distance(held_out[1])
    assert torch.allclose(distance / distance.std(), mean / mean.std(), atol=1e-3)


def test_without_neighbours_planes_stay_as_they_are() -> None:
    hyperplanes, held_out, has = levels(num=2, size=2.0)
    assert average_neighbours(hyperplanes, held_out, has, neighbours=0) == hyperplanes


def test_plane_with_its_classes_on_the_wrong_sides_has_no_say_and_is_not_followed() -> None:
    hyperplanes, held_out, has = levels(num=2, size=3.0)
    held = hyperplanes[1].calibration
    swapped = dataclasses.replace(held, mean_positive=held.mean_negative, mean_negative=held.mean_positive, auc=0.9)
    wrong = dataclasses.replace(hyperplanes[1], normal=-hyperplanes[1].normal, calibration=swapped)
    first, second = average_neighbours([hyperplanes[0], wrong], held_out, has, neighbours=1)
    assert torch.allclose(first.normal, hyperplanes[0].normal, atol=1e-6)
    assert torch.allclose(second.normal, hyperplanes[0].normal, atol=1e-6)
    assert separable([hyperplanes[0], wrong], 0.8) == (hyperplanes[0],)
    assert separable([hyperplanes[0]], 1.0) == (() if hyperplanes[0].calibration.auc < 1 else (hyperplanes[0],))
