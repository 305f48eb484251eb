"""From the shards of a job of bulk edits to its outbox: which pictures are delivered, and which are held back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from boundaryflow.errors import ManifestError
from boundaryflow.jobs.batch import weakest
from boundaryflow.jobs.bulk_job import NUM_TOLD, Job, Picture, Summary
from boundaryflow.jobs.delivery import Delivery
from boundaryflow.jobs.guard import unsure_values
from boundaryflow.sources.archives import UnusableError
from boundaryflow.sources.decoding import item_id_of
from boundaryflow.sources.raw import RawPictures
from boundaryflow.store.shard_files import shard_index
from boundaryflow.store.shards import Shard, read_shard


def deliver(
    job: Job, shards: Path, chosen: Mapping[str, str], raw: RawPictures, delivery: Delivery, summary: Summary
) -> dict[str, tuple[str, str]]:
    """Write the pictures of some items.

    Args:
        job: The job.
        shards: Folder of their edits.
        chosen: Item to the name of its file.
        raw: The files.
        delivery: Receives the pictures.
        summary: Receives what became of them.

    Returns:
        The status of each item, and the reason; see `delivery.Entry`.
    """
    status: dict[str, tuple[str, str]] = {}
    for path in sorted(set(shard_index(shards, job.shard_key)["shard"])):
        shard = read_shard(shards / path)
        for row, item in enumerate(shard.item_ids):
            pictures = list(_pictures(job, shard, row))
            wanted = [picture for picture in pictures if not picture.objection]
            held = [picture for picture in pictures if picture.objection]
            needs_change = any(bool(shard.tensors[f"signs/{edit}"][row].any()) for edit in job.edits)
            said = "; ".join(f"{p.edit} at {p.strength:g}: {p.objection}" for p in held)
            status[item] = "held" if held else "unsure" if needs_change else "unchanged", said
            if wanted:
                before = shard.tensors["pixels"][row].clone()
                status[item] = _deliver_all(job, wanted, before, item, chosen[item], raw, delivery)
                if status[item][0] == "delivered":
                    summary.delivered(wanted, before)
                    status[item] = "delivered", said
            if status[item][0] in ("delivered", "held", "unsure"):
                summary.held_back(held)
                _check(job, shard, row, pictures, chosen[item], delivery)
            if len(summary.items) < NUM_TOLD:
                summary.items.append(item)
    return status


def _pictures(job: Job, shard: Shard, row: int) -> Iterator[Picture]:
    """The pictures of one item to deliver, and those to hold back, which have an objection."""
    for edit, ways in job.edits.items():
        signs = shard.tensors[f"signs/{edit}"][row].tolist()
        targets = {name: int(sign) for name, sign in zip(ways, signs, strict=True) if sign}
        sure: list[float] = shard.tensors[f"reached/{edit}"][row].tolist()
        is_rejected, accepted = job.decisions.on(shard.item_ids[row], ways, targets)
        for index in _strengths_to_deliver(job, sure, accepted) if targets else ():
            pixels = shard.tensors[f"edited/{edit}"][row, index].clone()
            measured = shard.tensors[f"measured/{edit}"][row, index].tolist() if job.guard.measured else ()
            values = job.guard.values(sure[index], measured)
            objection = "rejected in review" if is_rejected else job.guard.objection(values)
            yield Picture(edit, float(job.strengths[index]), pixels, targets, sure[index], values, objection)


def _strengths_to_deliver(job: Job, sure: Sequence[float], accepted: float | None) -> list[int]:
    """Indices of the strengths to deliver.

    All, or with `min_probability` the one that was accepted in review, else the weakest above 0 that reaches it, if
    any.
    """
    if job.min_probability is None:
        return list(range(len(sure)))
    if accepted and accepted in job.strengths:
        return [list(job.strengths).index(accepted)]
    best = weakest(job.strengths, [probability >= job.min_probability for probability in sure])
    return [] if best is None else [best]


def _check(job: Job, shard: Shard, row: int, pictures: Sequence[Picture], source: str, delivery: Delivery) -> None:
    """Enter what was measured of an item's edits."""
    if not job.guard.measures:
        return
    item = shard.item_ids[row]
    for picture in pictures:
        delivery.check(
            {
                "item_id": item,
                "source": source,
                "edit": picture.edit,
                "strength": picture.strength,
                "outcome": "held" if picture.objection else "delivered",
                "reason": picture.objection,
                **picture.values,
            }
        )
    for edit in job.edits.keys() - {picture.edit for picture in pictures}:
        if bool(shard.tensors[f"signs/{edit}"][row].any()):
            unsure = {"edit": edit, "strength": float("nan"), "outcome": "unsure", "reason": ""}
            delivery.check({"item_id": item, "source": source, **unsure, **unsure_values(job.guard)})


def _deliver_all(
    job: Job,
    wanted: Sequence[Picture],
    before: Tensor,
    item: str,
    source: str,
    raw: RawPictures,
    delivery: Delivery,
) -> tuple[str, str]:
    """Write the pictures of one item; returns its status, and the reason if it is not `delivered`."""
    try:
        data = raw.read(source) if job.finishing.needs_file else None
        if data is not None and item_id_of(data) != item:
            return "left", "changed while it was edited"
        opened = job.finishing.open(data, before)
    except UnusableError as error:
        return "left", str(error)
    except ManifestError as error:
        return "bad", str(error)
    stem = job.finishing.stem(item, source)
    for picture in wanted:
        folder = picture.edit if job.min_probability is not None else f"{picture.edit}/{picture.strength:g}"
        delivery.put(
            f"{folder}/{stem}{opened.extension}",
            partial(opened.file, opened.pixels(picture.pixels)),
            item=item,
            source=source,
            edit=picture.edit,
            strength=picture.strength,
            targets=picture.targets,
            probability=picture.probability,
            boundaries={name: job.plan.boundaries[name] for name in picture.targets},
            judged_by={name: job.plan.labeller.by[name] for name in picture.targets},
        )
    return "delivered", ""
