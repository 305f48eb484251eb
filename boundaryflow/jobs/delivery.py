"""Content of an outbox: pictures, tables of their provenance and measures, and the status of every inbox file."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from boundaryflow.store.outbox import Outbox
from boundaryflow.store.tables import parse_table, table_bytes

LEDGER, METADATA, CHECKS = "inbox.parquet", "metadata.parquet", "checks.parquet"
LEDGER_SCHEMA, METADATA_SCHEMA, CHECKS_SCHEMA = "inbox/1", "delivery/1", "checks/1"
_LEDGER_COLUMNS = ["name", "version", "item_id", "status", "reason", "job_hash", "phash"]
_EDITED = ("delivered", "unchanged", "unsure", "held", "quarantined")
_UNITS = {
    "strength": "as edit.strengths in params.yaml",
    "probability": "labeller's probability that all requested changes are there",
    "target_*": "+1 on, -1 off, empty: not requested",
}


@dataclass(frozen=True)
class Entry:
    """Status of a file of the inbox.

    Attributes:
        name: Name of the file.
        version: Version of the file.
        item: Id of the picture.
        status: `delivered`; `unchanged` (it already has the requested attributes); `unsure` (no strength reaches the
            required probability); `held` back, all its pictures, by `deliver_if` or a verdict; `quarantined` with the
            run that `reason` names; `duplicate` of a file that was edited; `synthetic` (a picture that this project
            made); `bad` (not a usable picture).
        reason: Why it is none of the first three; of a delivered one, which of its pictures were held back.
        phash: Perceptual hash of the picture, if it was decoded.
    """

    name: str
    version: str
    item: str
    status: str
    reason: str = ""
    phash: str = ""


class Delivery:
    """Writes to an outbox, and reads which files earlier runs handled.

    Pictures are written first, then the tables of their provenance and measures, then the table of inbox files. After a
    kill in between, the next run writes the same pictures again, and no row is ever visible without its picture.

    Args:
        box: The outbox.
        address: Address of the outbox, for messages.
        facts: Facts of every picture of this run: dataset, job, job_hash, model_sha256.
        beside: Where earlier runs delivered, if this is the staging of one run.

    Raises:
        ManifestError: A table in the outbox is damaged.
    """

    def __init__(self, box: Outbox, address: str, facts: Mapping[str, str], beside: Delivery | None = None) -> None:
        self._box, self._address, self._facts = box, address, dict(facts)
        ledger = self._read(LEDGER, LEDGER_SCHEMA)
        # Earlier versions wrote `recipe_hash`: their files count as handled, but by no job of this version.
        self._ledger = pd.DataFrame(dtype=str) if ledger is None else ledger
        self._ledger = self._ledger.reindex(columns=_LEDGER_COLUMNS, fill_value="")
        self._beside = beside
        self._rows: list[dict[str, Any]] = []
        self._checks: list[dict[str, Any]] = []

    def new_files(self, listing: pd.DataFrame, *, job_hash: str | None) -> pd.DataFrame:
        """The files of an inbox that were not handled in their present version.

        Args:
            listing: From `list_inbox`.
            job_hash: Count only files that this job handled; None for any job.
        """
        known = self._known(job_hash)
        handled = set(zip(known["name"], known["version"], strict=True))
        is_new = [pair not in handled for pair in zip(listing["name"], listing["version"], strict=True)]
        return listing[is_new]

    def edited_items(self, *, job_hash: str | None) -> dict[str, str]:
        """Item of each edited picture to the name of one of its files."""
        known = self._known(job_hash)
        known = known[known["status"].isin(_EDITED)]
        return dict(zip(known["item_id"], known["name"], strict=True))

    def looks(self, *, job_hash: str | None) -> tuple[list[str], list[str]]:
        """Perceptual hashes and names of the files whose edits were delivered, or are in quarantine."""
        known = self._known(job_hash)
        known = known[known["status"].isin(["delivered", "quarantined"]) & (known["phash"] != "")]
        return known["phash"].tolist(), known["name"].tolist()

    @property
    def ledger(self) -> pd.DataFrame:
        """The table of inbox files."""
        return self._ledger

    def pictures(self) -> pd.DataFrame | None:
        """The table of provenance, if anything was delivered."""
        return self._read(METADATA, METADATA_SCHEMA)

    def checks(self) -> pd.DataFrame | None:
        """The table of measures, if any were taken."""
        return self._read(CHECKS, CHECKS_SCHEMA)

    def check(self, row: Mapping[str, Any]) -> None:
        """Keep a row of measures for `commit`: of a picture, or of an edit of which no picture was wanted."""
        self._checks.append({**row, "job_hash": self._facts["job_hash"]})

    def put(
        self,
        file_name: str,
        file: Callable[[Mapping[str, str]], bytes],
        *,
        item: str,
        source: str,
        edit: str,
        strength: float,
        targets: Mapping[str, int],
        probability: float,
        boundaries: Mapping[str, str],
        judged_by: Mapping[str, str],
    ) -> None:
        """Write one picture, the `file` of its provenance, and keep its row for `commit`."""
        row: dict[str, Any] = {
            "file_name": file_name,
            "item_id": item,
            "source": source,
            "edit": edit,
            "strength": strength,
            "synthetic": True,
            "probability": round(probability, 3),  # further digits depend on the batch
            "judged_by": json.dumps(dict(judged_by), sort_keys=True),
            "boundaries": json.dumps(dict(boundaries), sort_keys=True),
            **self._facts,
        }
        self._box.write(file_name, file(facts_of({**row, "targets": targets})))
        self._rows.append({**row, **{f"target_{name}": sign for name, sign in targets.items()}})

    def commit(self, entries: Iterable[Entry]) -> None:
        """Add the rows of `put` and `check` to their tables, then the entries to inbox.parquet."""
        fresh = pd.DataFrame(
            [(e.name, e.version, e.item, e.status, e.reason, self._facts["job_hash"], e.phash) for e in entries],
            columns=_LEDGER_COLUMNS,
        )
        self.take(pd.DataFrame(self._rows), pd.DataFrame(self._checks), fresh)
        self._rows, self._checks = [], []

    def take(self, pictures: pd.DataFrame, checks: pd.DataFrame, files: pd.DataFrame) -> None:
        """Add rows to the tables: of pictures that are written, of measures, and last of inbox files."""
        if len(pictures):
            before = self.pictures()
            if before is not None:  # columns of an earlier version
                before = before.rename(columns={"recipe": "job", "recipe_hash": "job_hash"})
            kept = [before[~before["file_name"].isin(pictures["file_name"])]] if before is not None else []
            self._write(METADATA, _in_order(pd.concat([*kept, pictures])), METADATA_SCHEMA, _UNITS)
        if len(checks):
            before = self.checks()
            kept = [before[~before["source"].isin(checks["source"])]] if before is not None else []
            both = pd.concat([*kept, checks]).sort_values(["source", "edit", "strength"], ignore_index=True)
            self._write(CHECKS, both, CHECKS_SCHEMA, {})
        if len(files):
            self._replace(pd.concat([self._ledger[~self._ledger["name"].isin(files["name"])], files]))

    def forget(self, files: pd.Series[Any]) -> None:
        """Remove files from inbox.parquet, so that they count as new."""
        self._replace(self._ledger[~self._ledger["name"].isin(files)])

    def _replace(self, ledger: pd.DataFrame) -> None:
        self._ledger = ledger.sort_values("name", ignore_index=True)
        self._write(LEDGER, self._ledger, LEDGER_SCHEMA, {})

    def _known(self, job_hash: str | None) -> pd.DataFrame:
        """Rows of this and former runs; those of this run replace others of the same file."""
        known = self._ledger
        if self._beside is not None:
            former = self._beside.ledger
            known = pd.concat([former[~former["name"].isin(known["name"])], known])
        return known if job_hash is None else known[known["job_hash"] == job_hash]

    def _read(self, name: str, schema: str) -> pd.DataFrame | None:
        data = self._box.read(name)
        return None if data is None else parse_table(io.BytesIO(data), f"{self._address}/{name}", schema=schema)

    def _write(self, name: str, table: pd.DataFrame, schema: str, units: Mapping[str, str]) -> None:
        self._box.write(name, table_bytes(table, schema=schema, units=units))


def facts_of(row: Mapping[str, Any]) -> dict[str, str]:
    """A row of provenance as the facts of a picture file."""
    facts: dict[str, str] = {}
    for name, value in row.items():
        if name == "file_name":
            continue
        if isinstance(value, str):
            facts[name] = value
        else:
            facts[name] = f"{value:g}" if isinstance(value, float) else json.dumps(value, sort_keys=True)
    return facts


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Rows by file name; the columns of targets last, as small integers that may be missing."""
    names = [str(name) for name in table.columns]
    targets = sorted(name for name in names if name.startswith("target_"))
    columns = [*(name for name in names if name not in targets), *targets]
    return table.sort_values("file_name", ignore_index=True)[columns].astype(dict.fromkeys(targets, "Int8"))
