"""What it costs to spread shards over workers, and what it brings.

    make bench NAME=fan_out                       all of it
    make bench NAME=fan_out ARGS="--only stage"   or overhead; the figures of the other one are kept

Overhead per shard, with shards that do nothing: here, over local processes (their start included), over a Dask cluster.
Shards per second of one and of two Dask workers on work that does not share cores: each shard waits a tenth of a
second, as a worker waits for its GPU. And a real stage, invert with a tiny network, over one and two workers of one
thread each, so that on two cores two workers should take half the time. Workers are processes of this machine. Writes
benches/results/fan_out.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distributed import LocalCluster

from benches import machine
from benches.bars import Bar, bar, bar_table
from benches.pipeline import scale
from boundaryflow.config import load_params
from boundaryflow.runtime.fan_out import fan_out
from boundaryflow.store.catalog.invert import INVERT
from stages import invert
from tests.small_project import write_project

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benches/results/fan_out.json"
NUM_IDLE, NUM_WAITING, WAIT_S, ROUNDS = 200, 60, 0.1, 3
NUM_IMAGES, NUM_STEPS = 256, 150  # of the real stage: 32 shards of some half a second
GOAL, STAGE_GOAL = 1.8, 1.6


class Shard:
    """Stands for a shard that takes some time and writes nothing."""

    def __call__(self, seconds: float, _context: Mapping[str, Any], check: Callable[[], None] = lambda: None) -> int:
        time.sleep(seconds)
        check()
        return 1


def timed(num: int, seconds: float, folder: Path) -> float:
    """Seconds for so many shards, after a few that warm the workers up."""
    for count in (4, num):
        started = time.monotonic()
        assert sum(done.num_computed for done in fan_out(Shard(), [seconds] * count, {}, folder)) == count
    return time.monotonic() - started


def measure_overhead() -> dict[str, Any]:
    """Shards that do nothing, and shards that wait; each several times, in turns."""
    with tempfile.TemporaryDirectory() as name:
        folder, found = Path(name), dict[str, list[float]]()
        for _ in range(ROUNDS):
            found.setdefault("here_s", []).append(timed(NUM_IDLE, 0, folder))
            os.environ["BOUNDARYFLOW_WORKERS"] = "2"
            found.setdefault("processes_s", []).append(timed(NUM_IDLE, 0, folder))
            del os.environ["BOUNDARYFLOW_WORKERS"]
            for workers in (1, 2):
                with dask_workers(workers):
                    if workers == 1:
                        found.setdefault("dask_s", []).append(timed(NUM_IDLE, 0, folder))
                    found.setdefault(f"waiting_{workers}_s", []).append(timed(NUM_WAITING, WAIT_S, folder))
    middle = {key: statistics.median(values) for key, values in found.items()}
    return {
        "settings": {"idle_shards": NUM_IDLE, "waiting_shards": NUM_WAITING, "wait_s": WAIT_S, "rounds": ROUNDS},
        "samples": {key: [round(value, 4) for value in values] for key, values in found.items()},
        "overhead_ms_per_shard": {
            name: round(1000 * middle[f"{name}_s"] / NUM_IDLE, 2) for name in ("here", "processes", "dask")
        },
        "shards_per_s": {
            f"{workers} workers": round(NUM_WAITING / middle[f"waiting_{workers}_s"], 2) for workers in (1, 2)
        },
    }


def measure_stage() -> dict[str, Any]:
    """Stage invert of all images over one worker and over two, once their networks are loaded."""
    with tempfile.TemporaryDirectory() as name:
        root = write_project(
            Path(name), ingest__source__num_images=NUM_IMAGES, invert__num_steps=NUM_STEPS, edit__method="single_step"
        )
        for stage in ("params", "listing", "ingest", "label", "mixing"):
            scale.run_stage(root, stage)
        before = Path.cwd()
        os.chdir(root)  # where the workers start as well
        try:
            seconds: dict[str, float] = {}
            for workers in (1, 2):
                with dask_workers(workers):
                    _invert()
                    started = time.monotonic()
                    num = _invert()
                    seconds[f"{workers} workers"] = round(time.monotonic() - started, 2)
        finally:
            os.chdir(before)
    return {"stage": "invert", "images": num, "num_steps": NUM_STEPS, "stage_s": seconds}


def _invert() -> int:
    """All images, whatever is there."""
    shutil.rmtree(INVERT.folder("avatars"), ignore_errors=True)
    params = load_params()
    of = params.dataset("avatars")
    return invert.run(
        "avatars", model=of.model, dtype=of.dtype, run_seed=params.run_seed, shard_size=of.ingest.shard_size,
        paper_mode=of.paper_mode, **of.invert.model_dump(),
    )  # fmt: skip


@contextmanager
def dask_workers(num: int) -> Generator[None]:
    """A cluster of so many processes, each with one thread, that shards are sent to."""
    with LocalCluster(n_workers=num, threads_per_worker=1, dashboard_address=None) as cluster:  # pyright: ignore[reportArgumentType]
        os.environ["BOUNDARYFLOW_DASK"] = str(cluster.scheduler_address)  # pyright: ignore[reportAttributeAccessIssue]
        yield
        del os.environ["BOUNDARYFLOW_DASK"]


def bars(found: Mapping[str, Any]) -> list[Bar]:
    """What is asked of it."""
    rates = found["shards_per_s"]
    result = [bar("shards per second of two workers, by that of one", rates["2 workers"] / rates["1 workers"], GOAL,
                  ">=")]  # fmt: skip
    if "stage_s" in found:
        of = found["stage_s"]
        faster = of["1 workers"] / of["2 workers"]
        result.append(bar("a real stage over two workers on two cores, by one", faster, STAGE_GOAL, ">="))
    return result


def main() -> None:
    """Measure, write, and say where."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=["overhead", "stage"], help="the figures of the other one are kept")
    asked = parser.parse_args()
    os.environ["PYTHONPATH"] = str(ROOT)
    found: dict[str, Any] = json.loads(RESULT.read_text()) | {"machine": machine.facts()}
    if asked.only != "stage":
        found |= measure_overhead()
    if asked.only != "overhead":
        found |= measure_stage()
    found["bars"] = bars(found)
    RESULT.write_text(json.dumps(found, indent=2) + "\n")
    print(bar_table(found["bars"]))
    print(f"written: {RESULT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
