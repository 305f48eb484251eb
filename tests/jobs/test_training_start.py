"""`boundaryflow train-denoiser --start-from`: what a training takes over of a model, and which models it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load, load_file, save_file
from torch import Tensor

from boundaryflow.errors import CheckpointError, ManifestError, ParamsError
from boundaryflow.jobs import train_denoiser as job
from boundaryflow.jobs.train_denoiser import Budget, train_denoiser
from boundaryflow.jobs.training_pictures import TrainingPictures
from boundaryflow.training import DenoiserTraining, NetworkSettings, TrainSettings
from flows.cli import cli
from tests.jobs.test_train_denoiser import WEIGHTS, interrupted
from training.avatars import train_denoiser as avatars
from training.faces import train_denoiser as faces
from training.faces.pictures import CelebA

NETWORK = NetworkSettings(image_size=8, channels=3, pixel_unshuffle=2, widths=(32, 32))
SETTINGS = TrainSettings(batch_size=8)
NUM_SEEN = 400  # by the model that is started from


def shades(size: int = 8, channels: int = 3) -> TrainingPictures:
    """Pictures of one shade each: easy to learn."""
    shade = np.random.default_rng(0).integers(0, 256, (64, 1, 1, 1), np.uint8)
    return TrainingPictures.of_array(np.tile(shade, (1, channels, size, size)), "shades")


def trained(out: Path, num_images: int, **options: Any) -> dict[str, Any]:
    return train_denoiser(shades(), out, NETWORK, SETTINGS, Budget(images=num_images), **options)


def unmeasured(*_: Any) -> dict[str, float]:
    return dict.fromkeys(("held_out_loss", "trained_on_loss", "round_trip_psnr_db"), 0.5)


@pytest.fixture(autouse=True)
def _unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "measure", unmeasured)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "measure", unmeasured)
        trained(folder / "before", NUM_SEEN, licence="CC0")
    return folder / "before"


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "before"))


def test_training_starts_from_the_weights_of_the_model(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Tensor]] = []
    advance = DenoiserTraining.advance

    def watched(self: DenoiserTraining, *args: Any) -> None:
        if not self.step:
            network = {name: p.detach().clone() for name, p in self.network.named_parameters()}
            seen.extend([self.averaged_half(), network])
            assert len(self.state()) == 2 * len(seen[0]) + 1, "the optimisers start anew"
        advance(self, *args)

    monkeypatch.setattr(DenoiserTraining, "advance", watched)
    told: list[str] = []
    trained(tmp_path / "after", 8, start_from=model, tell=told.append)
    averaged, network = seen
    for name, value in load_file(model / WEIGHTS).items():
        assert torch.equal(averaged[name], value)
        assert torch.equal(network[name], value.float())
    assert f"starting from before, which has seen {NUM_SEEN} images" in told


def test_few_steps_from_a_model_reach_a_lower_loss_than_from_nothing(model: Path, tmp_path: Path) -> None:
    after = trained(tmp_path / "after", 32, start_from=model)
    nothing = trained(tmp_path / "nothing", 32)
    assert nothing["started_from"] is None
    assert after["training_loss"] < 0.8 * nothing["training_loss"]


def test_card_says_what_it_was_started_from_and_counts_its_start_too(model: Path, tmp_path: Path) -> None:
    sha256 = hashlib.sha256((model / WEIGHTS).read_bytes()).hexdigest()
    card = trained(tmp_path / "after", 16, start_from=model, licence="own")
    assert card["images_seen"] == 16
    assert card["started_from"] == {"name": "before", "sha256": sha256, "images_seen": NUM_SEEN, "licence": "CC0"}
    assert json.loads((tmp_path / "after/training.json").read_text())["started_from"] == card["started_from"]
    text = (tmp_path / "after/README.md").read_text()
    assert f"started from `before` (sha256 {sha256}), which had seen 400 images; with the 16 of this training" in text
    assert "that makes 416. Licence of the pictures of `before`: CC0." in text
    third = trained(tmp_path / "third", 8, start_from=tmp_path / "after")
    assert third["started_from"]["images_seen"] == NUM_SEEN + 16
    assert third["started_from"]["licence"] == "CC0; own"
    trained(tmp_path / "nothing", 8)
    assert "started from" not in (tmp_path / "nothing/README.md").read_text()


def test_run_goes_on_with_the_same_start_and_with_no_other(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    trained(whole, 32, start_from=model)
    with monkeypatch.context() as patch:
        interrupted(patch, 2, "kill")
        with pytest.raises(RuntimeError, match="killed"):
            trained(cut, 32, start_from=model, keep_every_s=0)
    assert trained(cut, 32, start_from=model)["steps"] == 4
    assert (cut / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    with pytest.raises(ParamsError, match=r"begun with other settings \(start_from was [0-9a-f]{60} and is None\)"):
        trained(cut, 48)
    with pytest.raises(ParamsError, match="start_from was"):
        trained(cut, 48, start_from=whole)
    trained(tmp_path / "nothing", 8)
    with pytest.raises(ParamsError, match="start_from was None and is"):
        trained(tmp_path / "nothing", 48, start_from=model)


def card_with(**changes: Any) -> Callable[[Path], None]:
    """The model's card with other facts; those of its network go by their own names."""

    def write(model: Path) -> None:
        card = json.loads((model / "training.json").read_text())
        network = {name: changes[name] for name in card["network"] if name in changes}
        of_card = {name: value for name, value in changes.items() if name not in network}
        card = {**card, "network": {**card["network"], **network}, **of_card}
        (model / "training.json").write_text(json.dumps({k: v for k, v in card.items() if v is not None}))

    return write


def weights_with(change: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], None]:
    def write(model: Path) -> None:
        tensors = load((model / WEIGHTS).read_bytes())
        change(tensors)
        save_file(tensors, model / WEIGHTS)

    return write


def pickled(model: Path) -> None:
    (model / WEIGHTS).unlink()
    (model / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(os.getcwd))


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (shutil.rmtree, "has no training.json that train-denoiser wrote; give the folder of a model"),
    "no card": (lambda model: (model / "training.json").unlink(), "has no training.json that train-denoiser wrote"),
    "FIFO": (
        lambda model: [(model / "training.json").unlink(), os.mkfifo(model / "training.json")],
        "has no training.json that train-denoiser wrote",
    ),
    "foreign card": (card_with(made_by="someone"), "has no training.json that train-denoiser wrote"),
    "no network": (card_with(network=None), "has no training.json that train-denoiser wrote"),
    "network is a list": (card_with(network=[1]), "its training.json is damaged; fetch the folder again"),
    "layers in words": (card_with(layers="one"), "its training.json is damaged"),
    "more layers than tensors": (card_with(layers=9999), "tensors, too few for 9999 layers"),
    "huge widths": (card_with(widths=[10**9]), "its training.json is damaged"),
    "size that does not fit": (card_with(image_size=9), "its training.json is damaged"),
    "unknown setting": (card_with(network={"depth": 3}), "its training.json is damaged"),
    "images in words": (card_with(images_seen="many"), "its training.json is damaged"),
    "broken start": (card_with(started_from={"name": "x"}), "its training.json is damaged"),
    "other widths": (card_with(widths=[32, 64]), f"{WEIGHTS} cannot be used (the shape of tensor"),
    "cut off": (lambda model: os.truncate(model / WEIGHTS, 1000), f"{WEIGHTS} cannot be used (cut off"),
    "tensor too few": (weights_with(lambda t: t.pop("conv_in.bias")), "the shape of tensor conv_in.bias is none"),
    "NaN": (weights_with(lambda t: t["conv_in.bias"].fill_(torch.nan)), "conv_in.bias is not of finite"),
    "whole numbers": (
        weights_with(lambda t: t.update({"conv_in.bias": t["conv_in.bias"].int()})),
        "conv_in.bias is not of finite",
    ),
    "pickle": (pickled, f"{WEIGHTS} cannot be used"),
}


@pytest.mark.parametrize("case", WRONG)
def test_model_that_cannot_be_started_from_is_one_line_and_leaves_nothing(
    case: str, model: Path, tmp_path: Path
) -> None:
    damage, message = WRONG[case]
    damage(model)
    with pytest.raises(CheckpointError) as refusal:
        trained(tmp_path / "after", 8, start_from=model)
    assert str(refusal.value).startswith(f"train-denoiser --start-from {model}: ")
    assert message in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1
    assert not list(tmp_path.glob("after*"))


def test_other_architecture_and_other_pictures_are_refused(model: Path, tmp_path: Path) -> None:
    def start(network: NetworkSettings, pictures: TrainingPictures) -> None:
        train_denoiser(pictures, tmp_path / "after", network, SETTINGS, Budget(images=8), start_from=model)

    with pytest.raises(ParamsError, match=r"its widths is \(32, 32\), and \(32, 64\) is asked for; leave that option"):
        start(replace(NETWORK, widths=(32, 64)), shades())
    with pytest.raises(ManifestError, match="its pictures are 3 x 16 x 16, and the network is for 3 x 8 x 8"):
        start(NETWORK, shades(16))
    assert not list(tmp_path.glob("after*"))


@pytest.mark.parametrize("out", ["before", "before/after", ""], ids=["the model", "in it", "around it"])
def test_model_that_is_started_from_is_not_written_to(out: str, model: Path, tmp_path: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in model.iterdir()}
    with pytest.raises(CheckpointError, match="lies in it, or contains it; name another OUT"):
        trained(tmp_path / out, 8, start_from=model)
    assert {path.name: path.stat().st_mtime_ns for path in model.iterdir()} == before


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number, pixels in enumerate(np.random.default_rng(1).integers(0, 256, (20, 9, 12, 3), np.uint8)):
        Image.fromarray(pixels).save(tmp_path / f"photos/{number}.png")
    return tmp_path / "photos"


def test_command_takes_size_and_network_from_the_model(model: Path, photos: Path, tmp_path: Path) -> None:
    words = ["train-denoiser", str(photos), str(tmp_path / "after"), "--images", "8", "--batch-size", "4"]
    result = CliRunner().invoke(cli, [*words, "--start-from", str(model), "--unshuffle", "2"])
    assert result.exit_code == 0, result.output
    card = json.loads((tmp_path / "after/training.json").read_text())
    assert card["network"] == json.loads((model / "training.json").read_text())["network"]
    assert card["started_from"]["images_seen"] == NUM_SEEN


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "16"], "its image_size is 8, and 16 is asked for; leave that option out"),
        (["--channels", "1"], "its channels is 3, and 1 is asked for"),
        (["--schedule", "cosine"], "its schedule is linear, and squaredcos_cap_v2 is asked for"),
        (["--attention", "4"], "its attention is (), and (4,) is asked for"),
        (["--layers", "2"], "its layers is 1, and 2 is asked for"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_options_that_the_model_contradicts_are_one_line(
    words: list[str], message: str, model: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "after"
    command = ["train-denoiser", str(photos), str(out), "--images", "8", "--start-from", str(model), *words]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("after*"))


@pytest.mark.parametrize("script", [faces, avatars], ids=["faces", "avatars"])
def test_built_in_models_are_trained_further_by_their_scripts(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr(script, "train_denoiser", lambda *args, **options: told.update(args=args, **options))
    words = ["script", "--images", "600", "--start-from", "m", "--out", str(tmp_path)]
    if script is faces:
        pixels = np.zeros((1, 3, 64, 64), np.uint8)
        monkeypatch.setattr(faces, "read_celeba", lambda _: CelebA(pixels, np.zeros((1, 40), bool), ()))
        words.append("celeba")
    else:
        monkeypatch.setattr(avatars, "faces", lambda *_: {"images": np.zeros((20, 64, 64, 3), np.uint8)})
        monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
        words += ["--cache", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    script.main()
    assert told["start_from"] == Path("m")
    assert told["args"][4] == Budget(images=600)
