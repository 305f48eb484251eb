"""Ways to prepare a network (`boundaryflow.models.preparation`) beside one another on a GPU, and beside diffusers.

    python -m benches.engine.layouts OUT_DIR [--seconds 0.5]

Writes OUT_DIR/layouts.json after every arm. The guided edit visits its first two timesteps alone. At the end, the
fastest preparation once more with cuDNN trying its algorithms out (`torch.backends.cudnn.benchmark`).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benches.engine.arms import diffusers, images, invert_and_edit, ours_model, repeated
from benches.engine.gpu import Record, main_dtype
from benches.engine.guided_arm import GuidedArm
from boundaryflow.models.preparation import Preparation
from boundaryflow.runtime.device import device

CASES = (("faces64", 256, 20), ("faces64", 64, 20), ("paper256", 16, 2))  # model, images, timesteps up and down
SMALL = (("faces64", 2, 2),)
PREPARATIONS = {
    f"{layout}, {upsampling}": Preparation(channels_last=last, folds_upsampling=folds)
    for layout, last in (("channels-last", True), ("plain", False))
    for upsampling, folds in (("folded", True), ("not folded", False))
}
NUM_TIMESTEPS = 2


def measure_all(record: Record, cases: Sequence[tuple[str, int, int]]) -> None:
    """Every preparation in every case, then the fastest with tuned convolutions."""
    for model, num_images, num_steps in cases:
        about: dict[str, Any] = {"model": model, "batch": num_images, "dtype": main_dtype()}
        theirs = _diffusers(record, model, num_images, num_steps)
        record.attempt({"task": "invert and edit", "arm": "diffusers", **about}, theirs)
        for arm, preparation in PREPARATIONS.items():
            _both(record, {"arm": arm, **about}, preparation, num_steps)
    torch.backends.cudnn.benchmark = True
    for model, num_images, num_steps in cases:
        about = {"model": model, "batch": num_images, "dtype": main_dtype()}
        arm = fastest(record.found["rows"], model, num_images)
        _both(record, {"arm": f"{arm}, tuned", **about}, PREPARATIONS[arm], num_steps)
        theirs = _diffusers(record, model, num_images, num_steps)
        record.attempt({"task": "invert and edit", "arm": "diffusers, tuned", **about}, theirs)
    torch.backends.cudnn.benchmark = False
    record.found["is_complete"] = True
    record.write()


def fastest(rows: Sequence[dict[str, Any]], model: str, num_images: int) -> str:
    """The preparation with the most images a second in the guided edit, the default."""
    rates = {
        row["arm"]: row.get("images_per_s", 0.0)
        for row in rows
        if (row["task"], row["model"], row["batch"]) == ("guided edit", model, num_images)
    }
    return max(rates, key=lambda arm: rates[arm])


def _both(record: Record, about: dict[str, Any], preparation: Preparation, num_steps: int) -> None:
    """Invert and edit, and the guided edit, with a network prepared in one way."""
    model, num_images = str(about["model"]), int(about["batch"])

    @torch.inference_mode()
    def edit_once() -> dict[str, Any]:
        with torch.inference_mode(False):
            net, x_0 = ours_model(model, preparation=preparation), images(model, num_images)
        invert_and_edit(net, x_0, 2)()
        return _rate(invert_and_edit(net, x_0, num_steps), record.seconds, num_images, 2 * num_steps)

    def guided() -> dict[str, Any]:
        edit = GuidedArm(ours_model(model, preparation=preparation), model, num_images, NUM_TIMESTEPS)
        edit.short()()
        return _rate(edit, record.seconds, num_images, 3 * NUM_TIMESTEPS * edit.guidance.num_noises)

    record.attempt({"task": "invert and edit", **about}, edit_once)
    record.attempt({"task": "guided edit", **about}, guided)


def _diffusers(record: Record, model: str, num_images: int, num_steps: int) -> Callable[[], dict[str, Any]]:
    dtype = getattr(torch, main_dtype())

    @torch.inference_mode()
    def work() -> dict[str, Any]:
        with torch.inference_mode(False):
            short, loop = (diffusers(model, num, num_images, dtype)[0] for num in (2, num_steps))
        short()
        return _rate(loop, record.seconds, num_images, 2 * num_steps)

    return work


def _rate(once: Callable[[], object], seconds: float, num_images: int, calls: int) -> dict[str, Any]:
    """Images a second, and gibibytes of the device's memory at most."""
    on_gpu = device().type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    turns, wall = repeated(once, seconds)
    per_s = turns * num_images / wall
    found = {"calls": calls, "images_per_s": per_s, "image_calls_per_s": round(per_s * calls, 1), "turns": turns}
    return {**found, "memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2)} if on_gpu else found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the arguments say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of layouts.json")
    parser.add_argument("--seconds", type=float, default=0.5, help="of every arm, at least")
    parser.add_argument("--small", action="store_true", help="a small batch of the network at 64 pixels alone")
    asked = parser.parse_args(arguments)
    if asked.small:
        os.environ.setdefault("BOUNDARYFLOW_BATCH_SIZE", "2")
    asked.out.mkdir(parents=True, exist_ok=True)
    measure_all(Record(asked.out / "layouts.json", asked.seconds), SMALL if asked.small else CASES)


if __name__ == "__main__":
    main()
