"""Tensors of shards read from the disk a few columns at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from boundaryflow.errors import ManifestError
from boundaryflow.store.shard_rows import ShardRows
from boundaryflow.store.shards import complete_shard, load_items, plan_shards

ITEMS = [f"item{number:02d}" for number in range(20)]


def folder_of(path: Path, dtype: torch.dtype) -> Path:
    for task in plan_shards(path, ITEMS, "cache_key", 4).tasks:
        seeds = torch.tensor([int(item[4:]) for item in task.missing], dtype=torch.float32)
        values = seeds[:, None, None] + torch.arange(12.0).reshape(3, 4) / 16
        complete_shard(task, {"a": torch.zeros(len(seeds), 2), "x": values.to(dtype)})
    return path


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_columns_are_those_of_the_whole(tmp_path: Path, dtype: torch.dtype) -> None:
    folder, wanted = folder_of(tmp_path, dtype), ITEMS[::-1][:13]
    rows = ShardRows(folder, wanted, "x")
    whole = load_items(folder, wanted, ["x"])["x"].flatten(1).float()
    assert (len(rows), rows.num_values, rows.shape) == (13, 12, (3, 4))
    assert torch.equal(rows.columns(0, 12), whole)
    assert torch.equal(rows.columns(5, 9), whole[:, 5:9])
    assert torch.equal(rows.take([7, 2, 11]).columns(3, 4), whole[[7, 2, 11], 3:4])


def test_what_is_not_there_or_damaged_is_one_line(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, torch.float16)
    with pytest.raises(ManifestError, match="1 of 1 items are not there, such as other"):
        ShardRows(folder, ["other"], "x")
    with pytest.raises(ManifestError, match="has no tensor 'y', only a, x"):
        ShardRows(folder, ITEMS, "y")
    shard = sorted(folder.glob("shard-*"))[0]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ManifestError, match="its content and its header do not match"):
        ShardRows(folder, ITEMS, "x")
