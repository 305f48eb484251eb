"""Edited pictures of a data set as files, in the folder layout that training code reads."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from boundaryflow.config import AvatarSource, NamedDeliveryParams, load_params
from boundaryflow.config.places import check_output
from boundaryflow.errors import ManifestError
from boundaryflow.jobs.finishing import Finishing, SourceFiles, finishing_of
from boundaryflow.review.verdicts import accepted_only
from boundaryflow.sources.datasets import open_raw
from boundaryflow.sources.raw import RawPictures
from boundaryflow.store.catalog.edit import EDIT, EDITS
from boundaryflow.store.catalog.evaluate import EVALUATE, PER_IMAGE
from boundaryflow.store.catalog.ingest import INGEST, MANIFEST
from boundaryflow.store.outbox import open_outbox
from boundaryflow.store.outbox_record import is_within
from boundaryflow.store.shards import load_items, read_shard
from boundaryflow.store.tables import table_bytes
from boundaryflow.text import visible

_SCHEMA = "export/2"
_AT_ONCE = 256  # images in memory
_MODEL_PICTURES = Finishing({"background": (255, 255, 255)})


def export_dataset(
    dataset: str,
    to: Path,
    delivery: NamedDeliveryParams,
    *,
    edits: Sequence[str] = (),
    strengths: Sequence[float] = (),
    weakest: float | None = None,
    method: str | None = None,
    accepted: bool = False,
) -> tuple[int, int]:
    """Export the edits of a data set of params.yaml; see `export_images`.

    Raises:
        PipelineError: As there, or the original is asked for where it cannot be had.
    """
    section = load_params().dataset(dataset)
    source = section.ingest.source
    has_files = not isinstance(source, AvatarSource)
    finishing = finishing_of(f"export {dataset}", delivery, section, method=method, has_files=has_files)
    raw = open_raw(dataset, source, section.ingest.image_size) if has_files and finishing.needs_file else None
    return export_images(
        dataset, to, finishing, raw, edits=edits, strengths=strengths, weakest=weakest, method=method, accepted=accepted
    )


def export_images(
    dataset: str,
    to: Path,
    finishing: Finishing = _MODEL_PICTURES,
    raw: RawPictures | None = None,
    *,
    edits: Sequence[str] = (),
    strengths: Sequence[float] = (),
    weakest: float | None = None,
    method: str | None = None,
    accepted: bool = False,
    root: Path = Path(),
) -> tuple[int, int]:
    """Write `to/<edit>/<strength>/<item_id>.png` and `to/metadata.parquet`, an ImageFolder with its labels.

    Every file says that it is synthetic, and which edit of which item it is.

    Args:
        dataset: Name of the data set.
        to: Folder to write; pictures of an earlier export that this one does not have are removed, files of others
            are kept.
        finishing: What becomes of the edits: the model's pictures as PNG files unless it says otherwise.
        raw: Files of the data set; None where none are needed.
        edits: Only these edits; empty for all.
        strengths: Only these strengths; empty for all.
        weakest: For each image and edit only the weakest strength whose probability by the judge is at least this, in
            (0, 1); none if no strength reaches it. None for every strength.
        method: `single_step` for the pictures of `edit.compare`; None for those of `edit.method`.
        accepted: Only pictures that were accepted on the page of `boundaryflow review`, each at its own strength; those
            of `edit.method`.
        root: The project's root.

    Returns:
        Number of pictures written, and of those left out: images of an edit because of `weakest`, or accepted pictures
        that do not exist in this run or are not among `edits` and `strengths`.

    Raises:
        ManifestError: There is no edit, or none with that name or strength; `weakest` is given and no edit was judged;
            none was accepted; or the folder belongs to another job, or has a foreign file with the name of one to be
            written.
    """
    check_output(to, "--to", root)
    folder = EDIT.folder(dataset, root)
    path = folder / EDITS.file
    if not path.is_file():
        raise ManifestError(f"{path}: nothing was edited yet; run `boundaryflow run --dataset {dataset}` first")
    manifest = EDITS.read(folder)
    chosen = _choose(manifest, "method", [_method(dataset, root, method, accepted=accepted)], path)
    chosen = _choose(chosen, "edit", edits, path)
    chosen = _choose(chosen, "strength", strengths, path)
    num_left_out = 0
    if accepted:
        chosen, num_left_out = accepted_only(chosen, dataset, root)
    if weakest is not None:
        num_pairs = len(chosen[["item_id", "edit"]].drop_duplicates())
        chosen = _weakest(chosen, weakest, EVALUATE.folder(dataset, root), dataset)
        num_left_out = num_pairs - len(chosen)
    if chosen.empty and weakest is None:
        raise ManifestError(f"{path}: none of the {num_left_out} accepted pictures is among these; review them again")
    if chosen.empty and weakest is not None:
        raise ManifestError(
            f"{path}: at none of the strengths does the judge give any image's edit a probability of {weakest:g}; ask "
            "for less, or edit with greater edit.strengths"
        )
    sources = _sources(INGEST.folder(dataset, root))
    files = SourceFiles(f"export {dataset}", raw, sources) if raw else None
    if finishing.names == "source":
        _check_names(chosen, finishing, sources, path)
    records: list[dict[str, object]] = []
    with open_outbox(str(to), f"export {dataset}") as box:
        for item, before, rows in _by_image(chosen, folder, files, dataset, root):
            source = sources.get(item, "")
            data = files.read(item) if files else None
            try:
                opened = finishing.open(data, before)
            except ManifestError as error:
                raise ManifestError(f"export {dataset}: {source}: {error}") from None
            for row, picture in rows:
                stem = finishing.stem(item, source)
                name = f"{row['edit']}/{row['strength']:g}/{stem}{opened.extension}"
                facts = {
                    "synthetic": "true",
                    "dataset": dataset,
                    "edit": str(row["edit"]),
                    "method": str(row["method"]),
                    "strength": f"{row['strength']:g}",
                    "source_item": item,
                    "source": source,
                    "targets": str(row["targets"]),
                }
                box.write(name, opened.file(opened.pixels(picture), facts))
                records.append({"file_name": name, **_record(facts, row["strength"])})
        box.write("metadata.parquet", _table(records))
        box.remove_others({str(record["file_name"]) for record in records})
    return len(records), num_left_out


def _method(dataset: str, root: Path, method: str | None, *, accepted: bool) -> str:
    """The method whose pictures are exported."""
    own: str = EDIT.read_facts(dataset, root)["method"]
    if accepted and method not in (None, own):
        raise ManifestError(
            f"export {dataset}: pictures of {method} are not reviewed, only those of {own}; leave --method out"
        )
    return method or own


def _by_image(
    chosen: pd.DataFrame, folder: Path, files: SourceFiles | None, dataset: str, root: Path
) -> Iterator[tuple[str, Tensor, list[tuple[dict[Hashable, Any], Tensor]]]]:
    """For each image its id, the pixels that the model saw [C,S,S], and its rows of the manifest with their edits."""
    items = [str(item) for item in chosen.sort_values(["shard", "row"])["item_id"].unique()]
    items = files.in_order(items) if files else items
    for start in range(0, len(items), _AT_ONCE):
        some = items[start : start + _AT_ONCE]
        edits: dict[str, list[tuple[dict[Hashable, Any], Tensor]]] = {item: [] for item in some}
        for shard_name, rows in chosen[chosen["item_id"].isin(some)].groupby("shard", sort=True):
            edited = read_shard(folder / str(shard_name)).tensors["edited"]
            for row in rows.to_dict("records"):
                edits[str(row["item_id"])].append((row, edited[row["row"], row["strength_index"]].clone()))
        seen = (
            load_items(INGEST.folder(dataset, root), some, ["pixels"])["pixels"]
            if files
            else [torch.empty(0)] * len(some)
        )
        yield from zip(some, seen, edits.values(), strict=True)


def _check_names(chosen: pd.DataFrame, finishing: Finishing, sources: Mapping[str, str], path: Path) -> None:
    """Refuse two images whose edits would have the same name."""
    owners: dict[str, str] = {}
    for item in sorted({str(item) for item in chosen["item_id"]}):
        source = sources.get(item, "")
        stem = finishing.stem(item, source)
        other = owners.setdefault(stem, source)
        if other != source:
            raise ManifestError(
                f"{path}: the edits of {other} and {source} would have the same name; export with --names item"
            )
        if not is_within(f"{stem}."):
            raise ManifestError(
                f"{path}: the edits of {visible(source)} cannot have its name; export with --names item"
            )


def _table(records: list[dict[str, object]]) -> bytes:
    """The table of the pictures' provenance."""
    table = pd.DataFrame(records).sort_values("file_name", ignore_index=True)
    names = [str(name) for name in table.columns]
    targets = sorted(name for name in names if name.startswith("target_"))
    table = table[[*(name for name in names if name not in targets), *targets]].astype(dict.fromkeys(targets, "Int8"))
    units = {
        "strength": "as edit.strengths, or edit.compare.strengths, in params.yaml",
        **dict.fromkeys(targets, "+1 on, -1 off, empty: not requested"),
    }
    return table_bytes(table, schema=_SCHEMA, units=units)


def _weakest(chosen: pd.DataFrame, probability: float, evaluated: Path, dataset: str) -> pd.DataFrame:
    """Per image and edit, the picture with the smallest strength above 0 that reaches this probability."""
    again, path = f"run `boundaryflow run --dataset {dataset}` first", evaluated / PER_IMAGE.file
    if not path.is_file():
        raise ManifestError(f"{path}: no edit was judged yet; {again}")
    judged = PER_IMAGE.read(evaluated)
    if "target_probability" not in judged:
        raise ManifestError(
            f"{path}: no judge decided whether edits succeeded; name judges in evaluate.judges, and {again}"
        )
    keys = ["item_id", "edit", "method", "strength"]
    known = chosen[chosen["strength"] != 0].merge(
        judged[[*keys, "target_probability"]], on=keys, how="left", indicator="found"
    )
    if (known["found"] != "both").any():
        raise ManifestError(f"{path}: is older than these edits; {again}")
    unjudged = sorted(set(known.loc[known["target_probability"].isna(), "edit"]))
    if unjudged:
        raise ManifestError(f"{path}: the judge does not measure edit {unjudged[0]}; choose others with --edit")
    sure = known[known["target_probability"] >= probability].drop(columns=["target_probability", "found"])
    return sure.sort_values("strength", key=abs, kind="stable").drop_duplicates(["item_id", "edit"])


def _choose(manifest: pd.DataFrame, column: str, wanted: Sequence[str] | Sequence[float], path: Path) -> pd.DataFrame:
    known = sorted(manifest[column].unique().tolist())
    for value in wanted:
        if value not in known:
            listed = ", ".join(str(entry) for entry in known)
            raise ManifestError(f"{path}: there is no {column} {value}; there are {listed}")
    return manifest[manifest[column].isin(list(wanted))] if wanted else manifest


def _sources(ingested: Path) -> dict[str, str]:
    table = MANIFEST.read(ingested)
    return dict(zip(table["item_id"], table["source"], strict=True))


def _record(facts: dict[str, str], strength: float) -> dict[str, object]:
    """A row of metadata.parquet: the facts of the text chunk, with a column for each requested attribute."""
    targets: dict[str, int] = json.loads(facts["targets"])
    return {
        "item_id": facts["source_item"],
        "source": facts["source"],
        "edit": facts["edit"],
        "method": facts["method"],
        "strength": float(strength),
        "synthetic": True,
        **{f"target_{name}": int(sign) for name, sign in targets.items()},
    }
