"""Drive an entry point with a hostile input, in a process of its own with limits, and check what it did."""

from __future__ import annotations

import hashlib
import os
import re
import resource
import stat
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

LIMIT_S = 60.0
MEMORY_BYTES = 6 * 2**30
"""Of address space, of which torch takes 4 GiB with its libraries before anything is read."""
STATUSES = frozenset((0, 1, 2, 75, 130))
"""See stages/process.py: done, a bug or no memory, what the user can mend, what another attempt may mend, stopped."""
_UNEXPECTED = re.compile(r"Traceback \(most recent call last\)|\bunexpected \w*(?:Error|Exception|Exit|Iteration)\b")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f]")


@dataclass(frozen=True)
class Outcome:
    """How a command ended: exit status, what it printed, and which files it made, changed or removed."""

    status: int
    stdout: str
    stderr: str
    touched: frozenset[str]

    @property
    def said(self) -> str:
        """All that was printed."""
        return self.stdout + self.stderr


def run(
    command: Sequence[str],
    cwd: Path,
    *,
    watched: Path | None = None,
    limit_s: float = LIMIT_S,
    memory_bytes: int = MEMORY_BYTES,
    **extra: str,
) -> Outcome:
    """Run a command with bounded time and memory.

    Args:
        command: Program and arguments; `boundaryflow` and `stages.NAME` stand for this checkout's.
        cwd: Where.
        watched: Folder whose files are compared before and after; None is `cwd`.
        limit_s: Seconds, after which the test fails.
        memory_bytes: Of address space.
        extra: Further environment variables.

    Raises:
        AssertionError: It did not end in time.
    """
    start = [sys.executable, "-m", "flows.cli"] if command[0] == "boundaryflow" else [sys.executable, "-m", command[0]]
    before = fingerprints(watched or cwd)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "BOUNDARYFLOW_PROGRESS": "off"}

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    try:
        done = subprocess.run(
            [*start, *command[1:]], cwd=cwd, env={**environment, **extra}, stdin=subprocess.DEVNULL,
            capture_output=True, timeout=limit_s, preexec_fn=limited, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{' '.join(command)}: no end after {limit_s:g} s") from None
    after = fingerprints(watched or cwd)
    touched = frozenset(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return Outcome(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode(), touched)


def assert_held(outcome: Outcome, allowed: Iterable[str] = ()) -> None:
    """What must be so whatever the input was: a documented status, one line without a traceback, nothing else touched.

    Args:
        outcome: Of `run`.
        allowed: Prefixes of the paths that may be touched, relative to the watched folder.
    """
    assert outcome.status in STATUSES, f"exit status {outcome.status}\n{outcome.said}"
    assert not _UNEXPECTED.search(outcome.said), outcome.said
    assert not _CONTROL.search(outcome.said.replace("\r", "")), repr(outcome.said)
    if outcome.status == 2:
        assert outcome.stderr.strip(), "no word of what is wrong"
    ours = (*allowed, ".dvc/tmp/", ".dvc/cache/", ".prefect/")
    strange = sorted(name for name in outcome.touched if not name.startswith(ours) and "__pycache__" not in name)
    assert not strange, f"touched: {strange}\n{outcome.said}"


def fingerprints(folder: Path) -> dict[str, str]:
    """Path to kind and content of everything in a folder; links and special files by what they are, never opened."""
    found: dict[str, str] = {}
    for at, folders, files in os.walk(os.fsencode(folder)):
        for name in (*folders, *files):
            path = os.path.join(at, name)
            about = os.lstat(path)
            key = os.fsdecode(os.path.relpath(path, os.fsencode(folder)))
            if stat.S_ISREG(about.st_mode):
                with open(path, "rb") as file:
                    content = hashlib.sha256(file.read(2**20)).hexdigest()
                found[key] = f"file {about.st_size} {content}"
            elif stat.S_ISLNK(about.st_mode):
                found[key] = f"link {os.readlink(path)!r}"
            elif not stat.S_ISDIR(about.st_mode):
                found[key] = f"special {stat.S_IFMT(about.st_mode):o}"
    return found
