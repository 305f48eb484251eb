"""Small pictures in everything that people keep pictures in."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (20, 20)) -> Image.Image:
    """Noise that no other seed gives."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), np.uint8))


def encoded(seed: int, size: tuple[int, int] = (20, 20), kind: str = "PNG") -> bytes:
    """The same as the bytes of a file."""
    buffer = io.BytesIO()
    picture(seed, size).save(buffer, kind)
    return buffer.getvalue()


def write_zip(path: Path, members: Mapping[str, bytes]) -> None:
    """Members in the order given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def write_tar(path: Path, members: Mapping[str, bytes], mode: str) -> None:
    """Members in the order given; mode as of tarfile, such as `w:gz`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # pyright: ignore[reportCallIssue, reportArgumentType]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def write_lmdb(path: Path, values: Mapping[bytes, bytes], *, subdir: bool = True) -> None:
    """As the published scripts do, with room for a terabyte."""
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = lmdb.open(str(path), map_size=1 << 40, subdir=subdir)
    with environment.begin(write=True) as view:
        for key, value in values.items():
            view.put(key, value)
    environment.close()


def celebahq(num: int, size: int = 256, *, ids: bool) -> dict[bytes, bytes]:
    """StyleMapGAN's layout; with the original names of the images as the paper's code adds them."""
    values = {f"{size}-{i:05d}".encode(): encoded(100 + i) for i in range(num)} | {b"length": str(num).encode()}
    return values | ({f"{i:05d}".encode(): f"{i * 7 + 1:06d}".encode() for i in range(num)} if ids else {})


def write_parquet(
    path: Path,
    pictures: Sequence[Mapping[str, Any] | bytes | None],
    columns: Mapping[str, Sequence[Any]] | None = None,
    *,
    classes: Mapping[str, Sequence[str]] | None = None,
    group: int = 4,
    name: str = "image",
) -> Path:
    """As `datasets` writes it: a column of structs {bytes, path}, or of bytes; and the names of classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_plain = any(isinstance(picture, bytes) for picture in pictures)
    kind = pa.binary() if is_plain else pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({name: pa.array(pictures, kind), **(columns or {})})
    features = {column: {"names": list(names), "_type": "ClassLabel"} for column, names in (classes or {}).items()}
    about = {"info": {"features": {name: {"_type": "Image"}, **features}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(about)}), path, row_group_size=group)
    return path
