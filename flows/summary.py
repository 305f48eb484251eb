"""What a run ends with: seconds per stage, the metrics in a small table, where the report lies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.dvc_graph import Step
from flows.progress import Outcome, duration

# Columns of the small table, in this order, of those that metrics.json has.
_COLUMNS = (
    "target_success",
    "drift",
    "identity",
    "ssim",
    "segmentation_consistency",
    "counterfactual_recovery",
    "fid",
    "kid",
)
_MAX_ROWS = 24


def report_path(dataset: str) -> Path:
    """The page a person opens, relative to the root."""
    return Path("data/report") / dataset / "index.html"


def metrics_path(dataset: str) -> Path:
    """The metrics of a data set, relative to the root."""
    return Path("data/evaluate") / dataset / "metrics.json"


def datasets_of(steps: Sequence[Step]) -> tuple[str, ...]:
    """The data sets of a plan, in its order."""
    return tuple(dict.fromkeys(step.dataset for step in steps if step.dataset))


def metrics_table(path: Path) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of the small table; both empty where there are no metrics.

    The last part of a key of metrics.json (`hat/1.5/drift`, or nested objects) names the column, the rest the row.
    """
    if not path.is_file():
        return (), []
    flat = dict(_flatten(json.loads(path.read_text(encoding="utf-8"))))
    rows: dict[str, dict[str, float]] = {}
    for key, value in flat.items():
        row, _, column = key.rpartition("/")
        rows.setdefault(row or "all", {})[column] = value
    columns = [column for column in _COLUMNS if any(column in row for row in rows.values())]
    if not columns:
        return ("metric", "value"), [(key, _number(value)) for key, value in list(flat.items())[:_MAX_ROWS]]
    body = [
        (name, *(_number(row[column]) if column in row else "" for column in columns))
        for name, row in rows.items()
        if any(column in row for column in columns)
    ]
    return ("edit", *(column.replace("_", " ") for column in columns)), body[:_MAX_ROWS]


def text(root: Path, steps: Sequence[Step], outcomes: Mapping[str, Outcome]) -> str:
    """The summary for a terminal or a log.

    Args:
        root: The checkout.
        steps: The plan.
        outcomes: What became of each stage; empty when nothing had to run.
    """
    lines: list[str] = []
    timed = [(step.name, outcomes[step.name]) for step in steps if step.name in outcomes]
    if any(outcome.seconds for _, outcome in timed):
        lines += ["", *_aligned(("stage", "time"), [_time_row(name, outcome) for name, outcome in timed])]
    for dataset in datasets_of(steps):
        header, rows = metrics_table(root / metrics_path(dataset))
        if rows:
            lines += ["", f"{dataset}: metrics ({metrics_path(dataset)})", *_aligned(header, rows)]
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
    lines = ["# boundaryflow run", "", *_markdown_table(("stage", "state", "time", "error"), body)]
    for dataset in datasets_of(steps):
        header, rows = metrics_table(root / metrics_path(dataset))
        if rows:
            lines += ["", f"## {dataset}", "", *_markdown_table(header, rows)]
        lines += ["", f"Report: `{report_path(dataset)}`"]
    return "\n".join(lines)


def _time_row(name: str, outcome: Outcome) -> tuple[str, str]:
    return name, duration(outcome.seconds) if outcome.state in ("done", "failed") else outcome.state


def _flatten(content: Any, prefix: str = "") -> list[tuple[str, float]]:
    """Numbers of a JSON object, keys of nested ones joined."""
    if isinstance(content, dict):
        return [pair for key, value in content.items() for pair in _flatten(value, f"{prefix}{key}/")]
    if isinstance(content, int | float):
        return [(prefix.removesuffix("/"), float(content))]
    return []


def _number(value: float) -> str:
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e6 and abs(value) > 1 else f"{value:.3g}"


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """First column to the left, the others to the right."""
    table = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    lines = []
    for row in table:
        numbers = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(["", row[0].ljust(widths[0]), *numbers]))
    return [lines[0], "  " + "  ".join("-" * width for width in widths), *lines[1:]]


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return lines + [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
