"""The bench of a GPU, all of it, on the CPU with a tiny network."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel

from benches.engine import arms, gpu, layouts
from benches.engine.gpu_tables import layout_table, tables
from benches.engine.graphed import Graphed
from benches.engine.guided_arm import NUM_DIRECTIONS, GuidedArm
from boundaryflow.diffusion import BOTTLENECK


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of 64 x 64 images that takes milliseconds."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=16, in_channels=48, out_channels=48, block_out_channels=(8, 8), layers_per_block=1,
        norm_num_groups=4, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    monkeypatch.setattr(arms, "_network", lambda _model: (unet.eval().requires_grad_(False), 4))
    monkeypatch.setenv("BOUNDARYFLOW_DEVICE", "cpu")


def found(folder: Path) -> dict[str, object]:
    """What the bench wrote."""
    return json.loads((folder / "gpu.json").read_text())


def test_every_arm_is_measured_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOUNDARYFLOW_BATCH_SIZE", "2")
    gpu.main([str(tmp_path), "--small", "--seconds", "0", "--no-compile"])
    result = found(tmp_path)
    assert result["is_complete"]
    rows = result["rows"]
    assert isinstance(rows, list)
    assert not [row for row in rows if "error" in row]
    edits = {(row["task"], row["arm"]): row for row in rows}
    for task in ("invert and edit", "guided edit"):
        for arm in ("ours", "ours, CUDA graphs"):
            assert edits[task, arm]["images_per_s"] > 0
            assert edits[task, arm]["gflops"] > 0
    assert {"diffusers", "release"} <= {arm for _task, arm in edits}
    split = edits["guided edit", "ours"]
    assert split["wall_s"] == pytest.approx(split["observe_s"] + split["edit_s"], rel=0.1)
    same = edits["largest difference to the CPU", "ours"]
    assert (same["guided"], same["single_step"], same["paper"]) == (0, 0, 0)
    assert (tmp_path / "profile.txt").read_text()
    filled = tables(result)
    assert "| faces64 | ours | 2 |" in filled["gpu engine"]
    assert "| faces64 | ours, CUDA graphs | 2 |" in filled["gpu guided"]
    assert all(line.count("|") == 10 for line in filled["gpu engine"].splitlines())


def test_arm_that_failed_says_so_in_the_table() -> None:
    row = {"task": "guided edit", "arm": "ours", "model": "paper256", "batch": 16, "error": "OutOfMemoryError: ..."}
    assert "| paper256 | ours | 16 | failed |" in tables({"rows": [row]})["gpu guided"]


def test_arm_that_fails_leaves_its_error_and_the_next_goes_on(tmp_path: Path) -> None:
    record = gpu.Record(tmp_path / "gpu.json", 0.0)

    def fails() -> dict[str, object]:
        raise RuntimeError("no memory\nand more")

    record.attempt({"arm": "first"}, fails)
    record.attempt({"arm": "second"}, lambda: {"images_per_s": 1.0})
    first, second = record.found["rows"]
    assert first["error"] == "RuntimeError: no memory"
    assert second["images_per_s"] == 1.0
    assert found(tmp_path)["rows"] == [first, second]


def test_what_takes_too_long_is_stopped() -> None:
    with pytest.raises(TimeoutError, match="more than 0 s"), gpu.at_most(0.01):
        time.sleep(10)


def test_network_called_another_way_gives_the_same() -> None:
    net = arms.ours_model("faces64")
    expected = GuidedArm(net, "faces64", 2, num_timesteps=2)
    edit = GuidedArm(Graphed(net), "faces64", 2, num_timesteps=2)
    edit.x_0 = expected.x_0
    torch.testing.assert_close(edit.edit(edit.observe()), expected.edit(expected.observe()), atol=1e-4, rtol=0)


def test_every_preparation_is_measured_beside_diffusers(tmp_path: Path) -> None:
    layouts.main([str(tmp_path), "--small", "--seconds", "0"])
    result = json.loads((tmp_path / "layouts.json").read_text())
    assert result["is_complete"]
    assert not [row for row in result["rows"] if "error" in row]
    for task in ("invert and edit", "guided edit"):
        rates = {row["arm"]: row["images_per_s"] for row in result["rows"] if row["task"] == task}
        ours = {arm.removesuffix(", tuned") for arm in rates if not arm.startswith("diffusers")}
        assert ours == set(layouts.PREPARATIONS)
        assert all(rate > 0 for rate in rates.values())
    assert {"diffusers", "diffusers, tuned"} <= {row["arm"] for row in result["rows"]}
    assert sum(row["arm"].endswith(", tuned") for row in result["rows"]) == 3
    table = layout_table(result)
    assert all(f"| faces64 | 2 | {arm} |" in table for arm in layouts.PREPARATIONS)
    assert len(table.splitlines()) == 2 + 4 + 1 + 2  # header, ours, diffusers, both of them tuned


def test_operations_of_a_guided_edit_are_those_of_its_calls() -> None:
    edit = GuidedArm(arms.ours_model("faces64"), "faces64", 1, num_timesteps=2)
    flops, calls = edit.flops()
    noised = 2 * edit.guidance.num_noises
    assert calls == 3 * noised  # observed, pulled back, projected
    call = arms.count_flops("faces64", is_ours=True)
    assert noised * 3 * call < flops < noised * (3 + 2 * NUM_DIRECTIONS) * call


def test_planes_lie_in_the_bottleneck_and_move_the_picture() -> None:
    edit = GuidedArm(arms.ours_model("faces64"), "faces64", 1, num_timesteps=1)
    source = edit.observe()
    assert source.features == BOTTLENECK
    assert (edit.edit(source)[:, 0] - edit.x_0).abs().max() > 0.1
