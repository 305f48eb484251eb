"""Writes an export in one of its layouts."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

import pandas as pd
import pyarrow as pa

from boundaryflow.jobs.export.bounded_files import ParquetFile, Shards, TarShard, tar_size
from boundaryflow.jobs.export.layouts import PAIRS, Layout
from boundaryflow.jobs.export.records import SPLITS
from boundaryflow.store.catalog.evaluate import PER_IMAGE
from boundaryflow.store.outbox import LocalOutbox
from boundaryflow.store.tables import table_bytes

_FOLDERS_SCHEMA, _PAIRS_SCHEMA = "export/2", "edited_pairs/1"
_IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
_PICTURES, _ROWS = 100, 10_000  # rows of a group of a Parquet file, with pictures in it and without


class Picture(NamedTuple):
    """An edited picture.

    Attributes:
        stem: Its name without folders of the export and without suffix.
        extension: Suffix of its file.
        data: The file.
        before: File of the picture before; empty unless it is wanted.
        facts: What the file itself says.
        record: All that is known; see `records_of`.
    """

    stem: str
    extension: str
    data: bytes
    before: bytes
    facts: Mapping[str, str]
    record: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its path, edit and strength first."""
        return f"{self.facts['edit']}/{self.facts['strength']}/{self.stem}{self.extension}"


class Writer(Protocol):
    """Writes pictures to an outbox."""

    def add(self, picture: Picture) -> None:
        """Write a picture; those of an image come one after the other."""
        ...

    def publish(self) -> Collection[str]:
        """Complete the export; returns the names of its files."""
        ...

    def close(self) -> None:
        """Close what is open; does nothing after `publish`."""
        ...


def open_writer(layout: Layout, box: LocalOutbox, columns: Mapping[str, pa.DataType]) -> Writer:
    """Begin an export.

    Args:
        layout: Its layout.
        box: Where to.
        columns: Column of a record to type.

    Raises:
        ManifestError: There are files of others with such names.
    """
    if layout.kind == "folders":
        return _Folders(box)
    if layout.kind == "webdataset":
        return _Tars(layout, box)
    if layout.kind == "parquet":
        return _Parquets(layout, box, columns)
    return _Files(layout, box, columns)


class _Folders:
    """EDIT/STRENGTH/ITEM.png and metadata.parquet."""

    def __init__(self, box: LocalOutbox) -> None:
        self._box, self._rows = box, list[dict[str, object]]()

    def add(self, picture: Picture) -> None:
        self._box.write(picture.name, picture.data)
        facts = picture.facts
        targets: dict[str, int] = json.loads(facts["targets"])
        row = {
            "file_name": picture.name,
            "item_id": facts["source_item"],
            "source": facts["source"],
            "edit": facts["edit"],
            "method": facts["method"],
            "strength": float(picture.record["strength"]),
            "synthetic": True,
        }
        self._rows.append({**row, **{f"target_{name}": int(sign) for name, sign in targets.items()}})

    def publish(self) -> set[str]:
        table = pd.DataFrame(self._rows).sort_values("file_name", ignore_index=True)
        names = [str(name) for name in table.columns]
        targets = sorted(name for name in names if name.startswith("target_"))
        table = table[[*(name for name in names if name not in targets), *targets]]
        units = {
            "strength": "as edit.strengths, or edit.compare.strengths, in params.yaml",
            **dict.fromkeys(targets, "+1 on, -1 off, empty: not requested"),
        }
        table = table.astype(dict.fromkeys(targets, "Int8"))
        self._box.write("metadata.parquet", table_bytes(table, schema=_FOLDERS_SCHEMA, units=units))
        return {*table["file_name"], "metadata.parquet"}

    def close(self) -> None:
        """There is nothing open."""


class _Files:
    """Picture files and tables of them: an ImageFolder for each split, or pairs with one table."""

    def __init__(self, layout: Layout, box: LocalOutbox, columns: Mapping[str, pa.DataType]) -> None:
        self._layout, self._box, self._names = layout, box, set[str]()
        self._is_pairs = layout.kind == "table"
        self._columns = ("path", "path_before") if self._is_pairs else ("file_name", "before_file_name")
        paths = self._columns if layout.shows_before else self._columns[:1]
        about = _about(_PAIRS_SCHEMA, columns) if self._is_pairs else {}
        schema = pa.schema({**dict.fromkeys(paths, pa.string()), **columns}, metadata=about)
        for name in (PAIRS,) if self._is_pairs else (f"{split}/metadata.*" for split in SPLITS.values()):
            box.check_free(name)
        table = PAIRS if self._is_pairs else "{}/metadata.parquet"
        start = partial(ParquetFile, schema=schema, group_rows=_ROWS)
        self._tables = Shards(box, start, lambda split, _number, _count: table.format(split))

    def add(self, picture: Picture) -> None:
        split = "" if self._is_pairs else picture.record["split"]
        folder = "after/" if self._is_pairs else _class_folder(self._layout, picture)
        row = {self._columns[0]: f"{folder}{picture.name}", **picture.record}
        files = {row[self._columns[0]]: picture.data}
        if self._layout.shows_before:
            row[self._columns[1]] = f"before/{picture.stem}{picture.extension}"
            files[row[self._columns[1]]] = picture.before
        for name, data in files.items():
            path = f"{split}/{name}" if split else name
            if path not in self._names:  # the picture before is that of several edits
                self._box.write(path, data)
                self._names.add(path)
        self._tables.add(split, row)

    def publish(self) -> set[str]:
        return {*self._names, *self._tables.publish()}

    def close(self) -> None:
        self._tables.close()


class _Parquets:
    """Pictures in Parquet files, as the Hugging Face hub has them."""

    def __init__(self, layout: Layout, box: LocalOutbox, columns: Mapping[str, pa.DataType]) -> None:
        for split in SPLITS.values():
            box.check_free(f"data/{split}-*")
        pictures = ["image", "before"] if layout.shows_before else ["image"]
        types = {**dict.fromkeys(pictures, _IMAGE), **columns}
        features: dict[str, dict[str, Any]] = {name: {"dtype": str(of), "_type": "Value"} for name, of in types.items()}
        features |= {name: {"_type": "Image"} for name in pictures}
        if layout.label is not None:
            features["label"] = {"names": _classes(layout.label), "_type": "ClassLabel"}
        about = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
        schema = pa.schema(types, metadata=about)
        start = partial(ParquetFile, schema=schema, group_rows=_PICTURES, plain=pictures)
        self._shards = Shards(
            box, start, lambda split, number, of: f"data/{split}-{number:05d}-of-{of:05d}.parquet", layout.shard_bytes
        )

    def add(self, picture: Picture) -> None:
        images = {"image": {"bytes": picture.data, "path": picture.name}}
        if picture.before:
            images["before"] = {"bytes": picture.before, "path": f"before/{picture.stem}{picture.extension}"}
        self._shards.add(picture.record["split"], {**images, **picture.record}, len(picture.data) + len(picture.before))

    def publish(self) -> list[str]:
        return self._shards.publish()

    def close(self) -> None:
        self._shards.close()


class _Tars:
    """Tar files of pictures, each with its record as JSON."""

    def __init__(self, layout: Layout, box: LocalOutbox) -> None:
        for split in SPLITS.values():
            box.check_free(f"{split}-*.tar")
        self._has_class = layout.label is not None
        self._shards = Shards(
            box, TarShard, lambda split, number, _count: f"{split}-{number:06d}.tar", layout.shard_bytes
        )

    def add(self, picture: Picture) -> None:
        key = picture.name.removesuffix(picture.extension)
        # NaN, and not null, for what is unknown: `datasets` takes the types of columns from the first samples.
        members = {
            f"{key}{picture.extension}": picture.data,
            f"{key}.json": json.dumps({"key": key, **picture.record}, sort_keys=True).encode(),
        }
        if picture.before:
            members[f"{key}.before{picture.extension}"] = picture.before
        if self._has_class:
            members[f"{key}.cls"] = str(picture.record["label"]).encode()
        self._shards.add(picture.record["split"], members, tar_size(members))

    def publish(self) -> list[str]:
        return self._shards.publish()

    def close(self) -> None:
        self._shards.close()


def _classes(label: str) -> list[str]:
    """Names of the classes, of which the alphabetical order, too, is 0 and 1."""
    return [f"not_{label}", f"with_{label}"]


def _class_folder(layout: Layout, picture: Picture) -> str:
    return f"{_classes(layout.label)[picture.record['label']]}/" if layout.label is not None else ""


def _about(schema: str, columns: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Metadata of a table, as `boundaryflow.store.tables` writes it."""
    units = {name: unit for name, unit in PER_IMAGE.units.items() if name in columns}
    units |= {name: "probability" for name in columns if name.startswith(("before_", "after_"))}
    units["path"] = units["path_before"] = "relative to the folder of this table"
    return {b"boundaryflow.schema": schema.encode(), b"boundaryflow.units": json.dumps(units, sort_keys=True).encode()}
