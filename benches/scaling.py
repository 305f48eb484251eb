"""The tables of docs/scaling.md: ten million images at 256 pixels, on paper.

    python -m benches.scaling                     all three
    python -m benches.scaling --only rehearsal    or work, or storage

Network calls are counted on the engine, operations on the paper's network with random weights; bytes follow from
shapes. GPU hours are operations over one rate, which is stated. The rehearsal simulates the guided edit shard by shard,
with what other benches measured of planning and handing out. Writes benches/results/scaling.json as well.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from benches import machine, page
from benches.checkout import ROOT
from benches.engine.arms import network
from boundaryflow.config import described, load_params
from boundaryflow.diffusion import BOTTLENECK, NoiseSchedule
from boundaryflow.estimate.counting import Planned, count
from boundaryflow.models.unet import UNetModel

PAGE, RESULT = ROOT / "docs/scaling.md", ROOT / "benches/results/scaling.json"
NUM, SIDE, SHARD_SIZE = 10_000_000, 256, 512
RATE = 100e12
"""About the most operations a second in bfloat16 of a guided edit with this network on an H200, see
docs/performance.md."""
WORKERS = (1, 8, 64, 512)
SPREAD, STRAGGLERS, STRAGGLER_TIMES = 0.1, 0.01, 3.0
"""Assumed of a shard's time: standard deviation by the mean, share of stragglers, and how many times as long."""


@cache
def operations() -> tuple[int, int, int]:
    """Of a call, of a gradient of h beside it, and values of the bottleneck, for one image."""
    unet, _ = network("paper256")
    model = UNetModel(unet, NoiseSchedule.linear(), sha256="f" * 64)
    x_t = torch.zeros(1, 3, SIDE, SIDE)
    with FlopCounterMode(display=False) as counter:
        h = model.eps_and_h(x_t, 500)[1]
    call = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        model.pullback(x_t, 500, BOTTLENECK, lambda flat: torch.ones(1, 1, flat.shape[1]))
    return call, counter.get_total_flops() - call, h.numel()


def ways() -> dict[str, tuple[float, float]]:
    """Way of editing, one attribute at one strength, to the calls and gradients of an image."""
    params = described(load_params(ROOT), "celebahq256", ROOT)
    edit, targets = next(iter(params.edit.edits.items()))
    found: dict[str, tuple[float, float]] = {}
    for name, method, is_paper, num_steps in (
        ("guided", "guided", False, 17),
        ("single step, 17 timesteps", "single_step", False, 17),
        ("as the release, 40 timesteps", "single_step", True, 40),
        ("as the release, 8 timesteps", "single_step", True, 8),
    ):
        changes = {"method": method, "strengths": [1.0], "compare": None, "edits": {edit: targets}}
        some = params.model_copy(
            update={
                "paper_mode": is_paper,
                "edit": params.edit.model_copy(update=changes),
                "invert": params.invert.model_copy(update={"num_steps": num_steps, "order": 1 if is_paper else 2}),
            }
        )
        counts = count(Planned.of("celebahq256", some), "ddpm")
        (of_edit,) = counts.edits.values()
        found[f"edit, {name}"] = counts.opening[method].image_calls + of_edit.image_calls, of_edit.directions
        if name.startswith("single"):
            found["invert, 17 timesteps"] = counts.invert.image_calls, 0
    return found


def work_table() -> str:
    """What the networks have to do."""
    call, gradient, _ = operations()
    rows: list[list[str]] = []
    for name, (calls, gradients) in sorted(ways().items(), reverse=True):
        total = calls * call + gradients * gradient
        rows.append([name, f"{calls:g}", f"{gradients:g}", f"{total / 1e12:.1f}", f"{NUM * total / 1e18:,.0f}",
                     f"{NUM * total / RATE / 3600:,.0f}"])  # fmt: skip
    header = ["stage", "calls an image", "gradients an image", "TFLOP an image", "EFLOP for 10 M", "GPU hours for 10 M"]
    return page.markdown_table(header, rows)


def storage_table() -> str:
    """What lies on the disk, in how many objects."""
    _, _, num_bottleneck = operations()
    pixels = 3 * SIDE**2
    shards = num_shards()
    rows: list[list[str]] = []
    for name, size in (
        ("ingest: pixels, uint8", pixels),
        ("invert: x_mix and h_mix, float16", 2 * (pixels + num_bottleneck)),
        ("edit: one strength of one edit, uint8", pixels),
    ):
        rows.append([name, f"{size / 1024:,.0f}", f"{NUM * size / 1e12:.2f}", f"{shards:,}",
                     f"{NUM / shards * size / 1e6:,.0f}"])  # fmt: skip
    header = ["what", "KiB an image", "TB for 10 M", f"objects at shard_size {SHARD_SIZE}", "MB an object"]
    return page.markdown_table(header, rows)


def num_shards() -> int:
    """Shards of all images, see boundaryflow.store.shards.buckets."""
    return 2 ** math.ceil(math.log2(NUM / SHARD_SIZE))


def simulate(durations_s: Sequence[float] | NDArray[np.float64], workers: int, hand_out_s: float) -> float:
    """Seconds until all shards are done.

    Each goes to the worker that is free first; the planner hands out one at a time.

    Args:
        durations_s: Seconds of each shard on its worker, in the order in which they are handed out.
        workers: Number of workers.
        hand_out_s: Seconds that the planner takes for a shard, during which its worker waits.
    """
    free_at = [0.0] * workers
    planner_at, last = 0.0, 0.0
    for duration in durations_s:
        planner_at = max(planner_at, heapq.heappop(free_at)) + hand_out_s
        heapq.heappush(free_at, planner_at + float(duration))
        last = max(last, planner_at + float(duration))
    return last


def rehearse() -> dict[str, Any]:
    """The guided edit of all images: from measured rates, over different numbers of workers."""
    call, gradient, _ = operations()
    calls, gradients = ways()["edit, guided"]
    mean = NUM / num_shards() * (calls * call + gradients * gradient) / RATE
    fan_out, pipeline = (json.loads((RESULT.parent / f"{name}.json").read_text()) for name in ("fan_out", "pipeline"))
    planning = pipeline["scale"]["planning"]
    chance = np.random.default_rng(0)
    durations = mean * np.maximum(chance.normal(1, SPREAD, num_shards()), 0.1)
    durations[chance.random(len(durations)) < STRAGGLERS] *= STRAGGLER_TIMES
    found: dict[str, Any] = {
        "num_shards": num_shards(),
        "shard_s": round(mean, 2),
        "hand_out_s": fan_out["overhead_ms_per_shard"]["dask"] / 1000,
        "plan_s": round(planning["seconds"] * NUM / planning["num"], 1),
        "work_h": round(float(durations.sum()) / 3600, 1),
        "workers": {},
    }
    for workers in WORKERS:
        took = found["plan_s"] + simulate(durations, workers, found["hand_out_s"])
        found["workers"][str(workers)] = {
            "hours": round(took / 3600, 2), "utilisation": round(float(durations.sum()) / workers / took, 4)
        }  # fmt: skip
    return found


def rehearsal_table() -> str:
    """Times and utilisation over numbers of workers; also written to RESULT."""
    found = rehearse()
    RESULT.write_text(json.dumps({"machine": machine.facts(), "rehearsal": found}, indent=1) + "\n")
    rows = [
        [workers, f"{of['hours']:,.2f}", f"{found['work_h'] / int(workers):,.2f}", f"{of['utilisation']:.1%}"]
        for workers, of in found["workers"].items()
    ]
    return page.markdown_table(["workers", "hours", "hours of work for each", "utilisation"], rows)


def main() -> None:
    """Write the tables that are asked for."""
    parts = {"work": work_table, "storage": storage_table, "rehearsal": rehearsal_table}
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=parts, help="one of the tables")
    asked = parser.parse_args()
    for name in [asked.only] if asked.only else parts:
        text = parts[name]()
        page.fill(PAGE, name, text)
        print(text, end="\n\n")


if __name__ == "__main__":
    main()
