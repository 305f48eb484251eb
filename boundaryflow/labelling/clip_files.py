"""CLIP networks from files: a state dict, or a TorchScript archive as published by OpenAI, whose code is never run."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from boundaryflow.errors import CheckpointError
from boundaryflow.formats.torch_files import check_sharing, read_torch_file

_CONTEXT, _WORDS = 77, 49408
"""Tokens in a text, and size of the vocabulary, of clip-anytorch's tokeniser."""
_MAX_IMAGE_SIZE = 2048
_MARK = "token_embedding.weight"
_FACTS = ("input_resolution", "context_length", "vocab_size")
"""Scalars that OpenAI's archives contain beside the weights."""


def clip_package() -> ModuleType:
    """Import clip-anytorch without the deprecation warning of pkg_resources, which it imports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import clip

    return clip


def holds_clip(content: Any) -> bool:
    """Whether this is the state dict of a CLIP."""
    return isinstance(content, Mapping) and isinstance(content.get(_MARK), Tensor)


def read_clip(weights: str) -> Any:
    """A CLIP in float32 with every tensor from the file.

    Args:
        weights: See `boundaryflow.labelling.clip_labels.load_clip`.

    Raises:
        CheckpointError: The file is missing, is not a CLIP, or cannot be downloaded.
    """
    package, path = clip_package(), Path(weights)
    if weights in package.available_models():
        path = _downloaded(package, weights)
    elif not path.exists():
        names = ", ".join(package.available_models())
        raise CheckpointError(f"clip {weights}: neither a file nor a model name; names are {names}")
    content = read_torch_file(path, "clip").content
    if not holds_clip(content):
        raise CheckpointError(f"clip {path}: no CLIP state dict ({_MARK} is missing)")
    state = {str(name): tensor for name, tensor in content.items() if _is_weight(name, tensor)}
    check_sharing(path, state.values(), "clip")
    return _network(package, path, state)


def _downloaded(package: ModuleType, name: str) -> Path:
    """The file of one of OpenAI's models; clip-anytorch checks its SHA-256."""
    try:
        # clip.load would run the archive's code, so its two steps are called separately.
        url, folder = package.clip._MODELS[name], os.path.expanduser("~/.cache/clip")  # noqa: SLF001, PTH111
        return Path(package.clip._download(url, folder))  # noqa: SLF001
    except (RuntimeError, OSError, ValueError, TypeError) as error:  # TypeError: a response without its length
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"clip {name}: cannot be downloaded ({reason}); it needs the internet once, or give the path of the file"
        ) from None


def _is_weight(name: Any, tensor: Any) -> bool:
    """Whether a tensor is a weight: not a scalar known from shapes, nor the mask, which is built again."""
    return name not in _FACTS and isinstance(tensor, Tensor) and not str(name).endswith(".attn_mask")


def _network(package: ModuleType, path: Path, state: dict[str, Tensor]) -> Any:
    try:
        arguments = _arguments(state)
    except KeyError as error:
        raise CheckpointError(f"clip {path}: tensor {error} is missing; the file is incomplete") from None
    except IndexError:
        raise CheckpointError(f"clip {path}: a tensor has too few dimensions; it is of no CLIP") from None
    size = arguments["image_resolution"]
    for name, value, least, most in (
        ("words", arguments["vocab_size"], _WORDS, _WORDS),
        ("tokens in a text", arguments["context_length"], _CONTEXT, _CONTEXT),
        ("pixels a side", size, 1, _MAX_IMAGE_SIZE),
    ):
        if not least <= value <= most:
            raise CheckpointError(f"clip {path}: {value:,} {name}, must be within {least:,} and {most:,}")
    try:
        with torch.device("meta"):  # shapes only: no memory, no random initialisation
            model: Any = package.model.CLIP(**arguments)
            model.eval().encode_image(torch.empty(1, 3, size, size))
    except Exception as error:  # noqa: BLE001 - clip-anytorch raises nearly anything on sizes that do not fit
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise CheckpointError(f"clip {path}: its tensors do not form a network ({reason})") from None
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if wrong:
        shapes = f"{found.get(wrong[0], 'missing')}, must be {wanted.get(wrong[0], 'left out')}"
        raise CheckpointError(f"clip {path}: {len(wrong)} tensors do not fit, the first is {wrong[0]}: {shapes}")
    model.load_state_dict({name: _number(path, name, tensor) for name, tensor in state.items()}, assign=True)
    mask = model.build_attention_mask()  # not in the state dict
    for block in model.transformer.resblocks:
        block.attn_mask = mask
    return model


def _number(path: Path, name: str, tensor: Tensor) -> Tensor:
    """A tensor in float32, except for the batch counters of normalisation layers."""
    if name.endswith("num_batches_tracked"):
        return tensor.long()
    if not tensor.is_floating_point():
        raise CheckpointError(f"clip {path}: tensor {name} is of {tensor.dtype}, must be of floating-point numbers")
    if not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(f"clip {path}: tensor {name} holds NaN or infinity; the file is damaged")
    return tensor.to(torch.float32, copy=True)  # independent of the file, which may change


def _arguments(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes of the network from shapes and names, as in `build_model` of clip-anytorch."""
    width = state["ln_final.weight"].shape[0]
    if "visual.proj" in state:
        kernel = state["visual.conv1.weight"].shape
        layers: Any = _num_numbered(state, "visual.transformer.resblocks")
        vision_width, patch = kernel[0], kernel[-1]
        image_size = patch * round((state["visual.positional_embedding"].shape[0] - 1) ** 0.5)
    else:
        layers = tuple(_num_numbered(state, f"visual.layer{level}") for level in (1, 2, 3, 4))
        vision_width, patch = state["visual.layer1.0.conv1.weight"].shape[0], None
        image_size = 32 * round((state["visual.attnpool.positional_embedding"].shape[0] - 1) ** 0.5)
    return {
        "embed_dim": state["text_projection"].shape[1],
        "image_resolution": image_size,
        "vision_layers": layers,
        "vision_width": vision_width,
        "vision_patch_size": patch,
        "context_length": state["positional_embedding"].shape[0],
        "vocab_size": state[_MARK].shape[0],
        "transformer_width": width,
        "transformer_heads": width // 64,
        "transformer_layers": _num_numbered(state, "transformer.resblocks"),
    }


def _num_numbered(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of blocks with a prefix, each of which has several tensors."""
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.")
    return len({found[1] for name in state if (found := pattern.match(name))})
