"""Edited pictures of a data set, in the layouts that training code and viewers read."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from boundaryflow.config import AvatarSource, NamedDeliveryParams, load_params
from boundaryflow.config.places import check_output
from boundaryflow.errors import ManifestError
from boundaryflow.jobs.export.bounded_files import naming
from boundaryflow.jobs.export.chosen import check_names, choose
from boundaryflow.jobs.export.layouts import FOLDERS, Kind, Layout
from boundaryflow.jobs.export.records import labelled, records_of
from boundaryflow.jobs.export.writers import Picture, open_writer
from boundaryflow.jobs.finishing import Finisher, Finishing, SourceFiles, finishing_of
from boundaryflow.sources.datasets import open_raw
from boundaryflow.sources.encoding import is_synthetic
from boundaryflow.sources.raw import RawPictures
from boundaryflow.store.catalog.edit import EDIT, EDITS
from boundaryflow.store.catalog.ingest import INGEST, MANIFEST
from boundaryflow.store.catalog.label import LABEL
from boundaryflow.store.outbox import open_folder
from boundaryflow.store.shard_files import shard_files
from boundaryflow.store.shards import load_items, read_shard

__all__ = ["Kind", "Layout", "export_dataset", "export_images"]
_AT_ONCE = 256  # images in memory
_MODEL_PICTURES = Finishing({"background": (255, 255, 255)})
_Row = dict[Hashable, Any]


def export_dataset(
    dataset: str,
    to: Path,
    delivery: NamedDeliveryParams,
    layout: Layout = FOLDERS,
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
    needs_files = finishing.needs_file or layout.shows_before  # the file says whether it was synthetic before
    raw = open_raw(dataset, source, section.ingest.image_size) if has_files and needs_files else None
    return export_images(
        dataset,
        to,
        finishing,
        raw,
        layout,
        edits=edits,
        strengths=strengths,
        weakest=weakest,
        method=method,
        accepted=accepted,
    )


def export_images(
    dataset: str,
    to: Path,
    finishing: Finishing = _MODEL_PICTURES,
    raw: RawPictures | None = None,
    layout: Layout = FOLDERS,
    *,
    edits: Sequence[str] = (),
    strengths: Sequence[float] = (),
    weakest: float | None = None,
    method: str | None = None,
    accepted: bool = False,
    root: Path = Path(),
) -> tuple[int, int]:
    """Write the edited pictures of a data set, and what is known of them.

    Every edited picture says that it is synthetic, and which edit of which item it is. In memory are the
    pictures of some hundred images at a time, and the rows of tables.

    Args:
        dataset: Name of the data set.
        to: Folder to write; files of an earlier export that this one does not have are removed, files of others are
            kept.
        finishing: What becomes of the edits: the model's pictures as PNG files unless it says otherwise.
        raw: Files of the data set; None where none are needed.
        layout: Which files hold them.
        edits: Only these edits; empty for all.
        strengths: Only these strengths; empty for all.
        weakest: For each image and edit only the weakest strength whose probability by the judge is at least this, in
            (0, 1); none if no strength reaches it. None for every strength.
        method: `single_step` for the pictures of `edit.compare`; None for those of `edit.method`.
        accepted: Only pictures that were accepted on the page of `boundaryflow review`, each at its own strength; those
            of `edit.method`.
        root: The project's root.

    Returns:
        Number of pictures written, and of those left out: images of an edit because of `weakest`; accepted pictures
        that do not exist in this run or are not among `edits` and `strengths`; pictures without the label of `layout`.

    Raises:
        ManifestError: There is no edit, or none with that name or strength; `weakest` is given and no edit was judged;
            none was accepted; two pictures would have one name; or the folder belongs to another job, or has a foreign
            file with the name of one to be written.
    """
    check_output(to, "--to", root)
    chosen, num_left_out = choose(
        dataset, root, edits=edits, strengths=strengths, weakest=weakest, method=method, accepted=accepted
    )
    at = str(EDIT.folder(dataset, root) / EDITS.file)
    manifest = MANIFEST.read(INGEST.folder(dataset, root))
    sources = dict(zip(manifest["item_id"], manifest["source"], strict=True))
    columns: list[str] = ["strength"]
    if layout.kind != "folders":
        chosen, columns = records_of(chosen, dataset, manifest, root)
    if layout.label is not None:
        num_chosen = len(chosen)
        chosen = labelled(chosen, layout.label)
        columns, num_left_out = [*columns, "label"], num_left_out + num_chosen - len(chosen)

    items = [str(item) for item in chosen.sort_values(["shard", "row"])["item_id"].unique()]
    stems = {item: layout.stem(finishing.stem(item, sources.get(item, ""))) for item in items}
    check_names(stems, sources, at)
    layout.check_paths([*chosen["edit"].unique(), *(stem.rpartition("/")[0] for stem in stems.values())], at)
    files = SourceFiles(f"export {dataset}", raw, sources) if raw else None
    images = _Images(dataset, root, chosen, files.in_order(items) if files else items, layout)
    with (
        naming(to),
        open_folder(to, f"export {dataset}") as box,
        closing(open_writer(layout, box, images.types(columns))) as writer,
    ):
        for item, seen, rows in images.read(with_seen=files is not None or layout.shows_before):
            source = sources.get(item, "")
            data = files.read(item) if files else None
            try:
                opened = finishing.open(data, seen)
            except ManifestError as error:
                raise ManifestError(f"export {dataset}: {source}: {error}") from None
            before = _before(opened, data, dataset, item) if layout.shows_before else b""
            for row, picture in rows:
                facts = _facts(dataset, source, row)
                file = opened.file(opened.pixels(picture), facts)
                record = {name: row[name] for name in [*columns, *images.features]}
                writer.add(Picture(stems[item], opened.extension, file, before, facts, record))
        box.remove_others(set(writer.publish()), kept=())
    return len(chosen), num_left_out


def _facts(dataset: str, source: str, row: _Row) -> dict[str, str]:
    """What the file of an edited picture says of itself."""
    return {
        "synthetic": "true",
        "dataset": dataset,
        "edit": str(row["edit"]),
        "method": str(row["method"]),
        "strength": f"{row['strength']:g}",
        "source_item": str(row["item_id"]),
        "source": source,
        "targets": str(row["targets"]),
    }


def _before(opened: Finisher, data: bytes | None, dataset: str, item: str) -> bytes:
    """The file of the picture before its edits, in the format and size of these; marked if it was synthetic already."""
    was_synthetic = data is not None and is_synthetic(data)
    facts = {"synthetic": "true", "dataset": dataset, "source_item": item} if was_synthetic else {}
    return opened.file(opened.pixels(opened.before), facts)


class _Images:
    """Reads edited pictures image by image.

    Args:
        dataset: Name of the data set.
        root: The project's root.
        chosen: Rows of the pictures.
        items: The images, in the order in which they are read.
        layout: Decides whether features are read as well.
    """

    def __init__(self, dataset: str, root: Path, chosen: pd.DataFrame, items: Sequence[str], layout: Layout) -> None:
        self._edited, self._ingested = EDIT.folder(dataset, root), INGEST.folder(dataset, root)
        self._labelled, self._items = LABEL.folder(dataset, root), items
        place = pd.Series(range(len(items)), index=pd.Index(items))
        self._place = chosen["item_id"].map(place).sort_values(kind="stable")
        self._rows = chosen.loc[self._place.index]
        has_features = layout.kind == "table" and bool(shard_files(self._labelled))
        self.features = ["features"] if has_features else []

    def types(self, columns: Sequence[str]) -> dict[str, pa.DataType]:
        """Column to the type of its values in Parquet files."""
        names = {"float64": pa.float64(), "float32": pa.float32(), "bool": pa.bool_(), "int64": pa.int64()}
        types = {name: names.get(str(self._rows[name].dtype), pa.string()) for name in columns}
        return {**types, **dict.fromkeys(self.features, pa.list_(pa.float32()))}

    def read(self, *, with_seen: bool) -> Iterator[tuple[str, Tensor, list[tuple[_Row, Tensor]]]]:
        """Each image with the pixels that the model saw [C,S,S], empty without `with_seen`, its rows and edits."""
        for start in range(0, len(self._items), _AT_ONCE):
            some = self._items[start : start + _AT_ONCE]
            low, high = self._place.searchsorted([start, start + len(some)])
            edits: dict[str, list[tuple[_Row, Tensor]]] = {item: [] for item in some}
            for name, rows in self._rows.iloc[low:high].groupby("shard", sort=True):
                edited = read_shard(self._edited / str(name)).tensors["edited"]
                for row in rows.to_dict("records"):
                    edits[str(row["item_id"])].append((row, edited[row["row"], row["strength_index"]].clone()))
            if self.features:
                values = load_items(self._labelled, some, ["features"])["features"]
                for item, of_item in zip(some, values.tolist(), strict=True):
                    for row, _picture in edits[item]:
                        row["features"] = of_item
            seen: Sequence[Tensor] | Tensor = [torch.empty(0)] * len(some)
            if with_seen:
                seen = load_items(self._ingested, some, ["pixels"])["pixels"]
            yield from zip(some, seen, edits.values(), strict=True)
