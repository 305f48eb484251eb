"""The whole graph on the avatars: forecast, run, run again, run with one image in a hundred more."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from benches.bars import Bar, bar
from benches.checkout import copy_checkout, timed_run
from boundaryflow.config import filled
from boundaryflow.runtime.metering import cost_path

OF_EACH_IMAGE = ("ingest", "label", "invert", "observe")
"""Stages that work on all images, or on a share of them; what the others work on is bounded by the params."""
IN_NETWORK = ("mixing", "invert", "observe", "edit")
TOLERANCE = 0.25


def measure(folder: Path) -> dict[str, Any]:
    """In a copy of the checkout."""
    root = copy_checkout(folder)
    params = root / "params.yaml"
    params.write_text(re.sub(r"(?m)^datasets: .*$", "datasets: [avatars]", params.read_text()))
    command = [sys.executable, "-c", _FORECAST]
    told = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = {"forecast": json.loads(told), "run_s": timed_run(root, "--quiet")}
    state = json.loads((root / ".dvc/tmp/boundaryflow/run.json").read_text())
    found["stages"] = {
        name.partition("@")[0]: {"wall_s": wall, "num_bytes": _size(root, name), **_cost(root, name)}
        for name, wall in state["seconds"].items()
    }
    found["again_s"] = timed_run(root, "--quiet")
    found["more"] = _with_more(root)
    return found


_FORECAST = """
from boundaryflow.estimate import as_json, forecast
from boundaryflow.config import load_params
print(as_json(forecast("avatars", load_params().dataset("avatars"))))
"""


def _cost(root: Path, name: str) -> dict[str, Any]:
    return json.loads(cost_path(root, name).read_text())


def _size(root: Path, name: str) -> int:
    stage, _, dataset = name.partition("@")
    return sum(path.stat().st_size for path in (root / "data" / stage / dataset).rglob("*") if path.is_file())


def _with_more(root: Path) -> dict[str, Any]:
    """One image in a hundred more, at the same mixing step: seconds of the stages, with those images and without."""
    path = root / "params.yaml"
    params = yaml.safe_load(path.read_text())
    dataset = filled(params["defaults"], params["data"]["avatars"])
    params["data"]["avatars"] = dataset
    t_mix = json.loads((root / "data/mixing/avatars/mixing.json").read_text())["t_mix"]
    dataset["mixing"] |= {"rule": "fixed", "fixed_t": t_mix}
    before = dataset["ingest"]["source"]["num_images"]
    found: dict[str, Any] = {"before": before, "after": before + before // 100}
    for name, num in (("nothing", before), ("images", found["after"])):
        dataset["ingest"]["source"]["num_images"] = num
        path.write_text(yaml.safe_dump(params, sort_keys=False))
        timed_run(root, "--quiet", "--force", *(f"--stage={stage}" for stage in OF_EACH_IMAGE))
        found[name] = {stage: _cost(root, f"{stage}@avatars") for stage in OF_EACH_IMAGE}
    return found


def bars(found: dict[str, Any]) -> list[Bar]:
    """What is asked of it."""
    stages, more = found["stages"], found["more"]
    compute = sum(stage["seconds"] for stage in stages.values())
    added, nothing = (sum(of["seconds"] for of in more[name].values()) for name in ("images", "nothing"))
    result = [
        bar("run: share of the wall time beside the stages' own work", 1 - compute / found["run_s"], 0.10, "<="),
        bar("run with nothing to do, s", found["again_s"], 10, "<="),
        bar("1 % more images: share of the full run, beyond what the stages take without new ones",
            (added - nothing) / found["run_s"], 0.02, "<="),
    ]  # fmt: skip
    result += [
        bar(f"{stage}: share of its time within the network",
            stages[stage]["network"]["seconds"] / stages[stage]["seconds"], 0.85, ">=")
        for stage in IN_NETWORK
    ]  # fmt: skip
    told = found["forecast"]["stages"]
    seconds = [sum(stage["seconds"] for stage in told), sum(stage["wall_s"] for stage in stages.values())]
    size = [sum(stage["num_bytes"] for stage in told), sum(stage["num_bytes"] for stage in stages.values())]
    calls = [sum(s["image_calls"] for s in told), sum(s["network"]["image_calls"] for s in stages.values())]
    for what, (expected, real) in (("time", seconds), ("disk", size), ("network calls", calls)):
        result.append(bar(f"--estimate: {what}, how far off", abs(expected / real - 1), TOLERANCE, "<="))
    return result


def forecast_rows(found: dict[str, Any]) -> list[list[str]]:
    """Stage by stage what was foretold, and what it was."""
    rows: list[list[str]] = []
    for told in found["forecast"]["stages"]:
        real = found["stages"][told["stage"]]
        rows.append(
            [
                told["stage"],
                f"{told['seconds']:.1f}", f"{real['wall_s']:.1f}", f"{told['seconds'] / real['wall_s'] - 1:+.0%}",
                f"{told['num_bytes'] / 1e6:.2f}", f"{real['num_bytes'] / 1e6:.2f}",
                f"{told['image_calls']:,}", f"{real['network']['image_calls']:,}",
            ]
        )  # fmt: skip
    return rows
