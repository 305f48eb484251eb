"""Stage ingest: from raw images, or from the built-in renderer, to pixels of one size."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from boundaryflow.avatars import ATTRIBUTES, FACTORS
from boundaryflow.config import AvatarSource, FileSplit, ListedSource, Split, load_params
from boundaryflow.errors import ManifestError
from boundaryflow.runtime.fingerprints import code_hash
from boundaryflow.runtime.process import Progress, entry, own_folder
from boundaryflow.runtime.sharding import run_sharded, stored_items
from boundaryflow.sources.datasets import FACE, FACES_AT_ONCE, draw_avatars, face_of, open_raw
from boundaryflow.sources.decoding import ABOUT, Decoded, Spool, choose, decode_into, item_id_of
from boundaryflow.sources.images import decode_image
from boundaryflow.sources.placement import Box, Fit, is_cropped
from boundaryflow.sources.raw import RawPictures
from boundaryflow.sources.remote import RemoteFolder
from boundaryflow.sources.splits import split_images
from boundaryflow.store.catalog.ingest import FACES, INGEST, MANIFEST, REMOTE
from boundaryflow.store.catalog.raw import RAW
from boundaryflow.store.fingerprint import fingerprint
from boundaryflow.store.shards import ShardTask
from boundaryflow.store.tables import read_json, write_json

LOG = logging.getLogger(__name__)


def run_shard(
    task: ShardTask,
    *,
    spool: str,
    num_rows: int,
    dataset: str,
    source: AvatarSource | ListedSource,
    geometry: Mapping[str, Any],
    rows: Mapping[str, int],
    sources: Mapping[str, str],
) -> dict[str, Tensor]:
    """Pixels of the images that one shard lacks, from the spool.

    Images of a damaged shard are not in the spool, and are read or drawn again.
    """
    side = geometry["size"]
    shape = (num_rows, geometry["channels"], side, side)
    kept = np.memmap(spool, np.uint8, "r", shape=shape) if rows else np.empty(0, np.uint8)
    lost = [item for item in task.missing if item not in rows]
    again: dict[str, np.ndarray[Any, Any]] = {}
    if isinstance(source, AvatarSource):
        for item in lost:
            chunk, place = divmod(int(sources[item].removeprefix(FACE)), FACES_AT_ONCE)
            again[item], _item = face_of(draw_avatars(source, chunk)[place], side)
    elif lost:
        raw = open_raw(dataset, source, side)
        again = {item: decode_image(raw.read(sources[item]), **geometry)[0] for item in lost}
    pixels = [again[item] if item in again else kept[rows[item]] for item in task.missing]
    return {"pixels": torch.from_numpy(np.stack(pixels))}


def run(
    dataset: str,
    *,
    source: AvatarSource | ListedSource,
    max_images: int | None,
    image_size: int,
    channels: int,
    crop: Box | None,
    fit: Fit,
    background: Sequence[int],
    levels: tuple[float, float] | None,
    split: Split | FileSplit,
    shard_size: int,
    max_failed_items: int,
) -> int:
    """Bring the pixels of a data set up to date; returns the number of images decoded.

    Raises:
        ManifestError: There are no images, too many are bad, or the split does not fit them.
    """
    out = own_folder("ingest", dataset)
    out.mkdir(parents=True, exist_ok=True)
    geometry: dict[str, Any] = {
        "size": image_size,
        "channels": channels,
        "crop": crop,
        "fit": fit,
        "background": tuple(background),
        "levels": levels,
    }
    cache_key = fingerprint(stage="ingest", code=code_hash("stages.ingest"), **geometry)
    about = {"cache_key": cache_key}
    if isinstance(source, AvatarSource):
        about["drawn_as"] = fingerprint(cache_key=cache_key, source=source.model_dump(exclude={"num_images"}))
        manifest, num_computed = _from_avatars(
            out, source, cache_key, about["drawn_as"], shard_size, image_size, channels
        )
        (out / REMOTE.file).unlink(missing_ok=True)
    else:
        manifest, num_computed = _from_raw(
            out, dataset, source, cache_key, shard_size, geometry, max_images, split, max_failed_items
        )
    ok = manifest[manifest["status"] == "ok"]
    splits = split_images(RAW.folder(dataset), dict(zip(ok["item_id"], ok["source"], strict=True)), split)
    manifest["split"] = [splits.get(item, "") for item in manifest["item_id"]]
    _write_manifest(out, manifest, about)
    bad = int((manifest["status"] == "bad").sum())
    LOG.info("ingest %s: %d images, %d rejected", dataset, len(ok), bad)
    if crop is not None:
        sides = zip(ok["width_px"], ok["height_px"], strict=True)
        if num := sum(is_cropped(width, height, image_size, crop) for width, height in sides):
            LOG.info("ingest %s: %d images are smaller than ingest.crop and taken as already cropped", dataset, num)
    return num_computed


def _write_manifest(out: Path, manifest: pd.DataFrame, about: Mapping[str, str]) -> None:
    rows = manifest.sort_values(["status", "item_id", "source"], ascending=[False, True, True], ignore_index=True)
    columns = ["item_id", "source", *ABOUT, "split", "status", "reason", "duplicates_of"]
    MANIFEST.write(out, rows[columns])
    bad = rows[rows["status"] == "bad"]
    facts = {
        **about,
        "num_ok": int((rows["status"] == "ok").sum()),
        "num_bad": len(bad),
        "num_duplicates": int((rows["duplicates_of"] != "").sum()),
        "reasons": {str(k): int(v) for k, v in bad["reason"].value_counts().sort_index().items()},
    }
    write_json(out / INGEST.facts, facts)


def _write_shards(
    out: Path,
    spool: Spool,
    seen: Mapping[str, str],
    cache_key: str,
    shard_size: int,
    source: AvatarSource | ListedSource,
    geometry: Mapping[str, Any],
) -> int:
    """Bring the shards up to date from the spool and existing shards; `seen` is item to name."""
    context = {"spool": str(spool.path), "num_rows": len(spool.rows), "dataset": out.name}
    context |= {"source": source, "geometry": dict(geometry)}
    return run_sharded(
        "ingest", out, sorted(seen), cache_key, shard_size, run_shard, context,
        of_items={"rows": spool.rows, "sources": seen}, num_threads=os.cpu_count() or 1,
    )  # fmt: skip


def _from_avatars(
    out: Path, source: AvatarSource, cache_key: str, drawn_as: str, shard_size: int, size: int, channels: int
) -> tuple[pd.DataFrame, int]:
    if channels != 3:
        raise ManifestError(f"ingest: avatars are RGB, but ingest.channels is {channels}; set it to 3")
    with Spool(out) as spool:
        rows, facts, seen = _draw(spool, source, size, _known_faces(out, cache_key, drawn_as))
        units = {factor: "see boundaryflow.avatars" for factor in FACTORS}
        FACES.write(out, facts, units)
        num_computed = _write_shards(
            out, spool, seen, cache_key, shard_size, source, {"size": size, "channels": channels}
        )
    return rows, num_computed


def _draw(
    spool: Spool, source: AvatarSource, size: int, known: Mapping[str, str]
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, str]]:
    """Draw the faces that are not stored; returns rows of the manifest, the factors of each face, and item to name."""
    about = {"width_px": size, "height_px": size, "format": "PNG", "mode": "RGB"}
    seen: dict[str, str] = {}
    rows: list[pd.DataFrame] = []
    facts: list[pd.DataFrame] = []
    with Progress("ingest", source.num_images, "faces") as progress:
        for chunk in range(-(-source.num_images // FACES_AT_ONCE)):
            some_rows: list[dict[str, Any]] = []
            some_facts: list[dict[str, Any]] = []
            for index, avatar in enumerate(draw_avatars(source, chunk), chunk * FACES_AT_ONCE):
                name = f"{FACE}{index:06d}"
                item = known.get(name, "")
                if not item:
                    drawn, item = face_of(avatar, size)
                    spool.add(item, drawn)
                some_rows.append(_row(item, name, about, duplicates_of=item if item in seen else ""))
                if seen.setdefault(item, name) == name:
                    some_facts.append({"item_id": item, **avatar.attributes, **avatar.factors})
                progress.advance()
            rows.append(pd.DataFrame(some_rows))
            facts.append(pd.DataFrame(some_facts))
    spool.finish()
    of_items = pd.concat(facts)[["item_id", *ATTRIBUTES, *FACTORS]].sort_values("item_id", ignore_index=True)
    return pd.concat(rows, ignore_index=True), of_items, seen


def _known_faces(out: Path, cache_key: str, drawn_as: str) -> dict[str, str]:
    """Name to item of the faces of the last run, if it drew the same ones."""
    try:
        manifest = MANIFEST.read(out)
        if read_json(out / INGEST.facts).get("drawn_as") != drawn_as:
            return {}
    except ManifestError:
        return {}
    kept = manifest[manifest["item_id"].isin(stored_items(out, cache_key))]
    return dict(zip(kept["source"], kept["item_id"], strict=True))


def _from_raw(
    out: Path,
    dataset: str,
    source: ListedSource,
    cache_key: str,
    shard_size: int,
    geometry: Mapping[str, Any],
    max_images: int | None,
    split: Split | FileSplit,
    max_failed_items: int,
) -> tuple[pd.DataFrame, int]:
    raw = open_raw(dataset, source, geometry["size"])
    (out / FACES.file).unlink(missing_ok=True)  # of an earlier data set of avatars
    names = choose(raw.names, max_images)
    if isinstance(split, Split):
        split_images(RAW.folder(dataset), dict(zip(names, names, strict=True)), split)  # fails before any work
    known = _known_good(out, cache_key)
    with Spool(out) as spool:
        decoded = _known_remote(out, raw, names, known, cache_key)
        decoded_before = {picture.name for picture in decoded}
        new = [name for name in names if name not in decoded_before]
        decoded += decode_into(spool, raw, new, known, geometry, "ingest", is_remote=isinstance(raw, RemoteFolder))
        decoded += [
            Decoded(name, item_id_of(name.encode()), {}, why, was_read=False) for name, why in raw.refused.items()
        ]
        rows, seen = _rows(decoded)
        _check_bad(source.place(dataset), rows, seen, max_failed_items)
        num_computed = _write_shards(out, spool, seen, cache_key, shard_size, source, geometry)
    _remember_remote(out, raw, decoded)
    return pd.DataFrame(rows), num_computed


def _rows(decoded: Sequence[Decoded]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows of the manifest, and item to name; the first of several names of the same image is used."""
    rows: list[dict[str, Any]] = []
    seen: dict[str, str] = {}
    for picture in sorted(decoded, key=lambda picture: picture.name):
        again = picture.item if picture.item in seen and not picture.reason else ""
        rows.append(_row(picture.item, picture.name, picture.about, reason=picture.reason, duplicates_of=again))
        if not picture.reason:
            seen.setdefault(picture.item, picture.name)
    return rows, seen


def _check_bad(
    where: object, rows: Sequence[Mapping[str, Any]], seen: Mapping[str, str], max_failed_items: int
) -> None:
    bad = [row for row in rows if row["status"] == "bad"]
    if len(bad) > max_failed_items:
        examples = "; ".join(f"{row['source']}: {row['reason']}" for row in bad[:3])
        raise ManifestError(
            f"ingest {where}: {len(bad)} of {len(rows)} files cannot be used, max_failed_items is {max_failed_items} "
            f"({examples}); repair or remove them, or raise the limit"
        )
    if not seen:
        raise ManifestError(
            f"ingest {where}: none of the {len(rows)} files can be used ({bad[0]['source']}: {bad[0]['reason']})"
        )


def _known_good(out: Path, cache_key: str) -> dict[str, dict[str, Any]]:
    """Facts of usable images from the last run, if it decoded with the same settings."""
    try:
        manifest = MANIFEST.read(out)
    except ManifestError:
        return {}
    stored = stored_items(out, cache_key)
    ok = manifest[manifest["status"].isin(["ok", "duplicate"]) & manifest["item_id"].isin(stored)]
    return {row["item_id"]: row for row in ok.to_dict("records")}  # pyright: ignore[reportReturnType]


def _known_remote(
    out: Path, raw: RawPictures, names: Sequence[str], good: Mapping[str, Mapping[str, Any]], cache_key: str
) -> list[Decoded]:
    """Results of remote pictures whose present version was downloaded before; they are not downloaded again."""
    if not isinstance(raw, RemoteFolder):
        return []
    try:
        before = REMOTE.read(out)
        manifest = MANIFEST.read(out)
        same = read_json(out / INGEST.facts)["cache_key"] == cache_key
    except ManifestError:
        return []
    bad = manifest[manifest["status"] == "bad"] if same else manifest[:0]
    reasons = dict(zip(bad["item_id"], bad["reason"], strict=True))
    columns = (before[name] for name in ("url", "name", "version", "item_id"))
    items: dict[tuple[str, str, str], str] = {
        (url, name, version): item for url, name, version, item in zip(*columns, strict=True)
    }
    found: list[Decoded] = []
    for name in names:
        item = items.get((raw.url, name, raw.version(name)), "")
        if item in good:
            found.append(Decoded(name, item, {key: good[item][key] for key in ABOUT}))
        elif item in reasons:
            found.append(Decoded(name, item, {}, reasons[item]))
    return found


def _remember_remote(out: Path, raw: RawPictures, decoded: Sequence[Decoded]) -> None:
    path = out / REMOTE.file
    if not isinstance(raw, RemoteFolder):
        path.unlink(missing_ok=True)
        return
    read = sorted((picture.name, picture.item) for picture in decoded if picture.was_read)
    rows = [{"url": raw.url, "name": name, "version": raw.version(name), "item_id": item} for name, item in read]
    REMOTE.write(out, pd.DataFrame(rows, columns=["url", "name", "version", "item_id"]))


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
    values = {name: getattr(ingest, name) for name in type(ingest).model_fields if name != "crop"}
    run(sys.argv[1], crop=ingest.crop and ingest.crop.box, **values)


if __name__ == "__main__":
    main()
