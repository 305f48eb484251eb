"""A staged run is delivered, or put in quarantine, as a whole, wherever a process that does it is killed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from boundaryflow.errors import ManifestError, ParamsError, ShortfallError
from boundaryflow.jobs.bulk_edit import settle_run
from boundaryflow.jobs.delivery import Delivery, Entry
from boundaryflow.jobs.quarantine import Quarantine, settle
from boundaryflow.store import outbox as outbox_module
from boundaryflow.store.outbox import STATE, open_outbox
from tests.small_project import content

_FACTS = {"dataset": "d", "job": "some", "job_hash": "h", "model_sha256": "m"}
_FILES = {"a.png": "delivered", "b.png": "bad", "c.png": "delivered", "d.png": "unsure"}
_LISTING = pd.DataFrame({"name": list(_FILES), "version": "1"})


class Killed(BaseException):
    pass


@pytest.fixture(autouse=True)
def _no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process loses nothing that it wrote; only a power cut would, and waiting for the disk takes minutes."""
    monkeypatch.setattr(os, "fsync", lambda _file: None)
    monkeypatch.setattr(os, "fdatasync", lambda _file: None)


def put(delivery: Delivery, names: list[str]) -> None:
    for name in names:
        if _FILES[name] != "delivered":
            continue
        for edit in ("hats", "beards"):
            delivery.put(
                f"{edit}/{name}",
                lambda facts: json.dumps(facts).encode(),
                item=name,
                source=name,
                edit=edit,
                strength=1.0,
                targets={edit: 1},
                probability=0.9,
                boundaries={},
                judged_by={},
            )
            delivery.check(
                {"item_id": name, "source": name, "edit": edit, "strength": 1.0, "outcome": "delivered", "reason": ""}
            )
    delivery.commit([Entry(name, "1", name, _FILES[name], "", "00") for name in names])


def run(out: str, decision: str) -> None:
    """What a guarded run does, in two batches."""
    with open_outbox(out, "bulk_edit some") as box:
        delivery = Delivery(box, out, _FACTS)
        quarantine = Quarantine(box, out, "some", delivery)
        quarantine.finish()
        staged = quarantine.resumed("key")
        if not staged and delivery.new_files(_LISTING, job_hash=None).empty:
            return
        staged = staged or quarantine.begin("key")
        with quarantine.staging(staged) as staging:
            part = Delivery(staging, out, _FACTS, delivery)
            new = part.new_files(_LISTING, job_hash=None)["name"].tolist()
            for some in (new[:2], new[2:]):
                put(part, some)
            quarantine.decide(staged, decision, "falls short" if decision == "quarantine" else "")
        quarantine.finish()


def release(out: str) -> None:
    _settle(out, is_release=True)


def discard(out: str) -> None:
    _settle(out, is_release=False)


def _settle(out: str, *, is_release: bool) -> None:
    with open_outbox(out, "bulk_edit some") as box:
        quarantine = Quarantine(box, out, "some", Delivery(box, out, {}))
        quarantine.finish()
        if quarantine.waiting:
            settle(box, out, "some", quarantine.waiting[0], release=is_release)


def state(root: Path) -> tuple[dict[str, bytes], list[tuple[Any, ...]], list[str]]:
    """Pictures and tables of an outbox, its files' statuses, and what is beside it; without the name of the run."""
    files = {n: d for n, d in content(root / "out").items() if not n.startswith(STATE) and n != "inbox.parquet"}
    with open_outbox(str(root / "out"), "bulk_edit some") as box:
        ledger = Delivery(box, "out", {}).ledger
        assert json.loads(box.read_own(f"{STATE}/quarantine.json") or b"{}").keys() == {
            path.name for path in (root / "out.quarantine").glob("*")
        }
    rows = [(r["name"], r["status"], bool(r["reason"])) for r in ledger.to_dict("records")]
    beside = sorted(name.partition("/")[2] for name in content(root / "out.quarantine") if STATE not in name)
    return files, rows, beside


def killed_at(number: int, how: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Kill the process before or after it writes its n-th file, or before it removes one; whether it came to it."""
    count = [0]

    def dying(original: Any, *, before: bool) -> Any:
        def called(*words: Any, **options: Any) -> Any:
            count[0] += 1
            if before and count[0] == number:
                raise Killed
            result = original(*words, **options)
            if count[0] == number:
                raise Killed
            return result

        return called

    if how == "removing":
        for name in ("unlink", "rmdir"):
            monkeypatch.setattr(Path, name, dying(getattr(Path, name), before=True))
    else:
        monkeypatch.setattr(outbox_module, "write_bytes", dying(outbox_module.write_bytes, before=how == "before"))
    return lambda: count[0] >= number


def falls_short(work: Callable[[], None]) -> bool:
    try:
        work()
    except ShortfallError:
        return True
    return False


@pytest.mark.parametrize(
    ("decision", "how"),
    [(decision, how) for decision in ("deliver", "quarantine") for how in ("before", "after")]
    + [("deliver", "removing")],
)
def test_run_killed_anywhere_ends_as_an_undisturbed_one(
    decision: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert falls_short(lambda: run(str(tmp_path / "whole/out"), decision)) == (decision == "quarantine")
    wanted = state(tmp_path / "whole")
    assert {row[1] for row in wanted[1]} == {"bad", "unsure", "delivered" if decision == "deliver" else "quarantined"}
    assert bool(wanted[2]) == (decision == "quarantine")
    assert any(name.endswith(".png") for name in wanted[0]) == (decision == "deliver")
    for number in range(1, 100):
        out = tmp_path / str(number) / "out"
        with monkeypatch.context() as patch:
            reached = killed_at(number, how, patch)
            with suppress(Killed):
                falls_short(lambda: run(str(out), decision))  # noqa: B023
        falls_short(lambda: run(str(out), decision))  # noqa: B023
        assert state(out.parent) == wanted
        if not reached():
            break
    else:
        pytest.fail("there is no end to it")
    assert number > 3


@pytest.mark.parametrize("how", ["before", "after", "removing"])
@pytest.mark.parametrize("work", [release, discard], ids=["release", "discard"])
def test_release_and_discard_killed_anywhere_are_completed_by_what_comes_next(
    work: Callable[[str], None], how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = tmp_path / "template"
    falls_short(lambda: run(str(template / "out"), "quarantine"))
    shutil.copytree(template, tmp_path / "whole")
    work(str(tmp_path / "whole/out"))
    wanted = state(tmp_path / "whole")
    assert wanted[2] == []
    if work is release:
        run(str(tmp_path / "passed/out"), "deliver")
        assert wanted == state(tmp_path / "passed")
    else:
        assert [row[0] for row in wanted[1]] == ["b.png", "d.png"]
    for number in range(1, 100):
        root = Path(shutil.copytree(template, tmp_path / str(number)))
        with monkeypatch.context() as patch:
            reached = killed_at(number, how, patch)
            with suppress(Killed):
                work(str(root / "out"))
        work(str(root / "out"))
        assert state(root) == wanted
        if not reached():
            break
    else:
        pytest.fail("there is no end to it")
    assert number > 3


@pytest.fixture
def held(tmp_path: Path) -> tuple[Path, Path, str]:
    """An outbox, and the folder and the name of its run in quarantine."""
    falls_short(lambda: run(str(tmp_path / "out"), "quarantine"))
    (folder,) = (tmp_path / "out.quarantine").iterdir()
    return tmp_path / "out", folder, folder.name


def settled(out: Path, run_name: str, *, is_release: bool) -> dict[str, int]:
    with open_outbox(str(out), "bulk_edit some") as box:
        return settle(box, str(out), "some", run_name, release=is_release)


def test_pictures_that_a_person_removed_are_left_out_and_said(held: tuple[Path, Path, str]) -> None:
    out, folder, name = held
    for removed in ("hats/a.png", "hats/c.png", "beards/c.png"):
        (folder / removed).unlink()
    assert settled(out, name, is_release=True) == {"pictures": 1, "files": 1, "removed": 3, "edited again": 0}
    assert [path.name for path in out.rglob("*.png")] == ["a.png"]
    with open_outbox(str(out), "bulk_edit some") as box:
        rows = Delivery(box, "out", {}).ledger.set_index("name")
        assert Delivery(box, "out", {}).pictures()["file_name"].tolist() == ["beards/a.png"]  # type: ignore[index]
    assert rows.loc["a.png", ["status", "reason"]].tolist() == [
        "delivered",
        f"1 pictures were removed in quarantine {name}",
    ]
    assert rows.loc["c.png", "status"] == "held"


def test_picture_that_a_person_changed_is_refused_and_never_removed(held: tuple[Path, Path, str]) -> None:
    out, folder, name = held
    (folder / "hats/a.png").write_bytes(b"painted over")
    (folder / "notes.txt").write_bytes(b"mine")
    with pytest.raises(ManifestError, match=r"hats/a.png was changed since it was written; take it away"):
        settled(out, name, is_release=True)
    assert not list(out.rglob("metadata.parquet"))
    (folder / "hats/a.png").rename(folder / "hats/mine.png")
    run(str(out), "deliver")  # completes the release
    assert sorted(path.name for path in out.rglob("*.png")) == ["a.png", "c.png", "c.png"]
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {"mine.png", "notes.txt"}


def test_files_that_were_edited_again_since_stay_as_they_are(held: tuple[Path, Path, str]) -> None:
    out, _folder, name = held
    with open_outbox(str(out), "bulk_edit some") as box:
        newer = Delivery(box, "out", {**_FACTS, "job_hash": "newer"})
        put(newer, ["a.png"])
    before = (out / "hats/a.png").read_bytes()
    assert settled(out, name, is_release=True) == {"pictures": 2, "files": 1, "removed": 0, "edited again": 1}
    assert (out / "hats/a.png").read_bytes() == before


def test_unknown_run_and_lost_folder_are_one_line(held: tuple[Path, Path, str]) -> None:
    out, folder, name = held
    for other in ("20260101-000000-000", "../..", ""):
        with pytest.raises(ManifestError, match=f"is not in quarantine; there are {name}"):
            settled(out, other, is_release=True)
    shutil.rmtree(folder)
    with pytest.raises(ManifestError, match=r"is gone; --discard .* lets its files be edited again"):
        settled(out, name, is_release=True)
    assert settled(out, name, is_release=False) == {"forgotten": 2}
    assert state(out.parent)[2] == []


def test_what_a_killed_process_decided_of_another_run_does_not_count_as_settled(held: tuple[Path, Path, str]) -> None:
    out, _folder, name = held
    with open_outbox(str(out), "bulk_edit some") as box:
        delivery = Delivery(box, "out", _FACTS)
        quarantine = Quarantine(box, str(out), "some", delivery)
        staged = quarantine.begin("newer")
        with quarantine.staging(staged) as staging:
            put(Delivery(staging, "out", _FACTS), ["b.png"])
        quarantine.decide(staged, "deliver")  # and killed
    assert settled(out, name, is_release=False) == {"forgotten": 2}
    assert state(out.parent)[1:] == ([("b.png", "bad", False), ("d.png", "unsure", False)], [])


def test_settling_under_a_name_that_is_no_job_claims_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(ParamsError, match=r"bulk_edit has no job 'glases'"):
        settle_run("glases", str(tmp_path / "out"), "20260101-000000-000", release=True)
    assert not (tmp_path / "out").exists()


def test_state_that_leads_elsewhere_is_refused(held: tuple[Path, Path, str]) -> None:
    out, _folder, _name = held
    for text in ('{"../../victim": {"step": "clear"}}', "[]", '{"20260101-000000-000": {}}', "x"):
        (out / STATE / "quarantine.json").write_text(text)
        with pytest.raises(ManifestError, match=r"quarantine.json is damaged"):
            run(str(out), "deliver")


def test_staged_run_of_another_version_of_the_job_is_thrown_away(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    with open_outbox(out, "bulk_edit some") as box:
        quarantine = Quarantine(box, out, "some", Delivery(box, out, _FACTS))
        staged = quarantine.begin("old")
        with quarantine.staging(staged) as staging:
            put(Delivery(staging, out, _FACTS), ["a.png"])
        assert quarantine.resumed("old") == staged
        assert quarantine.resumed("new") is None
    assert not list((tmp_path / "out.quarantine").iterdir())


def test_store_as_outbox(s3: Any) -> None:
    out = "s3://pictures/edited"
    assert falls_short(lambda: run(out, "quarantine"))

    def keys() -> list[str]:
        return [each["Key"] for each in s3.list_objects_v2(Bucket="pictures").get("Contents", [])]

    assert len([key for key in keys() if key.startswith("edited.quarantine/") and key.endswith(".png")]) == 4
    release(out)
    assert sorted(key for key in keys() if key.endswith(".png")) == [
        f"edited/{edit}/{name}" for edit in ("beards", "hats") for name in ("a.png", "c.png")
    ]
    assert not [key for key in keys() if key.startswith("edited.quarantine/")]
