"""A picture, or a folder, archive or LMDB of pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from boundaryflow.errors import ManifestError
from boundaryflow.files import RefusedFileError, read_bytes
from boundaryflow.jobs.inspection.tables import SUFFIXES
from boundaryflow.sources.archives import (
    MAX_BYTES,
    LmdbPictures,
    TarPictures,
    UnusableError,
    ZipPictures,
    archive_suffix,
)
from boundaryflow.sources.images import open_picture
from boundaryflow.sources.parquet import has_pictures
from boundaryflow.sources.raw import RawFolder, survey
from boundaryflow.sources.suffixes import may_be_picture
from boundaryflow.text import visible

_SAMPLE = 200  # pictures whose headers are read
_MAX_LISTED = 12
_MAX_TEXT = 500  # characters that are shown of a text in a picture
_NOT_ONE = "not an image that can be read"
_ALL = 2**20  # of an LMDB with several resolutions the largest


def about(path: Path) -> dict[str, Any] | None:
    """A picture, or a container of pictures; None for anything else.

    Raises:
        ManifestError: An archive or LMDB is damaged.
    """
    if (path / "data.mdb").is_file() or path.suffix.lower() == ".lmdb":
        return _about_container("an LMDB of pictures", LmdbPictures(path, _ALL))
    if path.is_dir():
        return _about_folder(path)
    suffix = archive_suffix(path)
    if suffix:
        kind = ZipPictures if suffix == ".zip" else TarPictures
        return _about_container("an archive of pictures", kind(path))
    return _about_picture(path)


def _about_container(what: str, container: LmdbPictures | ZipPictures | TarPictures) -> dict[str, Any] | None:
    members = list(container.members())
    is_lmdb = isinstance(container, LmdbPictures)
    taken = [member for member in members if is_lmdb or may_be_picture(member.name)]
    keys = {member.name: member.key for member in taken if not member.reason}
    refused = [f"{member.name}: {member.reason}" for member in taken if member.reason]
    if not keys:
        why = f" ({refused[0]})" if refused else ""
        raise ManifestError(f"inspect {container.path}: {what.partition(' of')[0]} that holds no pictures{why}")
    facts = {"what": what, **picture_facts(list(keys), refused, lambda name: container.read(keys[name]))}
    passed = Counter(PurePosixPath(member.name).suffix.lower() for member in members) - Counter(
        PurePosixPath(member.name).suffix.lower() for member in taken
    )
    return {**facts, "passed over": most(passed)} if passed else facts


def _about_folder(path: Path) -> dict[str, Any] | None:
    found = survey(path, what="inspect")
    tables = [file.name for file in found if PurePosixPath(file.name).suffix.lower() in {*SUFFIXES, ".txt"}]
    try:
        raw = RawFolder(path, _ALL, found=found)
    except ManifestError as error:
        if "holds no images" not in str(error):
            raise
        embedded = [name for name in tables if name.lower().endswith(".parquet")][:_MAX_LISTED]
        within = [name for name in embedded if has_pictures(path / name)]
        what = "a folder of Parquet files with pictures (ingest.source: {kind: parquet, ...})"
        return {"what": what if within else "a folder without pictures", "tables": tables} if tables else None
    refused = [f"{name}: {reason}" for name, reason in sorted(raw.refused.items())]
    passed = Counter(
        file.reason or PurePosixPath(file.name).suffix.lower() or file.name for file in found if file.kind == "passed"
    )
    facts = picture_facts(raw.names, refused, raw.read)
    return {"what": "a folder of pictures", **facts, "passed over": most(passed), "tables": tables}


def picture_facts(names: Sequence[str], refused: list[str], read: Callable[[str], bytes]) -> dict[str, Any]:
    """Number of pictures, and the formats and sizes of an evenly spread sample.

    Raises:
        ManifestError: The container is damaged.
    """
    step = max(1, len(names) // _SAMPLE)
    formats, sizes, bad = Counter[str](), Counter[str](), list(refused)
    for name in list(names)[::step]:
        try:
            data = read(name)
        except UnusableError as error:
            bad.append(f"{name}: {error}")
            continue
        try:
            with open_picture(data) as picture:
                formats[f"{picture.format} {picture.mode}"] += 1
                sizes[f"{picture.width} x {picture.height}"] += 1
        except ManifestError as error:
            bad.append(f"{name}: {error}")
    folders = Counter(PurePosixPath(name).parent.as_posix() for name in names)
    return {
        "pictures": len(names),
        "looked at": len(range(0, len(names), step)),
        "folders": most(folders),
        "formats": most(formats),
        "sizes": most(sizes),
        "cannot be used": bad[:_MAX_LISTED],
        "first names": sorted(names)[:3],
    }


def most(counts: Counter[str]) -> dict[str, int]:
    """The most frequent, and how many others there are."""
    shown = dict(counts.most_common(_MAX_LISTED))
    others = sum(counts.values()) - sum(shown.values())
    return {**shown, "others": others} if others else shown


def _about_picture(path: Path) -> dict[str, Any] | None:
    """A picture, with the facts that this project wrote into it.

    Raises:
        ManifestError: It is damaged, too large, or no regular file.
    """
    try:
        with open_picture(read_bytes(path, MAX_BYTES)) as picture:
            facts: dict[str, Any] = {
                "what": "a picture",
                "format": picture.format or "",
                "mode": picture.mode,
                "width": picture.width,
                "height": picture.height,
            }
            # Only texts before the pixels, where this project writes them; later ones would need decoding.
            texts = {visible(str(k)[:_MAX_TEXT]): v for k, v in picture.info.items() if isinstance(v, str)}
            shown = list(texts.items())[:_MAX_LISTED]
            facts |= {f"says {key}": visible(text[:_MAX_TEXT]) for key, text in shown if picture.format == "PNG"}
            return facts
    except RefusedFileError as error:
        raise ManifestError(f"inspect {path}: {error.reason}") from None
    except ManifestError as error:
        if str(error).startswith((_NOT_ONE, "the file is empty")):
            return None
        raise ManifestError(f"inspect {path}: {error}") from None
