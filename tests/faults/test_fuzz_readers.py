"""Thousands of damaged pictures, archives and LMDBs: each is read or refused in one line, soon, in bounded memory."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

SEED = 19
NUM = {"picture": 4600, "archive": 1000, "lmdb": 100}
"""Inputs of each kind."""
LIMIT_S = 10.0
"""For one of them."""
MEMORY_BYTES = 3 * 2**30
"""More than the interpreter has when it begins: one picture may take half of it."""


def mutated(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Some bits flipped, a part cut, doubled or exchanged, a length made extreme."""
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at = rng.randrange(len(damaged)) if damaged else 0
        if rng.random() < 0.5:
            at = min(at, rng.randrange(200))  # headers come first
        length = rng.choice((1, 2, 4, 8))
        match rng.randrange(7):
            case 0 | 1:
                damaged[at : at + 1] = bytes([rng.randrange(256)])
            case 2:
                extreme = rng.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)) % 2 ** (8 * length)
                damaged[at : at + length] = extreme.to_bytes(length, rng.choice(("big", "little")))
            case 3:
                del damaged[at : at + rng.choice((1, 4, 100, len(damaged)))]
            case 4:
                damaged[at:at] = damaged[at : at + rng.choice((1, 16, 300))]
            case 5:
                other = rng.choice(others)
                start = rng.randrange(len(other))
                damaged[at : at + 64] = other[start : start + rng.choice((8, 64, 500))]
            case _:
                damaged[at : at + 1] = bytes([damaged[at] ^ (1 << rng.randrange(8))]) if damaged else b""
    return bytes(damaged)


def pictures() -> dict[str, bytes]:
    """A small picture in every format and in the modes that go ways of their own."""
    import numpy as np
    from PIL import Image, ImageCms

    from boundaryflow.sources.images import FORMATS
    from tests.hostile.corpus_pictures import deep_png, float_tiff, saved
    from tests.raw_data import picture

    plain, profile = picture(1, (24, 20)), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [picture(seed, (24, 20)).convert("P") for seed in range(3)]
    found = {kind: saved(plain, kind) for kind in FORMATS}
    return found | {
        "JPEG progressive": saved(plain, "JPEG", progressive=True, exif=exif, icc_profile=profile),
        "JPEG CMYK": saved(plain.convert("CMYK"), "JPEG"),
        "MPO": saved(plain, "MPO", save_all=True, append_images=[plain]),
        "PNG palette": saved(plain.convert("P"), "PNG", transparency=3, icc_profile=profile),
        "PNG 16": deep_png(65535),
        "APNG": saved(plain, "PNG", save_all=True, append_images=[picture(2, (24, 20))]),
        "WEBP lossless": saved(plain.convert("RGBA"), "WEBP", lossless=True, exif=exif),
        "GIF frames": saved(frames[0], "GIF", save_all=True, append_images=frames[1:], transparency=1),
        "TIFF float": float_tiff(),
        **{f"TIFF {how}": saved(plain, "TIFF", compression=how) for how in ("tiff_lzw", "jpeg", "tiff_adobe_deflate")},
        "TIFF group 4": saved(plain.convert("1"), "TIFF", compression="group4"),
        "BMP palette": saved(plain.convert("P"), "BMP"),
        "PPM plain": b"P3 4 4 255 " + b" ".join(b"%d" % v for v in np.asarray(picture(1, (4, 4))).reshape(-1)),
    }


def archives(folder: Path) -> dict[str, bytes]:
    """One of each kind."""
    from tests.raw_data import encoded, write_tar, write_zip

    members = {f"{'x' * length}/{length}.png": encoded(length, (6, 6)) for length in (1, 60, 150)}
    write_zip(folder / "a.zip", members)
    for suffix, mode in {".tar": "w:", ".tar.gz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}.items():
        write_tar(folder / f"a{suffix}", members, mode)
    return {path.name[1:]: path.read_bytes() for path in sorted(folder.glob("a.*"))}


def inputs(kind: str, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name and damaged bytes, the same for every run."""
    from tests.raw_data import encoded, write_lmdb

    if kind == "lmdb":
        write_lmdb(folder / "db", {f"{i:03d}".encode(): encoded(i, (9, 9)) * (1 + i % 40) for i in range(60)})
        valid = {"lmdb": (folder / "db/data.mdb").read_bytes()}
    else:
        valid = pictures() if kind == "picture" else archives(folder)
    names, rng = sorted(valid), random.Random(SEED)  # noqa: S311 - the same each time
    for number in range(NUM[kind]):
        name = names[number % len(names)]
        yield name, mutated(valid[name], list(valid.values()), rng)


def reader_of(kind: str, folder: Path) -> Callable[[str, bytes], None]:
    """What reads all of an input, as ingest and inspect do."""
    from boundaryflow.jobs.inspection import images
    from boundaryflow.sources.archives import LmdbPictures, TarPictures, UnusableError, ZipPictures
    from boundaryflow.sources.images import decode_image

    def read_picture(_name: str, data: bytes) -> None:
        (folder / "picture").write_bytes(data)
        for levels in (None, (0.0, 1.0)):
            decode_image(data, 16, 3, "pad", (0, 0, 0), levels=levels)
        images.about(folder / "picture")

    def read_container(name: str, data: bytes) -> None:
        path = folder / ("db2/data.mdb" if name == "lmdb" else f"b{name}")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        kind = ZipPictures if name == ".zip" else TarPictures
        container = LmdbPictures(path.parent, 16) if name == "lmdb" else kind(path)
        for member in container.members():
            try:
                if not member.reason:
                    container.read(member.key)
            except UnusableError:
                continue

    return read_picture if kind == "picture" else read_container


def fuzz(kind: str) -> dict[str, object]:
    """Counts of how inputs of a kind ended, what ended otherwise than allowed, and the longest time."""
    from boundaryflow.errors import ManifestError

    ended, wrong, longest = Counter[str](), list[str](), 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        read = reader_of(kind, folder)
        if kind != "lmdb":  # whose reader maps a terabyte
            have = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_AS, (have + MEMORY_BYTES, have + MEMORY_BYTES))
        for number, (what, data) in enumerate(inputs(kind, folder)):
            start = time.monotonic()
            try:
                read(what, data)
                ended["read"] += 1
            except ManifestError as error:
                ended["refused"] += 1
                if "\n" in str(error) or len(str(error)) > 500:
                    wrong.append(f"{number} {what}: {error}")
            except Exception as error:  # every other one is a fault
                wrong.append(f"{number} {what}: {error!r}")
            took = time.monotonic() - start
            longest = max(longest, took)
            if took > LIMIT_S:
                wrong.append(f"{number} {what}: {took:.0f} s")
    return {**ended, "wrong": wrong, "longest_s": round(longest, 1), "peak_mib": _peak_mib()}


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@pytest.mark.parametrize("kind", sorted(NUM))
def test_damaged_input_is_read_or_refused(kind: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.faults.test_fuzz_readers", kind],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["wrong"] == []
    assert found.get("read", 0) + found["refused"] == NUM[kind]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(fuzz(sys.argv[1])) + "\n")
