"""From a source on disk or on the hub to a frozen model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from safetensors import SafetensorError, safe_open

from boundaryflow.diffusion import NoiseSchedule
from boundaryflow.errors import CheckpointError
from boundaryflow.models.unet import UNetModel

WEIGHTS = "diffusion_pytorch_model.safetensors"
SIDECAR = "boundaryflow.json"


def load_model(
    source: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> UNetModel:
    """Load a frozen unconditional diffusion model.

    Args:
        source: A diffusers folder (config.json and safetensors weights, at its root or in
            `unet/`), or a hub id such as `google/ddpm-celebahq-256`.
        device: Where the network runs.
        dtype: What the network computes in.

    Returns:
        A model with the protocol `EpsModel`.

    Raises:
        CheckpointError: Files are missing, truncated or hold NaN; or the model is conditional,
            works on latents, or does not predict noise.
    """
    root = Path(source)
    if not root.is_dir():
        root = _from_hub(str(source))
    folder = root / "unet" if (root / "unet" / "config.json").exists() else root
    config = _read_json(folder / "config.json")
    _check_config(folder, config)
    weights = folder / WEIGHTS
    _check_weights(weights)
    sidecar = _read_json(folder / SIDECAR) if (folder / SIDECAR).exists() else {}
    schedule, schedule_config = _read_schedule(root, folder)
    unet = _load_network(folder, dtype)
    architecture = {key: value for key, value in config.items() if not key.startswith("_")}
    digest = hashlib.sha256(weights.read_bytes())
    digest.update(json.dumps([sidecar, schedule_config, architecture], sort_keys=True).encode())
    return UNetModel(
        unet,
        schedule,
        sha256=digest.hexdigest(),
        pixel_unshuffle=int(sidecar.get("pixel_unshuffle", 1)),
        device=device,
    )


def _load_network(folder: Path, dtype: torch.dtype) -> UNet2DModel:
    """The network, every tensor of it from the file: what diffusers would fill in by chance is refused."""
    try:
        loaded: Any = UNet2DModel.from_pretrained(
            str(folder),
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,
            torch_dtype=dtype,
            output_loading_info=True,
        )
    except (ValueError, TypeError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2])[:200] or type(error).__name__
        raise CheckpointError(f"model {folder}: config.json and the weights do not fit together ({reason})") from None
    unet, info = loaded
    for wrong in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(wrong):
            first = sorted(map(str, info[wrong]))[0]
            raise CheckpointError(
                f"model {folder}: {len(info[wrong])} {wrong.replace('_', ' ')}, the first is {first}; "
                "config.json and the weights are of different networks"
            )
    return unet


def _from_hub(name: str) -> Path:
    if name.startswith((".", "/")) or name.count("/") != 1:
        raise CheckpointError(f"model {name!r}: no such folder; give a diffusers folder or a hub id like owner/name")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        wanted = ["*.json", "*.safetensors", "unet/*.json", "unet/*.safetensors", "scheduler/*.json"]
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"model {name!r}: neither a folder here nor to be had from the hub ({reason}); check the name or "
            "download the folder by hand and give its path"
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"model {path.parent}: {path.name} is missing; a diffusers folder has it") from None
    except json.JSONDecodeError as error:
        raise CheckpointError(f"model {path}: not JSON at line {error.lineno}; fetch the file again") from None


def _check_config(folder: Path, config: dict[str, Any]) -> None:
    kind = config.get("_class_name", "UNet2DModel")
    if kind != "UNet2DModel":
        raise CheckpointError(
            f"model {folder}: it is a {kind}; only unconditional pixel models (UNet2DModel) can be edited with"
        )
    if config.get("num_class_embeds") or config.get("class_embed_type"):
        raise CheckpointError(f"model {folder}: it is conditional on a class; use an unconditional model")


def _check_weights(path: Path) -> None:
    if not path.exists():
        raise CheckpointError(f"model {path.parent}: {path.name} is missing; save the model with safetensors")
    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise CheckpointError(f"model {path}: it is a git-lfs pointer, not the weights; run `git lfs pull`")
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - safe_open is not a mapping
                if not bool(torch.isfinite(file.get_tensor(name)).all()):
                    raise CheckpointError(f"model {path}: tensor {name} holds NaN or infinity; the file is damaged")
    except SafetensorError as error:
        raise CheckpointError(f"model {path}: not a whole safetensors file ({error}); fetch it again") from None


def _read_schedule(root: Path, folder: Path) -> tuple[NoiseSchedule, dict[str, Any]]:
    places = (
        folder / "scheduler_config.json",
        root / "scheduler_config.json",
        root / "scheduler/scheduler_config.json",
    )
    found = next((p for p in places if p.exists()), None)
    if found is None:
        raise CheckpointError(f"model {root}: scheduler_config.json is missing; it states the noise schedule")
    config = _read_json(found)
    if config.get("prediction_type", "epsilon") != "epsilon":
        raise CheckpointError(f"model {found}: prediction_type is {config['prediction_type']!r}, must be 'epsilon'")
    if config.get("trained_betas") is not None:
        betas = torch.tensor(config["trained_betas"], dtype=torch.float64)
    elif config.get("beta_schedule", "linear") == "linear":
        steps, start, end = (config.get(k, d) for k, d in _LINEAR_DEFAULTS)
        betas = torch.linspace(start, end, steps, dtype=torch.float64)
    else:
        raise CheckpointError(
            f"model {found}: beta_schedule {config['beta_schedule']!r} is not known; give its values as trained_betas"
        )
    return NoiseSchedule.from_betas(betas), {"betas": [round(float(b), 12) for b in betas]}


_LINEAR_DEFAULTS = (("num_train_timesteps", 1000), ("beta_start", 1e-4), ("beta_end", 0.02))
