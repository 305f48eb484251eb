from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows import processes

_PARENT = """
import sys, time
from pathlib import Path
from flows import processes
processes.start(["/bin/sh", "-c", sys.argv[1]], cwd=Path("."))
time.sleep(60)
"""


def _wait_for(path: Path) -> int:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if path.exists() and path.read_text().strip():
            return int(path.read_text())
        time.sleep(0.02)
    raise AssertionError(f"{path} was not written")


def is_gone(process: int) -> bool:
    """Whether the process ends within a few seconds; one that nobody has waited for yet counts as ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_start_parent_dies_leaves_no_grandchild(tmp_path: Path, number: signal.Signals) -> None:
    note = tmp_path / "pid"
    script = f"sleep 60 & echo $! > {note}; wait"
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, script], stderr=subprocess.DEVNULL)
    grandchild = _wait_for(note)
    parent.send_signal(number)
    parent.wait(timeout=10)
    assert is_gone(grandchild)


def test_stop_all_ends_children_and_refuses_new_ones(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    process = processes.start(["/bin/sh", "-c", f"sleep 60 & echo $! > {note}; wait"], cwd=tmp_path)
    grandchild = _wait_for(note)
    processes.stop_all()
    assert process.wait(timeout=10) == 128 + signal.SIGKILL
    processes.stop(process)
    assert is_gone(grandchild)
    with pytest.raises(RuntimeError, match="being stopped"):
        processes.start(["/bin/true"], cwd=tmp_path)


def test_start_command_that_leaves_a_child_behind_ends_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    process = processes.start(["/bin/sh", "-c", f"sleep 60 >/dev/null 2>&1 & echo $! > {note}; exit 3"], cwd=tmp_path)
    assert process.wait(timeout=10) == 3
    processes.stop(process)
    assert is_gone(_wait_for(note))


def test_start_gives_output_and_environment(tmp_path: Path) -> None:
    process = processes.start(
        ["/bin/sh", "-c", "echo $WORD; echo oops >&2"], cwd=tmp_path, env={**os.environ, "WORD": "hi"}
    )
    assert process.communicate(timeout=10)[0].split() == ["hi", "oops"]
    assert process.returncode == 0
    processes.stop(process)
