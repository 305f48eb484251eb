"""One DDIM step against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from boundaryflow.diffusion import NoiseSchedule, ddim_sigma, ddim_step, timestep_path


def test_step_with_the_true_noise_lands_on_the_forward_process() -> None:
    generator = torch.Generator().manual_seed(0)
    x_0, noise = torch.randn(2, 2, 3, 4, 4, generator=generator, dtype=torch.float64)
    schedule = NoiseSchedule.linear()
    for t, t_next in ((500, 100), (100, 700), (40, -1)):
        now, then = schedule.alpha_bar(t), schedule.alpha_bar(t_next)
        x_t = math.sqrt(now) * x_0 + math.sqrt(1 - now) * noise
        expected = math.sqrt(then) * x_0 + math.sqrt(1 - then) * noise
        torch.testing.assert_close(ddim_step(x_t, noise, now, then), expected)


def test_eta_one_has_the_variance_of_the_ddpm_posterior() -> None:
    schedule = NoiseSchedule.linear()
    t = 300
    now, then = schedule.alpha_bar(t), schedule.alpha_bar(t - 1)
    posterior = float(schedule.betas[t]) * (1 - then) / (1 - now)  # Ho et al. 2020, eq. 7
    assert ddim_sigma(now, then, 1.0) ** 2 == pytest.approx(posterior)


def test_stochastic_step_without_noise_is_refused() -> None:
    x = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="no noise was given"):
        ddim_step(x, x, 0.5, 0.6, eta=1.0)


def test_stochastic_inversion_is_refused() -> None:
    x = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="inversion is deterministic"):
        ddim_step(x, x, 0.6, 0.5, eta=0.5, noise=x)


def test_last_step_returns_the_predicted_image_whatever_eta() -> None:
    x, eps = torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.5)
    expected = (x - math.sqrt(0.5) * eps) / math.sqrt(0.5)
    torch.testing.assert_close(ddim_step(x, eps, 0.5, 1.0, eta=1.0), expected)


def test_path_is_the_grid_of_the_release() -> None:
    path = timestep_path(500, 40)
    assert path[:4] == (0, 12, 25, 38)
    assert path[-3:] == (474, 487, 500)
    assert len(path) == 40


@pytest.mark.parametrize("num_steps", [0, 1, 12])
def test_impossible_path_is_refused(num_steps: int) -> None:
    with pytest.raises(ValueError, match="has 2 to 11 timesteps"):
        timestep_path(10, num_steps)


def test_alpha_bar_table_matches_known_values() -> None:
    schedule = NoiseSchedule.linear()
    assert schedule.alpha_bar(500) == pytest.approx(0.0778, abs=1e-4)
    assert schedule.alpha_bar(100) == pytest.approx(0.8951, abs=1e-4)
    assert schedule.alpha_bar(-1) == 1.0
    with pytest.raises(ValueError, match="outside"):
        schedule.alpha_bar(1000)


@pytest.mark.parametrize(("t_end", "num_steps"), [(500, 501), (100, 101), (999, 1000), (100, 90), (999, 998)])
def test_fine_path_still_rises(t_end: int, num_steps: int) -> None:
    path = timestep_path(t_end, num_steps)
    assert (len(path), path[0], path[-1]) == (num_steps, 0, t_end)
    assert all(later > earlier for earlier, later in zip(path, path[1:], strict=False))


@pytest.mark.parametrize("eta", [-0.5, 3.0, math.nan])
def test_eta_outside_its_range_is_refused(eta: float) -> None:
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        ddim_sigma(0.5, 0.6, eta)
