"""What people run on a finished data set: status, gc, review and export, each in a process of its own.

    python -m benches.pipeline.daily PART FOLDER

FOLDER is a checkout with the results of the data set avatars. Each part prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benches.alone import alone
from boundaryflow.runtime.metering import peak_mib

DATASET = "avatars"
PARTS = ("status", "gc", "review", "export")
_PAGE = 60
"""Cases that the review page asks for at once."""


def status(root: Path) -> dict[str, Any]:
    """`boundaryflow status`."""
    from flows.status import as_text, collect

    return {"lines": len(as_text(collect(root)).splitlines())}


def gc(root: Path) -> dict[str, Any]:
    """`boundaryflow gc --dry-run`."""
    from flows.gc import collect

    return {"found": len(collect(root))}


def review(root: Path) -> dict[str, Any]:
    """The review page: opened, its first page, and one that is filtered by a measure and sorted by it."""
    from starlette.testclient import TestClient

    from boundaryflow.review.app import create_app

    took: dict[str, float] = {}
    app: Any = _timed(took, "open_s", lambda: create_app(DATASET, root, "secret"))
    client = TestClient(app, base_url="http://t/secret")
    facts = _timed(took, "facts_s", lambda: client.get("api/facts").raise_for_status().json())
    of_now = {"generation": facts["generation"]}
    _timed(took, "first_page_s", lambda: _page(client, of_now))
    measure, about = min(facts["measures"].items())
    half = f"{(about['low'] + about['high']) / 2}..{about['high']}"
    chosen = {**of_now, measure: half, "sort": measure, "descending": ""}
    num = _timed(took, "filtered_page_s", lambda: _page(client, chosen))
    return {**took, "cases": facts["num"], "filtered": num}


def _page(client: Any, wanted: dict[str, str]) -> int:
    """Ask for an order and for its first cases; returns how many cases there are."""
    order = client.get("api/order", params=wanted).raise_for_status().content
    if not order:
        return 0
    first = [int.from_bytes(order[at : at + 4], "little") for at in range(0, min(len(order), 4 * _PAGE), 4)]
    asked = {"generation": wanted["generation"], "ids": ",".join(map(str, first))}
    assert len(client.get("api/cases", params=asked).raise_for_status().json()) == len(first)
    return len(order) // 4


def export(root: Path) -> dict[str, Any]:
    """`boundaryflow export` of all edited pictures, as PNG files."""
    from boundaryflow.jobs.export import export_images

    with tempfile.TemporaryDirectory() as to:
        return {"pictures": export_images(DATASET, Path(to) / "edited", root=root)[0]}


def export_plan(root: Path) -> dict[str, Any]:
    """What an export does before the first picture is read: which, and what is known of each."""
    from boundaryflow.jobs.export.chosen import choose
    from boundaryflow.jobs.export.records import records_of
    from boundaryflow.store.catalog.ingest import INGEST, MANIFEST

    chosen, _ = choose(DATASET, root, edits=(), strengths=(), weakest=None, method=None, accepted=False)
    rows, columns = records_of(chosen, DATASET, MANIFEST.read(INGEST.folder(DATASET, root)), root)
    return {"pictures": len(rows), "columns": len(columns)}


def _timed(took: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    started = time.perf_counter()
    result = work()
    took[name] = round(time.perf_counter() - started, 3)
    return result


def measured(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Seconds on the clock and of the processor, imports included, and the most memory of this process."""
    started, before = time.perf_counter(), time.process_time()
    found = work()
    seconds, cpu = time.perf_counter() - started, time.process_time() - before
    return {"seconds": round(seconds, 3), "cpu_s": round(cpu, 3), "peak_mib": round(peak_mib(), 1), **found}


def measure(root: Path, parts: Sequence[str] = PARTS) -> dict[str, Any]:
    """All of it, each part in a process of its own."""
    return {part: alone("benches.pipeline.daily", part, root) for part in parts}


def main(arguments: Sequence[str]) -> None:
    """Measure a part."""
    part, root = arguments
    work: Callable[[Path], dict[str, Any]] = globals()[part]
    print(json.dumps(measured(lambda: work(Path(root)))))


if __name__ == "__main__":
    main(sys.argv[1:])
