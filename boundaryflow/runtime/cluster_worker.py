"""Code that runs on a worker of a cluster: one shard at a time, if the worker's code and packages match the run's."""

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
    """The worker's code, packages or files differ from the run's."""


class RunIsOverError(PipelineError):
    """The run that submitted this shard has ended."""


@dataclass(frozen=True)
class Task:
    """What all shards of a run have in common.

    Attributes:
        complete: Importable function of (group, context) that writes the shards of a group.
        context: Plain values.
        expected: Facts that the worker's own must equal.
        root: Folder that paths are relative to.
        token: File that exists as long as the run does.
    """

    complete: Callable[..., int]
    context: Mapping[str, Any]
    expected: Facts
    root: str
    token: str


def facts(root: str | None = None, token: str | None = None) -> Facts:
    """What has to be equal for equal results (code, Python, packages), and whether the run's folder is visible here.

    Args:
        root: Folder of the run.
        token: File in it.
    """
    found = dict(_alike())
    if root is not None and not Path(root).is_dir():
        found["folder"] = f"{root} does not exist"
    elif token is not None and not Path(token).is_file():
        found["folder"] = f"{Path(token).parent} is not shared with the machine that runs the stage"
    return found


@lru_cache(maxsize=1)
def _alike() -> Facts:
    """The part that is constant in a process; cached, as it is used twice per shard."""
    code = code_hash_of_all()
    return {"code": code, "python": platform.python_version(), **package_versions()}


def differences(ours: Facts, theirs: Facts) -> str:
    """The differences in words; empty if there are none."""
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
        OtherWorkerError: This worker differs from what the run expects.
        RunIsOverError: The run has ended.
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
    """Refuse to compute or write a shard if the run has ended or this worker does not match it.

    A shard in progress when the run ends must not appear among the shards of the next run.
    """
    theirs = facts(task.root, task.token)
    unlike = differences(task.expected, {name: value for name, value in theirs.items() if name != "folder"})
    if unlike:
        raise OtherWorkerError(unlike)
    if "folder" in theirs:
        raise RunIsOverError(theirs["folder"])
