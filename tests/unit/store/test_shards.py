"""Shards: laid out by content, reused, never trusted blindly."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boundaryflow.errors import ManifestError
from boundaryflow.store import shard_files
from boundaryflow.store.fingerprint import fingerprint
from boundaryflow.store.shard_files import in_batches, places_of, shard_index
from boundaryflow.store.shards import buckets, complete_shard, load_items, plan_shards, read_shard, sweep

ITEMS = st.lists(st.text("0123456789abcdef", min_size=4, max_size=4), min_size=1, max_size=60, unique=True)


def value_of(item: str) -> torch.Tensor:
    return torch.tensor([int(item, 16), len(item)], dtype=torch.int32)


def bring_up_to_date(
    folder: Path, items: list[str], cache_key: str = "r", size: int = 8, variants: dict[str, str] | None = None
) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    plan = plan_shards(folder, items, cache_key, size, variants)
    for task in plan.tasks:
        complete_shard(task, {"v": torch.stack([value_of(i) for i in task.missing])} if task.missing else {})
    sweep(folder, plan)
    return plan.num_missing


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=ITEMS, more=ITEMS, data=st.data())
def test_layout_depends_on_the_items_and_not_on_history(
    tmp_path_factory: pytest.TempPathFactory, items: list[str], more: list[str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    together = sorted(set(items) | set(more))
    assert bring_up_to_date(folder / "a", items) == len(items)
    assert bring_up_to_date(folder / "a", together) == len(together) - len(items)
    bring_up_to_date(folder / "b", data.draw(st.permutations(together)))
    assert content(folder / "a") == content(folder / "b")


def test_added_items_compute_only_themselves_and_removed_ones_go(tmp_path: Path) -> None:
    items = [f"{i:04x}" for i in range(100)]
    assert bring_up_to_date(tmp_path, items) == 100
    assert bring_up_to_date(tmp_path, items) == 0
    assert bring_up_to_date(tmp_path, [*items, "beef", "cafe"]) == 2
    assert bring_up_to_date(tmp_path, items[:90]) == 0
    assert sorted(shard_index(tmp_path)["item_id"]) == sorted(items[:90])


def test_another_job_computes_all_anew(tmp_path: Path) -> None:
    items = [f"{i:04x}" for i in range(20)]
    bring_up_to_date(tmp_path, items)
    assert bring_up_to_date(tmp_path, items, cache_key="other") == 20
    assert {read_shard(p).cache_key for p in tmp_path.iterdir()} == {"other"}


def test_row_of_another_variant_is_computed_anew(tmp_path: Path) -> None:
    items = [f"{i:04x}" for i in range(40)]
    assert bring_up_to_date(tmp_path / "a", items, variants=dict.fromkeys(items, "+1")) == 40
    changed = {**dict.fromkeys(items, "+1"), items[3]: "-1", items[7]: "0"}
    assert bring_up_to_date(tmp_path / "a", items, variants=changed) == 2
    assert bring_up_to_date(tmp_path / "a", items, variants=changed) == 0
    bring_up_to_date(tmp_path / "b", items, variants=changed)
    assert content(tmp_path / "a") == content(tmp_path / "b")


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "half-written"])
def test_damaged_shard_is_made_again_to_the_same_bytes(tmp_path: Path, damage: str) -> None:
    items = [f"{i:04x}" for i in range(40)]
    bring_up_to_date(tmp_path, items)
    whole = content(tmp_path)
    victim = sorted(tmp_path.iterdir())[1]
    data = bytearray(victim.read_bytes())
    if damage == "flip":
        data[-3] ^= 1
        victim.write_bytes(bytes(data))
        with pytest.raises(ManifestError, match="its content and its header do not match"):
            read_shard(victim)
    elif damage == "half-written":
        victim.rename(victim.with_name(".boundaryflow-123-00ff00ff00ff00ff.tmp"))
    else:
        victim.write_bytes(bytes(data[: len(data) // 2] if damage == "cut" else b""))
    assert 0 < bring_up_to_date(tmp_path, items) < 40
    assert content(tmp_path) == whole


def test_disk_that_fails_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bring_up_to_date(tmp_path, ["a", "b"])
    before = content(tmp_path)

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "open", fails)
    for read in (lambda: plan_shards(tmp_path, ["a", "b"], "r", 4), lambda: load_items(tmp_path, ["a"], ["value"])):
        with pytest.raises(OSError, match="Input/output error"):
            read()
    monkeypatch.undo()
    assert content(tmp_path) == before


def test_items_come_in_the_order_asked_for(tmp_path: Path) -> None:
    items = [f"{i:04x}" for i in range(30)]
    bring_up_to_date(tmp_path, items)
    asked = ["0007", "001b", "0000"]
    loaded = load_items(tmp_path, asked, ["v"])["v"]
    torch.testing.assert_close(loaded, torch.stack([value_of(i) for i in asked]))
    with pytest.raises(ManifestError, match="1 of 2 items are not there, such as ffff"):
        load_items(tmp_path, ["0001", "ffff"], ["v"])
    with pytest.raises(ManifestError, match="has no tensor 'w', only v"):
        load_items(tmp_path, ["0001"], ["w"])


def test_wrong_number_of_rows_is_refused(tmp_path: Path) -> None:
    task = plan_shards(tmp_path, ["aaaa", "bbbb"], "r", 8).tasks[0]
    with pytest.raises(ValueError, match="v has 1 rows for 2 items"):
        complete_shard(task, {"v": torch.zeros(1)})


def test_buckets_are_no_larger_than_asked_on_average() -> None:
    items = [f"{i:05x}" for i in range(1000)]
    made = buckets(items, 64)
    assert len(made) == 16
    assert sorted(item for group in made.values() for item in group) == items


def test_fingerprint_tells_values_apart() -> None:
    assert fingerprint(a=1, b=[2]) == fingerprint(b=[2], a=1)
    assert len({fingerprint(a=1), fingerprint(a=1.5), fingerprint(a="1"), fingerprint(b=1)}) == 4


def test_batches_hold_whole_shards_and_every_item_once(tmp_path: Path) -> None:
    items = [f"{i:04x}" for i in range(100)]
    bring_up_to_date(tmp_path, items)
    asked = items[10:90]
    batches = list(in_batches(tmp_path, asked, 20))
    assert sorted(item for batch in batches for item in batch) == asked
    assert all(len(batch) >= 20 for batch in batches[:-1])
    assert len(batches) > 2
    read = [set(places_of(tmp_path, batch)) for batch in batches]
    assert sum(map(len, read)) == len(set.union(*read))  # none is read twice


def test_few_items_cost_few_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bring_up_to_date(tmp_path, [f"{i:04x}" for i in range(200)])
    opened: list[Path] = []
    read = shard_files.read_header
    monkeypatch.setattr(shard_files, "read_header", lambda path: opened.append(path) or read(path))
    assert len(places_of(tmp_path, ["0007"])) == 1
    assert len(opened) == 1


def test_many_reads_list_the_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each shard of a stage reads some items of the stage before: one listing each would grow with the square."""
    items = [f"{i:04x}" for i in range(200)]
    bring_up_to_date(tmp_path, items)
    listed: list[Path] = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: listed.append(folder) or listdir(folder))
    for start in range(0, 200, 10):
        load_items(tmp_path, items[start : start + 10], ["v"])
    assert listed == [tmp_path]


def test_items_written_after_the_folder_was_listed_are_found(tmp_path: Path) -> None:
    """Also where the time of the folder does not show that it changed."""
    folder = tmp_path / "shards"
    bring_up_to_date(folder, ["0001", "0002"])
    assert set(places_of(folder, ["0001"])) == {path.name for path in shard_files.shard_files(folder)}
    before = folder.stat()
    bring_up_to_date(folder, ["0001", "0003"])
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert load_items(folder, ["0003", "0001"], ["v"])["v"].tolist() == [[3, 4], [1, 4]]
