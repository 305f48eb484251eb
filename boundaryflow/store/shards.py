"""Shards: files of items and their tensors, whose layout depends on the items alone and not on earlier runs.

The leading k bits of a hash of its id put an item into one of 2^k buckets; k is the smallest number for which a bucket
has at most `shard_size` items on average. A shard is one bucket in one safetensors file, whose name contains a hash of
its cache_key and its items. So the same items under the same cache_key give the same files, whatever earlier runs left,
and when items are added, the rows of earlier items are copied instead of computed. What a row depends on beyond the
cache_key, such as the image's own label, is its variant: a row of another variant is computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from torch import Tensor

from boundaryflow.errors import ManifestError
from boundaryflow.files import may_pass, remove_leftovers
from boundaryflow.formats.tensor_files import read_about, read_tensors, write_tensors
from boundaryflow.store.fingerprint import fingerprint

SCHEMA = "shard/2"
_NAME = re.compile(r"shard-(\d+)of(\d+)-[0-9a-f]+\.safetensors")


@dataclass(frozen=True)
class ShardTask:
    """One shard to write.

    Attributes:
        path: The file.
        cache_key: Fingerprint of everything its content depends on but the items.
        item_ids: Its items, sorted.
        variants: Variant of each item.
        reuse: (item, file, row) of items whose rows are copied from an older shard.
        missing: Items to compute, sorted.
    """

    path: Path
    cache_key: str
    item_ids: tuple[str, ...]
    variants: tuple[str, ...]
    reuse: tuple[tuple[str, Path, int], ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class ShardPlan:
    """What has to be written to bring a folder of shards up to date.

    Attributes:
        tasks: Shards to write.
        kept: Shards that are valid as they are.
        num_items: Items in all.
        num_missing: Items to compute.
    """

    tasks: tuple[ShardTask, ...]
    kept: tuple[Path, ...]
    num_items: int
    num_missing: int


@dataclass(frozen=True)
class Shard:
    """A shard in memory; row i of every tensor belongs to item_ids[i]."""

    item_ids: tuple[str, ...]
    variants: tuple[str, ...]
    cache_key: str
    tensors: Mapping[str, Tensor]

    def tensor(self, name: str, path: Path) -> Tensor:
        """One of the tensors.

        Raises:
            ManifestError: The shard, whose file is `path`, has no tensor of this name.
        """
        if name not in self.tensors:
            raise ManifestError(f"shard {path}: has no tensor {name!r}, only {', '.join(sorted(self.tensors))}")
        return self.tensors[name]


def buckets(item_ids: Sequence[str], shard_size: int) -> dict[str, tuple[str, ...]]:
    """Name of each bucket that is not empty to its items, sorted."""
    bits = 0
    while len(item_ids) > shard_size << bits:
        bits += 1
    found: dict[int, list[str]] = {}
    for item in sorted(set(item_ids)):
        found.setdefault(_bucket(item, bits), []).append(item)
    return {f"{number:0{len(str((1 << bits) - 1))}d}of{1 << bits}": tuple(found[number]) for number in sorted(found)}


def _bucket(item: str, bits: int) -> int:
    """Which of 2^bits buckets an item is in."""
    return int.from_bytes(hashlib.sha256(item.encode()).digest()[:4], "big") >> (32 - bits)


def plan_shards(
    folder: Path, item_ids: Sequence[str], cache_key: str, shard_size: int, variants: Mapping[str, str] | None = None
) -> ShardPlan:
    """Compare a folder with what it should contain.

    Every existing shard is read and the hash of its payload checked, so a damaged one is not kept.

    Args:
        folder: Folder of shards; need not exist.
        item_ids: All items that the folder should contain.
        cache_key: Fingerprint of everything the content depends on but the items.
        shard_size: Items in a shard, on average at most.
        variants: Item to its variant; items without an entry have the same, empty variant.
    """
    of_item = dict(variants or {})
    wanted: dict[Path, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    for name, items in buckets(item_ids, shard_size).items():
        theirs = tuple(of_item.get(item, "") for item in items)
        content = fingerprint(cache_key=cache_key, items=items, variants=theirs)[:12]
        wanted[folder / f"shard-{name}-{content}.safetensors"] = items, theirs
    rows: dict[str, tuple[Path, int]] = {}
    kept: set[Path] = set()
    paths = sorted(folder.glob("shard-*.safetensors"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # mostly hashing, which releases the GIL
        for path, shard in zip(paths, pool.map(_valid_header, paths), strict=True):
            if shard is None or shard.cache_key != cache_key:
                continue
            if wanted.get(path) == (shard.item_ids, shard.variants):
                kept.add(path)
            for row, (item, variant) in enumerate(zip(shard.item_ids, shard.variants, strict=True)):
                if variant == of_item.get(item, ""):
                    rows[item] = path, row
    tasks: list[ShardTask] = []
    for path, (items, theirs) in wanted.items():
        if path not in kept:
            reuse = tuple((item, *rows[item]) for item in items if item in rows)
            missing = tuple(item for item in items if item not in rows)
            tasks.append(ShardTask(path, cache_key, items, theirs, reuse, missing))
    return ShardPlan(tuple(tasks), tuple(sorted(kept)), len(set(item_ids)), sum(len(task.missing) for task in tasks))


def complete_shard(task: ShardTask, computed: Mapping[str, Tensor]) -> Path:
    """Write a shard from computed rows and rows of older shards.

    Args:
        task: From `plan_shards`.
        computed: Tensors [len(task.missing), ...] in the order of `task.missing`; may be empty
            where nothing is missing.

    Raises:
        ValueError: A tensor has another number of rows.
    """
    for name, tensor in computed.items():
        if len(tensor) != len(task.missing):
            raise ValueError(f"{task.path.name}: {name} has {len(tensor)} rows for {len(task.missing)} items")
    by_item: dict[str, dict[str, Tensor]] = {
        item: {name: tensor[row] for name, tensor in computed.items()} for row, item in enumerate(task.missing)
    }
    for path in sorted({path for _, path, _ in task.reuse}):
        old = read_shard(path).tensors
        for item, source, row in task.reuse:
            if source == path:
                by_item[item] = {name: tensor[row] for name, tensor in old.items()}
    names = sorted(by_item[task.item_ids[0]])
    tensors = {name: torch.stack([by_item[item][name] for item in task.item_ids]) for name in names}
    return _write_shard(task, tensors)


def _write_shard(task: ShardTask, tensors: Mapping[str, Tensor]) -> Path:
    about: dict[str, Any] = {"schema": SCHEMA, "cache_key": task.cache_key, "item_ids": list(task.item_ids)}
    if any(task.variants):
        about["variants"] = list(task.variants)
    write_tensors(task.path, tensors, {**about, "sha256": _digest(tensors, about)})
    return task.path


def read_shard(path: Path) -> Shard:
    """Read one shard and check all of it, header and payload.

    Raises:
        ManifestError: The file is missing, damaged, or not a shard.
        OSError: The disk failed; the shard itself may be undamaged.
    """
    _check_disk(path)
    try:
        tensors, about = read_tensors(path)
        stated = about.pop("sha256", None)
        is_whole = about.get("schema") == SCHEMA and stated == _digest(tensors, about)
    except (SafetensorError, OSError, ValueError, AttributeError) as error:
        raise ManifestError(f"shard {path}: cannot be read ({error}); run `boundaryflow run` to rebuild it") from None
    items, cache_key = about.get("item_ids"), about.get("cache_key")
    if not is_whole or not isinstance(items, list) or not isinstance(cache_key, str):
        raise ManifestError(
            f"shard {path}: its content and its header do not match; run `boundaryflow run` to rebuild it"
        )
    return Shard(tuple(items), tuple(about.get("variants", [""] * len(items))), cache_key, tensors)


def _valid_header(path: Path) -> Shard | None:
    """A shard without its tensors, or None where it is damaged."""
    try:
        shard = read_shard(path)
    except ManifestError:
        return None
    return replace(shard, tensors={})


def _digest(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    """SHA-256 of the header's facts (item ids included) and of all tensors."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(
            tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data if tensor.numel() else b""
        )
    return digest.hexdigest()


def sweep(folder: Path, plan: ShardPlan) -> None:
    """Remove shards that are not in the plan, and half-written files of killed runs."""
    wanted = {*plan.kept, *(task.path for task in plan.tasks)}
    for path in shard_files(folder):
        if path not in wanted:
            path.unlink()
    remove_leftovers(folder)


def shard_files(folder: Path) -> list[Path]:
    """The regular files of a folder whose names are those of shards."""
    return [p for p in sorted(folder.glob("shard-*")) if _NAME.fullmatch(p.name) and p.is_file() and not p.is_symlink()]


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
    _check_disk(path)
    try:
        about = read_about(path)
        return about["item_ids"] if about.get("schema") == SCHEMA and cache_key in (None, about["cache_key"]) else []
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError):
        return []


def _check_disk(path: Path) -> None:
    """Raise the operating system's error when the disk fails; safetensors would report a missing file."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        if may_pass(error):
            raise


def load_items(folder: Path, item_ids: Sequence[str], names: Sequence[str]) -> dict[str, Tensor]:
    """Read the tensors of some items.

    Args:
        folder: Folder of shards.
        item_ids: Items, in the order of the returned rows.
        names: Names of the tensors to read.

    Returns:
        Name to [len(item_ids), ...].

    Raises:
        ManifestError: An item or a tensor is missing.
    """
    found: dict[str, list[Tensor]] = {name: [torch.empty(0)] * len(item_ids) for name in names}
    for shard, wanted in places_of(folder, item_ids).items():
        read = read_shard(folder / shard)
        for name in names:
            tensor = read.tensor(name, folder / shard)
            for position, row in wanted:
                found[name][position] = tensor[row]
    return {name: torch.stack(rows) if rows else torch.empty(0) for name, rows in found.items()}


def places_of(folder: Path, item_ids: Sequence[str]) -> dict[str, list[tuple[int, int]]]:
    """Shard to (position in `item_ids`, row in the shard) of each of its items.

    Raises:
        ManifestError: An item is missing.
    """
    index: dict[str, tuple[str, int]] = {}
    for shard in _may_hold(folder, item_ids):
        index.update({item: (shard, row) for row, item in enumerate(_items_of(folder / shard))})
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


def _may_hold(folder: Path, item_ids: Sequence[str]) -> list[str]:
    """The shards of the buckets that the items belong to, found by file name: for a few items, few headers are read."""
    names = sorted(path.name for path in folder.glob("shard-*.safetensors"))
    named = [(name, found) for name in names if (found := _NAME.fullmatch(name))]
    buckets_of = {
        size: {_bucket(item, int(size).bit_length() - 1) for item in item_ids}
        for size in {found[2] for _, found in named}
    }
    return [name for name, found in named if int(found[1]) in buckets_of[found[2]]]


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
