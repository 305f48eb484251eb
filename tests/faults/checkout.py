"""A checkout of the real graph that runs in seconds: the small project, under git and DVC, with the real dvc.yaml."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.small_project import ROOT, content, write_project

STAGES = ("ingest", "label", "mixing", "invert", "observe", "boundary", "edit", "evaluate", "report")
PERSISTENT = ("ingest", "invert", "observe", "edit")
"""Stages whose outputs DVC leaves to them: shards."""


def environment(**extra: str) -> dict[str, str]:
    """Environment of a command in a checkout: one thread, nothing of the tests' own settings."""
    own_names = ("PREFECT", "BOUNDARYFLOW", "DVC")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own_names)}
    own = {
        "OMP_NUM_THREADS": "1",
        "DVC_NO_ANALYTICS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
        "BOUNDARYFLOW_RETRY_DELAY_S": "0.1",
    }
    return {**kept, **own, **extra}


def make_checkout(folder: Path, **changes: Any) -> Path:
    """Write a checkout in which nothing has run.

    Args:
        folder: Where.
        changes: See `write_project`.
    """
    write_project(folder, **changes)
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("boundaryflow", "stages", "flows"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data/raw/avatars").mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "data/.gitignore", folder / "data/.gitignore")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], cwd=folder, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=folder, check=True, env=environment())
    return folder


def repro(folder: Path, *stages: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Have DVC bring a checkout, or single stages of it, up to date."""
    names = [f"{stage}@avatars" for stage in stages]
    command = [sys.executable, "-m", "dvc", "repro", "-q", *(["--single-item"] if names else []), *names]
    return subprocess.run(command, cwd=folder, env=environment(**extra), capture_output=True, text=True, check=False)


def boundaryflow(folder: Path, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the command line in a checkout."""
    command = [sys.executable, "-m", "flows.cli", *words]
    return subprocess.run(command, cwd=folder, env=environment(**extra), capture_output=True, text=True, check=False)


def results(folder: Path) -> dict[str, bytes]:
    """All that the stages and DVC left, whole: their outputs and dvc.lock."""
    inputs = ("raw/", "pretrained/", "inbox/")
    found = {name: data for name, data in content(folder / "data").items() if not name.startswith(inputs)}
    lock = folder / "dvc.lock"
    return {**found, **({"dvc.lock": lock.read_bytes()} if lock.exists() else {})}


def half_written(folder: Path) -> list[str]:
    """Files of a checkout's outputs that nobody should ever see."""
    return sorted(str(path.relative_to(folder)) for path in (folder / "data").rglob("*.tmp"))


def processes_in(folder: Path) -> list[int]:
    """Processes that run in a checkout."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if Path(os.readlink(entry / "cwd")).is_relative_to(folder):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
