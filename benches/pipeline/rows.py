"""What stands in tables alone: up to a million rows without a picture, and what it costs to work with them.

    python -m benches.pipeline.rows NUM

Prints one line of JSON: seconds and memory of label from a table, planning, status, gc, review, and an export up to the
first picture.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benches.alone import alone
from benches.bars import Bar, bar
from benches.checkout import ROOT, copy_checkout
from benches.pipeline import daily, scale
from benches.pipeline.daily import DATASET
from boundaryflow.store.catalog.edit import EDIT, EDITS
from boundaryflow.store.catalog.evaluate import EVALUATE, PER_IMAGE
from boundaryflow.store.catalog.ingest import INGEST, MANIFEST
from boundaryflow.store.shards import ShardTask, complete_shard
from boundaryflow.store.tables import write_json
from tests.small_project import write_project

ROWS = (10_000, 100_000, 1_000_000)
PARTS = ("status", "gc", "review", "export_plan")
STRENGTHS = (0.0, 1.0)
MAX_GROWTH = 1.3
"""Times as long for ten times the rows as a step that takes time in proportion: more is super-linear."""
_SHARD = "shard-0of1-000000000000.safetensors"


def measure(num: int) -> dict[str, Any]:
    """A data set of so many rows: what each command takes."""
    with tempfile.TemporaryDirectory(dir=ROOT / "out") as name:
        root = copy_checkout(Path(name))
        _write(root, num)
        found = {"num": num, "label": scale.run_stage(root, "label")}
        found["plan"] = alone("benches.pipeline.scale", "planning", num)
        return found | daily.measure(root, PARTS)


def _write(root: Path, num: int) -> None:
    """The tables of a finished run: half of the images are edited, at two strengths; and one shard of one item."""
    write_project(
        root, ingest__source={"kind": "folder"}, label=scale.LABELS, edit__edits={"bright": {"bright": "flip"}},
        evaluate__counterfactuals=False,
    )  # fmt: skip
    items = sorted(f"{number * 2654435761 % 2**64:016x}" for number in range(num))
    names = [f"{number:07d}.png" for number in range(num)]
    has = np.arange(num) % 2
    splits = np.resize(np.repeat(["train", "test", "train", "val"], 2), num)
    about = {"width_px": 16, "height_px": 16, "format": "PNG", "mode": "RGB", "status": "ok", "reason": ""}
    manifest = pd.DataFrame({"item_id": items, "source": names, "split": splits, **about, "duplicates_of": ""})
    MANIFEST.write(INGEST.folder(DATASET, root), manifest)
    write_json(INGEST.facts_path(DATASET, root), {"cache_key": "0" * 32, "num_ok": num, "num_bad": 0})
    raw = root / "data/raw" / DATASET
    raw.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"file": names, "bright": has}).to_csv(raw / "labels.csv", index=False)
    edited = [item for item, is_edited in zip(items, has, strict=True) if is_edited]
    of_item = {"item_id": np.repeat(edited, len(STRENGTHS)), "edit": "bright", "method": "guided"}
    rows = pd.DataFrame({**of_item, "strength": np.tile(STRENGTHS, len(edited))})
    place = {"targets": '{"bright": -1}', "shard": f"bright/{_SHARD}", "row": 0}
    index = np.tile(np.arange(len(STRENGTHS)), len(edited))
    EDITS.write(EDIT.folder(DATASET, root), rows.assign(strength_index=index, **place))
    write_json(EDIT.facts_path(DATASET, root), {"method": "guided"})
    chance = np.random.default_rng(0).random((2, len(rows)), np.float32)
    judged = rows.assign(target_success=chance[0] > 0.5, target_probability=chance[0], drift=chance[1])  # fmt: skip
    PER_IMAGE.write(EVALUATE.folder(DATASET, root), judged)
    first = (edited[0],)
    for folder, name, shape in (
        (INGEST.folder(DATASET, root), "pixels", (1, 3, 16, 16)),
        (EDIT.folder(DATASET, root) / "bright", "edited", (1, len(STRENGTHS), 3, 16, 16)),
    ):
        task = ShardTask(folder / _SHARD, "0" * 32, first, ("",), (), first)
        complete_shard(task, {name: torch.zeros(shape, dtype=torch.uint8)})


def measure_all(sizes: Sequence[int] = ROWS) -> list[dict[str, Any]]:
    """Each size in a process of its own."""
    found: list[dict[str, Any]] = []
    for num in sizes:
        found.append(alone("benches.pipeline.rows", num))
        print("rows", found[-1], flush=True)
    return found


def bars(found: list[dict[str, Any]]) -> list[Bar]:
    """Whether anything grows faster than the rows, once the start of Python is taken off."""
    if len(found) < len(ROWS):
        return []
    small, middle, large = found[-3:]
    steps = ("label", "plan", *PARTS)
    growth = {
        step: (large[step]["cpu_s"] - middle[step]["cpu_s"]) / max(middle[step]["cpu_s"] - small[step]["cpu_s"], 0.05)
        for step in steps
    }
    worst = max(steps, key=lambda step: growth[step])
    ratio = (large["num"] - middle["num"]) / (middle["num"] - small["num"])
    most = max(steps, key=lambda step: large[step]["peak_mib"])
    return [
        bar(f"{large['num']:,} rows: growth of the processor's time in the worst step ({worst}), by that of the rows",
            growth[worst] / ratio, MAX_GROWTH, "<="),
        bar(f"{large['num']:,} rows: peak memory of the worst step ({most}), GiB", large[most]["peak_mib"] / 1024, 4,
            "<="),
    ]  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    """Measure a size."""
    (ROOT / "out").mkdir(exist_ok=True)
    print(json.dumps(measure(int(arguments[0]))))


if __name__ == "__main__":
    main(sys.argv[1:])
