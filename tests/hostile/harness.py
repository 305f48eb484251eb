"""Drive an entry point with a hostile input, within limits, and check what it did."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT
from tests.hostile.zygote import Zygote

LIMIT_S = 30.0
MEMORY_BYTES = 2 * 2**30
"""Of address space beyond what the imports take."""
STATUSES = frozenset((0, 1, 2, 75, 130))
"""See boundaryflow/runtime/process.py: done, a bug or no memory, for the user to mend, for another attempt, stopped."""
_UNEXPECTED = re.compile(r"Traceback \(most recent call last\)|\bunexpected \w*(?:Error|Exception|Exit|Iteration)\b")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f]")


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        status: Exit status; None where it had to be killed.
        stdout: What it printed.
        stderr: The same on standard error.
        touched: Files that it made, changed or removed in the watched folder.
        strange: What it tried to write, start or connect to outside of what it may.
        peak_bytes: Its peak memory, the imports included.
    """

    status: int | None
    stdout: str
    stderr: str
    touched: frozenset[str]
    strange: str
    peak_bytes: int

    @property
    def said(self) -> str:
        """All that was printed."""
        return self.stdout + self.stderr


class Harness:
    """Runs commands in children of one process that has imported everything."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "BOUNDARYFLOW_PROGRESS": "off"}
        self._zygote = Zygote(environment)

    def close(self) -> None:
        """End that process."""
        self._zygote.close()

    def run(
        self,
        command: Sequence[str],
        cwd: Path,
        *,
        watched: Path | None = None,
        limit_s: float = LIMIT_S,
        memory_bytes: int = MEMORY_BYTES,
        **extra: str,
    ) -> Outcome:
        """Run `boundaryflow ...` or `stages.NAME ...`.

        Args:
            command: The words.
            cwd: Where; it may write there and in the tests' own home.
            watched: Folder whose files are compared before and after; None is `cwd`.
            limit_s: Seconds, after which it is killed.
            memory_bytes: Of address space, beyond the imports.
            extra: Further environment variables.
        """
        before = fingerprints(watched or cwd)
        with tempfile.TemporaryDirectory() as own:
            output, errors, seen = (Path(own) / name for name in ("output", "errors", "seen"))
            done = self._zygote.run(
                command=list(command), cwd=str(cwd), env=extra, output=str(output), errors=str(errors), seen=str(seen),
                allowed=[str(cwd), os.environ["HOME"], own], memory_bytes=memory_bytes, limit_s=limit_s,
            )  # fmt: skip
            texts = [path.read_bytes().decode("utf-8", "replace") for path in (output, errors, seen)]
        after = fingerprints(watched or cwd)
        touched = frozenset(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        return Outcome(done["status"], texts[0], texts[1], touched, texts[2], done["peak_bytes"])


def assert_held(outcome: Outcome, allowed: Iterable[str] = ()) -> None:
    """What must be so whatever the input was: an end, a documented status, one line, nothing else touched or started.

    Args:
        outcome: Of `Harness.run`.
        allowed: Prefixes of the paths that may be touched, relative to the watched folder.
    """
    assert outcome.status is not None, f"no end\n{outcome.said}"
    assert outcome.status in STATUSES, f"exit status {outcome.status}\n{outcome.said}"
    assert not _UNEXPECTED.search(outcome.said), outcome.said
    assert not _CONTROL.search(outcome.said.replace("\r", "").replace("\t", "")), repr(outcome.said)
    assert not outcome.strange, f"{outcome.strange}\n{outcome.said}"
    if outcome.status == 2:
        assert outcome.said.strip(), "no word of what is wrong"
    ours = (*allowed, ".dvc/tmp", ".dvc/cache", ".prefect")
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
