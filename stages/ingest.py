"""Stage ingest: from raw images, or from the built-in renderer, to pixels of one size."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from boundaryflow.avatars import ATTRIBUTES, FACTORS, Avatar, render, sample_avatars
from boundaryflow.errors import ManifestError
from boundaryflow.storage.images import Fit, decode_image, encode_png
from boundaryflow.storage.shards import ShardJob, fingerprint
from boundaryflow.storage.tables import write_json, write_table
from stages.params import AvatarSource, FolderSource, load_params
from stages.process import Progress, entry, own_folder
from stages.sharding import code_hash, run_sharded

LOG = logging.getLogger(__name__)
CODE = ("stages/ingest.py", "boundaryflow/avatars", "boundaryflow/storage/images.py")
NOT_IMAGES = {".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet", ".md", ".yaml", ".yml", ".html", ".xml", ".db"}
_CHUNK = 50
_CACHE_BYTES = 2**29  # of decoded pixels, kept from the judging of a file to the writing of its shard


def item_id_of(data: bytes) -> str:
    """Stable id of an image: the first 16 hex digits of the SHA-256 of its file."""
    return hashlib.sha256(data).hexdigest()[:16]


def split_of(item_id: str, val: float, test: float) -> str:
    """Which split an image belongs to, for ever: its id decides, not its neighbours."""
    at = int.from_bytes(hashlib.sha256(f"split {item_id}".encode()).digest()[:8], "big") / 2**64
    return "test" if at < test else "val" if at < test + val else "train"


def draw_avatars(source: AvatarSource) -> list[Avatar]:
    """The faces of an avatar data set; more faces keep the ones that fewer would have."""
    correlations = {tuple(pair.split("~", 1)): value for pair, value in source.correlations.items()}
    drawn: list[Avatar] = []
    for chunk in range(-(-source.num_images // _CHUNK)):
        rng = np.random.default_rng([zlib.crc32(b"data set"), source.seed, chunk])
        drawn += sample_avatars(_CHUNK, rng, rates=source.rates, correlations=correlations)  # pyright: ignore[reportArgumentType]
    return drawn[: source.num_images]


def raw_files(folder: Path) -> list[Path]:
    """Files that may be images: no hidden ones, no tables or texts beside them, nothing outside the folder.

    Raises:
        ManifestError: The folder is missing or holds no such file.
    """
    if not folder.is_dir():
        raise ManifestError(f"ingest {folder}: no such folder; put images there, or link to where they are")
    home = folder.resolve()
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.suffix.lower() not in NOT_IMAGES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.resolve().is_relative_to(home)
    )
    if not files:
        raise ManifestError(f"ingest {folder}: holds no images; put some there (docs/datasets.md says how)")
    return files


def run_shard(
    job: ShardJob, *, sources: Mapping[str, str], size: int, channels: int, fit: Fit, background: Sequence[int]
) -> dict[str, Tensor]:
    """Pixels of the images that one shard lacks; most were decoded already, to be judged."""
    decode = _decoder(size, channels, fit, tuple(background))
    return {"pixels": torch.from_numpy(np.stack([decode(sources[item])[0] for item in job.missing]))}


@lru_cache(maxsize=1)
def _decoder(
    size: int, channels: int, fit: Fit, background: tuple[int, ...]
) -> Callable[[str], tuple[NDArray[np.uint8], dict[str, Any]]]:
    """`decode_image` of a file; keeps the last results, at most `_CACHE_BYTES` of pixels."""

    @lru_cache(maxsize=_CACHE_BYTES // (size * size * channels))
    def decode(path: str) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        return decode_image(Path(path).read_bytes(), size, channels, fit, background)

    return decode


def run(
    dataset: str,
    *,
    source: AvatarSource | FolderSource,
    image_size: int,
    channels: int,
    fit: Fit,
    background: Sequence[int],
    val: float,
    test: float,
    shard_size: int,
    max_failed_items: int,
) -> int:
    """Bring the pixels of a data set up to date; returns the number of images decoded.

    Raises:
        ManifestError: The raw folder is missing or empty, or too many images are bad.
    """
    out = own_folder("ingest", dataset)
    out.mkdir(parents=True, exist_ok=True)
    recipe = fingerprint(
        stage="ingest", code=code_hash(*CODE), size=image_size, channels=channels, fit=fit, background=list(background)
    )
    geometry: dict[str, Any] = {"size": image_size, "channels": channels, "fit": fit, "background": list(background)}
    if isinstance(source, AvatarSource):
        manifest, num_computed = _from_avatars(out, source, recipe, shard_size, image_size, channels)
    else:
        manifest, num_computed = _from_folder(
            out, Path("data/raw") / dataset, recipe, shard_size, geometry, max_failed_items
        )
    manifest["split"] = [split_of(item, val, test) for item in manifest["item_id"]]
    manifest = manifest.sort_values(["status", "item_id", "source"], ascending=[False, True, True], ignore_index=True)
    columns = [
        "item_id",
        "source",
        "width_px",
        "height_px",
        "format",
        "mode",
        "split",
        "status",
        "reason",
        "duplicates_of",
    ]
    write_table(
        out / "manifest.parquet", manifest[columns], schema="manifest/1", units={"width_px": "px", "height_px": "px"}
    )
    bad = manifest[manifest["status"] == "bad"]
    facts = {
        "recipe": recipe,
        "num_ok": int((manifest["status"] == "ok").sum()),
        "num_bad": len(bad),
        "num_duplicates": int((manifest["duplicates_of"] != "").sum()),
        "reasons": {str(k): int(v) for k, v in bad["reason"].value_counts().sort_index().items()},
    }
    write_json(out / "ingest.json", facts)
    LOG.info("ingest %s: %d images, %d set aside", dataset, facts["num_ok"], facts["num_bad"])
    return num_computed


def _from_avatars(
    out: Path, source: AvatarSource, recipe: str, shard_size: int, size: int, channels: int
) -> tuple[pd.DataFrame, int]:
    if channels != 3:
        raise ManifestError(f"ingest: avatars are RGB, but ingest.channels is {channels}; set it to 3")
    avatars = draw_avatars(source)
    pngs: dict[str, bytes] = {}
    rows: list[dict[str, Any]] = []
    facts: list[dict[str, Any]] = []
    with Progress("ingest", len(avatars), "faces") as progress:
        for index, avatar in enumerate(avatars):
            drawn = torch.from_numpy(np.array(render(avatar, size)).transpose(2, 0, 1))
            data = encode_png(drawn)
            item = item_id_of(data)
            known = item in pngs
            pngs[item] = data
            about = {"width_px": size, "height_px": size, "format": "PNG", "mode": "RGB"}
            rows.append(_row(item, f"avatar-{index:06d}", about, duplicates_of=item if known else ""))
            if not known:
                facts.append({"item_id": item, **avatar.attributes, **avatar.factors})
            progress.advance()
    table = pd.DataFrame(facts, columns=["item_id", *ATTRIBUTES, *FACTORS]).sort_values("item_id", ignore_index=True)
    write_table(
        out / "factors.parquet", table, schema="avatars/1", units={f: "see boundaryflow.avatars" for f in FACTORS}
    )

    def rows_of(job: ShardJob) -> dict[str, Tensor]:
        decoded = [decode_image(pngs[item], size, 3, "crop", (255, 255, 255))[0] for item in job.missing]
        return {"pixels": torch.from_numpy(np.stack(decoded))}

    return pd.DataFrame(rows), run_sharded("ingest", out, sorted(pngs), recipe, shard_size, rows_of, {}, here=True)


def _from_folder(
    out: Path, folder: Path, recipe: str, shard_size: int, geometry: Mapping[str, Any], max_failed_items: int
) -> tuple[pd.DataFrame, int]:
    files = raw_files(folder)
    (out / "factors.parquet").unlink(missing_ok=True)  # of avatars that were here before
    seen: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    known = _known_good(out, recipe)
    decode = _decoder(geometry["size"], geometry["channels"], geometry["fit"], tuple(geometry["background"]))
    with Progress("ingest", len(files), "files") as progress:
        for path, item, about, reason in _judge(files, known, decode):
            name = path.relative_to(folder).as_posix()
            if reason:
                rows.append(_row(item, name, about, reason=reason))
            else:
                rows.append(_row(item, name, about, duplicates_of=item if item in seen else ""))
                seen.setdefault(item, str(path))
            progress.advance()
    bad = [row for row in rows if row["status"] == "bad"]
    if len(bad) > max_failed_items:
        examples = "; ".join(f"{row['source']}: {row['reason']}" for row in bad[:3])
        raise ManifestError(
            f"ingest {folder}: {len(bad)} of {len(files)} files cannot be used, max_failed_items is {max_failed_items} "
            f"({examples}); mend or remove them, or raise the limit"
        )
    if not seen:
        raise ManifestError(
            f"ingest {folder}: none of the {len(files)} files can be used ({bad[0]['source']}: {bad[0]['reason']})"
        )
    context = {"sources": seen, **geometry}
    return pd.DataFrame(rows), run_sharded("ingest", out, sorted(seen), recipe, shard_size, run_shard, context)


def _known_good(out: Path, recipe: str) -> dict[str, dict[str, Any]]:
    """What the last run found out about images, where it decoded them the same way."""
    from boundaryflow.storage.tables import read_table
    from stages.sharding import items_there

    try:
        manifest = read_table(out / "manifest.parquet", schema="manifest/1")
    except ManifestError:
        return {}
    there = items_there(out, recipe)
    ok = manifest[manifest["status"].isin(["ok", "duplicate"]) & manifest["item_id"].isin(there)]
    return {row["item_id"]: row for row in ok.to_dict("records")}  # pyright: ignore[reportReturnType]


def _judge(
    files: Sequence[Path],
    known: Mapping[str, Mapping[str, Any]],
    decode: Callable[[str], tuple[NDArray[np.uint8], dict[str, Any]]],
) -> Iterator[tuple[Path, str, dict[str, Any], str]]:
    """(file, item, facts, reason it is bad or "") in the order given, decoded on all cores."""

    def one(path: Path) -> tuple[Path, str, dict[str, Any], str]:
        try:
            data = path.read_bytes()
        except OSError as error:
            return path, item_id_of(str(path).encode()), {}, f"cannot be read ({error.strerror})"
        item = item_id_of(data)
        if item in known:
            return path, item, {k: known[item][k] for k in ("width_px", "height_px", "format", "mode")}, ""
        try:
            return path, item, decode(str(path))[1], ""
        except ManifestError as error:
            return path, item, {}, str(error)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(one, files)


def _row(
    item: str, source: str, about: Mapping[str, Any], *, reason: str = "", duplicates_of: str = ""
) -> dict[str, Any]:
    facts = {"width_px": 0, "height_px": 0, "format": "", "mode": ""} | dict(about)
    status = "bad" if reason else "duplicate" if duplicates_of else "ok"
    return {
        "item_id": item,
        "source": source,
        **facts,
        "status": status,
        "reason": reason,
        "duplicates_of": duplicates_of,
    }


@entry
def main() -> None:
    """Run for the data set named on the command line."""
    ingest = load_params().dataset(sys.argv[1]).ingest
    values = {name: getattr(ingest, name) for name in type(ingest).model_fields if name != "split"}
    run(sys.argv[1], val=ingest.split.val, test=ingest.split.test, **values)


if __name__ == "__main__":
    main()
