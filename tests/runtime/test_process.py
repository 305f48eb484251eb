"""What a stage says of how far it is."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from boundaryflow.errors import ManifestError, ParamsError, TransientError
from boundaryflow.files import write_bytes
from boundaryflow.runtime import process
from tests.conftest import ROOT


def test_what_runs_ahead_within_a_shard_shows_and_is_not_counted_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BOUNDARYFLOW_PROGRESS", "json")
    monkeypatch.setitem(process._MIN_INTERVAL_S, "json", 0.0)  # noqa: SLF001
    process.tick(5)  # nobody listens
    with process.Progress("edit", 12, "images") as progress:
        process.tick(2)
        process.tick(3)
        progress.advance(6)
        process.tick(4)
        progress.advance(6)
    process.tick(5)
    lines = [json.loads(line.removeprefix("PROGRESS ")) for line in capsys.readouterr().out.splitlines()]
    assert [line["done"] for line in lines] == [0, 2, 5, 6, 10, 12, 12]


def test_a_stage_that_fails_leaves_no_listener() -> None:
    with pytest.raises(ValueError, match="broken"), process.Progress("edit", 12, "images"):
        raise ValueError("broken")
    process.tick(1)
    assert not process._DISPLAYS  # noqa: SLF001


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ManifestError("a: is wrong; mend it"), 2, "a: is wrong; mend it"),
        (ParamsError("p: a is 1\np: b is\x1b 2"), 2, "p: a is 1\np: b is\\x1b 2"),
        (TransientError("s3://a: cannot be reached"), 75, "s3://a: cannot be reached"),
        (OSError(errno.ENOSPC, "No space left on device", "data/x"), 2, "data/x: No space left on device; free some"),
        (OSError(errno.EROFS, "Read-only file system", "data/x"), 2, "data/x: Read-only file system; mount it"),
        (PermissionError(errno.EACCES, "Permission denied", "data/x"), 2, "data/x: Permission denied; change its"),
        (OSError(errno.EIO, "Input/output error", "data/x"), 75, "data/x: Input/output error; run it again"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), 75, "Connection reset by peer; run it"),
    ],
    ids=["mistake", "mistakes", "transient", "full", "read-only", "denied", "disk", "network"],
)
def test_exit_status_says_who_can_mend_it(
    error: Exception,
    status: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(process, "guard", lambda: None)

    @process.entry
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == status
    said = capsys.readouterr().err
    assert line in said
    assert len(said.splitlines()) == len(line.splitlines())


def test_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "guard", lambda: None)

    @process.entry
    def main() -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "x")

    with pytest.raises(FileNotFoundError):
        main()


def test_write_that_finds_no_room_names_the_file_and_leaves_nothing(
    tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pathlib import Path

    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("boundaryflow.files.os.fsync", full)
    path = Path(tmp_path) / "a.bin"
    with pytest.raises(OSError, match="No space left") as caught:
        write_bytes(path, b"x")
    assert caught.value.filename == str(path)
    assert not list(path.parent.iterdir())


def test_stage_that_waits_says_for_whom(tmp_path: Path) -> None:
    """The lock is in a process of its own: it holds until that ends, and the kernel kills it with its parent."""
    code = "import logging; logging.basicConfig(); from boundaryflow.runtime import process; process.guard(); input()"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_STAGE": "edit@some", "DVC_ROOT": str(tmp_path)}

    def start() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, "-c", code], env=env, stdin=pipe, stderr=pipe, text=True)

    first = start()
    lock = tmp_path / ".dvc/tmp/boundaryflow/locks/edit@some"
    while not (lock.is_file() and lock.read_text()):
        assert first.poll() is None
        time.sleep(0.05)
    second = start()
    assert second.stderr is not None
    assert (
        f"edit@some: waiting for another process that runs it (process {first.pid}, since " in second.stderr.readline()
    )
    first.communicate("\n")
    second.communicate("\n")
    assert (first.returncode, second.returncode) == (0, 0)
    assert lock.read_text().startswith(f"process {second.pid}, since ")
