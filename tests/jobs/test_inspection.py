"""`boundaryflow inspect`: every kind of file is told for what it is."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file

from boundaryflow.errors import PipelineError
from boundaryflow.jobs.inspection import as_text, inspect
from flows.cli import cli
from tests.foreign_judges import channel_means, declare
from tests.hostile.corpus_models import CASES
from tests.hostile.corpus_pictures import CASES as HOSTILE
from tests.layouts import ddpm_layout, iddpm_layout, random_state
from tests.raw_data import write_parquet, write_tar
from tests.small_project import ROOT

PRETRAINED = ROOT / "data/pretrained"


def picture(path: Path, size: tuple[int, int] = (20, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(path)
    return path


def test_ddpm_checkpoint(tmp_path: Path) -> None:
    torch.save(random_state(ddpm_layout(32, (1, 2), 1, (1,))), tmp_path / "net.ckpt")
    facts = inspect(str(tmp_path / "net.ckpt"))
    assert facts["family"].startswith("DDPM")
    assert facts["image size"] == 32
    assert facts["layers for observe.features"] == {
        "mid_block": "64 x 16 x 16",
        "up_blocks.0.resnets.0": "64 x 16 x 16",
        "up_blocks.0.resnets.1": "64 x 16 x 16",
        "up_blocks.1.resnets.0": "32 x 32 x 32",
        "up_blocks.1.resnets.1": "32 x 32 x 32",
    }
    assert "attention with one head, as in all networks of this family" in facts["assumed"]
    assert len(facts["sha256"]) == 64


def test_iddpm_checkpoint(tmp_path: Path) -> None:
    torch.save(random_state(iddpm_layout(32, (1, 2), 1, (1,), resblock_updown=True)), tmp_path / "net.pt")
    facts = inspect(str(tmp_path / "net.pt"))
    assert facts["family"].startswith("iDDPM")
    assert facts["learns variance"] is True


def test_unusable_checkpoint_says_why(tmp_path: Path) -> None:
    save_file({"synthesis.b4.weight": torch.zeros(2)}, tmp_path / "gan.safetensors")
    with pytest.raises(PipelineError, match="it is a GAN"):
        inspect(str(tmp_path / "gan.safetensors"))


def test_diffusers_folder() -> None:
    facts = inspect(str(PRETRAINED / "avatars64"))
    assert facts["kept as"] == "diffusers folder"
    assert (facts["image size"], facts["channels"]) == (64, 3)


def test_clip() -> None:
    assert inspect(str(PRETRAINED / "avatars64_clip/clip.pt"))["what"].startswith("a CLIP model")


def test_judge() -> None:
    facts = inspect(str(PRETRAINED / "avatars64_judges/attributes.safetensors"))
    assert facts["what"] == "a judge (classify)"
    assert "smiling" in facts["knows"]


def test_judges_from_elsewhere(tmp_path: Path) -> None:
    facts = inspect(str(channel_means(tmp_path)))
    assert facts["what"] == "a network (onnx); net.judge.json beside it makes a judge of it"
    assert facts["takes"] == {"x": "float32 [any, 3, 4, 4]"}
    assert facts["gives"] == {"means": "float32 [any, 3]"}
    facts = inspect(str(declare(tmp_path, "colour", attributes={"red": 0, "any": [1, 2]}, activation="softmax")))
    assert facts["what"] == "a judge (classify) from elsewhere"
    assert facts["outputs"] == {"red": "0", "any": "1, 2"}
    assert inspect(str(tmp_path))["who decides"] == {"red": "colour", "any": "colour"}


def test_model_of_the_users_own(tmp_path: Path) -> None:
    folder = str(PRETRAINED / "digits32")
    code = f"from boundaryflow.models import load_model\ndef make(**where): return load_model({folder!r}, **where)"
    (tmp_path / "net.py").write_text(code)
    assert inspect(f"{tmp_path / 'net.py'}:make")["image size"] == 32


def test_table_of_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("image,smiling,age,hair\na.jpg,1,0.25,red\nb.jpg,0,0.75,blond\nc.jpg,,0.5,red\n")
    facts = inspect(str(path))
    assert (facts["rows"], facts["file column"], facts["files"]) == (3, "image", ["a.jpg", "b.jpg", "c.jpg"])
    assert facts["columns"]["smiling"] == "0/1: positive 1, negative 1, unknown 1"
    assert facts["columns"]["age"] == "probabilities: positive 1, negative 2, unknown 0"
    assert facts["columns"]["hair"] == "no 0/1: 2 values, red (2), blond (1); unknown 0"


@pytest.mark.parametrize("suffix", [".tsv", ".parquet", ".jsonl"])
def test_table_of_another_kind(tmp_path: Path, suffix: str) -> None:
    table, path = pd.DataFrame({"file_name": ["a.png", "b.png"], "hat": [1, 0]}), tmp_path / f"labels{suffix}"
    if suffix == ".tsv":
        table.to_csv(path, sep="\t", index=False)
    elif suffix == ".parquet":
        table.to_parquet(path)
    else:
        path.write_text(table.to_json(orient="records", lines=True))
    assert inspect(str(path))["columns"] == {"hat": "0/1: positive 1, negative 1, unknown 0"}


@pytest.mark.parametrize("count", ["2\n", ""], ids=["with count", "without count"])
def test_annotations_of_celeba(tmp_path: Path, count: str) -> None:
    path = tmp_path / "list_attr_celeba.txt"
    path.write_text(f"{count}Male Smiling\n000001.jpg -1  1\n000002.jpg  1  1\n")
    facts = inspect(str(path))
    assert facts["what"] == "annotations in the format of CelebA"
    assert facts["attributes"]["Smiling"] == "0/1: positive 2, negative 0, unknown 0"
    assert facts["attributes"]["Male"] == "0/1: positive 1, negative 1, unknown 0"


def test_partition_and_mapping_of_celeba(tmp_path: Path) -> None:
    (tmp_path / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 2\n")
    assert inspect(str(tmp_path / "list_eval_partition.txt"))["split"] == {"train": 1, "test": 1}
    (tmp_path / "mapping.txt").write_text("idx     orig_idx    orig_file\n0       119613      119614.jpg\n")
    assert inspect(str(tmp_path / "mapping.txt"))["what"] == "the mapping from CelebA-HQ to CelebA"


def test_folder_of_pictures(tmp_path: Path) -> None:
    for name in ("cat/a.png", "cat/b.png", "dog/c.jpg"):
        picture(tmp_path / name)
    (tmp_path / "labels.csv").write_text("file,hat\na.png,1\n")
    (tmp_path / "broken.png").write_bytes(b"nothing")
    facts = inspect(str(tmp_path))
    assert facts["what"] == "a folder of pictures"
    assert facts["pictures"] == 4
    assert facts["folders"] == {"cat": 2, "dog": 1, ".": 1}
    assert facts["tables"] == ["labels.csv"]
    assert facts["sizes"] == {"20 x 10": 3}
    (broken,) = facts["cannot be used"]
    assert broken.startswith("broken.png: not an image that can be read (a format of JPEG, PNG, ")


def test_archive_of_pictures(tmp_path: Path) -> None:
    picture(tmp_path / "x/a.png")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.write(tmp_path / "x/a.png", "faces/a.png")
    facts = inspect(str(tmp_path / "images.zip"))
    assert (facts["what"], facts["pictures"]) == ("an archive of pictures", 1)


def test_archive_with_labels_beside_its_pictures(tmp_path: Path) -> None:
    data = picture(tmp_path / "x/a.png").read_bytes()
    write_tar(tmp_path / "a.tar", {"1.png": data, "1.json": b"{}", "1.cls": b"1", "1.npy": b"x", "2.cls": b"1"}, "w:")
    facts = inspect(str(tmp_path / "a.tar"))
    assert (facts["what"], facts["pictures"], facts["cannot be used"]) == ("an archive of pictures", 1, [])
    assert facts["passed over"] == {".cls": 2, ".json": 1, ".npy": 1}


def test_parquet_of_pictures(tmp_path: Path) -> None:
    data = picture(tmp_path / "x/a.png").read_bytes()
    path = tmp_path / "train-00000-of-00001.parquet"
    rows = [{"bytes": data, "path": "a.png"}, {"bytes": b"no picture", "path": None}, None]
    write_parquet(path, rows, {"label": [0, 1, 0], "age": [1.0, 2.0, 3.0]}, classes={"label": ["cat", "dog"]})
    facts = inspect(str(path))
    assert facts["what"].startswith("a Parquet file of pictures")
    assert (facts["image_column"], facts["folder"], facts["pictures"]) == (["image"], "train/00000-of-00001", 3)
    assert facts["formats"] == {"PNG RGB": 1}
    assert [line.partition(":")[0] for line in facts["cannot be used"]] == ["00000001", "00000002"]
    assert list(facts.values())[-1] == {"label": "cat, dog", "age": "double"}
    assert inspect(str(tmp_path / "x"))["what"] == "a folder of pictures"
    (tmp_path / "x/a.png").unlink()
    folder = inspect(str(tmp_path))
    assert folder["what"].startswith("a folder of Parquet files with pictures")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(PipelineError, match=r"parquet: cannot be read \("):
        inspect(str(path))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"a.png": {"hat": 1}, "b.png": {"hat": 0}}, "JSON labels: an object with a key for each picture"),
        ([{"file": "a.png", "hat": 1}, {"file": "b.png", "hat": 0}], "JSON labels: a list of records"),
        ({"a.png": 1, "b.png": 0}, "JSON labels: an object with a key for each picture"),
    ],
)
def test_json_of_labels(tmp_path: Path, content: Any, what: str) -> None:
    (tmp_path / "l.json").write_text(json.dumps(content))
    facts = inspect(str(tmp_path / "l.json"))
    assert facts["what"].startswith(what)
    assert (facts["rows"], facts["files"]) == (2, ["a.png", "b.png"])
    assert list(facts["columns"].values()) == ["0/1: positive 1, negative 1, unknown 0"]


def test_json_of_one_picture_and_other_json(tmp_path: Path) -> None:
    (tmp_path / "l.json").write_text('{"hat": 1, "box": [1]}')
    assert inspect(str(tmp_path / "l.json"))["keys"] == ["hat", "box"]
    for content, message in (("[1]", "of an unknown kind"), ("{", "is not JSON"), ("[" * 50_000, "nested too deeply")):
        (tmp_path / "l.json").write_text(content)
        with pytest.raises(PipelineError, match=message):
            inspect(str(tmp_path / "l.json"))


def test_lmdb_of_pictures(tmp_path: Path) -> None:
    data = picture(tmp_path / "x/a.png").read_bytes()
    with lmdb.open(str(tmp_path / "church_lmdb"), map_size=2**20) as database, database.begin(write=True) as at:
        at.put(b"00ff", data)
    facts = inspect(str(tmp_path / "church_lmdb"))
    assert (facts["what"], facts["pictures"]) == ("an LMDB of pictures", 1)


def test_files_of_this_project(project: Path) -> None:
    boundary = inspect(str(project / "data/boundary/avatars/hat.safetensors"))
    assert (boundary["what"], boundary["attribute"]) == ("a boundary", "hat")
    assert boundary["eps-space"]["dimensions"] == 3 * 16 * 16
    patterns = {name: facts["pattern"] for name, facts in boundary.items() if isinstance(facts, dict)}
    assert {pattern for name, pattern in patterns.items() if name.startswith("noised")} == {"known"}
    assert patterns["eps-space"] == patterns["h-space"] == "unknown"
    shard = sorted((project / "data/ingest/avatars").glob("shard-*"))[0]
    assert inspect(str(shard))["what"] == "a shard, whole"
    table = inspect(str(project / "data/ingest/avatars/manifest.parquet"))
    assert table["what"] == "a table of this project (manifest/1)"
    assert table["columns"]["width_px"].endswith(", px")
    folder = inspect(str(project / "data/ingest/avatars"))
    assert folder["ingest"]["num_ok"] == 40
    assert folder["damaged shards"] == []
    shard.write_bytes(shard.read_bytes()[:-1])
    assert inspect(str(project / "data/ingest/avatars"))["damaged shards"] == [shard.name]


def test_picture_says_what_was_written_into_it(tmp_path: Path) -> None:
    from boundaryflow.sources.encoding import encode_png

    (tmp_path / "a.png").write_bytes(encode_png(torch.zeros(3, 4, 4, dtype=torch.uint8), {"synthetic": "true"}))
    facts = inspect(str(tmp_path / "a.png"))
    assert (facts["what"], facts["says synthetic"]) == ("a picture", "true")


def test_texts_of_a_picture_are_bounded_and_made_visible(tmp_path: Path) -> None:
    facts = inspect(str(HOSTILE["texts.png"](tmp_path)))
    assert facts["says synthetic"] == r"\x1b[2J\x1b]0;owned\x07"
    assert len(facts["says long"]) == 500
    assert len(facts) == 5 + 12


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("huge.png", "60000 x 60000 are more than 200,000,000 pixels; make it smaller"),
        ("ztxt.png", "damaged (Decompressed data too large for PngImagePlugin.MAX_TEXT_CHUNK)"),
        ("fifo", "a FIFO, not a regular file"),
        ("sparse movie.mp4", "42,949,672,960 bytes, more than the 268,435,456 that are read"),
        ("eps.jpg", "of an unknown kind; known are "),
        ("LMDB in a zip", "an archive that holds no pictures (church_val_lmdb/data.mdb: an LMDB in an archive;"),
    ],
)
def test_picture_made_to_do_harm_is_one_line(tmp_path: Path, name: str, message: str) -> None:
    path = HOSTILE[name](tmp_path)
    with pytest.raises(PipelineError) as error:
        inspect(str(path))
    assert str(error.value).startswith(f"inspect {path}: {message}")


def test_damaged_page_of_an_lmdb_names_the_file(tmp_path: Path) -> None:
    path = HOSTILE["LMDB that ends its reader"](tmp_path)
    with pytest.raises(PipelineError, match=rf"{path}: damaged or cut off, .* \(its reader ended by signal \d+\)"):
        inspect(str(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nothing", None, "there is no such file or folder"),
        ("notes.md", "hello", "of an unknown kind"),
        ("empty.csv", "", "is empty"),
    ],
)
def test_what_cannot_be_told_is_one_line(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(PipelineError, match=message) as caught:
        inspect(str(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", sorted(CASES))
def test_hostile_model_file_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    source = CASES[case](tmp_path)
    with pytest.raises(PipelineError) as caught:
        inspect(str(source))
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "here").iterdir())


def test_mistyped_path_is_not_asked_for_on_the_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    with pytest.raises(PipelineError, match=r"no such file or folder; it is taken for a path, .* because data is here"):
        inspect("data/rwa")


@pytest.mark.parametrize("name", ["a.png", "a.csv", "a.parquet", "a.safetensors", "a.zip", "a.lmdb", "a"])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(PipelineError, match="a FIFO, not a regular file"):
        inspect(str(tmp_path / name))


def test_text_of_a_file_is_made_visible() -> None:
    facts = {"says \x1b[31m": "a\x07b", "list": ["x\x1b y", "z z"], "within": {"\x1b": 1}}
    lines = as_text(facts).splitlines()
    assert lines[0] == r"says \x1b[31m  a\x07b"
    assert r"  - x\x1b y" in lines
    assert not any("\x1b" in line for line in lines)


def test_empty_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(PipelineError, match="of an unknown kind"):
        inspect(str(tmp_path / "empty"))


def test_command_prints_text_and_json(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("file,hat\na.png,1\n")
    text = CliRunner().invoke(cli, ["inspect", str(tmp_path / "l.csv")])
    assert text.exit_code == 0
    assert "hat  0/1: positive 1" in text.output
    found: dict[str, Any] = json.loads(CliRunner().invoke(cli, ["inspect", str(tmp_path / "l.csv"), "--json"]).output)
    assert found["rows"] == 1
    assert as_text(found).splitlines()[0].startswith("what")
