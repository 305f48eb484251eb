"""Images per second of invert and edit beside the release and diffusers; what fewer calls cost.

    make bench NAME=engine                        about twenty minutes on two cores
    make bench NAME=engine ARGS="--no-quality"    the speed alone, about six

Every arm runs in a process of its own, in turns, on the avatars and on the paper's network at 256 x 256 with
random weights. There a path of a few timesteps stands for the whole: every call costs the same. The quality of edits
with fewer calls is measured on the avatars, where the truth is known (docs/quality.md). Writes
benches/results/engine.json and its tables in docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benches import machine, page
from benches.alone import alone
from benches.bars import Bar, bar, bar_table, beside
from benches.engine.arms import ARMS, MODELS, count_flops
from benches.quality.calls import Counted
from benches.quality.measure import judge
from benches.quality.pictures import Faces, Latents
from benches.quality.single_step import SingleStep
from benches.quality.summary import at_success, curve
from boundaryflow.avatars import ATTRIBUTES
from boundaryflow.diffusion import EpsModel, denoise, invert, timestep_path
from boundaryflow.evaluation.panel import load_judges
from boundaryflow.models import load_model
from boundaryflow.pixels import to_u8
from boundaryflow.runtime.device import device, resolve_dtype

ROOT = Path(__file__).parents[1]
RESULT, PAGE = ROOT / "benches/results/engine.json", ROOT / "docs/performance.md"
PATHS = {"avatars64": 40, "paper256": 3}
RELEASE_STEPS, RELEASE_CALLS = 40, 39 + 40
FEWER = (5, 6, 8, 12, 20)
T_MIX, LEVEL = 299, 0.73
MEASURES = ("recovery", "rmse", "drift", "identity")


def speed(
    rounds: int,
    seconds: float,
    left_out: Collection[tuple[str, str]] = (),
    paths: Mapping[str, int] = PATHS,
) -> dict[str, Any]:
    """Every arm on every model, in turns, but the pairs (model, arm) of `left_out`, over so many timesteps."""
    samples: dict[str, dict[str, list[dict[str, Any]]]] = {
        model: {arm: [] for arm in ARMS if (model, arm) not in left_out} for model in MODELS
    }
    ceilings: list[dict[str, float]] = []
    for _ in range(rounds):
        ceilings.append(alone("benches.engine.arms", "ceiling"))
        for model in MODELS:
            for arm in samples[model]:
                sample = alone("benches.engine.arms", arm, model, paths[model], seconds)
                samples[model][arm].append(sample)
                print(sample, flush=True)
    peak = {dtype: statistics.median(c[dtype] for c in ceilings) for dtype in ceilings[0]}
    models: dict[str, Any] = {}
    for model, arms in samples.items():
        flops = {ours: count_flops(model, is_ours=ours) for ours in (False, True)}
        rates: dict[str, Any] = {}
        for arm, found in arms.items():
            per_call = statistics.median(s["images_per_s"] * s["calls"] for s in found)
            dtype = "float32" if arm in ("release", "diffusers") else str(resolve_dtype("auto")).removeprefix("torch.")
            rates[arm] = {
                "batch": found[0]["batch"],
                "calls_timed": found[0]["calls"],
                "calls_per_s": round(per_call, 3),
                "gflops": round(per_call * flops[arm == "ours"] / 1e9, 1),
                "of_ceiling": round(per_call * flops[arm == "ours"] / peak[dtype], 3),
                "network_share": round(statistics.median(s["network_share"] for s in found), 4),
                "dtype": dtype,
            }
        models[model] = {
            "gflop_per_call": flops[False] / 1e9,
            "gflop_per_call_folded": flops[True] / 1e9,
            "arms": rates,
        }
    return {"samples": samples, "ceiling_gflops": {k: round(v / 1e9, 1) for k, v in peak.items()}, "models": models}


@torch.inference_mode()
def quality(num_faces: int, num_train: int) -> dict[str, Any]:
    """What the release's edits are worth, and the same ones with fewer calls."""
    weights = ROOT / "data/pretrained"
    model = load_model(str(weights / "avatars64"), device=device(), dtype=resolve_dtype("auto"))
    judges = load_judges(weights / "avatars64_judges", device())
    train, held_out, test = Faces.draw(0, num_train), Faces.draw(1, 150), Faces.draw(2, num_faces)
    rows: dict[str, Any] = {}
    for num in (RELEASE_STEPS, *FEWER):
        way = SingleStep(Counted(model), Latents(model, train, held_out), num_train, timestep_path(T_MIX, num))
        measured: dict[str, Any] = {}
        for number, attribute in enumerate(ATTRIBUTES):
            some = test.take(range(number, num_faces, len(ATTRIBUTES)))
            measured[attribute] = judge(judges, some, (attribute,), to_u8(way.paper(some, (attribute,))))
        none = [0.0] * len(way.paper_distances)  # distances of sets, which are not measured here
        rows[str(num)] = {"attributes": measured, "fid": none, "kid": none}
        print(f"{num} timesteps: success {curve(measured, 'success')}", flush=True)
    level = min(LEVEL, *(max(curve(row["attributes"], "success")) for row in rows.values()))
    found: dict[str, Any] = {}
    for num, row in rows.items():
        at = at_success(row, level)
        assert at is not None
        found[num] = {
            "calls": 2 * int(num) - 1,
            "ddim_db": round(_psnr(test.x_0, _plain(model, test.x_0, int(num))), 2),
            "corrected_db": round(_psnr(test.x_0, _exact(model, test.x_0, int(num))), 2),
            **{measure: round(at[measure], 4) for measure in MEASURES},
        }
    return {"level": level, "num_faces": num_faces, "num_train": num_train, "t_mix": T_MIX, "rows": found}


def _plain(model: EpsModel, x_0: Tensor, num: int) -> Tensor:
    """As the release reconstructs: DDIM up and down."""
    path = timestep_path(T_MIX, num)
    return torch.cat([denoise(model, invert(model, some, path).x_mix, path) for some in x_0.split(32)])


def _exact(model: EpsModel, x_0: Tensor, num: int) -> Tensor:
    path = timestep_path(T_MIX, num)
    parts: list[Tensor] = []
    for some in x_0.split(32):
        inversion = invert(model, some, path, keep_residuals=True, order=2)
        parts.append(denoise(model, inversion.x_mix, path, residuals=inversion.residuals))
    return torch.cat(parts)


def _psnr(x_0: Tensor, back: Tensor) -> float:
    error = ((back.clamp(-1, 1) - x_0) ** 2).flatten(1).mean(1).clamp(min=1e-10)
    return float((10 * torch.log10(4 / error)).mean())


def enough(found: dict[str, Any]) -> int:
    """Fewest timesteps whose edits are no worse than the release's in any measure."""
    release = found["rows"][str(RELEASE_STEPS)]
    for num in FEWER:
        row = found["rows"][str(num)]
        is_better = (row["recovery"] >= release["recovery"], row["rmse"] <= release["rmse"],
                     row["drift"] <= release["drift"], row["identity"] >= release["identity"])  # fmt: skip
        if all(is_better):
            return num
    return RELEASE_STEPS


def bars(found: dict[str, Any]) -> list[Bar]:
    """What is asked of the engine."""
    result: list[Bar] = []
    num = enough(found["quality"])
    for model in MODELS:
        rate = {arm: of["calls_per_s"] for arm, of in found["speed"]["models"][model]["arms"].items()}
        release = rate["ours"] / rate["release"]
        result += [
            bar(f"{model}: by the release's loop, as many calls", release, 6, ">="),
            bar(f"{model}: by the release's loop, at its quality ({2 * num} calls for 79)",
                release * RELEASE_CALLS / (2 * num), 15, ">="),
            bar(f"{model}: by diffusers' loop in float32, as many calls", rate["ours"] / rate["diffusers"], 3, ">="),
            bar(f"{model}: by diffusers' loop in {found['machine']['dtype']}, as many calls",
                rate["ours"] / rate["diffusers bfloat16"], 1.3, ">="),
        ]  # fmt: skip
    return result


def tables(found: dict[str, Any]) -> dict[str, str]:
    """The page's tables."""
    rows = [
        [model, arm, str(of["batch"]), of["dtype"], f"{of['calls_per_s']:.2f}",
         f"{of['calls_per_s'] / RELEASE_CALLS:.4f}", f"{of['gflops']:.0f}", f"{of['of_ceiling']:.0%}",
         f"{of['network_share']:.1%}"]
        for model, about in found["speed"]["models"].items() for arm, of in about["arms"].items()
    ]  # fmt: skip
    header = ["model", "loop", "batch", "dtype", "image-calls/s", "images/s at 79 calls", "GFLOP/s",
              "of the matmul ceiling", "time in the network"]  # fmt: skip
    fewer = [
        [num, str(of["calls"]), f"{of['ddim_db']:.1f}", f"{of['corrected_db']:.1f}",
         *(f"{of[m]:.3f}" for m in MEASURES)]
        for num, of in found["quality"]["rows"].items()
    ]  # fmt: skip
    of_quality = ["timesteps", "calls", "DDIM's way back, PSNR in dB", "with DDIM residuals", "recovery",
                  "RMSE to the truth", "drift", "identity"]  # fmt: skip
    return {
        "engine": page.markdown_table(header, rows),
        "fewer": page.markdown_table(of_quality, fewer),
        "engine bars": bar_table(found["bars"]),
    }


def main() -> None:
    """Measure, write, and say where."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="times that the arms take turns")
    parser.add_argument("--seconds", type=float, default=8.0, help="of every arm, at least")
    parser.add_argument("--faces", type=int, default=96, help="faces to edit, each on one attribute")
    parser.add_argument("--train", type=int, default=400, help="faces to fit on")
    parser.add_argument("--no-quality", action="store_true", help="keep the quality of the last run")
    parser.add_argument("--no-speed", action="store_true", help="keep the speed of the last run")
    asked = parser.parse_args()
    before = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    found: dict[str, Any] = {
        "machine": machine.facts(),
        "settings": {"rounds": asked.rounds, "seconds": asked.seconds, "path": PATHS},
        "quality": before["quality"] if asked.no_quality else quality(asked.faces, asked.train),
        "speed": before["speed"] if asked.no_speed else speed(asked.rounds, asked.seconds),
    }
    found["bars"] = bars(found)
    told, _dropped = beside(found["bars"], before.get("bars", []))
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    for name, table in tables(found).items():
        page.fill(PAGE, name, table)
    print(told)
    print(f"written: {RESULT.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
