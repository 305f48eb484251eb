"""What people decided on edits: a table that several reviewers, in several processes, may change at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pandas as pd

from boundaryflow.errors import ManifestError
from boundaryflow.files import try_lock
from boundaryflow.store.catalog.review import REVIEW, VERDICTS

_KEYS = ["item_id", "edit"]
_WAIT_S = 10.0
Stamp = tuple[int, int, int]
"""Time, size and inode of a file; all 0 if it does not exist."""


@dataclass(frozen=True)
class Change:
    """A decision on the edit of one image.

    Attributes:
        item_id: The image.
        edit: The edit.
        strength: Strength of the picture that was judged.
        verdict: None takes an earlier verdict back.
    """

    item_id: str
    edit: str
    strength: float
    verdict: Literal["accepted", "rejected"] | None


class Verdicts:
    """The verdicts on the edits of one data set: at most one per image and edit, the last one given.

    Args:
        folder: `data/review/NAME`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / VERDICTS.file
        self._lock = threading.Lock()
        self._read: tuple[Stamp, pd.DataFrame] | None = None

    @property
    def stamp(self) -> Stamp:
        """Changes whenever the table on disk does."""
        return stamp_of(self._path)

    def table(self) -> pd.DataFrame:
        """All verdicts, also those on edits that no longer exist; sorted by image and edit.

        Raises:
            ManifestError: The table is damaged.
        """
        known, stamp = self._read, self.stamp
        if known is None or known[0] != stamp:
            found = VERDICTS.read(self._folder) if any(stamp) else pd.DataFrame()
            known = self._read = stamp, VERDICTS.typed(found, _KEYS)
        return known[1]

    def put(self, changes: Sequence[Change]) -> None:
        """Add verdicts to the table on disk, which is replaced as a whole; later ones replace earlier ones.

        Raises:
            ManifestError: The table is damaged, or another process has it locked for seconds.
        """
        now = datetime.now(UTC)
        added = pd.DataFrame([{**asdict(change), "when": now} for change in changes], columns=list(VERDICTS.types))
        with self._lock, self._locked():
            both = pd.concat([self.table(), added]) if len(self.table()) else added
            last = both.drop_duplicates(_KEYS, keep="last")
            VERDICTS.write(self._folder, VERDICTS.typed(last[last["verdict"].notna()], _KEYS))

    @contextmanager
    def _locked(self) -> Generator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + _WAIT_S
        with (self._folder / "review.lock").open("a") as file:
            while not try_lock(file):
                if time.monotonic() > deadline:
                    raise ManifestError(f"{self._path}: another process has it locked; end it, and try again")
                time.sleep(0.01)
            yield


def stamp_of(path: Path) -> Stamp:
    """Time, size and inode of a file, by which a change is recognised."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return 0, 0, 0
    return about.st_mtime_ns, about.st_size, about.st_ino


def accepted_only(edits: pd.DataFrame, dataset: str, root: Path) -> tuple[pd.DataFrame, int]:
    """The accepted ones of edited pictures.

    Args:
        edits: Rows of `EDITS`, of the method whose pictures are reviewed.
        dataset: Name of the data set.
        root: The project's root.

    Returns:
        Rows of pictures that were accepted at their strength; and the number of accepted pictures that have no row.

    Raises:
        ManifestError: None was accepted.
    """
    folder = REVIEW.folder(dataset, root)
    verdicts = Verdicts(folder).table()
    accepted = verdicts.loc[verdicts["verdict"] == "accepted", [*_KEYS, "strength"]]
    if accepted.empty:
        raise ManifestError(
            f"{folder / VERDICTS.file}: no edit was accepted yet; choose some with `boundaryflow review {dataset}`"
        )
    chosen = edits.merge(accepted, on=[*_KEYS, "strength"])
    return chosen, len(accepted) - len(chosen)


@dataclass(frozen=True)
class Decisions:
    """What people decided on edits of a data set, for jobs that make such edits again.

    Attributes:
        edits: Edit of the data set to attribute to add, remove or flip.
        rejected: Item and edit of those that were rejected.
        accepted: Item and edit to the accepted strength.
    """

    edits: Mapping[str, Mapping[str, str]]
    rejected: frozenset[tuple[str, str]]
    accepted: Mapping[tuple[str, str], float]

    def on(self, item: str, attributes: Collection[str], signs: Mapping[str, int]) -> tuple[bool, float | None]:
        """Whether an edit was rejected; and the strength at which it was accepted, if it was.

        Args:
            item: The image.
            attributes: The attributes that the edit is about, under whatever name.
            signs: Those that it changes to +1 or -1.
        """
        names = [
            name
            for name, changes in self.edits.items()
            if set(changes) == set(attributes) and all(_allows(changes[a], sign) for a, sign in signs.items())
        ]
        strengths = (self.accepted.get((item, name)) for name in names)
        return any((item, name) in self.rejected for name in names), next((s for s in strengths if s is not None), None)


def _allows(change: str, sign: int) -> bool:
    return change == "flip" or (change == "add") == (sign > 0)


def decisions_on(dataset: str, edits: Mapping[str, Mapping[str, str]], root: Path = Path()) -> Decisions:
    """The verdicts on a data set's edits; none where nobody reviewed them.

    Args:
        dataset: Name of the data set.
        edits: Its edits, see `Decisions`.
        root: The project's root.

    Raises:
        ManifestError: The table is damaged.
    """
    rejected: set[tuple[str, str]] = set()
    accepted: dict[tuple[str, str], float] = {}
    for row in Verdicts(REVIEW.folder(dataset, root)).table().to_dict("records"):
        key = str(row["item_id"]), str(row["edit"])
        if row["verdict"] == "rejected":
            rejected.add(key)
        else:
            accepted[key] = float(row["strength"])
    return Decisions(edits, frozenset(rejected), accepted)
