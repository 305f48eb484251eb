"""The arriving files of a job of bulk edits: which are edited, and which are not, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from boundaryflow.jobs.bulk_job import Job, Summary
from boundaryflow.jobs.delivery import Delivery, Entry
from boundaryflow.jobs.near_duplicates import LookAlikes, phash_of
from boundaryflow.sources.decoding import Decoded, Spool
from boundaryflow.store.outbox_record import is_within


def hashes_of(spool: Spool, shape: Sequence[int]) -> dict[str, str]:
    """Item to its perceptual hash."""
    if not spool.rows:
        return {}
    kept = np.memmap(spool.path, np.uint8, "r", shape=(len(spool.rows), *shape))
    return {item: phash_of(kept[row]) for item, row in spool.rows.items()}


def sort_out(
    job: Job,
    decoded: Sequence[Decoded],
    versions: Mapping[str, str],
    delivery: Delivery,
    counts: str | None,
    hashes: Mapping[str, str],
    summary: Summary,
) -> tuple[list[Entry], dict[str, str]]:
    """Entries of the files that are not edited; and item to file name of those that are.

    A file that could not be read, or changed since it was listed, gets no entry: the next run tries it again.
    """
    entries: list[Entry] = []
    chosen: dict[str, str] = {}

    def put_aside(picture: Decoded, status: str, reason: str) -> None:
        summary.count(status)
        if status in ("left", "bad"):
            summary.failed(picture.name, status, reason)
        if status != "left":
            phash = hashes.get(picture.item, "")
            entries.append(Entry(picture.name, versions[picture.name], picture.item, status, reason, phash))

    edited_before, alike = delivery.edited_items(job_hash=counts), _look_alikes(delivery, counts, len(decoded))
    by_source, owners = job.finishing.names == "source", delivery.edited_items(job_hash=None)
    names = {job.finishing.stem(item, name): name for item, name in owners.items()} if by_source else dict[str, str]()
    for picture in sorted(decoded, key=lambda picture: picture.name):
        name, item = picture.name, picture.item
        if not picture.was_read:
            put_aside(picture, "left", picture.reason)
        elif picture.reason:
            put_aside(picture, "bad", picture.reason)
        elif picture.about.get("synthetic"):
            put_aside(picture, "synthetic", "marked as synthetic; edits are not edited")
        elif (twin := chosen.get(item, edited_before.get(item, name))) != name:
            put_aside(picture, "duplicate", f"of {twin}")
        elif reason := _unnamable(name, stem := job.finishing.stem(item, name), names.get(stem, name)):
            put_aside(picture, "bad", reason)
        else:
            other = alike.find(hashes[item], but=name)
            summary.near_duplicates += other is not None
            if other is not None and job.skip_duplicates:
                put_aside(picture, "duplicate", f"looks like {other}")
                continue
            chosen[item] = names[stem] = name
            alike.add(hashes[item], name)
    return entries, chosen


def _look_alikes(delivery: Delivery, counts: str | None, num_more: int) -> LookAlikes:
    hashes, names = delivery.looks(job_hash=counts)
    return LookAlikes(hashes, names, num_more)


def _unnamable(name: str, stem: str, other: str) -> str:
    """Why a file cannot give its name to its edits; empty if it can. `other` has the same stem."""
    if other != name:
        return f"its edits would have the names of those of {other}; rename it, or set names: item"
    return "" if is_within(f"{stem}.") else "its edits cannot have its name; rename it, or set names: item"
