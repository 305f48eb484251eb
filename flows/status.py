"""What `boundaryflow status` knows: per stage its state, items, failed items and size; and the next step."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flows import environment, locks
from flows.dvc_graph import Step, plan
from flows.summary import report_path

# What to count in a stage's output folder.
_ITEM_TABLES = {
    "label": "labels.parquet",
    "invert": "index.parquet",
    "observe": "index.parquet",
    "boundary": "boundaries.parquet",
    "edit": "manifest.parquet",
    "evaluate": "tables/per_image.parquet",
}


@dataclass(frozen=True)
class StageStatus:
    """One line of the status.

    Attributes:
        stage: Address in DVC.
        dataset: Data set; empty outside the matrix.
        state: `up to date`, `stale`, `never run`, `running`, `waiting`, or a finished state of the run at work.
        reason: Why it is stale.
        num_items: Rows it wrote (images; edits; boundaries), None where there is nothing to count.
        num_failed: Items set aside.
        size_bytes: Size of its outputs on disk.
    """

    stage: str
    dataset: str
    state: str
    reason: str
    num_items: int | None
    num_failed: int | None
    size_bytes: int


@dataclass(frozen=True)
class Status:
    """The state of a checkout; `holder` is who runs a flow in it now, or empty."""

    holder: str
    stages: tuple[StageStatus, ...]
    next_step: str


def collect(root: Path) -> Status:
    """Look at the checkout. While a flow runs, its own record is read: DVC cannot be asked then.

    Raises:
        PipelineError: DVC cannot be asked.
    """
    environment.prepare(root)
    holder = locks.flow_holder(root)
    if holder is not None:
        return Status(holder, _from_record(root), "wait for the run, or stop it with Ctrl-C where it runs")
    steps = plan(root)
    stages = tuple(_status(root, step) for step in steps)
    return Status("", stages, _next_step(root, steps))


def as_json(status: Status) -> str:
    """For programs; the fields of `Status`."""
    return json.dumps(asdict(status), indent=2)


def as_text(status: Status) -> str:
    """For people: a block per data set."""
    lines = [f"a run is at work: {status.holder}"] if status.holder else []
    width = max((len(stage.stage) for stage in status.stages), default=0)
    for dataset in dict.fromkeys(stage.dataset for stage in status.stages):
        lines += [f"{dataset or 'all data sets'}:"]
        for stage in status.stages:
            if stage.dataset != dataset:
                continue
            items = "" if stage.num_items is None else f"{stage.num_items} items"
            failed = f", {stage.num_failed} bad" if stage.num_failed else ""
            size = _size_text(stage.size_bytes) if stage.size_bytes else ""
            line = f"  {stage.stage:<{width}}  {stage.state:<11} {items + failed:<22} {size:>9}  {stage.reason}"
            lines.append(line.rstrip())
    lines += ["", f"next: {status.next_step}"]
    return "\n".join(lines)


def _status(root: Path, step: Step) -> StageStatus:
    state = "up to date" if not step.is_dirty else "stale" if step.has_run else "never run"
    return _stage_status(root, step.name, step.outs, state, step.reason if state == "stale" else "")


def _from_record(root: Path) -> tuple[StageStatus, ...]:
    try:
        record: dict[str, Any] = json.loads((root / environment.STATE_FOLDER / "run.json").read_text())
    except (OSError, ValueError):
        return ()
    states = {name: "waiting" for name in record["planned"]}
    states |= {str(name): str(state) for name, state in record["finished"].items()}
    states |= {name: "running" for name in record["running"]}
    outs = {name: (f"data/{name.replace('@', '/')}",) for name in states}
    return tuple(_stage_status(root, name, outs[name], state, "") for name, state in states.items())


def _stage_status(root: Path, name: str, outs: Sequence[str], state: str, reason: str) -> StageStatus:
    kind, _, dataset = name.partition("@")
    folder = root / "data" / kind / dataset
    num_items, num_failed = _count(folder, kind)
    return StageStatus(
        stage=name,
        dataset=dataset,
        state=state,
        reason=reason,
        num_items=num_items,
        num_failed=num_failed,
        size_bytes=sum(_size(root / out) for out in outs),
    )


def _count(folder: Path, kind: str) -> tuple[int | None, int | None]:
    """Items and failed items; None where the stage has not written them."""
    try:
        if kind == "ingest":
            facts = json.loads((folder / "ingest.json").read_text())
            return int(facts["num_ok"]), int(facts["num_bad"])
        if kind in _ITEM_TABLES:
            from pyarrow import parquet

            return int(parquet.read_metadata(folder / _ITEM_TABLES[kind]).num_rows), None
    except (OSError, ValueError, KeyError):  # half written by the run at work, or never written
        return None, None
    return None, None


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(_file_size(Path(folder) / name) for folder, _, names in os.walk(path) for name in names)


def _file_size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:  # a run at work may rename files
        return 0


def _size_text(size_bytes: int) -> str:
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def _next_step(root: Path, steps: Sequence[Step]) -> str:
    num_dirty = sum(step.is_dirty for step in steps)
    if num_dirty:
        return f"boundaryflow run ({num_dirty} of {len(steps)} stages have work)"
    reports = [report_path(step.dataset) for step in steps if step.kind == "report"]
    if any((root / path).is_file() for path in reports):
        return "nothing to do; boundaryflow report --open shows the result"
    return "nothing to do"
