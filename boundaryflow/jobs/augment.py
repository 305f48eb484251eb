"""Stage augment: balance a data set with the fewest edits, each checked by a labeller, and write it with its images.

It is not in DVC's graph, as its output is for training code outside this project.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from boundaryflow.augmentation.balance import Group, phi, to_equal_counts, to_independence
from boundaryflow.config import AugmentParams, AvatarSource, EqualTarget, load_params
from boundaryflow.config.advice import advised
from boundaryflow.config.places import check_output
from boundaryflow.errors import ManifestError
from boundaryflow.jobs.augmenter import Augmenter, Good, groups_of, routes_into
from boundaryflow.jobs.batch import EditPlan, plan_edits
from boundaryflow.jobs.finishing import Finisher, Finishing, SourceFiles, finishing_of
from boundaryflow.jobs.reviewed import ReviewedAugmenter
from boundaryflow.jobs.run_record import recorded
from boundaryflow.jobs.training_set import TrainingSet, group_name
from boundaryflow.review.verdicts import Decisions, decisions_on
from boundaryflow.runtime.process import entry
from boundaryflow.sources.datasets import open_raw
from boundaryflow.sources.raw import RawPictures
from boundaryflow.store.catalog.ingest import INGEST, MANIFEST
from boundaryflow.store.catalog.jobs import AUGMENT
from boundaryflow.store.catalog.label import LABEL, LABELS
from boundaryflow.store.fingerprint import fingerprint
from boundaryflow.store.outbox import open_outbox
from boundaryflow.store.shards import load_items

LOG = logging.getLogger(__name__)
STATE = AUGMENT.folder("")
_AT_ONCE = 512  # pictures in memory
_NUM_SHOWN = 8


@dataclass
class Summary:
    """Result of a run.

    Attributes:
        before: Images per group in the data set.
        wanted: Edits to add per group.
        added: Accepted edits per group.
        tried: Edits made per route.
        kept: Accepted edits per route.
        phi: Correlation of the target's attributes before and after; None with one attribute.
        shown: A few pairs of [C,H,W] pixels, before and after.
    """

    before: dict[str, int] = field(default_factory=dict[str, int])
    wanted: dict[str, int] = field(default_factory=dict[str, int])
    added: dict[str, int] = field(default_factory=dict[str, int])
    tried: dict[str, int] = field(default_factory=dict[str, int])
    kept: dict[str, int] = field(default_factory=dict[str, int])
    phi: dict[str, float] | None = None
    shown: list[tuple[Tensor, Tensor]] = field(default_factory=list[tuple[Tensor, Tensor]])


def attributes_of(job: AugmentParams) -> list[str]:
    """The attributes of a job's target."""
    target = job.target
    return [target.equal] if isinstance(target, EqualTarget) else list(target.independent)


def run(
    name: str,
    job: AugmentParams,
    plan: EditPlan,
    shard_size: int,
    finishing: Finishing,
    raw: RawPictures | None,
    decisions: Decisions,
    out: TrainingSet,
    summary: Summary,
) -> None:
    """Balance a data set.

    Args:
        name: Name of the job.
        job: Its values.
        plan: How images are edited.
        shard_size: Items in a shard, on average at most.
        finishing: What becomes of the images and of their edits.
        raw: Files of the images; None where none are needed.
        decisions: Verdicts on the same edits of the data set.
        out: Where the set is written.
        summary: Filled as the run goes on.

    Raises:
        ManifestError: There is nothing to balance, or the target cannot be reached; in the second case the set is
            written with the edits that were accepted.
    """
    images = _images(job)
    counts = dict(Counter(images.groups.values()))
    add = _to_add(name, job, counts)
    summary.before = images.named(counts)
    summary.wanted = images.named(add)
    strengths, attributes = job.strengths, images.attributes
    augmenter = ReviewedAugmenter(name, plan, attributes, strengths, job.min_probability, shard_size, decisions)
    edits = {
        group: augmenter.fill(group, num, routes_into(group, attributes, images.groups)) if num else []
        for group, num in sorted(add.items())
    }
    summary.added = images.named({group: len(of_group) for group, of_group in edits.items()})
    for route, (tried, kept) in augmenter.outcomes.items():
        summary.tried[route], summary.kept[route] = tried, kept
    if len(attributes) == 2:
        after = {group: counts.get(group, 0) + len(edits[group]) for group in add}
        summary.phi = {"before": round(phi(counts), 4), "after": round(phi(after), 4)}
    finish = _Finish(finishing, images, SourceFiles(f"augment {name}", raw, images.sources) if raw else None)
    _write_images(out, finish)
    for group, of_group in edits.items():
        _write_edits(out, finish, plan, group, of_group, augmenter, summary)
    out.commit()
    short = {group: num - summary.added[group] for group, num in summary.wanted.items() if num > summary.added[group]}
    if short:
        missing = ", ".join(f"{num} of {summary.wanted[group]} in {group}" for group, num in short.items())
        raise ManifestError(
            f"augment {name}: {missing} are missing: every image that could become one was tried; the set is written "
            f"with what was accepted; lower augment.{name}.min_probability, add strengths, or add images"
        )


@dataclass(frozen=True)
class _Images:
    """The images that are balanced.

    Attributes:
        ingested: Folder of their pixels.
        attributes: Attributes of the target.
        groups: Item to its group.
        labels: Item to attribute to 1 or 0, for all known attributes.
        sources: Item to its name in the data set.
    """

    ingested: Path
    attributes: list[str]
    groups: dict[str, Group]
    labels: dict[str, dict[str, int]]
    sources: dict[str, str]

    def named(self, counts: Mapping[Group, int]) -> dict[str, int]:
        """Counts by the names of the groups."""
        return {group_name(self.attributes, group): num for group, num in sorted(counts.items())}

    def pixels(self, items: Sequence[str]) -> Tensor:
        """[N,C,H,W] uint8."""
        return load_items(self.ingested, items, ["pixels"])["pixels"]


def _images(job: AugmentParams) -> _Images:
    attributes, ingested = attributes_of(job), INGEST.folder(job.dataset)
    labels = LABELS.read(LABEL.folder(job.dataset)).set_index("item_id")
    unknown = [name for name in attributes if name not in labels.columns]
    if unknown:
        raise ManifestError(
            f"augment: {job.dataset} has no label {unknown[0]!r}; it has {', '.join(map(str, labels.columns))}"
        )
    manifest = MANIFEST.read(ingested)
    usable = manifest[(manifest["status"] == "ok") & (manifest["split"] == job.split)].set_index("item_id")
    labels = labels.loc[sorted(usable.index.intersection(labels.index))]
    groups = groups_of(labels, attributes)
    known = {item: _known(labels, item) for item in groups}
    return _Images(ingested, attributes, groups, known, {item: str(usable["source"][item]) for item in groups})


def _known(labels: pd.DataFrame, item: str) -> dict[str, int]:
    """Attribute to 1 or 0, for the known attributes of an image."""
    known = labels.loc[item].dropna().astype(float) > 0.5
    return {str(name): int(has) for name, has in zip(known.index, known.to_numpy(), strict=True)}


def _to_add(name: str, job: AugmentParams, counts: Mapping[Group, int]) -> dict[Group, int]:
    if not counts:
        raise ManifestError(
            f"augment {name}: no image of split {job.split!r} of {job.dataset} has labels of the target's "
            "attributes; choose another split or label more images"
        )
    if isinstance(job.target, EqualTarget):
        return to_equal_counts(counts)
    try:
        return to_independence(counts)
    except ValueError as error:
        raise ManifestError(f"augment {name}: {error}; choose another target") from None


@dataclass(frozen=True)
class _Finish:
    """How images and their edits become files.

    Attributes:
        how: What becomes of them.
        images: The images.
        files: Their files; None where none are needed.
    """

    how: Finishing
    images: _Images
    files: SourceFiles | None

    def in_order(self, items: Sequence[str]) -> list[str]:
        """The order in which their files are read fastest."""
        return self.files.in_order(items) if self.files else list(items)

    def open(self, item: str, before: Tensor) -> Finisher:
        """Prepare the file of an image, or of its edits."""
        data = self.files.read(item) if self.files else None
        try:
            return self.how.open(data, before)
        except ManifestError as error:
            raise ManifestError(f"augment: {self.images.sources[item]}: {error}") from None


def _write_images(out: TrainingSet, finish: _Finish) -> None:
    """Write the images of the data set."""
    images = finish.images
    items = finish.in_order(sorted(images.groups))
    for start in range(0, len(items), _AT_ONCE):
        some = items[start : start + _AT_ONCE]
        for item, picture in zip(some, images.pixels(some), strict=True):
            opened = finish.open(item, picture)
            name = f"{group_name(images.attributes, images.groups[item])}/{item}{opened.extension}"
            facts = {"item_id": item, "source": images.sources[item], "synthetic": False}
            out.put(name, partial(opened.file, opened.pixels(picture)), facts, images.labels[item])


def _write_edits(
    out: TrainingSet,
    finish: _Finish,
    plan: EditPlan,
    group: Group,
    edits: Sequence[Good],
    augmenter: Augmenter,
    summary: Summary,
) -> None:
    """Write the edits that are to be added to a group."""
    images = finish.images
    folder = group_name(images.attributes, group)
    place = {item: number for number, item in enumerate(finish.in_order([edit.item for edit in edits]))}
    edits = sorted(edits, key=lambda edit: place[edit.item])
    for start in range(0, len(edits), _AT_ONCE):
        some = edits[start : start + _AT_ONCE]
        items = [edit.item for edit in some]
        is_read = finish.how.is_original or len(summary.shown) < _NUM_SHOWN  # else nobody looks at the inputs
        before = images.pixels(items) if is_read else [torch.empty(0)] * len(items)
        for edit, picture, pixels in zip(some, augmenter.pictures(some), before, strict=True):
            route, item = edit.route, edit.item
            opened = finish.open(item, pixels)
            facts = {
                "item_id": item,
                "source": images.sources[item],
                "synthetic": True,
                "edit": route.name,
                "strength": edit.strength,
                "probability": round(edit.probability, 3),
                "judged_by": plan.labeller.by[route.attribute],
                "boundary": plan.boundaries[route.attribute],
            }
            shows = {**images.labels[item], route.attribute: int(route.sign > 0)}
            name = f"{folder}/{item}_{route.name}{opened.extension}"
            out.put(name, partial(opened.file, opened.pixels(picture)), facts, shows)
            if len(summary.shown) < _NUM_SHOWN:
                summary.shown.append((pixels, picture))


@entry
@advised
def main() -> None:
    """Run the job named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m boundaryflow.jobs.augment")
    parser.add_argument("job")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    params = load_params()
    job = params.augment_job(arguments.job)
    address = arguments.out or job.out
    check_output(address, "out")
    section, attributes = params.dataset(job.dataset), attributes_of(job)
    plan = plan_edits(job.dataset, section, params.run_seed, {name: [name] for name in attributes}, job.strengths)
    _warn_of_planes(arguments.job, plan)
    source = section.ingest.source
    has_files = not isinstance(source, AvatarSource)
    finishing = finishing_of(f"augment.{arguments.job}", job, section, has_files=has_files)
    raw = open_raw(job.dataset, source, section.ingest.image_size) if has_files and finishing.needs_file else None
    job_hash = fingerprint(plan=plan.cache_key, delivery=finishing.described())
    facts = {"dataset": job.dataset, "job": arguments.job, "job_hash": job_hash}
    summary = Summary()
    with (
        open_outbox(address, f"augment {arguments.job}") as box,
        recorded(
            STATE / arguments.job,
            box,
            lambda: {"job_hash": job_hash, **_about(arguments.job, job, address, plan, summary)},
            summary.shown,
        ),
    ):
        out = TrainingSet(box, {**facts, "model_sha256": plan.model_sha256})
        decisions = decisions_on(job.dataset, section.edit.edits)
        run(arguments.job, job, plan, section.ingest.shard_size, finishing, raw, decisions, out, summary)


def _warn_of_planes(name: str, plan: EditPlan) -> None:
    by_hyperplanes = [attribute for attribute, by in plan.labeller.by.items() if by == "hyperplanes"]
    if by_hyperplanes:
        LOG.warning(
            "augment %s: edits of %s are checked by the hyperplanes that made them, a weak check; name judges in "
            "evaluate.judges, or label by CLIP",
            name,
            ", ".join(by_hyperplanes),
        )


def _about(name: str, job: AugmentParams, out: str, plan: EditPlan, summary: Summary) -> dict[str, Any]:
    """Facts for the run's record, apart from how it ended."""
    facts = {key: value for key, value in vars(summary).items() if key != "shown"}
    params = {**job.model_dump(), **plan.params()}
    return {"job": name, "outbox": out, **facts, **plan.about(), "params": params}


if __name__ == "__main__":
    main()
