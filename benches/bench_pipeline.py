"""The pipeline around the engine: its overhead, its increments, its memory, and whether `--estimate` is right.

    make bench NAME=pipeline                       about an hour on two cores
    make bench NAME=pipeline ARGS="--only rows"    one part: demo, scale or rows; the figures of the others are kept

demo: the demo in a copy of the checkout. scale: stages, status, gc, review and export on up to 100,000 tiny pictures,
and ingest alone. rows: up to a million rows without a picture. Writes benches/results/pipeline.json after each part,
and its tables in docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benches import machine, page
from benches.bars import Bar, bar_table, beside
from benches.pipeline import daily, demo, rows, scale

ROOT = Path(__file__).parents[1]
RESULT, PAGE = ROOT / "benches/results/pipeline.json", ROOT / "docs/performance.md"
_OF_FORECAST = ["stage", "s told", "s taken", "off by", "MB told", "MB there", "calls told", "calls made"]


def _demo() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="boundaryflow-bench-") as folder:
        return demo.measure(Path(folder))


PARTS: dict[str, Callable[[], Any]] = {"demo": _demo, "scale": scale.measure, "rows": rows.measure_all}


def main() -> None:
    """Measure, write, and say where."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=PARTS, help="one part; the figures of the others are kept")
    asked = parser.parse_args()
    (ROOT / "out").mkdir(exist_ok=True)
    before: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    found: dict[str, Any] = before | {"machine": machine.facts()}
    for part in [asked.only] if asked.only else PARTS:
        found[part] = PARTS[part]()
        _write(found)
    print(beside(found["bars"], before.get("bars", []))[0])
    print(f"written: {RESULT.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}")


def _write(found: dict[str, Any]) -> None:
    """The bars of what was measured so far, the JSON and the tables."""
    judges: dict[str, Callable[[Any], list[Bar]]] = {"demo": demo.bars, "scale": scale.bars, "rows": rows.bars}
    found["bars"] = [bar for part, judge in judges.items() if part in found for bar in judge(found[part])]
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    page.fill(PAGE, "pipeline bars", bar_table(found["bars"]))
    if "demo" in found:
        page.fill(PAGE, "forecast", page.markdown_table(_OF_FORECAST, demo.forecast_rows(found["demo"])))
    for name, steps, sizes in (
        ("pictures", (*scale.STAGES, *daily.PARTS), found.get("scale", {}).get("memory", [])),
        ("rows", ("label", "plan", *rows.PARTS), found.get("rows", [])),
    ):
        if sizes and all(step in size for step in steps for size in sizes):
            page.fill(PAGE, name, curve_table(steps, sizes))


def curve_table(steps: Sequence[str], sizes: Sequence[Mapping[str, Any]]) -> str:
    """Seconds and peak memory of each step, by the number of rows."""
    header = ["step", *(f"{of['num']:,}: {what}" for what in ("s", "MiB") for of in sizes)]
    lines = [
        [step.replace("_", " "), *(f"{of[step]['seconds']:.1f}" for of in sizes),
         *(f"{of[step]['peak_mib']:.0f}" for of in sizes)]
        for step in steps
    ]  # fmt: skip
    return page.markdown_table(header, lines)


if __name__ == "__main__":
    main()
