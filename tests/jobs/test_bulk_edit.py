"""Bulk edits: what arrives is edited once, as the stage `edit` would, delivered whole, and accounted for."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from boundaryflow.avatars import render, sample_avatars
from boundaryflow.errors import CheckpointError, ManifestError, PipelineError
from boundaryflow.jobs import bulk_edit, run_record
from boundaryflow.jobs.delivery import Delivery
from boundaryflow.jobs.labeller import Labeller
from boundaryflow.sources.encoding import encode_png
from boundaryflow.store.outbox import STATE, open_outbox
from boundaryflow.store.shards import load_items
from boundaryflow.store.tables import read_table, table_bytes
from flows.own_outputs import OwnOutputs, files_of
from tests.forked import Forked
from tests.hostile.corpus_listing import CASES
from tests.small_project import content


def set_job(folder: Path, **values: Any) -> None:
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    job = {
        "dataset": "avatars",
        "inbox": "data/inbox/some",
        "outbox": "out/some",
        "edits": {"hats": {"hat": "flip"}},
        "strengths": [0.0, 1.0],
        "min_probability": None,
    }
    path.write_text(yaml.safe_dump({**params, "bulk_edit": {"some": {**job, **values}}}))


def arrive(folder: Path, num: int, seed: int = 0) -> Path:
    inbox = folder / "data/inbox/some"
    inbox.mkdir(parents=True, exist_ok=True)
    for index, face in enumerate(sample_avatars(num, np.random.default_rng(seed))):
        render(face, 16).save(inbox / f"face-{seed}-{index}.png")
    return inbox


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["bulk_edit", "some", *arguments])
    bulk_edit.main.__wrapped__()
    return json.loads((folder / "data/bulk_edit/some/last_run.json").read_text())


def delivered(folder: Path, outbox: str = "out/some") -> dict[str, bytes]:
    """All that was delivered; the record of runs tells the time."""
    found = content(folder / outbox)
    return {name: data for name, data in found.items() if name != "runs.jsonl" and not name.startswith(STATE)}


def ledger(folder: Path) -> dict[str, tuple[str, str]]:
    table = read_table(folder / "out/some/inbox.parquet", schema="inbox/1")
    return dict(zip(table["name"], zip(table["status"], table["reason"], strict=True), strict=True))


@pytest.fixture
def job(project: Path) -> Path:
    set_job(project)
    return project


def test_new_pictures_are_edited_and_delivered_with_their_provenance(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = arrive(job, 5)
    shutil.copy(inbox / "face-0-0.png", inbox / "same.png")
    (inbox / "broken.jpg").write_text("no picture")
    told = run(job, monkeypatch)
    assert told["counts"] == {"listed": 7, "new": 7, "bad": 1, "duplicate": 1, "delivered": 5}
    assert told["state"] == "completed"
    (failure,) = told["failures"]
    assert (failure["file"], failure["status"]) == ("broken.jpg", "bad")
    assert failure["reason"].startswith("not an image that can be read (")
    table = read_table(job / "out/some/metadata.parquet", schema="delivery/1")
    assert len(table) == told["pictures"]["hats"] == 10
    for row in table.to_dict("records"):
        with Image.open(job / "out/some" / row["file_name"]) as picture:
            assert picture.size == (16, 16)
            assert picture.text["synthetic"] == "true"  # type: ignore[attr-defined]
            assert picture.text["source"] == row["source"]  # type: ignore[attr-defined]
            assert json.loads(picture.text["targets"]) == {"hat": row["target_hat"]}  # type: ignore[attr-defined]
    assert ledger(job)["same.png"] == ("duplicate", "of face-0-0.png")
    assert ledger(job)["face-0-3.png"] == ("delivered", "")
    assert json.loads((job / "out/some/runs.jsonl").read_text())["model_sha256"] == told["model_sha256"]
    assert (job / "data/bulk_edit/some/grid.png").is_file()
    own, entry = OwnOutputs(job, None), job / "data/bulk_edit/some"
    assert own.is_entry("bulk_edit", entry)
    assert all(own.is_ours("bulk_edit", entry, file) for file in files_of(entry))


def test_odd_entries_of_an_inbox_are_left_and_told_and_the_rest_is_delivered(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = arrive(job, 1)
    odd = ("fifo", "dangling link", "name not UTF-8", "sparse picture", "sparse movie", "device by a link")
    for number, case in enumerate(odd):
        CASES[case](tmp_path / str(number)).rename(inbox / f"case{number}")
    (inbox / "secret.png").symlink_to(tmp_path / "secret.png")
    shutil.copy(inbox / "face-0-0.png", tmp_path / "secret.png")
    told = run(job, monkeypatch)
    assert (told["state"], told["counts"]["left"]) == ("completed", 3)
    assert {(failed["file"].rpartition("/")[2], failed["reason"]) for failed in told["failures"]} == {
        ("odd.png", "a link that leads nowhere"),
        ("caf\\xe9.png", "its name is not UTF-8; rename it"),
        ("huge.png", "42,949,672,960 bytes are too many for a picture"),
    }
    assert "face-0-0.png" in ledger(job)
    assert "secret.png" not in ledger(job)


def test_password_of_an_address_is_not_kept_on_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    about = {"inbox": "http://me:s3cret@host/in?token=s3cret", "failures": [{"reason": "ftp://s3cret@host: no"}]}
    with (
        open_outbox("out", "bulk_edit some") as box,
        pytest.raises(ManifestError),
        run_record.recorded(tmp_path / "state", box, lambda: about, ()),
    ):
        raise ManifestError("inbox http://me:s3cret@host: cannot be reached")
    for record in (tmp_path / "state/last_run.json", tmp_path / "state/runs.jsonl"):
        assert "s3cret" not in record.read_text()
        assert "http://***@host" in record.read_text()
    assert "s3cret" not in (tmp_path / "out/runs.jsonl").read_text()


def test_edits_are_those_of_the_stage(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = read_table(job / "data/edit/avatars/manifest.parquet", schema="edits/2")
    asked = manifest[(manifest["edit"] == "hat") & (manifest["strength"] == 1)]
    signs = {row["item_id"]: json.loads(row["targets"])["hat"] for row in asked.to_dict("records")}
    inbox = job / "data/inbox/some"
    inbox.mkdir(parents=True)
    pixels = load_items(job / "data/ingest/avatars", sorted(signs), ["pixels"])["pixels"]
    for item, picture in zip(sorted(signs), pixels, strict=True):
        (inbox / f"{item}.png").write_bytes(encode_png(picture))
    set_job(job, deliver="model")
    run(job, monkeypatch)
    table = read_table(job / "out/some/metadata.parquet", schema="delivery/1")
    same_way = [
        row for row in table[table["strength"] == 1].to_dict("records") if row["target_hat"] == signs[row["item_id"]]
    ]
    assert same_way, "the hyperplanes and the labels agree on no picture"
    for row in same_way:
        with Image.open(job / "out/some" / row["file_name"]) as picture:
            ours = torch.from_numpy(np.array(picture).transpose(2, 0, 1))
        theirs = load_items(job / "data/edit/avatars/hat", [row["item_id"]], ["edited"])["edited"][0, 1]
        assert torch.equal(ours, theirs)


def test_second_run_edits_what_came_since(
    job: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    arrive(job, 4)
    run(job, monkeypatch)
    before = delivered(job)
    assert run(job, monkeypatch)["counts"] == {"listed": 4, "new": 0}
    assert delivered(job) == before
    arrive(job, 2, seed=1)
    with caplog.at_level("INFO"):
        assert run(job, monkeypatch)["counts"] == {"listed": 6, "new": 2, "delivered": 2}
    assert ", 2 images to compute" in caplog.text
    after = delivered(job)
    assert {name: after[name] for name in before if name.endswith(".png")} == {
        name: data for name, data in before.items() if name.endswith(".png")
    }
    assert len((job / "out/some/runs.jsonl").read_text().splitlines()) == 3


def test_history_does_not_matter(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrive(job, 3)
    run(job, monkeypatch)
    arrive(job, 3, seed=1)
    run(job, monkeypatch)
    run(job, monkeypatch, "--outbox", "out/at-once")
    assert delivered(job) == delivered(job, "out/at-once")


def test_replaced_file_is_edited_again_a_changed_job_only_when_asked(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = arrive(job, 3)
    run(job, monkeypatch)
    arrive(job, 1, seed=1)
    (inbox / "face-1-0.png").replace(inbox / "face-0-0.png")
    assert run(job, monkeypatch)["counts"] == {"listed": 3, "new": 1, "delivered": 1}
    set_job(job, strengths=[0.5])
    assert run(job, monkeypatch)["counts"]["new"] == 0
    assert run(job, monkeypatch, "--again")["counts"] == {"listed": 3, "new": 3, "delivered": 3}
    assert run(job, monkeypatch, "--again")["counts"]["new"] == 0


def test_ledger_of_an_earlier_version_is_gone_on_with(tmp_path: Path) -> None:
    before = pd.DataFrame(
        [("a.png", "1", "i", "delivered", "", "x")],
        columns=["name", "version", "item_id", "status", "reason", "recipe_hash"],
    )
    with open_outbox(str(tmp_path / "out"), "bulk_edit some") as box:
        box.write("inbox.parquet", table_bytes(before, schema="inbox/1"))
        delivery = Delivery(box, "out", {"job_hash": "y"})
    assert [len(delivery.new_files(before[["name", "version"]], job_hash=job)) for job in (None, "y")] == [0, 1]


def test_weakest_strength_that_convinces_is_delivered(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrive(job, 6)
    set_job(job, strengths=[0.0, 2.0, 1.0], min_probability=0.5)
    told = run(job, monkeypatch)
    table = read_table(job / "out/some/metadata.parquet", schema="delivery/1")
    assert sorted(table["item_id"]) == sorted(set(table["item_id"]))
    assert (table["probability"] >= 0.5).all()
    assert told["counts"].get("delivered", 0) + told["counts"].get("unsure", 0) == 6
    set_job(job, strengths=[0.0, 0.1], min_probability=0.999999, outbox="out/none")
    assert run(job, monkeypatch)["counts"] == {"listed": 6, "new": 6, "unsure": 6}
    assert not list((job / "out/none").rglob("*.png"))


def test_file_that_changes_while_it_is_read_waits_for_the_next_run(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = arrive(job, 2)
    listed = bulk_edit.list_inbox(str(inbox))
    monkeypatch.setattr(bulk_edit, "list_inbox", lambda _address: listed)
    os.utime(inbox / "face-0-0.png", (1, 1))
    told = run(job, monkeypatch)
    assert told["counts"] == {"listed": 2, "new": 2, "left": 1, "delivered": 1}
    assert told["failures"][0]["reason"] == "changed after it was listed"
    monkeypatch.undo()
    assert run(job, monkeypatch)["counts"] == {"listed": 2, "new": 1, "delivered": 1}


def test_what_cannot_be_used_is_one_line(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ManifestError, match="inbox data/inbox/some: no such folder; make it"):
        run(job, monkeypatch)
    assert "no such folder" in json.loads((job / "data/bulk_edit/some/last_run.json").read_text())["error"]
    arrive(job, 1)
    busy = pytest.raises(ManifestError, match="another process delivers there")
    with open_outbox("out/some", "bulk_edit some"), busy:
        run(job, monkeypatch)
    set_job(job, edits={"hats": {"hut": "flip"}})
    with pytest.raises(PipelineError, match="boundary 'hut' of data set 'avatars' does not exist: there are"):
        run(job, monkeypatch)
    set_job(job, dataset="avatar")
    with pytest.raises(PipelineError, match=r"bulk_edit.some.dataset: 'avatar' has no entry under data, did you mean"):
        run(job, monkeypatch)


def test_killed_run_ends_with_the_bytes_of_an_undisturbed_one(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrive(job, 12)
    run(job, monkeypatch, "--outbox", "out/undisturbed")
    process = Forked("boundaryflow.jobs.bulk_edit", ["some"], job)
    while process.poll() is None and not list((job / "data/bulk_edit/some/shards").glob("shard-*.safetensors")):
        time.sleep(0.005)
    process.kill()  # on a busy machine it may have ended
    run(job, monkeypatch)
    assert delivered(job) == delivered(job, "out/undisturbed")


def test_store_as_inbox_and_outbox(job: Path, monkeypatch: pytest.MonkeyPatch, s3: Any) -> None:
    folder = arrive(job, 3)
    for path in folder.iterdir():
        s3.upload_file(str(path), "pictures", f"new/{path.name}")
    addresses = ("--inbox", "s3://pictures/new", "--outbox", "s3://pictures/edited")
    assert run(job, monkeypatch, *addresses)["counts"] == {"listed": 3, "new": 3, "delivered": 3}
    assert run(job, monkeypatch, *addresses)["counts"] == {"listed": 3, "new": 0}
    run(job, monkeypatch)
    there = {
        each["Key"].removeprefix("edited/"): s3.get_object(Bucket="pictures", Key=each["Key"])["Body"].read()
        for each in s3.list_objects_v2(Bucket="pictures", Prefix="edited/")["Contents"]
    }
    here = {name: data for name, data in delivered(job).items() if name.endswith(".png")}
    assert {name: data for name, data in there.items() if name.endswith(".png")} == here
    own = {f"{STATE}/job.json", f"{STATE}/written.jsonl"}
    assert set(there) == {*here, *own, "metadata.parquet", "inbox.parquet", "runs.jsonl"}
    with pytest.raises(ManifestError, match="inbox s3://nowhere/new: no such bucket or folder"):
        run(job, monkeypatch, "--inbox", "s3://nowhere/new")


def test_labels_that_are_no_numbers_are_never_delivered(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrive(job, 2)
    monkeypatch.setattr(Labeller, "_by_plane", lambda _self, _planes, pixels, _ids: torch.full((len(pixels),), np.nan))
    with pytest.raises(CheckpointError, match=r"the hyperplanes give NaN for 'hat'"):
        run(job, monkeypatch)
    assert not list((job / "out/some").rglob("*.png"))
