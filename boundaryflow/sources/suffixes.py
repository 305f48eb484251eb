"""What the suffix of a file's name says of it."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal

from boundaryflow.sources.archives import MAX_BYTES, UNREADABLE_ARCHIVES, archive_suffix

_PICTURES = ".jpg .jpeg .jfif .png .webp .gif .bmp .tif .tiff .ppm .pgm .pbm .pnm .avif .jp2 .j2k .jpf .jpx"
PICTURES = frozenset(_PICTURES.split())
"""Suffixes of formats that are read; pictures may have others, or none."""
TABLES = frozenset((".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet"))
"""Suffixes of files that labels and splits are read from."""
_OTHERS = """
    .md .rst .yaml .yml .toml .ini .cfg .conf .html .htm .xml .xsl .css .js .log .rtf .pdf .doc .docx .xls .xlsx
    .ppt .pptx .odt .ods .tex .bib .db .sqlite .cls .pkl .pickle .npy .npz .mat .h5 .hdf5 .arrow .feather .tfrecord
    .tfrecords .pt .pth .ckpt .safetensors .onnx .pb .bin .dat .idx .py .pyc .ipynb .m .r .sh .bat .ps1 .c .h .cpp
    .java .exe .dll .so .mp4 .m4v .mov .avi .mkv .webm .wmv .flv .mpg .mpeg .3gp .mp3 .wav .flac .ogg .m4a .srt .vtt
    .jsn .cls2 .index .inx .id .text .transcript .caption .pyd .ten .tb .mp .msg .msgpack .cbor
    .lnk .url .webloc .torrent .part .crdownload .tmp .bak .md5 .sha1 .sha256 .asc .sig .aae .xmp .mdb .dvc
    """
_KNOWN_OTHERS = frozenset(_OTHERS.split())
"""Suffixes of what is no picture, members of WebDataset tars beside pictures among them."""
_TEXT_NAMES = frozenset(("license", "licence", "copying", "notice", "readme", "authors", "makefile", "sha256sums"))
"""Names without suffix of what is no picture."""
Kind = Literal["picture", "archive", "lmdb", "parquet", "table", "passed", "refused"]


def may_be_picture(name: str) -> bool:
    """Whether a file name may be a picture's, as its suffix is not known to be of a table, text, video and so on."""
    return kind_by_name(name, 0)[0] in ("picture", "archive", "lmdb")


def kind_by_name(name: str, size: int) -> tuple[Kind, str]:
    """What a file of this name and size in bytes is taken for, and why it is passed over or refused, if not by name."""
    path = PurePosixPath(name)
    suffix = path.suffix.lower()
    if path.name == "data.mdb" or suffix == ".lmdb":
        return "lmdb", ""
    if archive_suffix(path):
        return "archive", ""
    if suffix in TABLES:
        return "table", ""
    if suffix in UNREADABLE_ARCHIVES:
        return "passed", "an archive that is not opened here; unpack it"
    if suffix in _KNOWN_OTHERS or path.name.lower() in _TEXT_NAMES:
        return "passed", ""
    return ("refused", f"{size:,} bytes are too many for a picture") if size > MAX_BYTES else ("picture", "")
