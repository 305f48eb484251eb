"""Where a diffusers folder keeps its network, weights and schedule."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from boundaryflow.errors import CheckpointError
from boundaryflow.models.sharded import INDEX
from boundaryflow.models.stated import read_json

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
HALF_WEIGHTS = ("diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.fp16.bin")
NETWORK_FOLDERS = ("unet_ema", "unet", "")
"""Where a diffusers folder keeps the network; averaged weights first."""
_AUTOENCODERS = {"vae", "vqvae", "text_encoder", "movq", "prior"}


def refuse_latent(root: Path) -> None:
    """Refuse a pipeline that works on latents.

    Raises:
        CheckpointError: It has an autoencoder.
    """
    index = root / "model_index.json"
    parts = sorted(_AUTOENCODERS & set(read_json(index))) if index.exists() else []
    if parts:
        raise CheckpointError(
            f"model {root}: model_index.json lists {parts[0]}; it works on latents of an autoencoder, use "
            "a model on pixels"
        )


def refuse_other_folder(root: Path) -> None:
    """Say what is wrong with a folder without config.json.

    Raises:
        CheckpointError: Always.
    """
    files = sorted(p.name for p in root.iterdir() if p.suffix in (".ckpt", ".pt", ".pth", ".bin", ".safetensors"))
    if files:
        raise CheckpointError(f"model {root}: has no config.json, but {files[0]}; give the path of that file")
    raise CheckpointError(f"model {root}: config.json is missing; a diffusers folder has it, at its root or in unet/")


def weights_file(folder: Path) -> Path:
    """The weights under their usual name, in several files, in half precision, or the only file of weights there.

    Raises:
        CheckpointError: There are none, or several and none of a usual name.
    """
    whole = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
    indices = sorted(folder.glob(INDEX), key=lambda path: (len(path.name), path.name))  # full precision first
    if whole is None and indices:
        return indices[0]
    usual = next((folder / name for name in (*WEIGHTS, *HALF_WEIGHTS) if (folder / name).exists()), None)
    others = sorted(path for suffix in (".safetensors", ".bin") for path in folder.glob(f"*{suffix}"))
    if usual is None and len(others) != 1:
        way_out = "rename one of the files that there are" if others else "fetch the folder again, weights and all"
        raise CheckpointError(f"model {folder}: {WEIGHTS[0]} is missing; {way_out}")
    return usual or others[0]


def read_schedule(root: Path, folder: Path) -> dict[str, Any]:
    """scheduler_config.json of a network, wherever diffusers and its training scripts keep it.

    Raises:
        CheckpointError: It is missing or no JSON.
    """
    places = [folder, root, root / "scheduler", folder.parent / "scheduler"]
    saved = next((at for at in (root, root.resolve().parent) if re.fullmatch(r"checkpoint-\d+", at.name)), None)
    if saved is not None:  # what a training run saves on its way has the scheduler of the run beside it
        places += [saved.parent, saved.parent / "scheduler"]
    found = next((p for p in (f / "scheduler_config.json" for f in places) if p.exists()), None)
    if found is None:
        raise CheckpointError(f"model {root}: scheduler_config.json is missing; it states the noise schedule")
    return read_json(found)
