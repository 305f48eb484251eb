"""What runs on a worker of a cluster: a shard, one at a time, if the worker is what the run expects."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from boundaryflow.errors import PipelineError
from boundaryflow.runtime.fingerprints import code_hash_of_all
from boundaryflow.runtime.provenance import package_versions

Facts = dict[str, str]
_ONE_AT_A_TIME = threading.Lock()


class OtherWorkerError(PipelineError):
    """The worker is not what the run expects."""


class RunIsOverError(PipelineError):
    """Nobody waits for this shard any more."""


@dataclass(frozen=True)
class Task:
    """What all shards of a run have in common.

    Attributes:
        complete: Importable function of (group, context) that writes the shards of a group.
        context: Plain values.
        expected: Facts that a worker must have.
        root: Folder that paths are relative to.
        token: File that is there as long as the run.
    """

    complete: Callable[..., int]
    context: Mapping[str, Any]
    expected: Facts
    root: str
    token: str


def facts(root: str | None = None, token: str | None = None) -> Facts:
    """What must be alike for results to be: code, Python, packages; and whether a run's folder can be seen from here.

    Args:
        root: Folder of the run that asks.
        token: File in it.
    """
    found = dict(_alike())
    if root is not None and not Path(root).is_dir():
        found["folder"] = f"{root} is not there"
    elif token is not None and not Path(token).is_file():
        found["folder"] = f"{Path(token).parent} is not shared with the machine that runs the stage"
    return found


@lru_cache(maxsize=1)
def _alike() -> Facts:
    """What stays the same as long as the process lives: asked for twice a shard."""
    code = code_hash_of_all()
    return {"code": code, "python": platform.python_version(), **package_versions()}


def differences(ours: Facts, theirs: Facts) -> str:
    """What is not alike, in words; empty if nothing is."""
    parts = [
        f"{name} is {theirs.get(name, 'missing')}, here {value}"
        for name, value in ours.items()
        if theirs.get(name) != value
    ]
    return "; ".join([*parts, *([theirs["folder"]] if "folder" in theirs else [])])


def work_on(task: Task, group: Any) -> tuple[int, float, str]:
    """Write the shards of a group; returns the rows computed, the seconds it took, and where.

    One at a time in a process, however many threads it has: the model is in memory once, and a GPU serves one shard.

    Raises:
        OtherWorkerError: This worker is not what the run expects.
        RunIsOverError: The run is.
    """
    from distributed import get_worker

    where = str(get_worker().address)
    with _ONE_AT_A_TIME:
        _check(task)
        os.chdir(task.root)
        started = time.monotonic()
        num = task.complete(group, task.context, lambda: _check(task))
        return num, time.monotonic() - started, where


def _check(task: Task) -> None:
    """Refuse to work, or to write what was worked out, for a run that is over or that this worker does not fit.

    A shard that a worker has in hand when the run dies must not appear among those of the next run.
    """
    theirs = facts(task.root, task.token)
    unlike = differences(task.expected, {name: value for name, value in theirs.items() if name != "folder"})
    if unlike:
        raise OtherWorkerError(unlike)
    if "folder" in theirs:
        raise RunIsOverError(theirs["folder"])
