"""What an outbox replaces and removes is its own."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import fsspec
import pytest

from boundaryflow.errors import ManifestError, PipelineError
from boundaryflow.store.outbox import STATE, open_folder, open_outbox


def test_removes_only_what_it_wrote_as_it_wrote_it(tmp_path: Path) -> None:
    with open_outbox(str(tmp_path / "out"), "job") as box:
        for name in ("a/1.png", "a/2.png", "a/3.png"):
            box.write(name, name.encode())
    (tmp_path / "out/a/2.png").write_bytes(b"painted over")
    (tmp_path / "out/a/4.png").write_bytes(b"mine")
    with open_outbox(str(tmp_path / "out"), "job") as box:
        box.remove_others({"a/3.png"})
    assert sorted(path.name for path in (tmp_path / "out/a").iterdir()) == ["2.png", "3.png", "4.png"]


def test_record_that_names_other_files_removes_none(tmp_path: Path) -> None:
    """A record is data as well: it counts for files in the outbox whose content it knows."""
    out, victim = tmp_path / "out", tmp_path / "victim.txt"
    victim.write_bytes(b"precious")
    with open_outbox(str(out), "job") as box:
        box.write("a.png", b"x")
    (out / "mine.txt").write_bytes(b"mine")
    lines = [["../victim.txt", 8, "0" * 64], [str(victim), 8, "0" * 64], ["mine.txt", 4, "0" * 64], "nonsense"]
    with (out / STATE / "written.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines[2:])
    with open_outbox(str(out), "job") as box:
        box.remove_others(set())
    assert (out / "mine.txt").exists()
    digest = hashlib.sha256(b"precious").hexdigest()
    with (out / STATE / "written.jsonl").open("a") as file:
        file.writelines(json.dumps([name, 8, digest]) + "\n" for name in ("../victim.txt", str(victim)))
        file.write("[" * 100_000 + "\n")
    with open_outbox(str(out), "job") as box:
        box.remove_others(set())
    assert victim.read_bytes() == b"precious"


def test_temporary_files_of_others_stay(tmp_path: Path) -> None:
    for name in ("thesis/chapter1.tmp", "a.tmp", "folder.tmp/x", ".boundaryflow-1-0011223344556677.tmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"mine")
    (tmp_path / STATE).mkdir()
    (tmp_path / STATE / ".boundaryflow-1-0011223344556677.tmp").write_bytes(b"half")
    with open_outbox(str(tmp_path), "job") as box:
        box.write("a.png", b"x")
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.name.endswith(".tmp")}
    assert left == {"thesis/chapter1.tmp", "a.tmp", "folder.tmp", ".boundaryflow-1-0011223344556677.tmp"}


def test_outbox_of_another_job_is_refused_by_name(tmp_path: Path) -> None:
    with open_outbox(str(tmp_path), "bulk_edit glasses"):
        pass
    with pytest.raises(ManifestError, match="is the outbox of bulk_edit glasses, and not of bulk_edit hats"), \
            open_outbox(str(tmp_path), "bulk_edit hats"):  # fmt: skip
        pass


def test_links_are_not_written_through(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/edit").symlink_to(outside)
    (tmp_path / "out/one.png").symlink_to(outside / "one.png")
    with open_outbox(str(tmp_path / "out"), "job") as box:
        for name, match in (("edit/a.png", "leads out of it"), ("one.png", "is a link"), ("../x.png", "leads out")):
            with pytest.raises(ManifestError, match=match):
                box.write(name, b"x")
    assert not list(outside.iterdir())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / STATE).symlink_to(outside)
    with pytest.raises(ManifestError, match="is a link"), open_outbox(str(tmp_path / "other"), "job"):
        pass


def test_cut_line_of_the_record_costs_no_other_and_a_file_of_the_same_bytes_stays_the_users(tmp_path: Path) -> None:
    (tmp_path / "same.png").write_bytes(b"x")
    with open_outbox(str(tmp_path), "job") as box:
        box.write("same.png", b"x")
    with (tmp_path / STATE / "written.jsonl").open("a") as file:
        file.write('["cut')
    with open_outbox(str(tmp_path), "job") as box:
        box.write("ours.png", b"y")
    with open_outbox(str(tmp_path), "job") as box:
        box.remove_others(set())
    assert (tmp_path / "same.png").exists()
    assert not (tmp_path / "ours.png").exists()


@pytest.mark.parametrize("name", ["lock", "written.jsonl", "job.json"])
@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_state_that_somebody_planted_is_refused_and_not_waited_for(tmp_path: Path, name: str, kind: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / "out" / STATE).mkdir(parents=True)
    planted = tmp_path / "out" / STATE / name
    planted.symlink_to(victim) if kind == "link" else os.mkfifo(planted)
    with pytest.raises(PipelineError, match="is a link|regular file"), open_outbox(str(tmp_path / "out"), "job"):
        pass
    assert victim.read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["metadata.parquet", "inbox.parquet", "runs.jsonl"])
def test_tables_of_somebody_else_are_refused_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(ManifestError, match="exists, and is not as a run wrote it"), open_outbox(str(tmp_path), "job"):
        pass
    assert (tmp_path / name).read_bytes() == b"mine"


def test_picture_of_somebody_else_is_not_replaced_and_our_own_is(tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_bytes(b"mine")
    with open_outbox(str(tmp_path), "job") as box:
        with pytest.raises(ManifestError, match=r"mine\.png exists, and"):
            box.write("mine.png", b"x")
        box.write("mine.png", b"mine")  # the same bytes: nothing is lost
        box.write("ours.png", b"1")
        box.write("ours.png", b"2")
    assert (tmp_path / "ours.png").read_bytes() == b"2"


def test_kill_between_record_and_file_leaves_the_table_ours(tmp_path: Path) -> None:
    with open_outbox(str(tmp_path), "job") as box:
        box.write("metadata.parquet", b"1")
    with (tmp_path / STATE / "written.jsonl").open("a") as file:
        file.write(json.dumps(["metadata.parquet", 1, hashlib.sha256(b"2").hexdigest()]) + "\n")
    with open_outbox(str(tmp_path), "job") as box:
        box.write("metadata.parquet", b"2")
    assert (tmp_path / "metadata.parquet").read_bytes() == b"2"


def test_dangling_link_as_state_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / STATE).symlink_to(tmp_path / "nowhere")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("out", "link"):
        with pytest.raises(ManifestError, match="is a link"), open_outbox(str(tmp_path / name), "job"):
            pass
    assert not (tmp_path / "nowhere").exists()


def test_huge_file_in_the_place_of_ours_is_refused_unread(tmp_path: Path) -> None:
    """Sizes are compared first: 64 GiB of a sparse file would take minutes to hash."""
    with open_outbox(str(tmp_path), "job") as box:
        box.write("a.png", b"x")
    os.truncate(tmp_path / "a.png", 2**36)
    os.truncate(tmp_path / STATE / "written.jsonl", (tmp_path / STATE / "written.jsonl").stat().st_size + 2**24)
    with open_outbox(str(tmp_path), "job") as box:
        with pytest.raises(ManifestError, match=r"a\.png exists, and"):
            box.write("a.png", b"y")
        box.remove_others(set())
    assert (tmp_path / "a.png").stat().st_size == 2**36


def test_remote_outbox_is_claimed_while_it_is_empty() -> None:
    files = fsspec.filesystem("memory")
    files.pipe_file("/mine/picture.png", b"mine")
    with pytest.raises(ManifestError, match=r"of no job, and holds picture\.png"), \
            open_outbox("memory://mine", "job"):  # fmt: skip
        pass
    assert files.find("/mine") == ["/mine/picture.png"]
    with open_outbox("memory://box", "job") as box:
        box.write("a/1.png", b"1")
        box.write("a/2.png", b"2")
    files.pipe_file("/box/a/2.png", b"painted over")
    files.pipe_file("/box/a/3.png", b"mine")
    with open_outbox("memory://box", "job") as box:
        box.write("a/4.png", b"4")
        box.remove_others({"a/4.png"})
    assert sorted(name for name in files.find("/box") if name.endswith("png")) == [
        "/box/a/2.png", "/box/a/3.png", "/box/a/4.png",
    ]  # fmt: skip


def test_file_is_published_whole_and_what_is_not_is_gone(tmp_path: Path) -> None:
    with open_folder(tmp_path / "out", "job") as box:
        for name in ("one", "two"):
            path = box.scratch()
            path.write_bytes(name.encode())
            if name == "one":
                box.publish("a/one.tar", path)
    assert (tmp_path / "out/a/one.tar").read_bytes() == b"one"
    assert sorted(path.name for path in (tmp_path / "out" / STATE).iterdir()) == ["job.json", "lock", "written.jsonl"]
    with open_folder(tmp_path / "out", "job") as box:
        box.remove_others(())
    assert not (tmp_path / "out/a").exists()


def test_published_file_replaces_no_file_of_others(tmp_path: Path) -> None:
    (tmp_path / "out/data").mkdir(parents=True)
    (tmp_path / "out/data/b-1.tar").write_bytes(b"mine")
    with open_folder(tmp_path / "out", "job") as box:
        path = box.scratch()
        path.write_bytes(b"ours")
        with pytest.raises(ManifestError, match="b-1.tar exists, and is not as a run wrote it"):
            box.publish("data/b-1.tar", path)
        with pytest.raises(ManifestError, match="leads out of it"):
            box.publish("../b-1.tar", path)
        with pytest.raises(ManifestError, match="b-1.tar exists, and is not as a run wrote it"):
            box.check_free("data/b-*.tar")
        box.check_free("data/c-*.tar")
    assert (tmp_path / "out/data/b-1.tar").read_bytes() == b"mine"


def test_folder_is_removed_with_its_last_file_of_ours_only(tmp_path: Path) -> None:
    with open_folder(tmp_path / "out", "job") as box:
        for name in ("a/b/1.png", "c/1.png"):
            box.write(name, b"x")
    (tmp_path / "out/c/mine.txt").write_bytes(b"mine")
    with open_folder(tmp_path / "out", "job") as box:
        box.remove_others(())
    assert [path.name for path in (tmp_path / "out").rglob("*") if STATE not in path.parts] == ["c", "mine.txt"]
