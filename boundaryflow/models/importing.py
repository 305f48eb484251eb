"""A checkpoint of any family to a diffusers folder with a model card."""

from __future__ import annotations

import json
import secrets
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from boundaryflow.errors import CheckpointError
from boundaryflow.models.betas import schedule_betas
from boundaryflow.models.checkpoints import Checkpoint, build_network, open_checkpoint, state_of
from boundaryflow.models.config import network_config
from boundaryflow.models.folders import WEIGHTS
from boundaryflow.models.prediction import prediction_of
from boundaryflow.models.stated import SIDECAR, Stated
from boundaryflow.models.weights import check_finite, sha256_of

_FAMILIES = {
    "ddpm": "DDPM (pesser/pytorch_diffusion, ermongroup/ddim, SDEdit)",
    "iddpm": "iDDPM (improved-diffusion, guided-diffusion, ILVR, P2 weighting)",
    "diffusers": "diffusers (UNet2DModel)",
}


def import_checkpoint(source: str | Path, target: Path, stated: Stated | None = None) -> Checkpoint:
    """Convert a checkpoint to a diffusers folder; the folder is seen whole or not at all.

    Args:
        source: See `open_checkpoint`.
        target: Folder to make; must not exist, or be empty.
        stated: What the tensors do not say; None reads the checkpoint's sidecar, if there is one.

    Returns:
        What was found out about it.

    Raises:
        CheckpointError: The checkpoint cannot be used, or the folder holds something.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"model {target}: already exists; name a new folder")
    checkpoint = open_checkpoint(source, stated)
    check_finite(checkpoint.file, checkpoint.architecture.state)
    unet = build_network(checkpoint)
    temporary = target.with_name(f".{target.name}-{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir(parents=True)
        config = {key: value for key, value in checkpoint.architecture.config.items() if value is not None}
        _write_json(temporary / "config.json", {**config, "attention_head_dim": config.get("attention_head_dim")})
        (temporary / WEIGHTS[0]).write_bytes(save(state_of(unet), {"format": "pt"}))
        _write_json(temporary / "scheduler_config.json", scheduler_config(checkpoint))
        sidecar = _sidecar(checkpoint)
        if sidecar:
            _write_json(temporary / SIDECAR, sidecar)
        (temporary / "README.md").write_text(model_card(checkpoint), encoding="utf-8")
        if target.exists():
            target.rmdir()
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return checkpoint


def scheduler_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """A scheduler_config.json that diffusers' own pipelines invert and sample with as this project does."""
    kept = {k: v for k, v in checkpoint.schedule.items() if k.startswith(("beta_", "num_train", "trained_betas"))}
    return {
        **kept,
        "_class_name": "DDIMScheduler",
        "prediction_type": prediction_of(checkpoint.schedule, checkpoint.source),
        "clip_sample": False,  # clipping breaks inversion
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "timestep_spacing": "linspace",
    }


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a checkpoint is, for people and programs."""
    config = network_config(checkpoint.architecture.config)
    widths = list(config["block_out_channels"])
    attends = ["Attn" in str(kind) for kind in config["down_block_types"]]
    side = checkpoint.image_size // checkpoint.stated.pixel_unshuffle
    betas = schedule_betas(checkpoint.schedule, checkpoint.source)
    return {
        "family": _FAMILIES[checkpoint.architecture.family],
        "kept as": checkpoint.kind,
        "weights": {True: "averaged (EMA)", False: "not averaged", None: "as they are; nothing says if averaged"}[
            checkpoint.ema
        ],
        "parameters": checkpoint.num_parameters,
        "image size": checkpoint.image_size,
        "channels": checkpoint.channels,
        "learns variance": checkpoint.learns_variance,
        "widths": widths,
        "resnets per level": int(config["layers_per_block"]),
        "attention at": [side // 2**level for level, attends_here in enumerate(attends) if attends_here],
        "h": [widths[-1], *[-(-side // 2 ** (len(widths) - 1))] * 2],
        "timesteps": len(betas),
        "schedule": str(checkpoint.schedule.get("beta_schedule", "linear")),
        "predicts": prediction_of(checkpoint.schedule, checkpoint.source),
        "stated": checkpoint.stated.facts(),
        "assumed": checkpoint.assumptions,
        "sha256": sha256_of(checkpoint.file),
    }


def model_card(checkpoint: Checkpoint) -> str:
    """A README.md that says where the weights came from and what was taken for granted."""
    facts = describe(checkpoint)
    rows = "\n".join(
        f"| {name} | {_text(value)} |" for name, value in facts.items() if name not in ("assumed", "stated", "sha256")
    )
    assumed = "\n".join(f"- {line}" for line in checkpoint.assumptions) or "- nothing"
    stated = "\n".join(f"- {k}: {_text(v)}" for k, v in checkpoint.stated.facts().items()) or "- nothing"
    heads = checkpoint.architecture.num_heads
    note = (
        f"\ndiffusers' config.json cannot say that every attention has {heads} heads: `{SIDECAR}` does, and only "
        "boundaryflow reads it.\n"
        if heads is not None
        else ""
    )
    return (
        "---\nlibrary_name: diffusers\ntags: [unconditional-image-generation, boundaryflow]\n---\n\n"
        f"# {Path(checkpoint.source).stem}\n\n"
        "An unconditional diffusion model on pixels, converted by `boundaryflow import-checkpoint`. Licence and terms "
        "are those of the source.\n\n"
        f"Source: `{checkpoint.file.name}`, SHA-256 `{facts['sha256']}`, written with torch {torch.__version__}.\n\n"
        f"| | |\n|---|---|\n{rows}\n\n"
        f"Stated when it was converted:\n\n{stated}\n\n"
        f"Taken for granted, because nothing in the file says it:\n\n{assumed}\n{note}"
    )


def _sidecar(checkpoint: Checkpoint) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if checkpoint.architecture.family != "diffusers":
        facts["family"] = checkpoint.architecture.family
    if checkpoint.architecture.num_heads is not None:
        facts["num_heads"] = checkpoint.architecture.num_heads
    kept = ("pixel_unshuffle", "value_range", "channel_order")
    return {**facts, **{name: value for name, value in checkpoint.stated.facts().items() if name in kept}}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
