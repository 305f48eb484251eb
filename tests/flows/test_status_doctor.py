from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from boundaryflow.errors import PipelineError
from boundaryflow.review.verdicts import Change, Verdicts
from boundaryflow.store.catalog.review import REVIEW
from flows import doctor, environment, locks, status, summary
from flows.dvc_graph import Step
from flows.progress import Board, Outcome
from tests.flows.toy import QUIET_DVC

pytestmark = pytest.mark.filterwarnings(QUIET_DVC)


@pytest.fixture(autouse=True)
def _keep_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]


def test_status_tells_never_run_stale_and_up_to_date_apart(half_done: Path) -> None:
    found = status.collect(half_done)
    states = {stage.stage: (stage.state, stage.reason) for stage in found.stages}
    assert states == {
        "first@toy": ("up to date", ""),
        "second@toy": ("stale", "changed deps: params.yaml length"),
        "side@toy": ("never run", ""),
        "third@toy": ("stale", "second@toy will run"),
    }
    assert found.next_step == "boundaryflow run (3 of 4 stages have work)"
    assert found.stages[0].size_bytes == 5
    assert "second@toy  stale" in status.as_text(found)
    assert json.loads(status.as_json(found))["stages"][1]["reason"] == "changed deps: params.yaml length"


def test_status_text_has_blocks_whose_columns_align() -> None:
    stages = [
        status.StageStatus("ingest@toy", "toy", "up to date", "", 40, 2, 2048),
        status.StageStatus("params", "", "stale", "changed", None, None, 0),
        status.StageStatus("label@toy", "toy", "never run", "", None, None, 0),
    ]
    jobs = (status.JobStatus("augment@far-longer", "failed", "2026-11-27 09:00", "no\nroom", 3 * 2**30),)
    assert status.as_text(status.Status("", tuple(stages), jobs, 0, "rest")).splitlines() == [
        "toy:",
        "  ingest@toy          up to date  40 items, 2 bad   2.0 KiB",
        "  label@toy           never run",
        "all data sets:",
        "  params              stale                                  changed",
        "jobs:",
        "  augment@far-longer  failed      2026-11-27 09:00  3.0 GiB  no; room",
        "",
        "on disk: 3.0 GiB of results, 0 Bytes in DVC's cache",
        "next: rest",
    ]


def test_status_tells_what_was_reviewed(toy: Path) -> None:
    Verdicts(REVIEW.folder("toy", toy)).put([Change("a", "hat", 1.0, "accepted"), Change("b", "hat", 1.0, "rejected")])
    (toy / "data/review/torn").mkdir()
    (toy / "data/review/torn/review.parquet").write_bytes(b"torn")
    (review,) = status.collect(toy).reviews
    assert (review.name, review.num_accepted, review.num_rejected) == ("review@toy", 1, 1)
    assert "reviews:\n  review@toy  1 accepted, 1 rejected" in status.as_text(status.collect(toy))


def test_status_while_a_run_is_at_work_reads_its_record(toy: Path) -> None:
    board = Board(toy)
    board.begin([Step("a@toy", (), "x", (), True), Step("b@toy", (), "x", (), True), Step("c@toy", (), "x", (), True)])
    board.finished("a@toy", Outcome("done", 1.0))
    board.started("b@toy")
    with locks.flow_lock(toy):
        found = status.collect(toy)
    assert [stage.state for stage in found.stages] == ["done", "running", "waiting"]
    assert "a run is at work: process" in status.as_text(found)


def test_status_counts_items_and_those_set_aside(toy: Path) -> None:
    ingest, label = toy / "data/ingest/toy", toy / "data/label/toy"
    ingest.mkdir(parents=True)
    label.mkdir(parents=True)
    (ingest / "ingest.json").write_text('{"num_ok": 40, "num_bad": 2}')
    pq.write_table(pa.table({"item_id": ["a", "b", "c"]}), label / "labels.parquet")
    assert status._count(ingest, "ingest") == (40, 2)
    assert status._count(label, "label") == (3, None)
    boundary = toy / "data/boundary/toy"
    boundary.mkdir(parents=True)
    pq.write_table(pa.table({"attribute": []}), boundary / "boundaries.parquet")  # none at the mixing step
    assert status._count(boundary, "boundary") == (None, None)
    pq.write_table(pa.table({"attribute": ["hat", "hat"]}), boundary / "path.parquet")
    assert status._count(boundary, "boundary") == (2, None)
    assert status._count(label, "edit") == (None, None)


def test_doctor_finds_what_is_wrong_and_says_the_way_out(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toy)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    (toy / "constraints.txt").write_text("click==0.1\npytest==0.1  # tests\n")
    weights = toy / "data/pretrained/net"
    weights.mkdir(parents=True)
    (weights / "a.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    (weights / "b.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (weights / "c.safetensors").write_bytes((400).to_bytes(8, "little") + b"{}")
    (weights / "d.safetensors").write_bytes((3).to_bytes(8, "little") + b"[1]")
    os.mkfifo(weights / "e.safetensors")
    lines = [str(check) for check in doctor.examine(toy)]
    text = "\n".join(lines)
    assert "d.safetensors: its header holds a list, must be a JSON object; restore it" in text
    assert "e.safetensors: a FIFO, not a regular file; restore it" in text.replace(f"{weights}/", "")
    assert any(line.startswith("warn packages: click") and "pip install" in line for line in lines)
    assert "a Git LFS pointer, not the file; git lfs pull" in text
    assert "c.safetensors: cut off; restore it" in text
    assert "b.safetensors" not in text
    assert "fail prefect: no answer at http://127.0.0.1:9/api (" in text
    assert "ok   dvc: 4 stages, 4 with work" in lines


def test_doctor_reads_no_more_of_weights_than_it_must(tmp_path: Path) -> None:
    folder = tmp_path / "data/pretrained"
    folder.mkdir(parents=True)
    (folder / "a.safetensors").write_bytes((4).to_bytes(8, "little") + b"[1] ")
    os.mkfifo(folder / "b.safetensors")
    with (folder / "c.safetensors").open("wb") as file:
        file.write((2 * 10**9).to_bytes(8, "little"))
        file.truncate(3 * 10**9)
    (folder / "d.safetensors").write_bytes((20_000).to_bytes(8, "little") + b"[" * 20_000)
    told = [check.finding for check in doctor._weights(tmp_path)]
    assert [text.partition(": ")[2] for text in told[:3]] == [
        "its header holds a list, must be a JSON object",
        f"{folder / 'b.safetensors'}: a FIFO, not a regular file",
        "its header has 2,000,000,000 bytes, more than the 16,777,216 that are read",
    ]
    assert len(told) == 4


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_checkout_of_another_owner_is_told_in_gits_own_words(toy: Path) -> None:
    os.chown(toy, 65534, 65534)
    check = doctor._git(toy)
    assert check.level == "fail"
    assert "detected dubious ownership" in check.finding
    assert f"git config --global --add safe.directory {toy}" in check.finding


def test_commands_that_only_read_do_not_need_to_write(tmp_path: Path) -> None:
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    (tmp_path / environment.STATE_FOLDER).write_text("no folder: as if nothing could be written")
    os.environ.pop("PREFECT_LOGGING_SETTINGS_PATH", None)
    environment.prepare(tmp_path)
    assert "PREFECT_LOGGING_SETTINGS_PATH" not in os.environ
    board = Board(tmp_path)
    board.begin([])


def test_failure_of_prefect_on_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="of Prefect"), environment.full_disk_is_one_line(tmp_path):
        raise RuntimeError("of Prefect")
    monkeypatch.setattr(environment, "_MIN_FREE_MIB", 1e12)
    with (
        pytest.raises(PipelineError, match="the disk is full .* free some"),
        environment.full_disk_is_one_line(tmp_path),
    ):
        raise RuntimeError("of Prefect")


def test_doctor_without_dvc_fails_with_the_command(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    assert any(check.level == "fail" and "dvc init" in check.way_out for check in doctor._repository(tmp_path))


def test_metrics_table_has_each_edit_at_the_strengths_that_other_images_chose(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    assert summary.metrics_table(path) == ((), [])
    hat = {"strengths": [0.5, 1.0], "num_images": 3, "target_success": 0.5, "clip_fd": 12.34}
    beard = {"strengths": [2.0], "target_success": None, "counterfactual_recovery": 0.2}
    chosen = {"guided": {"hat": hat, "beard": beard}}
    path.write_text(json.dumps({"num_images": 3, "method": "guided", "chosen": chosen}))
    header, rows = summary.metrics_table(path)
    assert header == ("edit", "strength", "target success", "counterfactual recovery")
    assert rows == [("hat", "0.5 or 1", "0.5", ""), ("beard", "2", "", "0.2")]
    chosen["single_step"] = {"hat": {"strengths": [3.0], "target_success": 0.2}}
    path.write_text(json.dumps({"num_images": 3, "method": "guided", "chosen": chosen}))
    assert summary.metrics_table(path)[1] == [rows[0], ("hat, single step", "3", "0.2", ""), rows[1]]


def test_summary_names_report_and_seconds(tmp_path: Path) -> None:
    page = tmp_path / "data/report/toy/index.html"
    page.parent.mkdir(parents=True)
    page.write_text("<html></html>")
    steps = [Step("edit@toy", (), "", (), True)]
    said = summary.text(tmp_path, steps, {"edit@toy": Outcome("done", 12.0)})
    assert "edit@toy    12 s" in said
    assert said.endswith(f"report: {page}")


@pytest.mark.parametrize("value", ["0", "two", "-1", "65"])
def test_num_parallel_refuses_nonsense(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("BOUNDARYFLOW_PARALLEL", value)
    with pytest.raises(environment.ParamsError, match="from 1 to 64"):
        environment.num_parallel()


def test_find_root_looks_upwards(toy: Path, tmp_path: Path) -> None:
    (toy / "deep/er").mkdir(parents=True)
    assert environment.find_root(toy / "deep/er") == toy
    with pytest.raises(environment.PipelineError, match=r"dvc\.yaml"):
        environment.find_root(tmp_path)
