"""Code and machine of a run, for its record."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PACKAGES = (
    "boundaryflow", "torch", "torchvision", "diffusers", "clip-anytorch", "torchmetrics", "numpy", "scipy", "pandas",
    "pyarrow", "pillow", "safetensors", "scikit-learn",
)  # fmt: skip
"""Packages that influence pixels, numbers or bytes of results."""


@lru_cache(maxsize=1)
def package_versions() -> dict[str, str]:
    """Versions of `_PACKAGES`."""
    return {name: version(name) for name in _PACKAGES}


def provenance(root: Path) -> dict[str, Any]:
    """Commit of the checkout (None without git), whether files differ from it, versions, machine.

    Args:
        root: The checkout.
    """
    return {
        **_commit(root),
        "python": platform.python_version(),
        "packages": package_versions(),
        "machine": {"host": platform.node(), "cpus": os.cpu_count(), "system": platform.platform()},
    }


def _commit(root: Path) -> dict[str, Any]:
    git = shutil.which("git")
    if git is None:
        return {"commit": None, "changed": None}
    head = _git(git, root, "rev-parse", "HEAD")
    changes = _git(git, root, "status", "--porcelain", "--untracked-files=no")
    return {"commit": head or None, "changed": None if changes is None else bool(changes)}


def _git(git: str, root: Path, *words: str) -> str | None:
    command = [git, "-C", str(root), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - the command is ours
    return done.stdout.strip() if done.returncode == 0 else None
