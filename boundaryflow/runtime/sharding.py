"""Run a stage shard by shard; `fan_out` decides where each shard is computed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from boundaryflow.files import leftovers
from boundaryflow.runtime.fan_out import fan_out
from boundaryflow.runtime.process import Progress
from boundaryflow.store.shard_files import shard_files, shard_index
from boundaryflow.store.shards import ShardPlan, ShardTask, complete_shard, plan_shards, sweep

LOG = logging.getLogger(__name__)
Together = Mapping[str, ShardTask]
"""The shards of one bucket, by the name of the folder each is for."""


def run_sharded(
    stage: str,
    folder: Path,
    item_ids: Sequence[str],
    cache_key: str,
    shard_size: int,
    run_shard: Callable[..., dict[str, Tensor]],
    context: Mapping[str, Any],
    *,
    of_items: Mapping[str, Mapping[str, Any]] | None = None,
    num_threads: int = 1,
) -> int:
    """Bring one folder of shards up to date.

    Args:
        stage: Name, for progress and log.
        folder: Folder of shards.
        item_ids: Items that the folder should contain.
        cache_key: See `plan_shards`.
        shard_size: See `plan_shards`.
        run_shard: Importable function of (task, **context, **of_items) that computes the tensors of
            `task.missing`.
        context: Values for it; they are pickled where the work is done by other processes.
        of_items: Name to item to value; each call receives the values of the items that it computes.
        num_threads: Shards at once in this process, for work that waits for the disk; without effect where the
            environment sets worker processes or a cluster.

    Returns:
        Number of items computed.
    """
    plan = plan_shards(folder, item_ids, cache_key, shard_size)
    groups = _groups([{"": task} for task in plan.tasks], of_items)
    _run(stage, folder, groups, len(plan.kept), _One(run_shard), context, num_threads=num_threads)
    sweep(folder, plan)
    return plan.num_missing


def run_sharded_together(
    stage: str,
    folder: Path,
    item_ids: Sequence[str],
    cache_keys: Mapping[str, str],
    shard_size: int,
    run_shards: Callable[..., dict[str, dict[str, Tensor]]],
    context: Mapping[str, Any],
    variants: Mapping[str, Mapping[str, str]],
    *,
    of_items: Mapping[str, Mapping[str, Any]] | None = None,
) -> int:
    """Bring several folders with the same items up to date, one bucket of all of them at a time.

    Args:
        stage: Name, for progress and log.
        folder: Parent of the folders; folders of earlier runs that are not in `cache_keys` are removed.
        item_ids: Items that each folder should have.
        cache_keys: Folder name to cache_key.
        shard_size: See `plan_shards`.
        run_shards: Importable function of (tasks by folder name, **context, **of_items) that computes the
            tensors of each task's missing items.
        context: Values for it; they are pickled where the work is done by other processes.
        variants: Folder name to the variants of its items, see `plan_shards`.
        of_items: See `run_sharded`.

    Returns:
        Number of (item, folder) pairs computed.
    """
    plans: dict[str, ShardPlan] = {
        name: plan_shards(folder / name, item_ids, cache_key, shard_size, variants[name])
        for name, cache_key in cache_keys.items()
    }
    by_bucket: dict[str, dict[str, ShardTask]] = {}
    for name, plan in plans.items():
        for task in plan.tasks:
            by_bucket.setdefault(task.path.name.split("-")[1], {})[name] = task
    num_kept = sum(len(plan.kept) for plan in plans.values())
    _run(stage, folder, _groups(list(by_bucket.values()), of_items), num_kept, run_shards, context)
    for name, plan in plans.items():
        sweep(folder / name, plan)
    _remove_others(folder, set(cache_keys))
    return sum(plan.num_missing for plan in plans.values())


class Group(NamedTuple):
    """The work of one call: all that is sent to its worker, apart from the context that all calls share.

    Attributes:
        tasks: The shards.
        of_items: Name to item to value, of the items to compute.
    """

    tasks: Together
    of_items: Mapping[str, Mapping[str, Any]]


def _groups(together: Sequence[Together], of_items: Mapping[str, Mapping[str, Any]] | None) -> list[Group]:
    groups: list[Group] = []
    for tasks in together:
        missing = {item for task in tasks.values() for item in task.missing}
        values = {
            name: {item: values[item] for item in missing if item in values}
            for name, values in (of_items or {}).items()
        }
        groups.append(Group(tasks, values))
    return groups


class _One:
    """Adapts a function of one task to a group with one task; picklable, unlike a closure."""

    def __init__(self, run_shard: Callable[..., dict[str, Tensor]]) -> None:
        self._run_shard = run_shard

    def __call__(self, tasks: Together, **context: Any) -> dict[str, dict[str, Tensor]]:
        return {name: self._run_shard(task, **context) for name, task in tasks.items()}


class _Complete:
    """Computes and writes the shards of one group; returns the number of rows computed. Picklable, unlike a closure."""

    def __init__(self, run_shards: Callable[..., dict[str, dict[str, Tensor]]]) -> None:
        self._run_shards = run_shards

    def __call__(
        self, group: Group, context: Mapping[str, Any], before_writing: Callable[[], None] = lambda: None
    ) -> int:
        lacking = {name: task for name, task in group.tasks.items() if task.missing}
        computed = self._run_shards(lacking, **context, **group.of_items) if lacking else {}
        before_writing()
        for name, task in group.tasks.items():
            complete_shard(task, computed.get(name, {}))
        return sum(len(task.missing) for task in group.tasks.values())


def _run(
    stage: str,
    folder: Path,
    groups: Sequence[Group],
    num_kept: int,
    run_shards: Callable[..., dict[str, dict[str, Tensor]]],
    context: Mapping[str, Any],
    *,
    num_threads: int = 1,
) -> None:
    total = sum(len(task.missing) for group in groups for task in group.tasks.values())
    num_shards = sum(len(group.tasks) for group in groups)
    LOG.info("%s: %d shards to write, %d up to date, %d images to compute", stage, num_shards, num_kept, total)
    written = 0
    with Progress(stage, total, "images") as progress:
        for done in fan_out(_Complete(run_shards), groups, context, folder, num_threads=num_threads):
            progress.advance(done.num_computed)
            written += len(groups[done.number].tasks)
            rate = done.num_computed / max(done.seconds, 1e-9)
            where = f", on {done.where}" if done.where else ""
            LOG.info(
                "%s shard %d/%d: %d images, %.1f images/s%s", stage, written, num_shards, done.num_computed, rate, where
            )


def stored_items(folder: Path, cache_key: str) -> set[str]:
    """Items in the shards of a cache_key."""
    index = shard_index(folder, cache_key)
    return set(index["item_id"])


def _remove_others(folder: Path, wanted: set[str]) -> None:
    """Remove folders of edits that are no longer configured, unless they contain other files than shards."""
    for child in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not child.is_dir() or child.is_symlink() or child.name in wanted:
            continue
        ours = {*shard_files(child), *leftovers(child)}
        if set(child.iterdir()) <= ours:
            for file in ours:
                file.unlink()
            child.rmdir()
        else:
            LOG.warning("%s: belongs to no edit, but holds files that this project did not write; it is kept", child)
