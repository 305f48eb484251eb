"""Values of a data set that must agree with one another, wherever they are written."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from boundaryflow.config.annotations import FolderLabels, LabelKind, ParquetLabels, is_folder_column
from boundaryflow.config.guard import quarantine_of
from boundaryflow.config.image_sources import ParquetSource
from boundaryflow.config.ingest import FileSplit, Groups
from boundaryflow.config.label_rules import ColumnRule, CombinedRule, ThresholdRule, ValueRule
from boundaryflow.config.label_sources import CalibratedKind, TruthSource
from boundaryflow.config.params import Params
from boundaryflow.config.places import meet
from boundaryflow.config.sections import DatasetParams
from boundaryflow.config.wording import nearest
from boundaryflow.errors import ParamsError
from boundaryflow.files import about_user
from boundaryflow.text import visible, words


def disagreements(dataset: DatasetParams) -> Iterator[str]:
    """Lines `key: what is wrong`, the key within the data set."""
    yield from _about_images(dataset)
    yield from _about_labels(dataset)
    yield from _about_path(dataset)
    yield from _about_edits(dataset)
    if dataset.paper_mode:
        yield from _about_paper_mode(dataset)


def job_disagreements(params: Params, root: Path) -> Iterator[str]:
    """Lines `key: what is wrong` about the folders that the jobs of bulk_edit and augment read and write."""
    inboxes = {f"bulk_edit.{name}.inbox": job.inbox for name, job in params.bulk_edit.items()}
    written = {f"bulk_edit.{name}.outbox": job.outbox for name, job in params.bulk_edit.items()}
    for name, job in params.bulk_edit.items():
        if job.expects:
            try:
                written[f"the quarantine of bulk_edit.{name}.outbox"] = quarantine_of(job.outbox)
            except ParamsError as error:
                yield f"bulk_edit.{name}.{error}"
    written |= {f"augment.{name}.out": job.out for name, job in params.augment.items()}
    for key, address in (inboxes | written).items():
        if fault := about_user(address):
            yield f"{key}: {fault}"
    known = dict(inboxes)
    for key, address in written.items():
        for other, there in known.items():
            if meet(address, there, root):
                yield f"{key}: {visible(address)} is, holds or lies in {other}; choose a folder apart from it"
        known[key] = address


def _about_images(dataset: DatasetParams) -> Iterator[str]:
    source = dataset.ingest.source
    yield from _about_split(dataset)
    yield from source.disagreements(dataset.ingest)
    if dataset.evaluate.counterfactuals and not source.is_drawn:
        yield "evaluate.counterfactuals: is true, must be false unless ingest.source is of kind avatars"


def _about_split(dataset: DatasetParams) -> Iterator[str]:
    split, is_drawn = dataset.ingest.split, dataset.ingest.source.is_drawn
    if isinstance(split, FileSplit):
        is_table = split.path.lower().endswith((".csv", ".tsv", ".parquet", ".jsonl", ".ndjson"))
        if is_drawn:
            yield "ingest.split: avatars have no files; give shares for val and test"
        elif (split.file_column is None) != (split.split_column is None):
            yield "ingest.split: file_column and split_column must both be columns, or both null"
        elif split.file_column is not None and split.file_column == split.split_column:
            yield f"ingest.split: file_column and split_column are both {split.file_column!r}; name two columns"
        elif is_table and split.file_column is None:
            yield f"ingest.split: {split.path} is a table; give file_column and split_column"
        return
    if split.groups is not None:
        yield from _about_groups(split.groups, dataset)
    for key, value in (("val", split.val), ("test", split.test)):
        if isinstance(value, list) and is_drawn:
            yield f"ingest.split.{key}: avatars lie in no folders; give a share"
        elif value == []:
            yield f"ingest.split.{key}: names no folder; give one, or a share"
    lists = [value for value in (split.val, split.test) if isinstance(value, list)]
    both = set(lists[0]) & set(lists[1]) if len(lists) == 2 else set[str]()
    if both:
        yield f"ingest.split: {min(both)!r} is in both val and test; name it once"
    if sum(value for value in (split.val, split.test) if not isinstance(value, list)) >= 1:
        yield "ingest.split: val and test leave nothing to train on; their sum must be under 1"
    if split.val == 0:
        yield "ingest.split.val: is 0, must be above; boundaries are calibrated on these images"
    if split.test == 0 and dataset.edit.split == "test":
        yield "ingest.split.test: is 0, but edit.split is test; raise it, or edit another split"


def _about_groups(groups: Groups, dataset: DatasetParams) -> Iterator[str]:
    key, source = "ingest.split.groups", groups.source
    if dataset.ingest.source.is_drawn:
        yield f"{key}: avatars have no files; leave it out"
        return
    yield from (f"{key}.{line.removeprefix('label.')}" for line in source.disagreements(()))
    yield from (f"{key}{line}" for line in source.about_rule(groups.column, ColumnRule(column=groups.column)))
    if isinstance(source, FolderLabels) and not is_folder_column(groups.column):
        yield f"{key}.column: is {groups.column!r}, must be folder, or folder_1 for the topmost, folder_2 for the next"
    yield from _about_parquet(f"{key}.source", source, dataset)


def _about_parquet(key: str, source: LabelKind, dataset: DatasetParams) -> Iterator[str]:
    """Labels beside embedded pictures are joined to them by their place in the file."""
    images = dataset.ingest.source
    if not isinstance(source, ParquetLabels):
        return
    if not isinstance(images, ParquetSource):
        yield (
            f"{key}: kind parquet has the columns beside pictures in Parquet files; set ingest.source to kind parquet, "
            "or use kind csv"
        )
    elif source.image_column != images.image_column:
        yield (
            f"{key}.image_column: is {source.image_column}, but that of ingest.source is {images.image_column}, and "
            "pictures are named by it; write the same"
        )


def _about_labels(dataset: DatasetParams) -> Iterator[str]:
    source, attributes = dataset.label.source, dataset.label.attributes
    if isinstance(source, TruthSource) and not dataset.ingest.source.is_drawn:
        yield "label.source: kind is 'avatars', which knows faces of ingest.source kind avatars only; use csv or clip"
        return
    yield from source.disagreements(attributes)
    of = source.read_from
    yield from _about_parquet("label.source" if of is source else "label.source.annotations", of, dataset)
    if isinstance(source, CalibratedKind) and source.calibration is not None:
        yield from _about_parquet("label.source.calibration", source.calibration, dataset)
    for name, rule in attributes.items():
        key = f"label.attributes.{name}"
        if isinstance(rule, CombinedRule):
            continue
        if not isinstance(rule, of.rules):
            needs = f"which needs {of.needs}; or not, all or any of others"
            yield f"{key}: does not fit source kind {source.kind!r}, {needs}"
        if isinstance(rule, ThresholdRule) and rule.above <= rule.below:
            yield (
                f"{key}.above: is {rule.above!r}, must be greater than below ({rule.below!r}), so that no number is at "
                "both limits or beyond"
            )
        if isinstance(rule, ValueRule):
            yield from _about_values(key, rule)
        yield from (f"{key}{line}" for line in of.about_rule(name, rule))
    yield from _about_combinations(dataset)


def _about_values(key: str, rule: ValueRule) -> Iterator[str]:
    """A value that means with and without, as a table's cells are compared with it."""
    without = {said: value for value in rule.negative for said in words(value)}
    for value in rule.positive:
        meant = next((without[said] for said in sorted(words(value)) if said in without), None)
        if meant is not None:
            also = "" if repr(meant) == repr(value) else f", written {meant!r} there; cells are compared as numbers"
            yield f"{key}: {value!r} is positive and negative{also}; keep one"
            return


def _about_combinations(dataset: DatasetParams) -> Iterator[str]:
    """Attributes made of others: of such as there are, and in the end of plain ones."""
    rules = dataset.label.attributes
    made = {name: rule.parts for name, rule in rules.items() if isinstance(rule, CombinedRule)}
    for name, parts in made.items():
        for part in parts:
            if part not in rules:
                others = [other for other in rules if other != name]
                yield f"label.attributes.{name}: there is no attribute {part!r}{nearest(part, others)}"
    try:
        TopologicalSorter(made).prepare()
    except CycleError as error:
        ring: list[str] = error.args[1]
        yield f"label.attributes.{ring[0]}: is made of itself ({' of '.join(ring[::-1])}); say one of them otherwise"


def _about_path(dataset: DatasetParams) -> Iterator[str]:
    mixing, num_steps = dataset.mixing, dataset.invert.num_steps
    if mixing.min_t > mixing.max_t:
        yield f"mixing.min_t: is {mixing.min_t}, must not be above max_t ({mixing.max_t})"
    highest, key = (mixing.fixed_t, "fixed_t") if mixing.rule == "fixed" else (mixing.max_t, "max_t")
    if highest is None:
        yield "mixing.fixed_t: is null, must be a timestep in [1, 999] with rule: fixed"
    elif num_steps > highest + 1:
        yield (
            f"invert.num_steps: is {num_steps}, but from 0 to mixing.{key} ({highest}) there are {highest + 1} "
            "timesteps; lower it"
        )
    observe = dataset.observe
    if observe.num_steps > observe.t_max + 1:
        yield (
            f"observe.num_steps: is {observe.num_steps}, but from 0 to observe.t_max ({observe.t_max}) there are "
            f"{observe.t_max + 1} timesteps; lower it"
        )


def _about_edits(dataset: DatasetParams) -> Iterator[str]:
    edit = dataset.edit
    if edit.h_window[0] < edit.h_window[1]:
        yield "edit.h_window: must go from the noisy end down, such as [1.0, 0.3]"
    if edit.method == "guided" and dataset.observe.max_images < 8:
        yield (
            f"observe.max_images: is {dataset.observe.max_images}, must be at least 8 with edit.method: guided; raise "
            "it, or set edit.method: single_step"
        )
    for space, scale in (("eps", edit.eps_scale), ("h", edit.h_scale)):
        if scale > 0 and space not in dataset.boundary.spaces:
            yield f"edit.{space}_scale: is {scale}, but boundary.spaces has no {space}; add it or set 0"
    known = list(dataset.label.attributes)
    if edit.mask is not None and edit.method != "guided":
        yield "edit.mask: is for edit.method guided only; set it to null, or edit.method to guided"
    for attribute, parts in edit.mask.parts.items() if edit.mask is not None else ():
        if attribute not in known:
            yield f"edit.mask.parts: attribute {attribute!r} is labelled by nobody{nearest(attribute, known)}"
        if not parts:
            yield f"edit.mask.parts.{attribute}: names no part; name some, or remove it to change anything"
    for name, targets in edit.edits.items():
        if not targets:
            yield f"edit.edits.{name}: changes nothing; say which attribute, such as {{{known[0]}: flip}}, or remove it"
        for attribute in targets:
            if attribute not in known:
                yield f"edit.edits.{name}: attribute {attribute!r} is labelled by nobody{nearest(attribute, known)}"


def _about_paper_mode(dataset: DatasetParams) -> Iterator[str]:
    if dataset.edit.method != "single_step":
        yield "edit.method: is guided, must be single_step; paper_mode moves once, at the mixing step"
    for space in ("eps", "h"):
        if space not in dataset.boundary.spaces:
            yield f"boundary.spaces: has no {space}; paper_mode moves in both spaces, add it or set paper_mode: false"
    for name, targets in dataset.edit.edits.items():
        if len(targets) > 1:
            yield (
                f"edit.edits.{name}: has {len(targets)} attributes; paper_mode edits one at a time, split the edit or "
                "set paper_mode: false"
            )
