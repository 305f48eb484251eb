"""The tables of docs/scaling.md: ten million images at 256 pixels, on paper.

    python -m benches.scaling

Network calls are counted on the engine, operations on the paper's network with random weights; bytes follow from
shapes. GPU hours are operations over one rate, which is stated.
"""

from __future__ import annotations

import math

import torch
from torch.utils.flop_counter import FlopCounterMode

from benches import page
from benches.checkout import ROOT
from benches.engine.arms import network
from boundaryflow.config import described, load_params
from boundaryflow.diffusion import BOTTLENECK, NoiseSchedule
from boundaryflow.estimate.counting import Planned, count
from boundaryflow.models.unet import UNetModel

PAGE = ROOT / "docs/scaling.md"
NUM, SIDE, SHARD_SIZE = 10_000_000, 256, 512
RATE = 100e12
"""About the most operations a second in bfloat16 of a guided edit with this network on an H200, see
docs/performance.md."""


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
    shards = 2 ** math.ceil(math.log2(NUM / SHARD_SIZE))  # see boundaryflow.store.shards.buckets
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


if __name__ == "__main__":
    for table, text in (("work", work_table()), ("storage", storage_table())):
        page.fill(PAGE, table, text)
        print(text, end="\n\n")
