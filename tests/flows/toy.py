"""A checkout of trivial stages: first → second → third for data set `toy`, and `side`, which reads from first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# A library that DVC uses warns about its own future.
QUIET_DVC = "ignore:_NoneStep.value:DeprecationWarning"

_STAGE = """\
import json, os, sys, time
from pathlib import Path

name, seconds, source = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
control = Path("control") / name
for done in range(1, 3):
    report = {"stage": name, "done": done, "total": 2, "unit": "images", "rate": 4.0}
    print("PROGRESS " + json.dumps(report), flush=True)
    print(f"{name} shard {done}/2", flush=True)
with open("attempts.txt", "a") as file:
    file.write(name + "\\n")
with open("halvings.txt", "a") as file:
    file.write(os.environ.get("BOUNDARYFLOW_BATCH_HALVINGS", "0") + "\\n")
if control.exists():
    order = control.read_text().split()
    if order[0] == "sleep":
        Path("sleeping.txt").write_text(str(os.getpid()))
        time.sleep(float(order[1]))
    if order[0] == "once":
        control.unlink()
    if order[0] == "kill":
        os.kill(os.getpid(), int(order[1]))
    if order[0] in ("exit", "once"):
        print(f"params.yaml: {name}.length is 0, must be at least 1", file=sys.stderr)
        sys.exit(int(order[1]))
time.sleep(seconds)
out = Path("data") / name / "toy"
out.mkdir(parents=True, exist_ok=True)
size = Path("params.yaml").read_text() if name == "second" else ""
(out / "out.txt").write_text(name + size + "".join(Path(p).read_text() for p in source))
"""

_DVC = """\
stages:
  first:
    matrix: {ds: ["toy"]}
    cmd: python stage.py first 0
    outs: [data/first/toy]
  second:
    matrix: {ds: ["toy"]}
    cmd: python stage.py second 0 data/first/toy/out.txt
    deps: [data/first/toy]
    params: [length]
    outs: [data/second/toy]
  side:
    matrix: {ds: ["toy"]}
    cmd: python stage.py side 0 data/first/toy/out.txt
    deps: [data/first/toy]
    outs: [data/side/toy]
  third:
    matrix: {ds: ["toy"]}
    cmd: python stage.py third 0 data/second/toy/out.txt
    deps: [data/second/toy]
    outs: [data/third/toy]
"""


def make_checkout(root: Path) -> Path:
    """Write the stages and make git and DVC repositories of them."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "stage.py").write_text(_STAGE)
    (root / "dvc.yaml").write_text(_DVC)
    (root / "params.yaml").write_text("length: 1\n")
    (root / "control").mkdir()
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    env = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=root, check=True, env=env)
    return root


def attempts(root: Path) -> list[str]:
    """Names of the stages that were started, in order."""
    path = root / "attempts.txt"
    return path.read_text().split() if path.exists() else []
