"""Where commands may write."""

from __future__ import annotations

from pathlib import Path

import pytest

from boundaryflow.config.places import check_apart, check_output
from boundaryflow.errors import ManifestError


@pytest.mark.parametrize(
    ("inbox", "outbox"),
    [
        ("io", "io"),
        ("in", "in/out"),
        ("in/new", "in"),
        ("in", "link/out"),
        ("in", "x/../in/out"),
        ("s3://b/in", "s3://b/in/out"),
    ],
)
def test_inbox_and_outbox_in_one_another_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inbox: str, outbox: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("in")
    with pytest.raises(ManifestError, match=r"bulk_edit some: inbox .* and outbox .* lie in one another"):
        check_apart(inbox, outbox, "bulk_edit some")


def test_folders_apart_are_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for inbox, outbox in (("in", "out"), ("in", "inner"), ("s3://b/in", "s3://b/in2"), ("in", "s3://b/in")):
        check_apart(inbox, outbox, "job")


@pytest.mark.parametrize("place", ["data/raw/avatars", "data/edit/avatars", "data/inbox", ".git/x", ".dvc", "link"])
def test_what_the_checkout_keeps_is_no_place_for_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/raw").mkdir(parents=True)
    (tmp_path / "link").symlink_to("data/raw")
    with pytest.raises(ManifestError, match=r"outbox .*: lies in (data|\.git|\.dvc)/ of the checkout"):
        check_output(place, "outbox")


def test_models_may_lie_among_the_pretrained_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_output("data/pretrained/mine", "DST", may_be="data/pretrained")
    with pytest.raises(ManifestError, match=r"DST data/raw/faces: lies in data/"):
        check_output("data/raw/faces", "DST", may_be="data/pretrained")


@pytest.mark.parametrize("place", ["/dev/null/x", "file", "file/x"])
def test_file_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ManifestError, match=r"--out .* is not a folder; choose another one"):
        check_output(place, "--out")


def test_folder_that_a_data_set_is_a_link_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "data/raw").mkdir(parents=True)
    (tmp_path / "data/raw/faces").symlink_to(tmp_path / "photos")
    with pytest.raises(ManifestError, match="--to .*: lies in .*faces, which is a link to there"):
        check_output(tmp_path / "photos/new", "--to", tmp_path)
    check_output(tmp_path / "photos2", "--to", tmp_path)


def test_address_of_this_machine_and_raw_folder_elsewhere_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ManifestError, match="give it as a plain path"):
        check_output(f"file://{tmp_path}/data/raw/faces", "outbox")
    (tmp_path / "data").mkdir()
    (tmp_path / "disk").mkdir()
    (tmp_path / "data/raw").symlink_to(tmp_path / "disk")
    with pytest.raises(ManifestError, match="lies in data/raw, which is a link to there"):
        check_output("disk/faces", "outbox")
