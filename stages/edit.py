"""Stage edit: every image edited at every strength, as `edit.method` and `edit.compare` say; pictures are in shards."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from boundaryflow.boundary import Boundaries, load_boundaries
from boundaryflow.config import DatasetParams, load_params
from boundaryflow.config.advice import with_advice
from boundaryflow.config.edit_settings import edit_settings
from boundaryflow.diffusion import EpsModel
from boundaryflow.editing.editor import NOT_INVERTED, Editor, EditSettings
from boundaryflow.editing.sampling import sample_ids
from boundaryflow.editing.targets import directions_of
from boundaryflow.errors import BoundaryError
from boundaryflow.files import file_sha256
from boundaryflow.pixels import to_model_range, to_u8
from boundaryflow.runtime.device import device, resolve_dtype
from boundaryflow.runtime.editor import open_editor
from boundaryflow.runtime.fingerprints import code_hash, describe
from boundaryflow.runtime.frozen_model import open_model
from boundaryflow.runtime.memory import in_chunks
from boundaryflow.runtime.process import entry, own_folder, tick
from boundaryflow.runtime.samples import draw_samples, single_attributes
from boundaryflow.runtime.sharding import run_sharded_together
from boundaryflow.store.catalog.boundary import BOUNDARY
from boundaryflow.store.catalog.edit import EDIT, EDITS
from boundaryflow.store.catalog.ingest import INGEST, MANIFEST
from boundaryflow.store.catalog.invert import INVERT
from boundaryflow.store.catalog.label import LABEL, LABELS
from boundaryflow.store.catalog.observe import OBSERVE
from boundaryflow.store.catalog.samples import SAMPLES
from boundaryflow.store.fingerprint import fingerprint
from boundaryflow.store.shard_files import shard_index
from boundaryflow.store.shards import ShardTask, load_items
from boundaryflow.store.tables import write_json

LOG = logging.getLogger(__name__)


def run_shards(
    tasks: Mapping[str, ShardTask],
    *,
    dataset: str,
    model: str,
    run_seed: int,
    settings: Mapping[str, EditSettings],
    folders: Mapping[str, tuple[str, str]],
    edits: Mapping[str, list[str]],
    held: Mapping[str, list[str]],
    directions: Mapping[str, Mapping[str, list[int]]],
) -> dict[str, dict[str, Tensor]]:
    """The edited pictures that the shards of one bucket still lack, folder by folder.

    `settings` and `held` are by method, `edits` has the attributes of each edit, `folders` the method and the edit of
    each folder, `directions` the way that each item goes along the attributes, edit by edit.
    """
    done: dict[str, dict[str, Tensor]] = {}
    for method, of_method in settings.items():
        mine = {folder: task for folder, task in tasks.items() if folders[folder][0] == method}
        if mine:
            net = open_model(model, of_method.dtype)
            editor = open_editor(net, of_method, run_seed)
            names = {folder: folders[folder][1] for folder in mine}
            done |= _edited(mine, dataset, net, editor, names, edits, held[method], directions)
    return done


def _edited(
    tasks: Mapping[str, ShardTask],
    dataset: str,
    net: EpsModel,
    editor: Editor,
    names: Mapping[str, str],
    edits: Mapping[str, list[str]],
    held: Sequence[str],
    directions: Mapping[str, Mapping[str, list[int]]],
) -> dict[str, dict[str, Tensor]]:
    """The same by one editor. What the edits and strengths of an image have in common is done once."""
    items = sorted({item for task in tasks.values() for item in task.missing})
    pixels = load_items(INGEST.folder(dataset), items, ["pixels"])["pixels"]
    lacking = {folder: set(task.missing) for folder, task in tasks.items()}
    done: dict[str, dict[str, Tensor]] = {folder: {} for folder in tasks}
    needed = {attribute for edit in names.values() for attribute in edits[edit]} | set(held)
    hyperplanes = {attribute: open_boundaries(dataset, attribute) for attribute in sorted(needed)}

    def edit_some(some: slice) -> None:
        chunk = items[some]
        source = editor.open(to_model_range(pixels[some].to(device()), net.value_range), chunk)
        for folder, edit in names.items():
            rows = [row for row, item in enumerate(chunk) if item in lacking[folder] and item not in done[folder]]
            if not rows:
                continue
            boundaries = [hyperplanes[attribute] for attribute in edits[edit]]
            signs = torch.tensor([directions[chunk[row]][edit] for row in rows], dtype=torch.float32)
            edited = editor.edit(source, rows, boundaries, signs.reshape(len(rows), -1), [hyperplanes[a] for a in held])
            tick(len(rows))
            pictures = to_u8(edited, net.value_range).cpu()
            done[folder].update({chunk[row]: picture for row, picture in zip(rows, pictures, strict=True)})

    in_chunks(len(items), edit_some, net)
    return {
        folder: {"edited": torch.stack([done[folder][item] for item in task.missing])} for folder, task in tasks.items()
    }


def open_boundaries(dataset: str, attribute: str) -> Boundaries:
    """Read the boundaries of one attribute of a data set."""
    return load_boundaries(_boundary_path(dataset, attribute))


def _boundary_path(dataset: str, attribute: str) -> Path:
    return BOUNDARY.folder(dataset) / f"{attribute}.safetensors"


def possible_edits(
    dataset: str,
    edits: Mapping[str, Mapping[str, str]],
    labels: pd.DataFrame,
    how: EditSettings,
    model_sha256: str,
    what: str,
) -> dict[str, Mapping[str, str]]:
    """The edits that there are labels and boundaries for; that the others are left out of `what` is said.

    Raises:
        BoundaryError: There is none.
    """
    lacking = {edit: told for edit, of in edits.items() if (told := _lacking(dataset, of, labels, how, model_sha256))}
    if len(lacking) == len(edits):
        raise BoundaryError(f"edit {dataset}: no edit is left: {next(iter(lacking.values()))}")
    for edit, reason in lacking.items():
        LOG.warning("edit %s: is left out%s: %s", edit, what, reason)
    return {edit: targets for edit, targets in edits.items() if edit not in lacking}


def _lacking(
    dataset: str, targets: Mapping[str, str], labels: pd.DataFrame, how: EditSettings, model_sha256: str
) -> str | None:
    for attribute in targets:
        if attribute not in labels.columns or not _boundary_path(dataset, attribute).exists():
            return (
                f"attribute {attribute!r} has too few labelled images, or cannot be separated; the stages label and "
                "boundary said which"
            )
        boundaries = open_boundaries(dataset, attribute)
        if how.is_guided:
            if not boundaries.noised:
                return with_advice(boundaries.not_separable)
            try:
                how.guided.visited(boundaries, how.timesteps)
            except BoundaryError as error:
                return with_advice(error)
            continue
        try:
            for space in how.spaces:
                boundaries.in_space(space, model_sha256, how.mixing_step)
        except BoundaryError as error:
            return with_advice(error)
    return None


@dataclass(frozen=True)
class Way:
    """One method's edits of a data set.

    Attributes:
        how: The settings.
        edits: Name to what is asked of which attribute, of those that can be made.
        held: Attributes whose boundaries an edit needs to leave them as they are.
    """

    how: EditSettings
    edits: Mapping[str, Mapping[str, str]]
    held: Sequence[str]


def run(dataset: str, params: DatasetParams, run_seed: int) -> int:
    """Edit what is not edited yet; returns the number of (image, edit, method) triples that were."""
    out = own_folder("edit", dataset)
    net = open_model(params.model, params.dtype)
    labels = LABELS.read(LABEL.folder(dataset)).set_index("item_id")
    ways = _ways(dataset, params, labels, net.sha256)
    manifest = MANIFEST.read(INGEST.folder(dataset))
    usable = manifest[(manifest["status"] == "ok") & (manifest["split"] == params.edit.split)]
    items = sorted(usable["item_id"])[: params.edit.max_images]
    directions: dict[str, dict[str, list[int]]] = {item: {} for item in items}
    variants: dict[str, dict[str, str]] = {}
    for edit, targets in params.edit.edits.items():
        if any(edit in way.edits for way in ways.values()):
            signs = directions_of(labels, items, targets)
            variants[edit] = {item: ",".join(map(str, of_item)) for item, of_item in signs.items()}
            for item, of_item in signs.items():
                directions[item][edit] = of_item
    # An edit's own pictures lie under its name, those that it is compared with under a name that no edit can have.
    folders = {
        edit if method == params.edit.method else f"{edit}.{method}": (method, edit)
        for method, way in ways.items()
        for edit in way.edits
    }
    cache_keys = {
        folder: _cache_key(dataset, net.sha256, run_seed, ways[method], edit)
        for folder, (method, edit) in folders.items()
    }
    context = {"dataset": dataset, "model": params.model, "run_seed": run_seed, "folders": folders}
    context |= {"settings": {method: way.how for method, way in ways.items()}}
    context |= {"held": {method: way.held for method, way in ways.items()}}
    context |= {"edits": {edit: list(params.edit.edits[edit]) for edit in variants}}
    num_computed = run_sharded_together(
        "edit", out, items, cache_keys, params.ingest.shard_size, run_shards, context,
        {folder: variants[edit] for folder, (_method, edit) in folders.items()}, of_items={"directions": directions},
    )  # fmt: skip
    _write_manifest(out, folders, params.edit.edits, directions, params.edit.methods)
    first, *others = ways.values()
    edits = {edit: dict(targets) for edit, targets in first.edits.items()}
    compared = {"method": others[0].how.method, "strengths": list(others[0].how.strengths)} if others else None
    facts = {"edits": edits, "split": params.edit.split, "compare": compared, **asdict(first.how)}
    write_json(out / EDIT.facts, facts)
    _draw_samples(dataset, params, run_seed, first, net.sha256)
    return num_computed


def _draw_samples(dataset: str, params: DatasetParams, run_seed: int, way: Way, model_sha256: str) -> None:
    """Draw images from noise, and change each attribute that an edit changes alone, as far as it is not done yet."""
    num = 0 if params.paper_mode else params.edit.num_samples  # paper mode edits given images only
    attributes = single_attributes(way.edits.values()) if num else []
    items = sample_ids(num) if attributes else []
    draw_samples(
        own_folder("samples", dataset), items, model=params.model, model_sha256=model_sha256, settings=way.how,
        seed=run_seed, attributes=attributes, preserved=way.held, segmenter_sha256=_segmenter_sha256(way.how),
        files={attribute: _boundary_path(dataset, attribute) for attribute in {*attributes, *way.held}},
        shard_size=params.ingest.shard_size,
    )  # fmt: skip
    write_json(SAMPLES.facts_path(dataset), {"items": items, "attributes": attributes})


def _ways(dataset: str, params: DatasetParams, labels: pd.DataFrame, model_sha256: str) -> dict[str, Way]:
    """Method to its edits: the data set's own, then those that they are compared with, where there are any.

    Raises:
        BoundaryError: The model changed, or none of the data set's own edits can be made.
    """
    path, noised = INVERT.read_facts(dataset), OBSERVE.read_facts(dataset)
    dtype = str(resolve_dtype(params.dtype)).removeprefix("torch.")
    ways: dict[str, Way] = {}
    for number, method in enumerate(params.edit.methods):
        how = edit_settings(params, method, path=path, observed=noised, dtype=dtype)
        if how.t_mix is None and not how.is_guided:
            raise BoundaryError(NOT_INVERTED)
        if model_sha256 != (noised if how.is_guided else path)["model_sha256"]:
            raise BoundaryError(
                f"edit {dataset}: the model changed after its latents were computed; run `boundaryflow run`"
            )
        wanted = ways[params.edit.method].edits if number else params.edit.edits
        try:
            edits = possible_edits(dataset, wanted, labels, how, model_sha256, " of what is compared" if number else "")
        except BoundaryError as error:
            if not number:
                raise
            LOG.warning("%s; nothing is compared", error)
            continue
        fitted = [str(name) for name in labels.columns if _boundary_path(dataset, str(name)).exists()]
        ways[method] = Way(how, edits, fitted if how.keeps_others else [])
    return ways


def _cache_key(dataset: str, model_sha256: str, run_seed: int, way: Way, edit: str) -> str:
    """Of the pictures of one edit: settings of other methods do not change them, nor does the inversion guided ones."""
    how = way.how
    draws_noise = how.is_guided or how.eta > 0 or how.noise_until > 0
    return fingerprint(
        stage="edit",
        code=code_hash("stages.edit"),
        model=model_sha256,
        upstream=(INGEST if how.is_guided else INVERT).read_facts(dataset)["cache_key"],
        run_seed=run_seed if draws_noise else None,
        segmenter=_segmenter_sha256(how),
        boundaries=[
            describe(open_boundaries(dataset, attribute), guided=how.is_guided)
            for attribute in [*way.edits[edit], *way.held]
        ],
        **how.used,
    )


def _segmenter_sha256(how: EditSettings) -> str | None:
    return file_sha256(Path(how.mask.segmenter)) if how.is_guided and how.mask else None


def _write_manifest(
    out: Path,
    folders: Mapping[str, tuple[str, str]],
    edits: Mapping[str, Mapping[str, str]],
    directions: Mapping[str, Mapping[str, list[int]]],
    strengths: Mapping[str, Sequence[float]],
) -> None:
    parts: list[pd.DataFrame] = []
    for folder, (method, edit) in folders.items():
        index = shard_index(out / folder)
        asked = [
            json.dumps({a: d for a, d in zip(edits[edit], directions[item][edit], strict=True) if d})
            for item in index["item_id"]
        ]
        places = [f"{folder}/{shard}" for shard in index["shard"]]
        index = index.assign(edit=edit, method=method, targets=asked, shard=places)
        index = index[index["targets"] != "{}"]  # of these images nothing was asked
        parts += [index.assign(strength=float(s), strength_index=k) for k, s in enumerate(strengths[method])]
    table = pd.concat(parts).sort_values(["edit", "method", "item_id", "strength_index"], ignore_index=True)
    EDITS.write(out, table[["item_id", "edit", "method", "strength", "strength_index", "targets", "shard", "row"]])


@entry
def main() -> None:
    """Run for the data set named on the command line."""
    params = load_params()
    run(sys.argv[1], params.dataset(sys.argv[1]), params.run_seed)


if __name__ == "__main__":
    main()
