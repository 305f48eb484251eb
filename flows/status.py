"""The content of `boundaryflow status`: state, items, rejected items and size of each stage; jobs; the next step."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from humanize import naturalsize
from tabulate import tabulate

from boundaryflow.config.yaml_file import read_yaml
from boundaryflow.errors import PipelineError
from boundaryflow.store.catalog import CATALOG
from boundaryflow.store.catalog.review import REVIEW, VERDICTS
from flows import environment, locks, record
from flows.dvc_graph import Step, plan
from flows.summary import report_path


@dataclass(frozen=True)
class StageStatus:
    """One line of the status.

    Attributes:
        stage: Address in DVC.
        dataset: Data set; empty for a stage that is not per data set.
        state: `up to date`, `stale`, `failed`, `never run`, `running`, `waiting`, or a final state in the
            current run.
        reason: Why it is stale or failed, or its progress.
        num_items: Number of its items (images, edits, boundaries); None if unknown.
        num_failed: Number of rejected items.
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
class JobStatus:
    """One job of `bulk_edit` or `augment`.

    Attributes:
        name: Such as `bulk_edit@glasses`.
        state: `completed` or `failed`, for its last run; `never run`.
        started: Start of its last run, UTC; empty if never.
        result: Summary of its last run, or the error.
        size_bytes: Size of its files under data/.
    """

    name: str
    state: str
    started: str
    result: str
    size_bytes: int


@dataclass(frozen=True)
class ReviewStatus:
    """What was decided on the edits of a data set with `boundaryflow review`.

    Attributes:
        name: Such as `review@faces`.
        num_accepted: Edits that were accepted.
        num_rejected: Edits that were rejected.
        last: Time of the last verdict, UTC; empty if there is none.
        size_bytes: Size of the verdicts.
    """

    name: str
    num_accepted: int
    num_rejected: int
    last: str
    size_bytes: int


@dataclass(frozen=True)
class Status:
    """The state of a checkout.

    Attributes:
        holder: Process that runs a flow now; empty if none.
        stages: Stages in the order in which they run.
        jobs: Jobs of params.yaml.
        cache_bytes: Size of DVC's cache, with the outputs of all commits.
        next_step: Suggested command.
        reviews: Verdicts on edits, by data set.
    """

    holder: str
    stages: tuple[StageStatus, ...]
    jobs: tuple[JobStatus, ...]
    cache_bytes: int
    next_step: str
    reviews: tuple[ReviewStatus, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Size of all outputs of stages, jobs and reviews in the checkout, without DVC's cache."""
        return sum(part.size_bytes for part in (*self.stages, *self.jobs, *self.reviews))


def collect(root: Path) -> Status:
    """Collect the state of a checkout; while a flow runs, from its own record, as DVC is locked then.

    Raises:
        PipelineError: DVC cannot be read.
    """
    environment.prepare(root)
    holder = locks.flow_holder(root)
    jobs, cache_bytes, reviews = _jobs(root), size_of(root / ".dvc/cache"), _reviews(root)
    if holder is not None:
        wait = "wait for the run, or stop it with Ctrl-C where it runs"
        return Status(holder, _from_record(root), jobs, cache_bytes, wait, reviews)
    steps = plan(root, ask_remote=False)
    errors: dict[str, str] = _record(root).get("errors", {})
    stages = tuple(_status(root, step, errors.get(step.name)) for step in steps)
    return Status("", stages, jobs, cache_bytes, _next_step(root, steps), reviews)


def as_json(status: Status) -> str:
    """For programs; the fields of `Status`."""
    return json.dumps(asdict(status), indent=2)


def as_text(status: Status) -> str:
    """For people: a block per data set, the jobs, the reviews, the sizes."""
    lines = [f"a run is at work: {status.holder}"] if status.holder else []
    blocks: dict[str, list[tuple[str, ...]]] = {}
    for stage in status.stages:
        items = "" if stage.num_items is None else f"{stage.num_items} items"
        failed = f", {stage.num_failed} bad" if stage.num_failed else ""
        row = (stage.stage, stage.state, items + failed, _size_or_blank(stage.size_bytes), stage.reason)
        blocks.setdefault(stage.dataset or "all data sets", []).append(row)
    for job in status.jobs:
        row = (job.name, job.state, job.started, _size_or_blank(job.size_bytes), job.result.replace("\n", "; "))
        blocks.setdefault("jobs", []).append(row)
    for review in status.reviews:
        found = f"{review.num_accepted} accepted, {review.num_rejected} rejected"
        row = (review.name, found, "", _size_or_blank(review.size_bytes), f"last {review.last}" if review.last else "")
        blocks.setdefault("reviews", []).append(row)
    rows = [row for block in blocks.values() for row in block]  # one table, so that the columns of all blocks align
    sides = ("left", "left", "left", "right", "left") if rows else ()
    table = iter(tabulate(rows, tablefmt="plain", colalign=sides, disable_numparse=True).splitlines())
    for title, block in blocks.items():
        lines += [f"{title}:", *(f"  {line}" for line in islice(table, len(block)))]
    sizes = [naturalsize(size, binary=True) for size in (status.size_bytes, status.cache_bytes)]
    lines += ["", f"on disk: {sizes[0]} of results, {sizes[1]} in DVC's cache"]
    lines += [f"next: {status.next_step}"]
    return "\n".join(lines)


def _status(root: Path, step: Step, error: str | None) -> StageStatus:
    """A stage that failed stays so until it has run well, or is no longer stale."""
    if not step.is_dirty:
        state, reason = "up to date", ""
    elif error is not None:
        state, reason = "failed", error
    else:
        state, reason = ("stale", step.reason) if step.has_run else ("never run", "")
    return _stage_status(root, step.name, step.outs, state, reason)


def _jobs(root: Path) -> tuple[JobStatus, ...]:
    try:
        params: Any = read_yaml(root / "params.yaml")
    except (OSError, PipelineError):
        params = None  # DVC, or the next run, reports the error
    found: list[JobStatus] = []
    for kind in ("bulk_edit", "augment"):
        section: Any = params.get(kind) if isinstance(params, dict) else None
        for job in section if isinstance(section, dict) else ():
            last = record.last(root, kind, str(job))
            size = size_of(record.folder(root, kind, str(job)))
            name = f"{kind}@{job}"
            if last is None:
                found.append(JobStatus(name, "never run", "", "", size))
            else:
                result = last["error"] or record.in_a_line(last)
                found.append(JobStatus(name, last["state"], last["started"][:16].replace("T", " "), result, size))
    return tuple(found)


def _reviews(root: Path) -> tuple[ReviewStatus, ...]:
    """The verdicts of each data set; a table that cannot be read is left to `boundaryflow review` to report."""
    found: list[ReviewStatus] = []
    for path in sorted((root / "data" / REVIEW.name).glob(f"*/{VERDICTS.file}")):
        try:
            table = VERDICTS.read(path.parent)
        except PipelineError:
            continue
        num = {verdict: int((table["verdict"] == verdict).sum()) for verdict in ("accepted", "rejected")}
        last = f"{table['when'].max():%Y-%m-%d %H:%M}" if len(table) else ""
        name = f"{REVIEW.name}@{path.parent.name}"
        found.append(ReviewStatus(name, num["accepted"], num["rejected"], last, path.stat().st_size))
    return tuple(found)


def _record(root: Path) -> dict[str, Any]:
    """The record of the current or the last run."""
    try:
        return json.loads((root / environment.STATE_FOLDER / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _from_record(root: Path) -> tuple[StageStatus, ...]:
    run = _record(root)
    states = {str(name): "waiting" for name in run.get("planned", [])}
    states |= {str(name): str(state) for name, state in run.get("finished", {}).items()}
    states |= {str(name): "running" for name in run.get("running", [])}
    reasons: dict[str, str] = {**run.get("progress", {}), **run.get("errors", {})}
    outs = {name: (f"data/{name.replace('@', '/')}",) for name in states}
    return tuple(_stage_status(root, name, outs[name], state, reasons.get(name, "")) for name, state in states.items())


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
        size_bytes=sum(size_of(root / out) for out in outs),
    )


def _count(folder: Path, kind: str) -> tuple[int | None, int | None]:
    """Numbers of items and of rejected items; None if the stage has not written them."""
    if kind not in CATALOG or not CATALOG[kind].counted:
        return None, None
    file, *keys = CATALOG[kind].counted
    try:
        if keys and file == CATALOG[kind].facts:
            facts = json.loads((folder / file).read_text(encoding="utf-8"))
            num, *num_failed = (int(facts[key]) for key in keys)
            return num, next(iter(num_failed), None)
        from pyarrow import parquet

        return sum(int(parquet.read_metadata(folder / table).num_rows) for table in (file, *keys)), None
    except (OSError, ValueError, KeyError):  # not written yet, or being written
        return None, None


def size_of(path: Path) -> int:
    """Size of a file, or of all files in a folder; 0 if it does not exist."""
    if path.is_file():
        return path.stat().st_size
    return sum(_file_size(Path(folder) / name) for folder, _, names in os.walk(path) for name in names)


def _file_size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:  # a run at work may rename files
        return 0


def _size_or_blank(size_bytes: int) -> str:
    return naturalsize(size_bytes, binary=True) if size_bytes else ""


def _next_step(root: Path, steps: Sequence[Step]) -> str:
    num_dirty = sum(step.is_dirty for step in steps)
    if num_dirty:
        return f"boundaryflow run ({num_dirty} of {len(steps)} stages have work)"
    reports = [report_path(step.dataset) for step in steps if step.kind == "report"]
    if any((root / path).is_file() for path in reports):
        return "nothing to do; boundaryflow report --open shows the result"
    return "nothing to do"
