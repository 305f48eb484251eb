"""Checkpoints, CLIP weights, and functions that give a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from boundaryflow.labelling import holds_clip, load_clip
from boundaryflow.models import build_network, load_model, open_checkpoint
from boundaryflow.models.custom import names_python_model
from boundaryflow.models.importing import describe
from boundaryflow.models.weights import check_finite, read_content

_CHECKPOINTS = {".ckpt", ".pt", ".pth", ".bin", ".safetensors", ".pkl", ".pickle"}


def is_function(source: str) -> bool:
    """Is it `FILE.py:FUNCTION`?"""
    return names_python_model(source)


def about(path: Path) -> dict[str, Any] | None:
    """A model's folder or a checkpoint file; None for anything else."""
    if path.is_dir():
        is_model = any((path / part / "config.json").exists() for part in ("", "unet", "unet_ema"))
        return about_model(str(path)) if is_model or (path / "model_index.json").exists() else None
    if path.suffix.lower() not in _CHECKPOINTS:
        return None
    return (None if path.suffix == ".safetensors" else _about_clip(path)) or about_model(str(path))


def about_model(source: str) -> dict[str, Any]:
    """What a frozen model is.

    Raises:
        CheckpointError: It cannot be edited with; the message says why.
    """
    if is_function(source):
        model = load_model(source)
        return {
            "what": "a model of your own",
            "image size": model.image_size,
            "channels": model.channels,
            "value range": [float(v) for v in model.value_range],
            "timesteps": model.schedule.num_train_timesteps,
            "sha256": model.sha256,
        }
    checkpoint = open_checkpoint(source)
    check_finite(checkpoint.file, checkpoint.architecture.state)
    build_network(checkpoint)
    return {"what": "a diffusion model that can be edited with", **describe(checkpoint)}


def _about_clip(path: Path) -> dict[str, Any] | None:
    """A CLIP, if it is one, which is seen from the names of its tensors."""
    found = read_content(path)
    if not holds_clip(found.content):
        return None
    labeller = load_clip(str(path))
    return {
        "what": "a CLIP model, for labels from words",
        "kept as": "TorchScript archive, whose code was not run" if found.is_script else "state dict",
        "image size": labeller.image_size,
        "features": labeller.num_features,
        "parameters": labeller.num_parameters,
    }
