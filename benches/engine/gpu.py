"""All speed figures of a GPU from one process: invert and edit beside diffusers and the release, and the guided edit.

    python -m benches.engine.gpu OUT_DIR [--seconds 1] [--no-compile]

Writes OUT_DIR/gpu.json after every arm, so that a run that is cut off keeps what it has, and OUT_DIR/profile.txt. An
arm that fails leaves its error there. Needs torch, torchvision, diffusers and data/pretrained/faces64, no environment
of this project. Runs on a CPU as well: `--small` shows that every arm works.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from benches import machine
from benches.engine.arms import ceiling, count_flops, images, invert_and_edit, measure, ours_model, repeated
from benches.engine.graphed import Graphed, compile_blocks
from benches.engine.guided_arm import GuidedArm, largest_difference
from boundaryflow.diffusion import EpsModel, timestep_path
from boundaryflow.editing import paper_edit, paper_invert
from boundaryflow.models import UNetModel
from boundaryflow.rng import item_noise
from boundaryflow.runtime.device import device, resolve_dtype
from boundaryflow.runtime.frozen_model import batch_size

FLOAT32_ARMS = ("release", "diffusers")


@dataclass(frozen=True)
class Plan:
    """What is measured of one network.

    Attributes:
        num_steps: Timesteps of the path that is inverted; every call costs the same, so that a few stand for many.
        batches: Batch sizes of invert and edit, beside the one that the stages choose.
        guided: Batch sizes of the guided edit.
        num_timesteps: That it visits; None is all of them.
    """

    num_steps: int
    batches: Sequence[int]
    guided: Sequence[int]
    num_timesteps: int | None = None


PLANS = {"faces64": Plan(40, (64, 256), (64, 256)), "paper256": Plan(4, (8, 32), (8, 16))}
SMALL = {"faces64": Plan(2, (2,), (2,), 1)}


class Record:
    """What was found so far, on the disk at any time.

    Args:
        path: JSON file.
        seconds: Of every arm, at least.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self._path, self.seconds, self._started = path, seconds, time.perf_counter()
        self.found: dict[str, Any] = {"machine": machine.facts(), "rows": []}
        self.peak: dict[str, float] = {}

    def add(self, row: dict[str, Any]) -> None:
        """Keep one row, and say it."""
        self.found["rows"].append(row)
        self.write()
        print(json.dumps(row), flush=True)

    def write(self) -> None:
        """Write the file."""
        self.found["seconds"] = round(time.perf_counter() - self._started, 1)
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(self.found, indent=1) + "\n")
        part.replace(self._path)

    def attempt(self, about: dict[str, Any], work: Callable[[], dict[str, Any]]) -> None:
        """Keep what an arm finds, or why it failed."""
        started = time.perf_counter()
        try:
            found = work()
        except TimeoutError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, the other arms go on
            first = (str(error).splitlines() or [""])[0]
            found = {"error": f"{type(error).__name__}: {first:.300}"}
        self.add({**about, **found, "spent_s": round(time.perf_counter() - started, 1)})
        gc.collect()
        if device().type == "cuda":
            torch.cuda.empty_cache()

    def rates(self, per_s: float, flops: float, dtype: str) -> dict[str, Any]:
        """Of so many images a second, each of so many operations."""
        rate = per_s * flops
        return {"dtype": dtype, "gflops": round(rate / 1e9, 1), "of_ceiling": round(rate / self.peak[dtype], 3)}


def main_dtype() -> str:
    """What the stages compute in here."""
    return str(resolve_dtype("auto")).removeprefix("torch.")


def ceilings(record: Record, sizes: Sequence[int]) -> None:
    """Matrix products in bfloat16, in float32, and in TF32, which convolutions of float32 networks use on a GPU."""
    record.peak = ceiling(sizes)
    if device().type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        record.peak["tfloat32"] = ceiling(sizes)["float32"]
        torch.backends.cuda.matmul.allow_tf32 = False
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        record.found["machine"] |= {"memory_gib": round(memory, 1), "cuda": torch.version.cuda}
    record.peak.setdefault("bfloat16", record.peak["float32"])  # a CPU that does not multiply it
    record.found["ceiling_gflops"] = {name: round(peak / 1e9, 1) for name, peak in record.peak.items()}
    record.write()


def beside_others(record: Record, model: str, plan: Plan) -> None:
    """Invert and edit: ours at several batch sizes, then the other loops at the batch size that the stages choose."""
    default = batch_size(ours_model(model))
    flops = {ours: count_flops(model, is_ours=ours) for ours in (False, True)}
    runs = [("ours", num) for num in dict.fromkeys((default, *plan.batches))]
    if main_dtype() == "bfloat16":
        runs.append(("diffusers bfloat16", default))
    runs += [("diffusers", default), ("release", 1)]
    float32 = "tfloat32" if device().type == "cuda" else "float32"
    for arm, num_images in runs:

        def work(arm: str = arm, num_images: int = num_images) -> dict[str, Any]:
            row = measure(arm, model, plan.num_steps, record.seconds, num_images)
            per_s = row["images_per_s"] * row["calls"]
            dtype = float32 if arm in FLOAT32_ARMS else main_dtype()
            return {
                **row,
                "is_default": num_images == default,
                "image_calls_per_s": round(per_s, 1),
                "network_s": round(row["wall_s"] * row["network_share"], 4),
                "outside_s": round(row["wall_s"] * (1 - row["network_share"]), 4),
                **record.rates(per_s, flops[arm == "ours"], dtype),
            }

        record.attempt({"task": "invert and edit", "arm": arm, "model": model, "batch": num_images}, work)


def guided(
    record: Record, model: str, plan: Plan, arm: str, made: Callable[[], EpsModel], batches: Sequence[int]
) -> None:
    """The guided edit at several batch sizes."""
    for num_images in batches:

        def work(num_images: int = num_images) -> dict[str, Any]:
            edit = GuidedArm(made(), model, num_images, plan.num_timesteps)
            flops, calls = GuidedArm(ours_model(model), model, 1, plan.num_timesteps).flops()
            edit.short()()
            turns, wall = repeated(edit, record.seconds)
            per_s = turns * num_images / wall
            return {
                "images_per_s": per_s,
                "wall_s": wall / turns,
                **edit.per_turn(turns),
                "calls": calls,
                "image_calls_per_s": round(per_s * calls, 1),
                **record.rates(per_s, flops, main_dtype()),
            }

        record.attempt({"task": "guided edit", "arm": arm, "model": model, "batch": num_images}, work)


def again(record: Record, model: str, plan: Plan, arm: str, made: Callable[[], EpsModel], num_images: int) -> None:
    """Invert and edit, and the guided edit, with a network that is called in another way."""
    once = cache(made)

    @torch.inference_mode()
    def work() -> dict[str, Any]:
        with torch.inference_mode(False):
            net, x_0 = once(), images(model, num_images)
        invert_and_edit(net, x_0, 2)()
        turns, wall = repeated(invert_and_edit(net, x_0, plan.num_steps), record.seconds)
        per_s = turns * num_images / wall
        calls = 2 * plan.num_steps
        flops = count_flops(model, is_ours=True)
        rates = record.rates(per_s * calls, flops, main_dtype())
        return {"calls": calls, "images_per_s": per_s, "image_calls_per_s": round(per_s * calls, 1), **rates}

    record.attempt({"task": "invert and edit", "arm": arm, "model": model, "batch": num_images}, work)
    guided(record, model, plan, arm, once, [num_images])


@contextmanager
def at_most(seconds: float) -> Generator[None]:
    """Raise TimeoutError when this takes longer."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"took more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001), 5.0)  # again, if a library holds the first one back
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def agreement(record: Record, model: str) -> None:
    """Whether edits in float32 are the same on the device as on the CPU, to rounding."""

    def work() -> dict[str, Any]:
        here, cpu = _float32_edits(model, device()), _float32_edits(model, torch.device("cpu"))
        return {name: largest_difference([here[name]], [cpu[name]]) for name in here}

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    record.attempt({"task": "largest difference to the CPU", "arm": "ours", "model": model, "batch": 2}, work)
    torch.backends.cudnn.allow_tf32 = before


def _float32_edits(model: str, where: torch.device) -> dict[str, Tensor]:
    net = ours_model(model, "float32", where)
    edit = GuidedArm(net, model, 2, num_timesteps=2)
    torch.manual_seed(1)
    edit.x_0 = torch.randn(2, 3, 64, 64).clamp(-1, 1).to(where)
    path = timestep_path(300, 4)
    normal = normalize(torch.randn(edit.x_0[0].numel()), dim=0)
    x_mix, h_mix = paper_invert(net, edit.x_0, path)
    normal_h = normalize(torch.randn(h_mix[0].numel()), dim=0)
    paper = paper_edit(
        net, x_mix, h_mix, path, normal_eps=normal, normal_h=normal_h, distance=torch.full((2,), 5.0), eta=1.0,
        noise=lambda t: item_noise(0, ["0", "1"], f"{t}", (3, 64, 64)),
    )  # fmt: skip
    return {
        "guided": edit.edit(edit.observe()),
        "single_step": invert_and_edit(net, edit.x_0, 4)(),
        "paper": paper,
    }


def profile(out: Path, model: str, num_images: int, num_timesteps: int) -> dict[str, Any]:
    """The 15 operations that take most of a guided edit, by the device's time and by the CPU's, in profile.txt."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    edit = GuidedArm(ours_model(model), model, num_images, num_timesteps)
    edit()
    on_gpu = device().type == "cuda"
    with profiled(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiler:
        edit()
    averages = profiler.key_averages()
    orders = ["self_cuda_time_total", "self_cpu_time_total"] if on_gpu else ["self_cpu_time_total"]
    tables = [averages.table(sort_by=order, row_limit=15, max_name_column_width=90) for order in orders]
    (out / "profile.txt").write_text("\n\n".join(tables))
    return {"file": "profile.txt", "timesteps": num_timesteps}


def compiled(model: str, *, graphs: bool) -> EpsModel:
    """A network whose blocks are compiled."""
    net: UNetModel = ours_model(model)
    compile_blocks(net)
    return Graphed(net) if graphs else net


def run(out: Path, plans: dict[str, Plan], seconds: float, sizes: Sequence[int], compile_seconds: float) -> None:
    """Every arm, what matters most first."""
    out.mkdir(parents=True, exist_ok=True)
    record = Record(out / "gpu.json", seconds)
    ceilings(record, sizes)
    for model, plan in plans.items():
        beside_others(record, model, plan)
        guided(record, model, plan, "ours", lambda model=model: ours_model(model), plan.guided)
    agreement(record, "faces64")
    for model, plan in plans.items():
        again(record, model, plan, "ours, CUDA graphs", lambda m=model: Graphed(ours_model(m)), plan.guided[0])
    first, plan = next(iter(plans.items()))
    about = {"task": "profile", "arm": "ours", "model": first, "batch": plan.guided[0]}
    record.attempt(about, lambda: profile(out, first, plan.guided[0], 2))
    ends = time.perf_counter() + compile_seconds
    for arm, graphs in (("ours, compiled", False), ("ours, compiled and CUDA graphs", True)):
        if compile_seconds > 0:

            def made(graphs: bool = graphs) -> EpsModel:
                return compiled(first, graphs=graphs)

            try:
                with at_most(ends - time.perf_counter()):
                    again(record, first, plan, arm, made, plan.guided[0])
            except TimeoutError as error:
                record.add({"task": "compile", "arm": arm, "model": first, "batch": 0, "error": str(error)})
    record.found["is_complete"] = True
    record.write()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the arguments say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of gpu.json and profile.txt")
    parser.add_argument("--seconds", type=float, default=1.0, help="of every arm, at least")
    parser.add_argument("--small", action="store_true", help="few and small batches of the network at 64 pixels alone")
    parser.add_argument("--compile-seconds", type=float, default=150.0, help="for all arms with a compiled network")
    parser.add_argument("--no-compile", action="store_true", help="leave these out")
    asked = parser.parse_args(arguments)
    if asked.small:
        os.environ.setdefault("BOUNDARYFLOW_BATCH_SIZE", "2")
    plans, sizes = (SMALL, (64,)) if asked.small else (PLANS, (4096, 8192))
    run(asked.out, plans, asked.seconds, sizes, 0.0 if asked.no_compile else asked.compile_seconds)


if __name__ == "__main__":
    main()
