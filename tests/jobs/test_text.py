"""Boundaries from words, on the small project: the file, the edit with it, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from boundaryflow.avatars import render, sample_avatars
from boundaryflow.boundary import load_boundaries
from boundaryflow.errors import BoundaryError, ManifestError, ParamsError
from boundaryflow.jobs.pictures import edit_photos
from boundaryflow.jobs.text import boundary_from_words, name_of
from tests.small_project import ROOT

CLIP = ROOT / "data/pretrained/avatars64_clip/clip.pt"
WORDS = ("a person with dark skin", "a person with light skin")


@pytest.fixture
def words_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["data"]["avatars"]["evaluate"]["clip"] = str(CLIP)
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(project)
    return project


def test_name_is_made_of_the_words() -> None:
    assert name_of("A face, with a beard!") == "a_face_with_a_beard"
    assert name_of("???") == "text"


def test_words_on_the_data_sets_images_give_a_boundary_that_edits(words_project: Path) -> None:
    path, found = boundary_from_words("avatars", *WORDS, "dark", on="images", num=40, seed=0)
    assert path == Path("data/text/avatars/dark.safetensors")
    assert load_boundaries(path).attribute == "dark"
    assert max(hyperplane.calibration.auc for hyperplane in found.noised) >= 0.5
    photo = words_project / "me.png"
    render(sample_avatars(1, np.random.default_rng(5))[0], 16).save(photo)
    written = edit_photos([photo], "avatars", "dark", [0.0, 1.0], words_project / "out")
    assert np.array_equal(np.asarray(Image.open(written[0])), np.asarray(Image.open(photo)))


def test_samples_of_the_model_are_labelled_by_the_words(words_project: Path) -> None:
    first = boundary_from_words("avatars", *WORDS, "dark", on="samples", num=32, seed=0)[1]
    again = boundary_from_words("avatars", *WORDS, "dark", on="samples", num=32, seed=0)[1]
    other = boundary_from_words("avatars", *WORDS, "dark", on="samples", num=32, seed=1)[1]
    torch.testing.assert_close(first.noised[0].normal, again.noised[0].normal)
    assert not torch.allclose(first.noised[0].normal, other.noised[0].normal)


def test_pictures_made_elsewhere_are_the_positives(words_project: Path) -> None:
    folder = words_project / "made"
    folder.mkdir()
    for index in range(12):
        Image.new("RGB", (20, 20), (10, 10, 200 + index)).save(folder / f"{index}.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    found = boundary_from_words("avatars", "blue", "any", "blue", on="images", num=40, seed=0, positives=folder)[1]
    assert max(hyperplane.calibration.auc for hyperplane in found.noised) > 0.9


def test_too_few_pictures_or_no_clip_is_one_line(words_project: Path) -> None:
    (words_project / "few").mkdir()
    with pytest.raises(ManifestError, match="text --positives few: 0 pictures, must be at least 8"):
        boundary_from_words("avatars", *WORDS, "x", on="images", num=40, seed=0, positives=Path("few"))
    params = yaml.safe_load((words_project / "params.yaml").read_text())
    params["data"]["avatars"]["evaluate"]["clip"] = None
    (words_project / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(BoundaryError, match="no CLIP to read the words with; name one in evaluate.clip"):
        boundary_from_words("avatars", *WORDS, "x", on="images", num=40, seed=0)


@pytest.mark.parametrize("name", ["../../../../eviltext", "a/b", "", "x" * 65, "a\n", "caf\u00e9"])
def test_name_of_a_boundary_is_never_a_path(words_project: Path, name: str) -> None:
    with pytest.raises(ParamsError, match="must be letters, digits, _ and -"):
        boundary_from_words("avatars", *WORDS, name, on="images", num=40, seed=0)
