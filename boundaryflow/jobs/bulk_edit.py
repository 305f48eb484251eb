"""Job bulk_edit: edit new files of an inbox, deliver the edits to an outbox, and record a status for every file.

It is not in DVC's graph, as its output leaves the project. The table `inbox.parquet` in the outbox records which files
are done, so that each is edited once, on whichever machine the job runs next.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from boundaryflow.config import load_params, quarantine_of
from boundaryflow.config.advice import advised
from boundaryflow.config.places import check_apart, check_output
from boundaryflow.editing.targets import TARGET_SIGNS
from boundaryflow.files import is_remote
from boundaryflow.jobs.arrivals import hashes_of, sort_out
from boundaryflow.jobs.batch import EditPlan, open_batch_editor, plan_edits, reached
from boundaryflow.jobs.bulk_job import Job, Summary
from boundaryflow.jobs.delivering import deliver
from boundaryflow.jobs.delivery import Delivery, Entry
from boundaryflow.jobs.finishing import finishing_of
from boundaryflow.jobs.guard import Guard, findings, guard_of, measure
from boundaryflow.jobs.quarantine import Quarantine, settle
from boundaryflow.jobs.run_record import recorded
from boundaryflow.review.verdicts import decisions_on
from boundaryflow.runtime.process import entry, own_folder
from boundaryflow.runtime.sharding import run_sharded
from boundaryflow.sources.decoding import Spool, decode_into
from boundaryflow.sources.inbox import list_inbox, open_inbox
from boundaryflow.store.catalog.jobs import BULK_EDIT, RECORD_SCHEMA, RUNS
from boundaryflow.store.outbox import Outbox, open_outbox
from boundaryflow.store.shard_files import shard_files
from boundaryflow.store.shards import ShardTask
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
    guard: Guard,
) -> dict[str, Tensor]:
    """Edits of the pictures that one shard lacks, their directions, the labeller's probabilities, and measures.

    Returns:
        `pixels` [N,C,S,S], and for each edit `edited/EDIT` [N,K,C,S,S], `signs/EDIT` [N,A], `reached/EDIT` [N,K] and,
        if the guard asks for measures, `measured/EDIT` [N,K,M].
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
        if guard.measured:
            targets = [
                {name: int(sign) for name, sign in zip(edits[edit], row, strict=True) if sign}
                for row in signs[edit].tolist()
            ]
            tensors[f"measured/{edit}"] = measure(guard, pixels, done.pixels, targets)
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
        outbox: Address of the outbox.
        again: Edit files again that another version of the job has edited.
        summary: Filled as the run goes on.

    Raises:
        ShortfallError: The run fell short of what the job expects; it is in quarantine.
        PipelineError: The inbox or outbox cannot be used.
    """
    work = own_folder("bulk_edit", job.name)
    work.mkdir(parents=True, exist_ok=True)
    listing = list_inbox(inbox)
    facts = {"dataset": job.dataset, "job": job.name, "job_hash": job.fingerprint}
    facts["model_sha256"] = job.plan.model_sha256
    delivery = Delivery(box, masked(outbox), facts)
    quarantine = Quarantine(box, outbox, job.name, delivery)
    quarantine.finish()
    staged = quarantine.resumed(job.shard_key if job.guard.expects else None)
    quarantine.warn()
    if not job.guard.expects:
        _edit_new(job, inbox, listing, delivery, work, again=again, summary=summary)
        return
    if not staged and delivery.new_files(listing, job_hash=job.fingerprint if again else None).empty:
        summary.counts.update(listed=len(listing), new=0)
        return
    staged = staged or quarantine.begin(job.shard_key)
    with quarantine.staging(staged) as staging:
        part = Delivery(staging, masked(quarantine.folder(staged)), facts, delivery)
        _edit_new(job, inbox, listing, part, work, again=again, summary=summary)
        _judge(job, part, quarantine, staged, summary)
    quarantine.finish()


def _edit_new(
    job: Job, inbox: str, listing: pd.DataFrame, delivery: Delivery, work: Path, *, again: bool, summary: Summary
) -> None:
    """Edit and deliver the new files, some at a time."""
    counts = job.fingerprint if again else None
    new = delivery.new_files(listing, job_hash=counts)
    summary.counts.update(listed=len(listing), new=len(new))
    LOG.info("bulk_edit %s: %d files in %s, %d new", job.name, len(listing), masked(inbox), len(new))
    for start in range(0, len(new), _AT_ONCE):
        _edit_and_deliver(job, inbox, new[start : start + _AT_ONCE], delivery, counts, work, summary)
    _forget(work)


def _judge(job: Job, part: Delivery, quarantine: Quarantine, staged: str, summary: Summary) -> None:
    """Hold a staged run against what its job expects, and decide where it goes."""
    num_left = summary.counts.get("left", 0)
    num_failed = num_left + int((part.ledger["status"] == "bad").sum())
    found = findings(job.guard, job.edits, part.checks(), num_failed, num_left + len(part.ledger))
    summary.findings = [finding.about() for finding in found]
    if all(finding.is_met for finding in found):
        quarantine.decide(staged, "deliver")
        return
    said = "; ".join(str(finding) for finding in sorted(found, key=lambda finding: finding.is_met))
    pictures = part.pictures()
    summary.counts["quarantined"] = summary.counts.pop("delivered", 0)
    summary.pictures = {}
    if pictures is None:
        quarantine.decide(staged, "quarantine", f"bulk_edit {job.name}: {said}; no picture was to be delivered")
        return
    summary.quarantine = masked(quarantine.folder(staged))
    quarantine.decide(
        staged,
        "quarantine",
        f"bulk_edit {job.name}: {said}; {len(pictures)} pictures are in quarantine in {summary.quarantine}: look at "
        f"them, then run `boundaryflow bulk-edit {job.name} --release {staged}`, or --discard {staged}",
    )


def _edit_and_deliver(
    job: Job,
    inbox: str,
    files: pd.DataFrame,
    delivery: Delivery,
    counts: str | None,
    work: Path,
    summary: Summary,
) -> None:
    """Decode, edit and deliver some files; those count as edited before that `counts` edited, None for any job."""
    versions: dict[str, str] = dict(zip(files["name"], files["version"], strict=True))
    with Spool(work) as spool:
        raw, geometry = open_inbox(inbox, files), job.section.ingest.geometry
        decoded = decode_into(spool, raw, raw.names, {}, geometry, "decode", is_remote=is_remote(inbox))
        ingest = job.section.ingest
        shape = [ingest.channels, ingest.image_size, ingest.image_size]
        hashes = hashes_of(spool, shape)
        entries, chosen = sort_out(job, decoded, versions, delivery, counts, hashes, summary)
        context = {
            "spool": str(spool.path),
            "rows": spool.rows,
            "shape": shape,
            "edits": {edit: dict(targets) for edit, targets in job.edits.items()},
            "plan": job.plan,
            "guard": job.guard,
        }
        shards = work / "shards"
        run_sharded("bulk_edit", shards, sorted(chosen), job.shard_key, ingest.shard_size, run_shard, context)
    for item, (status, reason) in deliver(job, shards, chosen, raw, delivery, summary).items():
        summary.count(status)
        if status in ("bad", "left"):
            summary.failed(chosen[item], status, reason)
        if status != "left":
            entries.append(Entry(chosen[item], versions[chosen[item]], item, status, reason, hashes[item]))
    delivery.commit(entries)


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
            "alert_below": dict(job.guard.alert_below),
            "max_failed": job.guard.max_failed,
            "deliver_if": {name: str(of) for name, of in job.guard.conditions.items()},
            "skip_duplicates": job.skip_duplicates,
            **job.plan.params(),
        },
    }


def settle_run(name: str, outbox: str | None, run: str, *, release: bool) -> str:
    """Release or discard a run in quarantine; returns a line that says what was done.

    Args:
        name: Name of the job.
        outbox: Instead of the job's.
        run: The run.
        release: Deliver it; otherwise remove it, and let its files count as new.

    Raises:
        PipelineError: There is no such job or run, or its folder was changed.
    """
    job = load_params(check_files=False).bulk_edit_job(name)  # whoever opens an outbox with another name claims it
    outbox = outbox or job.outbox
    check_output(outbox, "outbox")
    with open_outbox(outbox, f"bulk_edit {name}") as box:
        counts = settle(box, outbox, name, run, release=release)
        line = {
            "schema": RECORD_SCHEMA,
            "state": "released" if release else "discarded",
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "job": name,
            "run": run,
            "counts": counts,
        }
        box.write(RUNS, (box.read(RUNS) or b"") + (json.dumps(line, sort_keys=True) + "\n").encode())
    if not release:
        return f"{name}: run {run} is gone; the next run edits its {counts['forgotten']} files again"
    said = f"{name}: run {run}: {counts['pictures']} pictures of {counts['files']} files delivered to {masked(outbox)}"
    said += f"; {counts['removed']} that were removed from it are left out" if counts["removed"] else ""
    return said + (f"; {counts['edited again']} files were edited again since" if counts["edited again"] else "")


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
    if entry.expects:
        check_apart(inbox, quarantine_of(outbox), f"bulk_edit {arguments.job}: quarantine")
    section = params.dataset(entry.dataset)
    attributes = {edit: list(targets) for edit, targets in entry.edits.items()}
    plan = plan_edits(entry.dataset, section, params.run_seed, attributes, entry.strengths)
    finishing = finishing_of(f"bulk_edit.{arguments.job}", entry, section)
    job = Job(
        arguments.job,
        entry.dataset,
        section,
        entry.edits,
        entry.strengths,
        entry.min_probability,
        plan,
        finishing,
        guard_of(entry, section.evaluate.judges),
        decisions_on(entry.dataset, section.edit.edits),
        entry.skip_duplicates,
    )
    summary = Summary()
    with (
        open_outbox(outbox, f"bulk_edit {arguments.job}") as box,
        recorded(STATE / arguments.job, box, lambda: _about(job, inbox, outbox, summary), summary.shown),
    ):
        run(job, inbox, box, outbox, again=arguments.again, summary=summary)


if __name__ == "__main__":
    main()
