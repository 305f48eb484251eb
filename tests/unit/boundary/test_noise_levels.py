"""Planes of neighbouring noise levels are averaged, and those that tell nothing apart are left out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from boundaryflow.boundary import Boundary, Gram, average_neighbours, fit_boundary, told_apart

DIM, NUM, HELD_OUT = 400, 60, 300


def levels(*, num: int, size: float) -> tuple[list[Boundary], list[torch.Tensor], NDArray[np.bool_]]:
    """The same images at several noise levels: one direction, other noise; a plane each."""
    generator = torch.Generator().manual_seed(7)
    has = np.arange(NUM + HELD_OUT) % 2 == 0
    direction = torch.nn.functional.normalize(torch.randn(DIM, generator=generator), dim=0)
    planes: list[Boundary] = []
    held_out: list[torch.Tensor] = []
    for t in range(num):
        noise = torch.randn(len(has), DIM, generator=generator)
        latents = noise + size * torch.from_numpy(np.where(has, 1.0, -1.0)).float()[:, None] * direction
        plane, _report = fit_boundary(
            Gram.of(latents), has, np.arange(NUM), np.arange(NUM, len(has)), space="h", t=t, attribute="hat",
            model_sha256="m", estimator="ridge",
        )  # fmt: skip
        planes.append(plane)
        held_out.append(latents[NUM:])
    return planes, held_out, has[NUM:]


def test_average_of_weak_planes_tells_apart_better_than_any_of_them() -> None:
    planes, held_out, has = levels(num=5, size=1.2)
    averaged = average_neighbours(planes, held_out, has, neighbours=2)
    assert [plane.t for plane in averaged] == [0, 1, 2, 3, 4]
    assert averaged[2].calibration.auc > max(plane.calibration.auc for plane in planes) + 0.02
    for plane, latents in zip(averaged, held_out, strict=True):
        assert float(plane.normal.norm()) == pytest.approx(1, abs=1e-5)
        distances = plane.signed_distance(latents).numpy()
        assert plane.calibration.mean_positive == pytest.approx(distances[has].mean(), abs=1e-5)


def test_average_is_that_of_the_log_odds() -> None:
    planes, held_out, has = levels(num=3, size=2.0)
    averaged = average_neighbours(planes, held_out, has, neighbours=1)[1]

    def log_odds(plane: Boundary) -> torch.Tensor:
        return plane.signed_distance(held_out[1]) * plane.calibration.gap / plane.calibration.sd**2

    mean = 0.5 * log_odds(planes[0]) + log_odds(planes[1]) + 0.5 * log_odds(planes[2])
    distance = averaged.signed_distance(held_out[1])
    assert torch.allclose(distance / distance.std(), mean / mean.std(), atol=1e-3)


def test_without_neighbours_planes_stay_as_they_are() -> None:
    planes, held_out, has = levels(num=2, size=2.0)
    assert average_neighbours(planes, held_out, has, neighbours=0) == planes


def test_plane_with_its_classes_on_the_wrong_sides_has_no_say_and_is_not_followed() -> None:
    planes, held_out, has = levels(num=2, size=3.0)
    held = planes[1].calibration
    swapped = dataclasses.replace(held, mean_positive=held.mean_negative, mean_negative=held.mean_positive, auc=0.9)
    wrong = dataclasses.replace(planes[1], normal=-planes[1].normal, calibration=swapped)
    first, second = average_neighbours([planes[0], wrong], held_out, has, neighbours=1)
    assert torch.allclose(first.normal, planes[0].normal, atol=1e-6)
    assert torch.allclose(second.normal, planes[0].normal, atol=1e-6)
    assert told_apart([planes[0], wrong], 0.8) == (planes[0],)
    assert told_apart([planes[0]], 1.0) == (() if planes[0].calibration.auc < 1 else (planes[0],))
