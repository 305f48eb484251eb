"""The record of a run: all of it here, and in the outbox only what a receiver needs."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

from boundaryflow.errors import ManifestError
from boundaryflow.jobs.run_record import recorded
from boundaryflow.store.outbox import open_outbox


@pytest.mark.parametrize("fails", [False, True], ids=["completed", "failed"])
def test_outbox_gets_no_host_no_path_and_no_name_of_a_file(
    tmp_path: Path, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    about = {
        "job": "some",
        "inbox": "s3://me:s3cret@store/inbox",
        "outbox": str(tmp_path / "out"),
        "model": str(tmp_path / "model"),
        "model_sha256": "f" * 64,
        "counts": {"new": 2},
        "failures": [{"file": "passport-jane.png", "status": "bad", "reason": "no image"}],
        "params": {"judges": "/srv/me/judges"},
    }
    folder = tmp_path / "data/bulk_edit/some"
    for _ in range(2):
        try:
            with open_outbox("out", "bulk_edit some") as box, recorded(folder, box, lambda: about, []):
                if fails:
                    raise ManifestError(f"{tmp_path}/passport-jane.png: is bad")
        except ManifestError:
            assert fails
    delivered = (tmp_path / "out/runs.jsonl").read_text()
    lines = [json.loads(line) for line in delivered.splitlines()]
    assert [line["state"] for line in lines] == ["failed" if fails else "completed"] * 2
    assert (lines[0]["counts"], lines[0]["model_sha256"], lines[0]["job"]) == ({"new": 2}, "f" * 64, "some")
    for private in (platform.node(), str(tmp_path), "passport", "s3cret", "/srv/me", "inbox"):
        assert private not in delivered
    kept = [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]
    assert len(kept) == 2
    assert kept[-1] == json.loads((folder / "last_run.json").read_text())
    assert kept[-1]["machine"]["host"] == platform.node()
    assert kept[-1]["failures"][0]["file"] == "passport-jane.png"
    assert kept[-1]["inbox"] == "s3://***@store/inbox"
