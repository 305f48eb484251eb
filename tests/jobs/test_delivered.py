"""People's own pictures back, edited: by bulk_edit, edit, sweep, export and augment."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from boundaryflow.avatars import render, sample_avatars
from boundaryflow.config import DeliveryParams, delivery_of, load_params
from boundaryflow.errors import ManifestError, ParamsError
from boundaryflow.jobs import augment, delivering, pictures
from boundaryflow.jobs.export import export_images
from boundaryflow.jobs.finishing import Finishing, finishing_of
from boundaryflow.jobs.pictures import edit_photos, sweep_photos
from boundaryflow.sources.decoding import item_id_of
from boundaryflow.sources.encoding import encode_png, is_synthetic
from boundaryflow.store.shards import load_items
from boundaryflow.store.tables import read_table
from tests.jobs.test_augment import make_hats_rare, metadata
from tests.jobs.test_augment import run as run_augment
from tests.jobs.test_augment import set_job as set_augment
from tests.jobs.test_bulk_edit import ledger, run, set_job

GEOMETRY = {"size": 16, "channels": 3, "crop": None, "fit": "crop", "background": (255, 255, 255), "levels": None}


def photo(seed: int = 0, size: tuple[int, int] = (50, 40)) -> Image.Image:
    (face,) = sample_avatars(1, np.random.default_rng(seed))
    return render(face, max(size)).crop((0, 0, *size))


def pixels_of(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.fixture
def inbox(project: Path) -> Path:
    folder = project / "data/inbox/some"
    (folder / "trip").mkdir(parents=True)
    photo(0).save(folder / "a.png")
    photo(1, (33, 60)).save(folder / "trip/b.jpg", quality=95, exif=exif_with_position())
    return folder


def exif_with_position() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0110] = "a camera"
    exif.get_ifd(0x8825)[1] = "N"
    return exif


def test_originals_are_delivered_and_strength_0_is_the_file(
    project: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_job(project, strengths=[0.0, 2.0])
    assert run(project, monkeypatch)["counts"]["delivered"] == 2
    table = read_table(project / "out/some/metadata.parquet", schema="delivery/1")
    assert len(table) == 4
    for row in table.to_dict("records"):
        made, source = pixels_of(project / "out/some" / row["file_name"]), pixels_of(inbox / row["source"])
        assert made.shape == source.shape
        assert (made == source).all() == (row["strength"] == 0)


def test_names_folders_suffix_format_and_metadata_of_the_source(
    project: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_job(project, names="source", suffix="_new", format="source", quality=80, metadata="keep", strengths=[1.0])
    run(project, monkeypatch)
    out = project / "out/some/hats/1"
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*")) == ["a_new.png", "trip/b_new.jpg"]
    with Image.open(out / "trip/b_new.jpg") as picture:
        assert (picture.format, picture.size) == ("JPEG", (33, 60))
        assert picture.getexif()[0x0110] == "a camera"
        assert picture.getexif().get_ifd(0x8825)[1] == "N"
    assert is_synthetic((out / "trip/b_new.jpg").read_bytes())
    set_job(project, names="source", suffix="_new", format="source", quality=80, strengths=[1.0])
    run(project, monkeypatch, "--again")
    with Image.open(out / "trip/b_new.jpg") as picture:
        assert len(picture.getexif()) == 0


def test_change_of_what_is_delivered_counts_as_another_job(
    project: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_job(project, strengths=[1.0])
    run(project, monkeypatch)
    for change in ({"deliver": "model"}, {"format": "webp"}, {"format": "jpeg", "quality": 50}, {"names": "source"}):
        set_job(project, strengths=[1.0], **change)
        assert run(project, monkeypatch)["counts"]["new"] == 0
        assert run(project, monkeypatch, "--again")["counts"]["delivered"] == 2
        assert run(project, monkeypatch, "--again")["counts"]["new"] == 0
    delivered = {path.suffix for path in (project / "out/some/hats").rglob("*.*")}
    assert delivered == {".png", ".webp", ".jpg"}
    table = read_table(project / "out/some/metadata.parquet", schema="delivery/1")
    assert sorted(table["file_name"]) == sorted(
        str(path.relative_to(project / "out/some")) for path in (project / "out/some/hats").rglob("*.*")
    )


def test_renamed_file_is_edited_again_under_its_item(
    project: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_job(project, strengths=[1.0])
    run(project, monkeypatch)
    (inbox / "a.png").rename(inbox / "z.png")
    set_job(project, strengths=[1.0], deliver="model")
    assert run(project, monkeypatch, "--again")["counts"] == {"listed": 2, "new": 2, "delivered": 2}


def test_two_sources_of_one_name_do_not_overwrite_each_other(
    project: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(2).save(inbox / "a.webp", lossless=True)
    set_job(project, names="source", strengths=[1.0])
    told = run(project, monkeypatch)
    assert told["counts"] == {"listed": 3, "new": 3, "bad": 1, "delivered": 2}
    reason = "its edits would have the names of those of a.png; rename it, or set names: item"
    assert ledger(project)["a.webp"] == ("bad", reason)
    photo(3).save(inbox / "a.bmp")
    assert run(project, monkeypatch)["counts"] == {"listed": 4, "new": 1, "bad": 1}
    assert run(project, monkeypatch, "--again")["counts"]["new"] == 0
    assert pixels_of(project / "out/some/hats/1/a.png").shape == (40, 50, 3)
    (inbox / "a.bmp").rename(inbox / "c.bmp")
    assert run(project, monkeypatch)["counts"] == {"listed": 4, "new": 1, "delivered": 1}


def test_source_that_changes_before_delivery_waits_and_one_too_large_is_bad(
    project: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_job(project, strengths=[1.0])
    with monkeypatch.context() as patched:
        patched.setattr(delivering, "item_id_of", lambda _data: "another")
        told = run(project, patched)
    assert told["counts"] == {"listed": 2, "new": 2, "left": 2}
    assert told["failures"][0]["reason"] == "changed while it was edited"
    assert not (project / "out/some/inbox.parquet").exists()
    Image.new("RGB", (16_400, 2_100)).save(inbox / "wide.png")
    set_job(project, strengths=[1.0], format="webp")
    told = run(project, monkeypatch)
    assert told["counts"] == {"listed": 3, "new": 3, "bad": 1, "delivered": 2}
    assert "16400 x 2100 is larger than a WEBP file can be" in ledger(project)["wide.png"][1]


def test_edited_photo_has_its_own_size_and_is_replaced_only_if_it_is_ours(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    source, out = tmp_path / "me.png", tmp_path / "out"
    photo().save(source)
    same, more = edit_photos([source], "avatars", "hat", [0.0, 2.0], out)
    np.testing.assert_array_equal(pixels_of(same), pixels_of(source))
    assert pixels_of(more).shape == (40, 50, 3)
    (small,) = edit_photos([source], "avatars", "hat", [2.0], tmp_path / "model", DeliveryParams(deliver="model"))
    assert pixels_of(small).shape == (16, 16, 3)
    jpeg = DeliveryParams(format="jpeg", quality=70)
    (written,) = edit_photos([source], "avatars", "hat", [2.0], out, jpeg)
    assert edit_photos([source], "avatars", "hat", [2.0], out, jpeg) == [written]
    assert written.name == "me_hat_+2.jpg"
    photo().save(written)
    with pytest.raises(ManifestError, match=r"me_hat_\+2\.jpg: exists, and is not a picture of ours"):
        edit_photos([source], "avatars", "hat", [2.0], out, jpeg)


def test_strip_of_originals_is_bounded(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    source = tmp_path / "me.png"
    photo().save(source)
    assert pixels_of(sweep_photos([source], "avatars", "hat", 0, 2, 3, tmp_path / "out")[0]).shape == (40, 150, 3)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 5_000)
    with pytest.raises(
        ManifestError, match=r"sweep .*me\.png: 3 times its size are more than 5,000 pixels; take fewer"
    ):
        sweep_photos([source], "avatars", "hat", 0, 2, 3, tmp_path / "out2")


def test_single_steps_and_drawn_pictures_have_no_originals(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    guided = load_params().dataset("avatars")
    single = guided.model_copy(update={"edit": guided.edit.model_copy(update={"method": "single_step"})})
    asked = DeliveryParams(deliver="original")
    assert finishing_of("edit", DeliveryParams(), guided).is_original
    assert not finishing_of("edit", DeliveryParams(deliver="model"), guided).is_original
    for section, options, reason in (
        (single, {}, "a single step redraws the whole picture"),
        (guided, {"method": "single_step"}, "a single step redraws the whole picture"),
        (guided.model_copy(update={"paper_mode": True}), {}, "a single step redraws the whole picture"),
        (guided, {"has_files": False}, "the pictures are drawn, and have no files"),
    ):
        assert not finishing_of("edit", DeliveryParams(), section, **options).is_original
        with pytest.raises(ParamsError, match=f"edit: deliver is original, but {reason}.*; choose deliver: model"):
            finishing_of("edit", asked, section, **options)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": "tiff"}, "edit: --format: input should be 'png', 'jpeg', 'webp' or 'source'"),
        ({"format": "jpeg", "quality": 101}, "edit: --quality: input should be less than or equal to 100"),
        ({"quality": 90}, "edit: --quality: is 90, but PNG has none; choose format jpeg, webp or source, or null"),
        ({"deliver": "model", "metadata": "keep"}, "edit: --metadata: is keep, but the model's pictures have none"),
        ({"suffix": "_x"}, "edit: --suffix: is '_x', but names is item; choose names: source, or no suffix"),
        ({"suffix": "../x", "names": "source"}, "edit: --suffix: is '../x', must be letters, digits and _ - . + ="),
    ],
    ids=str,
)
def test_values_that_do_not_go_together_are_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError) as caught:
        delivery_of("edit", **values)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_job_with_a_wrong_value_names_its_key(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    set_job(project, quality=90)
    with pytest.raises(ParamsError, match=r"bulk_edit\.some\.quality: is 90, but PNG has none; choose format jpeg"):
        load_params()


class Files:
    """Raw pictures that are in memory."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.names, self.refused = files, list(files), {}

    def is_in_order(self, name: str) -> bool:
        return True

    def read(self, name: str) -> bytes:
        return self.files[name]


def exported(project: Path, out: Path, files: dict[str, bytes], **values: Any) -> tuple[int, int]:
    finishing = Finishing(GEOMETRY, is_original=True, **values)
    return export_images("avatars", out, finishing, Files(files), edits=["hat"], root=project)  # type: ignore[arg-type]


def files_of_faces(project: Path) -> dict[str, bytes]:
    """Name to file of the project's faces."""
    manifest = read_table(project / "data/ingest/avatars/manifest.parquet", schema="manifest/1")
    pixels = load_items(project / "data/ingest/avatars", list(manifest["item_id"]), ["pixels"])["pixels"]
    return {name: encode_png(of) for name, of in zip(manifest["source"], pixels, strict=True)}


def test_export_of_originals(finished: Path, tmp_path: Path) -> None:
    files = files_of_faces(finished)
    num, _ = exported(finished, tmp_path / "out", files, names="source", suffix="_e")
    table = read_table(tmp_path / "out/metadata.parquet", schema="export/2")
    assert num == len(table) > 0
    for row in table.to_dict("records"):
        assert row["file_name"] == f"hat/{row['strength']:g}/{row['source']}_e.png"
        if row["strength"] == 0:
            with Image.open(io.BytesIO(files[row["source"]])) as source:
                np.testing.assert_array_equal(pixels_of(tmp_path / "out" / row["file_name"]), np.asarray(source))


def test_export_without_the_file_that_was_edited_is_one_line(finished: Path, tmp_path: Path) -> None:
    files = files_of_faces(finished)
    other = dict.fromkeys(files, encode_png(torch.zeros(3, 16, 16, dtype=torch.uint8)))
    for there in (other, {}):
        with pytest.raises(ManifestError, match=r"^export avatars: avatar-\d+: is gone, or is no longer the file that"):
            exported(finished, tmp_path / "out", there)


def test_augmented_set_of_originals(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_hats_rare(project)
    set_augment(project, format="webp")
    files = files_of_faces(project)
    monkeypatch.setattr(augment, "AvatarSource", Files)  # takes the drawn faces for files
    monkeypatch.setattr(augment, "open_raw", lambda *_: Files(files))
    run_augment(project, monkeypatch)
    first = metadata(project)
    for row in first.to_dict("records"):
        made = project / "out/balanced" / row["file_name"]
        assert made.suffix == ".webp"
        with Image.open(io.BytesIO(files[row["source"]])) as source:
            assert item_id_of(files[row["source"]]) == row["item_id"]
            assert (pixels_of(made) == np.asarray(source)).all() != row["synthetic"]
        assert is_synthetic(made.read_bytes()) == row["synthetic"]
    set_augment(project, deliver="model")
    run_augment(project, monkeypatch)
    second = metadata(project)
    assert set(first["job_hash"]).isdisjoint(second["job_hash"])
    assert {path.suffix for path in (project / "out/balanced").rglob("*.*p*g")} == {".png"}
    assert not list((project / "out/balanced").rglob("*.webp"))


def test_drawn_set_is_refused_as_originals(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_augment(project, deliver="original")
    with pytest.raises(ParamsError, match=r"^augment\.some: deliver is original, but the pictures are drawn"):
        run_augment(project, monkeypatch)
