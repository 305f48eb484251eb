"""Folders of impossible values: refused in one line by the reader, by the import and before anything is built."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from boundaryflow.errors import CheckpointError
from boundaryflow.models import Stated, build_network, load_model, open_checkpoint
from boundaryflow.models.importing import import_checkpoint
from tests.hostile.corpus_models import FOLDERS, SCHEDULER, diffusers_folder
from tests.layouts import ddpm_layout, iddpm_layout, random_state

REASONS = {
    "config_widths_1e9": "block_out_channels .8, 1000000000., must be a list",
    "config_layers_negative": "layers_per_block -3, must be 1 to",
    "config_layers_word": "layers_per_block '2', must be a whole number",
    "config_layers_3e6": "layers_per_block 3000000, must be",
    "config_layers_1000": "describes 4,002 blocks, the weights have 144 tensors",
    "config_size_0": "sample_size 0, must be 1 to",
    "config_size_negative": "sample_size -64, must be 1 to",
    "config_size_2e30": "sample_size 2000000000000000000000000000000, must be 1 to",
    "config_size_true": "sample_size True, must be a whole number",
    "config_size_odd": "must be a multiple of 2",
    "config_activation": "describes no network .activation function evil",
    "config_groups_0": "norm_num_groups 0, must be",
    "config_groups_3": "must be divisible by num_groups",
    "config_block_unknown": "EvilBlock2D does not exist",
    "config_middle_null": "mid_block_type None, must be a word",
    "config_epsilon_nan": "it has NaN, which is not a number",
    "config_epsilon_negative": "norm_eps -1.0, must be a number above 0",
    "config_epsilon_1e400": "norm_eps 1000",
    "config_padding_negative": "downsample_padding -1",
    "config_scale_0": "mid_block_scale_factor 0",
    "config_deep": "nested too deep",
    "config_fifo": "a FIFO, not a regular file",
    "config_zeros": "a device, not a regular file",
    "config_large": "more than the 16,777,216 that are read",
    "schedule_betas_nan": "it has NaN",
    "schedule_betas_words": "trained_betas must be a list of numbers within",
    "schedule_betas_beyond": "trained_betas must be a list of numbers within",
    "schedule_betas_all_noise": "leave no signal at the last timestep",
    "schedule_timesteps_1e12": "1000000000000 timesteps, must be 2 to 100,000",
    "schedule_timesteps_true": "must be numbers",
    "weights_int8": "conv_in.bias is of int8, must be of floating-point numbers",
    "weights_bool": "conv_in.bias is of bool",
    "weights_complex64": "conv_in.bias is of complex64",
    "weights_fifo": "a FIFO, not a regular file",
    "weights_zeros": "a device, not a regular file",
    "sidecar_deep": "nested too deep",
}


@pytest.mark.parametrize("case", sorted(FOLDERS))
def test_impossible_folder_is_refused_and_nothing_is_left(tmp_path: Path, case: str) -> None:
    folder, before = FOLDERS[case](tmp_path / "net"), time.monotonic()
    with pytest.raises(CheckpointError, match=REASONS.get(case, "^model ")) as caught:
        build_network(open_checkpoint(folder))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value).replace(str(tmp_path), "")) < 400
    with pytest.raises(CheckpointError):
        import_checkpoint(folder, tmp_path / "out/converted")
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
    assert time.monotonic() - before < 20


def test_sound_folder_of_the_same_kind_is_read(tmp_path: Path) -> None:
    assert load_model(diffusers_folder(tmp_path / "net")).image_size == 8


def test_config_without_the_usual_values_is_described(tmp_path: Path) -> None:
    folder = diffusers_folder(tmp_path / "net", {"norm_num_groups": 4})
    config = json.loads((folder / "config.json").read_text())
    del config["in_channels"], config["out_channels"]
    (folder / "config.json").write_text(json.dumps(config))
    assert open_checkpoint(folder).channels == 3


def test_checkpoint_of_a_training_run_has_the_scheduler_beside_it(tmp_path: Path) -> None:
    """As train_unconditional.py of diffusers leaves them: run/checkpoint-500/unet, run/scheduler."""
    folder = diffusers_folder(tmp_path / "run/checkpoint-500/unet")
    (tmp_path / "run/scheduler").mkdir()
    (folder / "scheduler_config.json").rename(tmp_path / "run/scheduler/scheduler_config.json")
    assert load_model(tmp_path / "run/checkpoint-500").image_size == 8
    assert load_model(folder).image_size == 8
    (tmp_path / "run/checkpoint-500").rename(tmp_path / "run/other")
    with pytest.raises(CheckpointError, match="scheduler_config.json is missing"):
        load_model(tmp_path / "run/other")


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.fp16.safetensors", "ema_model.safetensors"])
def test_weights_under_another_name_are_read(tmp_path: Path, name: str) -> None:
    folder = diffusers_folder(tmp_path / "net/unet_ema")
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / name)
    checkpoint = open_checkpoint(tmp_path / "net")
    assert (checkpoint.file.name, checkpoint.ema) == (name, True)
    assert {tensor.dtype for tensor in checkpoint.architecture.state.values()} == {torch.float32}


def test_two_files_of_unknown_names_are_not_chosen_from(tmp_path: Path) -> None:
    folder = diffusers_folder(tmp_path / "net")
    weights = folder / "diffusion_pytorch_model.safetensors"
    save_file(load_file(weights), folder / "b.safetensors")
    weights.rename(folder / "a.safetensors")
    with pytest.raises(CheckpointError, match="is missing; rename one of the files that there are"):
        open_checkpoint(folder)


@pytest.mark.parametrize("name", ["models/net", "models/net@main"])
def test_mistyped_path_is_not_asked_for_on_the_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    with pytest.raises(CheckpointError, match="it is taken for a path, not for a hub id, because models is here"):
        open_checkpoint(name)


@pytest.mark.parametrize(("size", "is_assumed"), [(None, True), (64, False)])
def test_size_of_a_checkpoint_is_assumed_where_nothing_states_it(
    tmp_path: Path, size: int | None, is_assumed: bool
) -> None:
    for layout in (ddpm_layout(32, (1, 2), 1, (1,)), iddpm_layout(32, (1, 2), 1, (1,), resblock_updown=True)):
        torch.save(random_state(layout), tmp_path / "net.pt")
        architecture = open_checkpoint(tmp_path / "net.pt", Stated(image_size=size)).architecture
        assert architecture.assumes_size is is_assumed


def test_half_precision_that_all_names_share_is_refused(tmp_path: Path) -> None:
    """Each would be copied into numbers of its own."""
    torch.save(dict.fromkeys((f"a.{n}" for n in range(2000)), torch.zeros(5000).half()), tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match="its tensors need 20,000,000 bytes, the file has far fewer"):
        open_checkpoint(tmp_path / "net.pt")


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ('{"image_size": 1000000}', "image_size is 1000000, must be at most 16,384"),
        ('{"schedule": {"num_train_timesteps": 1000000000000}}', "1000000000000 timesteps"),
        ('{"schedule": {"beta_end": 1e999}}', "to inf; must be within"),
        ('{"ema": ["prefer"]}', "must be one of"),
    ],
)
def test_impossible_sidecar_is_refused(tmp_path: Path, stated: str, reason: str) -> None:
    torch.save(random_state(ddpm_layout(32, (1, 2), 1, (1,))), tmp_path / "net.pt")
    (tmp_path / "net.pt.json").write_text(stated)
    with pytest.raises(CheckpointError, match=reason) as caught:
        open_checkpoint(tmp_path / "net.pt")
    assert "\n" not in str(caught.value)


def test_schedule_of_usual_values_is_as_it_was() -> None:
    from boundaryflow.models.betas import schedule_betas

    betas = schedule_betas(SCHEDULER, "here")
    torch.testing.assert_close(betas, torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64))
