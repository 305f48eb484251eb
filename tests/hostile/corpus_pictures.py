"""Pictures, archives and LMDBs that were made to do harm, each written below a folder."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from tests.raw_data import encoded, picture, write_lmdb, write_zip

ESCAPES = "\x1b[2J\x1b]0;owned\x07"
PNG_HEAD = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes, *more: bytes, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG of packed rows, whatever its header says, with further chunks before them."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows, 9))
    return PNG_HEAD + chunk(b"IHDR", head) + b"".join(more) + pixels + chunk(b"IEND", b"")


def tiff(width: int, height: int, tags: Mapping[int, int], strip: bytes) -> bytes:
    """A greyscale TIFF of one strip, with further tags."""
    fixed = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 277: 1, 278: height, 279: len(strip), **tags}
    at = 10 + 12 * (len(fixed) + 1) + 4
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted({**fixed, 273: at}.items())]
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4) + strip


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def in_format(kind: str) -> bytes:
    """A small picture in a format that is not read."""
    return saved(picture(1, (32, 32)), kind)


def float_tiff(*values: float) -> bytes:
    """16 x 16 floating-point numbers, the first of them as stated."""
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    ramp.reshape(-1)[: len(values)] = values
    return saved(Image.fromarray(ramp), "TIFF")


def deep_png(top: int) -> bytes:
    """A ramp of 16 x 16 from 0 to a value in 16 bits."""
    return saved(Image.fromarray(np.linspace(0, top, 256).astype(np.uint16).reshape(16, 16)), "PNG")


def many_scans() -> bytes:
    """A progressive JPEG of 12000 x 8000 that says it has 400 scans."""
    data = bytearray(saved(Image.new("L", (16, 16)), "JPEG", progressive=True))
    at = data.index(b"\xff\xc2")
    data[at + 5 : at + 9] = struct.pack(">HH", 8000, 12000)
    return bytes(data[:-2] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00" * 400 + b"\xff\xd9")


def plain_scans(num: int, side: int, exif: Image.Exif | None = None) -> bytes:
    """A baseline JPEG whose scans hold one colour each, and nothing."""
    data = saved(Image.new("RGB", (16, 16)), "JPEG", subsampling=0, **({"exif": exif} if exif else {}))
    at, end = data.index(b"\xff\xc0") + 5, data.index(b"\xff\xda")
    scans = (bytes([255, 218, 0, 8, 1, n % 3 + 1, 0 if n % 3 == 0 else 17, 0, 63, 0]) for n in range(num))
    return data[:at] + struct.pack(">HH", side, side) + data[at + 4 : end] + b"".join(scans) + b"\xff\xd9"


def grey_png(depth: int, value: int, *, key: int | None = None, num_empty: int = 0) -> bytes:
    """16 x 16 pixels of one value, of a depth in bits, with a see-through value and empty chunks of no meaning."""
    row = bytes(1) + int(f"{value:0{depth}b}" * 16, 2).to_bytes(2 * depth, "big")
    tags = [] if key is None else [chunk(b"tRNS", struct.pack(">H", key))]
    return png(16, 16, row * 16, *tags, *[chunk(b"teXt", b"")] * num_empty, depth=depth)


def lying_jp2() -> bytes:
    """16 x 16 in its header, 30000 x 30000 within."""
    data = bytearray(saved(picture(1, (16, 16)), "JPEG2000", no_jp2=False))
    at = data.index(b"\xff\x4f\xff\x51") + 8
    data[at : at + 8] = struct.pack(">II", 30000, 30000)
    return bytes(data)


def big_webp() -> bytes:
    """A canvas of 2^24 x 2^24."""
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes([2, 0, 0, 0]) + b"\xff" * 6
    return b"RIFF" + struct.pack("<I", len(body)) + body


def big_gif() -> bytes:
    """A screen of 65535 x 65535."""
    data = bytearray(saved(Image.new("P", (8, 8)), "GIF"))
    data[6:10] = b"\xff" * 4
    return bytes(data)


def with_texts() -> bytes:
    """A PNG with escape sequences in its texts, and 100 kB of text."""
    texts = PngImagePlugin.PngInfo()
    texts.add_text("synthetic", ESCAPES)
    texts.add_text("long", "x" * 100_000)
    for i in range(100):
        texts.add_text(f"k{i}", "v")
    return saved(picture(1), "PNG", pnginfo=texts)


def swollen(*kinds: bytes) -> bytes:
    """A PNG with texts or profiles of megabytes in a few kilobytes."""
    packed = zlib.compress(bytes(3 * 2**20), 9)
    return png(8, 8, bytes(9 * 8), *(chunk(kind, b"name\0\0" + packed) for kind in kinds))


def tar_header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header block, whatever the size."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def padded(data: bytes) -> bytes:
    """As many whole blocks."""
    return data + bytes(-len(data) % 512)


END = bytes(1024)


def long_header(kind: bytes, size: int = 3 * 2**30) -> bytes:
    """A tar.gz whose first header says that gigabytes of name follow, and begins with them."""
    return gzip.compress(tar_header("x", size, kind) + bytes(2**20) + END)


def sparse_map() -> bytes:
    """A tar with a file in the way of `tar --sparse`, in extended headers."""
    record = b"GNU.sparse.major=1\n"
    record = b"%d %s" % (len(record) + 3, record)
    return tar_header("x", len(record), tarfile.XHDTYPE) + padded(record) + tar_header("a.png", 9) + padded(b"x")


def unpacking_to(num_bytes: int) -> bytes:
    """A tar.gz with one file of so many zeros."""
    part = gzip.compress(bytes(2**22), 9)
    return gzip.compress(tar_header("a.png", num_bytes)) + part * (num_bytes // 2**22) + gzip.compress(END)


def hungry_xz() -> bytes:
    """A tar.xz that asks for 4 GB to be unpacked."""
    flags = b"\x00\x01"
    head = b"\xfd7zXZ\x00" + flags + struct.pack("<I", zlib.crc32(flags))
    block = bytes([2, 0, 0x21, 1, 40, 0, 0, 0])  # one filter, LZMA2, with a dictionary of 2^32 - 1 bytes
    return head + block + struct.pack("<I", zlib.crc32(block)) + bytes(64)


def _zipped(*members: tuple[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def overlapping_zip() -> bytes:
    """A thousand members that are the same bytes."""
    data = _zipped(("a.png", bytes(10**6)))
    at, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entry = data[at:end]
    entries = b"".join(entry.replace(b"a.png", b"%05d" % i) for i in range(1000))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1000, 1000, len(entries), at, 0)
    return data[:at] + entries + tail


def zip_stating(field: int, value: int) -> bytes:
    """A zip whose directory states another 32-bit value at an offset of its entry."""
    data = bytearray(_zipped(("a.png", encoded(1)), ("b.png", encoded(2))))
    at = data.index(b"PK\x01\x02") + field
    data[at : at + 4] = struct.pack("<I", value)
    return bytes(data)


def _file(name: str, make: Callable[[], bytes], folder: Path) -> Path:
    path = folder / name
    path.write_bytes(make())
    return path


def _sparse(name: str, folder: Path) -> Path:
    path = folder / name
    with path.open("wb") as file:
        file.truncate(40 * 2**30)
    return path


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.png")
    return folder / "pipe.png"


def _folder_as_picture(folder: Path) -> Path:
    (folder / "folder.png").mkdir()
    return folder / "folder.png"


def deadly_lmdb(folder: Path) -> Path:
    """An LMDB with a value, of key 017, that ends far beyond its file: who reads it dies of a signal."""
    path = folder / "faces_lmdb"
    write_lmdb(path, {f"{i:03d}".encode(): encoded(i, (8, 8)) for i in range(17)} | {b"017": bytes(20_000)})
    (path / "lock.mdb").unlink(missing_ok=True)
    data = bytearray((path / "data.mdb").read_bytes())
    # a node: length of the value, flags (1: it lies in pages of its own), length of the key, key
    at = data.rindex(struct.pack("<IHH", 20_000, 1, 3) + b"017")
    data[at : at + 4] = struct.pack("<I", 2 * 10**8)
    (path / "data.mdb").write_bytes(data)
    return path


def _lmdb_in_zip(folder: Path) -> Path:
    write_lmdb(folder / "tmp", {b"a": encoded(1)})
    data = (folder / "tmp/data.mdb").read_bytes()
    for path in (folder / "tmp").iterdir():
        path.unlink()
    (folder / "tmp").rmdir()
    write_zip(folder / "church_val_lmdb.zip", {"church_val_lmdb/data.mdb": data, "church_val_lmdb/lock.mdb": b"x"})
    return folder / "church_val_lmdb.zip"


_FILES: dict[str, Callable[[], bytes]] = {
    "eps.jpg": partial(in_format, "EPS"),
    "ico.png": partial(in_format, "ICO"),
    "tga.png": partial(in_format, "TGA"),
    "iptc.jpg": lambda: b"\x1c\x03\x3c\x00\x01\x01\x1c\x03\x14\x00\x01\x10\x1c\x08\x0a\x00\x08" + in_format("PNG"),
    "psd.png": lambda: b"8BPS\x00\x01" + bytes(6) + struct.pack(">HIIHH", 3, 30000, 30000, 8, 3) + bytes(64),
    "fits.png": lambda: b"SIMPLE  =                    T".ljust(80) + b"END".ljust(2800),
    "huge.png": partial(png, 60_000, 60_000, bytes(60_001)),
    "short.png": partial(png, 2000, 2000, bytes(100)),
    "texts.png": with_texts,
    "ztxt.png": lambda: swollen(b"zTXt"),
    "iccp.png": lambda: swollen(b"iCCP"),
    "profile.png": lambda: saved(picture(1), "PNG", icc_profile=b"no profile" * 50),
    "float.tif": float_tiff,
    "nan.tif": partial(float_tiff, float("nan")),
    "inf.tif": partial(float_tiff, float("inf"), float("-inf")),
    "int32.tif": lambda: saved(Image.fromarray(np.arange(256, dtype=np.int32).reshape(16, 16)), "TIFF"),
    "tile.tif": lambda: tiff(16, 16, {322: 50_000, 323: 50_000, 324: 8, 325: 256}, bytes(256)),
    "rows.tif": lambda: tiff(16, 16, {278: 2**32 - 1, 279: 2**32 - 1}, bytes(256)),
    "wide.tif": lambda: tiff(2**31 - 1, 2**31 - 1, {}, bytes(256)),
    "scans.jpg": many_scans,
    "plain scans.jpg": partial(plain_scans, 300, 8000),
    "wide scans.jpg": partial(plain_scans, 3, 14_100),
    "small scans.jpg": partial(plain_scans, 1001, 16),
    "chunks.png": partial(grey_png, 8, 9, num_empty=100_000),
    "deep key.png": partial(grey_png, 16, 9, key=9),
    "lying.jp2": lying_jp2,
    "big.webp": big_webp,
    "big.gif": big_gif,
    "big.ppm": lambda: b"P3 1000000 1000000 255\n1 2 3",
    "long.ppm": lambda: b"P6 " + b"9" * 100_000 + b" 1 255\n",
    "nothing.png": lambda: b"",
    "line.png": partial(png, 30_000, 1, bytes(30_001)),
    "zeros.zip": lambda: _zipped(("a.png", bytes(10**7)), ("b.png", encoded(1))),
    "overlap.zip": overlapping_zip,
    "more.zip": lambda: zip_stating(24, 2**31),  # unpacked
    "less.zip": lambda: zip_stating(24, 5),
    "packed.zip": lambda: zip_stating(20, 2**31),
    "method.zip": lambda: zip_stating(10, 77),
    "bzip2.zip": lambda: _zipped(("a.png", bytes(5 * 10**6)), packing=zipfile.ZIP_BZIP2),
    "nested.zip": lambda: _zipped(("more.7z", b"x"), ("more.tar.zst", b"x"), ("a.zip", b"x"), ("a.png", encoded(1))),
    "longname.tar.gz": partial(long_header, tarfile.GNUTYPE_LONGNAME),
    "pax.tar.gz": partial(long_header, tarfile.XHDTYPE),
    "global.tar.gz": partial(long_header, tarfile.XGLTYPE),
    "negative.tar": lambda: tar_header("a.png", -512) + END,
    "beyond.tar": lambda: tar_header("a.png", 2**27) + padded(encoded(1)) + END,
    "sparse.tar": lambda: tar_header("a.png", 512, tarfile.GNUTYPE_SPARSE) + bytes(512) + END,
    "sparsepax.tar": lambda: sparse_map() + END,
    "expands.tar.gz": partial(unpacking_to, 2**29),
    "expands.tar.bz2": lambda: bz2.compress(tar_header("a.png", 2**29)) + bz2.compress(bytes(2**20)) * 512,
    "hungry.tar.xz": hungry_xz,
}
CASES: dict[str, Callable[[Path], Path]] = {
    **{name: partial(_file, name, make) for name, make in _FILES.items()},
    "sparse movie.mp4": partial(_sparse, "movie.mp4"),
    "sparse photo.png": partial(_sparse, "photo.png"),
    "fifo": _fifo,
    "folder.png": _folder_as_picture,
    "LMDB that ends its reader": deadly_lmdb,
    "LMDB in a zip": _lmdb_in_zip,
}
"""Name to what writes the file or folder below a folder, and returns its path."""
