"""Inversion and denoising against the exact path of Gaussian data."""

from __future__ import annotations

import pytest
import torch

from boundaryflow.diffusion import HShift, denoise, invert, timestep_path
from tests.unit.gaussian import GaussianModel


def images(num: int = 3, seed: int = 0) -> torch.Tensor:
    return 0.5 * torch.randn(num, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def path_error(num_steps: int) -> float:
    """Largest departure from the exact path, on which x_t / sd(x_t) is constant."""
    model, x_0 = GaussianModel(), images()
    x_mix = invert(model, x_0, timestep_path(600, num_steps)).x_mix
    return float((x_mix / model.radius(600) - x_0 / model.radius(0)).abs().max())


def test_inversion_error_halves_when_steps_double() -> None:
    coarse, fine = path_error(40), path_error(80)
    assert coarse / fine == pytest.approx(2, rel=0.15)


def test_round_trip_with_corrections_is_exact_at_any_eta() -> None:
    model, x_0 = GaussianModel(), images()
    path = timestep_path(600, 12)
    for eta in (0.0, 0.4, 1.0):
        inversion = invert(model, x_0, path, keep_residuals=True, eta=eta)
        back = denoise(model, inversion.x_mix, path, eta=eta, residuals=inversion.residuals)
        torch.testing.assert_close(back, x_0, atol=1e-5, rtol=0)


def test_corrections_cost_no_network_call() -> None:
    model = GaussianModel()
    invert(model, images(), timestep_path(600, 12), keep_residuals=True)
    assert model.calls == 12


def test_h_mix_belongs_to_x_mix() -> None:
    inversion = invert(GaussianModel(), images(), timestep_path(600, 12))
    torch.testing.assert_close(inversion.h_mix, inversion.x_mix.mean((2, 3), keepdim=True))


def test_results_do_not_depend_on_the_batch() -> None:
    model, x_0, path = GaussianModel(), images(4), timestep_path(500, 10)
    whole = invert(model, x_0, path).x_mix
    parts = torch.cat([invert(model, part, path).x_mix for part in x_0.split(1)])
    torch.testing.assert_close(whole, parts)


def test_stochastic_denoising_uses_the_noise_of_each_timestep() -> None:
    model, path = GaussianModel(), timestep_path(500, 10)
    asked: list[int] = []

    def noise(t: int) -> torch.Tensor:
        asked.append(t)
        return torch.zeros(3, 3, 4, 4)

    denoise(model, images(), path, eta=1.0, noise=noise)
    assert asked == list(reversed(path))[:-1]  # the step to the finished image adds none


def test_stochastic_denoising_without_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="no noise was given"):
        denoise(GaussianModel(), images(), timestep_path(500, 10), eta=1.0)


def test_h_shift_acts_only_in_its_window() -> None:
    model, path = GaussianModel(), timestep_path(500, 11)
    plain = denoise(model, images(), path)
    none = HShift(torch.ones(3, 3, 1, 1), t_high=1000, t_low=501)
    some = HShift(torch.ones(3, 3, 1, 1), t_high=500, t_low=400)
    torch.testing.assert_close(denoise(model, images(), path, h_shift=none), plain)
    assert not torch.allclose(denoise(model, images(), path, h_shift=some), plain)


def test_first_steps_can_be_those_of_the_forward_process() -> None:
    model, path = GaussianModel(), timestep_path(500, 6)
    noise = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(5))
    alpha_bar = model.schedule.alpha_bar(500)
    forward = alpha_bar**0.5 * images() + (1 - alpha_bar) ** 0.5 * noise
    torch.testing.assert_close(invert(model, images(), path, start_noise=noise, noise_until=500).x_mix, forward)
    with pytest.raises(ValueError, match="no start_noise"):
        invert(model, images(), path, noise_until=100)


def test_second_order_is_nearer_to_the_exact_path_and_returns_the_input_with_corrections() -> None:
    model, path = GaussianModel(), timestep_path(500, 12)
    exact = invert(model, images(), timestep_path(500, 501)).x_mix
    first, second = (invert(model, images(), path, order=order).x_mix for order in (1, 2))
    assert (second - exact).norm() < 0.3 * (first - exact).norm()
    inversion = invert(model, images(), path, order=2, keep_residuals=True)
    returned = denoise(model, inversion.x_mix, path, residuals=inversion.residuals)
    torch.testing.assert_close(returned, images(), atol=1e-5, rtol=1e-5)


def test_falling_path_is_refused() -> None:
    with pytest.raises(ValueError, match="must rise strictly"):
        invert(GaussianModel(), images(), (0, 10, 10))


def test_corrections_of_another_path_are_refused() -> None:
    model = GaussianModel()
    inversion = invert(model, images(), timestep_path(500, 10), keep_residuals=True)
    with pytest.raises(ValueError, match="10 residuals for a path of 12"):
        denoise(model, inversion.x_mix, timestep_path(500, 12), residuals=inversion.residuals)
