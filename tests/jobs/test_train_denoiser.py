"""`boundaryflow train-denoiser`: what it reads, what it leaves, and runs that are cut short."""

from __future__ import annotations

import json
import os
import shutil
import signal
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from boundaryflow.errors import CheckpointError, ManifestError, ParamsError, PipelineError
from boundaryflow.jobs import train_denoiser as job
from boundaryflow.jobs.inspection import inspect
from boundaryflow.jobs.train_denoiser import Budget, train_denoiser, train_from
from boundaryflow.jobs.training_pictures import TrainingPictures, open_pictures
from boundaryflow.models import load_model
from boundaryflow.store.shards import complete_shard, plan_shards
from boundaryflow.store.tables import write_table
from boundaryflow.training import DenoiserTraining, NetworkSettings, TrainSettings
from flows.cli import cli

NETWORK = NetworkSettings(image_size=8, channels=1, pixel_unshuffle=2, widths=(16, 32), attention=(2,))
SETTINGS = TrainSettings(batch_size=4, mirror=True)
GEOMETRY = {"size": 8, "channels": 3, "fit": "crop", "crop": None, "background": (0, 0, 0)}
WEIGHTS = "diffusion_pytorch_model.safetensors"


def pictures() -> TrainingPictures:
    drawn = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), np.uint8)
    return TrainingPictures.of_array(drawn, "forty of chance")


def trained(out: Path, num_images: int = 24, **options: Any) -> dict[str, Any]:
    return train_denoiser(pictures(), out, NETWORK, SETTINGS, Budget(images=num_images), **options)


def interrupted(monkeypatch: pytest.MonkeyPatch, at_step: int, by: str) -> None:
    advance = DenoiserTraining.advance

    def cut_short(self: DenoiserTraining, *args: Any) -> None:
        if self.step == at_step:
            if by == "kill":
                raise RuntimeError("killed")
            signal.raise_signal(signal.SIGINT)
        advance(self, *args)

    monkeypatch.setattr(DenoiserTraining, "advance", cut_short)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "model"
    trained(out, licence="CC0")
    return out


def test_folder_is_a_model_with_an_honest_card(whole: Path) -> None:
    card = json.loads((whole / "training.json").read_text())
    assert (card["steps"], card["images_seen"], card["settings"]["mirror"]) == (6, 24, True)
    assert card["data"]["licence"] == "CC0"
    assert (card["data"]["pictures"], card["data"]["held_out"]) == (36, 4)
    assert card["hardware"][0].endswith(("float32", "bfloat16"))
    (measured,) = card["measured"]
    assert measured["images_seen"] == 24
    assert all(np.isfinite(value) for value in measured.values())
    text = (whole / "README.md").read_text()
    for words in ("36 of `forty of chance`; 4 held out", "CC0", "24 (each picture 0.7 times), in 6 steps"):
        assert words in text
    facts = inspect(str(whole))
    assert (facts["image size"], facts["channels"], facts["attention at"]) == (8, 1, [2])
    assert facts["parameters"] == card["parameters"]
    with Image.open(whole / "samples.png") as samples:
        assert samples.size == (32, 32)


@pytest.mark.parametrize("by", ["kill", "Ctrl-C"])
def test_run_that_was_cut_short_ends_with_the_bytes_of_an_undisturbed_one(
    by: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "cut"
    with monkeypatch.context() as patch:
        interrupted(patch, 4, by)
        with pytest.raises(RuntimeError if by == "kill" else KeyboardInterrupt):
            trained(out, keep_every_s=0)
    assert load_model(out).image_size == 8  # usable as it was left
    assert json.loads((out / "training.json").read_text())["steps"] == (4 if by == "kill" else 5)
    told: list[str] = []
    card = trained(out, tell=told.append)
    assert any(line.startswith("going on after") for line in told)
    assert [found["images_seen"] for found in card["measured"]] == [4, 24]
    for name in (WEIGHTS, "samples.png", "config.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


@pytest.fixture
def _unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        job, "measure", lambda *_: dict.fromkeys(("held_out_loss", "trained_on_loss", "round_trip_psnr_db"), 0.0)
    )


@pytest.mark.usefixtures("_unmeasured")
def test_more_images_go_on_from_there_and_minutes_end(tmp_path: Path) -> None:
    out = tmp_path / "model"
    trained(out, 8)
    assert trained(out, 12)["steps"] == 3
    card = train_denoiser(pictures(), tmp_path / "short", NETWORK, SETTINGS, Budget(minutes=0.02))
    assert card["wall_time_s"] >= 1
    assert card["steps"] >= 1


def test_loss_that_is_not_finite_stops_before_anything_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(self: DenoiserTraining, *_: Any) -> None:
        self.loss, self.step = torch.tensor(torch.nan), 6

    monkeypatch.setattr(DenoiserTraining, "advance", diverge)
    with pytest.raises(
        CheckpointError, match="the loss is nan at step 6; start over with a --learning-rate below 0.02"
    ):
        trained(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_other_settings_than_it_was_begun_with_are_refused(whole: Path) -> None:
    other = TrainSettings(batch_size=8, mirror=True)
    with pytest.raises(ParamsError, match=r"begun with other settings \(batch_size was 4 and is 8\)"):
        train_denoiser(pictures(), whole, NETWORK, other, Budget(images=48))


@pytest.mark.usefixtures("_unmeasured")
def test_two_at_the_same_model_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "model"

    def another(_: str) -> None:
        with pytest.raises(PipelineError, match="another process is training it"):
            trained(out)

    trained(out, 4, tell=another)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, pixels in enumerate(np.random.default_rng(1).integers(0, 256, (20, 9, 12, 3), np.uint8)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "19.png").write_bytes(b"no picture")
    return folder


def ingested(folder: Path) -> Path:
    items = [f"{number:016x}" for number in range(20)]
    for task in plan_shards(folder, items, "key", 8).tasks:
        rows = torch.tensor([int(item, 16) for item in task.missing], dtype=torch.uint8)
        complete_shard(task, {"pixels": rows[:, None, None, None].expand(-1, 3, 8, 8).contiguous()})
    splits = ["test"] * 4 + ["train"] * 16
    table = pd.DataFrame({"item_id": items, "status": "ok", "split": splits})
    write_table(folder / "manifest.parquet", table, schema="manifest/1", units={})
    return folder


def test_folder_and_archive_give_the_same_pictures(photos: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in photos.iterdir():
            archive.write(path, path.name)
    seen = []
    for source in (photos, tmp_path / "photos.zip"):
        with open_pictures(str(source), tmp_path, GEOMETRY) as found:
            assert found.pixels.shape == (19, 3, 8, 8)
            assert (len(found.rows), len(found.held_out), found.facts["left_out"]) == (18, 1, 1)
            seen.append((found.facts["sha256"], found.pixels[found.rows].tobytes()))
    assert seen[0] == seen[1]
    assert not list(tmp_path.glob(".boundaryflow-*"))


def test_test_split_of_a_data_set_is_not_trained_on(tmp_path: Path) -> None:
    geometry = {**GEOMETRY, "size": None, "channels": None, "fit": None}
    with open_pictures(str(ingested(tmp_path / "faces")), tmp_path, geometry) as found:
        assert sorted(found.pixels[found.held_out, 0, 0, 0].tolist()) == [0, 1, 2, 3]
        assert sorted(found.pixels[found.rows, 0, 0, 0].tolist()) == list(range(4, 20))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"size": 16}, "--size is 16, but it was ingested with 8"),
        ({"channels": 1}, "--channels is 1, but it was ingested with 3"),
        ({"crop": (0, 0, 4, 4)}, "--crop is for raw pictures"),
    ],
    ids=["size", "channels", "crop"],
)
def test_options_that_a_data_set_contradicts_are_refused(option: dict[str, Any], message: str, tmp_path: Path) -> None:
    geometry = {**GEOMETRY, "fit": None, **option}
    with pytest.raises(ManifestError, match=message), open_pictures(str(ingested(tmp_path / "a")), tmp_path, geometry):
        pass


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "out"], "nowhere: no such folder or file"),
        (["s3://bucket/faces", "out"], "is remote; ingest it first"),
        (["photos/19.png", "out"], "is not a folder, archive or LMDB of pictures"),
        (["few", "out"], "3 different pictures, must be at least 16"),
        (["damaged", "out"], "16 of 16 pictures cannot be used, such as 0.png: not an image"),
        (["photos", "photos"], "its samples would be trained on"),
        (["photos", "data/raw/x"], "lies in data/ of the checkout"),
        (["photos", "out", "--widths", "30,64"], "widths 30, 64: each must be a multiple of 8"),
        (["photos", "out", "--widths", "16,64"], "the first must be at least 32, as 3 channels folded by 2 are 12"),
        (["photos", "out", "--size", "30"], "size 30: must be a multiple of 8"),
        (["photos", "out", "--size", "32", "--attention", "32"], "attention 32: the feature maps have sides 16, 8, 4"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_line_and_leave_nothing(
    words: list[str], message: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, num in (("few", 3), ("damaged", 16)):
        (tmp_path / name).mkdir()
        for number in range(num):
            data = b"x" if name == "damaged" else (photos / f"{number}.png").read_bytes()
            (tmp_path / name / f"{number}.png").write_bytes(data)
    result = CliRunner().invoke(cli, ["train-denoiser", *words, "--images", "4"])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert message in result.stderr
    assert not os.path.lexists(tmp_path / "out.training")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [[], ["--images", "4", "--minutes", "1"]], ids=["none", "both"])
def test_how_long_is_said_once(words: list[str]) -> None:
    result = CliRunner().invoke(cli, ["train-denoiser", "photos", "out", *words])
    assert result.exit_code == 2
    assert "either --minutes or --images" in result.stderr


def test_crop_box_without_a_height_is_refused() -> None:
    result = CliRunner().invoke(cli, ["train-denoiser", "photos", "out", "--images", "4", "--crop", "0,0,5,0"])
    assert result.exit_code == 2
    assert "'0,0,5,0' has no width or no height" in result.stderr


def test_folders_of_somebody_else_are_refused_and_stay_as_they_are(tmp_path: Path) -> None:
    out, state = tmp_path / "m", tmp_path / "m.training"
    state.mkdir()
    (state / "lock").write_text("precious")
    with pytest.raises(CheckpointError, match=r"m\.training: has lock, which train-denoiser did not write; move it"):
        trained(out)
    assert (state / "lock").read_text() == "precious"
    (state / "lock").unlink()
    state.rmdir()
    (tmp_path / "elsewhere").mkdir()
    state.symlink_to("elsewhere")
    with pytest.raises(CheckpointError, match=r"m\.training: is a link or not a folder"):
        trained(out)
    assert not list((tmp_path / "elsewhere").iterdir())
    state.unlink()
    out.symlink_to("nowhere")
    with pytest.raises(CheckpointError, match=r"m: is a link or not a folder"):
        trained(out)


def test_folder_that_took_the_place_of_the_model_is_not_written_to(tmp_path: Path) -> None:
    trained(tmp_path / "m")
    shutil.rmtree(tmp_path / "m")
    (tmp_path / "m").mkdir()
    (tmp_path / "m/README.md").write_text("mine")
    with pytest.raises(CheckpointError, match="m: already exists"):
        trained(tmp_path / "m", 48)
    assert (tmp_path / "m/README.md").read_text() == "mine"


@pytest.mark.parametrize("out", ["photos/model", "photos", "photos/../photos/m"])
def test_model_within_its_pictures_is_refused(tmp_path: Path, out: str) -> None:
    (tmp_path / "photos").mkdir()
    run = CliRunner().invoke(cli, ["train-denoiser", str(tmp_path / "photos"), str(tmp_path / out), "--images", "8"])
    assert run.exit_code != 0
    assert "its samples would be trained on; name another OUT" in str(run.exception) + run.output
    assert not list((tmp_path / "photos").iterdir())


@pytest.mark.parametrize("out", [".", "..", "/"])
def test_out_without_a_name_is_one_clear_line(tmp_path: Path, out: str) -> None:
    with pytest.raises(CheckpointError, match=r"^train-denoiser \S+: must end in a name"):
        train_from(str(tmp_path), Path(out), Budget(images=1), tell=lambda _: None, dtype="auto", licence="")
