"""What a job of bulk edits expects of a run and of each picture, and what becomes of what falls short."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from boundaryflow.avatars import render, sample_avatars
from boundaryflow.config.guard import Condition
from boundaryflow.errors import ShortfallError
from boundaryflow.evaluation.judges import JudgeNet, save_judge
from boundaryflow.jobs.bulk_edit import settle_run
from boundaryflow.jobs.guard import Guard, findings
from boundaryflow.jobs.near_duplicates import LookAlikes, phash_of
from boundaryflow.review.verdicts import Change, Verdicts
from boundaryflow.sources.decoding import item_id_of
from boundaryflow.store.tables import read_table
from flows.record import in_a_line, markdown, rows
from tests.jobs.test_bulk_edit import arrive, delivered, ledger, run, set_job


@pytest.fixture
def job(project: Path) -> Path:
    arrive(project, 6)
    set_job(project, strengths=[1.0])
    return project


@pytest.fixture
def judged(job: Path) -> Path:
    """The same with judges, of random weights."""
    torch.manual_seed(0)
    config = {"channels": 3, "widths": [8], "image_size": 16, "num_outputs": 2, "head": "classify"}
    folder = job / "data/pretrained/judges"
    save_judge(folder, "classify", JudgeNet(3, [8], 16, 2, "classify"), config, ["hat", "dark_skin"])
    save_judge(folder, "embed", JudgeNet(3, [8], 16, 2, "embed"), {**config, "head": "embed"}, [])
    path = job / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["data"]["avatars"]["evaluate"]["judges"] = "data/pretrained/judges"
    path.write_text(yaml.safe_dump(params))
    return job


def checks(folder: Path) -> pd.DataFrame:
    return read_table(folder / "checks.parquet", schema="checks/1")


def told(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "data/bulk_edit/some/last_run.json").read_text())


def test_run_that_meets_what_is_expected_is_delivered_as_any_other(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(job, monkeypatch, "--outbox", "out/plain")
    set_job(job, strengths=[1.0], alert_below={"success": 0.0}, max_failed=0.0)
    record = run(job, monkeypatch)
    expected = delivered(job)
    del expected["checks.parquet"]
    assert expected == delivered(job, "out/plain"), "no byte differs, job_hash included"
    assert record["counts"] == {"listed": 6, "new": 6, "delivered": 6}
    assert [(f["what"], f["count"], f["is_met"]) for f in record["findings"]] == [
        ("success of hats", 6, True),
        ("share of failed files", 6, True),
    ]
    assert not list((job / "out/some.quarantine").iterdir())
    assert run(job, monkeypatch)["counts"] == {"listed": 6, "new": 0}


def test_run_that_falls_short_is_quarantined_said_and_neither_delivered_again_nor_lost(
    job: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run(job, monkeypatch, "--outbox", "out/plain")
    (job / "data/inbox/some/broken.jpg").write_text("no picture")
    set_job(job, strengths=[1.0], alert_below={"success": 0.0}, max_failed=0.1)
    with pytest.raises(ShortfallError) as caught:
        run(job, monkeypatch)
    (folder,) = (job / "out/some.quarantine").iterdir()
    line, record = str(caught.value), told(job)
    assert line.startswith(
        "bulk_edit some: share of failed files is 0.1429 over 7 new files, must be at most 0.1; success of hats is "
    )
    assert "over 6 pictures, at least 0 is met; 6 pictures are in quarantine in out/some.quarantine/" in line
    assert line.endswith(f"run `boundaryflow bulk-edit some --release {folder.name}`, or --discard {folder.name}")
    assert (record["state"], record["error"]) == ("failed", line)
    assert record["counts"] == {"listed": 7, "new": 7, "bad": 1, "quarantined": 6}
    assert record["quarantine"] == f"out/some.quarantine/{folder.name}"
    assert not list((job / "out/some").rglob("*.png"))
    assert ledger(job)["face-0-0.png"] == ("quarantined", folder.name)
    assert ledger(job)["broken.jpg"][0] == "bad"
    with caplog.at_level("WARNING"):
        assert run(job, monkeypatch)["counts"] == {"listed": 7, "new": 0}
    assert f"1 in quarantine in out/some.quarantine ({folder.name})" in caplog.text
    said = settle_run("some", None, folder.name, release=True)
    assert said == f"some: run {folder.name}: 6 pictures of 6 files delivered to out/some"
    pictures = {name: data for name, data in delivered(job).items() if name.endswith((".png", "metadata.parquet"))}
    plain = delivered(job, "out/plain")
    assert pictures == {name: plain[name] for name in pictures}
    assert not folder.exists()
    assert ledger(job)["face-0-0.png"] == ("delivered", "")
    lines = [json.loads(line) for line in (job / "out/some/runs.jsonl").read_text().splitlines()]
    assert [each["state"] for each in lines] == ["failed", "completed", "released"]
    assert "quarantine" not in lines[0], "a path, which is nobody else's business"
    assert run(job, monkeypatch)["counts"] == {"listed": 7, "new": 0}


def test_discarded_run_is_edited_anew(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_job(job, strengths=[1.0], min_probability=0.999999, alert_below={"success": 0.5})
    with pytest.raises(
        ShortfallError, match=r"success of hats is 0 over \d pictures, must be .*; no picture was to be"
    ):
        run(job, monkeypatch)
    assert {status for status, _ in ledger(job).values()} <= {"unsure", "unchanged"}
    set_job(job, strengths=[1.0], alert_below={"success": 1.0, "probability": 1.0}, outbox="out/other")
    with pytest.raises(ShortfallError):
        run(job, monkeypatch)
    (folder,) = (job / "out/other.quarantine").iterdir()
    said = settle_run("some", "out/other", folder.name, release=False)
    assert said == f"some: run {folder.name} is gone; the next run edits its 6 files again"
    assert not folder.exists()
    set_job(job, strengths=[1.0], outbox="out/other")
    assert run(job, monkeypatch)["counts"] == {"listed": 6, "new": 6, "delivered": 6}


def test_measures_of_judges_are_those_of_the_run_and_filter_its_pictures(
    judged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"identity": -1.0, "clean_success": 0.0, "ssim": -1.0}
    set_job(judged, strengths=[0.0, 1.0], alert_below=asked, deliver_if={"drift": "<= 1"})
    record = run(judged, monkeypatch)
    table = checks(judged / "out/some")
    assert len(table) == 12
    unchanged = table[table["strength"] == 0]
    assert unchanged["identity"].to_numpy() == pytest.approx(1.0, abs=1e-5)
    assert unchanged["drift"].to_numpy() == pytest.approx(0.0)
    edited = table[table["strength"] == 1]
    means = {f["what"]: f["value"] for f in record["findings"]}
    assert means["identity of hats"] == pytest.approx(edited["identity"].mean())
    assert means["ssim of hats"] == pytest.approx(edited["ssim"].mean()) != pytest.approx(1.0, abs=1e-4)
    limit = float(edited["ssim"].median())
    set_job(judged, strengths=[0.0, 1.0], deliver_if={"ssim": f">{limit}"}, outbox="out/held")
    record = run(judged, monkeypatch)
    held = checks(judged / "out/held").query("outcome == 'held'")
    assert record["held"] == {"hats": len(held)} == {"hats": int((edited["ssim"] <= limit).sum())}
    assert (held["strength"] == 1).all()
    assert held["reason"].str.startswith("ssim is 0.").all()
    assert len(list((judged / "out/held").rglob("*.png"))) == 12 - len(held) == record["pictures"]["hats"]
    set_job(judged, strengths=[1.0], deliver_if={"ssim": f">{limit}"}, outbox="out/some2")
    record = run(judged, monkeypatch)
    assert record["counts"] == {"listed": 6, "new": 6, "held": len(held), "delivered": 6 - len(held)}
    entries = read_table(judged / "out/some2/inbox.parquet", schema="inbox/1").query("status == 'held'")
    assert entries["reason"].str.match(r"hats at 1: ssim is 0\.\d+, must be > 0\.\d+").all()
    assert f"{len(held)} held back" in in_a_line(record)
    assert {"what": "held", "of": "hats", "number": len(held)} in rows(record)
    assert run(judged, monkeypatch)["counts"]["new"] == 0


def test_findings_are_told_with_every_number() -> None:
    record = {
        "state": "failed", "error": "x", "job": "some", "job_hash": "h", "outbox": "out", "started": "t", "seconds": 1,
        "model": "m", "model_sha256": "s", "counts": {"listed": 3, "new": 3}, "near_duplicates": 2,
        "quarantine": "out.quarantine/1",
        "findings": [
            {"what": "identity of hats", "value": 0.41, "count": 3, "limit": 0.5, "is_met": False},
            {"what": "identity of beards", "value": None, "count": 0, "limit": 0.5, "is_met": True},
        ],
    }  # fmt: skip
    text = markdown(record)
    assert "| identity of hats | 0.41 | 3 | 0.5 | no |" in text
    assert "| identity of beards | nothing | 0 | 0.5 | yes |" in text
    assert "| quarantine | out.quarantine/1 |" in text
    assert "2 near-duplicates of earlier ones" in in_a_line(record)


@pytest.mark.parametrize(
    ("values", "mean", "count", "is_met"),
    [
        ([0.9, 0.5], 0.7, 2, True),
        ([0.9, 0.2], 0.55, 2, False),
        ([0.9, float("nan")], None, 2, False),
        ([], None, 0, True),
    ],
    ids=["met", "missed", "not a number", "nothing"],
)
def test_mean_is_over_pictures_that_were_edited(
    values: list[float], mean: float | None, count: int, is_met: bool
) -> None:
    guard = Guard({"identity": 0.6, "success": 0.4}, None, {}, None)
    table = pd.DataFrame(
        [("hats", 1.0, "held" if value < 0.5 else "delivered", value, 1.0) for value in values]
        + [("hats", 0.0, "delivered", 1.0, 0.0), ("hats", float("nan"), "unsure", float("nan"), 0.0)]
        + [("beards", 1.0, "delivered", 1.0, 1.0)],
        columns=["edit", "strength", "outcome", "identity", "success"],
    )
    identity, success = findings(guard, ["hats"], table, 0, 9)
    assert (identity.count, identity.is_met) == (count, is_met)
    if mean is not None:
        assert identity.value == pytest.approx(mean)
    assert success.count == count + 1, "an edit that convinced nobody has failed"
    assert success.value == pytest.approx(len(values) / (len(values) + 1))


def test_share_of_failed_files_is_of_all_new_ones() -> None:
    guard = Guard({}, 0.05, {}, None)
    assert [findings(guard, [], None, bad, 40)[0].is_met for bad in (0, 2, 3)] == [True, True, False]
    assert findings(guard, [], None, 0, 0)[0].is_met


def test_condition_holds_for_numbers_only() -> None:
    assert Condition("<", 0.1).is_met(0.09)
    assert not Condition("<", 0.1).is_met(0.1)
    assert Condition(">=", 0.1).is_met(0.1)
    assert not Condition(">", -1).is_met(float("nan"))


def test_near_duplicates_are_counted_and_skipped_if_asked(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = project / "data/inbox/some"
    inbox.mkdir(parents=True)
    rng = np.random.default_rng(3)
    for number in range(4):  # textures, which stay told apart at 16 pixels
        texture = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(texture).resize((128, 128), Image.Resampling.NEAREST).save(inbox / f"{number}.png")
    set_job(project, strengths=[1.0])
    assert run(project, monkeypatch)["near_duplicates"] == 0
    assert read_table(project / "out/some/inbox.parquet", schema="inbox/1")["phash"].str.len().tolist() == [64] * 4
    with Image.open(inbox / "2.png") as picture:
        picture.convert("RGB").resize((96, 96), Image.Resampling.BICUBIC).save(inbox / "small.jpg", quality=80)
        picture.point(lambda value: min(255, int(value * 1.05))).save(inbox / "bright.png")
    record = run(project, monkeypatch)
    assert (record["near_duplicates"], record["counts"]) == (2, {"listed": 6, "new": 2, "delivered": 2})
    assert "2 near-duplicates of earlier ones" in in_a_line(record)
    set_job(project, strengths=[1.0], skip_duplicates=True, outbox="out/skipped")
    record = run(project, monkeypatch)
    assert (record["near_duplicates"], record["counts"]) == (2, {"listed": 6, "new": 6, "delivered": 4, "duplicate": 2})
    table = read_table(project / "out/skipped/inbox.parquet", schema="inbox/1").set_index("name")
    assert table.loc["bright.png", "reason"] == "looks like 2.png"
    set_job(project, strengths=[0.5], skip_duplicates=True, outbox="out/skipped")
    record = run(project, monkeypatch, "--again")
    assert record["counts"] == {"listed": 6, "new": 6, "delivered": 4, "duplicate": 2}, "not its own duplicate"


def test_hash_tells_pictures_apart_and_knows_copies() -> None:
    faces = [render(face, 64) for face in sample_avatars(40, np.random.default_rng(0))]
    hashes = [phash_of(np.asarray(face).transpose(2, 0, 1)) for face in faces]
    known = LookAlikes(hashes, [str(number) for number in range(40)], 1)
    for number, face in enumerate(faces):
        file = io.BytesIO()
        face.save(file, "JPEG", quality=80)
        with Image.open(file) as copy:
            assert known.find(phash_of(np.asarray(copy).transpose(2, 0, 1)), but="") == str(number)
    assert known.find(hashes[0], but="0") is None
    assert phash_of(np.full((3, 16, 16), 7, np.uint8)) == ""
    assert known.find("", but="") is None
    known.add("00" * 32, "new")
    assert known.find("00" * 32, but="") == "new"


def test_hundred_thousand_known_pictures_are_no_burden() -> None:
    rng = np.random.default_rng(0)
    hashes = [rng.bytes(32).hex() for _ in range(100_000)]
    known = LookAlikes(hashes, [str(number) for number in range(100_000)], 2)
    close = bytearray.fromhex(hashes[77_777])
    close[3] ^= 0xFF
    assert known.find(close.hex(), but="") == "77777"
    close[4:6] = bytes(byte ^ 0xFF for byte in close[4:6])
    assert known.find(close.hex(), but="") is None


def test_verdicts_of_review_are_heeded(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_job(job, strengths=[0.5, 1.0], min_probability=0.000001)
    run(job, monkeypatch)
    table = read_table(job / "out/some/metadata.parquet", schema="delivery/1")
    assert set(table["strength"]) == {0.5}
    inbox = job / "data/inbox/some"
    items = [item_id_of((inbox / f"face-0-{number}.png").read_bytes()) for number in range(3)]
    verdicts = Verdicts(job / "data/review/avatars")
    verdicts.put([Change(items[0], "hat", 1.0, "accepted"), Change(items[1], "hat", 1.0, "rejected")])
    verdicts.put([Change(items[2], "dark", 1.0, "rejected"), Change(items[2], "hat", 0.7, "accepted")])
    record = run(job, monkeypatch, "--outbox", "out/reviewed")
    assert (record["counts"], record["held"]) == (
        {"listed": 6, "new": 6, "delivered": 5, "held": 1},
        {"hats": 1},
    )
    table = read_table(job / "out/reviewed/metadata.parquet", schema="delivery/1").set_index("item_id")
    assert table.loc[items[0], "strength"] == 1.0
    assert table.loc[items[2], "strength"] == 0.5, "0.7 is not among the job's strengths"
    assert items[1] not in table.index
    entries = read_table(job / "out/reviewed/inbox.parquet", schema="inbox/1").set_index("name")
    assert entries.loc["face-0-1.png", ["status", "reason"]].tolist() == ["held", "hats at 0.5: rejected in review"]
