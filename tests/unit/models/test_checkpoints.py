"""Checkpoints of every family: what is inferred, converted, assumed and refused."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from boundaryflow.diffusion import invert, timestep_path
from boundaryflow.errors import CheckpointError
from boundaryflow.models import Stated, build_network, load_model, open_checkpoint
from boundaryflow.models.ddpm import convert_ddpm
from boundaryflow.models.iddpm import convert_iddpm
from boundaryflow.models.importing import describe, import_checkpoint
from flows.cli import cli
from tests.layouts import Shapes, ddpm_layout, iddpm_layout, random_state
from tests.unit.models.test_models import SCHEDULER, write_tiny

DDPM = ddpm_layout(32, (1, 2), 1, (1,))
IDDPM = iddpm_layout(32, (1, 2), 1, (1,), resblock_updown=True)
PLAIN_IDDPM = iddpm_layout(32, (1, 1, 2), 2, (1, 2), resblock_updown=False, scale_shift=False, learn_sigma=False)
TRUE_SIZES: dict[str, tuple[str, Shapes, int]] = {
    # METHOD_FACTS 5.1: 128 / 1,1,2,2,4,4, attention at 16; the parameters that their papers and users count
    "celebahq256": ("ddpm", ddpm_layout(128, (1, 1, 2, 2, 4, 4), 2, (4,)), 113_673_219),
    "afhqdog256": ("iddpm", iddpm_layout(128, (1, 1, 2, 2, 4, 4), 1, (4,), resblock_updown=True), 93_563_910),
    "celeba64": ("ddpm", ddpm_layout(128, (1, 2, 2, 2, 4), 2, (2,)), 78_700_803),
}


def write(path: Path, shapes: Shapes, seed: int = 0) -> Path:
    torch.save(random_state(shapes, seed), path)
    return path


def eps_of(source: Path, t: int = 300) -> Tensor:
    model = load_model(source)
    generator = torch.Generator().manual_seed(1)
    return model.eps(torch.randn(2, model.channels, model.image_size, model.image_size, generator=generator), t)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("ddpm_tiny.ckpt", ddpm_layout(32, (1, 2, 2), 1, (1,))),
        ("iddpm_afhq_style_tiny.pt", iddpm_layout(32, (1, 2, 2), 1, (1,), resblock_updown=True)),
        ("iddpm_improved_style_tiny.pt", iddpm_layout(32, (1, 2), 2, (0, 1), resblock_updown=False)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_layouts_are_those_of_the_reference_networks(shared: Path, name: str, shapes: Shapes) -> None:
    state = torch.load(shared / "golden" / name, weights_only=True)
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == shapes


@pytest.mark.parametrize("name", sorted(TRUE_SIZES))
def test_true_size_is_converted_layer_by_layer(name: str) -> None:
    family, shapes, num_parameters = TRUE_SIZES[name]
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    convert = {"ddpm": convert_ddpm, "iddpm": convert_iddpm}[family]
    found = convert(state, Stated(), name)
    with torch.device("meta"):
        unet = UNet2DModel.from_config(found.config)
    wanted = {key: tuple(tensor.shape) for key, tensor in unet.state_dict().items()}
    assert {key: tuple(tensor.shape) for key, tensor in found.state.items()} == wanted
    assert sum(tensor.numel() for tensor in found.state.values()) == num_parameters
    assert found.config["sample_size"] == int(name[-3:].lstrip("a"))
    assert found.config["block_out_channels"][-1] == 512


@pytest.mark.slow
@pytest.mark.parametrize("name", ["celebahq256", "afhqdog256"])
def test_true_size_inverts_on_a_cpu(tmp_path: Path, name: str) -> None:
    model = load_model(write(tmp_path / f"{name}.ckpt", TRUE_SIZES[name][1]))
    x_0 = torch.rand(1, 3, 256, 256) * 2 - 1
    inversion = invert(model, x_0, timestep_path(500, 3))
    assert inversion.x_mix.shape == (1, 3, 256, 256)
    assert inversion.h_mix.shape == (1, 512, 8, 8)
    assert bool(torch.isfinite(inversion.x_mix).all())


@pytest.mark.parametrize("shapes", [DDPM, IDDPM, PLAIN_IDDPM], ids=["ddpm", "iddpm", "plain-iddpm"])
def test_imported_folder_computes_what_the_checkpoint_does(tmp_path: Path, shapes: Shapes) -> None:
    source, target = write(tmp_path / "net.pt", shapes), tmp_path / "folder"
    import_checkpoint(source, target)
    torch.testing.assert_close(eps_of(target), eps_of(source), atol=0, rtol=0)
    assert "Taken for granted" in (target / "README.md").read_text()
    assert not list(tmp_path.glob(".*"))


def test_imported_folder_is_read_by_diffusers_itself(tmp_path: Path) -> None:
    source, target = write(tmp_path / "net.pt", IDDPM), tmp_path / "folder"
    import_checkpoint(source, target)
    unet = UNet2DModel.from_pretrained(target).eval()
    x_t = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        expected = unet(x_t, 300).sample[:, :3]
    torch.testing.assert_close(load_model(source).eps(x_t, 300), expected, atol=1e-5, rtol=1e-4)
    assert json.loads((target / "scheduler_config.json").read_text())["clip_sample"] is False


def test_import_does_not_overwrite(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/mine.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="already exists"):
        import_checkpoint(write(tmp_path / "net.pt", DDPM), tmp_path / "folder")


def test_order_of_queries_keys_and_values_matters_and_can_be_stated(tmp_path: Path) -> None:
    state = random_state(IDDPM)
    legacy = tmp_path / "legacy.pt"
    torch.save(state, legacy)
    (tmp_path / "legacy.pt.json").write_text(json.dumps({"head_channels": 16}))
    repacked = {key: _head_first_to_part_first(value) if ".qkv." in key else value for key, value in state.items()}
    torch.save(repacked, tmp_path / "new.pt")
    (tmp_path / "new.pt.json").write_text(json.dumps({"head_channels": 16, "qkv_order": "new"}))
    torch.testing.assert_close(eps_of(tmp_path / "new.pt"), eps_of(legacy))
    (tmp_path / "new.pt.json").write_text(json.dumps({"head_channels": 16}))
    assert not torch.allclose(eps_of(tmp_path / "new.pt"), eps_of(legacy))


def _head_first_to_part_first(packed: Tensor, heads: int = 4) -> Tensor:
    width = packed.shape[0] // 3
    parts: list[list[Tensor]] = [[], [], []]
    for head in packed.split(3 * width // heads):
        for part, rows in zip(parts, head.split(width // heads), strict=True):
            part.append(rows)
    return torch.cat([torch.cat(part) for part in parts])


def training_list(*, ema: bool) -> list[Any]:
    """What ermongroup/ddim saves: DataParallel names for the model, plain ones for the averages."""
    model = {f"module.{key}": value for key, value in random_state(DDPM, 1).items()}
    content: list[Any] = [model, {"state": {}, "param_groups": [{"lr": 2e-4, "params": [0]}]}, 3, 4000]
    return [*content, random_state(DDPM, 2)] if ema else content


def test_training_list_gives_its_averaged_weights(tmp_path: Path) -> None:
    plain, averaged = write(tmp_path / "plain.pt", DDPM, 1), write(tmp_path / "averaged.pt", DDPM, 2)
    torch.save(training_list(ema=True), tmp_path / "ckpt.pth")
    torch.testing.assert_close(eps_of(tmp_path / "ckpt.pth"), eps_of(averaged))
    assert open_checkpoint(tmp_path / "ckpt.pth").ema is True
    (tmp_path / "ckpt.pth.json").write_text(json.dumps({"ema": "never"}))
    torch.testing.assert_close(eps_of(tmp_path / "ckpt.pth"), eps_of(plain))


def test_training_list_without_averages_is_refused_when_they_are_wanted(tmp_path: Path) -> None:
    torch.save(training_list(ema=False), tmp_path / "ckpt.pth")
    assert open_checkpoint(tmp_path / "ckpt.pth").ema is False
    with pytest.raises(CheckpointError, match=r"no averaged \(EMA\) weights, and ema is 'require'"):
        open_checkpoint(tmp_path / "ckpt.pth", Stated(ema="require"))


@pytest.mark.parametrize("key", ["ema", "ema_state_dict", "model_ema"])
def test_training_dictionary_gives_its_averaged_weights(tmp_path: Path, key: str) -> None:
    averaged = write(tmp_path / "averaged.pt", IDDPM, 2)
    torch.save({"model": random_state(IDDPM, 1), key: random_state(IDDPM, 2), "step": 7}, tmp_path / "ckpt.pt")
    torch.testing.assert_close(eps_of(tmp_path / "ckpt.pt"), eps_of(averaged))


def test_checkpoint_of_the_old_torch_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.ckpt"
    torch.save(random_state(DDPM), path, _use_new_zipfile_serialization=False)
    torch.testing.assert_close(eps_of(path), eps_of(write(tmp_path / "new.ckpt", DDPM)))


def test_safetensors_file_is_read(tmp_path: Path) -> None:
    save_file(random_state(DDPM), tmp_path / "net.safetensors")
    torch.testing.assert_close(eps_of(tmp_path / "net.safetensors"), eps_of(write(tmp_path / "net.pt", DDPM)))


def test_cosine_schedule_can_be_stated(tmp_path: Path) -> None:
    path = write(tmp_path / "net.pt", IDDPM)
    (tmp_path / "net.pt.json").write_text(json.dumps({"schedule": {"beta_schedule": "squaredcos_cap_v2"}}))
    schedule = load_model(path).schedule
    # Nichol and Dhariwal 2021, eq. 17: f(t) = cos((t / T + 0.008) / 1.008 * pi / 2)^2 at t = 500 of 1000, over f(0)
    assert schedule.alpha_bar(499) == pytest.approx(0.49380, abs=1e-4)
    assert load_model(path).sha256 != load_model(write(tmp_path / "other.pt", IDDPM)).sha256


def old_names(folder: Path) -> None:
    """Attention layers as diffusers called them before release 0.14."""
    weights = folder / "diffusion_pytorch_model.safetensors"
    renamed = {}
    for key, value in load_file(weights).items():
        name = key
        for new, old in (
            (".to_q.", ".query."),
            (".to_k.", ".key."),
            (".to_v.", ".value."),
            (".to_out.0.", ".proj_attn."),
        ):
            name = name.replace(new, old)
        renamed[name] = value
    assert len(set(renamed) - set(load_file(weights))) > 0
    save_file(renamed, weights)


def test_old_attention_names_are_read(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "net")
    before = eps_of(folder)
    old_names(folder)
    torch.testing.assert_close(eps_of(folder), before)


def test_bin_weights_are_read_without_unpickling(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "net")
    before, weights = eps_of(folder), folder / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), folder / "diffusion_pytorch_model.bin")
    weights.unlink()
    torch.testing.assert_close(eps_of(folder), before)


def test_averaged_weights_of_a_folder_go_first(tmp_path: Path) -> None:
    write_tiny(tmp_path / "unet")
    write_tiny(tmp_path / "unet_ema")
    weights = tmp_path / "unet_ema/diffusion_pytorch_model.safetensors"
    save_file({key: value * 0.5 for key, value in load_file(weights).items()}, weights)
    assert open_checkpoint(tmp_path).ema is True
    torch.testing.assert_close(eps_of(tmp_path), eps_of(tmp_path / "unet_ema"))


def test_scheduler_that_clips_does_not_clip_the_inversion(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "net")
    x_0, path = torch.randn(1, 3, 8, 8).clamp(-1, 1), timestep_path(400, 5)
    before = invert(load_model(folder), x_0, path).x_mix
    clipping = {**SCHEDULER, "clip_sample": True, "clip_sample_range": 1.0, "timestep_spacing": "leading"}
    (folder / "scheduler_config.json").write_text(json.dumps(clipping))
    torch.testing.assert_close(invert(load_model(folder), x_0, path).x_mix, before)


def test_description_has_family_size_and_assumptions(tmp_path: Path) -> None:
    facts = describe(open_checkpoint(write(tmp_path / "net.pt", IDDPM)))
    assert facts["family"].startswith("iDDPM")
    assert (facts["image size"], facts["widths"], facts["attention at"], facts["h"]) == (
        32,
        [32, 64],
        [16],
        [64, 16, 16],
    )
    assert facts["learns variance"] is True
    assert any("64 channels an attention head" in line for line in facts["assumed"])
    assert facts["parameters"] == sum(tensor.numel() for tensor in random_state(IDDPM).values())


class Malice:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def make_wrong(case: str, path: Path) -> None:  # noqa: C901, PLR0912 - a table
    state: Any = random_state(DDPM)
    if case == "code":
        state["temb.dense.0.weight"] = Malice(path.parent / "owned")
    elif case == "class-conditional":
        state = random_state(IDDPM) | {"label_emb.weight": torch.zeros(10, 128)}
    elif case == "text-conditional":
        state = random_state(IDDPM) | {"input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight": torch.zeros(2, 2)}
    elif case == "latent":
        state = {f"model.diffusion_model.{k}": v for k, v in random_state(IDDPM).items()}
        state["first_stage_model.encoder.conv_in.weight"] = torch.zeros(2, 2)
    elif case == "four channels":
        state = random_state(iddpm_layout(32, (1, 2), 1, (1,), resblock_updown=True, channels=4))
    elif case == "gan":
        state = {"synthesis.b4.conv1.weight": torch.zeros(2, 2), "mapping.fc0.weight": torch.zeros(2, 2)}
    elif case == "gan container":
        state = {"g_ema": {"style.1.weight": torch.zeros(2, 2)}, "d": {}}
    elif case == "score sde":
        state = {"all_modules.0.W": torch.zeros(4), "sigmas": torch.zeros(5)}
    elif case == "lucidrains":
        state = {"model": {"model.init_conv.weight": torch.zeros(4, 3, 7, 7), "betas": torch.zeros(5)}}
    elif case == "classifier":
        state = {"fc.weight": torch.zeros(4, 4), "layer1.0.conv1.weight": torch.zeros(4, 4, 3, 3)}
    elif case == "nan":
        state["conv_in.bias"][3] = float("nan")
    elif case == "part missing":
        del state["mid.block_2.conv1.weight"]
    elif case == "part too many":
        state["up.0.extra.weight"] = torch.zeros(3)
    elif case == "other shape":
        state["conv_out.weight"] = torch.zeros(3, 16, 3, 3)
    elif case == "no attention":
        state = random_state(ddpm_layout(32, (1, 2), 1, ()))
    elif case == "diffusers without config":
        state = {
            k: torch.zeros(2) for k in ("time_embedding.linear_1.weight", "conv_in.weight", "conv_norm_out.weight")
        }
    elif case == "no tensors":
        state = {"epoch": 3}
    elif case == "a number":
        state = 3
    elif case == "list of numbers":
        state = [1, 2, 3]
    torch.save(state, path)
    if case == "truncated":
        path.write_bytes(path.read_bytes()[:-2000])
    elif case == "empty":
        path.write_bytes(b"")
    elif case == "text":
        path.write_text("hello, this is no checkpoint")
    elif case == "pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    elif case == "web page":
        path.write_text("<!DOCTYPE html><html>Quota exceeded</html>")
    elif case == "plain pickle":
        path.write_bytes(pickle.dumps(Malice(path.parent / "owned")))
    elif case == "heads":
        torch.save(random_state(IDDPM), path)
        path.with_name("net.ckpt.json").write_text('{"num_heads": 5}')
    elif case == "sidecar key":
        path.with_name("net.ckpt.json").write_text('{"num_head": 5}')
    elif case == "sidecar value":
        path.with_name("net.ckpt.json").write_text('{"image_size": "64"}')
    elif case == "sidecar not JSON":
        path.with_name("net.ckpt.json").write_text("{")
    elif case == "size not divisible":
        path.with_name("net.ckpt.json").write_text('{"image_size": 33}')
    elif case == "schedule unknown":
        path.with_name("net.ckpt.json").write_text('{"schedule": {"beta_schedule": "sigmoid"}}')
    elif case == "schedule beyond range":
        path.with_name("net.ckpt.json").write_text('{"schedule": {"beta_end": 2}}')


WRONG = {
    "code": "the pickle in it wants to call posix.mkdir; nothing in it was run",
    "plain pickle": "nothing in it was run",
    "truncated": "not a complete checkpoint",
    "empty": "the file is empty",
    "text": "not a",
    "pointer": "git-lfs pointer",
    "web page": "it is a web page",
    "class-conditional": "conditional on a class",
    "text-conditional": "conditional on text",
    "latent": "works on latents",
    "four channels": "takes 4 channels, must be 1 or 3",
    "gan": "it is a GAN",
    "gan container": "it is a GAN's checkpoint",
    "score sde": "score-SDE network",
    "lucidrains": "denoising-diffusion-pytorch",
    "classifier": "of no family that is known",
    "nan": "conv_in.bias holds NaN",
    "part missing": "tensors are missing, the first is mid_block.resnets.1.conv1.weight",
    "part too many": "1 tensors have no place in the network, the first is up.0.extra.weight",
    "other shape": r"of another shape, the first is conv_out.weight, \(3, 16, 3, 3\) where \(3, 32, 3, 3\)",
    "no attention": "state image_size",
    "diffusers without config": "without their config.json",
    "no tensors": "holds no tensors",
    "a number": "holds a int, not a state dict",
    "list of numbers": "does not begin with a state dict",
    "heads": "5 heads do not divide 64 channels",
    "sidecar key": "unknown key 'num_head'; did you mean 'num_heads'",
    "sidecar value": "image_size is '64', must be a whole number",
    "sidecar not JSON": "not JSON at line 1",
    "size not divisible": "image_size is 33, must be a multiple of 2",
    "schedule unknown": "beta_schedule 'sigmoid' is not known",
    "schedule beyond range": "betas from 0.0001 to 2",
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_wrong_checkpoint_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    path = tmp_path / "net.ckpt"
    make_wrong(case, path)
    with pytest.raises(CheckpointError, match=WRONG[case]) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_index": {"vqvae": ["diffusers", "VQModel"], "unet": ["diffusers", "UNet2DModel"]}}, "lists vqvae"),
        ({"scheduler": {**SCHEDULER, "_class_name": "ScoreSdeVeScheduler"}}, "not a variance-preserving process"),
        ({"scheduler": {**SCHEDULER, "rescale_betas_zero_snr": True}}, "rescale_betas_zero_snr"),
        ({"config": {"time_embedding_type": "fourier"}}, "must be 'positional'"),
        ({"config": {"in_channels": 4, "out_channels": 4}}, "takes 4 channels"),
        ({"config": {"sample_size": None}}, "sample_size None, must be a whole number"),
        ({"config": {"down_block_types": ["DownBlock2D", "NoSuchBlock"]}}, "describes no network"),
    ],
    ids=lambda value: str(sorted(value)) if isinstance(value, dict) else "",
)
def test_wrong_folder_is_refused_in_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = write_tiny(tmp_path / "net")
    if "model_index" in change:
        (folder / "model_index.json").write_text(json.dumps(change["model_index"]))
    if "scheduler" in change:
        (folder / "scheduler_config.json").write_text(json.dumps(change["scheduler"]))
    if "config" in change:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **change["config"]}))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_folder_with_a_checkpoint_only_names_the_file(tmp_path: Path) -> None:
    write(tmp_path / "celeba_hq.ckpt", DDPM)
    with pytest.raises(CheckpointError, match="has no config.json, but celeba_hq.ckpt; give the path of that file"):
        load_model(tmp_path)


def test_built_network_has_every_tensor_of_the_file(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write(tmp_path / "net.pt", PLAIN_IDDPM))
    for name, tensor in build_network(checkpoint).state_dict().items():
        torch.testing.assert_close(tensor, checkpoint.architecture.state[name], atol=0, rtol=0)


def test_model_of_the_hub_is_read_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout that huggingface_hub keeps downloads in; no network."""
    folder = write_tiny(tmp_path / "net")
    home = tmp_path / "hub/models--owner--name"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (home / "refs").mkdir(parents=True)
    (home / "refs/main").write_text(commit)
    (home / "snapshots").mkdir()
    folder.rename(home / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    expected = eps_of(home / "snapshots" / commit)
    model = load_model("owner/name")
    generator = torch.Generator().manual_seed(1)
    torch.testing.assert_close(model.eps(torch.randn(2, 3, 8, 8, generator=generator), 300), expected)
    assert load_model(f"owner/name@{commit}").sha256 == model.sha256
    with pytest.raises(CheckpointError, match="neither a local folder nor available from the hub"):
        load_model("owner/other")


def test_command_takes_what_is_stated(tmp_path: Path) -> None:
    source = write(tmp_path / "net.pt", IDDPM)
    arguments = ["import-checkpoint", str(source), str(tmp_path / "out"), "--head-channels", "16"]
    result = CliRunner().invoke(cli, [*arguments, "--schedule", "cosine"])
    assert result.exit_code == 0, result.output
    assert "taken for granted: queries, keys and values" in result.output
    assert "64 channels" not in result.output
    assert json.loads((tmp_path / "out/config.json").read_text())["attention_head_dim"] == 16
    scheduler = json.loads((tmp_path / "out/scheduler_config.json").read_text())
    assert scheduler["beta_schedule"] == "squaredcos_cap_v2"
    again = CliRunner().invoke(cli, arguments)
    assert (again.exit_code, "already exists" in again.output) == (2, True)
