"""Stage bulk_edit: edit new files of an inbox, deliver the edits to an outbox, and record a status for every file.

It is not in DVC's graph, as its output leaves the project. The table `inbox.parquet` in the outbox records which files
are done, so that each is edited once, on whichever machine the job runs next.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from boundaryflow.config import load_params
from boundaryflow.config.advice import advised
from boundaryflow.config.places import check_apart, check_output
from boundaryflow.editing.targets import TARGET_SIGNS
from boundaryflow.errors import ManifestError
from boundaryflow.files import is_remote
from boundaryflow.jobs.batch import EditPlan, open_batch_editor, plan_edits, reached, weakest
from boundaryflow.jobs.bulk_job import NUM_TOLD, Job, Picture, Summary
from boundaryflow.jobs.delivery import Delivery, Entry
from boundaryflow.jobs.finishing import finishing_of
from boundaryflow.jobs.run_record import recorded
from boundaryflow.runtime.process import entry, own_folder
from boundaryflow.runtime.sharding import run_sharded
from boundaryflow.sources.archives import UnusableError
from boundaryflow.sources.decoding import Decoded, Spool, decode_into, item_id_of
from boundaryflow.sources.inbox import list_inbox, open_inbox
from boundaryflow.sources.raw import RawPictures
from boundaryflow.store.catalog.jobs import BULK_EDIT
from boundaryflow.store.outbox import Outbox, open_outbox
from boundaryflow.store.outbox_record import is_within
from boundaryflow.store.shards import Shard, ShardTask, read_shard, shard_files, shard_index
from boundaryflow.text import masked

LOG = logging.getLogger(__name__)
STATE = BULK_EDIT.folder("")
_AT_ONCE = 2048  # files from decoding to delivery


def run_shard(
    job: ShardTask,
    *,
    spool: str,
    rows: Mapping[str, int],
    shape: Sequence[int],
    edits: Mapping[str, Mapping[str, str]],
    plan: EditPlan,
) -> dict[str, Tensor]:
    """Edits of the pictures that one shard lacks, their directions and the labeller's probabilities.

    Returns:
        `pixels` [N,C,S,S], and for each edit `edited/EDIT` [N,K,C,S,S], `signs/EDIT` [N,A] and `reached/EDIT` [N,K].
    """
    editor = open_batch_editor(plan)
    kept = np.memmap(spool, np.uint8, "r", shape=(len(rows), *shape))
    pixels = torch.from_numpy(np.stack([kept[rows[item]] for item in job.missing]))
    seen = editor.labeller(pixels, job.missing)
    place = {name: column for column, name in enumerate(editor.labeller.attributes)}
    signs = {
        edit: torch.stack([_signs(seen[:, place[name]], change) for name, change in targets.items()], 1)
        for edit, targets in edits.items()
    }
    tensors: dict[str, Tensor] = {"pixels": pixels}
    for edit, done in editor.edit(pixels, job.missing, signs).items():
        tensors[f"edited/{edit}"] = done.pixels
        tensors[f"signs/{edit}"] = signs[edit].to(torch.int8)
        tensors[f"reached/{edit}"] = reached(done.seen[:, :, [place[name] for name in edits[edit]]], signs[edit])
    return tensors


def _signs(probabilities: Tensor, change: str) -> Tensor:
    """[N] direction of each picture along an attribute: +1, -1, or 0 if it is already in the requested state."""
    without, having = TARGET_SIGNS[change]
    return torch.where(probabilities > 0.5, float(having), float(without))


def run(job: Job, inbox: str, box: Outbox, outbox: str, *, again: bool, summary: Summary) -> None:
    """Edit and deliver the new files.

    Args:
        job: How they are edited.
        inbox: Where pictures arrive; never written to.
        box: Receives the edits.
        outbox: Address of the outbox, for messages.
        again: Edit files again that another version of the job has edited.
        summary: Filled as the run goes on.

    Raises:
        PipelineError: The inbox or outbox cannot be used.
    """
    work = own_folder("bulk_edit", job.name)
    work.mkdir(parents=True, exist_ok=True)
    listing = list_inbox(inbox)
    job_hash = job.fingerprint
    facts = {"dataset": job.dataset, "job": job.name, "job_hash": job_hash}
    delivery = Delivery(box, masked(outbox), {**facts, "model_sha256": job.plan.model_sha256})
    counts = job_hash if again else None
    new = delivery.new_files(listing, job_hash=counts)
    summary.counts.update(listed=len(listing), new=len(new))
    LOG.info("bulk_edit %s: %d files in %s, %d new", job.name, len(listing), masked(inbox), len(new))
    for start in range(0, len(new), _AT_ONCE):
        some = new[start : start + _AT_ONCE]
        _edit_and_deliver(job, inbox, some, delivery, delivery.edited_items(job_hash=counts), work, summary)
    _forget(work)


def _edit_and_deliver(
    job: Job,
    inbox: str,
    files: pd.DataFrame,
    delivery: Delivery,
    edited_before: Mapping[str, str],
    work: Path,
    summary: Summary,
) -> None:
    """Decode, edit and deliver some files."""
    versions: dict[str, str] = dict(zip(files["name"], files["version"], strict=True))
    with Spool(work) as spool:
        raw, geometry = open_inbox(inbox, files), job.section.ingest.geometry
        decoded = decode_into(spool, raw, raw.names, {}, geometry, "decode", is_remote=is_remote(inbox))
        owners = delivery.edited_items(job_hash=None)
        entries, chosen = _sort_out(job, decoded, versions, edited_before, owners, summary)
        ingest = job.section.ingest
        context = {
            "spool": str(spool.path),
            "rows": spool.rows,
            "shape": [ingest.channels, ingest.image_size, ingest.image_size],
            "edits": {edit: dict(targets) for edit, targets in job.edits.items()},
            "plan": job.plan,
        }
        shards = work / "shards"
        run_sharded("bulk_edit", shards, sorted(chosen), job.fingerprint, ingest.shard_size, run_shard, context)
    for item, (status, reason) in _deliver(job, shards, chosen, raw, delivery, summary).items():
        summary.count(status)
        if reason:
            summary.failed(chosen[item], status, reason)
        if status != "left":
            entries.append(Entry(chosen[item], versions[chosen[item]], item, status, reason))
    delivery.commit(entries)


def _sort_out(
    job: Job,
    decoded: Sequence[Decoded],
    versions: Mapping[str, str],
    edited_before: Mapping[str, str],
    owners: Mapping[str, str],
    summary: Summary,
) -> tuple[list[Entry], dict[str, str]]:
    """Entries of the files that are not edited; and item to file name of those that are.

    A file that could not be read, or changed since it was listed, gets no entry: the next run tries it again. `owners`
    is item to file name of all that were ever edited here.
    """
    entries: list[Entry] = []
    chosen: dict[str, str] = {}
    by_source = job.finishing.names == "source"
    names = {job.finishing.stem(item, name): name for item, name in owners.items()} if by_source else dict[str, str]()
    for picture in sorted(decoded, key=lambda picture: picture.name):
        name, item = picture.name, picture.item
        if not picture.was_read:
            summary.count("left")
            summary.failed(name, "left", picture.reason)
        elif picture.reason:
            summary.count("bad")
            summary.failed(name, "bad", picture.reason)
            entries.append(Entry(name, versions[name], item, "bad", picture.reason))
        elif picture.about.get("synthetic"):
            summary.count("synthetic")
            entries.append(Entry(name, versions[name], item, "synthetic", "marked as synthetic; edits are not edited"))
        elif (twin := chosen.get(item, edited_before.get(item, name))) != name:
            summary.count("duplicate")
            entries.append(Entry(name, versions[name], item, "duplicate", f"of {twin}"))
        elif reason := _unnamable(name, stem := job.finishing.stem(item, name), names.get(stem, name)):
            summary.count("bad")
            summary.failed(name, "bad", reason)
            entries.append(Entry(name, versions[name], item, "bad", reason))
        else:
            chosen[item] = names[stem] = name
    return entries, chosen


def _unnamable(name: str, stem: str, other: str) -> str:
    """Why a file cannot give its name to its edits; empty if it can. `other` has the same stem."""
    if other != name:
        return f"its edits would have the names of those of {other}; rename it, or set names: item"
    return "" if is_within(f"{stem}.") else "its edits cannot have its name; rename it, or set names: item"


def _deliver(
    job: Job, shards: Path, chosen: Mapping[str, str], raw: RawPictures, delivery: Delivery, summary: Summary
) -> dict[str, tuple[str, str]]:
    """Write the pictures; returns the status of each item, and the reason."""
    status: dict[str, tuple[str, str]] = {}
    for path in sorted(set(shard_index(shards, job.fingerprint)["shard"])):
        shard = read_shard(shards / path)
        for row, item in enumerate(shard.item_ids):
            wanted = list(_wanted(job, shard, row))
            needs_change = any(bool(shard.tensors[f"signs/{edit}"][row].any()) for edit in job.edits)
            status[item] = "unsure" if needs_change else "unchanged", ""
            if wanted:
                before = shard.tensors["pixels"][row].clone()
                status[item] = _deliver_all(job, wanted, before, item, chosen[item], raw, delivery)
                if status[item][0] == "delivered":
                    summary.delivered(wanted, before)
            if len(summary.items) < NUM_TOLD:
                summary.items.append(item)
    return status


def _wanted(job: Job, shard: Shard, row: int) -> Iterator[Picture]:
    """The pictures of one item to deliver."""
    for edit, ways in job.edits.items():
        signs = shard.tensors[f"signs/{edit}"][row].tolist()
        targets = {name: int(sign) for name, sign in zip(ways, signs, strict=True) if sign}
        sure: list[float] = shard.tensors[f"reached/{edit}"][row].tolist()
        for index in _strengths_to_deliver(job, sure) if targets else ():
            pixels = shard.tensors[f"edited/{edit}"][row, index].clone()
            yield Picture(edit, float(job.strengths[index]), pixels, targets, sure[index])


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


def _strengths_to_deliver(job: Job, sure: Sequence[float]) -> list[int]:
    """Indices of the strengths to deliver: all, or the weakest above 0 that reaches `min_probability`, if any."""
    if job.min_probability is None:
        return list(range(len(sure)))
    best = weakest(job.strengths, [probability >= job.min_probability for probability in sure])
    return [] if best is None else [best]


def _forget(work: Path) -> None:
    """Remove shards that were delivered."""
    for path in shard_files(work / "shards"):
        path.unlink()


def _about(job: Job, inbox: str, outbox: str, summary: Summary) -> dict[str, Any]:
    """Facts for the run's record, apart from how it ended."""
    facts = {key: value for key, value in vars(summary).items() if key != "shown"}
    return {
        "job": job.name,
        "job_hash": job.fingerprint,
        "inbox": inbox,
        "outbox": outbox,
        **facts,
        **job.plan.about(),
        "params": {
            "dataset": job.dataset,
            "edits": {edit: dict(targets) for edit, targets in job.edits.items()},
            "min_probability": job.min_probability,
            "delivery": job.finishing.described(),
            **job.plan.params(),
        },
    }


@entry
@advised
def main() -> None:
    """Run the job named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m boundaryflow.jobs.bulk_edit")
    parser.add_argument("job")
    parser.add_argument("--inbox")
    parser.add_argument("--outbox")
    parser.add_argument("--again", action="store_true")
    arguments = parser.parse_args()
    params = load_params()
    entry = params.bulk_edit_job(arguments.job)
    inbox, outbox = arguments.inbox or entry.inbox, arguments.outbox or entry.outbox
    check_apart(inbox, outbox, f"bulk_edit {arguments.job}")
    check_output(outbox, "outbox")
    section = params.dataset(entry.dataset)
    attributes = {edit: list(targets) for edit, targets in entry.edits.items()}
    plan = plan_edits(entry.dataset, section, params.run_seed, attributes, entry.strengths)
    finishing = finishing_of(f"bulk_edit.{arguments.job}", entry, section)
    job = Job(
        arguments.job, entry.dataset, section, entry.edits, entry.strengths, entry.min_probability, plan, finishing
    )
    summary = Summary()
    with (
        open_outbox(outbox, f"bulk_edit {arguments.job}") as box,
        recorded(STATE / arguments.job, box, lambda: _about(job, inbox, outbox, summary), summary.shown),
    ):
        run(job, inbox, box, outbox, again=arguments.again, summary=summary)


if __name__ == "__main__":
    main()
