"""Run a stage shard by shard: here, over local processes, or over a Dask cluster.

Where it runs is an environment variable and never changes what comes out: only paths and plain
values travel, results are files.
"""

from __future__ import annotations

import ast
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from torch import Tensor

from boundaryflow.errors import ParamsError
from boundaryflow.storage.shards import ShardJob, ShardPlan, complete_shard, plan_shards, shard_index, sweep
from stages.process import Progress

LOG = logging.getLogger(__name__)
_ROOT = Path(__file__).resolve().parent.parent
Together = Mapping[str, ShardJob]
"""The shards of one bucket, by the name of the folder each is for."""


def code_hash(*sources: str) -> str:
    """What the code that makes a shard says, comments and docstrings aside.

    It is part of a shard's recipe, so that shards of changed code are computed anew.

    Args:
        sources: Files and folders of modules, from the root of the repository.
    """
    digest = hashlib.sha256()
    for source in sources:
        path = _ROOT / source
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            tree = ast.parse(file.read_text())
            for node in ast.walk(tree):
                body = getattr(node, "body", None)
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and body:
                    first = body[0]
                    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                        node.body = body[1:]
            digest.update(f"{file.relative_to(_ROOT).as_posix()}\n{ast.dump(tree)}\n".encode())
    return digest.hexdigest()[:16]


def run_sharded(
    stage: str,
    folder: Path,
    item_ids: Sequence[str],
    recipe: str,
    shard_size: int,
    run_shard: Callable[..., dict[str, Tensor]],
    context: Mapping[str, Any],
    *,
    here: bool = False,
) -> int:
    """Bring one folder of shards up to date.

    Args:
        stage: Name, for progress and log.
        folder: Folder of shards.
        item_ids: Items that should be there.
        recipe: See `plan_shards`.
        shard_size: See `plan_shards`.
        run_shard: Importable function of (job, **context) that computes the tensors of
            `job.missing`.
        context: Plain values for it.
        here: Run in this process whatever the environment says: for functions that hold on to
            something in memory.

    Returns:
        Number of items computed.
    """
    plan = plan_shards(folder, item_ids, recipe, shard_size)
    groups = [{"": job} for job in plan.jobs]
    _run(stage, groups, len(plan.kept), _One(run_shard), context, here=here)
    sweep(folder, plan)
    return plan.num_missing


def run_sharded_together(
    stage: str,
    folder: Path,
    item_ids: Sequence[str],
    recipes: Mapping[str, str],
    shard_size: int,
    run_shards: Callable[..., dict[str, dict[str, Tensor]]],
    context: Mapping[str, Any],
    variants: Mapping[str, Mapping[str, str]],
) -> int:
    """Bring several folders with the same items up to date, one bucket of all of them at a time.

    Args:
        stage: Name, for progress and log.
        folder: Parent of the folders; others in it are removed.
        item_ids: Items that each folder should have.
        recipes: Folder name to recipe.
        shard_size: See `plan_shards`.
        run_shards: Importable function of (jobs by folder name, **context) that computes the
            tensors of each job's missing items.
        context: Plain values for it.
        variants: Folder name to the variants of its items, see `plan_shards`.

    Returns:
        Number of (item, folder) pairs computed.
    """
    plans: dict[str, ShardPlan] = {
        name: plan_shards(folder / name, item_ids, recipe, shard_size, variants[name])
        for name, recipe in recipes.items()
    }
    by_bucket: dict[str, dict[str, ShardJob]] = {}
    for name, plan in plans.items():
        for job in plan.jobs:
            by_bucket.setdefault(job.path.name.split("-")[1], {})[name] = job
    _run(stage, list(by_bucket.values()), sum(len(p.kept) for p in plans.values()), run_shards, context)
    for name, plan in plans.items():
        sweep(folder / name, plan)
    _remove_others(folder, set(recipes))
    return sum(plan.num_missing for plan in plans.values())


class _One:
    """Makes a function of one job into one of a group of one; picklable, unlike a closure."""

    def __init__(self, run_shard: Callable[..., dict[str, Tensor]]) -> None:
        self._run_shard = run_shard

    def __call__(self, jobs: Together, **context: Any) -> dict[str, dict[str, Tensor]]:
        return {name: self._run_shard(job, **context) for name, job in jobs.items()}


def _complete(
    run_shards: Callable[..., dict[str, dict[str, Tensor]]], jobs: Together, context: Mapping[str, Any]
) -> int:
    """Compute and write the shards of one group; returns the number of rows computed."""
    lacking = {name: job for name, job in jobs.items() if job.missing}
    computed = run_shards(lacking, **context) if lacking else {}
    for name, job in jobs.items():
        complete_shard(job, computed.get(name, {}))
    return sum(len(job.missing) for job in jobs.values())


def _run(
    stage: str,
    groups: Sequence[Together],
    num_kept: int,
    run_shards: Callable[..., dict[str, dict[str, Tensor]]],
    context: Mapping[str, Any],
    *,
    here: bool = False,
) -> None:
    total = sum(len(job.missing) for jobs in groups for job in jobs.values())
    num_shards = sum(len(jobs) for jobs in groups)
    LOG.info("%s: %d shards to write, %d as they should be, %d images to compute", stage, num_shards, num_kept, total)
    started, written = time.monotonic(), 0
    with Progress(stage, total, "images") as progress:
        for jobs, num in _map(run_shards, groups, context, here=here):
            progress.advance(num)
            written += len(jobs)
            rate = num / max(time.monotonic() - started, 1e-9)
            LOG.info("%s shard %d/%d: %d images, %.1f images/s", stage, written, num_shards, num, rate)
            started = time.monotonic()


def _map(
    run_shards: Callable[..., dict[str, dict[str, Tensor]]],
    groups: Sequence[Together],
    context: Mapping[str, Any],
    *,
    here: bool,
) -> Iterator[tuple[Together, int]]:
    address, workers = (None, 1) if here else (os.environ.get("BOUNDARYFLOW_DASK"), _num_workers())
    if address and groups:
        yield from _map_dask(address, run_shards, groups, context)
    elif workers > 1 and len(groups) > 1:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            futures = {pool.submit(_complete, run_shards, jobs, context): jobs for jobs in groups}
            for future in as_completed(futures):
                yield futures[future], future.result()
    else:
        for jobs in groups:
            yield jobs, _complete(run_shards, jobs, context)


def _map_dask(
    address: str,
    run_shards: Callable[..., dict[str, dict[str, Tensor]]],
    groups: Sequence[Together],
    context: Mapping[str, Any],
) -> Iterator[tuple[Together, int]]:
    from distributed import Client
    from distributed import as_completed as dask_completed

    try:
        client = Client(address, timeout=20)
    except (OSError, ValueError) as error:
        raise ParamsError(
            f"BOUNDARYFLOW_DASK is {address!r}: no scheduler answers there ({error}); start one or unset it"
        ) from None
    with client:
        futures = {client.submit(_complete, run_shards, jobs, context, pure=False, retries=2): jobs for jobs in groups}
        for future in dask_completed(futures):
            yield futures[future], future.result()


def items_there(folder: Path, recipe: str) -> set[str]:
    """Items that the shards of a recipe hold."""
    index = shard_index(folder, recipe)
    return set(index["item_id"])


def _num_workers() -> int:
    value = os.environ.get("BOUNDARYFLOW_WORKERS", "1")
    if not value.isdecimal() or int(value) < 1:
        raise ParamsError(f"BOUNDARYFLOW_WORKERS is {value!r}, must be a whole number of at least 1")
    return int(value)


def _remove_others(folder: Path, wanted: set[str]) -> None:
    """Remove the folders of edits that are no longer asked for."""
    for child in folder.iterdir() if folder.is_dir() else ():
        if child.is_dir() and child.name not in wanted:
            for file in child.iterdir():
                file.unlink()
            child.rmdir()
