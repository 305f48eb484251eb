"""Every metric at the points where its value is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from boundaryflow.evaluation.attributes import attribute_drift, num_flipped, target_reached
from boundaryflow.evaluation.counterfactual import counterfactual_recovery, rmse
from boundaryflow.evaluation.directional import directional_similarity
from boundaryflow.evaluation.distribution import frechet_distance, kernel_distance
from boundaryflow.evaluation.intervals import bootstrap_interval, wilson_interval
from boundaryflow.evaluation.structure import psnr_db, segmentation_consistency, ssim


def pictures(seed: int = 0, num: int = 3) -> torch.Tensor:
    return torch.rand(num, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_recovery_is_one_at_the_truth_zero_at_the_input_and_negative_beyond() -> None:
    before, truth = pictures(0), pictures(1)
    torch.testing.assert_close(counterfactual_recovery(before, truth, truth), torch.ones(3))
    torch.testing.assert_close(counterfactual_recovery(before, before, truth), torch.zeros(3))
    torch.testing.assert_close(counterfactual_recovery(before, before + (before - truth), truth), -torch.ones(3))
    halfway = (before + truth) / 2
    torch.testing.assert_close(counterfactual_recovery(before, halfway, truth), torch.full((3,), 0.5))


def test_rmse_looks_only_where_it_is_told() -> None:
    a, b = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    b[..., :2] = 0.5
    left = torch.zeros(1, 4, 4, dtype=torch.bool)
    left[..., :2] = True
    assert rmse(a, b, left).item() == pytest.approx(0.5)
    assert rmse(a, b, ~left).item() == 0
    assert rmse(a, b).item() == pytest.approx(0.5 / math.sqrt(2))
    assert rmse(a, b, torch.zeros_like(left)).isnan().all()


def test_structure_of_equal_pictures_is_perfect() -> None:
    torch.testing.assert_close(ssim(pictures(), pictures()), torch.ones(3))
    torch.testing.assert_close(psnr_db(pictures(), pictures()), torch.full((3,), 100.0))
    assert psnr_db(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.1)).item() == pytest.approx(20, abs=1e-3)
    assert (ssim(pictures(0), pictures(1)) < 0.2).all()


def test_target_and_drift_count_only_what_they_should() -> None:
    before = torch.tensor([[0.1, 0.9, 0.5], [0.1, 0.9, 0.2]])
    after = torch.tensor([[0.8, 0.9, 0.4], [0.8, 0.3, 0.9]])
    targets = torch.tensor([[1.0, 0.0, 0.0], [1.0, -1.0, 0.0]])
    assert target_reached(after, targets).tolist() == [True, True]
    assert target_reached(after, -targets).tolist() == [False, False]
    torch.testing.assert_close(attribute_drift(before, after, targets), torch.tensor([0.05, 0.7]))
    assert num_flipped(before, after, targets).tolist() == [0, 1]


def test_segmentation_consistency_inside_and_outside() -> None:
    before, after = torch.zeros(1, 2, 2, dtype=torch.long), torch.tensor([[[0, 1], [0, 0]]])
    assert segmentation_consistency(before, after).item() == 0.75
    changed = before != after
    assert segmentation_consistency(before, after, ~changed).item() == 1
    assert segmentation_consistency(before, after, changed).item() == 0


def test_directional_similarity_is_a_cosine() -> None:
    before, direction = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert directional_similarity(before, torch.tensor([[1.0, 0.3]]), direction).item() == pytest.approx(1)
    assert directional_similarity(before, torch.tensor([[1.0, -0.3]]), direction).item() == pytest.approx(-1)
    assert directional_similarity(before, before, direction).item() == 0


def test_frechet_distance_of_shifted_gaussians_is_the_squared_shift() -> None:
    real = torch.randn(400, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(real, real + 1) == pytest.approx(6, abs=1e-6)
    assert math.isnan(frechet_distance(real[:1], real))


def test_kernel_distance_is_near_zero_only_for_one_distribution() -> None:
    draw = torch.Generator().manual_seed(0)
    first, second = torch.randn(300, 4, generator=draw), torch.randn(300, 4, generator=draw)
    assert abs(kernel_distance(first, second)) < 0.1
    assert kernel_distance(first, second + 1) > 1
    assert math.isnan(kernel_distance(first, second[:1]))


def test_bootstrap_interval_holds_the_mean_and_narrows() -> None:
    rng = np.random.default_rng(0)
    wide = bootstrap_interval(rng.random(20), 500, 0)
    narrow = bootstrap_interval(rng.random(2000), 500, 0)
    assert wide[0] < 0.5 < wide[1]
    assert narrow[1] - narrow[0] < 0.2 * (wide[1] - wide[0])
    assert all(math.isnan(v) for v in bootstrap_interval(np.full(3, np.nan), 500, 0))


def test_recovery_is_unknown_where_there_is_nothing_to_recover() -> None:
    before, after = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    truth = before.clone()
    truth[1] = 1 - truth[1]
    recovered = counterfactual_recovery(before, after, truth)
    assert math.isnan(recovered[0])
    assert math.isfinite(recovered[1])


def test_kernel_distance_is_the_same_each_time() -> None:
    real, edited = torch.randn(50, 8), torch.randn(50, 8)
    assert len({kernel_distance(real, edited) for _ in range(5)}) == 1


def test_interval_of_a_share_is_wilsons() -> None:
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Newcombe 1998, method 3
    low, high = wilson_interval(0, 12)
    assert low == 0
    assert high == pytest.approx(0.2425, abs=1e-4)
    assert wilson_interval(10, 10)[1] == pytest.approx(1.0)
    assert all(math.isnan(v) for v in wilson_interval(0, 0))
