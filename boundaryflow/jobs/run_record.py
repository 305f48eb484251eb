"""The record of a job's run, which DVC does not keep: time, commit, models and settings, and the result."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boundaryflow.errors import PipelineError
from boundaryflow.files import write_bytes
from boundaryflow.jobs.photos import tile
from boundaryflow.runtime.provenance import provenance
from boundaryflow.sources.encoding import encode_png
from boundaryflow.store.catalog.jobs import GRID, LAST, RECORD_SCHEMA, RUNS
from boundaryflow.store.outbox import Outbox
from boundaryflow.store.tables import write_json
from boundaryflow.text import masked_values

LOG = logging.getLogger(__name__)
_FOR_RECEIVERS = (
    "schema", "state", "started", "seconds", "job", "job_hash", "model_sha256", "boundaries", "judged_by",
    "counts", "pictures", "held", "near_duplicates", "findings", "wanted", "added", "tried", "kept", "phi", "commit",
    "changed", "python", "packages",
)  # fmt: skip
"""Fields that are also written to the outbox: no paths, names of hosts or files, nor errors, which quote them."""


@contextmanager
def recorded(
    folder: Path, box: Outbox, about: Callable[[], Mapping[str, Any]], shown: Sequence[tuple[Tensor, Tensor]]
) -> Generator[None]:
    """Record what is done within the block, however it ends.

    The record is a line of `runs.jsonl` in `folder`, and `last_run.json` for the last run, with a grid of pictures
    (before above after). The outbox has its own `runs.jsonl`, with the fields that receivers need.

    Args:
        folder: Folder of the job under data/.
        box: Outbox of the run, locked by it.
        about: Called at the end; returns the facts to record.
        shown: Pairs of [C,H,W] uint8 pixels, filled until the end.
    """
    started, error = datetime.now(UTC), ""
    try:
        yield
    except BaseException as problem:
        error = " ".join(str(problem).split()) or type(problem).__name__
        raise
    finally:
        facts: dict[str, Any] = {
            "schema": RECORD_SCHEMA,
            "state": "failed" if error else "completed",
            "error": error,
            "started": started.isoformat(timespec="seconds"),
            "seconds": round((datetime.now(UTC) - started).total_seconds(), 2),
            **about(),
            **provenance(Path()),
        }
        facts = masked_values(facts)
        write_json(folder / LAST, facts)
        known = (folder / RUNS).read_bytes() if (folder / RUNS).is_file() else b""
        write_bytes(folder / RUNS, known + _line(facts))
        if shown:
            write_bytes(folder / GRID, encode_png(_before_above_after(shown), {"synthetic": "true"}))
        else:
            (folder / GRID).unlink(missing_ok=True)
        try:
            public = {name: facts[name] for name in _FOR_RECEIVERS if name in facts}
            box.write(RUNS, (box.read(RUNS) or b"") + _line(public))
        except (PipelineError, OSError) as problem:
            if not error:
                raise
            LOG.warning("%s: the record of this run could not be added (%s)", RUNS, problem)


def _line(facts: Mapping[str, Any]) -> bytes:
    return (json.dumps(facts, sort_keys=True) + "\n").encode()


def _before_above_after(shown: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    return tile(torch.stack([torch.cat(list(pair), dim=1) for pair in shown]), num_columns=len(shown))
