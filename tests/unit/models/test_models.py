"""Frozen models from diffusers folders: the bottleneck, the folding of pixels, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel

from boundaryflow.diffusion import BOTTLENECK, Features
from boundaryflow.diffusion.observation import features_only
from boundaryflow.errors import CheckpointError
from boundaryflow.models import FrozenModel, load_model
from boundaryflow.runtime.metering import Metered, Tally
from tests.unit.gaussian import GaussianModel

SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
}


def write_tiny(folder: Path, *, fold: int = 1, size: int = 8, **config: object) -> Path:
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=size,
        in_channels=3 * fold**2,
        out_channels=3 * fold**2,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        norm_num_groups=4,
        attention_head_dim=16,
        **config,
    )
    unet.save_pretrained(folder)
    (folder / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    if fold > 1:
        (folder / "boundaryflow.json").write_text(json.dumps({"pixel_unshuffle": fold}))
    return folder


def test_attributes_follow_the_config(tmp_path: Path) -> None:
    model = load_model(write_tiny(tmp_path, fold=2))
    assert (model.image_size, model.channels) == (16, 3)
    x_t = torch.randn(2, 3, 16, 16)
    eps, h = model.eps_and_h(x_t, 300)
    assert eps.shape == x_t.shape
    assert h.shape == (2, 16, 4, 4)


DECODER = Features("up_blocks.1.resnets.0", 2)


@pytest.mark.parametrize("features", [BOTTLENECK, Features("up_blocks.0.resnets.1"), DECODER], ids=lambda f: f.space)
@pytest.mark.parametrize("fold", [1, 2])
def test_pullback_is_the_gradient_that_finite_differences_find(tmp_path: Path, fold: int, features: Features) -> None:
    model = load_model(write_tiny(tmp_path, fold=fold))
    with torch.inference_mode():  # as edits call it
        x_t, way = torch.randn(2, 3, 8 * fold, 8 * fold), torch.randn(2, 3, 8 * fold, 8 * fold)
        dim = model.eps_and_features(x_t, 300, features)[1].shape[1]
        normals = torch.randn(2, 3, dim)
        seen: list[torch.Tensor] = []
        eps, pulled = model.pullback(x_t, 300, features, lambda h: (seen.append(h), normals)[1])
        plain, h = model.eps_and_features(x_t, 300, features)
        torch.testing.assert_close(eps, plain)
        torch.testing.assert_close(seen[0], h)
        step = 1e-2
        ahead, behind = (model.eps_and_features(x_t + s * way, 300, features)[1] for s in (step, -step))
        slope = ((ahead - behind)[:, None] * normals).sum(2) / (2 * step)
    torch.testing.assert_close((pulled * way[:, None]).flatten(2).sum(2), slope, atol=0.02, rtol=0.02)
    assert not torch.is_grad_enabled() or not pulled.requires_grad


def test_features_are_what_the_layer_gives_averaged_to_the_side_asked_for(tmp_path: Path) -> None:
    model = load_model(write_tiny(tmp_path))
    assert isinstance(model, FrozenModel)
    x_t = torch.randn(2, 3, 8, 8)
    eps, h = model.eps_and_h(x_t, 300)
    for features in (BOTTLENECK, Features("mid_block")):
        torch.testing.assert_close(model.eps_and_features(x_t, 300, features)[1], h.flatten(1))
    same, maps = model.eps_and_features(x_t, 300, Features(DECODER.layer))
    torch.testing.assert_close(same, eps)
    assert maps.dtype == torch.float32
    assert model.layers() == {
        "mid_block": (16, 4, 4),
        "up_blocks.0.resnets.0": (16, 4, 4),
        "up_blocks.0.resnets.1": (16, 4, 4),
        "up_blocks.1.resnets.0": (8, 8, 8),
        "up_blocks.1.resnets.1": (8, 8, 8),
    }
    means = maps.reshape(2, 8, 2, 4, 2, 4).mean((3, 5))
    torch.testing.assert_close(model.eps_and_features(x_t, 300, DECODER)[1], means.flatten(1))
    assert DECODER.space == "up_blocks.1.resnets.0:2"
    with pytest.raises(ValueError, match="no layer is named"):
        Features(None, 4)


@pytest.mark.parametrize("features", [BOTTLENECK, Features("up_blocks.0.resnets.1"), DECODER], ids=lambda f: f.space)
def test_features_alone_are_the_same_to_the_bit_and_what_is_behind_their_layer_is_not_computed(
    tmp_path: Path, features: Features
) -> None:
    model = load_model(write_tiny(tmp_path))
    assert isinstance(model, FrozenModel)
    x_t, ended = torch.randn(2, 3, 8, 8), []
    eps, seen = model.eps_and_features(x_t, 300, features)
    last = next(part for name, part in model._network.named_modules() if name.endswith("conv_out"))
    last.register_forward_hook(lambda *_: ended.append(True))
    assert torch.equal(model.features_only(x_t, 300, features), seen)
    assert not ended
    torch.testing.assert_close(model.eps(x_t, 300), eps)  # no hook of the look stays
    assert ended


def test_stage_observe_takes_models_that_cannot_stop_at_a_layer() -> None:
    whole = GaussianModel()
    assert not hasattr(whole, "features_only")
    x_t = torch.randn(2, 3, 4, 4)
    expected = whole.eps_and_features(x_t, 300, BOTTLENECK)[1]
    assert torch.equal(features_only(whole, x_t, 300, BOTTLENECK), expected)
    metered = Metered(whole, Tally())
    assert torch.equal(metered.features_only(x_t, 300, BOTTLENECK), expected)
    assert (metered.tally.image_calls, metered.tally.partial_calls) == (2, 2)


@pytest.mark.parametrize(
    ("layer", "pool", "message"),
    [
        ("up_blocks.1.resnet.0", None, "has no layer 'up_blocks.1.resnet.0', did you mean up_blocks.1.resnets.0"),
        ("zzz", None, "has no layer 'zzz'$"),
        ("up_blocks", None, "layer 'up_blocks' is not called by the network"),
        ("down_blocks.0", None, "layer 'down_blocks.0' gives tuple, must be maps"),
        ("time_embedding", None, r"layer 'time_embedding' gives \[2, 32\], must be maps"),
        ("up_blocks.0.resnets.0", 5, "maps of 4 x 4, which cannot be averaged to a side of 5"),
        ("up_blocks.0.resnets.0.nonlinearity", None, "is called more than once by the network"),
    ],
)
def test_layer_that_gives_no_features_is_refused_in_one_line(
    tmp_path: Path, layer: str, pool: int | None, message: str
) -> None:
    model = load_model(write_tiny(tmp_path))
    x_t = torch.randn(2, 3, 8, 8)
    eps = model.eps(x_t, 300)
    with pytest.raises(CheckpointError, match=message) as caught:
        model.eps_and_features(x_t, 300, Features(layer, pool))
    assert "\n" not in str(caught.value)
    torch.testing.assert_close(model.eps(x_t, 300), eps)  # no hook stays


def test_bottleneck_observed_is_the_bottleneck_injected(tmp_path: Path) -> None:
    model = load_model(write_tiny(tmp_path))
    x_t = torch.randn(2, 3, 8, 8)
    eps, h = model.eps_and_h(x_t, 300)
    same, own = model.eps_with_h(x_t, 300, h)
    torch.testing.assert_close(same, eps)
    torch.testing.assert_close(own, h)
    torch.testing.assert_close(model.eps_with_h_shift(x_t, 300, torch.zeros_like(h)), eps)
    other, own = model.eps_with_h(x_t, 300, h + 1)
    torch.testing.assert_close(own, h)
    torch.testing.assert_close(other, model.eps_with_h_shift(x_t, 300, torch.ones_like(h)))
    assert not torch.allclose(other, eps)
    torch.testing.assert_close(model.eps(x_t, 300), eps)  # nothing stays injected


def test_one_timestep_per_image_is_the_same_as_one_by_one(tmp_path: Path) -> None:
    model = load_model(write_tiny(tmp_path))
    x_t = torch.randn(2, 3, 8, 8)
    both = model.eps(x_t, torch.tensor([10, 700]))
    torch.testing.assert_close(both[:1], model.eps(x_t[:1], 10), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(both[1:], model.eps(x_t[1:], 700), atol=1e-5, rtol=1e-4)


def test_folder_with_unet_and_scheduler_apart_is_read(tmp_path: Path) -> None:
    write_tiny(tmp_path / "unet")
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "unet/scheduler_config.json").rename(tmp_path / "scheduler/scheduler_config.json")
    assert load_model(tmp_path).image_size == 8


def test_hash_covers_weights_and_schedule(tmp_path: Path) -> None:
    first = load_model(write_tiny(tmp_path)).sha256
    assert load_model(tmp_path).sha256 == first
    (tmp_path / "scheduler_config.json").write_text(json.dumps({**SCHEDULER, "beta_end": 0.03}))
    assert load_model(tmp_path).sha256 != first


def test_learned_variance_is_left_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=6,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        norm_num_groups=4,
        attention_head_dim=16,
    )
    unet.save_pretrained(tmp_path)
    (tmp_path / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    x_t = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        expected = unet.eval()(x_t, 5).sample[:, :3]
    torch.testing.assert_close(load_model(tmp_path).eps(x_t, 5), expected, atol=1e-5, rtol=1e-4)


def damage(folder: Path, case: str) -> None:
    weights = folder / "diffusion_pytorch_model.safetensors"
    if case == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif case == "pointer":
        weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    elif case == "nan":
        from safetensors.torch import load_file, save_file

        tensors = load_file(weights)
        tensors["conv_in.weight"][0, 0, 0, 0] = float("nan")
        save_file(tensors, weights)
    elif case == "no weights":
        weights.unlink()
    elif case == "no schedule":
        (folder / "scheduler_config.json").unlink()
    elif case == "flow":
        (folder / "scheduler_config.json").write_text(json.dumps({**SCHEDULER, "prediction_type": "flow_prediction"}))
    elif case == "conditional":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "num_class_embeds": 10}))
    elif case == "latent":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "_class_name": "UNet2DConditionModel"}))


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("truncated", "not a complete safetensors file"),
        ("pointer", "git-lfs pointer"),
        ("nan", "conv_in.weight holds NaN"),
        ("no weights", "diffusion_pytorch_model.safetensors is missing"),
        ("no schedule", "scheduler_config.json is missing"),
        ("flow", "must be one of epsilon, v_prediction, sample"),
        ("conditional", "conditional on a class"),
        ("latent", "only unconditional pixel models"),
    ],
)
def test_unusable_model_is_refused_in_one_line(tmp_path: Path, case: str, message: str) -> None:
    damage(write_tiny(tmp_path), case)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_name_that_is_neither_folder_nor_hub_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file or folder"):
        load_model(tmp_path / "nothing")


def test_image_of_another_size_is_refused(tmp_path: Path) -> None:
    model = load_model(write_tiny(tmp_path))
    wrong = torch.zeros(1, model.channels, 2 * model.image_size, 2 * model.image_size)
    with pytest.raises(ValueError, match="the model works on"):
        model.eps(wrong, 10)


def test_layers_that_the_file_lacks_are_not_made_up(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["layers_per_block"] += 1
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="44 tensors are missing, the first is down_blocks.0.resnets.1"):
        load_model(folder)


def test_hash_covers_the_architecture(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path)
    before = load_model(folder).sha256
    config = json.loads((folder / "config.json").read_text())
    config["freq_shift"] = 1 - config["freq_shift"]
    (folder / "config.json").write_text(json.dumps(config))
    assert load_model(folder).sha256 != before
