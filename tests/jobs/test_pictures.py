"""A few images at once: what the command line's edit, sweep and sample do."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from boundaryflow.boundary import Boundaries, load_boundaries, save_boundaries
from boundaryflow.config import CropBox, DeliveryParams, load_params
from boundaryflow.errors import BoundaryError, ManifestError, ParamsError
from boundaryflow.jobs import pictures as adhoc
from boundaryflow.jobs.batch import open_batch_editor, plan_edits
from boundaryflow.jobs.fitted import fitted_for, open_boundary
from boundaryflow.jobs.pictures import edit_photos, sweep_photos
from boundaryflow.jobs.sampling import directions_to_shares, sample_images
from boundaryflow.store.shards import load_items
from boundaryflow.store.tables import read_table
from tests.small_project import run_here


@pytest.fixture
def photo(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first face of the data set, as a file; the project is where we are."""
    monkeypatch.chdir(finished)
    manifest = read_table(Path("data/ingest/avatars/manifest.parquet"), schema="manifest/1")
    pixels = load_items(Path("data/ingest/avatars"), [sorted(manifest["item_id"])[0]], ["pixels"])["pixels"][0]
    path = tmp_path / "me.png"
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
    return path


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_strength_zero_is_the_photo_and_others_are_not(photo: Path, tmp_path: Path) -> None:
    written = edit_photos([photo], "avatars", "hat", [0.0, 1.5, -1.5], tmp_path / "out")
    assert [p.name for p in written] == ["me_hat_+0.png", "me_hat_+1.5.png", "me_hat_-1.5.png"]
    same, more, less = (pixels_of(p) for p in written)
    np.testing.assert_array_equal(same, pixels_of(photo))
    assert (more != same).any()
    assert (less != more).any()
    with Image.open(written[1]) as picture:
        assert picture.info["synthetic"] == "true"


def test_sweep_is_one_strip_whose_middle_is_the_photo(photo: Path, tmp_path: Path) -> None:
    (written,) = sweep_photos([photo], "avatars", "hat", -2, 2, 5, tmp_path / "out")
    strip = pixels_of(written)
    assert strip.shape == (16, 5 * 16, 3)
    np.testing.assert_array_equal(strip[:, 32:48], pixels_of(photo))


@pytest.fixture
def folder(photo: Path, tmp_path: Path) -> Path:
    """A folder with pictures at two levels, and something else."""
    made = tmp_path / "photos"
    (made / "below").mkdir(parents=True)
    shutil.copy(photo, made / "a.png")
    with Image.open(photo) as picture:
        picture.rotate(90).save(made / "below/b.png")
    (made / "notes.txt").write_text("no picture")
    return made


def test_folder_is_edited_as_its_pictures_are_one_by_one(folder: Path, tmp_path: Path) -> None:
    written = edit_photos([folder], "avatars", "hat", [1.0], tmp_path / "out")
    assert [path.name for path in written] == ["a_hat_+1.png", "b_hat_+1.png"]
    for name, path in zip(("a.png", "below/b.png"), written, strict=True):
        (alone,) = edit_photos([folder / name], "avatars", "hat", [1.0], tmp_path / "alone")
        assert np.abs(pixels_of(alone).astype(int) - pixels_of(path)).max() <= 1  # rounding depends on the batch
    (folder / "a.png").unlink()
    (folder / "below/b.png").unlink()
    with pytest.raises(ManifestError, match=r"^edit .*photos: no pictures in this folder; name another one$"):
        edit_photos([folder], "avatars", "hat", [1.0], tmp_path / "out")


def test_joint_edit_differs_from_each_and_amounts_multiply_the_strength(photo: Path, tmp_path: Path) -> None:
    def edited(attributes: dict[str, float], strength: float) -> np.ndarray:
        return pixels_of(edit_photos([photo], "avatars", attributes, [strength], tmp_path / "out")[0])

    joint = edited({"hat": 1.0, "dark_skin": -1.0}, 1.0)
    assert (tmp_path / "out/me_hat_dark_skin=off_+1.png").exists()
    assert (joint != edited({"hat": 1.0}, 1.0)).any()
    assert (joint != edited({"dark_skin": -1.0}, 1.0)).any()
    np.testing.assert_array_equal(edited({"hat": 0.5}, 2.0), edited({"hat": 1.0}, 1.0))
    np.testing.assert_array_equal(edited({"hat": -1.0}, 1.0), edited({"hat": 1.0}, -1.0))
    for amounts, reason in (({}, "no attribute is named"), ({"hat": 0.0}, "change by 0"), ({"hat": 2e3}, "to 1000")):
        with pytest.raises(ManifestError, match=reason):
            edit_photos([photo], "avatars", amounts, [1.0], tmp_path / "out")


def test_masked_edit_changes_nothing_where_the_mask_is_black(photo: Path, tmp_path: Path) -> None:
    before = pixels_of(photo)
    half = np.zeros((32, 32), np.uint8)
    half[:, :16] = 255
    Image.fromarray(half).save(tmp_path / "mask.png")
    written = edit_photos([photo], "avatars", "hat", [0.0, 1.5], tmp_path / "out", mask=tmp_path / "mask.png")
    same, changed = (pixels_of(path) for path in written)
    np.testing.assert_array_equal(same, before)
    np.testing.assert_array_equal(changed[:, 9:], before[:, 9:])
    assert (changed[:, :7] != before[:, :7]).any()
    Image.fromarray(half * 0).save(tmp_path / "mask.png")
    with pytest.raises(ManifestError, match="is black all over; paint white what may change"):
        edit_photos([photo], "avatars", "hat", [1.0], tmp_path / "out", mask=tmp_path / "mask.png")


def test_mask_is_for_guided_edits(project: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("method: guided", "method: single_step"))
    with pytest.raises(BoundaryError, match=r"^mask: edit.method of data set 'avatars' is single_step"):
        edit_photos([photo], "avatars", "hat", [1.0], tmp_path / "out", mask=photo)


def test_contact_sheet_has_a_row_for_each_picture(folder: Path, tmp_path: Path) -> None:
    grid = tmp_path / "sheet.png"
    model = DeliveryParams(deliver="model")  # what the sheet shows, too
    written = edit_photos([folder], "avatars", "hat", [0.0, 1.5], tmp_path / "out", model, grid=grid)
    assert written[-1] == grid
    sheet = pixels_of(grid)
    assert sheet.shape == (2 * 16, 3 * 16, 3)
    np.testing.assert_array_equal(sheet[16:, :16], pixels_of(folder / "below/b.png"))
    np.testing.assert_array_equal(sheet[:16, 32:], pixels_of(written[1]))
    strips = sweep_photos([folder], "avatars", "hat", 0, 1, 3, tmp_path / "out", model, grid=grid)  # replaces ours
    np.testing.assert_array_equal(pixels_of(grid), np.concatenate([pixels_of(strip) for strip in strips[:2]]))
    with pytest.raises(ManifestError, match=r"exists, and is not a picture of ours; choose another --grid$"):
        edit_photos([folder], "avatars", "hat", [1.0], tmp_path / "more", grid=folder / "a.png")
    with pytest.raises(ManifestError, match=r"must end in \.png$"):
        edit_photos([folder], "avatars", "hat", [1.0], tmp_path / "more", grid=folder / "a.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("boundaryflow.jobs.photos.MAX_SHEET_PIXELS", 1000)
        with pytest.raises(ManifestError, match="2 rows of 2 images of 16 pixels are more than 1,000 pixels"):
            edit_photos([folder], "avatars", "hat", [1.0], tmp_path / "more", grid=grid)
    assert not (tmp_path / "more").exists()


def test_mistyped_attribute_is_told_the_nearest(photo: Path, tmp_path: Path) -> None:
    with pytest.raises(BoundaryError, match=r"there are dark_skin, hat; did you mean 'dark_skin'\?$"):
        edit_photos([photo], "avatars", "dark_skn", [1.0], tmp_path / "out")


def test_samples_are_the_same_for_a_seed_and_more_do_not_change_the_first(photo: Path, tmp_path: Path) -> None:
    grid = sample_images("avatars", 3, {"hat": 1.0}, 7, tmp_path / "a")
    assert pixels_of(grid).shape == (16, 3 * 16, 3)
    sample_images("avatars", 5, {"hat": 1.0}, 7, tmp_path / "b")
    sample_images("avatars", 3, {"hat": 0.0}, 7, tmp_path / "c")
    first, same, other = (pixels_of(tmp_path / part / "sample-7-00001.png") for part in "abc")
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


def test_mistakes_say_what_there_is(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BoundaryError, match="there are dark_skin, hat"):
        edit_photos([photo], "avatars", "wings", [1.0], tmp_path / "out")
    with pytest.raises(ManifestError, match="no such image file"):
        edit_photos([tmp_path / "none.png"], "avatars", "hat", [1.0], tmp_path / "out")
    with pytest.raises(ParamsError, match="no entry 'dogs'"):
        sample_images("dogs", 1, {}, 0, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["guided", "single_step"])
def test_boundary_of_another_size_or_of_nan_is_refused_before_a_picture_is_written(
    project: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.chdir(project)
    text = Path("params.yaml").read_text()
    assert "method: guided" in text
    Path("params.yaml").write_text(text.replace("method: guided", f"method: {method}"))
    path = Path("data/boundary/avatars/hat.safetensors")
    whole = load_boundaries(path)
    for change, reason in (
        (lambda normal: normal[:7] / normal[:7].norm(), "has 7 dimensions, the latents of this model have"),
        (lambda normal: normal * torch.nan, "is not a finite unit vector"),
    ):
        noised = tuple(
            replace(hyperplane, normal=change(hyperplane.normal), pattern=None) for hyperplane in whole.noised
        )
        mixed = {
            s: replace(hyperplane, normal=change(hyperplane.normal)) for s, hyperplane in whole.at_mixing_step.items()
        }
        save_boundaries(path, Boundaries("hat", mixed, noised))
        with pytest.raises(BoundaryError, match=reason) as caught:
            edit_photos([photo], "avatars", "hat", [1.0], tmp_path / "out")
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("out/*"))


def test_before_any_run_it_says_what_to_run(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    Path("data/invert/avatars/invert.json").unlink()
    with pytest.raises(ManifestError, match="run `boundaryflow run`"):
        sample_images("avatars", 1, {}, 0, tmp_path / "out")


def test_what_was_made_for_no_single_step_serves_guided_edits_only(
    project: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["data"]["avatars"]["edit"]["compare"] = None
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(project)
    before = edit_photos([photo], "avatars", "hat", [1.0], tmp_path / "before")[0].read_bytes()
    run_here(project, monkeypatch, "mixing", "invert", "boundary")
    assert edit_photos([photo], "avatars", "hat", [1.0], tmp_path / "after")[0].read_bytes() == before
    sample_images("avatars", 2, {"hat": 1.0}, 7, tmp_path / "samples")
    dataset = load_params().dataset("avatars")
    plan = plan_edits("avatars", dataset, 0, {"hat": ["hat"]}, [1.0])
    editor = open_batch_editor(plan)
    assert open_batch_editor(pickle.loads(pickle.dumps(plan))) is editor  # noqa: S301 - as a worker process receives it
    made = editor.edit(torch.zeros(1, 3, 16, 16, dtype=torch.uint8), ["a"], {"hat": torch.ones(1, 1)})
    assert plan.labeller.by == {"hat": "hyperplanes"}
    assert made["hat"].pixels.shape == (1, 1, 3, 16, 16)
    params["data"]["avatars"]["edit"]["method"] = "single_step"
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    single = load_params().dataset("avatars")
    for job in (
        lambda: edit_photos([photo], "avatars", "hat", [1.0], tmp_path / "out"),
        lambda: sample_images("avatars", 2, {}, 7, tmp_path / "out"),
        lambda: plan_edits("avatars", single, 0, {"hat": ["hat"]}, [1.0]),
    ):
        with pytest.raises(BoundaryError, match="no edit needed any when the stages ran; run `boundaryflow run` with"):
            job()


def test_photos_of_one_name_do_not_overwrite_each_other(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / photo.name
    Image.open(photo).rotate(90).save(other)
    written = edit_photos([photo, other], "avatars", "hat", [0.0], tmp_path / "out")
    assert len(set(written)) == 2
    assert written[0].read_bytes() != written[1].read_bytes()


def test_photo_is_cropped_as_the_data_set_is(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = load_params().dataset("avatars")
    crop = CropBox(left=4, top=2, width=16, height=16)
    cropped = params.model_copy(update={"ingest": params.ingest.model_copy(update={"crop": crop})})
    monkeypatch.setattr(adhoc, "fitted_for", lambda name, _params, run_seed: fitted_for(name, cropped, run_seed))
    large = tmp_path / "large.png"
    framed = Image.new("RGB", (30, 20), "red")
    framed.paste(Image.open(photo), (4, 2))
    framed.save(large)
    written = edit_photos([large], "avatars", "hat", [0.0], tmp_path / "out", DeliveryParams(deliver="model"))
    np.testing.assert_array_equal(pixels_of(written[0]), pixels_of(photo))
    (already,) = edit_photos([photo], "avatars", "hat", [0.0], tmp_path / "other")  # of the model's size
    np.testing.assert_array_equal(pixels_of(already), pixels_of(photo))
    Image.open(photo).resize((17, 17)).save(large)
    with pytest.raises(ManifestError, match=r"^image .*: 17 x 17 is smaller than the crop box, 16 x 16 from 4, 2$"):
        edit_photos([large], "avatars", "hat", [0.0], tmp_path / "out")


def test_shares_are_met_with_as_few_edits_as_it_takes() -> None:
    has = torch.zeros(40, 3, dtype=torch.bool)
    has[:30, 0] = has[:5, 1] = has[:20, 2] = True
    ids = [f"sample-{i}" for i in range(40)]
    signs = directions_to_shares(has, [0.5, 0.25, 0.5], ids)
    assert (signs != 0).sum(0).tolist() == [10, 5, 0]
    after = torch.where(signs == 0, has.float(), (signs > 0).float())
    assert after.sum(0).tolist() == [20, 10, 20]
    assert (signs[30:, 0] == 0).all()
    assert (signs[:5, 1] == 0).all()
    assert signs[:30, 0].nonzero().flatten().tolist() != list(range(10))  # by lot, not the first
    assert torch.equal(signs, directions_to_shares(has, [0.5, 0.25, 0.5], ids))
    assert (directions_to_shares(has, [1.0, 0.0, 0.0], ids) != 0).sum(0).tolist() == [10, 5, 20]


def test_sample_at_a_rate_edits_some_and_leaves_the_others(photo: Path, tmp_path: Path) -> None:
    sample_images("avatars", 8, {}, 3, tmp_path / "free")
    sample_images("avatars", 8, {"hat": 1.0}, 3, tmp_path / "on")
    sample_images("avatars", 8, {"hat": 0.0}, 3, tmp_path / "off")
    sample_images("avatars", 8, {"hat": 0.5}, 3, tmp_path / "half")
    same = 0
    for index in range(8):
        name = f"sample-3-{index:05d}.png"
        free, on, off, half = (pixels_of(tmp_path / part / name) for part in ("free", "on", "off", "half"))
        assert (half == free).all() or (half == on).all() or (half == off).all()
        assert (on == free).all() != (off == free).all()  # it has a hat, or it has none
        same += bool((half == free).all())
    assert same >= 4


def test_attribute_is_a_name_and_never_a_path(photo: Path, tmp_path: Path) -> None:
    shutil.copy("data/boundary/avatars/hat.safetensors", tmp_path / "x.safetensors")
    for name in (str(tmp_path / "x"), "../avatars/hat", "hat\x1b[31m"):
        with pytest.raises(BoundaryError, match="does not exist: there are dark_skin, hat"):
            open_boundary("avatars", name)
