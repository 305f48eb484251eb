"""Stage bulk_edit: edit new files of an inbox, deliver the edits to an outbox, and record a status for every file.

It is not in DVC's graph, as its output leaves the project. The table `inbox.parquet` in the outbox records which files
are done, so that each is edited once, on whichever machine the job runs next.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from boundaryflow.config import DatasetParams, load_params
from boundaryflow.config.advice import advised
from boundaryflow.config.places import check_apart, check_output
from boundaryflow.editing.targets import TARGET_SIGNS
from boundaryflow.files import is_remote
from boundaryflow.jobs.batch import EditPlan, open_batch_editor, plan_edits, reached, weakest
from boundaryflow.jobs.delivery import Delivery, Entry
from boundaryflow.jobs.run_record import recorded
from boundaryflow.runtime.fingerprints import code_hash
from boundaryflow.runtime.process import entry, own_folder
from boundaryflow.runtime.sharding import run_sharded
from boundaryflow.sources.decoding import Decoded, Spool, decode_into
from boundaryflow.sources.inbox import list_inbox, open_inbox
from boundaryflow.store.catalog.jobs import BULK_EDIT
from boundaryflow.store.fingerprint import fingerprint
from boundaryflow.store.outbox import Outbox, open_outbox
from boundaryflow.store.shards import ShardTask, read_shard, shard_files, shard_index
from boundaryflow.text import masked

LOG = logging.getLogger(__name__)
STATE = BULK_EDIT.folder("")
_AT_ONCE = 2048  # files from decoding to delivery
_NUM_SHOWN, _NUM_TOLD = 8, 1000


@dataclass
class Summary:
    """Result of a run.

    Attributes:
        counts: Numbers of files: listed, new, and for the new ones by status (see `delivery.Entry`), or left for the
            next run because they changed or could not be read.
        pictures: Edit to the number of pictures delivered.
        failures: Files that are bad or were left, with the reason; the first thousand.
        items: Ids of the pictures that were edited; the first thousand.
        shown: A few pairs of [C,H,W] pixels, before and after.
    """

    counts: dict[str, int] = field(default_factory=dict[str, int])
    pictures: dict[str, int] = field(default_factory=dict[str, int])
    failures: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    items: list[str] = field(default_factory=list[str])
    shown: list[tuple[Tensor, Tensor]] = field(default_factory=list[tuple[Tensor, Tensor]])

    def count(self, status: str) -> None:
        """Count one more file with a status."""
        self.counts[status] = self.counts.get(status, 0) + 1

    def failed(self, name: str, status: str, reason: str) -> None:
        """Remember a file that was not edited."""
        if len(self.failures) < _NUM_TOLD:
            self.failures.append({"file": name, "status": status, "reason": reason})


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


@dataclass(frozen=True)
class Job:
    """How arriving pictures are edited: an entry of `bulk_edit` in params.yaml, and what it refers to.

    Attributes:
        name: Name of the job.
        dataset: Data set whose model, settings and boundaries to use.
        section: Its section of params.yaml.
        edits: Edit to attribute to add, remove or flip.
        strengths: Strengths that are tried.
        min_probability: Deliver only the smallest strength with at least this probability by the labeller; None
            delivers all.
        plan: How pictures are edited.
    """

    name: str
    dataset: str
    section: DatasetParams
    edits: Mapping[str, Mapping[str, str]]
    strengths: Sequence[float]
    min_probability: float | None
    plan: EditPlan

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that a delivered picture depends on, except the arriving file."""
        return fingerprint(
            stage="bulk_edit",
            code=code_hash("boundaryflow.jobs.bulk_edit"),
            plan=self.plan.cache_key,
            edits={edit: dict(targets) for edit, targets in self.edits.items()},
            geometry=self.section.ingest.geometry,
            min_probability=self.min_probability,
        )


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
        entries, chosen = _sort_out(decoded, versions, edited_before, summary)
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
    for item, status in _deliver(job, shards, chosen, delivery, summary).items():
        entries.append(Entry(chosen[item], versions[chosen[item]], item, status))
        summary.count(status)
    delivery.commit(entries)


def _sort_out(
    decoded: Sequence[Decoded], versions: Mapping[str, str], edited_before: Mapping[str, str], summary: Summary
) -> tuple[list[Entry], dict[str, str]]:
    """Entries of the files that are not edited; and item to file name of those that are.

    A file that could not be read, or changed since it was listed, gets no entry: the next run tries it again.
    """
    entries: list[Entry] = []
    chosen: dict[str, str] = {}
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
        else:
            chosen[item] = name
    return entries, chosen


def _deliver(job: Job, shards: Path, chosen: Mapping[str, str], delivery: Delivery, summary: Summary) -> dict[str, str]:
    """Write the pictures; returns the status of each item."""
    status: dict[str, str] = {}
    plan = job.plan
    for path in sorted(set(shard_index(shards, job.fingerprint)["shard"])):
        shard = read_shard(shards / path)
        for row, item in enumerate(shard.item_ids):
            needs_change = False
            for edit, ways in job.edits.items():
                signs = shard.tensors[f"signs/{edit}"][row].tolist()
                targets = {name: int(sign) for name, sign in zip(ways, signs, strict=True) if sign}
                if not targets:
                    continue
                needs_change = True
                sure = shard.tensors[f"reached/{edit}"][row].tolist()
                for index in _strengths_to_deliver(job, sure):
                    strength = float(job.strengths[index])
                    picture = shard.tensors[f"edited/{edit}"][row, index]
                    delivery.put(
                        _file_name(job, edit, strength, item),
                        picture,
                        item=item,
                        source=chosen[item],
                        edit=edit,
                        strength=strength,
                        targets=targets,
                        probability=sure[index],
                        boundaries={name: plan.boundaries[name] for name in targets},
                        judged_by={name: plan.labeller.by[name] for name in targets},
                    )
                    status[item] = "delivered"
                    summary.pictures[edit] = summary.pictures.get(edit, 0) + 1
                    if strength and len(summary.shown) < _NUM_SHOWN:
                        summary.shown.append((shard.tensors["pixels"][row].clone(), picture.clone()))
            status.setdefault(item, "unsure" if needs_change else "unchanged")
            if len(summary.items) < _NUM_TOLD:
                summary.items.append(item)
    return status


def _strengths_to_deliver(job: Job, sure: Sequence[float]) -> list[int]:
    """Indices of the strengths to deliver: all, or the weakest above 0 that reaches `min_probability`, if any."""
    if job.min_probability is None:
        return list(range(len(sure)))
    best = weakest(job.strengths, [probability >= job.min_probability for probability in sure])
    return [] if best is None else [best]


def _file_name(job: Job, edit: str, strength: float, item: str) -> str:
    return f"{edit}/{item}.png" if job.min_probability is not None else f"{edit}/{strength:g}/{item}.png"


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
            "geometry": job.section.ingest.geometry,
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
    job = Job(arguments.job, entry.dataset, section, entry.edits, entry.strengths, entry.min_probability, plan)
    summary = Summary()
    with (
        open_outbox(outbox, f"bulk_edit {arguments.job}") as box,
        recorded(STATE / arguments.job, box, lambda: _about(job, inbox, outbox, summary), summary.shown),
    ):
        run(job, inbox, box, outbox, again=arguments.again, summary=summary)


if __name__ == "__main__":
    main()
