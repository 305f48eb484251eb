"""The files of shards, and where in them each item is; works without torch. See `boundaryflow.store.shards`."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from boundaryflow.errors import ManifestError
from boundaryflow.files import may_pass, remove_leftovers
from boundaryflow.formats.tensor_headers import read_header

SCHEMA = "shard/2"
NAME = re.compile(r"shard-(\d+)of(\d+)-[0-9a-f]+\.safetensors")


class _HasShape(Protocol):
    @property
    def dtype(self) -> Any: ...
    @property
    def shape(self) -> Any: ...


AnyTensor = TypeVar("AnyTensor", bound=_HasShape)
"""A tensor of torch, or an array of NumPy."""


def bucket_of(item: str, bits: int) -> int:
    """Which of 2^bits buckets an item is in."""
    return int.from_bytes(hashlib.sha256(item.encode()).digest()[:4], "big") >> (32 - bits)


def shard_files(folder: Path) -> list[Path]:
    """The regular files of a folder whose names are those of shards."""
    return [p for p in sorted(folder.glob("shard-*")) if NAME.fullmatch(p.name) and p.is_file() and not p.is_symlink()]


def keep_only(folder: Path, wanted: Collection[Path]) -> None:
    """Remove all other shards, and half-written files of killed runs."""
    for path in shard_files(folder):
        if path not in wanted:
            path.unlink()
    remove_leftovers(folder)


def shard_index(folder: Path, cache_key: str | None = None) -> pd.DataFrame:
    """Which shard and row each item is in: columns item_id, shard, row, sorted by item.

    Args:
        folder: Folder of shards; damaged ones are skipped.
        cache_key: Only shards of this cache_key; None for all.
    """
    rows: list[tuple[str, str, int]] = []
    for path in sorted(folder.glob("shard-*.safetensors")):
        rows += [(item, path.name, row) for row, item in enumerate(_items_of(path, cache_key))]
    return pd.DataFrame(sorted(rows), columns=["item_id", "shard", "row"]).astype(
        {"item_id": "str", "shard": "str", "row": "int64"}
    )


def _items_of(path: Path, cache_key: str | None = None) -> list[str]:
    """The items that a shard's header names; none where it is damaged, or of another cache_key."""
    check_disk(path)
    try:
        about = read_header(path).about
        return about["item_ids"] if about.get("schema") == SCHEMA and cache_key in (None, about["cache_key"]) else []
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError):
        return []


def check_disk(path: Path) -> None:
    """Raise the operating system's error when the disk fails; safetensors would report a missing file."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        if may_pass(error):
            raise


def places_of(folder: Path, item_ids: Sequence[str]) -> dict[str, list[tuple[int, int]]]:
    """Shard to (position in `item_ids`, row in the shard) of each of its items.

    Raises:
        ManifestError: An item is missing.
    """
    index = _find(folder, item_ids)
    if len(index) < len(set(item_ids)):  # the folder may have changed within the resolution of its time
        _listed.cache_clear()
        index = _find(folder, item_ids)
    lacking = [item for item in item_ids if item not in index]
    if lacking:
        raise ManifestError(
            f"shards {folder}: {len(lacking)} of {len(item_ids)} items are not there, such as {lacking[0]}; "
            "run `boundaryflow run` to make them"
        )
    places: dict[str, list[tuple[int, int]]] = {}
    for position, item in enumerate(item_ids):
        shard, row = index[item]
        places.setdefault(shard, []).append((position, row))
    return places


def _find(folder: Path, item_ids: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Item to shard and row, from the headers of the shards of the buckets that the items belong to."""
    listed = _listed(folder.absolute(), folder.stat().st_mtime_ns) if folder.is_dir() else {}
    names: set[str] = set()
    for num, of_bucket in listed.items():
        for bucket in {bucket_of(item, num.bit_length() - 1) for item in item_ids}:
            names.update(of_bucket.get(bucket, ()))
    wanted = set(item_ids)
    index: dict[str, tuple[str, int]] = {}
    for name in sorted(names):
        index.update({item: (name, row) for row, item in enumerate(_items_of(folder / name)) if item in wanted})
    return index


@lru_cache(maxsize=8)
def _listed(folder: Path, _mtime_ns: int) -> dict[int, dict[int, list[str]]]:
    """Names of shards by their number of buckets and their bucket; read once, as each shard of a stage asks for it."""
    found: dict[int, dict[int, list[str]]] = {}
    for name in sorted(os.listdir(folder)):
        if match := NAME.fullmatch(name):
            found.setdefault(int(match[2]), {}).setdefault(int(match[1]), []).append(name)
    return found


def in_batches(folder: Path, item_ids: Sequence[str], num: int) -> Iterator[list[str]]:
    """Items grouped by shard, which is the fastest order to read them, in batches of at least `num`.

    Raises:
        ManifestError: An item is missing.
    """
    batch: list[str] = []
    for _shard, places in sorted(places_of(folder, item_ids).items()):
        batch += [item_ids[position] for position, _row in places]
        if len(batch) >= num:
            yield batch
            batch = []
    if batch:
        yield batch


def read_checked(
    path: Path, framework: Literal["pt", "np"], raw: Callable[[AnyTensor], memoryview | bytes]
) -> tuple[dict[str, AnyTensor], dict[str, Any]]:
    """Read one shard and check all of it, header and payload.

    Args:
        path: The file.
        framework: Whose tensors: torch's or NumPy's.
        raw: Gives the bytes of one of them.

    Returns:
        Name to tensor, and the facts in the header.

    Raises:
        ManifestError: The file is missing, damaged, or not a shard.
        OSError: The disk failed; the shard itself may be undamaged.
    """
    check_disk(path)
    try:
        header = read_header(path)
        with safe_open(path, framework) as file:
            tensors: dict[str, AnyTensor] = {name: file.get_tensor(name) for name in header.shapes}
        about, stated = header.about, header.about.pop("sha256", None)
        is_whole = about.get("schema") == SCHEMA and stated == digest(tensors, about, raw)
    except (SafetensorError, OSError, ValueError, AttributeError) as error:
        raise ManifestError(f"shard {path}: cannot be read ({error}); run `boundaryflow run` to rebuild it") from None
    if not is_whole or not isinstance(about.get("item_ids"), list) or not isinstance(about.get("cache_key"), str):
        raise ManifestError(
            f"shard {path}: its content and its header do not match; run `boundaryflow run` to rebuild it"
        )
    return tensors, about


def digest(
    tensors: Mapping[str, AnyTensor], about: Mapping[str, Any], raw: Callable[[AnyTensor], memoryview | bytes]
) -> str:
    """SHA-256 of the header's facts (item ids included) and of all tensors; `raw` gives the bytes of one of them."""
    found = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        kind = str(tensor.dtype).removeprefix("torch.")
        found.update(f"{name} torch.{kind} {tuple(tensor.shape)}".encode())
        found.update(raw(tensor))
    return found.hexdigest()


def tensor_of(tensors: Mapping[str, AnyTensor], name: str, path: Path) -> AnyTensor:
    """One of the tensors of a shard.

    Raises:
        ManifestError: The shard, whose file is `path`, has no tensor of this name.
    """
    if name not in tensors:
        raise ManifestError(f"shard {path}: has no tensor {name!r}, only {', '.join(sorted(tensors))}")
    return tensors[name]


def gather(
    folder: Path, item_ids: Sequence[str], names: Sequence[str], read: Callable[[Path], Mapping[str, AnyTensor]]
) -> dict[str, list[AnyTensor]]:
    """Rows of some items, by the name of the tensor, in the order of `item_ids`; `read` gives a shard's tensors.

    Raises:
        ManifestError: An item or a tensor is missing.
    """
    found: dict[str, dict[int, AnyTensor]] = {name: {} for name in names}
    for shard, wanted in places_of(folder, item_ids).items():
        tensors: Mapping[str, Any] = read(folder / shard)
        for name in names:
            tensor = tensor_of(tensors, name, folder / shard)
            found[name].update({position: tensor[row] for position, row in wanted})
    return {name: [rows[position] for position in range(len(item_ids))] for name, rows in found.items()}


def load_arrays(folder: Path, item_ids: Sequence[str], names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Tensors of some items [len(item_ids), ...], at least one, as `boundaryflow.store.shards.load_items` reads them.

    Raises:
        ManifestError: An item or a tensor is missing.
    """
    found = gather(folder, item_ids, names, lambda path: read_checked(path, "np", _raw)[0])
    return {name: np.stack(rows) for name, rows in found.items()}


def _raw(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
