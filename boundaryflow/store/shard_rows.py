"""One tensor of a folder of shards as a matrix with a row per item, read from disk a few columns at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from boundaryflow.errors import ManifestError
from boundaryflow.store.shard_files import places_of
from boundaryflow.store.shards import read_shard

_KINDS = {"F16": (np.uint16, torch.float16), "BF16": (np.uint16, torch.bfloat16), "F32": (np.uint32, torch.float32)}


@dataclass(frozen=True)
class _Part:
    """The rows that lie in one shard.

    Attributes:
        path: The file.
        offset: Byte at which its tensor begins.
        num: Items in the shard.
        kind: Dtype, by its name in safetensors.
        rows: Rows of the tensor to read.
        positions: Position of each of these rows in the result.
    """

    path: Path
    offset: int
    num: int
    kind: str
    rows: list[int]
    positions: list[int]


class ShardRows:
    """Latents on disk; implements `boundaryflow.boundary.LatentRows`.

    Every shard is read once in full, to check its content against the hash in its header; later reads take only the
    requested columns.

    Args:
        folder: Folder of shards.
        item_ids: Items, in the order of the rows.
        name: Name of the tensor.

    Attributes:
        shape: Shape of one item.

    Raises:
        ManifestError: An item or the tensor is missing, a shard is damaged, or shapes differ.
    """

    def __init__(self, folder: Path, item_ids: Sequence[str], name: str) -> None:
        self._num, self.shape = len(item_ids), (0,)
        self._parts: list[_Part] = []
        shapes: dict[tuple[int, ...], Path] = {}
        for shard, wanted in places_of(folder, item_ids).items():
            path = folder / shard
            tensor = read_shard(path).tensor(name, path)
            shapes.setdefault(tuple(tensor.shape[1:]), path)
            positions, rows = [position for position, _ in wanted], [row for _, row in wanted]
            self._parts.append(_Part(path, *_layout(path, name), rows, positions))
        if len(shapes) > 1:
            (first, one), (second, other) = list(shapes.items())[:2]
            raise ManifestError(
                f"shards {folder}: {name} is {first} in {one.name} and {second} in {other.name}, must be the same; "
                "run `boundaryflow run` to rebuild them"
            )
        if shapes:
            self.shape = next(iter(shapes))

    def __len__(self) -> int:
        return self._num

    @property
    def num_values(self) -> int:
        """Values of one item."""
        return math.prod(self.shape)

    def columns(self, start: int, stop: int) -> Float[Tensor, "n c"]:
        """Some values of all items, float32."""
        found = torch.empty(self._num, stop - start)
        for part in self._parts:
            stored, dtype = _KINDS[part.kind]
            # a new memory map for every read: pages of a closed one do not count as this process's memory
            values = np.memmap(part.path, stored, "r", part.offset, (part.num, self.num_values))
            found[part.positions] = torch.from_numpy(np.array(values[part.rows, start:stop])).view(dtype).float()
        return found

    def take(self, rows: Sequence[int]) -> ShardRows:
        """Some of the items."""
        some = object.__new__(ShardRows)
        some._num, some.shape, some._parts = len(rows), self.shape, []
        new = {row: position for position, row in enumerate(rows)}
        for part in self._parts:
            kept = [(row, new[at]) for row, at in zip(part.rows, part.positions, strict=True) if at in new]
            if kept:
                inside, positions = ([pair[0] for pair in kept], [pair[1] for pair in kept])
                some._parts.append(_Part(part.path, part.offset, part.num, part.kind, inside, positions))
        return some


def _layout(path: Path, name: str) -> tuple[int, int, str]:
    """Where a tensor begins in a safetensors file, how many items it has, and its dtype."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        about = json.loads(file.read(length))[name]
    if about["dtype"] not in _KINDS:
        raise ManifestError(f"shard {path}: {name} is {about['dtype']}, must be one of {', '.join(_KINDS)}")
    return 8 + length + about["data_offsets"][0], about["shape"][0], about["dtype"]
