"""Stage edit: every image edited at every strength, as `edit.method` says, and the pictures kept in shards."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from boundaryflow.boundary import Boundaries, load_boundaries
from boundaryflow.config import load_params
from boundaryflow.editing.editor import EditSettings
from boundaryflow.editing.targets import directions_of
from boundaryflow.errors import BoundaryError
from boundaryflow.models.weights import sha256_of
from boundaryflow.pixels import to_model_range, to_u8
from boundaryflow.runtime.device import resolve_dtype
from boundaryflow.runtime.editor import open_editor
from boundaryflow.runtime.fingerprints import code_hash, describe
from boundaryflow.runtime.frozen_model import open_model
from boundaryflow.runtime.memory import in_chunks
from boundaryflow.runtime.process import entry, own_folder, tick
from boundaryflow.runtime.sharding import run_sharded_together
from boundaryflow.store.catalog.boundary import BOUNDARY
from boundaryflow.store.catalog.edit import EDIT, EDITS
from boundaryflow.store.catalog.ingest import INGEST, MANIFEST
from boundaryflow.store.catalog.invert import INVERT
from boundaryflow.store.catalog.label import LABEL, LABELS
from boundaryflow.store.catalog.observe import OBSERVE
from boundaryflow.store.fingerprint import fingerprint
from boundaryflow.store.shards import ShardTask, load_items, shard_index
from boundaryflow.store.tables import write_json

LOG = logging.getLogger(__name__)
CODE = (
    "stages/edit.py",
    "boundaryflow/editing/editor.py",
    *(f"boundaryflow/{room}" for room in ("diffusion", "models", "editing")),
)
OF_SINGLE_STEP = {"t_mix", "num_steps", "noise_until", "order", "eta", "residuals", "eps_scale", "h_scale", "h_window",
                  "conditional"}  # fmt: skip
OF_GUIDED = {"guided", "mask", "timesteps"}


def run_shards(
    tasks: Mapping[str, ShardTask],
    *,
    dataset: str,
    model: str,
    run_seed: int,
    settings: dict[str, Any],
    edits: dict[str, list[str]],
    held: list[str],
    directions: Mapping[str, Mapping[str, list[int]]],
) -> dict[str, dict[str, Tensor]]:
    """The edited pictures that the shards of one bucket still lack, edit by edit.

    What the edits and strengths of an image have in common is done once. `edits` has the attributes of each edit,
    `directions` the way that each item goes along them, edit by edit.
    """
    net = open_model(model, settings["dtype"])
    editor = open_editor(net, EditSettings(**settings), run_seed)
    items = sorted({item for task in tasks.values() for item in task.missing})
    pixels = load_items(INGEST.folder(dataset), items, ["pixels"])["pixels"]
    lacking = {edit: set(task.missing) for edit, task in tasks.items()}
    done: dict[str, dict[str, Tensor]] = {edit: {} for edit in tasks}
    needed = {attribute for edit in tasks for attribute in edits[edit]} | set(held)
    hyperplanes = {attribute: open_boundaries(dataset, attribute) for attribute in sorted(needed)}

    def edit_some(some: slice) -> None:
        chunk = items[some]
        source = editor.open(to_model_range(pixels[some], net.value_range), chunk)
        for edit in tasks:
            rows = [row for row, item in enumerate(chunk) if item in lacking[edit] and item not in done[edit]]
            if not rows:
                continue
            boundaries = [hyperplanes[attribute] for attribute in edits[edit]]
            signs = torch.tensor([directions[chunk[row]][edit] for row in rows], dtype=torch.float32)
            edited = editor.edit(source, rows, boundaries, signs.reshape(len(rows), -1), [hyperplanes[a] for a in held])
            tick(len(rows))
            done[edit].update(
                {chunk[row]: to_u8(picture, net.value_range) for row, picture in zip(rows, edited, strict=True)}
            )

    in_chunks(len(items), edit_some, net)
    return {edit: {"edited": torch.stack([done[edit][item] for item in task.missing])} for edit, task in tasks.items()}


def open_boundaries(dataset: str, attribute: str) -> Boundaries:
    """Read the boundaries of one attribute of a data set."""
    return load_boundaries(_boundary_path(dataset, attribute))


def _boundary_path(dataset: str, attribute: str) -> Path:
    return BOUNDARY.folder(dataset) / f"{attribute}.safetensors"


def possible_edits(
    dataset: str, edits: Mapping[str, Mapping[str, str]], labels: pd.DataFrame, *, guided: bool
) -> dict[str, Mapping[str, str]]:
    """The edits that there are labels and boundaries for; the others are warned of.

    Raises:
        BoundaryError: There is none.
    """
    lacking = {edit: reason for edit, of in edits.items() if (reason := _lacking(dataset, of, labels, guided=guided))}
    if len(lacking) == len(edits):
        raise BoundaryError(f"edit {dataset}: no edit is left: {next(iter(lacking.values()))}")
    for edit, reason in lacking.items():
        LOG.warning("edit %s: is left out: %s", edit, reason)
    return {edit: targets for edit, targets in edits.items() if edit not in lacking}


def _lacking(dataset: str, targets: Mapping[str, str], labels: pd.DataFrame, *, guided: bool) -> str | None:
    for attribute in targets:
        if attribute not in labels.columns or not _boundary_path(dataset, attribute).exists():
            return f"attribute {attribute!r} has too few labelled images; the stages label and boundary said how many"
        boundaries = open_boundaries(dataset, attribute)
        if guided and not boundaries.noised:
            return boundaries.not_separable
    return None


def run(
    dataset: str,
    *,
    model: str,
    dtype: str,
    run_seed: int,
    shard_size: int,
    split: str,
    max_images: int,
    edits: Mapping[str, Mapping[str, str]],
    **settings: Any,
) -> int:
    """Edit what is not edited yet; returns the number of (image, edit) pairs that were."""
    ingested, out = INGEST.folder(dataset), own_folder("edit", dataset)
    facts = INVERT.read_facts(dataset)
    net = open_model(model, dtype)
    if facts["model_sha256"] != net.sha256:
        raise BoundaryError(f"edit {dataset}: the model changed since the images were inverted; run `boundaryflow run`")
    resolved = str(resolve_dtype(dtype)).removeprefix("torch.")
    # The path on which the boundaries' latents lie.
    of_path = {name: facts[name] for name in ("t_mix", "num_steps", "noise_until", "order")}
    settings = {**settings, "dtype": resolved, **of_path}
    settings["h_window"] = list(settings["h_window"])
    settings["timesteps"] = OBSERVE.read_facts(dataset)["timesteps"]
    how = EditSettings(**settings)
    guided = how.is_guided
    labels = LABELS.read(LABEL.folder(dataset)).set_index("item_id")
    edits = possible_edits(dataset, edits, labels, guided=guided)
    fitted = [str(name) for name in labels.columns if _boundary_path(dataset, str(name)).exists()]
    held = fitted if how.keeps_others else []
    manifest = MANIFEST.read(ingested)
    usable = manifest[(manifest["status"] == "ok") & (manifest["split"] == split)]
    items = sorted(usable["item_id"])[:max_images]
    # Settings of the other method do not change the pictures; neither does the inversion, for guided edits.
    idle = OF_SINGLE_STEP if guided else OF_GUIDED
    upstream = INGEST.read_facts(dataset)["cache_key"] if guided else facts["cache_key"]
    directions: dict[str, dict[str, list[int]]] = {item: {} for item in items}
    cache_keys: dict[str, str] = {}
    variants: dict[str, dict[str, str]] = {}
    for edit, targets in edits.items():
        hyperplanes = [open_boundaries(dataset, attribute) for attribute in [*targets, *held]]
        variants[edit] = {}
        for item, signs in directions_of(labels, items, targets).items():
            directions[item][edit] = signs
            variants[edit][item] = ",".join(map(str, signs))
        cache_keys[edit] = fingerprint(
            stage="edit",
            code=code_hash("stages.edit"),
            model=net.sha256,
            upstream=upstream,
            run_seed=run_seed if guided or settings["eta"] > 0 or settings["noise_until"] > 0 else None,
            segmenter=sha256_of(Path(settings["mask"]["segmenter"])) if guided and settings["mask"] else None,
            boundaries=[describe(boundaries, guided=guided) for boundaries in hyperplanes],
            **{name: value for name, value in settings.items() if name not in idle},
        )
    context = {"dataset": dataset, "model": model, "run_seed": run_seed, "settings": settings}
    context |= {"edits": {edit: list(targets) for edit, targets in edits.items()}, "held": held}
    num_computed = run_sharded_together(
        "edit", out, items, cache_keys, shard_size, run_shards, context, variants, of_items={"directions": directions}
    )
    _write_manifest(out, edits, directions, settings["strengths"])
    write_json(out / EDIT.facts, {"edits": {e: dict(t) for e, t in edits.items()}, "split": split, **settings})
    return num_computed


def _write_manifest(
    out: Path,
    edits: Mapping[str, Mapping[str, str]],
    directions: Mapping[str, Mapping[str, list[int]]],
    strengths: Sequence[float],
) -> None:
    parts: list[pd.DataFrame] = []
    for edit, targets in edits.items():
        index = shard_index(out / edit)
        asked = [
            json.dumps({a: d for a, d in zip(targets, directions[item][edit], strict=True) if d})
            for item in index["item_id"]
        ]
        index = index.assign(edit=edit, targets=asked, shard=[f"{edit}/{shard}" for shard in index["shard"]])
        index = index[index["targets"] != "{}"]  # of these images nothing was asked
        parts += [index.assign(strength=float(s), strength_index=k) for k, s in enumerate(strengths)]
    table = pd.concat(parts).sort_values(["edit", "item_id", "strength_index"], ignore_index=True)
    columns = ["item_id", "edit", "strength", "strength_index", "targets", "shard", "row"]
    EDITS.write(out, table[columns])


@entry
def main() -> None:
    """Run for the data set named on the command line."""
    params = load_params()
    dataset = params.dataset(sys.argv[1])
    run(
        sys.argv[1],
        model=dataset.model,
        dtype=dataset.dtype,
        run_seed=params.run_seed,
        shard_size=dataset.ingest.shard_size,
        paper_mode=dataset.paper_mode,
        **dataset.edit.model_dump(),
    )


if __name__ == "__main__":
    main()
