"""The single-step edit, the paper mode, and the search for the mixing step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from boundaryflow.boundary import Boundary, Calibration
from boundaryflow.config.advice import with_advice
from boundaryflow.diffusion import NoiseSchedule, ddim_step, invert, timestep_path
from boundaryflow.editing import (
    Curves,
    Move,
    choose_mixing_step,
    edit,
    measure_curves,
    paper_edit,
    paper_invert,
    separability,
)
from boundaryflow.errors import BoundaryError
from tests.unit.gaussian import GaussianModel


def boundary(direction: torch.Tensor, attribute: str = "a", space: str = "eps") -> Boundary:
    return Boundary(
        normal=direction / direction.norm(),
        intercept=0.0,
        space=space,  # pyright: ignore[reportArgumentType]
        t=500,
        attribute=attribute,
        model_sha256="f" * 64,
        calibration=Calibration(1.0, -1.0, 1.0, 1.0, 2),
    )


def images(num: int = 3) -> torch.Tensor:
    return 0.5 * torch.randn(num, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_joint_move_gives_every_shift_though_normals_are_oblique() -> None:
    generator = torch.Generator().manual_seed(2)
    first = torch.randn(48, generator=generator)
    second = first + 0.5 * torch.randn(48, generator=generator)
    boundaries = [boundary(first, "a"), boundary(second, "b")]
    shifts = torch.tensor([[2.0, 0.0], [1.0, -3.0]])
    offset = Move(boundaries, shifts).offset((3, 4, 4)).flatten(1)
    for column, b in enumerate(boundaries):
        torch.testing.assert_close(offset @ b.normal, shifts[:, column], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_move_of_zero_returns_the_input(eta: float) -> None:
    model, x_0 = GaussianModel(), images()
    inversion = invert(model, x_0, timestep_path(500, 10), keep_residuals=True, eta=eta)
    still_eps = Move([boundary(torch.ones(48))], torch.zeros(3, 1))
    still_h = Move([boundary(torch.ones(3), space="h")], torch.zeros(3, 1))
    back = edit(model, inversion, move_eps=still_eps, move_h=still_h, eta=eta)
    torch.testing.assert_close(back, x_0, atol=1e-5, rtol=0)


def test_eps_move_carries_to_the_image_along_the_normal() -> None:
    model, x_0 = GaussianModel(), images()
    inversion = invert(model, x_0, timestep_path(500, 200), keep_residuals=True)
    b = boundary(torch.randn(48, generator=torch.Generator().manual_seed(3)))
    moved = edit(model, inversion, move_eps=Move([b], torch.full((3, 1), 2.0)), move_h=None)
    # The Gaussian model scales every direction alike, by sd(x_0) / sd(x_500).
    expected = 2.0 * model.s / model.radius(500)
    torch.testing.assert_close((moved - x_0).flatten(1) @ b.normal, torch.full((3,), expected), atol=0.02, rtol=0)


def test_paper_mode_carries_the_bottleneck_from_step_to_step() -> None:
    model, x_0, path = GaussianModel(), images(), timestep_path(500, 5)
    x_lat, h_lat = paper_invert(model, x_0, path)
    before_last = invert(model, x_0, path[:-1]).x_mix
    torch.testing.assert_close(h_lat, before_last.mean((2, 3), keepdim=True))
    n_eps, n_h = torch.ones(48) / 48**0.5, torch.ones(3) / 3**0.5
    edited = paper_edit(model, x_lat, h_lat, path, normal_eps=n_eps, normal_h=n_h, distance=1.5, eta=0.0)

    x_t = x_lat + ((1.5 - x_lat.flatten(1) @ n_eps)[:, None] * n_eps).reshape(x_lat.shape)
    h = h_lat + ((1.5 - h_lat.flatten(1) @ n_h)[:, None] * n_h).reshape(h_lat.shape)
    for t, t_next in zip(path[::-1], [*path[-2::-1], -1], strict=True):
        own = x_t.mean((2, 3), keepdim=True)
        eps = model.eps(x_t, t) + h - own
        x_t = ddim_step(x_t, eps, model.schedule.alpha_bar(t), model.schedule.alpha_bar(t_next))
        h = own
    torch.testing.assert_close(edited, x_t, atol=1e-4, rtol=1e-4)


def test_curves_of_gaussian_data_follow_the_exact_radius() -> None:
    model = GaussianModel()
    generator = torch.Generator().manual_seed(1)
    x_0 = 0.5 * torch.randn(40, 3, 4, 4, generator=generator)
    labels = np.arange(40) % 2 == 0
    x_0[:, 0] += 0.4 * torch.from_numpy(labels).float()[:, None, None]
    curves = measure_curves(
        model,
        x_0,
        torch.randn(40, 3, 4, 4, generator=generator),
        timestep_path(999, 60),
        {"a": labels.astype(np.float64)},
        batch_size=16,
        seed=0,
    )
    assert curves.radius_inverted[-1] == pytest.approx(1, abs=0.08)
    assert curves.radius_sampled[0] == pytest.approx(model.s, abs=0.06)
    assert curves.auc["eps", "a"].shape == (60,)
    assert np.nanmin(curves.auc["h", "a"]) > 0.8


def curves_for_rules() -> Curves:
    t = np.array([0, 250, 500, 750, 999])
    auc = {("eps", "a"): np.array([1.0, 1.0, 0.98, 0.8, 0.7]), ("h", "a"): np.array([1.0, 1.0, 1.0, 0.8, 0.7])}
    nothing = np.zeros(5)
    inverted, sampled = np.array([0.5, 0.6, 0.80, 0.97, 1.0]), np.array([0.55, 0.66, 0.805, 0.975, 1.0])
    return Curves(tuple(t.tolist()), inverted, nothing, sampled, nothing, auc)


@pytest.mark.parametrize(
    ("rule", "tolerance", "expected"), [("radius", 0.02, 500), ("separability", 0.02, 500), ("separability", 0.25, 750)]
)
def test_rules_read_the_curves(rule: str, tolerance: float, expected: int) -> None:
    schedule = NoiseSchedule.linear()
    chosen = choose_mixing_step(curves_for_rules(), schedule, rule, tolerance=tolerance, min_t=100, max_t=900)  # pyright: ignore[reportArgumentType]
    assert chosen == expected


def test_rule_that_nothing_satisfies_says_how_near_it_came() -> None:
    with pytest.raises(
        BoundaryError,
        match=r"tolerance 0\.001 holds at no timestep in \[100, 600\] \(the smallest gap there is 0\.0062\)",
    ):
        choose_mixing_step(curves_for_rules(), NoiseSchedule.linear(), "radius", tolerance=0.001, min_t=100, max_t=600)


def test_fixed_rule_needs_its_timestep() -> None:
    schedule = NoiseSchedule.linear()
    assert choose_mixing_step(curves_for_rules(), schedule, "fixed", tolerance=0, min_t=1, max_t=2, fixed_t=321) == 321
    with pytest.raises(BoundaryError, match="needs fixed_t in"):
        choose_mixing_step(curves_for_rules(), schedule, "fixed", tolerance=0, min_t=1, max_t=2)


def test_separability_of_noise_is_about_half_and_nan_without_enough_images() -> None:
    latents = np.random.default_rng(0).standard_normal((80, 10))
    labels = np.arange(80) % 2 == 0
    assert separability(latents @ latents.T, labels, seed=0) == pytest.approx(0.5, abs=0.2)
    assert np.isnan(separability(latents[:6] @ latents[:6].T, labels[:6], seed=0))


def test_separability_uses_the_known_labels_of_each_attribute() -> None:
    model, x_0 = GaussianModel(), torch.cat([images(8) - 1, images(8) + 1])
    bright = np.array([0.0] * 8 + [1.0] * 8)
    partly, rare, unknown = bright.copy(), np.zeros(16), np.full(16, np.nan)
    partly[[0, 15]] = np.nan
    rare[0] = 1
    labels = {"partly": partly, "rare": rare, "unknown": unknown}
    curves = measure_curves(model, x_0, torch.randn(2, 3, 4, 4), (0, 100, 200), labels, batch_size=8, seed=0)
    assert np.isnan(curves.auc["eps", "rare"]).all()
    np.testing.assert_allclose(curves.mean_auc("eps"), 1)
    assert choose_mixing_step(curves, model.schedule, "separability", tolerance=0.1, min_t=0, max_t=200) in (
        0,
        100,
        200,
    )


def test_separability_of_nothing_says_what_is_missing() -> None:
    labels = {"unknown": np.full(3, np.nan)}
    model = GaussianModel()
    curves = measure_curves(model, images(), images(), (0, 100, 200), labels, batch_size=8, seed=0)
    with pytest.raises(BoundaryError, match="at least 4 labelled images"):
        choose_mixing_step(curves, model.schedule, "separability", tolerance=0.1, min_t=0, max_t=200)


def test_classes_that_do_not_differ_give_no_direction() -> None:
    useless = replace(boundary(torch.ones(48)), calibration=Calibration(-0.1, 0.1, 1.0, 0.4, 20))
    with pytest.raises(BoundaryError, match=r"do not differ at timestep 500 \(gap -0.2, AUC 0.40\)") as caught:
        useless.check_fits("f" * 64, 500)
    assert with_advice(caught.value).endswith("or leave the attribute out of edit.edits")


def test_normals_of_one_line_are_refused() -> None:
    same = [boundary(torch.ones(48), "hat"), boundary(-torch.ones(48), "cap")]
    with pytest.raises(BoundaryError, match="'hat' and 'cap' have cosine -1.000"):
        Move(same, torch.ones(1, 2)).offset((3, 4, 4))
