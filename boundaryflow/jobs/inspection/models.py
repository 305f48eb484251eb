"""Checkpoints, CLIP weights, and functions that give a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from boundaryflow.compiler import without_compiler
from boundaryflow.errors import CheckpointError
from boundaryflow.labelling.clip_files import holds_clip
from boundaryflow.labelling.clip_labels import load_clip
from boundaryflow.models import FrozenModel, build_network, load_model, open_checkpoint
from boundaryflow.models.custom import names_python_model
from boundaryflow.models.diffusers_parts import UNet2DModel
from boundaryflow.models.importing import describe
from boundaryflow.models.layers import layer_shapes
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
        layers = model.layers() if isinstance(model, FrozenModel) else {}
        return {
            "what": "a model of your own",
            "image size": model.image_size,
            "channels": model.channels,
            "value range": [float(v) for v in model.value_range],
            "timesteps": model.schedule.num_train_timesteps,
            "sha256": model.sha256,
            "layers for observe.features": _shown(layers),
        }
    checkpoint = open_checkpoint(source)
    check_finite(checkpoint.file, checkpoint.architecture.state)
    unet = build_network(checkpoint)
    facts = {"what": "a diffusion model that can be edited with", **describe(checkpoint)}
    return {**facts, "layers for observe.features": _shown(_layers(unet, source))}


def _layers(unet: UNet2DModel, source: str) -> dict[str, tuple[int, ...]]:
    """Its blocks from the middle on, with the shapes of their maps; nothing is computed.

    Raises:
        CheckpointError: It does not take images of its own size.
    """
    config = unet.config
    sample = torch.zeros(1, config["in_channels"], config["sample_size"], config["sample_size"], device="meta")
    nn.Module.to(unet, "meta")
    try:
        with without_compiler():
            return layer_shapes(unet, unet.mid_block, lambda: unet(sample, torch.zeros(1, device="meta")))  # pyright: ignore[reportArgumentType]
    except RuntimeError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"model {source}: does not take images of its own size ({reason})") from None


def _shown(layers: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    return {name: " x ".join(map(str, shape)) for name, shape in layers.items()}


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
