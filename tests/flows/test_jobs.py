"""Jobs from the command line and on a schedule: what is refused, what is recorded, how it is told."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from boundaryflow.errors import ParamsError, PipelineError
from flows import environment, locks, record, serving
from flows.cli import cli
from flows.environment import LONG_WAIT_S
from flows.locks import FlowBusyError, flow_lock
from tests.conftest import ROOT
from tests.jobs.test_bulk_edit import set_job
from tests.small_project import write_project

_TOLD: dict[str, Any] = {
    "state": "completed",
    "error": "",
    "job": "some",
    "job_hash": "abc",
    "inbox": "in",
    "outbox": "out",
    "started": "2026-11-25T02:00:00+00:00",
    "seconds": 42.0,
    "commit": "0123456789abcdef",
    "changed": True,
    "model": "net",
    "model_sha256": "f" * 64,
    "counts": {"listed": 12, "new": 3, "delivered": 2, "bad": 1},
    "pictures": {"hats": 2},
    "failures": [{"file": f"{n}.jpg", "status": "bad", "reason": "not an image | at all"} for n in range(25)],
}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = write_project(tmp_path / "checkout")
    (folder / "dvc.yaml").write_text("stages: {}\n")
    set_job(folder)
    monkeypatch.chdir(folder)
    return folder


def test_record_is_told_in_a_line_in_a_table_and_in_full() -> None:
    assert record.in_a_line(_TOLD) == "12 files, 3 new, 2 delivered, 1 bad, 2 pictures in 42 s"
    assert {"what": "pictures", "of": "hats", "number": 2} in record.rows(_TOLD)
    text = record.markdown(_TOLD)
    assert "| commit | 0123456789ab and changes that are not committed |" in text
    assert "| 0.jpg | bad | not an image / at all |" in text
    assert "and 5 more, in last_run.json of the job's folder below data/" in text
    balanced = {
        "wanted": {"a": 3, "b": 4},
        "added": {"a": 3, "b": 2},
        "phi": {"before": 0.9, "after": 0.01},
        "seconds": 5,
    }
    assert record.in_a_line(balanced) == "5 of 7 edits added, correlation 0.90 to 0.01 in 5.0 s"


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["bulk-edit", "sone"], "params.yaml: bulk_edit has no job 'sone', did you mean 'some'?"),
        (["augment", "hats"], "params.yaml: augment has no job 'hats'; add one or choose another"),
        (["serve", "--cron", "often"], "--cron 'often': must be five fields"),
        (["serve", "--cron", "0 2 * * *", "--timezone", "Mars/Base"], "--timezone Mars/Base: no such time zone"),
        (["serve", "sone", "--every", "60"], "bulk_edit has no job 'sone'"),
        (["serve", "--every", "nan"], "nan is not a finite number"),
        (["serve", "--every", "-1"], "--every -1.0: must be a number of seconds from 1 to 31622400"),
        (["serve", "--every", "60", "--port", "65536"], "--port 65536: must be a whole number from 1 to 65535"),
        (["bulk-edit", "--", "--inbox"], "params.yaml: bulk_edit has no job '--inbox'"),
        (["run", "--dask", "host:8786"], "--dask host:8786: is not the address of a Dask scheduler"),
        (["run", "--dask", "tls://me:s3cret@host"], "--dask tls://***@host: is not the address of a Dask scheduler"),
    ],
    ids=[
        "job",
        "augment",
        "cron",
        "timezone",
        "served job",
        "nan",
        "negative",
        "port",
        "option",
        "dask",
        "secret",
    ],
)
def test_mistake_is_one_line_and_status_two(words: list[str], line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setattr("flows.server.check", lambda _url: None)
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 2, result.output
    assert line in result.stderr
    assert len([text for text in result.stderr.splitlines() if "Error" in text]) == 1


def test_serve_wants_one_way_to_say_when() -> None:
    for words in ([], ["--cron", "0 2 * * *", "--every", "60"]):
        assert CliRunner().invoke(cli, ["serve", *words]).exit_code == 2


def test_inbox_and_outbox_of_the_command_line_reach_the_stage_of_this_run(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[Any] = []
    monkeypatch.setattr("flows.run.execute_job", lambda *words, **options: called.append((words, options)) or 0)
    command = ["bulk-edit", "some", "--inbox", "new", "--outbox", "s3://photos/edited", "--again", "--wait"]
    assert CliRunner().invoke(cli, command).exit_code == 0
    (words, options), options_wanted = (
        called[0],
        [f"--inbox={checkout / 'new'}", "--outbox=s3://photos/edited", "--again"],
    )
    assert words == (checkout, "bulk_edit", "some", options_wanted)
    assert options == {"wait_s": LONG_WAIT_S, "quiet": False, "verbose": False}


def test_deployments_give_only_parameters_that_flows_have() -> None:
    from flows import jobs, pipeline

    flows: dict[str, Any] = {
        "flows/jobs.py:bulk_edit": jobs.bulk_edit,
        "flows/jobs.py:augment": jobs.augment,
        "flows/pipeline.py:run_graph": pipeline.run_graph,
    }
    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        known = inspect.signature(flows[deployment["entrypoint"]].fn).parameters
        assert set(deployment["parameters"]) <= set(known)
        assert environment.checked_wait(deployment["parameters"]["wait_s"]) == LONG_WAIT_S


def test_retry_delay_that_is_no_number_is_one_line(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.run import execute, execute_job

    monkeypatch.setenv("BOUNDARYFLOW_RETRY_DELAY_S", "abc")
    for start in (lambda: execute(checkout), lambda: execute_job(checkout, "bulk_edit", "some")):
        with pytest.raises(ParamsError, match="BOUNDARYFLOW_RETRY_DELAY_S is 'abc', must be a number of seconds"):
            start()


def test_job_beside_another_run_is_refused_before_anything_starts(checkout: Path) -> None:
    from flows.run import execute_job

    with flow_lock(checkout), pytest.raises(FlowBusyError, match="another boundaryflow run is at work here"):
        execute_job(checkout, "bulk_edit", "some", quiet=True)


def test_lock_is_waited_for_only_so_long(tmp_path: Path) -> None:
    notes: list[str] = []
    with flow_lock(tmp_path), pytest.raises(FlowBusyError), flow_lock(tmp_path, wait_s=0.2, note=notes.append):
        pass
    assert len(notes) == 1
    assert notes[0].startswith("waiting for another run to end (process ")


def test_checkout_is_served_once_and_not_without_a_job(checkout: Path) -> None:
    second = locks.serve_lock(checkout)
    with locks.serve_lock(checkout), pytest.raises(PipelineError, match="is served already"), second:
        pass
    (checkout / "params.yaml").write_text((checkout / "params.yaml").read_text().replace("bulk_edit:", "augment:"))
    write_project(checkout)
    with pytest.raises(ParamsError, match="bulk_edit has no job; add one"):
        serving._chosen(checkout, [])
