"""The API does what the commands do, and its mistakes are one line each."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import boundaryflow as bf
from boundaryflow.avatars import render, sample_avatars
from boundaryflow.errors import BoundaryError, CheckpointError, ManifestError, ParamsError
from boundaryflow.jobs.export import export_images
from boundaryflow.jobs.pictures import edit_photos
from boundaryflow.jobs.text import extremes
from boundaryflow.store.tables import read_table
from tests.conftest import ROOT

CLIP = ROOT / "data/pretrained/avatars64_clip/clip.pt"


@pytest.fixture(scope="module")
def run(finished: Path) -> bf.Run:
    return bf.open(finished)


@pytest.fixture(scope="module")
def editor(run: bf.Run) -> bf.Editor:
    return run.editor()


@pytest.fixture
def face() -> Image.Image:
    return render(sample_avatars(1, np.random.default_rng(0))[0], 16)


def test_editor_of_a_run_edits_as_the_command_does(
    finished: Path, editor: bf.Editor, face: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "me.png"
    face.save(path)
    monkeypatch.chdir(finished)
    mask = Image.fromarray(np.tile(np.array([[255, 0]], np.uint8), (16, 1)).repeat(8, 1))
    mask.save(tmp_path / "mask.png")
    amounts, item = {"hat": 1.0, "dark_skin": -0.5}, hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    written = edit_photos([path], "avatars", amounts, [0.5, 1.5], tmp_path / "out", mask=tmp_path / "mask.png")
    assert editor.attributes == ("dark_skin", "hat")
    for strength, file in zip((0.5, 1.5), written, strict=True):
        edited = editor.edit(face, amounts, strength, mask=mask, ids=[item])
        with Image.open(file) as picture:
            np.testing.assert_array_equal(np.asarray(edited), np.asarray(picture))
    assert (np.asarray(editor.edit(face, amounts, 1.5)) != np.asarray(edited)).any()  # other noise, no mask


def test_many_images_are_edited_as_each_alone(editor: bf.Editor) -> None:
    faces = [render(avatar, 16) for avatar in sample_avatars(18, np.random.default_rng(1))]
    together = editor.edit(faces, {"hat": -1})
    for row in (0, 17):
        alone = np.asarray(editor.edit(faces[row], {"hat": -1})).astype(int)
        assert np.abs(np.asarray(together[row]) - alone).max() <= 1  # rounding depends on the batch


def test_items_are_the_pictures_and_numbers_of_the_run(
    run: bf.Run, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    num, _left_out = export_images("avatars", tmp_path / "export")
    exported = read_table(tmp_path / "export/metadata.parquet", schema="export/2")
    items = {item.id: item for item in run}
    assert sum(len(strengths) for item in items.values() for strengths in item.edits.values()) == num
    for row in exported.to_dict("records"):
        item = items[row["item_id"]]
        assert item.source == row["source"]
        with Image.open(tmp_path / "export" / row["file_name"]) as picture:
            np.testing.assert_array_equal(np.asarray(item.edits[row["edit"]][row["strength"]]), np.asarray(picture))
        if row["strength"] == 0:
            np.testing.assert_array_equal(np.asarray(item.image), np.asarray(item.edits[row["edit"]][0.0]))
            assert item.metrics[row["edit"]][0.0]["ssim"] == 1.0


def test_what_was_not_evaluated_has_no_metrics(project: Path) -> None:
    (project / "data/evaluate/avatars/tables/per_image.parquet").unlink()
    assert all(item.metrics == {} for item in bf.open(project, "avatars"))
    (project / "data/edit/avatars/manifest.parquet").unlink()
    with pytest.raises(ManifestError, match="nothing was edited yet; run `boundaryflow run --dataset avatars` first"):
        next(iter(bf.open(project)))


def test_boundary_is_fitted_saved_and_followed(editor: bf.Editor, tmp_path: Path) -> None:
    bright = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(0)) / 2 + 0.5
    fitted = bf.Boundary.fit(editor.model, "bright", bright, 1 - bright, num_steps=4, neighbours=0)
    assert fitted.auc == 1.0
    fitted.save(tmp_path / "bright.safetensors")
    fitted.save(tmp_path / "bright.safetensors")
    own = bf.Editor(editor.model, [bf.Boundary.load(tmp_path / "bright.safetensors")], num_steps=4)
    grey = torch.full((3, 16, 16), 0.5)
    darker, same, brighter = own.sweep(grey, {"bright": 1}, [-1, 0, 1])
    assert torch.equal(same, grey)
    assert not torch.equal(darker, brighter)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BoundaryError, match="not a complete safetensors file"):
        fitted.save(tmp_path / "mine.txt")
    assert (tmp_path / "mine.txt").read_text() == "mine"
    with pytest.raises(BoundaryError, match="which is not on the path of t_max 400 and num_steps 4; give the values"):
        bf.Editor(editor.model, [fitted], t_max=400, num_steps=4)
    other = replace(fitted.hyperplanes.noised[0], model_sha256="0" * 64)
    strange = bf.Boundary(replace(fitted.hyperplanes, noised=(other,)))
    with pytest.raises(BoundaryError, match="was fitted on model 000000000000, not"):
        bf.Editor(editor.model, [strange], num_steps=4)


def test_boundary_from_words_takes_the_images_that_fit_them_best(editor: bf.Editor) -> None:
    avatars = sample_avatars(48, np.random.default_rng(3))
    has = np.array([avatar.attributes["hat"] for avatar in avatars])
    faces = [render(avatar, 16) for avatar in avatars]
    words = {"positive": "a face with a hat", "negative": "a face without a hat", "clip": str(CLIP)}
    found = bf.Boundary.from_words(editor.model, "hat", images=faces, num_steps=3, min_auc=0.5, **words)
    assert found.attribute == "hat"
    pixels = np.stack([np.asarray(face) for face in faces])
    same = bf.Boundary.from_words(editor.model, "hat", images=pixels, num_steps=3, min_auc=0.5, **words)
    for one, other in zip(found.hyperplanes.noised, same.hyperplanes.noised, strict=True):
        assert torch.equal(one.normal, other.normal)
    rows, upper = extremes(np.where(has, 1.0, 0.0) + np.arange(48) / 100)
    assert (len(rows), upper.sum()) == (32, 16)
    assert set(rows[upper]) <= set(np.flatnonzero(has))


def test_mistakes_are_one_line_each(editor: bf.Editor, run: bf.Run, face: Image.Image, finished: Path) -> None:
    def own(guidance: dict[str, float]) -> bf.Editor:
        return bf.Editor(editor.model, [hat], t_max=300, num_steps=4, guidance=guidance)

    hat = editor.boundary("hat")
    assert own({"preserve": 1.0}).attributes == ("hat",)
    mistakes = [
        (lambda: editor.edit(face, {"hst": 1}), BoundaryError, "there are dark_skin, hat; did you mean 'hat'"),
        (lambda: editor.edit(face, {}), ManifestError, "no attribute is named"),
        (lambda: editor.edit(face, {"hat": 0}), ManifestError, "hat is to change by 0"),
        (lambda: editor.edit(face, {"hat": float("nan")}), ManifestError, "hat is to change by nan"),
        (lambda: editor.edit(face, {"hat": 1}, float("inf")), ManifestError, "strength inf must be from"),
        (lambda: editor.edit(face, {"hat": 1}, ids=["a", "b"]), ParamsError, "2 names for 1 images"),
        (lambda: bf.open(finished, "dogs"), ParamsError, "data has no entry 'dogs'"),
        (lambda: bf.load_model("x", dtype="int8"), ParamsError, "dtype is 'int8', must be auto"),
        (lambda: bf.load("nowhere"), ManifestError, "no such folder"),
        (lambda: bf.Editor(editor.model, []), BoundaryError, "none are given"),
        (lambda: own({"preserv": 1}), ParamsError, "'preserve'"),
        (lambda: own({"certainty": 2}), ParamsError, "less than 1"),
        (lambda: bf.Boundary.fit(editor.model, "a b", face, face), ParamsError, "must be letters, digits"),
        (lambda: bf.Boundary.fit(editor.model, "a", face, face), BoundaryError, "must be at least 2 each"),
        (lambda: bf.Boundary.fit(editor.model, "a", face, face, pool=4), ParamsError, "no layer is named"),
        (lambda: bf.Boundary.fit(editor.model, "a", face, face, layer="x"), ParamsError, "layer"),
        (lambda: bf.Boundary.fit(editor.model, "a", face, face, t_max=5000), ParamsError, "must be 1 to 999"),
        (lambda: bf.Boundary.from_words(editor.model, "a", "b", "c", face, clip="x"), ManifestError, "at least 24"),
        (lambda: bf.Boundary.from_words(editor.model, "a", "b", "c", [face] * 24, clip="x"), CheckpointError, "x"),
    ]
    for make, kind, reason in mistakes:
        with pytest.raises(kind, match=reason) as told:
            make()
        assert isinstance(told.value, bf.PipelineError)
        assert "\n" not in str(told.value)
