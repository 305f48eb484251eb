"""`boundaryflow inspect MODEL --try PICTURES`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from boundaryflow.config import AvatarSource
from boundaryflow.errors import PipelineError
from boundaryflow.jobs.inspection import as_text, inspect
from boundaryflow.jobs.inspection.trial import MAX_PICTURES
from boundaryflow.models.guesses import MAX_GUESSES
from boundaryflow.sources.datasets import draw_avatars, face_of
from flows.cli import cli
from tests.layouts import iddpm_layout, random_state
from tests.small_project import ROOT

AVATARS = ROOT / "data/pretrained/avatars64"


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    source = AvatarSource(kind="avatars", num_images=8, seed=1, rates={}, correlations={})
    for index, avatar in enumerate(draw_avatars(source, 0)[:4]):
        Image.fromarray(face_of(avatar, 64)[0].transpose(1, 2, 0)).save(folder / f"{index}.png")
    (folder / "labels.csv").write_text("file\n")
    return folder


def noise(path: Path, size: int, num: int = 2) -> Path:
    path.mkdir()
    for index in range(num):
        pixels = np.random.default_rng(index).integers(0, 255, (size, size, 3), np.uint8)
        Image.fromarray(pixels).save(path / f"{index}.png")
    return path


def test_network_on_pictures_of_its_kind_is_told_to_fit(faces: Path) -> None:
    facts = inspect(str(AVATARS), [faces])
    assert facts["error of the best guess"] < 0.7
    assert facts["fits best"] == {"value range": "-1 to 1", "channel order": "rgb"}
    assert facts["differs from what was taken for granted"] == []
    assert "write" not in facts
    assert min(facts["error by value range"].values()) == facts["error as taken for granted"]


def test_wrong_guess_is_caught_and_what_to_write_is_told(faces: Path, tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    for file in AVATARS.iterdir():
        if file.is_file():
            (folder / file.name).symlink_to(file)
    scheduler = json.loads((AVATARS / "scheduler_config.json").read_text())
    (folder / "scheduler_config.json").unlink()
    scheduler["prediction_type"] = "v_prediction"
    (folder / "scheduler_config.json").write_text(json.dumps(scheduler))
    doubt = inspect(str(folder), [faces])
    assert doubt["note"][0].startswith("it is stated to predict v_prediction, but epsilon fits better: ")
    sidecar = folder / "boundaryflow.json"
    sidecar.unlink()
    sidecar.write_text(json.dumps({**json.loads((AVATARS / "boundaryflow.json").read_text()), "value_range": [0, 1]}))
    del scheduler["prediction_type"]
    (folder / "scheduler_config.json").write_text(json.dumps(scheduler))
    stated = inspect(str(folder), [faces])
    assert "value range" not in stated["fits best"]  # it is stated
    assert stated["error by predicts"]["epsilon"] < stated["error by predicts"]["v_prediction"]


def test_checkpoint_file_is_tried_over_all_that_it_leaves_open(tmp_path: Path) -> None:
    source = tmp_path / "net.pt"
    torch.save(random_state(iddpm_layout(32, (1, 2), 1, (1,), resblock_updown=True)), source)
    pictures = noise(tmp_path / "pictures", 40)
    facts: dict[str, Any] = json.loads(
        CliRunner().invoke(cli, ["inspect", str(source), "--try", str(pictures), "--json"]).output
    )
    assert set(facts["fits best"]) == {
        "predicts", "schedule", "value range", "image size", "heads", "qkv order", "channel order"}  # fmt: skip
    assert facts["guesses"] <= MAX_GUESSES
    assert facts["error of the best guess"] > 0.7
    assert "larger sizes were not tried: the smallest picture has 40 pixels a side" in facts["note"]
    assert list(facts["error by image size"]) != []
    if facts["differs from what was taken for granted"]:
        assert facts["write"].endswith(f"into {source}.json")
        stated = json.loads(facts["write"].rpartition(" into ")[0])
        source.with_name("net.pt.json").write_text(json.dumps(stated))
        assert inspect(str(source))["stated"]


def test_number_of_pictures_is_bounded(faces: Path, tmp_path: Path) -> None:
    more = noise(tmp_path / "more", 64, 9)
    assert inspect(str(AVATARS), [*sorted(faces.glob("*.png"))[:1], more])["pictures"] == MAX_PICTURES


def test_one_broken_picture_of_a_folder_is_passed_over(faces: Path, tmp_path: Path) -> None:
    folder = noise(tmp_path / "some", 64, 1)
    (folder / "broken.png").write_bytes(b"no picture")
    assert "verdict  " in as_text(inspect(str(AVATARS), [folder]))


@pytest.mark.parametrize(
    ("name", "message"),
    [("nothing", "no such file or folder"), ("text.png", "not an image that can be read"), ("empty", "holds no ima")],
)
def test_pictures_that_are_none_are_one_line(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PipelineError, match=message) as caught:
        inspect(str(AVATARS), [tmp_path / name])
    assert "\n" not in str(caught.value)


def test_what_is_no_model_is_one_line(faces: Path, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("file,a\n")
    result = CliRunner().invoke(cli, ["inspect", str(tmp_path / "table.csv"), "--try", str(faces)])
    assert result.exit_code == 2
    assert len(result.output.strip().splitlines()) == 1
