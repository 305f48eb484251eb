"""Variants of published checkpoints: what they predict, how many timesteps, in how many files, of which size."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file, save_file

from boundaryflow.errors import CheckpointError
from boundaryflow.models import Stated, load_model, open_checkpoint
from boundaryflow.models.importing import describe, import_checkpoint
from boundaryflow.models.prediction import eps_from
from tests.layouts import ddpm_layout, iddpm_layout, random_state
from tests.unit.models.test_models import SCHEDULER, write_tiny

WEIGHTS = "diffusion_pytorch_model.safetensors"
PUBLISHED = {
    # widths, resnets, levels that attend, size; DiME and ACE (CelebA-128), OpenAI (256, 64), P2 and ILVR (256)
    "celeba128": ((1, 1, 2, 3, 4), 2, (2, 3, 4), 128),
    "openai256": ((1, 1, 2, 2, 4, 4), 2, (3, 4, 5), 256),
    "imagenet64": ((1, 2, 3, 4), 3, (1, 2, 3), 64),
    "p2": ((1, 1, 2, 2, 4, 4), 1, (4,), 256),
    "improved cifar": ((1, 2, 2, 2), 3, (1, 2), 32),
    "widths of 32 pixels, attention of 64": ((1, 2, 2, 2), 1, (2,), 64),
}


def checkpoint(path: Path, state: dict[str, torch.Tensor], **stated: Any) -> Path:
    torch.save(state, path)
    if stated:
        path.with_name(f"{path.name}.json").write_text(json.dumps(stated))
    return path


def noisy(size: int = 8, seed: int = 1) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_eps_from_a_prediction_is_the_noise_that_was_drawn(kind: Any) -> None:
    x_0, noise, level = noisy().double(), noisy(seed=2).double(), torch.tensor([0.9, 0.2], dtype=torch.float64)
    signal, share = level.sqrt().reshape(2, 1, 1, 1), (1 - level).sqrt().reshape(2, 1, 1, 1)
    out = x_0 if kind == "sample" else signal * noise - share * x_0
    torch.testing.assert_close(eps_from(kind, out, signal * x_0 + share * noise, level), noise)


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
@pytest.mark.parametrize("fold", [1, 2])
def test_what_a_folder_predicts_gives_the_step_of_diffusers(tmp_path: Path, kind: str, fold: int) -> None:
    folder = write_tiny(tmp_path / "net", fold=fold)
    raw = load_model(folder)
    (folder / "scheduler_config.json").write_text(json.dumps({**SCHEDULER, "prediction_type": kind}))
    model, x_t, t = load_model(folder), noisy(8 * fold), 300
    scheduler = DDIMScheduler.from_config({**SCHEDULER, "prediction_type": kind, "clip_sample": False})
    scheduler.set_timesteps(1000)
    out = raw.eps(x_t, t)  # what the network itself gives
    expected = scheduler.step(out, t, x_t).prev_sample
    now, after = model.schedule.alpha_bar(t), model.schedule.alpha_bar(t - 1)
    eps = model.eps(x_t, t)
    x_0 = (x_t - (1 - now) ** 0.5 * eps) / now**0.5
    torch.testing.assert_close(after**0.5 * x_0 + (1 - after) ** 0.5 * eps, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model.eps(x_t, torch.tensor([300, 10]))[:1], eps[:1], atol=1e-5, rtol=1e-4)
    assert model.sha256 != raw.sha256


def test_prediction_and_range_and_order_survive_an_import(tmp_path: Path) -> None:
    facts = {"schedule": {"prediction_type": "v_prediction"}, "value_range": [0, 1], "channel_order": "bgr"}
    source = checkpoint(tmp_path / "net.pt", random_state(ddpm_layout(32, (1, 2), 1, (1,))), **facts)
    import_checkpoint(source, tmp_path / "folder")
    imported, model = load_model(tmp_path / "folder"), load_model(source)
    assert imported.value_range == model.value_range == (0, 1)
    torch.testing.assert_close(imported.eps(noisy(32), 300), model.eps(noisy(32), 300), atol=0, rtol=0)
    assert describe(open_checkpoint(tmp_path / "folder"))["predicts"] == "v_prediction"


def test_network_of_bgr_pictures_gets_them_so(tmp_path: Path) -> None:
    state = random_state(ddpm_layout(32, (1, 2), 1, (1,)))
    plain, bgr = checkpoint(tmp_path / "rgb.pt", state), checkpoint(tmp_path / "bgr.pt", state, channel_order="bgr")
    x_t = noisy(32)
    torch.testing.assert_close(load_model(bgr).eps(x_t, 300), load_model(plain).eps(x_t.flip(1), 300).flip(1))


@pytest.mark.parametrize("value", [[1, -1], [0], "0..1", [0, float("nan")], [True, 2], 3])
def test_value_range_that_is_none_is_refused(tmp_path: Path, value: Any) -> None:
    source = checkpoint(tmp_path / "net.pt", {}, value_range=value)
    with pytest.raises(CheckpointError, match=r"value_range"):
        open_checkpoint(source)


@pytest.mark.parametrize("num", [300, 500, 4000])
def test_timesteps_of_an_iddpm_scale_its_linear_betas(tmp_path: Path, num: int) -> None:
    state = random_state(iddpm_layout(32, (1, 2), 1, (1,), resblock_updown=True))
    schedule = load_model(checkpoint(tmp_path / "net.pt", state, schedule={"num_train_timesteps": num})).schedule
    # get_named_beta_schedule("linear", num) of guided-diffusion
    assert float(schedule.betas[0]) == pytest.approx(1000 / num * 0.0001)
    assert float(schedule.betas[-1]) == pytest.approx(1000 / num * 0.02)
    assert schedule.alpha_bar(num - 1) == pytest.approx(4.04e-5, rel=0.3)


def test_betas_that_are_stated_are_not_scaled(tmp_path: Path) -> None:
    state, stated = random_state(iddpm_layout(32, (1, 2), 1, (1,), resblock_updown=True)), {"num_train_timesteps": 500}
    for more in ({"beta_end": 0.01}, {"beta_schedule": "squaredcos_cap_v2"}):
        found = open_checkpoint(checkpoint(tmp_path / "net.pt", state, schedule=stated | more)).schedule
        assert {k: found[k] for k in stated | more} == stated | more
    ddpm = checkpoint(tmp_path / "ddpm.pt", random_state(ddpm_layout(32, (1, 2), 1, (1,))), schedule=stated)
    assert float(load_model(ddpm).schedule.betas[-1]) == pytest.approx(0.02)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_size_of_a_published_network_is_not_taken_for_half_of_it(tmp_path: Path, name: str) -> None:
    widths, resnets, levels, size = PUBLISHED[name]
    shapes = iddpm_layout(32, widths, resnets, levels, resblock_updown=True)
    source = checkpoint(tmp_path / "net.pt", random_state(shapes), head_channels=32)
    found = open_checkpoint(source)
    assert found.image_size == size
    assert found.architecture.assumes_size
    assert any(f"images of {size} x {size}" in line for line in found.assumptions)


def test_size_from_attention_alone_says_the_other_one(tmp_path: Path) -> None:
    shapes = iddpm_layout(32, (1, 1, 2), 1, (1, 2), resblock_updown=True)
    found = open_checkpoint(checkpoint(tmp_path / "net.pt", random_state(shapes), head_channels=32))
    assert "Were it at 32, they would be 64 x 64; `inspect --try PICTURES` measures which" in found.assumptions[0]
    assert open_checkpoint(tmp_path / "net.pt", Stated(image_size=64, head_channels=32)).image_size == 64


def split(folder: Path, infix: str = "") -> Path:
    """Weights of a folder in two files with an index."""
    state = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(state)
    places = {name: f"diffusion_pytorch_model{infix}-0000{1 + i % 2}-of-00002.safetensors" for i, name in
              enumerate(names)}  # fmt: skip
    for file in set(places.values()):
        save_file({name: state[name] for name in names if places[name] == file}, folder / file)
    index = folder / f"diffusion_pytorch_model{infix}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


@pytest.mark.parametrize("infix", ["", ".fp16"])
def test_weights_in_several_files_are_one_network(tmp_path: Path, infix: str) -> None:
    whole, parts = write_tiny(tmp_path / "whole"), write_tiny(tmp_path / "parts")
    split(parts, infix)
    torch.testing.assert_close(load_model(parts).eps(noisy(), 300), load_model(whole).eps(noisy(), 300))
    before = load_model(parts).sha256
    part = next(parts.glob("*-00002-of-*"))
    save_file({name: tensor * 2 for name, tensor in load_file(part).items()}, part)
    assert load_model(parts).sha256 != before


@pytest.mark.parametrize("case", ["missing", "elsewhere", "other tensors", "empty", "no json"])
def test_wrong_index_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    folder = write_tiny(tmp_path)
    index = split(folder)
    content, second = json.loads(index.read_text()), next(folder.glob("*-00002-of-*"))
    if case == "missing":
        second.unlink()
    elif case == "elsewhere":
        index.write_text(json.dumps({"weight_map": {name: f"../{at}" for name, at in content["weight_map"].items()}}))
    elif case == "other tensors":
        save_file({"extra": torch.zeros(1), **load_file(second)}, second)
    else:
        index.write_text("{}" if case == "empty" else "[")
    message = {"missing": "00002.safetensors is missing beside it", "elsewhere": "must be files beside it",
               "other tensors": "tensor extra", "empty": "no weight_map", "no json": "not an index"}[case]  # fmt: skip
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_checkpoint_folder_of_a_training_run_is_read_with_its_averages(tmp_path: Path) -> None:
    run = tmp_path / "ddpm-model-64"
    saved = run / "checkpoint-5000"
    for part in ("unet", "unet_ema"):
        write_tiny(saved / part)
        (saved / part / "scheduler_config.json").unlink()
    state = load_file(saved / "unet_ema" / WEIGHTS)
    save_file({name: tensor * 0.9 for name, tensor in state.items()}, saved / "unet_ema" / WEIGHTS)
    for name in ("optimizer.bin", "scheduler.bin", "random_states_0.pkl", "scaler.pt"):
        (saved / name).write_bytes(pickle.dumps({"step": 5000}))
    (run / "scheduler").mkdir()
    (run / "scheduler/scheduler_config.json").write_text(json.dumps(SCHEDULER))
    found = open_checkpoint(saved)
    assert (found.ema, found.file.parent.name) == (True, "unet_ema")
    assert load_model(saved).sha256 != load_model(saved / "unet").sha256


def test_half_precision_is_read_where_there_is_nothing_else(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path)
    half = {name: tensor.half() for name, tensor in load_file(folder / WEIGHTS).items()}
    before = load_model(folder).eps(noisy(), 300)
    (folder / WEIGHTS).unlink()
    save_file(half, folder / "diffusion_pytorch_model.fp16.safetensors")
    torch.testing.assert_close(load_model(folder).eps(noisy(), 300), before, atol=0.01, rtol=0.01)


def test_pickle_of_edm_is_named_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    persistence, ran = ModuleType("torch_utils.persistence"), SimpleNamespace(yes=False)

    def _reconstruct_persistent_obj(_meta: object) -> None:
        ran.yes = True

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "torch_utils", ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", persistence)

    class Net:
        def __reduce__(self) -> tuple[Any, ...]:
            return _reconstruct_persistent_obj, ({"module_src": "pass"},)

    path = tmp_path / "network-snapshot.pkl"
    path.write_bytes(pickle.dumps({"ema": Net()}))
    with pytest.raises(
        CheckpointError, match=r"it is a pickle of NVlabs' \(EDM, StyleGAN\).*protocol EpsModel"
    ) as caught:
        open_checkpoint(path)
    assert not ran.yes
    assert "\n" not in str(caught.value)


def test_milestone_of_lucidrains_is_named(tmp_path: Path) -> None:
    names = ("init_conv.weight", "downs.0.0.block1.proj.weight", "time_mlp.1.weight")
    model = {f"model.{name}": torch.zeros(4, 4) for name in names} | {"betas": torch.zeros(5)}
    ema = {f"ema_model.{name}": tensor for name, tensor in model.items()} | {"initted": torch.tensor([True])}
    torch.save({"step": 700, "model": model, "ema": ema, "opt": {}, "scaler": None, "version": "2"}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=r"denoising-diffusion-pytorch \(lucidrains\).*protocol EpsModel"):
        open_checkpoint(tmp_path / "m.pt")
