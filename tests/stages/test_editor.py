"""The editor that the stage and the command line share, on the Gaussian model."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from boundaryflow.boundary import Boundary, Calibration
from boundaryflow.boundary.hyperplane import Space
from boundaryflow.errors import BoundaryError
from stages.editor import Editor, EditSettings
from tests.unit.gaussian import GaussianModel

SETTINGS = EditSettings(
    t_mix=400,
    num_steps=8,
    noise_until=0,
    eta=0.0,
    correction=True,
    eps_scale=1.0,
    h_scale=1.0,
    h_window=(1.0, 0.5),
    strengths=(0.0, 1.0, -1.0),
    paper_mode=False,
    dtype="float32",
)
IDS = ["a", "b", "c"]


def images() -> torch.Tensor:
    return 0.5 * torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def boundaries(attribute: str = "hat", t_mix: int = 400) -> dict[Space, Boundary]:
    made: dict[Space, Boundary] = {}
    for space, dim in (("eps", 48), ("h", 3)):
        normal = torch.randn(dim, generator=torch.Generator().manual_seed(len(attribute)))
        calibration = Calibration(2.0, -1.0, 1.0, 0.9, 10)
        made[space] = Boundary(normal / normal.norm(), 0.1, space, t_mix, attribute, "f" * 64, calibration)  # pyright: ignore[reportArgumentType]
    return made


def edited(settings: EditSettings = SETTINGS, rows: tuple[int, ...] = (0, 1, 2), run_seed: int = 0) -> torch.Tensor:
    editor = Editor(GaussianModel(), settings, run_seed)
    return editor.edit(editor.open(images(), IDS), rows, [boundaries()], torch.ones(len(rows), 1))


@pytest.mark.parametrize(("eta", "noise_until"), [(0.0, 0), (0.7, 0), (0.0, 150), (1.0, 400)])
def test_strength_zero_returns_the_input(eta: float, noise_until: int) -> None:
    result = edited(dataclasses.replace(SETTINGS, eta=eta, noise_until=noise_until))
    torch.testing.assert_close(result[:, 0], images(), atol=1e-5, rtol=0)
    assert (result[:, 1] - images()).abs().max() > 0.1


def test_opposite_strengths_move_opposite_ways() -> None:
    result = edited() - images()[:, None]
    torch.testing.assert_close(result[:, 1], -result[:, 2], atol=1e-4, rtol=0)  # the model is linear


def test_rows_are_the_same_alone_and_together() -> None:
    torch.testing.assert_close(edited(rows=(2,))[0], edited()[2])


def test_noise_is_the_same_for_all_strengths_and_another_for_another_seed() -> None:
    stochastic = dataclasses.replace(SETTINGS, eta=1.0, correction=False, strengths=(1e-6, 2e-6))
    result = edited(stochastic)
    torch.testing.assert_close(result[:, 0], result[:, 1], atol=1e-4, rtol=0)
    assert not torch.allclose(result, edited(stochastic, run_seed=1), atol=1e-2)


def test_only_strength_zero_costs_no_edit() -> None:
    result = edited(dataclasses.replace(SETTINGS, strengths=(0.0,)))
    torch.testing.assert_close(result[:, 0], images(), atol=1e-5, rtol=0)


def test_paper_mode_takes_strength_as_a_distance() -> None:
    paper = dataclasses.replace(SETTINGS, paper_mode=True, strengths=(0.0, 3.0))
    result = edited(paper)
    assert result.shape == (3, 2, 3, 4, 4)
    assert not torch.allclose(result[:, 0], images(), atol=1e-2)  # no strength leaves an image as it is


def test_paper_mode_with_two_attributes_is_refused() -> None:
    editor = Editor(GaussianModel(), dataclasses.replace(SETTINGS, paper_mode=True), 0)
    source = editor.open(images(), IDS)
    with pytest.raises(BoundaryError, match="one attribute at a time"):
        editor.edit(source, [0], [boundaries(), boundaries("beard")], torch.ones(1, 2))


def test_boundary_of_another_timestep_is_refused() -> None:
    editor = Editor(GaussianModel(), SETTINGS, 0)
    source = editor.open(images(), IDS)
    with pytest.raises(BoundaryError, match="holds at t_mix 300, not 400"):
        editor.edit(source, [0], [boundaries(t_mix=300)], torch.ones(1, 1))


def test_missing_space_says_how_to_mend_it() -> None:
    editor = Editor(GaussianModel(), SETTINGS, 0)
    source = editor.open(images(), IDS)
    only_eps: dict[Space, Boundary] = {"eps": boundaries()["eps"]}
    with pytest.raises(BoundaryError, match="no plane in h-space; add h to boundary.spaces"):
        editor.edit(source, [0], [only_eps], torch.ones(1, 1))
