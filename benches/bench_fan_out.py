"""What it costs to spread shards over workers, and what it brings.

    make bench NAME=fan_out

Overhead per shard, with shards that do nothing: here, over local processes (their start
included), over a Dask cluster. Shards per second of
one and of two Dask workers on work that does not share cores: each shard waits a tenth of a second, as a worker waits
for its GPU. Workers are processes of this machine. Writes benches/results/fan_out.json.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distributed import LocalCluster

from benches import machine
from boundaryflow.runtime.fan_out import fan_out

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benches/results/fan_out.json"
NUM_IDLE, NUM_WAITING, WAIT_S, ROUNDS = 200, 60, 0.1, 3
GOAL = 1.8


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


def measure() -> dict[str, Any]:
    """All of it, each several times, in turns."""
    with tempfile.TemporaryDirectory() as name:
        folder, found = Path(name), dict[str, list[float]]()
        for _ in range(ROUNDS):
            found.setdefault("here_s", []).append(timed(NUM_IDLE, 0, folder))
            os.environ["BOUNDARYFLOW_WORKERS"] = "2"
            found.setdefault("processes_s", []).append(timed(NUM_IDLE, 0, folder))
            del os.environ["BOUNDARYFLOW_WORKERS"]
            for workers in (1, 2):
                with LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster:  # pyright: ignore[reportArgumentType]
                    os.environ["BOUNDARYFLOW_DASK"] = str(cluster.scheduler_address)  # pyright: ignore[reportAttributeAccessIssue]
                    if workers == 1:
                        found.setdefault("dask_s", []).append(timed(NUM_IDLE, 0, folder))
                    found.setdefault(f"waiting_{workers}_s", []).append(timed(NUM_WAITING, WAIT_S, folder))
                    del os.environ["BOUNDARYFLOW_DASK"]
    middle = {key: statistics.median(values) for key, values in found.items()}
    faster = middle["waiting_1_s"] / middle["waiting_2_s"]
    return {
        "machine": machine.facts(),
        "settings": {"idle_shards": NUM_IDLE, "waiting_shards": NUM_WAITING, "wait_s": WAIT_S, "rounds": ROUNDS},
        "samples": {key: [round(value, 4) for value in values] for key, values in found.items()},
        "overhead_ms_per_shard": {
            name: round(1000 * middle[f"{name}_s"] / NUM_IDLE, 2) for name in ("here", "processes", "dask")
        },
        "shards_per_s": {
            f"{workers} workers": round(NUM_WAITING / middle[f"waiting_{workers}_s"], 2) for workers in (1, 2)
        },
        "bars": [
            {"name": "shards per second of two workers, by that of one", "value": round(faster, 2), "limit": GOAL,
             "direction": ">=", "met": faster >= GOAL}
        ],
    }  # fmt: skip


def main() -> None:
    """Measure, write, and say where."""
    os.environ["PYTHONPATH"] = str(ROOT)
    found = measure()
    RESULT.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps({key: found[key] for key in ("overhead_ms_per_shard", "shards_per_s", "bars")}, indent=2))
    print(f"written: {RESULT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
