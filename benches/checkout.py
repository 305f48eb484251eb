"""A copy of this checkout without results, to run whole graphs in."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def copy_checkout(folder: Path) -> Path:
    """What is committed, as it lies here, in a folder of its own."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")
    for name in filter(None, names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    return folder


def timed_run(root: Path, *arguments: str) -> float:
    """Seconds of one `boundaryflow run` in a checkout."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "flows.cli", "run", *arguments], cwd=root, check=True)
    return round(time.monotonic() - started, 2)
