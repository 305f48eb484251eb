"""A classifier that must not fall for a coincidence: worst-group accuracy with and without our augmentation.

    make bench NAME=augmentation

In the training set 95 % of the smiling faces wear a hat and 95 % of the others do not. `boundaryflow augment` makes
the two independent, with hyperplanes fitted on that very set. The same small classifier learns to tell smiles from the
set as it is, with our edits, with classic augmentation, with oversampling, and from as many real faces that are
balanced, the ceiling. Tested on real faces, as many of each group. Writes benches/results/augmentation.json and the
table in docs/augmentation.md; keeps its work in out/bench_augmentation, and goes on from there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benches import machine, page
from benches.augmentation.classifier import BATCH, NUM_STEPS, train_and_test
from benches.augmentation.sets import LABEL, OTHER, ROOT, balanced, mended

RESULT, PAGE = ROOT / "benches/results/augmentation.json", ROOT / "docs/augmentation.md"
AGREEMENT = 0.95
NUM_TEST = 2000
GOAL = 0.5
TOLD = ("before", "wanted", "added", "tried", "kept", "phi", "judged_by")
ARMS = {
    "the set as it is": {},
    "classic augmentation": {"classic": True},
    "oversampling": {"oversampled": True},
    "our edits": {},
    "our edits and classic": {"classic": True},
    "balanced real faces": {},
}


def measure(num_images: int, seeds: Sequence[int], work: Path) -> dict[str, Any]:
    """Train every arm with every seed."""
    everything, record = mended(work, num_images, AGREEMENT, seed=11)
    as_is = everything.take(~everything.synthetic)
    ceiling, test = balanced(len(everything.label), seed=12), balanced(NUM_TEST, seed=13)
    sets = {name: everything if "our" in name else ceiling if "real" in name else as_is for name in ARMS}
    runs: dict[str, list[dict[str, Any]]] = {}
    for name, how in ARMS.items():
        runs[name] = [train_and_test(sets[name], test, seed, **how) for seed in seeds]
        print(f"{name}: worst group {np.mean([run['worst'] for run in runs[name]]):.3f}", flush=True)
    return {
        "machine": machine.facts(),
        "settings": {"num_images": num_images, "agreement": AGREEMENT, "num_test": NUM_TEST, "seeds": list(seeds),
                     "label": LABEL, "other": OTHER, "steps": NUM_STEPS, "batch": BATCH},
        "augmentation": {key: record[key] for key in TOLD},
        "sizes": {name: np.bincount(pictures.group, minlength=4).tolist() for name, pictures in sets.items()},
        "runs": runs,
        "bars": [_bar(runs)],
    }  # fmt: skip


def _bar(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The share of the way from the set as it is to the ceiling that our edits make good."""
    worst = {name: np.array([run["worst"] for run in of_arm]) for name, of_arm in runs.items()}
    bare, ours, top = (worst[name] for name in ("the set as it is", "our edits", "balanced real faces"))
    rng = np.random.default_rng(0)
    draws = [rng.integers(len(bare), size=len(bare)) for _ in range(2000)]
    shares = [float((ours[d].mean() - bare[d].mean()) / (top[d].mean() - bare[d].mean())) for d in draws]
    closed = float((ours.mean() - bare.mean()) / (top.mean() - bare.mean()))
    low, high = np.quantile(shares, [0.025, 0.975])
    name = "share of the gap in worst-group accuracy that our edits close"
    return {"name": name, "value": round(closed, 3), "interval": [round(float(low), 3), round(float(high), 3)],
            "limit": GOAL, "direction": ">=", "met": closed >= GOAL}  # fmt: skip


def table(found: dict[str, Any]) -> str:
    """A row per arm: accuracies in percent, mean over seeds and their standard deviation."""
    names = [f"{LABEL}, {OTHER}", f"{LABEL}, no {OTHER}", f"not {LABEL}, {OTHER}", f"not {LABEL}, no {OTHER}"]
    header = ["learned from", "faces", "worst group", "all", *names]
    rows: list[list[str]] = []
    for name, runs in found["runs"].items():
        groups = np.array([run["groups"] for run in runs]).mean(0)[[3, 2, 1, 0]]
        worst, mean = (np.array([run[key] for run in runs]) for key in ("worst", "mean"))
        cells = [f"{100 * worst.mean():.1f} ± {100 * worst.std():.1f}", f"{100 * mean.mean():.1f}"]
        rows.append([name, str(sum(found["sizes"][name])), *cells, *(f"{100 * value:.1f}" for value in groups)])
    return page.markdown_table(header, rows)


def main() -> None:
    """Measure, write, and say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-images", type=int, default=800, help="faces in the spoilt set")
    parser.add_argument("--seeds", type=int, default=5, help="how often each classifier is trained")
    parser.add_argument("--work", type=Path, default=ROOT / "out/bench_augmentation")
    args = parser.parse_args()
    found = measure(args.num_images, range(args.seeds), args.work)
    RESULT.write_text(json.dumps(found, indent=2) + "\n")
    page.fill(PAGE, "augmentation", table(found))
    print(json.dumps(found["bars"], indent=2))
    print(f"written: {RESULT.relative_to(ROOT)}, and the table in {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
