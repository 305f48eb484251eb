"""A project as a user has one: a folder with params.yaml and data, in which the stages run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benches.checkout import ROOT


def write_project(folder: Path, name: str, dataset: Mapping[str, Any], jobs: Mapping[str, Any], weights: str) -> None:
    """Write a project with one data set; its pictures and what was computed already stay.

    Args:
        folder: Of the project.
        name: Of the data set.
        dataset: Its section of params.yaml.
        jobs: The section `augment` of params.yaml.
        weights: Pattern of the folders in `data/pretrained` that it uses.
    """
    (folder / "data/raw" / name).mkdir(parents=True, exist_ok=True)
    for source in sorted((ROOT / "data/pretrained").glob(weights)):
        if not (folder / "data/pretrained" / source.name).exists():
            shutil.copytree(source, folder / "data/pretrained" / source.name)
    params = {"datasets": [name], "run_seed": 0, "defaults": {}, "augment": dict(jobs), "data": {name: dict(dataset)}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def run_stages(folder: Path, stages: Sequence[str], name: str, *, must_succeed: bool = True) -> None:
    """Run stages of a project, each in a process of its own, for the data set or the job `name`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for stage in stages:
        command = [sys.executable, "-m", stage, name]
        subprocess.run(command, cwd=folder, env=environment, check=must_succeed)
