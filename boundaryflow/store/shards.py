"""Shards: files of items and their tensors, whose layout depends on the items alone and not on earlier runs.

The leading k bits of a hash of its id put an item into one of 2^k buckets; k is the smallest number for which a bucket
has at most `shard_size` items on average. A shard is one bucket in one safetensors file, whose name contains a hash of
its cache_key and its items. So the same items under the same cache_key give the same files, whatever earlier runs left,
and when items are added, the rows of earlier items are copied instead of computed. What a row depends on beyond the
cache_key, such as the image's own label, is its variant: a row of another variant is computed again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boundaryflow.errors import ManifestError
from boundaryflow.formats.tensor_files import write_tensors
from boundaryflow.store.fingerprint import fingerprint
from boundaryflow.store.shard_files import SCHEMA, bucket_of, digest, gather, keep_only, read_checked, tensor_of


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
        return tensor_of(self.tensors, name, path)


def buckets(item_ids: Sequence[str], shard_size: int) -> dict[str, tuple[str, ...]]:
    """Name of each bucket that is not empty to its items, sorted."""
    bits = 0
    while len(item_ids) > shard_size << bits:
        bits += 1
    found: dict[int, list[str]] = {}
    for item in sorted(set(item_ids)):
        found.setdefault(bucket_of(item, bits), []).append(item)
    return {f"{number:0{len(str((1 << bits) - 1))}d}of{1 << bits}": tuple(found[number]) for number in sorted(found)}


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
    write_tensors(task.path, tensors, {**about, "sha256": digest(tensors, about, _raw)})
    return task.path


def read_shard(path: Path) -> Shard:
    """Read one shard and check all of it, header and payload.

    Raises:
        ManifestError: The file is missing, damaged, or not a shard.
        OSError: The disk failed; the shard itself may be undamaged.
    """
    tensors, about = read_checked(path, "pt", _raw)
    items = about["item_ids"]
    return Shard(tuple(items), tuple(about.get("variants", [""] * len(items))), about["cache_key"], tensors)


def _valid_header(path: Path) -> Shard | None:
    """A shard without its tensors, or None where it is damaged."""
    try:
        shard = read_shard(path)
    except ManifestError:
        return None
    return replace(shard, tensors={})


def _raw(tensor: Tensor) -> memoryview | bytes:
    """The bytes of a tensor on any device, in any layout."""
    plain = tensor.detach().cpu().contiguous().flatten()
    return plain.view(torch.uint8).numpy().data if plain.numel() else b""


def sweep(folder: Path, plan: ShardPlan) -> None:
    """Remove shards that are not in the plan, and half-written files of killed runs."""
    keep_only(folder, {*plan.kept, *(task.path for task in plan.tasks)})


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
    found = gather(folder, item_ids, names, lambda path: read_shard(path).tensors)
    return {name: torch.stack(rows) if rows else torch.empty(0) for name, rows in found.items()}
