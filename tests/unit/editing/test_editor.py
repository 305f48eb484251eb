"""The editor that the stage and the command line share, on the Gaussian model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from boundaryflow.boundary import Boundaries, Boundary, Calibration
from boundaryflow.boundary.hyperplane import Space
from boundaryflow.config.advice import with_advice
from boundaryflow.diffusion import BOTTLENECK
from boundaryflow.editing import Guidance, Move, guided_editor
from boundaryflow.editing.editor import EditSettings
from boundaryflow.editing.mask import Mask
from boundaryflow.errors import BoundaryError, CheckpointError
from boundaryflow.evaluation.judges import SegmenterNet, save_judge
from boundaryflow.runtime.editor import open_editor
from boundaryflow.runtime.metering import Metered, Tally
from tests.unit.gaussian import GaussianModel

SETTINGS = EditSettings(
    t_mix=400,
    num_steps=8,
    noise_until=0,
    order=1,
    eta=0.0,
    residuals=True,
    eps_scale=1.0,
    h_scale=1.0,
    h_window=(1.0, 0.5),
    strengths=(0.0, 1.0, -1.0),
    paper_mode=False,
    dtype="float32",
    method="single_step",
    guided=Guidance(
        certainty=0.9,
        gain=1.0,
        tweedie_projection=True,
        preserve=1.0,
        preserve_residual=0.0,
        max_step=0.0,
        soft_threshold=0.0,
        region=0.0,
        num_draws=1,
        num_iterations=2,
        stride=1,
    ),
    mask=None,
    conditional=False,
    timesteps=(0, 60, 200),
    features=BOTTLENECK,
)
GUIDED = dataclasses.replace(SETTINGS, method="guided")
IDS = ["a", "b", "c"]


def images() -> torch.Tensor:
    return 0.5 * torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def boundaries(attribute: str = "hat", t_mix: int = 400) -> Boundaries:
    made: dict[Space, Boundary] = {}
    for space, dim in (("eps", 48), ("h", 3)):
        normal = torch.randn(dim, generator=torch.Generator().manual_seed(len(attribute)))
        calibration = Calibration(2.0, -1.0, 1.0, 0.9, 10)
        made[space] = Boundary(normal / normal.norm(), 0.1, space, t_mix, attribute, "f" * 64, calibration)  # pyright: ignore[reportArgumentType]
    return Boundaries(attribute, made, tuple(dataclasses.replace(made["h"], t=t) for t in (60, 200)))


def edited(settings: EditSettings = SETTINGS, rows: tuple[int, ...] = (0, 1, 2), run_seed: int = 0) -> torch.Tensor:
    editor = open_editor(GaussianModel(), settings, run_seed)
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


@pytest.mark.parametrize("changes", [{}, {"residuals": False, "strengths": (1.0,)}, {"method": "guided"}])
def test_image_that_nothing_is_asked_of_costs_no_call_and_stays(changes: dict[str, object]) -> None:
    model = Metered(GaussianModel(), Tally())
    editor = open_editor(model, dataclasses.replace(SETTINGS, **changes), 0)  # pyright: ignore[reportArgumentType]
    source = editor.open(images(), IDS)
    opened = model.tally.image_calls
    result = editor.edit(source, (0, 1, 2), [boundaries()], torch.tensor([[0.0], [1.0], [0.0]]))
    of_one = model.tally.image_calls - opened
    torch.testing.assert_close(result[[0, 2]], images()[[0, 2], None].expand_as(result[[0, 2]]), rtol=0, atol=0)
    assert (result[1, -1] - images()[1]).abs().max() > 0.1
    editor.edit(source, (0, 1, 2), [boundaries()], torch.ones(3, 1))
    assert model.tally.image_calls - opened - of_one == 3 * of_one


@pytest.mark.parametrize(
    "settings",
    [SETTINGS, GUIDED, dataclasses.replace(SETTINGS, eta=1.0, residuals=False)],
    ids=["single step", "guided", "stochastic"],
)
def test_strengths_are_the_same_one_by_one_and_side_by_side(
    settings: EditSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(settings, strengths=(0.0, 0.5, -1.0, 1.5))
    monkeypatch.setenv("BOUNDARYFLOW_BATCH_SIZE", "3")
    alone = edited(settings)
    monkeypatch.setenv("BOUNDARYFLOW_BATCH_SIZE", "6")
    torch.testing.assert_close(edited(settings), alone)
    monkeypatch.setenv("BOUNDARYFLOW_BATCH_SIZE", "64")
    torch.testing.assert_close(edited(settings), alone)


def test_paper_mode_gives_an_image_the_same_alone_and_together() -> None:
    paper = dataclasses.replace(SETTINGS, paper_mode=True, strengths=(-2.0, 3.0), eta=1.0)
    torch.testing.assert_close(edited(paper, rows=(1,))[0], edited(paper)[1])


def test_noise_is_the_same_for_all_strengths_and_another_for_another_seed() -> None:
    stochastic = dataclasses.replace(SETTINGS, eta=1.0, residuals=False, strengths=(1e-6, 2e-6))
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
    editor = open_editor(GaussianModel(), dataclasses.replace(SETTINGS, paper_mode=True), 0)
    source = editor.open(images(), IDS)
    with pytest.raises(BoundaryError, match="one attribute at a time"):
        editor.edit(source, [0], [boundaries(), boundaries("beard")], torch.ones(1, 2))


def test_boundary_of_another_timestep_is_refused() -> None:
    editor = open_editor(GaussianModel(), SETTINGS, 0)
    source = editor.open(images(), IDS)
    with pytest.raises(BoundaryError, match="holds at timestep 300, not 400"):
        editor.edit(source, [0], [boundaries(t_mix=300)], torch.ones(1, 1))


def test_missing_space_says_how_to_mend_it() -> None:
    editor = open_editor(GaussianModel(), SETTINGS, 0)
    source = editor.open(images(), IDS)
    only_eps = Boundaries("hat", {"eps": boundaries().at_mixing_step["eps"]})
    with pytest.raises(BoundaryError, match="no hyperplane in h-space") as caught:
        editor.edit(source, [0], [only_eps], torch.ones(1, 1))
    assert "no hyperplane in h-space; add h to boundary.spaces" in with_advice(caught.value)


def test_guided_edit_returns_the_input_at_strength_zero_bit_for_bit() -> None:
    result = edited(GUIDED)
    assert torch.equal(result[:, 0], images())
    assert (result[:, 1] - images()).abs().max() > 0.01


def test_guided_edit_of_rows_is_the_same_alone_and_together() -> None:
    torch.testing.assert_close(edited(GUIDED, rows=(2,))[0], edited(GUIDED)[2])


def test_guided_edit_has_other_noise_for_another_seed() -> None:
    editor = open_editor(GaussianModel(), GUIDED, 0)
    first, second = editor.open(images(), IDS), open_editor(GaussianModel(), GUIDED, 1).open(images(), IDS)
    assert first.noised is not None
    assert second.noised is not None
    assert not torch.equal(first.noised.noise[60, 0], second.noised.noise[60, 0])


def test_attributes_that_are_edited_are_not_held() -> None:
    editor = open_editor(GaussianModel(), GUIDED, 0)
    source = editor.open(images(), IDS)
    alone = editor.edit(source, [0], [boundaries()], torch.ones(1, 1))
    torch.testing.assert_close(editor.edit(source, [0], [boundaries()], torch.ones(1, 1), [boundaries()]), alone)


def segmenter(folder: Path) -> Path:
    """A file of the right format; what it sees is up to the test."""
    net = SegmenterNet(3, (8,), 2)
    save_judge(
        folder, "segment", net, {"channels": 3, "widths": [8], "num_parts": 2, "image_size": 4}, ["rest", "mouth"]
    )
    return folder / "segmenter.safetensors"


def test_masked_edit_changes_the_parts_of_its_attribute_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = torch.zeros(3, 4, 4, dtype=torch.long)
    parts[:2, :, 3] = 1  # the third image has no mouth
    file = segmenter(tmp_path)
    monkeypatch.setattr("boundaryflow.evaluation.judges.Segmenter.__call__", lambda _self, images: parts[: len(images)])
    mask = Mask(str(file), {"hat": ["mouth"]}, grow=0)
    everywhere, masked = edited(GUIDED), edited(dataclasses.replace(GUIDED, mask=mask))
    changed = (masked[:, 1] - images()).abs().amax(1)
    assert (changed[:2, :, 3] > 1e-3).all()
    assert (changed[:2, :, 0] == 0).all()
    assert (changed[2] == 0).all()
    other = dataclasses.replace(GUIDED, mask=dataclasses.replace(mask, parts={"beard": ["mouth"]}))
    torch.testing.assert_close(edited(other), everywhere)


def test_mask_without_its_segmenter_is_one_clear_line(tmp_path: Path) -> None:
    mask = Mask(str(tmp_path / "none.safetensors"), {"hat": ["mouth"]}, grow=0)
    with pytest.raises(CheckpointError, match="none.safetensors: no such file"):
        edited(dataclasses.replace(GUIDED, mask=mask))


def test_conditional_step_moves_along_none_of_the_other_attributes() -> None:
    settings = dataclasses.replace(SETTINGS, h_scale=0.0, strengths=(1.0,), conditional=True)
    hat, beard = boundaries("hat"), boundaries("beards")
    weak = boundaries("no")
    hyperplane = weak.at_mixing_step["eps"]
    useless = dataclasses.replace(hyperplane, calibration=Calibration(-1.0, 1.0, 1.0, 0.4, 10))
    weak = dataclasses.replace(weak, at_mixing_step={**weak.at_mixing_step, "eps": useless})
    asked = torch.ones(3, 1)

    def offset(conditional: bool) -> torch.Tensor:
        editor = open_editor(GaussianModel(), dataclasses.replace(settings, conditional=conditional), 0)
        source = editor.open(images(), IDS)
        moved: list[torch.Tensor] = []

        def keep(_model: object, inversion: object, hyperplanes: dict[str, list[Boundary]], signs: torch.Tensor,
                 *_: object, **__: object) -> torch.Tensor:  # fmt: skip
            shifts = signs * torch.tensor([b.calibration.gap for b in hyperplanes["eps"]])
            moved.append(Move(hyperplanes["eps"], shifts).offset((3, 4, 4)))
            return torch.zeros(3, 1, 3, 4, 4)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("boundaryflow.editing.mixing_step_editors.edit_at_strengths", keep)
            editor.edit(source, (0, 1, 2), [hat], asked, [hat, beard, weak])
        return moved[0].flatten(1)

    normals = {b.attribute: b.at_mixing_step["eps"].normal for b in (hat, beard)}
    free, held = offset(False), offset(True)
    assert (free @ normals["beards"]).abs().min() > 0.05
    torch.testing.assert_close(held @ normals["beards"], torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(held @ normals["hat"], free @ normals["hat"], atol=1e-5, rtol=0)


def with_stride(stride: int) -> EditSettings:
    return dataclasses.replace(GUIDED, guided=dataclasses.replace(GUIDED.guided, stride=stride))


def test_edit_with_a_stride_observes_and_follows_the_levels_on_its_path_alone() -> None:
    thinned = dataclasses.replace(GUIDED, timesteps=(0, 200))
    at_200 = dataclasses.replace(boundaries(), noised=boundaries().noised[1:])
    editor, other = (open_editor(GaussianModel(), settings, 0) for settings in (with_stride(2), thinned))
    found = editor.edit(editor.open(images(), IDS), [0, 1, 2], [boundaries()], torch.ones(3, 1))
    expected = other.edit(other.open(images(), IDS), [0, 1, 2], [at_200], torch.ones(3, 1))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_attribute_that_no_visited_level_tells_is_one_clear_line() -> None:
    editor = open_editor(GaussianModel(), with_stride(2), 0)
    at_60 = dataclasses.replace(boundaries(), noised=boundaries().noised[:1])
    source = editor.open(images(), IDS)
    message = "boundary 'hat': can be separated at timesteps 60 alone, none of which an edit with stride 2 visits"
    with pytest.raises(BoundaryError, match=message):
        editor.edit(source, [0], [at_60], torch.ones(1, 1))
    other = dataclasses.replace(boundaries("beard"), noised=boundaries("beard").noised[:1])
    editor.edit(source, [0], [boundaries()], torch.ones(1, 1), [other])  # nothing of it is preserved, and that is fine


def test_hyperplanes_without_a_pattern_are_warned_of_once_where_one_is_needed(caplog: pytest.LogCaptureFixture) -> None:
    guided_editor._warn_of_no_pattern.cache_clear()
    edited(GUIDED)
    assert "pattern" not in caplog.text
    needs_one = dataclasses.replace(GUIDED, guided=dataclasses.replace(GUIDED.guided, preserve_residual=0.3))
    edited(needs_one)
    edited(needs_one)
    assert caplog.text.count("edit hat: its hyperplanes were fitted by an earlier version and have no pattern") == 1
