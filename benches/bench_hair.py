"""Worst-group accuracy on CelebA, blond hair against gender (Sagawa et al. 2020), with and without our edits.

    make bench NAME=hair ARGS="CELEBA"

CELEBA is a folder with img_align_89x109.tar and list_attr_celeba.txt. In the training set 98 % of the blond people are
women and 98 % of the others are men. A small classifier learns to tell blond hair from it: as it is, with classic
augmentation, with re-weighting, with copies of the rare pictures, and with our edits, which know no label but those of
that set. Writes benches/results/hair.json and a table in docs/augmentation.md; keeps its work in out/bench_hair, and
goes on from there; edits.png in it shows some. People in the pictures are real: publish none of them, edited or not.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.utils import save_image

from benches import machine, page
from benches.augmentation import hair
from benches.augmentation.classifier import BATCH
from benches.augmentation.hair_arms import ARMS, BOTH, NUM_STEPS, OURS, WEIGHTED, Arm, answers, joined, training_sets
from benches.augmentation.hair_check import Judge, accepted, built_in, cross_fitted, seen_by
from benches.augmentation.hair_edits import ROUTES, Edits, Route, make_edits
from benches.augmentation.sets import Pictures
from benches.augmentation.worst_group import WorstGroup
from benches.bench_quality import settings_of
from benches.checkout import ROOT

RESULT, PAGE = ROOT / "benches/results/hair.json", ROOT / "docs/augmentation.md"
NUM_EDITS, STRENGTHS, MIN_PROBABILITY = 75, (1.0, 1.5), 0.5
GROUPS = ("not blond, woman", "not blond, man", "blond, woman", "blond, man")


def measure(celeba: Path, num_edits: int, seeds: Sequence[int], work: Path, tested_on: str) -> dict[str, Any]:
    """Fit, edit, check, and train every arm with every seed.

    Args:
        celeba: Folder of the pictures.
        num_edits: Pictures to edit along each route.
        seeds: Of the trainings.
        work: What was made is kept here.
        tested_on: `test`, or `val` while the bench is being changed.
    """
    parts = hair.read_parts(celeba, seed=0)
    hair.fit_project(work / "project", celeba, parts)
    made = {route: make_edits(work / "project", parts, route, num_edits, STRENGTHS) for route in ROUTES}
    draw(work / "edits.png", parts.pictures, made)
    real, test = parts.of("train"), parts.of(tested_on)
    judges = {"edits": cross_fitted(real, parts.numbers["train"]), "edits, built-in judge": built_in()}
    edits = {name: _accepted(made, judge) for name, judge in judges.items()}
    sets = training_sets(real, edits)
    right: dict[str, NDArray[np.bool_]] = {}
    for name, arm in ARMS.items():
        train = sets[arm.learns_from]
        right[name] = np.stack([_kept(work / "answers", arm, train, test, seed) for seed in seeds])
        print(f"{name}: {np.round([right[name][:, test.group == g].mean() for g in range(4)], 3)}", flush=True)
    worst = WorstGroup(right, test.group)
    return {
        "machine": machine.facts(),
        "settings": {
            "train": hair.TRAIN, "calibration": hair.NUM_CALIBRATION, "test": np.bincount(test.group).tolist(),
            "tested_on": tested_on, "seeds": list(seeds), "steps": NUM_STEPS, "batch": BATCH, "num_edits": num_edits,
            "strengths": STRENGTHS, "min_probability": MIN_PROBABILITY, **settings_of("faces"),
        },
        "edits": {route.name: about(parts.pictures, route, of_route) for route, of_route in made.items()},
        "sizes": {name: np.bincount(sets[arm.learns_from].group, minlength=4).tolist() for name, arm in ARMS.items()},
        "arms": {name: _of_arm(worst, name, row) for row, name in enumerate(ARMS)},
        "bars": [
            _bar("worst group: our edits above re-weighting", worst.beyond(OURS, WEIGHTED)),
            _bar("worst group: our edits and re-weighting above each alone", worst.beyond(BOTH, OURS, WEIGHTED)),
        ],
    }  # fmt: skip


def draw(file: Path, pictures: Pictures, made: dict[Route, Edits]) -> None:
    """Some pictures, each followed by its edits: to be looked at, not published."""
    some = [
        torch.cat([pictures.images_u8[edits.rows[:16], None], edits.edited[:16]], 1).flatten(0, 1)
        for edits in made.values()
    ]
    save_image(torch.cat(some).float() / 255, file, nrow=4 * (1 + len(STRENGTHS)))


def _accepted(made: dict[Route, Edits], judge: Judge) -> Pictures:
    """The edits that a judge accepts, of all routes."""
    first, second = (
        accepted(edits, route, seen_by(judge, edits), STRENGTHS, MIN_PROBABILITY) for route, edits in made.items()
    )
    return joined(first, second)


def _kept(folder: Path, arm: Arm, train: Pictures, test: Pictures, seed: int) -> NDArray[np.bool_]:
    """[N] the answers of one training, or those of an earlier one on the same pictures."""
    key = sha256(f"{arm} {seed} {NUM_STEPS} {BATCH}".encode())
    for pictures in (train, test):
        key.update(pictures.images_u8.numpy().tobytes() + pictures.group.tobytes())
    file = folder / f"{key.hexdigest()[:24]}.npy"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        np.save(file, answers(arm, train, test, seed))
    return np.load(file)


def about(pictures: Pictures, route: Route, edits: Edits) -> dict[str, Any]:
    """What the built-in judge sees in the edits of a route, of the group they are to belong to; decides nothing."""
    judge = built_in()
    seen, before = seen_by(judge, edits), judge(edits.rows, pictures.images_u8[edits.rows])
    reached = (seen > 0.5) == [route.group >= 2, route.group % 2 == 1]
    return {
        "num": len(edits.rows),
        "probabilities": ["blond_hair", "male"],
        "before": np.round(before.mean(0), 3).tolist(),
        "by_strength": np.round(seen.mean(0), 3).tolist(),
        "reached_by_strength": np.round(reached.mean(0), 3).tolist(),
        "both_reached_by_strength": np.round(reached.all(2).mean(0), 3).tolist(),
    }


def _of_arm(worst: WorstGroup, name: str, row: int) -> dict[str, Any]:
    value, interval = worst.of(name)
    groups = np.round(worst.groups[row], 4)
    return {"worst": value, "interval": interval, "groups": groups.tolist(), "mean": round(float(groups.mean()), 4)}


def _bar(name: str, found: tuple[float, list[float]]) -> dict[str, Any]:
    value, interval = found
    return {"name": name, "value": value, "interval": interval, "limit": 0.0, "direction": ">=", "met": value > 0}


def table(found: dict[str, Any]) -> str:
    """A row per arm: accuracies in percent, means over the trainings."""
    rows: list[list[str]] = []
    for name, arm in found["arms"].items():
        low, high = arm["interval"]
        groups = 100 * np.array(arm["groups"]).mean(0)
        cells = [f"{100 * arm['worst']:.1f} [{100 * low:.1f}, {100 * high:.1f}]", f"{100 * arm['mean']:.1f}"]
        rows.append([name, " + ".join(map(str, found["sizes"][name])), *cells, *(f"{value:.1f}" for value in groups)])
    return page.markdown_table(["learned from", "pictures", "worst group", "mean of groups", *GROUPS], rows)


def main() -> None:
    """Measure, write, and say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("celeba", type=Path, help="folder of the archive and the attributes")
    parser.add_argument("--edits", type=int, default=NUM_EDITS, help="pictures to edit along each of the two routes")
    parser.add_argument("--seeds", type=int, default=5, help="how often each classifier is trained")
    parser.add_argument("--val", action="store_true", help="test on the pictures kept for that, and write nothing")
    parser.add_argument("--work", type=Path, default=ROOT / "out/bench_hair")
    args = parser.parse_args()
    found = measure(args.celeba, args.edits, range(args.seeds), args.work, "val" if args.val else "test")
    print(table(found))
    print(json.dumps([found["bars"], found["edits"]], indent=2))
    if args.val:
        return
    RESULT.write_text(json.dumps(found, indent=2) + "\n")
    page.fill(PAGE, "hair", table(found))
    print(f"written: {RESULT.relative_to(ROOT)}, and the table in {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
