"""What it takes to start a process that runs a network: torch alone, and torch, this project and its model open.

    python -m benches.pipeline.starts

With diffusers imported as it is (as where the Python API is used), and as a process of this project's own imports it
(boundaryflow/models/diffusers_parts.py). Seconds of the processor, the median of seven starts, in turns. Writes
benches/results/starts.json and its table in docs/performance.md.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys

from benches import machine, page
from benches.checkout import ROOT

RESULT, PAGE = ROOT / "benches/results/starts.json", ROOT / "docs/performance.md"
_OPEN = "from boundaryflow.runtime.frozen_model import open_model; open_model('data/pretrained/faces64', 'float32')"
ARMS = {
    "torch alone": "import torch",
    "diffusers as it is": f"import sys; sys.argv = ['other']; {_OPEN}",
    "as a stage or job starts": f"import sys; sys.argv = ['boundaryflow']; {_OPEN}",
}
_TURNS = 7


def measure() -> dict[str, float]:
    """Arm to seconds of the processor."""
    found: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for _ in range(_TURNS + 1):  # the first fills the disk cache
        for arm, code in ARMS.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            found[arm].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {arm: round(statistics.median(seconds[1:]), 2) for arm, seconds in found.items()}


def main() -> None:
    """Measure, write, and say where."""
    found = measure()
    RESULT.write_text(json.dumps({"machine": machine.facts(), "seconds": found}, indent=1) + "\n")
    rows = [[arm, f"{seconds:.1f}", f"{seconds / found['torch alone']:.2f}"] for arm, seconds in found.items()]
    page.fill(PAGE, "starts", page.markdown_table(["start", "s of the processor", "times torch alone"], rows))
    print(f"written: {RESULT.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
