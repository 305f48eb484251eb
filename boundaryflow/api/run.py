"""`boundaryflow.open`: a project whose stages have run; its pictures, their edits and metrics, one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from boundaryflow.api.editor import Editor
from boundaryflow.api.images import picture_of
from boundaryflow.config import Params, load_params
from boundaryflow.errors import ManifestError, ParamsError
from boundaryflow.jobs.fitted import fitted_for
from boundaryflow.store.catalog.edit import EDIT, EDITS
from boundaryflow.store.catalog.evaluate import EVALUATE, PER_IMAGE
from boundaryflow.store.catalog.ingest import INGEST, MANIFEST
from boundaryflow.store.shard_files import in_batches
from boundaryflow.store.shards import load_items

_BATCH = 64
_KEYS = ["item_id", "edit", "method", "strength"]


@dataclass(frozen=True)
class Item:
    """An image of a run, and what became of it.

    Attributes:
        id: A hash of its file.
        source: Name of its file.
        image: The picture, of the model's size.
        edits: Edit to strength to the edited picture.
        metrics: Edit to strength to metric to number, as in tables/per_image.parquet; empty where nothing was
            evaluated. Metrics that were not measured are left out.
    """

    id: str
    source: str
    image: Image.Image
    edits: Mapping[str, Mapping[float, Image.Image]]
    metrics: Mapping[str, Mapping[float, Mapping[str, float]]]


def open(root: str | PathLike[str] = ".", dataset: str | None = None) -> Run:  # noqa: A001 - it is bf.open
    """Open a data set of a project.

    Args:
        root: The checkout, with params.yaml.
        dataset: Name of the data set; None is the only one that params.yaml lists.

    Raises:
        PipelineError: There is no such project or data set.
    """
    params = load_params(Path(root), check_files=False)
    if dataset is None and len(params.datasets) > 1:
        raise ParamsError(f"params.yaml lists the data sets {', '.join(params.datasets)}: say which one")
    return Run(Path(root), dataset or params.datasets[0], params)


class Run:
    """The results of a data set's last run; iterate over it for the images that were edited.

    Args:
        root: The checkout.
        dataset: Name of the data set.
        params: params.yaml.
    """

    def __init__(self, root: Path, dataset: str, params: Params) -> None:
        self._root, self.dataset, self._run_seed = root, dataset, params.run_seed
        self._params = params.dataset(dataset)

    def editor(self) -> Editor:
        """The editor with the model, boundaries and settings of the data set.

        Raises:
            PipelineError: The stages have not run.
        """
        return Editor.of(fitted_for(self.dataset, self._params, self._run_seed, self._root))

    def __iter__(self) -> Iterator[Item]:
        """The edited images, those of a shard one after another.

        Raises:
            ManifestError: Nothing was edited yet, or a shard is damaged.
        """
        folder, ingested = EDIT.folder(self.dataset, self._root), INGEST.folder(self.dataset, self._root)
        if not (folder / EDITS.file).is_file():
            again = f"run `boundaryflow run --dataset {self.dataset}` first"
            raise ManifestError(f"{folder / EDITS.file}: nothing was edited yet; {again}")
        edits = EDITS.read(folder)
        edits = edits[edits["method"] == EDIT.read_facts(self.dataset, self._root)["method"]]
        metrics = self._metrics()
        files = MANIFEST.read(ingested).set_index("item_id")["source"]
        for items in in_batches(ingested, sorted(edits["item_id"].unique()), _BATCH):
            pixels = load_items(ingested, items, ["pixels"])["pixels"]
            pictures = self._edited(folder, edits[edits["item_id"].isin(items)])
            for item, of_item in zip(items, pixels, strict=True):
                yield Item(item, str(files[item]), picture_of(of_item), pictures[item], metrics.get(item, {}))

    def _edited(self, folder: Path, edits: pd.DataFrame) -> dict[str, dict[str, dict[float, Image.Image]]]:
        """Item to edit to strength to picture."""
        found: dict[str, dict[str, dict[float, Image.Image]]] = {}
        for edit, rows in edits.groupby("edit"):
            items = sorted(rows["item_id"].unique())
            shards = folder / str(rows["shard"].iloc[0]).rpartition("/")[0]
            tensors = dict(zip(items, load_items(shards, items, ["edited"])["edited"], strict=True))
            for row in rows.to_dict("records"):
                picture = picture_of(tensors[row["item_id"]][row["strength_index"]])
                found.setdefault(row["item_id"], {}).setdefault(str(edit), {})[row["strength"]] = picture
        return found

    def _metrics(self) -> dict[str, dict[str, dict[float, dict[str, float]]]]:
        """Item to edit to strength to metrics; empty where nothing was evaluated."""
        folder = EVALUATE.folder(self.dataset, self._root)
        if not (folder / PER_IMAGE.file).is_file():
            return {}
        found: dict[str, Any] = {}
        table = PER_IMAGE.read(folder)
        numbers = [name for name in table.select_dtypes("number").columns if name not in _KEYS]
        method = EDIT.read_facts(self.dataset, self._root)["method"]
        for row in table[table["method"] == method].to_dict("records"):
            known = {name: float(row[name]) for name in numbers if pd.notna(row[name])}
            found.setdefault(row["item_id"], {}).setdefault(row["edit"], {})[row["strength"]] = known
        return found
