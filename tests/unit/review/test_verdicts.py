from __future__ import annotations

import threading
from pathlib import Path

import pandas as pd
import pytest

from boundaryflow.errors import ManifestError
from boundaryflow.review import verdicts as room
from boundaryflow.review.verdicts import Change, Verdicts, accepted_only
from boundaryflow.store.catalog.edit import EDIT, EDITS
from boundaryflow.store.catalog.review import REVIEW, VERDICTS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return REVIEW.folder("toy", tmp_path)


def _facts(folder: Path) -> list[tuple[str, str, float, str]]:
    """What a reader without this class finds on disk."""
    table = VERDICTS.read(folder)
    return list(zip(table["item_id"], table["edit"], table["strength"], table["verdict"], strict=True))


def test_last_verdict_on_an_edit_counts_and_one_can_be_taken_back(folder: Path) -> None:
    verdicts = Verdicts(folder)
    verdicts.put([Change("b", "hat", 1.0, "accepted"), Change("a", "hat", 1.0, "rejected")])
    verdicts.put([Change("b", "hat", 2.0, "rejected"), Change("b", "smile", 1.0, "accepted")])
    assert _facts(folder) == [
        ("a", "hat", 1.0, "rejected"),
        ("b", "hat", 2.0, "rejected"),
        ("b", "smile", 1.0, "accepted"),
    ]
    verdicts.put([Change("b", "hat", 2.0, None), Change("nobody", "hat", 2.0, None)])
    assert _facts(folder) == [("a", "hat", 1.0, "rejected"), ("b", "smile", 1.0, "accepted")]
    assert list(VERDICTS.read(folder).columns) == ["item_id", "edit", "strength", "verdict", "when"]
    assert VERDICTS.read(folder)["when"].dt.tz is not None


def test_two_reviewers_lose_nothing_of_one_another(folder: Path) -> None:
    def review(name: str) -> None:
        mine = Verdicts(folder)
        for number in range(15):
            mine.put([Change(f"{name}{number}", "hat", 1.0, "accepted"), Change("both", "hat", 1.0, "rejected")])

    threads = [threading.Thread(target=review, args=[name]) for name in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(_facts(folder)) == 46
    assert [path.name for path in sorted(folder.iterdir())] == ["review.lock", "review.parquet"]


def test_verdicts_that_another_process_gave_are_seen(folder: Path) -> None:
    one, other = Verdicts(folder), Verdicts(folder)
    one.put([Change("a", "hat", 1.0, "accepted")])
    assert len(other.table()) == 1
    before = other.stamp
    one.put([Change("b", "hat", 1.0, "accepted")])
    assert other.stamp != before
    assert len(other.table()) == 2


def test_no_verdict_is_given_while_another_process_holds_the_table(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_WAIT_S", 0.05)
    one = Verdicts(folder)
    with one._locked(), pytest.raises(ManifestError, match="another process has it locked"):
        Verdicts(folder).put([Change("a", "hat", 1.0, "accepted")])


def test_damaged_table_is_told_of_and_never_overwritten(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / VERDICTS.file).write_bytes(b"torn")
    with pytest.raises(ManifestError, match=r"review\.parquet: damaged"):
        Verdicts(folder).put([Change("a", "hat", 1.0, "accepted")])
    assert (folder / VERDICTS.file).read_bytes() == b"torn"


def test_accepted_only_keeps_accepted_pictures_at_their_strength(root: Path) -> None:
    edits = EDITS.read(EDIT.folder("toy", root))
    with pytest.raises(ManifestError, match="no edit was accepted yet; choose some with `boundaryflow review toy`"):
        accepted_only(edits, "toy", root)
    Verdicts(REVIEW.folder("toy", root)).put(
        [
            Change("aaaa", "hat", 2.0, "accepted"),
            Change("bbbb", "hat", 1.0, "rejected"),
            Change("bbbb", "smile", 1.0, "accepted"),
            Change("gone", "smile", 1.0, "accepted"),
            Change("cccc", "smile", 1.25, "accepted"),
        ]
    )
    chosen, num_gone = accepted_only(edits, "toy", root)
    found = set(zip(chosen["item_id"], chosen["edit"], chosen["strength"], strict=True))
    assert (found, num_gone) == ({("aaaa", "hat", 2.0), ("bbbb", "smile", 1.0)}, 2)
    assert list(chosen.columns) == list(edits.columns)
    assert isinstance(chosen, pd.DataFrame)
