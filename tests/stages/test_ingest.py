"""Ingest: any folder of images, the bad ones rejected with a reason each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from boundaryflow.config import AvatarSource
from boundaryflow.errors import ManifestError
from boundaryflow.sources import decoding as judging
from boundaryflow.sources.images import decode_image
from boundaryflow.sources.splits import split_of
from boundaryflow.store.shards import load_items, read_shard
from boundaryflow.store.tables import read_table
from stages import ingest
from stages.ingest import draw_avatars
from tests.hostile.corpus_listing import CASES
from tests.small_project import content, run_here, write_project


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), np.uint8))


def fill(raw: Path) -> None:
    """Every kind of file that people's folders hold."""
    (raw / "deep" / "er").mkdir(parents=True)
    picture(1).save(raw / "a.jpg")
    picture(2).save(raw / "b.PNG")
    picture(3).save(raw / "deep" / "c.webp")
    picture(4).convert("L").save(raw / "grey.png")
    picture(5).convert("CMYK").save(raw / "print.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(6).save(raw / "turned.jpg", exif=exif)
    picture(7).convert("RGBA").save(raw / "deep" / "er" / "alpha.png")
    (raw / "copy of b.png").write_bytes((raw / "b.PNG").read_bytes())
    (raw / "truncated.jpg").write_bytes((raw / "a.jpg").read_bytes()[:300])
    (raw / "not_an_image.png").write_text("hello")
    (raw / "empty.jpg").touch()
    Image.new("L", (30_000, 20), 99).save(raw / "wide.png")
    (raw / "labels.csv").write_text("file,x\na.jpg,1\n")
    (raw / ".hidden.png").write_text("x")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    label = {
        "source": {"kind": "csv", "path": "labels.csv", "file_column": "file"},
        "attributes": {"x": {"column": None}},
    }
    folder = write_project(
        tmp_path / "p",
        ingest__source={"kind": "folder"},
        label=label,
        edit__edits={"x": {"x": "flip"}},
        evaluate__counterfactuals=False,
    )
    fill(folder / "data/raw/avatars")
    return folder


def manifest_of(project: Path) -> dict[str, dict[str, object]]:
    table = read_table(project / "data/ingest/avatars/manifest.parquet", schema="manifest/1")
    return {row["source"]: row for row in table.to_dict("records")}


def test_every_good_image_is_taken_and_every_bad_one_has_its_reason(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here(project, monkeypatch, "ingest")
    rows = manifest_of(project)
    good = {"a.jpg", "b.PNG", "deep/c.webp", "grey.png", "print.jpg", "turned.jpg", "deep/er/alpha.png"}
    assert {name for name, row in rows.items() if row["status"] == "ok"} == good
    bad = {name: row["reason"] for name, row in rows.items() if row["status"] == "bad"}
    assert bad["not_an_image.png"].startswith("not an image that can be read (a format of JPEG, ")
    assert bad["empty.jpg"] == "the file is empty"
    assert str(bad["truncated.jpg"]).startswith("damaged")
    assert "30000 x 20" in str(bad["wide.png"])
    assert len(bad) == 4
    assert rows["copy of b.png"]["duplicates_of"] == rows["b.PNG"]["item_id"]
    items = [str(row["item_id"]) for row in rows.values() if row["status"] == "ok"]
    assert load_items(project / "data/ingest/avatars", items, ["pixels"])["pixels"].shape == (7, 3, 16, 16)


def test_added_images_alone_are_decoded(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run_here(project, monkeypatch, "ingest")
    for seed in range(20, 25):
        picture(seed).save(project / f"data/raw/avatars/new{seed}.png")
    (project / "data/raw/avatars/a.jpg").unlink()
    with caplog.at_level("INFO"):
        run_here(project, monkeypatch, "ingest")
    assert ", 5 images to compute" in caplog.text
    assert "a.jpg" not in manifest_of(project)
    assert sum(row["status"] == "ok" for row in manifest_of(project).values()) == 11


def test_every_file_is_decoded_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []

    def counting(data: bytes, **geometry: Any) -> Any:
        decoded.append(data)
        return decode_image(data, **geometry)

    monkeypatch.setattr(judging, "decode_image", counting)
    monkeypatch.setattr(judging, "_AT_ONCE", 3)
    run_here(project, monkeypatch, "ingest")
    assert len(decoded) == 12
    assert not list((project / "data/ingest/avatars").glob("*.tmp"))


def test_image_of_a_damaged_shard_is_read_anew(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_here(project, monkeypatch, "ingest")
    out = project / "data/ingest/avatars"
    before = content(out)
    shard = next(out.glob("shard-*"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    run_here(project, monkeypatch, "ingest")
    assert content(out) == before


def test_too_many_bad_files_stop_the_run_with_examples(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["data"]["avatars"]["ingest"]["max_failed_items"] = 3
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(
        ManifestError, match=r"4 of 12 files cannot be used, max_failed_items is 3 \(empty.jpg: the file is empty; "
    ):
        run_here(project, monkeypatch, "ingest")


def test_odd_entries_are_set_aside_or_passed_over_and_the_rest_is_ingested(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = project / "data/raw/avatars"
    for number, case in enumerate(sorted(CASES)):
        CASES[case](tmp_path / str(number)).rename(raw / f"case{number}")
    (raw / "x.png").symlink_to(picture_at(tmp_path / "elsewhere/x.png", 50))
    (raw / "linked").symlink_to(picture_at(tmp_path / "cats/y.png", 51).parent)
    run_here(project, monkeypatch, "ingest")
    rows = manifest_of(project)
    assert {rows[name]["status"] for name in ("a.jpg", "x.png", "linked/y.png")} == {"ok"}
    bad = {
        name.rpartition("/")[2]: row["reason"]
        for name, row in rows.items()
        if name.startswith("case") and row["reason"]
    }
    assert bad == {
        "odd.png": "a link that leads to itself",
        "caf\\xe9.png": "its name is not UTF-8; rename it",
        "inside.png": "its name is not UTF-8; rename it",
        "huge.png": "42,949,672,960 bytes are too many for a picture",
        "huge": "42,949,672,960 bytes are too many for a picture",
    } | {"odd.png": bad["odd.png"]}
    assert bad["odd.png"] in ("a link that leads to itself", "a link that leads nowhere")
    fine = [row for name, row in rows.items() if name.endswith("/fine.png")]
    assert len(fine) == len(CASES)  # all the same picture: each source has its row
    assert [row["status"] for row in fine].count("duplicate") == len(CASES) - 1
    assert len({row["item_id"] for row in fine}) == 1


def test_picture_that_changed_after_it_was_listed_is_set_aside(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_here(project, monkeypatch, "listing")
    raw = project / "data/raw/avatars"
    picture(77).save(raw / "a.jpg")
    (raw / "b.PNG").unlink()
    picture(78).save(raw / "late.png")
    run_here(project, monkeypatch, "ingest", listed=False)
    rows = manifest_of(project)
    assert rows["a.jpg"]["reason"] == "changed after it was listed"
    assert rows["b.PNG"]["reason"] == "no longer there; it was removed after it was listed"
    assert "late.png" not in rows
    run_here(project, monkeypatch, "ingest")
    rows = manifest_of(project)
    assert {rows["a.jpg"]["status"], rows["late.png"]["status"]} == {"ok"}
    assert "b.PNG" not in rows


def picture_at(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed).save(path)
    return path


def test_missing_and_empty_folder_say_what_to_do(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = yaml.safe_load((project / "params.yaml").read_text())
    prompts = {"positive": ["a"], "negative": ["b"]}
    params["data"]["avatars"]["label"] = {
        "source": {
            "kind": "clip",
            "weights": "ViT-B/32",
            "templates": ["{}"],
            "temperature": None,
            "calibration": None,
        },
        "attributes": {"x": prompts},
    }
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    raw = project / "data/raw/avatars"
    raw.rename(raw.with_name("elsewhere"))
    with pytest.raises(ManifestError, match="no such folder; put images there"):
        run_here(project, monkeypatch, "ingest")
    raw.mkdir()
    (raw / "README.md").write_text("nothing yet")
    with pytest.raises(ManifestError, match="holds no images; put some there"):
        run_here(project, monkeypatch, "ingest")
    raw.joinpath("README.md").unlink()
    raw.rmdir()
    raw.symlink_to(raw.with_name("elsewhere"))
    run_here(project, monkeypatch, "ingest")


def test_more_avatars_keep_those_that_fewer_had() -> None:
    few, many = (
        AvatarSource(kind="avatars", num_images=num, seed=3, rates={}, correlations={"hat~beard": 0.5})
        for num in (30, 70)
    )
    assert draw_avatars(many, 0)[:30] == draw_avatars(few, 0)
    assert [len(draw_avatars(many, chunk)) for chunk in range(3)] == [50, 20, 0]


def test_split_never_moves_and_keeps_its_shares() -> None:
    splits = [split_of(f"{i:016x}", 0.2, 0.1) for i in range(4000)]
    assert splits[:100] == [split_of(f"{i:016x}", 0.2, 0.1) for i in range(100)]
    assert splits.count("val") / 4000 == pytest.approx(0.2, abs=0.03)
    assert splits.count("test") / 4000 == pytest.approx(0.1, abs=0.03)


def test_faces_that_were_drawn_are_not_drawn_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = yaml.safe_load((project / "params.yaml").read_text())
    source = {"kind": "avatars", "num_images": 60, "seed": 0, "rates": {}, "correlations": {}}
    params["data"]["avatars"]["ingest"] |= {"source": source, "channels": 3, "fit": "crop"}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    run_here(project, monkeypatch, "ingest")
    out = project / "data/ingest/avatars"
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    draw, drawn = ingest.face_of, list[int]()
    monkeypatch.setattr("stages.ingest.face_of", lambda *args: drawn.append(1) or draw(*args))
    run_here(project, monkeypatch, "ingest")
    assert not drawn
    victim = sorted(out.glob("shard-*.safetensors"))[0]
    num = len(read_shard(victim).item_ids)
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")  # only what was lost is drawn again
    run_here(project, monkeypatch, "ingest")
    assert len(drawn) == num
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole
    drawn.clear()
    source["num_images"] = 63
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    run_here(project, monkeypatch, "ingest")
    assert len(drawn) == 3
