"""From a source on disk or on the hub to a frozen model."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from boundaryflow.compiler import without_compiler
from boundaryflow.diffusion import EpsModel, NoiseSchedule
from boundaryflow.errors import CheckpointError
from boundaryflow.models.architecture import Architecture, check_channels
from boundaryflow.models.betas import USUAL, scaled_linear_betas, schedule_betas
from boundaryflow.models.config import check_config, network_config
from boundaryflow.models.custom import load_python_model, names_python_model
from boundaryflow.models.ddpm import convert_ddpm
from boundaryflow.models.diffusers_parts import Attention, UNet2DModel
from boundaryflow.models.families import family_of
from boundaryflow.models.folders import (
    HALF_WEIGHTS,
    NETWORK_FOLDERS,
    WEIGHTS,
    read_schedule,
    refuse_latent,
    refuse_other_folder,
    weights_file,
)
from boundaryflow.models.iddpm import convert_iddpm
from boundaryflow.models.prediction import prediction_of
from boundaryflow.models.sharded import SHARDS
from boundaryflow.models.stated import MAX_IMAGE_SIZE, Stated, read_json, read_stated
from boundaryflow.models.unet import UNetModel
from boundaryflow.models.weights import Weights, check_finite, read_weights, sha256_of

_OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint understood, its network not yet built.

    Attributes:
        source: Where it lies.
        file: The file of its weights.
        kind: How that file keeps them, in words.
        ema: Are they averaged weights? None where nothing says so.
        architecture: Family, configuration, tensors, assumptions about the network.
        schedule: As in diffusers' scheduler_config.json; has the betas as `trained_betas` where they
            are not of a known kind.
        schedule_assumption: What was taken for granted about the schedule, or nothing.
        stated: What its sidecar or the caller states.
    """

    source: str
    file: Path
    kind: str
    ema: bool | None
    architecture: Architecture
    schedule: Mapping[str, Any]
    schedule_assumption: str
    stated: Stated = field(default_factory=Stated)

    @property
    def image_size(self) -> int:
        """Side of its images in pixels."""
        return int(self.architecture.config["sample_size"]) * self.stated.pixel_unshuffle

    @property
    def channels(self) -> int:
        """Channels of its images."""
        return int(self.architecture.config["in_channels"]) // self.stated.pixel_unshuffle**2

    @property
    def learns_variance(self) -> bool:
        """Does it give a variance behind the noise?"""
        return int(self.architecture.config["out_channels"]) > int(self.architecture.config["in_channels"])

    @property
    def num_parameters(self) -> int:
        """Numbers in its tensors."""
        return sum(tensor.numel() for tensor in self.architecture.state.values())

    @property
    def assumptions(self) -> list[str]:
        """What nothing states and was taken for granted, a sentence each."""
        return [*self.architecture.assumptions, *([self.schedule_assumption] if self.schedule_assumption else [])]


def load_model(
    source: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> EpsModel:
    """Load a frozen unconditional diffusion model.

    Args:
        source: A checkpoint file of the DDPM or iDDPM family (docs/models.md lists them); a diffusers
            folder; a hub id such as `google/ddpm-celebahq-256`, with `@revision` if one is meant; or
            `FILE.py:FUNCTION`, a function of the user's own that gives a model.
        device: Where the network runs.
        dtype: What the network computes in.

    Raises:
        CheckpointError: Files are missing, truncated, hold code or NaN; or the model is conditional,
            works on latents, or is of no family that is known.
    """
    if names_python_model(str(source)):
        return load_python_model(str(source), device=device, dtype=dtype)
    checkpoint = open_checkpoint(source)
    check_finite(checkpoint.file, checkpoint.architecture.state)
    unet = build_network(checkpoint)
    nn.Module.to(unet, dtype)  # diffusers' own `to` warns of modules to keep in float32, and there are none
    architecture = checkpoint.architecture
    identity = {k: v for k, v in architecture.config.items() if not k.startswith("_")}
    betas = schedule_betas(checkpoint.schedule, checkpoint.source)
    prediction = prediction_of(checkpoint.schedule, checkpoint.source)
    about = [checkpoint.stated.facts(), [round(float(b), 12) for b in betas], identity, architecture.num_heads]
    about += [prediction] if prediction != "epsilon" else []
    digest = hashlib.sha256(sha256_of(checkpoint.file).encode())
    digest.update(json.dumps(about, sort_keys=True).encode())
    return UNetModel(
        unet,
        NoiseSchedule.from_betas(betas),
        sha256=digest.hexdigest(),
        family=architecture.family,
        value_range=checkpoint.stated.value_range,
        prediction=prediction,
        reverses_channels=checkpoint.stated.channel_order == "bgr",
        pixel_unshuffle=checkpoint.stated.pixel_unshuffle,
        device=device,
    )


def open_checkpoint(source: str | Path, stated: Stated | None = None) -> Checkpoint:
    """Read a checkpoint and find out what it is, without building its network.

    Args:
        source: As for `load_model`, but for functions of the user's own.
        stated: What its tensors do not say; None reads its sidecar, if there is one.

    Raises:
        CheckpointError: See `load_model`; NaN is not looked for.
    """
    path = Path(source)
    if path.is_file():
        return _open_file(path, read_stated(path) if stated is None else stated)
    if not path.is_dir():
        path = _from_hub(str(source))
    return _open_folder(path, stated)


def build_network(checkpoint: Checkpoint) -> UNet2DModel:
    """The network of a checkpoint, every tensor of it from the file.

    Raises:
        CheckpointError: Configuration and tensors are of different networks.
    """
    architecture, where = checkpoint.architecture, checkpoint.source
    unet = _empty_network(network_config(architecture.config), len(architecture.state), where)
    wanted = {name: tuple(tensor.shape) for name, tensor in unet.state_dict().items()}
    there = {name: tuple(tensor.shape) for name, tensor in architecture.state.items()}
    for problem, names in (
        ("missing", wanted.keys() - there.keys()),
        ("without a place", there.keys() - wanted.keys()),
        ("of another shape", {n for n in wanted.keys() & there.keys() if wanted[n] != there[n]}),
    ):
        if names:
            name = min(names)
            shapes = f", {there[name]} where {wanted[name]} is expected" if problem == "of another shape" else ""
            raise CheckpointError(
                f"model {where}: {len(names)} tensors are {problem}, the first is {name}{shapes}; config.json and the "
                "weights are of different networks"
            )
    other = next((n for n, tensor in sorted(architecture.state.items()) if not tensor.is_floating_point()), None)
    if other is not None:
        kind = str(architecture.state[other].dtype).removeprefix("torch.")
        raise CheckpointError(f"model {where}: tensor {other} is of {kind}, must be of floating-point numbers")
    unet.load_state_dict(architecture.state, assign=True)
    if architecture.num_heads is not None:
        set_num_heads(unet, architecture.num_heads, where)
    return unet


def _empty_network(config: dict[str, Any], num_tensors: int, where: str) -> UNet2DModel:
    """A network without numbers, whose layers fit one another."""
    resnets = len(config["block_out_channels"]) * (2 * int(config["layers_per_block"]) + 1)
    if resnets > num_tensors:  # each has eight tensors or more
        raise CheckpointError(
            f"model {where}: config.json describes {resnets:,} blocks, the weights have {num_tensors:,} tensors; they "
            "are of different networks"
        )
    try:
        with without_compiler(), torch.device("meta"):  # shapes only: no memory, nothing drawn or computed
            unet = UNet2DModel(**config).eval()
            _check_layers(json.dumps(config, sort_keys=True))
    except Exception as error:  # noqa: BLE001 - diffusers raises nearly anything on a configuration; it is refused then
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2])[:200] or type(error).__name__
        raise CheckpointError(f"model {where}: config.json describes no network ({reason})") from None
    return unet


@lru_cache(maxsize=64)
def _check_layers(config: str) -> None:
    """Find out by one call whether the layers of a configuration, as JSON, fit one another."""
    about: dict[str, Any] = json.loads(config)
    shape = [1, about["in_channels"], about["sample_size"], about["sample_size"]]
    with torch.inference_mode():
        out = UNet2DModel(**about).eval()(torch.empty(shape), torch.zeros(1)).sample
    if out.shape != (1, about["out_channels"], *shape[2:]):
        raise ValueError(f"it makes {tuple(out.shape)} of {tuple(shape)}")


def set_num_heads(unet: UNet2DModel, num_heads: int, where: str) -> None:
    """Give every attention the same number of heads, which diffusers' config.json cannot say.

    Raises:
        CheckpointError: It does not divide the channels of one.
    """
    for module in unet.modules():
        if isinstance(module, Attention):
            if module.inner_dim % num_heads:
                raise CheckpointError(f"model {where}: {num_heads} heads do not divide {module.inner_dim} channels")
            module.heads = num_heads
            module.scale = 1 / math.sqrt(module.inner_dim // num_heads)


def _open_file(path: Path, stated: Stated) -> Checkpoint:
    return understand(path, read_weights(path, stated.ema), stated)


def understand(path: Path, weights: Weights, stated: Stated) -> Checkpoint:
    """Find out what the weights of a file are of.

    Raises:
        CheckpointError: See `load_model`; NaN is not looked for.
    """
    family = family_of(weights.state, path)
    if family == "diffusers":
        raise CheckpointError(
            f"model {path}: diffusers weights without their config.json; give the folder that has both"
        )
    convert = {"ddpm": convert_ddpm, "iddpm": convert_iddpm}[family]
    try:
        architecture = convert(weights.state, stated, path)
    except (LookupError, ValueError, RuntimeError) as error:  # tensors of shapes that no network of the family has
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise CheckpointError(f"model {path}: its tensors do not form a {family} network ({reason})") from None
    schedule = {**USUAL, **(scaled_linear_betas(stated.schedule) if family == "iddpm" else stated.schedule)}
    schedule_betas(schedule, str(path))
    prediction_of(schedule, path)
    assumption = "" if stated.schedule else "1000 timesteps with linear betas from 0.0001 to 0.02"
    return Checkpoint(str(path), path, weights.kind, weights.ema, architecture, schedule, assumption, stated)


def _open_folder(root: Path, stated: Stated | None) -> Checkpoint:
    refuse_latent(root)
    folder = next((root / f for f in NETWORK_FOLDERS if (root / f / "config.json").exists()), root)
    if not (folder / "config.json").exists():
        refuse_other_folder(root)
    config = check_config(folder, read_json(folder / "config.json"))
    stated = read_stated(folder) if stated is None else stated
    file = weights_file(folder)
    state = {_new_name(name): tensor for name, tensor in read_weights(file).state.items()}
    family_of(state, folder)
    fold = stated.pixel_unshuffle
    if config["sample_size"] * fold > MAX_IMAGE_SIZE:
        raise CheckpointError(f"model {folder}: images of {config['sample_size'] * fold:,} pixels a side are too large")
    if int(config["in_channels"]) % fold**2:
        raise CheckpointError(f"model {folder}: in_channels is {config['in_channels']}, not a multiple of {fold}^2")
    check_channels(int(config["in_channels"]) // fold**2, int(config["out_channels"]) // fold**2, folder)
    schedule = {**read_schedule(root, folder), **stated.schedule}
    schedule_betas(schedule, str(folder))
    prediction_of(schedule, folder)
    ema = True if folder.name == "unet_ema" else None
    architecture = Architecture(stated.family or "diffusers", config, state, (), stated.num_heads)
    return Checkpoint(str(root), file, "diffusers folder", ema, architecture, schedule, "", stated)


def _new_name(name: str) -> str:
    """Attention layers had other names before diffusers 0.14."""
    for old, new in _OLD_ATTENTION.items():
        name = name.replace(old, new)
    return name


def why_no_hub_id(source: str) -> str:
    """Why a name that is no file or folder is not asked for on the hub either; empty where it may be an id there.

    What begins with a folder that is here is a mistyped path, and nothing is asked for on the net.
    """
    owner = source.partition("/")[0]
    if re.fullmatch(r"[\w-]+/[\w.-]+(@[\w.-]+)?", source) is None:
        return "no such file or folder"
    if Path(owner).exists():
        return f"no such file or folder; it is taken for a path, not for a hub id, because {owner} is here"
    return ""


def _from_hub(name: str) -> Path:
    reason = why_no_hub_id(name)
    if reason:
        raise CheckpointError(
            f"model {name!r}: {reason}; give a checkpoint, a diffusers folder or a hub id like owner/name"
        )
    repo, _, revision = name.partition("@")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    def fetched(*names: str) -> Path:
        wanted = [f"{place}{name}" for place in ("", "unet/", "unet_ema/") for name in ("*.json", *names)]
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=[*wanted, "scheduler/*.json"]))

    try:
        root = fetched(*WEIGHTS, SHARDS)
        # Half precision only where there is nothing else: it would be fetched beside the other in any case.
        is_whole = any(path.name in WEIGHTS or path.match(SHARDS) for path in root.rglob("*"))
        return root if is_whole else fetched(*HALF_WEIGHTS)
    except (HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"model {name!r}: neither a local folder nor available from the hub ({reason}); check the name or "
            "download the folder by hand and give its path"
        ) from error


def state_of(unet: UNet2DModel) -> dict[str, Tensor]:
    """Tensors of a network, as they are written to a file."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in unet.state_dict().items()}
