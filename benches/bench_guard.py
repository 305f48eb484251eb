"""Has anything become slower? Ratios that take minutes, beside the committed ones.

    make bench                 some minutes on two cores; ends with status 1 if a ratio dropped by over 15 %
    make bench ARGS=--report   the same table, and status 0: for a CI that only reports
    make bench ARGS=--keep     and the new ones are to be committed

Every ratio is taken within one run, against something that this project does not change: the release's loop, diffusers,
scikit-learn, plain decoding, plain hashing, an empty Python. Reads and, with --keep, writes benches/results/guard.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benches import bench_boundaries, machine
from benches.bars import Bar, bar, beside
from benches.bench_engine import speed
from benches.checkout import ROOT
from benches.engine.arms import MODELS
from benches.pipeline import scale
from boundaryflow.runtime.device import resolve_dtype

RESULT = ROOT / "benches/results/guard.json"
_NUM_ATTRIBUTES = bench_boundaries.NUM_ATTRIBUTES
_PATHS = {"avatars64": 6, "paper256": 2}  # timesteps; every call costs the same
_NUM_LATENTS, _NUM_PICTURES, _NUM_ROWS = 500, 1500, 200_000


def _engine() -> list[Bar]:
    """Beside the loops in what the hardware computes in; float32 on avatars in any case."""
    dtype = str(resolve_dtype("auto")).removeprefix("torch.")
    left_out = [("paper256", "diffusers")]  # a minute and more, and the release's loop says nearly the same
    if dtype == "float32":
        left_out += [(model, "diffusers bfloat16") for model in MODELS]  # emulated
    models = speed(1, 3.0, left_out, _PATHS)["models"]
    rates = {model: {arm: of["calls_per_s"] for arm, of in about["arms"].items()} for model, about in models.items()}
    return [
        bar(f"{model} in {dtype}: image-calls/s, by {arm}", of["ours"] / of[arm], 1, ">=")
        for model, of in rates.items()
        for arm in of
        if arm != "ours"
    ]


def _boundaries() -> list[Bar]:
    with tempfile.TemporaryDirectory(dir=ROOT / "out") as folder:
        found = bench_boundaries.measure(_NUM_LATENTS, 0, Path(folder))
    faster = _NUM_ATTRIBUTES * found["scikit-learn"]["seconds"] / found["ours"]["seconds"]
    return [bar(f"{_NUM_ATTRIBUTES} boundaries of {_NUM_LATENTS} latents, by scikit-learn's SVC", faster, 1, ">=")]


def _pipeline() -> list[Bar]:
    ingest, planning = scale.ingest(_NUM_PICTURES), scale.planning(_NUM_ROWS)
    items = [f"{number:016x}" for number in range(_NUM_ROWS)]
    started = time.perf_counter()
    sorted(hashlib.sha256(item.encode()).digest() for item in items)
    hashed = time.perf_counter() - started
    return [
        bar(f"ingest of {_NUM_PICTURES:,} JPEGs, by decoding alone", ingest["decode_s"] / ingest["stage_s"], 0, ">="),
        bar(f"{_NUM_ROWS:,} rows planned, by hashing and sorting them", hashed / planning["seconds"], 0, ">="),
        bar("`--help`, by a Python with click", scale.start_s("-c", "import click") / scale.help_s(), 0, ">="),
    ]


def _steady(group: Callable[[], list[Bar]], committed: list[Bar]) -> list[Bar]:
    """What a group measures; twice, and the better of the two, where it seems to have dropped: machines are noisy."""
    found = group()
    if beside(found, committed)[1]:
        found = [max(pair, key=lambda b: b["value"]) for pair in zip(found, group(), strict=True)]
    return found


def main() -> None:
    """Measure, compare, and say what became slower."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--keep", action="store_true", help="write the ratios of this run")
    only.add_argument("--report", action="store_true", help="end with status 0 in any case")
    asked = parser.parse_args()
    (ROOT / "out").mkdir(exist_ok=True)
    committed = json.loads(RESULT.read_text())["bars"] if RESULT.exists() else []
    started = time.monotonic()
    found = [b for group in (_pipeline, _boundaries, _engine) for b in _steady(group, committed)]
    table, dropped = beside(found, committed)
    print(f"{table}\n\n{time.monotonic() - started:.0f} s")
    if asked.keep:
        names = {b["name"] for b in found}
        others = [b for b in committed if b["name"] not in names]  # of machines that compute in another dtype
        RESULT.write_text(json.dumps({"machine": machine.facts(), "bars": [*found, *others]}, indent=1) + "\n")
        print(f"written: {RESULT.relative_to(ROOT)}")
    elif dropped:
        print(f"slower than committed by over 15 %: {', '.join(dropped)}", file=sys.stderr)
        sys.exit(0 if asked.report else 1)


if __name__ == "__main__":
    main()
