"""Archives and LMDBs that were made to do harm."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from boundaryflow.errors import ManifestError
from boundaryflow.sources import lmdb_process
from boundaryflow.sources.archives import LmdbPictures, Member, TarPictures, UnusableError, ZipPictures
from tests.hostile.corpus_pictures import CASES, END, deadly_lmdb, padded, tar_header, zip_stating
from tests.raw_data import encoded, write_lmdb, write_tar, write_zip


def members(path: Path) -> list[Member]:
    return list((ZipPictures if path.suffix == ".zip" else TarPictures)(path).members())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("longname.tar.gz", "header of 3,221,225,472 bytes at byte 0"),
        ("pax.tar.gz", "header of 3,221,225,472 bytes at byte 0"),
        ("global.tar.gz", "header of 3,221,225,472 bytes at byte 0"),
        ("negative.tar", "size of -512 bytes at byte 0"),
        ("sparse.tar", "sparse file at byte 0, which is not read; pack it without --sparse"),
        ("sparsepax.tar", "sparse file at byte 1,024, which is not read; pack it without --sparse"),
        ("expands.tar.gz", r"536,871,424 bytes or more in \d+,\d+"),
        ("expands.tar.bz2", r"536,871,424 bytes or more in \d+,\d+"),
        ("hungry.tar.xz", "Memory usage limit exceeded"),
        ("overlap.zip", "members overlap at byte 0"),
    ],
)
def test_archive_made_to_do_harm_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    path = CASES[name](tmp_path)
    with pytest.raises(ManifestError, match=rf"^ingest .*{name}: damaged or incomplete archive \({reason}\)"):
        members(path)


def test_what_follows_the_end_of_a_tar_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boundaryflow.sources.archives._MAX_EXPANDED", (2**20, 200))
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(tar_header("a.png", 0) + END + bytes(2**24), 9))
    with pytest.raises(ManifestError, match="bytes or more in"):
        members(path)


def test_archive_of_more_names_than_it_has_room_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boundaryflow.sources.archives._MAX_NAMES", (10, 64))
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(tar_header("a.png", 0) * 10_000 + END))
    with pytest.raises(ManifestError, match=r"more than \d+ files in [\d,]+ bytes"):
        members(path)


def test_tar_with_long_names_of_every_kind_is_read(tmp_path: Path) -> None:
    names = ["d" * 90 + "/" + "f" * 120 + ".png", "é" * 80 + ".png", "short.png"]
    for number, kind in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        path = tmp_path / f"{number}.tar"
        with tarfile.open(path, "w", format=kind, pax_headers={"comment": "x" * 5000}) as archive:
            for seed, name in enumerate(names):
                info = tarfile.TarInfo(name)
                info.size = len(encoded(seed))
                archive.addfile(info, io.BytesIO(encoded(seed)))
        tar = TarPictures(path)
        assert {member.name: tar.read(member.key) for member in tar.members()} == {
            name: encoded(seed) for seed, name in enumerate(names)
        }


def test_tar_member_that_ends_early_is_unusable(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar_header("a.png", 100) + padded(bytes(100)) + END)
    tar = TarPictures(path)
    (member,) = tar.members()
    path.write_bytes(path.read_bytes()[:550])
    with pytest.raises(UnusableError, match=r"^damaged in its archive \(38 bytes of 100\)$"):
        tar.read(member.key)


@pytest.mark.parametrize("name", ["zeros.zip", "bzip2.zip"])
def test_zip_member_larger_than_a_picture_is_not_unpacked(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boundaryflow.sources.archives.MAX_BYTES", 10**6)
    assert members(CASES[name](tmp_path))[0].reason.endswith("000,000 bytes are too many for a picture")


@pytest.mark.parametrize(("field", "value"), [(24, 5), (24, 10**6), (20, 5), (10, 77), (42, 10**6)])
def test_zip_that_lies_about_a_member_is_unusable(tmp_path: Path, field: int, value: int) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zip_stating(field, value))
    archive = ZipPictures(path)
    with pytest.raises(ManifestError, match="damaged"):
        archive.read(next(iter(archive.members())).key)


def test_lmdb_and_archives_in_an_archive_are_named(tmp_path: Path) -> None:
    (lmdb,) = members(CASES["LMDB in a zip"](tmp_path))
    assert lmdb.reason == "an LMDB in an archive; unpack it"
    write_tar(tmp_path / "a.tar", {"a.rar": b"x", "b.7z": b"x", "c.tar.zst": b"x"}, "w:")
    assert {member.reason for member in members(tmp_path / "a.tar")} == {"an archive within an archive; unpack it"}


def test_zip_of_many_members_is_listed(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", {f"{i}.png": b"x" for i in range(20_000)})
    assert len(members(tmp_path / "a.zip")) == 20_000


def test_damaged_page_ends_the_reader_and_not_the_run(tmp_path: Path) -> None:
    pictures = LmdbPictures(deadly_lmdb(tmp_path), 16)
    keys = {member.name: member.key for member in pictures.members()}
    ended = r"^ingest .*/faces_lmdb: .*, no LMDB that can be read \(its reader ended by signal \d+\); fetch it again$"
    with pytest.raises(ManifestError, match=ended):
        pictures.read(keys["017"])
    assert pictures.read(keys["003"]) == encoded(3, (8, 8))  # by another reader


def test_value_larger_than_a_picture_is_unusable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lmdb(tmp_path / "db", {b"a": bytes(2000)})
    monkeypatch.setattr("boundaryflow.sources.archives.MAX_BYTES", 1999)
    with pytest.raises(UnusableError, match="^2,000 bytes are too many for a picture$"):
        LmdbPictures(tmp_path / "db", 16).read(b"a")


def test_reader_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lmdb(tmp_path / "db", {b"a": encoded(1)})
    monkeypatch.setattr(lmdb_process, "CALL_S", 0.3)
    slow = tmp_path / "slow.py"
    slow.write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(lmdb_process.lmdb_reader, "__file__", str(slow))
    start = time.monotonic()
    with pytest.raises(ManifestError, match=r"\(its reader did not answer for 0\.3 s\)"):
        list(LmdbPictures(tmp_path / "db", 16).members())
    assert time.monotonic() - start < 10


def test_lmdbs_are_read_by_many_threads_and_few_processes(tmp_path: Path) -> None:
    for number in range(6):
        write_lmdb(tmp_path / f"{number}", {f"{i}".encode(): encoded(10 * number + i) for i in range(5)})
    wanted = [(number, i) for i in range(5) for number in range(6)]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda at: LmdbPictures(tmp_path / f"{at[0]}", 16).read(f"{at[1]}".encode()), wanted)
    assert list(found) == [encoded(10 * number + i) for number, i in wanted]
    assert len(lmdb_process._readers) <= 4  # pyright: ignore[reportPrivateUsage]


def test_forked_process_has_a_reader_of_its_own(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "db", {b"a": encoded(1), b"b": encoded(2)})
    pictures = LmdbPictures(tmp_path / "db", 16)
    assert pictures.read(b"a") == encoded(1)
    child = os.fork()
    if child == 0:
        os._exit(0 if pictures.read(b"b") == encoded(2) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert pictures.read(b"b") == encoded(2)
