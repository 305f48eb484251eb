"""The pipeline around the engine: its overhead, its increments, its memory, and whether `--estimate` is right.

    make bench NAME=pipeline                       about half an hour on two cores
    make bench NAME=pipeline ARGS="--only scale"   memory, planning and ingest alone

Runs the demo in a copy of the checkout, and stages on up to 100,000 tiny pictures. Writes
benches/results/pipeline.json and its tables in docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benches import machine, page
from benches.bars import bar_table, beside
from benches.pipeline import demo, scale

ROOT = Path(__file__).parents[1]
RESULT, PAGE = ROOT / "benches/results/pipeline.json", ROOT / "docs/performance.md"
_OF_FORECAST = ["stage", "s told", "s taken", "off by", "MB told", "MB there", "calls told", "calls made"]


def main() -> None:
    """Measure, write, and say where."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=["demo", "scale"], help="one half; the figures of the other one are kept")
    asked = parser.parse_args()
    before = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    found: dict[str, Any] = {"machine": machine.facts(), **{half: before.get(half) for half in ("demo", "scale")}}
    if asked.only != "scale":
        with tempfile.TemporaryDirectory(prefix="boundaryflow-bench-") as folder:
            found["demo"] = demo.measure(Path(folder))
    if asked.only != "demo":
        found["scale"] = scale.measure()
    found["bars"] = [bar for room in (demo, scale) for bar in room.bars(found[room.__name__.rpartition(".")[2]])]
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    page.fill(PAGE, "pipeline bars", bar_table(found["bars"]))
    page.fill(PAGE, "forecast", page.markdown_table(_OF_FORECAST, demo.forecast_rows(found["demo"])))
    print(beside(found["bars"], before.get("bars", []))[0])
    print(f"written: {RESULT.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
