"""Runs of bulk edits that are delivered as a whole or not at all.

A run whose job expects something of it is staged in a folder beside the outbox, an outbox of its own. If it meets what
is expected, it is handed over to the outbox; else it stays there, in quarantine, until a person releases or discards
it. A file in the outbox's state folder says how far each such run is. Each step can be repeated, so that after a kill
the next run, or the next command, completes it:

    stage -> deliver -> clear                                 it met what was expected
    stage -> quarantine -> quarantined -> release -> clear    it did not, and a person released it
                                       -> discard -> clear    or discarded it
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from boundaryflow.config import quarantine_of
from boundaryflow.errors import ManifestError, ShortfallError
from boundaryflow.jobs.delivery import Delivery
from boundaryflow.store.outbox import Outbox, open_outbox
from boundaryflow.store.outbox_record import STATE
from boundaryflow.text import masked, visible

LOG = logging.getLogger(__name__)
_STEPS = f"{STATE}/quarantine.json"
_RUN = re.compile(r"\d{8}-\d{6}-\d{3}")


class Quarantine:
    """The staged and quarantined runs of an outbox.

    Args:
        box: The outbox, open.
        outbox: Its address.
        job: Name of the job.
        delivery: The content of the outbox.

    Raises:
        ManifestError: The file that says how far the runs are is damaged.
    """

    def __init__(self, box: Outbox, outbox: str, job: str, delivery: Delivery) -> None:
        self._box, self._outbox, self._job, self._delivery = box, outbox, job, delivery
        try:
            known: Any = json.loads(box.read_own(_STEPS) or b"{}")
            self._runs = {str(run): {str(k): str(v) for k, v in facts.items()} for run, facts in known.items()}
        except (ValueError, AttributeError, RecursionError):
            self._runs = {"": {}}
        if not all(_RUN.fullmatch(run) and "step" in facts for run, facts in self._runs.items()):
            raise ManifestError(f"outbox {masked(outbox)}: {_STEPS} is damaged; choose another outbox")

    def folder(self, run: str) -> str:
        """Address of a run's folder."""
        return f"{quarantine_of(self._outbox)}/{run}"

    def staging(self, run: str) -> AbstractContextManager[Outbox]:
        """The outbox that a run is staged in, open."""
        return open_outbox(self.folder(run), f"bulk_edit {self._job}, run {run}")

    @property
    def waiting(self) -> list[str]:
        """The runs in quarantine."""
        return [run for run, facts in self._runs.items() if facts["step"] == "quarantined"]

    def resumed(self, key: str | None) -> str | None:
        """The run of this key that was staged by a process that was killed; another such run is thrown away."""
        for run, facts in list(self._runs.items()):
            if facts["step"] == "stage" and facts.get("key", "") == key:
                return run
            if facts["step"] == "stage":
                self._put(run, step="clear")
                self._clear(run)
        return None

    def begin(self, key: str) -> str:
        """Begin to stage a run; returns its name, by the time."""
        now = datetime.now(UTC)
        run = f"{now:%Y%m%d-%H%M%S}-{now.microsecond // 1000:03}"
        self._put(run, step="stage", key=key)
        return run

    def decide(self, run: str, step: str, told: str = "") -> None:
        """Enter what becomes of a run, which `finish` does.

        Args:
            run: The run.
            step: `deliver`, `quarantine`, `release` or `discard`.
            told: Why it falls short.
        """
        self._put(run, step=step, told=told)

    def finish(self) -> dict[str, int]:
        """Do what was decided; returns the number of pictures and files that were handed over, or kept back.

        Raises:
            ShortfallError: A run was put in quarantine.
        """
        counts: dict[str, int] = {}
        for run, facts in list(self._runs.items()):
            step = facts["step"]
            if step in ("deliver", "release"):
                counts = self._hand_over(run, released=step == "release")
            elif step == "discard":
                counts = {"forgotten": self._forget(run)}
            elif step == "quarantine":
                self._enter(run)
            if step in ("deliver", "release", "discard", "clear"):
                self._put(run, step="clear")
                self._clear(run)
            if told := facts.get("told"):
                raise ShortfallError(told)
        return counts

    def warn(self) -> None:
        """Say which runs wait for a person."""
        if self.waiting:
            LOG.warning(
                "bulk_edit %s: %d in quarantine in %s (%s): --release RUN delivers one, --discard RUN forgets it",
                self._job,
                len(self.waiting),
                masked(quarantine_of(self._outbox)),
                ", ".join(self.waiting[-3:]),
            )

    def _put(self, run: str, **facts: str) -> None:
        self._runs[run] = facts
        self._save()

    def _save(self) -> None:
        self._box.put_own(_STEPS, json.dumps(self._runs, indent=1).encode())

    def _clear(self, run: str) -> None:
        """Remove the folder of a run, but for files that are not as we wrote them."""
        with self.staging(run) as box:
            box.dissolve()
        del self._runs[run]
        self._save()

    def _enter(self, run: str) -> None:
        """Enter the files of a run in the outbox's table, those with pictures as quarantined."""
        with self.staging(run) as box:
            files = Delivery(box, masked(self.folder(run)), {}).ledger
        has_pictures = files["status"] == "delivered"
        files = files.assign(
            status=files["status"].mask(has_pictures, "quarantined"), reason=files["reason"].mask(has_pictures, run)
        )
        self._delivery.take(pd.DataFrame(), pd.DataFrame(), files)
        self._put(run, step="quarantined" if has_pictures.any() else "clear")
        if not has_pictures.any():
            self._clear(run)

    def _hand_over(self, run: str, *, released: bool) -> dict[str, int]:
        """Copy the pictures of a run to the outbox, then add its rows.

        Files that were edited again since it was quarantined, and pictures that a person removed, are left out.
        """
        with self.staging(run) as box:
            staged = Delivery(box, masked(self.folder(run)), {})
            files, pictures, checks = staged.ledger, staged.pictures(), staged.checks()
            pictures = pd.DataFrame({"file_name": [], "source": []}) if pictures is None else pictures
            num_all = int((files["status"] == "delivered").sum())
            if released:
                files = files[files["name"].isin(self._names(run)) & (files["status"] == "delivered")]
            pictures = pictures[pictures["source"].isin(files["name"])]
            removed: set[str] = set()
            for name in pictures["file_name"]:
                data = box.read_ours(name)
                if data is None:
                    removed.add(name)
                else:
                    self._box.write(name, data)
        is_removed = pictures["file_name"].isin(removed)
        files = _without(files, pictures[is_removed]["source"], pictures[~is_removed]["source"], run)
        checks = pd.DataFrame() if checks is None else checks[checks["source"].isin(files["name"])]
        self._delivery.take(pictures[~is_removed], checks, files)
        num = int((files["status"] == "delivered").sum())
        return {
            "pictures": int((~is_removed).sum()),
            "files": num,
            "removed": len(removed),
            "edited again": num_all - int((files["status"].isin(["delivered", "held"])).sum()) if released else 0,
        }

    def _names(self, run: str) -> pd.Series[Any]:
        """The files that the outbox's table has as quarantined with a run."""
        files = self._delivery.ledger
        return files[(files["status"] == "quarantined") & (files["reason"] == run)]["name"]

    def _forget(self, run: str) -> int:
        names = self._names(run)
        if len(names):
            self._delivery.forget(names)
        return len(names)


def _without(files: pd.DataFrame, removed: pd.Series[Any], left: pd.Series[Any], run: str) -> pd.DataFrame:
    """Files of a run, with a word about those of which a person removed pictures."""
    num_removed: Mapping[Any, int] = removed.value_counts().to_dict()
    some, left_over = files["name"].isin(num_removed), files["name"].isin(left)
    said = files["name"].map(lambda name: f"{num_removed.get(name, 0)} pictures were removed in quarantine {run}")
    reason = (files["reason"] + "; ").where(files["reason"] != "", "") + said
    return files.assign(
        status=files["status"].mask(some & ~left_over, "held"), reason=files["reason"].mask(some, reason)
    )


def settle(box: Outbox, outbox: str, job: str, run: str, *, release: bool) -> dict[str, int]:
    """Release or discard a run.

    Args:
        box: The outbox, open.
        outbox: Its address.
        job: Name of the job.
        run: A run in quarantine.
        release: Deliver it; otherwise remove its pictures, and let its files count as new.

    Returns:
        As `Quarantine.finish`.

    Raises:
        ManifestError: No such run is in quarantine, or its folder is gone or was changed.
        ShortfallError: A run that a killed process had not yet put in quarantine is there now; this one is as it was.
    """
    quarantine = Quarantine(box, outbox, job, Delivery(box, masked(outbox), {}))
    quarantine.finish()  # what a killed process left, so that the counts are of this run alone
    if run not in quarantine.waiting:
        known = ", ".join(quarantine.waiting) or "none"
        raise ManifestError(f"bulk_edit {job}: run {visible(run)} is not in quarantine; there are {known}")
    with quarantine.staging(run) as staging:
        is_gone = Delivery(staging, masked(quarantine.folder(run)), {}).ledger.empty
    if release and is_gone:
        raise ManifestError(
            f"bulk_edit {job}: {masked(quarantine.folder(run))} is gone; --discard {run} lets its files be edited again"
        )
    quarantine.decide(run, "release" if release else "discard")
    return quarantine.finish()
