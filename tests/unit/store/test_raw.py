from __future__ import annotations

import errno
import hashlib
import os
import pickle
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import fsspec
import pytest

from boundaryflow.errors import ManifestError, PipelineError
from boundaryflow.sources import raw as raw_module
from boundaryflow.sources import remote as remote_module
from boundaryflow.sources.archives import UnusableError
from boundaryflow.sources.inbox import list_inbox, open_inbox
from boundaryflow.sources.raw import RawFolder, Wanted, survey
from boundaryflow.sources.remote import UNKNOWN_SIZE, RemoteFolder, list_remote
from tests.hostile.corpus_listing import CASES, GOOD
from tests.raw_data import celebahq, encoded, write_lmdb, write_parquet, write_tar, write_zip

MEMBERS = {f"{letter}/{i}.png": encoded(i) for i, letter in enumerate("bac")}
TARS = {".tar": "w:", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    raw = tmp_path / "raw"
    raw.mkdir()
    return raw


def opened(folder: Path, image_size: int = 16) -> RawFolder:
    return RawFolder(folder, image_size)


def content(raw: RawFolder) -> dict[str, bytes]:
    return {name: raw.read(name) for name in raw.names}


def in_images(members: dict[str, bytes]) -> dict[str, bytes]:
    return {f"deep/images/{name}": data for name, data in members.items()}


def write_archive(folder: Path, suffix: str, members: dict[str, bytes] = MEMBERS) -> Path:
    path = folder / f"deep/images{suffix}"
    write_zip(path, members) if suffix.lower() == ".zip" else write_tar(path, members, TARS[suffix])
    return path


@pytest.mark.parametrize("suffix", [".ZIP", ".zip", *TARS])
def test_archive_counts_as_a_folder_of_its_name(folder: Path, suffix: str) -> None:
    write_archive(folder, suffix)
    assert content(opened(folder)) == in_images(MEMBERS)


@pytest.mark.parametrize("suffix", [".zip", *TARS])
def test_members_are_read_in_any_order_by_many_threads(folder: Path, suffix: str) -> None:
    members = {f"{i}.png": encoded(i) for i in range(20)}
    write_archive(folder, suffix, members)
    raw = opened(folder)
    names = list(reversed(raw.names)) * 3
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(raw.read, names)) == [in_images(members)[name] for name in names]


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_what_is_no_picture_of_an_archive_is_passed_over_or_refused(folder: Path, suffix: str) -> None:
    bad = {"../up.png": b"x", "a/../../up.png": b"x", "/root.png": b"x", "C:\\x.png": b"x", "more.zip": b"x"}
    beside = {".hidden.png": b"x", "__MACOSX/a/1.png": b"x", "labels.csv": b"x", "a/.cache/x.png": b"x", "x.TXT": b"x"}
    write_archive(folder, suffix, {**beside, **bad, "./fine.png": encoded(1), "a\\b.png": encoded(2)})
    raw = opened(folder)
    assert sorted(raw.names) == ["deep/images/a/b.png", "deep/images/fine.png"]
    leads_out = "its path leads out of the archive; pack it again with relative paths"
    assert raw.refused.pop("deep/images/more.zip") == "an archive within an archive; unpack it"
    assert list(raw.refused.values()) == [leads_out] * 4


def test_links_and_folders_of_archives_are_passed_over(folder: Path) -> None:
    with tarfile.open(folder / "t.tar", "w") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        below = tarfile.TarInfo("x.png")
        below.type = tarfile.DIRTYPE
        archive.addfile(link)
        archive.addfile(below)
    with zipfile.ZipFile(folder / "z.zip", "w") as archive:
        info = zipfile.ZipInfo("link.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/hostname")
        archive.mkdir("x.png")
    with pytest.raises(ManifestError, match=r"holds no images, only t \(without a picture\), z \(without a picture\);"):
        opened(folder)


def test_encrypted_and_damaged_members_have_their_reason(folder: Path) -> None:
    path = write_archive(folder, ".zip", {"a.png": encoded(1), "b.png": encoded(2), "c.png": encoded(3)})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag of the first member in the directory
    data[data.index(b"b.png") + 20] ^= 255
    path.write_bytes(data)
    raw = opened(folder)
    assert raw.refused == {"deep/images/a.png": "encrypted; unpack it with its password"}
    assert raw.read("deep/images/c.png") == encoded(3)
    with pytest.raises(UnusableError, match=r"^damaged in its archive \("):
        raw.read("deep/images/b.png")


@pytest.mark.parametrize("suffix", [".zip", *TARS])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_archive_that_is_cut_off_is_one_line(folder: Path, suffix: str, share: float) -> None:
    path = write_archive(folder, suffix, {f"{i}.png": encoded(i) for i in range(12)})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ManifestError, match=rf"^ingest .*images{suffix}: damaged or incomplete archive") as e:
        opened(folder)
    assert str(e.value).endswith("; fetch it again, or remove it")
    assert "\n" not in str(e.value)


def test_tar_with_a_broken_header_in_the_middle_is_not_taken_for_a_short_one(folder: Path) -> None:
    path = write_archive(folder, ".tar")
    data = bytearray(path.read_bytes())
    data[data.index(b"a/1.png") + 148] ^= 1  # its checksum
    path.write_bytes(data)
    with pytest.raises(ManifestError, match=r"incomplete archive \(no header at byte 2,048, and no end\); fetch it"):
        opened(folder)


def test_compressed_tar_is_listed_in_the_order_in_which_it_is_packed(folder: Path) -> None:
    write_archive(folder, ".tar.gz")
    raw = opened(folder)
    assert [name[-7:] for name in raw.names] == list(MEMBERS)
    assert raw.is_in_order(raw.names[0])


def test_picture_with_the_name_of_another_is_refused(folder: Path) -> None:
    write_archive(folder, ".zip")
    (folder / "deep/images/a").mkdir(parents=True)
    (folder / "deep/images/a/1.png").write_bytes(encoded(5))
    raw = opened(folder)
    reason = "another picture has this name; take the archive or the folder away"
    assert raw.refused == {"deep/images/a/1.png (again)": reason}


def test_celebahq_lmdb_is_named_by_its_original_images(folder: Path) -> None:
    write_lmdb(folder / "LMDB_train", celebahq(3, ids=True))
    write_lmdb(folder / "x/celebahq256.lmdb", celebahq(2, ids=False))
    assert content(opened(folder)) == {
        "LMDB_train/000001.jpg": encoded(100),
        "LMDB_train/000008.jpg": encoded(101),
        "LMDB_train/000015.jpg": encoded(102),
        "x/celebahq256.lmdb/00000.jpg": encoded(100),
        "x/celebahq256.lmdb/00001.jpg": encoded(101),
    }


def test_lmdb_is_not_written_to(folder: Path) -> None:
    write_lmdb(folder / "db", {b"a": encoded(1)})
    (folder / "db/lock.mdb").unlink()
    raw = opened(folder)
    assert raw.read("db/a") == encoded(1)
    assert [path.name for path in (folder / "db").iterdir()] == ["data.mdb"]


@pytest.mark.parametrize(("image_size", "size"), [(16, 64), (64, 64), (65, 256), (300, 256)])
def test_lmdb_of_several_sizes_gives_the_smallest_that_is_large_enough(
    folder: Path, image_size: int, size: int
) -> None:
    sizes = (256, 64)
    write_lmdb(
        folder / "db", {f"{s}-00000".encode(): encoded(s) for s in sizes} | {b"length": b"1", b"00000": b"9.png"}
    )
    assert content(opened(folder, image_size)) == {"db/9.png": encoded(size)}


def test_lsun_lmdb_is_named_by_its_keys(folder: Path) -> None:
    keys = {b"0a1b2c": "0a1b2c", b"\xff\x00": "ff00", b"../x": "2e2e2f78", b"a/b.webp": "a/b.webp"}
    write_lmdb(folder / "church_val_lmdb", {key: encoded(i) for i, key in enumerate(keys)})
    assert content(opened(folder)) == {f"church_val_lmdb/{name}": encoded(i) for i, name in enumerate(keys.values())}


def test_lmdb_in_one_file_or_as_the_folder_itself(folder: Path, tmp_path: Path) -> None:
    write_lmdb(folder / "one.lmdb", {b"k": encoded(1)}, subdir=False)
    assert content(opened(folder)) == {"one.lmdb/k": encoded(1)}
    write_lmdb(tmp_path / "itself", {b"k": encoded(1)})
    (tmp_path / "link").symlink_to(tmp_path / "itself")
    assert content(opened(tmp_path / "link")) == {"k": encoded(1)}


def test_lmdb_of_many_pages_is_read_whatever_room_it_has(folder: Path) -> None:
    values = {f"{i:05d}x".encode(): bytes([i]) * 100_000 for i in range(150)}
    write_lmdb(folder / "big", values)
    raw = opened(folder)
    assert raw.read("big/00149x") == bytes([149]) * 100_000


@pytest.mark.parametrize("damage", ["short", "none", "other"])
def test_damaged_lmdb_is_one_line(folder: Path, damage: str) -> None:
    write_lmdb(folder / "db", {f"{i}".encode(): encoded(i) * 10 for i in range(40)})
    path = folder / "db/data.mdb"
    data = path.read_bytes()
    path.write_bytes({"short": data[: len(data) // 2], "none": b"", "other": b"hello" * 5000}[damage])
    with pytest.raises(
        ManifestError, match=r"^ingest .*/db: damaged or cut off, no LMDB that can be read \(.*\); fetch"
    ):
        opened(folder)


def labels_only(folder: Path) -> None:
    (folder / "labels.csv").write_text("x")
    (folder / "README.md").write_text("x")


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda folder: None, "holds no images; put some there (docs/datasets.md says how)"),
        (labels_only, "holds no images, only labels.csv; put some there"),
        (lambda folder: write_lmdb(folder / "db", {b"length": b"0"}), "holds no images, only db (without a picture);"),
        (
            lambda folder: write_parquet(folder / "t.parquet", [b"x"]),
            "holds no images, only t.parquet (pictures within Parquet files are read by ingest.source kind parquet);",
        ),
        (lambda folder: folder.rmdir(), "no such folder; put images there, or link to where they are"),
    ],
    ids=["empty", "labels", "lmdb", "parquet", "missing"],
)
def test_folder_without_pictures_is_told(folder: Path, fill: Callable[[Path], object], message: str) -> None:
    fill(folder)
    with pytest.raises(ManifestError) as error:
        opened(folder)
    assert str(error.value).startswith(f"ingest {folder}: {message}")


def test_files_and_links_are_taken_and_what_is_no_picture_is_left(folder: Path, tmp_path: Path) -> None:
    (folder / "a/b").mkdir(parents=True)
    (folder / ".git").mkdir()
    (tmp_path / "outside/cats").mkdir(parents=True)
    for name in ("a/b/x.JPG", "top.png", "no_suffix", ".hidden.png", ".git/x.png", "a/labels.json"):
        (folder / name).write_bytes(encoded(1))
    for name in ("LICENSE", "notes", "desktop.ini", "clip.MP4", "w.safetensors", "Thumbs.db", "a.7z"):
        (folder / name).write_text("hello\n")
    for name in ("x.png", "cats/y.png"):
        (tmp_path / "outside" / name).write_bytes(encoded(2))
    (folder / "a/link.png").symlink_to(tmp_path / "outside/x.png")
    (folder / "a/inside.png").symlink_to(folder / "top.png")
    (folder / "cats").symlink_to(tmp_path / "outside/cats")
    names = ["a/b/x.JPG", "a/inside.png", "a/link.png", "cats/y.png", "no_suffix", "top.png"]
    assert sorted(opened(folder).names) == names
    assert opened(folder).read("cats/y.png") == encoded(2)


def test_patterns_choose_among_files_and_members(folder: Path) -> None:
    write_zip(folder / "HQ.zip", {"img/1.jpg": encoded(1), "mask/0/1_hair.png": encoded(2), "mask/0/1_skin.png": b"x"})
    (folder / "mask").mkdir()
    (folder / "mask/loose.png").write_bytes(encoded(3))
    assert RawFolder(folder, 16, Wanted(exclude=["*mask/*"])).names == ["HQ/img/1.jpg"]
    raw = RawFolder(folder, 16, Wanted(include=["HQ/*"], exclude=["*_skin.png", "*.gif"]))
    assert raw.names == ["HQ/img/1.jpg", "HQ/mask/0/1_hair.png"]
    assert raw.unmatched == {"*.gif"}
    with pytest.raises(ManifestError, match=r"holds no images, only HQ .*, as `include` and `exclude` of"):
        RawFolder(folder, 16, Wanted(include=["x*"]))


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("**/*.png", {"x.png", "a/x.png", "a/b/x.png"}),
        ("*.png", {"x.png", "a/x.png", "a/b/x.png"}),
        ("a/**/x.png", {"a/x.png", "a/b/x.png"}),
        ("**/b/**", {"a/b/x.png"}),
        ("**/x.png", {"x.png", "a/x.png", "a/b/x.png"}),
        ("a/*", {"a/x.png", "a/b/x.png", "a/y.JPG"}),
        ("[!a]*", {"x.png"}),
        ("a/?.png", {"a/x.png"}),
        ("*.jpg", set()),
        ("x.pn", set()),
    ],
)
def test_pattern_takes_the_names_that_are_documented(pattern: str, names: set[str]) -> None:
    every = ["x.png", "a/x.png", "a/b/x.png", "a/y.JPG"]
    assert {name for name in every if Wanted(include=[pattern])(name)} == names
    assert {name for name in every if not Wanted(exclude=[pattern])(name)} == names


@pytest.mark.timeout(60)
def test_any_folders_many_times_over_is_matched_as_once() -> None:
    """Each further one would multiply the time by the depth of the name."""
    assert not Wanted(include=["**/" * 12 + "x.png"])("a/" * 200 + "y.png")
    assert Wanted(include=["**/" * 12 + "x.png"])("x.png")


@pytest.mark.parametrize("case", sorted(CASES))
def test_odd_entry_neither_hangs_nor_hides_what_is_fine(tmp_path: Path, case: str) -> None:
    folder = CASES[case](tmp_path)
    raw = opened(folder)
    assert GOOD in raw.names
    for name in raw.names:
        assert raw.read(name)
    reasons = {
        "dangling link": {"odd.png": "a link that leads nowhere"},
        "link to itself": {"odd.png": "a link that leads to itself"},
        "name not UTF-8": {"caf\\xe9.png": "its name is not UTF-8; rename it"},
        "folder not UTF-8": {"caf\\xe9/inside.png": "its name is not UTF-8; rename it"},
        "sparse picture": {"huge.png": "42,949,672,960 bytes are too many for a picture"},
        "sparse without suffix": {"huge": "42,949,672,960 bytes are too many for a picture"},
    }
    assert raw.refused == reasons.get(case, {})
    passed = {
        "fifo": "a FIFO", "socket": "a socket", "device by a link": "a device",
        "link to its own folder": "a link to a folder that this one lies in",
        "link to a folder above": "a link to a folder that this one lies in",
    }  # fmt: skip
    if case in passed:
        assert [(file.kind, file.reason) for file in survey(folder) if file.name != GOOD] == [("passed", passed[case])]


def test_folders_linked_to_one_another_are_each_read_once(folder: Path, tmp_path: Path) -> None:
    (folder / "real").mkdir()
    (folder / "real/x.png").write_bytes(encoded(1))
    (folder / "a_link").symlink_to("real")
    (tmp_path / "far").mkdir()
    (tmp_path / "far/y.png").write_bytes(encoded(2))
    (tmp_path / "far/back").symlink_to(folder / "real")
    (folder / "far").symlink_to(tmp_path / "far")
    assert sorted(opened(folder).names) == ["far/y.png", "real/x.png"]


def test_folder_or_file_that_cannot_be_read_is_refused_and_the_rest_is_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("closed/a.png", "open/b.png", "open/c.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(encoded(1))
    scandir, opening = os.scandir, os.open

    def scan(path: Any) -> Any:
        return _denied() if str(path).endswith("closed") else scandir(path)

    def open_(path: Any, *rest: Any) -> int:
        return opening(path, *rest) if not str(path).endswith("c.png") else int(bool(_denied()))

    monkeypatch.setattr(os, "scandir", scan)
    monkeypatch.setattr(os, "open", open_)
    raw = opened(folder)
    assert raw.refused == {"closed": "a folder that cannot be read (Permission denied)"}
    assert raw.read("open/b.png")
    with pytest.raises(UnusableError, match=r"^cannot be read \(Permission denied\)$"):
        raw.read("open/c.png")
    monkeypatch.setattr(os, "scandir", _denied)
    with pytest.raises(ManifestError, match=r"raw: cannot be read \(Permission denied\); change its permissions$"):
        opened(folder)


def test_file_that_changed_after_it_was_listed_is_not_taken(folder: Path) -> None:
    (folder / "a.png").write_bytes(encoded(1))
    write_archive(folder, ".zip")
    found = [
        file._replace(version=hashlib.sha256((folder / file.name).read_bytes()).hexdigest()) for file in survey(folder)
    ]
    raw = RawFolder(folder, 16, found=found)
    assert raw.read("a.png") == encoded(1)
    (folder / "a.png").write_bytes(encoded(2))
    with pytest.raises(UnusableError, match="^changed after it was listed$"):
        raw.read("a.png")
    (folder / "a.png").unlink()
    with pytest.raises(UnusableError, match="^no longer there; it was removed after it was listed$"):
        raw.read("a.png")
    write_archive(folder, ".zip", {**MEMBERS, "more.png": encoded(7)})
    with pytest.raises(ManifestError, match=r"images.zip: changed after it was listed; run again$"):
        RawFolder(folder, 16, found=found)


def test_folder_that_was_pickled_reads_the_same(folder: Path) -> None:
    write_archive(folder, ".tar.gz")
    write_lmdb(folder / "db", celebahq(2, ids=True))
    raw = opened(folder)
    assert content(pickle.loads(pickle.dumps(raw))) == content(raw)


def test_file_that_went_away_is_unusable(folder: Path) -> None:
    (folder / "a.png").write_bytes(b"x")
    raw = opened(folder)
    (folder / "a.png").unlink()
    with pytest.raises(UnusableError, match=r"^cannot be read \(No such file or directory\)$"):
        raw.read("a.png")


def test_remote_folder_lists_pictures_only_and_reads_them(folder: Path) -> None:
    write_archive(folder, ".zip")
    (folder / "a").mkdir()
    (folder / "a/x.png").write_bytes(encoded(1))
    (folder / "labels.csv").write_bytes(b"x")
    (folder / ".hidden.png").write_bytes(b"x")
    listing = list_remote(f"file://{folder}")
    assert listing["name"].tolist() == ["a/x.png"]
    assert RemoteFolder(f"file://{folder}", listing).read("a/x.png") == encoded(1)


def test_remote_folder_of_any_protocol_is_read() -> None:
    store = fsspec.filesystem("memory")
    store.pipe("/faces/a/x.png", encoded(1))
    listing = list_remote("memory://faces")
    raw = RemoteFolder("memory://faces", listing)
    assert raw.read("a/x.png") == encoded(1)
    store.pipe("/faces/a/x.png", encoded(2))
    with pytest.raises(UnusableError, match="^changed after it was listed$"):
        raw.read("a/x.png")
    store.rm("/faces", recursive=True)


def test_remote_folder_says_what_is_wrong(folder: Path) -> None:
    (folder / "a.zip").write_bytes(b"x")
    for url, message in {
        "s3//x": "ingest s3//x: is not the address of a remote folder, such as s3://bucket/folder",
        "nosuch://x": "ingest nosuch://x: Protocol not known: nosuch; see fsspec's list of protocols",
        "gs://x": "ingest gs://x: Please install gcsfs",
        f"file://{folder}": f"ingest file://{folder}: holds no images; 1 other files are there; check the address",
    }.items():
        with pytest.raises(ManifestError) as error:
            list_remote(url)
        assert str(error.value).startswith(message)


def test_remote_picture_that_changed_after_it_was_listed_is_unusable(folder: Path) -> None:
    for name in "ab":
        (folder / f"{name}.png").write_bytes(encoded(1))
    raw = RemoteFolder(f"file://{folder}", list_remote(f"file://{folder}"))
    (folder / "a.png").write_bytes(encoded(2))
    (folder / "b.png").unlink()
    with pytest.raises(UnusableError, match="^changed after it was listed$"):
        raw.read("a.png")
    with pytest.raises(UnusableError, match="^no longer there; it was removed after it was listed$"):
        raw.read("b.png")


class _Server(SimpleHTTPRequestHandler):
    """Lists folders, as any web server, and says what a file is when it is asked."""

    says_size = True

    def log_message(self, *_: object) -> None: ...

    def send_header(self, keyword: str, value: str) -> None:
        if keyword != "Content-Length" or self.says_size or "html" in self.path or self.path.endswith("/"):
            super().send_header(keyword, value)


@pytest.fixture
def web(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Server, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("says_size", [True, False], ids=["size", "no size"])
def test_folder_of_a_web_server_is_read(
    folder: Path, web: str, monkeypatch: pytest.MonkeyPatch, says_size: bool
) -> None:
    monkeypatch.setattr(_Server, "says_size", says_size)
    (folder / "faces").mkdir()
    for number in range(3):
        (folder / f"faces/{number}.png").write_bytes(encoded(number))
    (folder / "faces/labels.csv").write_text("x")
    url = f"http://me:s3cret@{web}/faces/"
    listing = list_remote(url)
    assert listing["name"].tolist() == ["0.png", "1.png", "2.png"]
    assert set(listing["size"]) == ({len(encoded(n)) for n in range(3)} if says_size else {UNKNOWN_SIZE})
    assert "s3cret" not in listing.to_csv()
    raw = RemoteFolder(url, listing)
    assert raw.url == f"http://***@{web}/faces/"
    assert raw.read("1.png") == encoded(1)
    (folder / "faces/2.png").unlink()
    with pytest.raises(UnusableError, match="no longer there"):
        raw.read("2.png")
    monkeypatch.setattr(remote_module, "MAX_BYTES", 100)
    if not says_size:
        with pytest.raises(UnusableError, match="^more than 100 bytes are too many for a picture$"):
            raw.read("1.png")
    assert (list_remote(url)["reason"] != "").all() == says_size


def test_password_of_an_address_is_never_told(web: str) -> None:
    for url in (f"http://me:s3cret@{web}/none", f"http://{web}/none?token=s3cret", "ftp://me:s3cret@127.0.0.1:9/x",
                "nosuch://me:s3cret@host/x", "me:s3cret@host"):  # fmt: skip
        with pytest.raises(PipelineError) as error:
            list_remote(url)
        assert "s3cret" not in str(error.value) or "://" not in url


def test_remote_file_with_an_odd_name_or_too_large_has_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    store = fsspec.filesystem("memory")
    for name in ("fine.png", "esc\x1b[31m.png", "big.png"):
        store.pipe(f"/odd/{name}", encoded(1) if name != "big.png" else b"x" * 2000)
    monkeypatch.setattr(remote_module, "MAX_BYTES", 1500)
    listing = list_remote("memory://odd")
    assert dict(zip(listing["name"], listing["reason"], strict=True)) == {
        "big.png": "2,000 bytes are too many for a picture",
        "esc\\x1b[31m.png": "its name has control characters; rename it",
        "fine.png": "",
    }
    raw = RemoteFolder("memory://odd", listing)
    with pytest.raises(UnusableError, match="^its name has control characters; rename it$"):
        raw.read("esc\\x1b[31m.png")
    store.rm("/odd", recursive=True)
    assert [remote_module._wrong_with(name) for name in ("a/../b.png", "/etc/x.png", "a//b.png", "a/b.png")] == [
        *["its name leads out of the folder; rename it"] * 3,
        "",
    ]


# Inboxes


@pytest.mark.parametrize("case", sorted(CASES))
def test_odd_entry_of_an_inbox_leaves_the_rest_readable(tmp_path: Path, case: str) -> None:
    folder = str(CASES[case](tmp_path))
    listing = list_inbox(folder)
    listing["name"].str.encode("utf-8")  # can be stored
    inbox = open_inbox(folder, listing)
    assert inbox.read(GOOD) == encoded(0, (16, 16))
    reasons = dict(zip(listing["name"], listing["reason"], strict=True))
    for name in inbox.names:
        if reasons[name]:
            with pytest.raises(UnusableError, match=f"^{re.escape(reasons[name])}$"):
                inbox.read(name)


def test_link_out_of_an_inbox_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(encoded(1))
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/x.png").write_bytes(encoded(1))
    (folder / "a.png").write_bytes(encoded(2))
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "out").symlink_to(tmp_path / "secrets")
    (folder / "in.png").symlink_to("a.png")
    listing = list_inbox(str(folder))
    assert listing["name"].tolist() == ["a.png", "in.png"]
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to(tmp_path / "secret.png")  # exchanged after it was listed
    with pytest.raises(UnusableError, match="^a link that leads out of the folder$"):
        open_inbox(str(folder), listing).read("a.png")


def test_disk_that_fails_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("b.png", b"y")
    raw = RawFolder(tmp_path, 32)

    def fails(*_: object, **__: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(raw_module, "read_bytes", fails)
    monkeypatch.setattr(zipfile.ZipFile, "open", fails)
    for name in raw.names:
        with pytest.raises(OSError, match="Input/output error"):
            raw.read(name)
    monkeypatch.setattr(raw_module, "read_bytes", _denied)
    with pytest.raises(UnusableError, match="cannot be read"):
        raw.read("a.png")


def _denied(*_: object) -> Any:
    raise PermissionError(errno.EACCES, "Permission denied")
