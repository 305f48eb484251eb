"""Weights in several safetensors files, with an index that says which tensor lies where.

Format: `save_pretrained` of diffusers and huggingface_hub; `NAME.safetensors.index.json` has `weight_map`, from tensor
to the file beside it.
"""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from boundaryflow.errors import CheckpointError
from boundaryflow.files import MAX_SETTINGS_BYTES, RefusedFileError, read_bytes
from boundaryflow.formats.tensor_headers import parse_json_object

INDEX = "*.safetensors.index*.json"
SHARDS = "diffusion_pytorch_model*-of-*.safetensors"
_MAX_SHARDS = 1000


def is_index(path: Path) -> bool:
    """Is it an index of weights in several files?"""
    return re.fullmatch(r".+\.safetensors\.index(\.\w+)?\.json", path.name) is not None


def shards_of(index: Path) -> dict[Path, list[str]]:
    """Files that an index names, sorted, and the tensors in each.

    Raises:
        CheckpointError: It is no index, or a file is missing or lies elsewhere.
    """
    try:
        content = parse_json_object(read_bytes(index, MAX_SETTINGS_BYTES))
    except (RefusedFileError, ValueError) as error:
        raise CheckpointError(f"model {index}: not an index of weights ({error}); fetch it again") from None
    places = content.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"model {index}: has no weight_map, from tensors to files; fetch it again")
    names = {str(name) for name in places.values()}
    odd = next((name for name in sorted(names) if not re.fullmatch(r"[\w.-]+\.safetensors", name)), None)
    if odd is not None or len(names) > _MAX_SHARDS:
        raise CheckpointError(f"model {index}: names {odd or f'{len(names):,} files'!r:.60}, must be files beside it")
    missing = next((name for name in sorted(names) if not (index.parent / name).is_file()), None)
    if missing is not None:
        raise CheckpointError(f"model {index}: {missing} is missing beside it; fetch all of its {len(names)} files")
    return {index.parent / file: [t for t, at in places.items() if at == file] for file in sorted(names)}


def check_complete(index: Path, parts: dict[Path, dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of all files in one.

    Raises:
        CheckpointError: A file does not hold what the index says, or holds more.
    """
    for file, wanted in shards_of(index).items():
        other = next(iter(sorted(set(wanted) ^ parts[file].keys())), None)
        if other is not None:
            raise CheckpointError(
                f"model {file}: tensor {other:.80} is in the file or in {index.name}, not in both; they are of "
                "different models"
            )
    return {name: tensor for part in parts.values() for name, tensor in part.items()}
