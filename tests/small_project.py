"""A small project in a folder of its own: 32 x 32 pixels, a tiny random model, a few faces."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import UNet2DModel

from boundaryflow.config import filled
from tests.forked import Forked

ROOT = Path(__file__).parents[1]
STAGES = ("ingest", "label", "mixing", "invert", "observe", "boundary", "edit")


def write_project(folder: Path, **changes: Any) -> Path:
    """Write params.yaml and a model.

    Args:
        folder: Where.
        changes: Dotted key under data.avatars, dots written as two underscores, to value.
    """
    torch.manual_seed(0)
    UNet2DModel(
        sample_size=8,
        in_channels=12,
        out_channels=12,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        norm_num_groups=4,
        attention_head_dim=16,
    ).save_pretrained(folder / "data/pretrained/tiny")
    scheduler = {
        "num_train_timesteps": 1000,
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "prediction_type": "epsilon",
    }
    (folder / "data/pretrained/tiny/scheduler_config.json").write_text(json.dumps(scheduler))
    (folder / "data/pretrained/tiny/boundaryflow.json").write_text('{"pixel_unshuffle": 2}')
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    avatars = filled(params["defaults"], params["data"]["avatars"])
    avatars.update(model="data/pretrained/tiny", dtype="float32")
    avatars["ingest"].update(image_size=16, shard_size=8, split={"val": 0.3, "test": 0.3})
    avatars["ingest"]["source"]["num_images"] = 40
    avatars["label"] = {
        "source": {"kind": "avatars"},
        "attributes": {"hat": {"column": None}, "dark_skin": {"column": None}},
    }
    avatars["mixing"].update(rule="fixed", fixed_t=300, num_images=16, num_sampled=4, num_steps=4)
    avatars["invert"].update(num_steps=4)
    avatars["observe"].update(t_max=300, num_steps=4, features=None)
    avatars["boundary"].update(num_bootstraps=2, min_auc=0.5)
    avatars["edit"].update(
        max_images=10, num_samples=0, strengths=[0.0, 1.0], edits={"hat": {"hat": "flip"}, "dark": {"dark_skin": "add"}}
    )
    avatars["evaluate"].update(judges=None, clip=None, num_bootstraps=10)
    for key, value in changes.items():
        place = avatars
        *path, last = key.split("__")
        for part in path:
            place = place[part]
        place[last] = value
    (folder / "params.yaml").write_text(
        yaml.safe_dump({"datasets": ["avatars"], "run_seed": 0, "defaults": {}, "data": {"avatars": avatars}})
    )
    return folder


def environment(**extra: str) -> dict[str, str]:
    """Environment of a stage: one thread, this checkout importable."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "BOUNDARYFLOW_PROGRESS": "log", **extra}


def command(stage: str) -> list[str]:
    """How a stage is started."""
    return [sys.executable, "-m", f"stages.{stage}", "avatars"]


def run_stage(folder: Path, stage: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run one stage to its end."""
    return subprocess.run(
        command(stage), cwd=folder, env=environment(**extra), capture_output=True, text=True, check=False
    )


def start_stage(folder: Path, stage: str, **extra: str) -> Forked:
    """Start one stage in a fork: much quicker than `run_stage`."""
    return Forked(f"stages.{stage}", ["avatars"], folder, BOUNDARYFLOW_PROGRESS="log", **extra)


def run_here(folder: Path, monkeypatch: Any, *stages: str, dataset: str = "avatars", listed: bool = True) -> None:
    """Run stages in this process: much quicker than one process each.

    Args:
        folder: The project.
        monkeypatch: Of pytest.
        stages: Which.
        dataset: Of which data set.
        listed: Run stage listing before ingest.
    """
    import importlib

    monkeypatch.chdir(folder)
    before = {"ingest": ("listing", "ingest")} if listed else {}
    for stage in [name for asked in stages for name in before.get(asked, (asked,))]:
        monkeypatch.setattr(sys, "argv", [stage, dataset])
        module = importlib.import_module(f"stages.{stage}")
        module.main.__wrapped__()


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, whole."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def copy_project(source: Path, target: Path) -> Path:
    """An independent copy."""
    shutil.copytree(source, target)
    return target
