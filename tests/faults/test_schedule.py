"""A schedule that is left alone: it fires, edits what came, fires again, edits what came since, and stops cleanly."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.checkout import boundaryflow, environment, make_checkout, processes_in, repro
from tests.faults.cluster import free_port
from tests.jobs.test_bulk_edit import arrive, set_job

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


def _runs(folder: Path) -> list[dict[str, Any]]:
    path = folder / "out/some/runs.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _wait_for(num: int, folder: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 240
    while len(_runs(folder)) < num:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)


def test_schedule_fires_twice_does_the_right_thing_and_leaves_nobody_behind(tmp_path: Path) -> None:
    folder, log = make_checkout(tmp_path / "checkout"), tmp_path / "serve.log"
    set_job(folder)
    done = repro(folder, "params", "listing", "ingest", "label", "mixing", "invert", "observe", "boundary")
    assert done.returncode == 0, done.stderr
    arrive(folder, 3)
    command = [sys.executable, "-m", "flows.cli", "serve", "--every", "25", "--port", str(free_port())]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=output, stderr=subprocess.STDOUT)
    _wait_for(1, folder, process, log)
    second = boundaryflow(folder, "serve", "--every", "60")
    assert second.returncode == 2
    assert "is served already" in second.stderr
    arrive(folder, 2, seed=1)
    _wait_for(3, folder, process, log)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 130, log.read_text()
    deadline = time.monotonic() + 30
    while processes_in(folder) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert processes_in(folder) == []
    counts = [run["counts"] for run in _runs(folder)]
    assert counts[0] == {"listed": 3, "new": 3, "delivered": 3}
    assert {"listed": 5, "new": 2, "delivered": 2} in counts
    assert all(run["state"] == "completed" for run in _runs(folder))
    assert "Traceback" not in log.read_text()
    assert len(list((folder / "out/some").rglob("*.png"))) == 10


def test_flow_cancelled_through_the_api_leaves_no_child_and_the_next_one_completes(tmp_path: Path) -> None:
    folder, log, port = make_checkout(tmp_path / "checkout"), tmp_path / "serve.log", free_port()
    set_job(folder)
    done = repro(folder, "params", "listing", "ingest", "label", "mixing", "invert", "observe", "boundary")
    assert done.returncode == 0, done.stderr
    arrive(folder, 4000)
    command = [sys.executable, "-m", "flows.cli", "serve", "--every", "20", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=output, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 240
    while not _stages_in(folder):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    time.sleep(5)
    cancelled = subprocess.run(
        [sys.executable, "-c", _CANCEL],
        cwd=folder,
        env=environment(
            PREFECT_API_URL=f"http://127.0.0.1:{port}/api",
            PREFECT_API_AUTH_STRING=(folder / ".dvc/tmp/boundaryflow/prefect-password").read_text().strip(),
            PREFECT_HOME=str(tmp_path / "home"),
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert cancelled.stdout.split() == ["1"], cancelled.stderr
    deadline = time.monotonic() + 60
    while _stages_in(folder):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 130, log.read_text()
    finished = boundaryflow(folder, "bulk-edit", "some")
    assert finished.returncode == 0, finished.stderr
    assert len(list((folder / "out/some").rglob("*.png"))) == 8000
    assert not list((folder / "out/some").rglob("*.tmp"))
    assert processes_in(folder) == []


_CANCEL = """
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.states import Cancelling

running = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING])))
with get_client(sync_client=True) as client:
    runs = client.read_flow_runs(flow_run_filter=running)
    for run in runs:
        client.set_flow_run_state(run.id, Cancelling())
    print(len(runs))
"""


def _stages_in(folder: Path) -> list[int]:
    """Processes of the stage that edits."""
    found: list[int] = []
    for process in processes_in(folder):
        try:
            words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        found += [process] if b"boundaryflow.jobs.bulk_edit" in words and b"-S" not in words else []
    return found
