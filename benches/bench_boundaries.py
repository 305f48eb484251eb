"""Boundaries of many attributes beside scikit-learn's linear SVC on the latents themselves, as the release fits them.

    make bench NAME=boundaries                        about ten minutes on two cores
    make bench NAME=boundaries ARGS="--large 20000"   and 20,000 latents: 8 GB of disk

Latents are drawn: noise of the paper's ε-space at 256 x 256 with a difference of class means for every attribute. They
lie in shards, as the stage has them. scikit-learn gets one attribute, since each of them takes it minutes, and its
time counts once for every attribute. Writes benches/results/boundaries.json and its table in docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.svm import SVC

from benches import machine, page
from benches.alone import alone
from benches.bars import bar, bar_table, beside
from boundaryflow.boundary import Gram, Labels, fit_boundaries
from boundaryflow.runtime.metering import peak_mib
from boundaryflow.store.shard_rows import ShardRows
from boundaryflow.store.shards import complete_shard, load_items, plan_shards

ROOT = Path(__file__).parents[1]
RESULT, PAGE = ROOT / "benches/results/boundaries.json", ROOT / "docs/performance.md"
SHAPE, NUM_ATTRIBUTES, DELTA = (3, 256, 256), 40, 12.0


def _items(num: int) -> list[str]:
    return [f"item{number:06d}" for number in range(num)]


def _labels(num: int) -> NDArray[np.bool_]:
    """[n,A]."""
    return np.random.default_rng(1).random((num, NUM_ATTRIBUTES)) < 0.5


def draw(folder: Path, num: int, shape: tuple[int, ...]) -> None:
    """Shards of latents: noise, and for every attribute a direction of its own."""
    has, place = _labels(num), {item: row for row, item in enumerate(_items(num))}
    directions = torch.randn(NUM_ATTRIBUTES, *shape, generator=torch.Generator().manual_seed(2))
    directions *= DELTA / directions[0].numel() ** 0.5
    for task in plan_shards(folder, _items(num), "bench", 64).tasks:
        rows = [place[item] for item in task.missing]
        noise = torch.randn(len(rows), *shape, generator=torch.Generator().manual_seed(rows[0]))
        signs = torch.from_numpy(np.where(has[rows], 0.5, -0.5)).float()
        noise += torch.tensordot(signs, directions, 1)
        complete_shard(task, {"x_mix": noise.half()})


def _split(num: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.arange(num * 7 // 10), np.arange(num * 7 // 10, num)


def ours(folder: Path, num: int) -> dict[str, Any]:
    """All attributes, from the shards to the hyperplanes."""
    base = _peak_gib()
    started = time.perf_counter()
    rows = ShardRows(folder, _items(num), "x_mix")
    read = time.perf_counter()
    gram = Gram.of(rows)
    multiplied = time.perf_counter()
    (train, held_out), has = _split(num), _labels(num)
    known = [Labels(str(k), has[:, k], train, held_out) for k in range(NUM_ATTRIBUTES)]
    hyperplanes = fit_boundaries(gram, known, space="eps", t=500, model_sha256="f" * 64)
    ended = time.perf_counter()
    return {
        "seconds": ended - started,
        "check_s": read - started,
        "gram_s": multiplied - read,
        "fit_s": ended - multiplied,
        "peak_gib": _peak_gib(),
        "peak_before_gib": base,
        "auc": [hyperplane.calibration.auc for hyperplane, _report in hyperplanes],
    }


def scikit_learn(folder: Path, num: int) -> dict[str, Any]:
    """One attribute, as the release does it; reading the latents is not counted."""
    latents = load_items(folder, _items(num), ["x_mix"])["x_mix"].flatten(1).float().numpy()
    (train, held_out), has = _split(num), _labels(num)[:, 0]
    started = time.perf_counter()
    svm = SVC(kernel="linear", C=1.0).fit(latents[train], has[train])
    seconds = time.perf_counter() - started
    scores = svm.decision_function(latents[held_out])
    return {"seconds": seconds, "auc": float(roc_auc_score(has[held_out], scores)), "peak_gib": _peak_gib()}


def _peak_gib() -> float:
    return peak_mib() / 1024


def _alone(what: str, folder: Path, num: int) -> dict[str, Any]:
    """One side, with its peak of memory."""
    found = alone("benches.bench_boundaries", "--part", what, folder, num)
    print(what, num, {key: value for key, value in found.items() if key != "auc"}, flush=True)
    return found


def measure(num: int, large: int, folder: Path) -> dict[str, Any]:
    """Both, and ours with many more."""
    found: dict[str, Any] = {}
    if num:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            draw(Path(name), num, SHAPE)
            found |= {"ours": _alone("ours", Path(name), num), "scikit-learn": _alone("scikit_learn", Path(name), num)}
    if large:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            draw(Path(name), large, SHAPE)
            found["ours, large"] = _alone("ours", Path(name), large)
    return found


def main() -> None:
    """Measure, write, and say where."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--num", type=int, default=2000, help="latents; 0 keeps the last figures")
    parser.add_argument("--large", type=int, default=0, help="and so many, ours only; 0 keeps the last figures")
    parser.add_argument("--folder", type=Path, default=ROOT / "out", help="where the latents lie for a while")
    parser.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part:
        what, folder, num = asked.part
        print(json.dumps({"ours": ours, "scikit_learn": scikit_learn}[what](Path(folder), int(num))))
        return
    asked.folder.mkdir(exist_ok=True)
    before = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    samples = before.get("samples", {}) | measure(asked.num, asked.large, asked.folder)
    mine, theirs = samples["ours"], samples["scikit-learn"]
    found: dict[str, Any] = {
        "machine": machine.facts(),
        "settings": {"num": asked.num, "large": asked.large, "shape": SHAPE, "attributes": NUM_ATTRIBUTES},
        "samples": samples,
        "bars": [
            bar(f"{NUM_ATTRIBUTES} boundaries: times faster than scikit-learn's SVC",
                NUM_ATTRIBUTES * theirs["seconds"] / mine["seconds"], 50, ">="),
            bar("difference of the held-out AUC", abs(mine["auc"][0] - theirs["auc"]), 0.005, "<="),
            bar("peak memory, GiB", mine["peak_gib"], 2, "<="),
        ],
    }  # fmt: skip
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    page.fill(PAGE, "boundaries bars", bar_table(found["bars"]))
    print(beside(found["bars"], before.get("bars", []))[0])
    print(f"written: {RESULT.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
