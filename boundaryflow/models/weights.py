"""Tensors of a checkpoint file, read without running anything that the file may hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor

from boundaryflow.errors import CheckpointError
from boundaryflow.files import RefusedFileError, check_regular, file_sha256
from boundaryflow.formats.tensor_files import read_tensors
from boundaryflow.formats.torch_files import TorchFile, check_sharing, read_torch_file
from boundaryflow.models.sharded import check_complete, is_index, shards_of

EmaChoice = Literal["prefer", "require", "never"]
_EMA_KEYS = ("ema", "ema_state_dict", "model_ema", "ema_model", "ema_model_state_dict", "params_ema", "state_dict_ema")
_MODEL_KEYS = ("model", "state_dict", "model_state_dict", "net", "network", "unet", "module", "params")
_GAN_KEYS = {"g_ema", "G_ema", "generator", "discriminator", "netG", "netD"}
_PREFIXES = ("module.", "_orig_mod.", "ema_model.", "online_model.", "model.", "unet.", "net.", "denoise_fn.")
_DDIM_LIST = 5  # [model, optimizer, epoch, step, ema]: runners/diffusion.py of ermongroup/ddim


@dataclass(frozen=True)
class Weights:
    """What a checkpoint file holds of a network.

    Attributes:
        state: Name to tensor, prefixes of wrappers taken off.
        kind: How the file keeps them, in words.
        ema: Are they the exponential moving average of training? None where the file does not say.
    """

    state: dict[str, Tensor]
    kind: str
    ema: bool | None


def read_weights(path: Path, ema: EmaChoice = "prefer") -> Weights:
    """Read the state dict of a network from a safetensors or torch file; pickled code is never run.

    Args:
        path: The file.
        ema: Which weights are wanted of a training checkpoint that may hold both.

    Raises:
        CheckpointError: The file is missing, empty, truncated or not a checkpoint; it holds code, no
            network, or not the weights that are wanted.
    """
    if is_index(path):
        parts = {file: read_weights(file).state for file in shards_of(path)}
        return Weights(check_complete(path, parts), f"{len(parts)} safetensors files", None)
    found = read_content(path)
    if found.is_script:
        raise CheckpointError(f"model {path}: it is a TorchScript archive; give the state dict of the network")
    return _choose(path, found.content, ema)


def read_content(path: Path) -> TorchFile:
    """Read all that a file of weights holds, whatever it is of.

    Raises:
        CheckpointError: See `read_weights`.
    """
    _check_file(path)
    if path.suffix != ".safetensors":
        return read_torch_file(path)
    try:
        return TorchFile(read_tensors(path)[0], is_script=False)
    except SafetensorError as error:
        raise CheckpointError(f"model {path}: not a complete safetensors file ({error}); fetch it again") from None


def check_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse NaN and infinity.

    Raises:
        CheckpointError: A tensor holds one.
    """
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"model {path}: tensor {name} holds NaN or infinity; the file is damaged")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes; of an index of weights in several files, of all of theirs."""
    if is_index(path):
        return hashlib.sha256("".join(map(sha256_of, shards_of(path))).encode()).hexdigest()
    return file_sha256(path)


def _check_file(path: Path) -> None:
    if not path.exists():
        raise CheckpointError(f"model {path}: no such file; check the path")
    try:
        check_regular(path)
    except RefusedFileError as error:
        raise CheckpointError(f"model {path}: {error.reason}; give the file of the weights") from None
    with path.open("rb") as file:
        start = file.read(256).lstrip().lower()
    if not start:
        raise CheckpointError(f"model {path}: the file is empty; fetch it again")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"model {path}: it is a git-lfs pointer, not the weights; run `git lfs pull`")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(f"model {path}: it is a web page, not the weights; fetch the file itself")


def _choose(path: Path, content: Any, ema: EmaChoice) -> Weights:
    """The network of a file, however the file keeps it."""
    if isinstance(content, list | tuple):
        both = [part for part in content if isinstance(part, Mapping)]
        if not content or not _tensors(content[0]):
            raise CheckpointError(f"model {path}: a list that does not begin with a state dict; give a state dict")
        averaged = both[-1] if len(content) >= _DDIM_LIST and _tensors(both[-1]) and len(both) > 1 else None
        return _of_two(path, "training checkpoint (a list)", content[0], averaged, ema)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"model {path}: holds a {type(content).__name__}, not a state dict")
    if set(content) & _GAN_KEYS:
        raise CheckpointError(f"model {path}: it is a GAN's checkpoint; boundaryflow edits with diffusion models only")
    averaged = next((content[key] for key in _EMA_KEYS if _tensors(content.get(key))), None)
    plain = next((content[key] for key in _MODEL_KEYS if _tensors(content.get(key))), None)
    if plain is None and averaged is None:
        if isinstance(content.get("model_state"), Mapping):
            return _of_two(path, "training checkpoint", content["model_state"], None, ema)
        return _of_two(path, "state dict", content, None, ema)
    return _of_two(path, "training checkpoint", plain if plain is not None else {}, averaged, ema)


def _of_two(path: Path, kind: str, plain: Mapping[str, Any], averaged: Mapping[str, Any] | None, ema: str) -> Weights:
    if averaged is not None and ema != "never":
        return Weights(_stripped(path, averaged), kind, True)
    if ema == "require":
        raise CheckpointError(
            f"model {path}: holds no averaged (EMA) weights, and ema is 'require'; give the file that has them, or "
            "say 'prefer'"
        )
    if not _tensors(plain) and averaged is None:
        raise CheckpointError(f"model {path}: holds no tensors of a network; give a file with its state dict")
    if not _tensors(plain):
        raise CheckpointError(f"model {path}: holds averaged (EMA) weights only, and ema is 'never'; say 'prefer'")
    return Weights(_stripped(path, plain), kind, None if kind == "state dict" else False)


def _tensors(part: Any) -> bool:
    """Is it a state dict?"""
    return isinstance(part, Mapping) and any(isinstance(value, Tensor) and value.ndim > 0 for value in part.values())


def _stripped(path: Path, part: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors only, without the prefixes of wrappers; float32 where they are of another float."""
    tensors = dict(_only_tensors(part))
    check_sharing(path, tensors.values())
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    while state:
        prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), None)
        if prefix is None:
            return state
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _only_tensors(part: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for name, value in part.items():
        if isinstance(value, Tensor) and (value.ndim > 0 or "." in str(name)):
            yield str(name), value.detach()
