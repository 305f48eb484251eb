"""The record of a job's last run, and its texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from boundaryflow.store.catalog import CATALOG
from boundaryflow.store.catalog.jobs import LAST
from flows.progress import duration
from flows.summary import markdown_table

Kind = Literal["bulk_edit", "augment"]
"""The flows that run jobs."""
_COUNTED = ("counts", "pictures", "held", "wanted", "added", "tried", "kept")
_MAX_FAILURES = 20
_NEEDED = {"state", "started", "seconds", "error"}


def folder(root: Path, kind: str, job: str) -> Path:
    """Folder of a job's record."""
    return CATALOG[kind].folder(job, root)


def dataset_of(root: Path, kind: Kind, job: str) -> str:
    """The data set that a job uses, which must be among those that `boundaryflow run` keeps up to date.

    Raises:
        ParamsError: There is no such job, or params.yaml is wrong.
    """
    from boundaryflow.config import load_params

    params = load_params(root)
    found = params.bulk_edit_job(job) if kind == "bulk_edit" else params.augment_job(job)
    return found.dataset


def last(root: Path, kind: str, job: str) -> dict[str, Any] | None:
    """The record of the last run, or None."""
    try:
        run = json.loads((folder(root, kind, job) / LAST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return run if isinstance(run, dict) and run.keys() >= _NEEDED else None


def rows(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every number of a record as a row of a table."""
    return [
        {"what": what, "of": of, "number": number} for what in _COUNTED for of, number in (run.get(what) or {}).items()
    ]


def in_a_line(run: Mapping[str, Any]) -> str:
    """Summary of a run, such as `12 delivered, 1 bad, 0 left in 42 s`."""
    if "counts" in run:
        counts = run["counts"]
        listed = f"{counts.get('listed', 0)} files, {counts.get('new', 0)} new"
        done = [f"{num} {status}" for status, num in counts.items() if status not in ("listed", "new")]
        pictures = sum(run.get("pictures", {}).values())
        held, alike = sum(run.get("held", {}).values()), run.get("near_duplicates", 0)
        words = [listed, *done, *([f"{pictures} pictures"] if pictures else [])]
        words += [f"{held} held back"] if held else []
        words += [f"{alike} near-duplicates of earlier ones"] if alike else []
    else:
        wanted, added = sum(run.get("wanted", {}).values()), sum(run.get("added", {}).values())
        words = [f"{added} of {wanted} edits added"]
        if run.get("phi"):
            words.append(f"correlation {run['phi']['before']:.2f} to {run['phi']['after']:.2f}")
    return f"{', '.join(words)} in {duration(float(run['seconds']))}"


def markdown(run: Mapping[str, Any]) -> str:
    """A record in Markdown."""
    commit = run.get("commit") or "none"
    facts = [
        ("state", run["state"] + (f": {run['error']}" if run["error"] else "")),
        ("job", f"{run['job']} ({run['job_hash']})"),
        *([("inbox", str(run["inbox"]))] if "inbox" in run else []),
        ("outbox", str(run["outbox"])),
        *([("quarantine", str(run["quarantine"]))] if run.get("quarantine") else []),
        ("started", str(run["started"])),
        ("commit", commit[:12] + (" and changes that are not committed" if run.get("changed") else "")),
        ("model", f"{run['model']} ({run['model_sha256'][:12]})"),
    ]
    lines = [f"# {in_a_line(run)}", "", *markdown_table(("", ""), facts)]
    numbers = [(row["what"], str(row["of"]), str(row["number"])) for row in rows(run)]
    lines += ["", *markdown_table(("", "of", "number"), numbers)] if numbers else []
    found = [
        (one["what"], _told(one["value"]), str(one["count"]), f"{one['limit']:g}", "yes" if one["is_met"] else "no")
        for one in run.get("findings") or []
    ]
    header = ("expected", "measured", "over", "limit", "met")
    lines += ["", "## What the job expects", "", *markdown_table(header, found)] if found else []
    failures = run.get("failures") or []
    if failures:
        body = [(entry["file"], entry["status"], entry["reason"]) for entry in failures[:_MAX_FAILURES]]
        lines += ["", "## Files that were not edited", "", *markdown_table(("file", "status", "reason"), body)]
        if len(failures) > _MAX_FAILURES:
            more = f"and {len(failures) - _MAX_FAILURES} more, in last_run.json of the job's folder below data/"
            lines += ["", more]
    return "\n".join(lines)


def _told(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.4g}"
