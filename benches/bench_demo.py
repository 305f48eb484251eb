"""The whole graph on the faces drawn from noise: seconds per stage, and what the edits are worth.

    make bench NAME=demo

Runs `boundaryflow run` in a copy of the checkout without results, then again, and writes
benches/results/demo.json and the table in the README. The copy links the virtual environment and
is removed at the end.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from benches import machine, page
from benches.checkout import copy_checkout, timed_run
from flows import summary

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benches/results/demo.json"
README = ROOT / "README.md"


def measure(folder: Path) -> dict[str, Any]:
    """Run twice, and collect what the runs left."""
    first_s = timed_run(folder)
    seconds = json.loads((folder / ".dvc/tmp/boundaryflow/run.json").read_text())["seconds"]
    again_s = timed_run(folder)
    metrics = folder / summary.metrics_path("faces")
    header, rows = summary.metrics_table(metrics)
    return {
        "machine": machine.facts(),
        "seconds": {"first_run": first_s, "second_run": again_s, "stages": seconds},
        "t_mix": json.loads((folder / "data/mixing/faces/mixing.json").read_text())["t_mix"],
        "metrics": json.loads(metrics.read_text()),
        "table": {"header": header, "rows": rows},
    }


def main() -> None:
    """Measure, write, and say where."""
    with tempfile.TemporaryDirectory(prefix="boundaryflow-bench-") as folder:
        found = measure(copy_checkout(Path(folder)))
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=2) + "\n")
    page.fill(README, "metrics", page.markdown_table(found["table"]["header"], found["table"]["rows"]))
    print(json.dumps(found["seconds"], indent=2))
    print(f"written: {RESULT.relative_to(ROOT)}, and the table in README.md")


if __name__ == "__main__":
    main()
