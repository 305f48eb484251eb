"""Speed on a GPU: invert and edit beside diffusers' loops and the release's, and the guided edit, at 64 and 256 pixels.

    make bench NAME=gpu                              some minutes on a GPU
    make bench NAME=gpu ARGS="--from out/gpu"        what `python -m benches.engine.gpu out/gpu` found elsewhere

Writes benches/results/gpu.json and its tables in docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from benches import page
from benches.checkout import ROOT
from benches.engine import gpu
from benches.engine.gpu_tables import tables

RESULT, PAGE = ROOT / "benches/results/gpu.json", ROOT / "docs/performance.md"


def main() -> None:
    """Measure, write, and say where."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--from", type=Path, dest="folder", help="folder of a gpu.json that was measured before")
    asked = parser.parse_args()
    folder = asked.folder or ROOT / "out/gpu"
    if asked.folder is None:
        gpu.main([str(folder)])
    shutil.copyfile(folder / "gpu.json", RESULT)
    for name, table in tables(json.loads(RESULT.read_text())).items():
        page.fill(PAGE, name, table)
    print(f"written: {RESULT.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
