"""Folders in which it is not safe to deliver: tables, links and files of somebody else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from boundaryflow.store.tables import write_table


def _names_others(folder: Path) -> Path:
    """A table of ours that names files outside, and a file that is not ours."""
    out = folder / "names-others"
    out.mkdir(parents=True)
    (folder / "victim.txt").write_bytes(b"precious")
    (out / "victim2.txt").write_bytes(b"precious")
    names = ["../victim.txt", "victim2.txt", os.fspath(folder / "victim.txt")]
    table = pd.DataFrame({"file_name": names, "item_id": "0" * 16, "synthetic": True})
    write_table(out / "metadata.parquet", table, schema="augmented/1")
    return out


def _foreign_table(folder: Path) -> Path:
    out = folder / "foreign-table"
    out.mkdir(parents=True)
    pd.DataFrame({"mine": [1]}).to_parquet(out / "metadata.parquet")
    return out


def _temporary_files(folder: Path) -> Path:
    out = folder / "temporary"
    for name in ("thesis/chapter1.tmp", "x.tmp/inner", ".boundaryflow-1-0011223344556677.tmp"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(b"mine")
    return out


def _links_out(folder: Path) -> Path:
    out = folder / "links"
    out.mkdir(parents=True)
    (folder / "elsewhere").mkdir()
    for name in ("hats", "hat", "dark", "hat-1", "hat-0", "photo_hat_+1.png", "metadata.parquet"):
        (out / name).symlink_to(folder / "elsewhere")
    return out


def _state_is_a_link(folder: Path) -> Path:
    out = folder / "state-link"
    out.mkdir(parents=True)
    (folder / "state").mkdir()
    (out / ".boundaryflow").symlink_to(folder / "state")
    return out


def _damaged_state(folder: Path) -> Path:
    out = folder / "damaged-state"
    (out / ".boundaryflow").mkdir(parents=True)
    (out / ".boundaryflow/job.json").write_bytes(b"{")
    (out / ".boundaryflow/written.jsonl").write_bytes(b"\xff\n[1\n{}\n[[], []]\n")
    return out


def _of_another_job(folder: Path) -> Path:
    out = folder / "other-job"
    (out / ".boundaryflow").mkdir(parents=True)
    (out / ".boundaryflow/job.json").write_text('{"job": "bulk_edit \\u001b[31mother"}')
    return out


def _a_file(folder: Path) -> Path:
    path = folder / "file"
    path.write_bytes(b"mine")
    return path


def _below_a_file(folder: Path) -> Path:
    return _a_file(folder) / "out"


def _raw(folder: Path) -> Path:
    return folder.parent / "data/raw/avatars"


def _stage(folder: Path) -> Path:
    return folder.parent / "data/edit/avatars"


CASES: dict[str, Callable[[Path], Path]] = {
    "names-others": _names_others,
    "foreign-table": _foreign_table,
    "temporary-files": _temporary_files,
    "links-out": _links_out,
    "state-is-a-link": _state_is_a_link,
    "damaged-state": _damaged_state,
    "of-another-job": _of_another_job,
    "a-file": _a_file,
    "below-a-file": _below_a_file,
    "raw": _raw,
    "stage": _stage,
}
