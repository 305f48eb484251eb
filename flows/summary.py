"""The summary at the end of a run: time of each stage, a small table of metrics, path of the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

from tabulate import tabulate

from boundaryflow.store.catalog.evaluate import EVALUATE
from boundaryflow.store.catalog.report import REPORT
from flows.dvc_graph import Step
from flows.progress import Outcome, duration

# Columns of the small table, in this order, of those that metrics.json has.
_COLUMNS = (
    "target_success",
    "clean_success",
    "drift",
    "identity",
    "ssim",
    "counterfactual_recovery",
)


def report_path(dataset: str) -> Path:
    """The report's page, relative to the root."""
    return REPORT.folder(dataset) / "index.html"


def metrics_path(dataset: str) -> Path:
    """The file of metrics of a data set, relative to the root."""
    return EVALUATE.facts_path(dataset)


def datasets_of(steps: Sequence[Step]) -> tuple[str, ...]:
    """The data sets of a plan, in its order."""
    return tuple(dict.fromkeys(step.dataset for step in steps if step.dataset))


def metrics_table(path: Path) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of the table of metrics; both empty if there are none.

    Each row is an edit at the strengths that other images chose; the compared method follows in the next row, at its
    own.
    """
    if not path.is_file():
        return (), []
    metrics = json.loads(path.read_text(encoding="utf-8"))
    chosen: dict[str, dict[str, dict[str, Any]]] = metrics.get("chosen", {})
    ours = chosen.get(metrics.get("method"), {})
    found: dict[str, dict[str, Any]] = {}
    for name, row in ours.items():
        found[name] = row
        others = {method: of[name] for method, of in chosen.items() if of is not ours and name in of}
        found |= {f"{name}, {method.replace('_', ' ')}": other for method, other in others.items()}
    columns = [column for column in _COLUMNS if any(row.get(column) is not None for row in found.values())]
    rows = [
        (name, " or ".join(f"{s:g}" for s in row["strengths"]), *(_number(row.get(column)) for column in columns))
        for name, row in found.items()
    ]
    return ("edit", "strength", *(column.replace("_", " ") for column in columns)), rows


def text(root: Path, steps: Sequence[Step], outcomes: Mapping[str, Outcome]) -> str:
    """The summary for a terminal or a log.

    Args:
        root: The checkout.
        steps: The plan.
        outcomes: Outcome of each stage; empty if nothing had to run.
    """
    lines: list[str] = []
    timed = [(step.name, outcomes[step.name]) for step in steps if step.name in outcomes]
    if any(outcome.seconds for _, outcome in timed):
        lines += ["", *aligned(("stage", "time"), [_time_row(name, outcome) for name, outcome in timed])]
    for dataset in datasets_of(steps):
        header, rows = metrics_table(root / metrics_path(dataset))
        if rows:
            lines += ["", f"{dataset}: metrics ({metrics_path(dataset)})", *aligned(header, rows)]
    reports = [report_path(dataset) for dataset in datasets_of(steps)]
    found = [path for path in reports if (root / path).is_file()]
    lines += [""] if found else []
    lines += [f"report: {root / path}" for path in found]
    return "\n".join(lines)


def markdown(root: Path, steps: Sequence[Step], outcomes: Mapping[str, Outcome]) -> str:
    """The summary as a Prefect artifact."""
    body = [
        (step.name, outcomes[step.name].state, duration(outcomes[step.name].seconds), outcomes[step.name].error)
        for step in steps
    ]
    lines = ["# boundaryflow run", "", *markdown_table(("stage", "state", "time", "error"), body)]
    for dataset in datasets_of(steps):
        header, rows = metrics_table(root / metrics_path(dataset))
        if rows:
            lines += ["", f"## {dataset}", "", *markdown_table(header, rows)]
        lines += ["", f"Report: `{report_path(dataset)}`"]
    return "\n".join(lines)


def _time_row(name: str, outcome: Outcome) -> tuple[str, str]:
    return name, duration(outcome.seconds) if outcome.state in ("done", "failed") else outcome.state


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table for a terminal: the first column to the left, the others to the right."""
    sides = ("left", *("right" for _ in header[1:]))
    return indent(tabulate(rows, header, "simple", colalign=sides, disable_numparse=True), "  ").splitlines()


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return lines + [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
