"""Faces to train on, drawn once and kept on disk.

Each purpose has a random stream of its own, so that what the judges learn from is never seen by
the denoiser, nor the other way round, and neither can coincide with a data set (those draw from
streams that `stages/ingest.py` names after the data set's seed).
"""

from __future__ import annotations

import zlib
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boundaryflow.avatars import ATTRIBUTES, FACTORS, Avatar, render, sample_avatars, segment

CHUNK = 500


def avatars_of(purpose: str, chunk: int) -> list[Avatar]:
    """Chunk number `chunk` of the stream named `purpose`: always the same faces."""
    return sample_avatars(CHUNK, np.random.default_rng([zlib.crc32(purpose.encode()), chunk]))


def _draw_chunk(job: tuple[str, int]) -> tuple[NDArray[np.uint8], ...]:
    avatars = avatars_of(*job)
    return (
        np.stack([np.asarray(render(a)) for a in avatars]),
        np.stack([segment(a) for a in avatars]) if job[0] == "judges" else np.zeros(0, np.uint8),
    )


def faces(purpose: str, num: int, cache: Path) -> dict[str, NDArray[np.generic]]:
    """Draw, or read back, the first `num` faces of a stream.

    Args:
        purpose: Name of the random stream; `judges` also draws the part maps.
        num: How many, a multiple of `CHUNK`.
        cache: Folder for the arrays.

    Returns:
        `images` [N, 64, 64, 3] uint8 (memory-mapped), `attributes` [N, 8] bool,
        `factors` [N, F] float32, and `parts` [N, 64, 64] uint8 for the judges.
    """
    cache.mkdir(parents=True, exist_ok=True)
    images_at, parts_at = cache / f"{purpose}_{num}.npy", cache / f"{purpose}_{num}_parts.npy"
    if not images_at.exists():
        jobs = [(purpose, chunk) for chunk in range(num // CHUNK)]
        images = np.empty((num, 64, 64, 3), np.uint8)
        parts = np.empty((num, 64, 64), np.uint8)
        with Pool(2) as pool:
            for index, (drawn, drawn_parts) in enumerate(pool.imap(_draw_chunk, jobs)):
                images[index * CHUNK : (index + 1) * CHUNK] = drawn
                if purpose == "judges":
                    parts[index * CHUNK : (index + 1) * CHUNK] = drawn_parts
        if purpose == "judges":
            np.save(parts_at, parts)
        np.save(images_at, images)
    drawn = [a for chunk in range(num // CHUNK) for a in avatars_of(purpose, chunk)]
    result: dict[str, NDArray[np.generic]] = {
        "images": np.load(images_at, mmap_mode="r"),
        "attributes": np.array([[a.attributes[k] for k in ATTRIBUTES] for a in drawn]),
        "factors": np.array([[a.factors[k] for k in FACTORS] for a in drawn], np.float32),
    }
    if purpose == "judges":
        result["parts"] = np.load(parts_at, mmap_mode="r")
    return result
