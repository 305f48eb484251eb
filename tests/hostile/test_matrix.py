"""Every entry point with every hostile input: it ends, says so in one line, and touches nothing that is not its own.

What the right words are for one input is tested where the code is; here are the promises that hold for all of them.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import tests.hostile
from tests.hostile.harness import Harness, assert_held

Case = Callable[[Path], Path]
_PICTURE_SIDE = 16


def _cases(*rooms: str) -> dict[str, Case]:
    """The inputs of some rooms' corpora; of all without a name."""
    found: dict[str, Case] = {}
    for module in pkgutil.iter_modules(tests.hostile.__path__):
        room = module.name.removeprefix("corpus_")
        if module.name.startswith("corpus_") and (not rooms or room in rooms):
            cases: dict[str, Case] = importlib.import_module(f"tests.hostile.{module.name}").CASES
            found |= {f"{room}:{name}": case for name, case in cases.items()}
    return dict(sorted(found.items()))


def _each(*rooms: str, named: tuple[str, ...] = ("",)) -> pytest.MarkDecorator:
    cases = {name: case for name, case in _cases(*rooms).items() if name.partition(":")[2].startswith(named)}
    return pytest.mark.parametrize("case", list(cases.values()), ids=list(cases))


def _good_picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 255, (_PICTURE_SIDE, _PICTURE_SIDE, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def _settings(project: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = project / "params.yaml"
    params: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(params)
    path.write_text(yaml.safe_dump(params), encoding="utf-8")


def _use_folder(project: Path, **changes: Any) -> Path:
    """Have the project's data set read a folder of pictures; returns the folder."""

    def change(params: dict[str, Any]) -> None:
        ingest = params["data"]["avatars"]["ingest"]
        ingest.update(source={"kind": "folder"}, max_failed_items=1000, **changes)

    _settings(project, change)
    raw = project / "data/raw/avatars"
    raw.mkdir(parents=True, exist_ok=True)
    return raw


@_each()
def test_inspect(harness: Harness, tmp_path: Path, case: Case) -> None:
    path = case(tmp_path)
    outcome = harness.run(["boundaryflow", "inspect", os.fspath(path)], tmp_path)
    assert_held(outcome)
    if outcome.status == 0:
        as_json = harness.run(["boundaryflow", "inspect", os.fspath(path), "--json"], tmp_path)
        assert_held(as_json)
        assert as_json.status == 0


@_each("pictures", "listing")
def test_ingest(harness: Harness, project: Path, case: Case) -> None:
    raw = _use_folder(project)
    for number in range(4):
        _good_picture(raw / f"good/{number:03d}.png")
    case(raw)
    assert_held(harness.run(["stages.listing", "avatars"], project), ["data/listing"])
    outcome = harness.run(["stages.ingest", "avatars"], project)
    assert_held(outcome, ["data/ingest"])


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which nothing has run, whose raw folder has all that is odd."""
    from tests.faults.checkout import make_checkout

    folder = make_checkout(tmp_path_factory.mktemp("hostile") / "checkout")
    raw = _use_folder(folder)
    _good_picture(raw / "good.png")
    for name, case in _cases("listing", "pictures").items():
        inside = raw / name.replace(":", "-")
        inside.mkdir()
        case(inside)
    return folder


@pytest.mark.parametrize("words", ["status", "status --json", "doctor", "gc --dry-run", "gc --yes"])
def test_commands_on_a_checkout(harness: Harness, checkout: Path, words: str) -> None:
    outcome = harness.run(["boundaryflow", *words.split()], checkout, limit_s=60)
    assert_held(outcome, ["data/listing"])
    if words.startswith("status"):
        assert outcome.status == 0, outcome.said
        assert "ingest" in outcome.stdout


@_each("labels")
def test_label(harness: Harness, project: Path, case: Case) -> None:
    raw = project / "data/raw/avatars"
    raw.mkdir(parents=True, exist_ok=True)
    path = case(raw)
    if path.suffix in (".yaml", ".yml"):
        path.rename(project / "params.yaml")
    else:
        source = {"kind": "table", "path": path.relative_to(raw).as_posix(), "file_column": "file"}

        def change(params: dict[str, Any]) -> None:
            label = {"source": source, "attributes": {"hat": {"column": "hat"}, "dark_skin": {"column": "dark_skin"}}}
            params["data"]["avatars"]["label"] = label

        _settings(project, change)
    assert_held(harness.run(["stages.label", "avatars"], project), ["data/label"])


@_each("pictures", "listing")
def test_edit(harness: Harness, project: Path, case: Case) -> None:
    folder = project / "photos"
    folder.mkdir()
    path = case(folder)
    outcome = harness.run(["boundaryflow", "edit", os.fspath(path), "--attribute", "hat"], project)
    assert_held(outcome, ["out"])


@_each("models", named=("boundary", "safetensors", "judge", "weights"))
def test_edit_by_a_boundary(harness: Harness, project: Path, case: Case) -> None:
    """A boundary, or something else under a boundary's name."""
    source = case(project)
    if source.suffix != ".safetensors":
        pytest.skip("no file of this kind comes to lie there")
    # Moved, and not copied: a copy of a sparse file, or of a link to a device, fills the disk.
    source.rename(project / "data/boundary/avatars/strange.safetensors")
    photo = _good_picture(project / "photo.png")
    outcome = harness.run(["boundaryflow", "edit", str(photo), "--attribute", "strange"], project)
    assert_held(outcome)
    assert outcome.status == 2


def _bulk_edit(project: Path, outbox: str = "out/some") -> Path:
    def change(params: dict[str, Any]) -> None:
        job = {"dataset": "avatars", "inbox": "inbox", "outbox": outbox, "edits": {"hats": {"hat": "flip"}}}
        params["bulk_edit"] = {"some": {**job, "strengths": [0.0, 1.0], "min_probability": None}}

    _settings(project, change)
    inbox = project / "inbox"
    inbox.mkdir()
    return inbox


@pytest.mark.parametrize("room", ["pictures", "listing"])
def test_bulk_edit_of_an_inbox_with_all_of_it(harness: Harness, project: Path, room: str) -> None:
    inbox = _bulk_edit(project)
    _good_picture(inbox / "good.png")
    for name, case in _cases(room).items():
        folder = inbox / name.partition(":")[2]
        folder.mkdir()
        case(folder)
    outcome = harness.run(["boundaryflow.jobs.bulk_edit", "some"], project, limit_s=120)
    assert_held(outcome, ["out/some", "data/bulk_edit"])
    assert outcome.status == 0
    assert (project / "out/some/metadata.parquet").exists()


@_each("delivery")
@pytest.mark.parametrize("command", ["bulk-edit", "augment", "export", "edit"])
def test_delivery_into(harness: Harness, project: Path, command: str, case: Case) -> None:
    outside = project / "outside"
    outside.mkdir()
    where = case(outside)
    _good_picture(_bulk_edit(project, os.fspath(where)) / "good.png")

    def change(params: dict[str, Any]) -> None:
        job = {"dataset": "avatars", "target": {"equal": "hat"}, "split": "train", "strengths": [1.0]}
        params["augment"] = {"some": {**job, "min_probability": 0.01, "out": os.fspath(where)}}

    _settings(project, change)
    words = {
        "bulk-edit": ["boundaryflow.jobs.bulk_edit", "some"],
        "augment": ["boundaryflow.jobs.augment", "some"],
        "export": ["boundaryflow", "export", "--to", os.fspath(where)],
        "edit": ["boundaryflow", "edit", "inbox/good.png", "--attribute", "hat", "--out", os.fspath(where)],
    }[command]
    outcome = harness.run(words, project, limit_s=60)
    delivered = [f"outside/{name}" for name in ("hats/", "hat/", "images/", ".boundaryflow", "metadata.parquet")]
    assert_held(outcome, [*(os.path.relpath(where, project) + "/",), *delivered, "data/bulk_edit", "data/augment"])
