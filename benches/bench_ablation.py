"""What each part of the guided edit is worth: the default, and the default with one part changed.

    make bench NAME=ablation

Writes benches/results/ablation.json and the table in docs/quality.md.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

from benches import machine, page
from benches.bench_quality import PAGE, ROOT, settings_of
from benches.quality.calls import Counted
from benches.quality.guided import Guided
from benches.quality.measure import judge
from benches.quality.pictures import Faces, Latents
from boundaryflow.avatars import ATTRIBUTES
from boundaryflow.evaluation.panel import load_judges
from boundaryflow.pixels import to_u8
from boundaryflow.runtime.device import device
from boundaryflow.runtime.frozen_model import open_model

RESULT = ROOT / "benches/results/ablation.json"
CHANGES: dict[str, dict[str, Any]] = {
    "default": {},
    "hyperplanes not averaged": {"neighbours": 0},
    "hyperplanes of AUC 0.8 and more": {"min_auc": 0.8},
    "every other noise level": {"stride": 2},
    "one iteration": {"num_iterations": 1},
    "one iteration over every other noise level": {"stride": 2, "num_iterations": 1},
    "no Tweedie projection": {"tweedie_projection": False},
    "nothing preserved": {"preserve": 0.0},
    "as for photographs": {"gain": 1.75, "preserve_residual": 0.3, "num_iterations": 1, "stride": 2},
    "small changes kept": {"soft_threshold": 0.0},
    "steps of any length": {"max_step": 0.0},
    "certainty 0.5": {"certainty": 0.5},
}
MEASURES = ("success", "drift", "identity", "rmse_inside", "rmse_outside")


def measure(num_images: int, num_train: int) -> dict[str, Any]:
    """Every change at a strength of 1."""
    weights = ROOT / "data/pretrained"
    model = open_model(str(weights / "avatars64"), "auto")
    judges = load_judges(weights / "avatars64_judges", device())
    test, settings = Faces.draw(2, num_images), settings_of("avatars")
    latents = Latents(model, Faces.draw(0, num_train), Faces.draw(1, 200), settings["features"])
    rows: dict[str, Any] = {}
    facts = {"images": num_images, "num_train": num_train, **settings}
    result = {"machine": machine.facts(), "settings": facts, "rows": rows}
    for name, change in CHANGES.items():
        changed = {**settings, **{part: _changed(settings[part], change) for part in ("guided", "boundary")}}
        counter = Counted(model)
        guided = Guided(counter, latents, num_train, changed)
        found = {a: judge(judges, test, [a], to_u8(guided.edit(test, [a], [1.0]))) for a in ATTRIBUTES}
        calls = counter.per_strength(num_images * len(ATTRIBUTES), 1)
        rows[name] = {"change": change, "calls": round(calls, 1), "attributes": found}
        RESULT.write_text(json.dumps(result) + "\n")  # what was measured is there, should the rest be cut off
        print(name, flush=True)
    return result


def _changed(section: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    return {**section, **{key: value for key, value in change.items() if key in section}}


def table(found: dict[str, Any]) -> str:
    """One line per change: means over attributes, and the median over attributes of the median recovery."""
    header = ["", "calls", "median recovery", *MEASURES]
    lines: list[list[str]] = []
    for name, row in found["rows"].items():
        every = row["attributes"].values()
        recovery = np.median([np.nanmedian(of["recovery"][0]) for of in every])
        means = [f"{np.mean([np.nanmean(of[measure][0]) for of in every]):.3f}" for measure in MEASURES]
        lines.append([name, f"{row['calls']:.0f}", f"{recovery:.2f}", *means])
    return page.markdown_table(header, lines)


def main() -> None:
    """Measure, write, and say where."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=16, help="faces to edit")
    parser.add_argument("--num-train", type=int, default=1000, help="faces to fit on")
    asked = parser.parse_args()
    page.fill(PAGE, "ablation", table(measure(asked.images, asked.num_train)))
    print(f"written: {RESULT.relative_to(ROOT)}, and the table in {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
