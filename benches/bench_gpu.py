"""Speed on a GPU: invert and edit beside diffusers' loops and the release's, and the guided edit, at 64 and 256 pixels.

    make bench NAME=gpu                              some minutes on a GPU
    make bench NAME=gpu ARGS="--from out/gpu"        what `python -m benches.engine.gpu out/gpu` and, if it was run,
                                                     `python -m benches.engine.layouts out/gpu` found elsewhere

Writes benches/results/gpu.json and gpu_layouts.json, and their tables in docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from benches import page
from benches.checkout import ROOT
from benches.engine import gpu, layouts
from benches.engine.gpu_tables import layout_table, tables

RESULT, LAYOUTS = ROOT / "benches/results/gpu.json", ROOT / "benches/results/gpu_layouts.json"
PAGE = ROOT / "docs/performance.md"


def main() -> None:
    """Measure, write, and say where."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--from", type=Path, dest="folder", help="folder of what was measured before: gpu.json, layouts.json or both"
    )
    asked = parser.parse_args()
    folder = asked.folder or ROOT / "out/gpu"
    if asked.folder is None:
        gpu.main([str(folder)])
        layouts.main([str(folder)])
    for name, result in (("gpu.json", RESULT), ("layouts.json", LAYOUTS)):
        if (folder / name).exists():
            shutil.copyfile(folder / name, result)
            print(f"written: {result.relative_to(ROOT)}")
    filled = tables(json.loads(RESULT.read_text()))
    if LAYOUTS.exists():
        filled["gpu layouts"] = layout_table(json.loads(LAYOUTS.read_text()))
    for name, table in filled.items():
        page.fill(PAGE, name, table)
    print(f"written: {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
