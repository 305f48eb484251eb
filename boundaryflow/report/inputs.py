"""Everything the report reads, gathered once. What a run did not make is None, and its section is left out."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from boundaryflow.errors import ManifestError
from boundaryflow.report.numbers import with_clean_success
from boundaryflow.store.shards import load_items
from boundaryflow.store.tables import read_table


@dataclass(frozen=True)
class Inputs:
    """Tables and facts of one data set, by the stage that wrote them.

    Attributes:
        dataset: Name of the data set.
        data: The folder that holds one folder per stage.
        manifest: One row per image file.
        edits: One row per image, edit and strength; only images of which the edit asked something.
        factors: The renderer's truth, for avatars.
        labels: Probability of each attribute, indexed by item.
        curves: Mixing curves, long.
        boundaries: One row per boundary.
        noise_levels: One row per attribute and noise level that guided edits may follow.
        scores: Signed distance of each image, per boundary.
        per_image: Metrics of each edited picture, with `clean_success` where a judge was there.
        facts: Stage to its JSON facts; empty where there are none.
        method: That made these edits.
        compared: The same with another method's edits of the same images, where there are any.
    """

    dataset: str
    data: Path
    manifest: pd.DataFrame
    edits: pd.DataFrame
    factors: pd.DataFrame | None
    labels: pd.DataFrame | None
    curves: pd.DataFrame | None
    boundaries: pd.DataFrame | None
    noise_levels: pd.DataFrame | None
    scores: pd.DataFrame | None
    per_image: pd.DataFrame | None
    facts: dict[str, dict[str, Any]]
    method: str
    compared: Inputs | None = None

    @property
    def edit_names(self) -> list[str]:
        """Edits in order of name."""
        return sorted(self.edits["edit"].unique())

    @property
    def is_guided(self) -> bool:
        """Are the edits guided along noise levels? Else they are single steps."""
        return self.method == "guided" and not self.facts["edit"].get("paper_mode")

    @property
    def strengths(self) -> list[float]:
        """Edit strengths in the order of their index."""
        pairs = self.edits[["strength_index", "strength"]].drop_duplicates().sort_values("strength_index")
        return [float(s) for s in pairs["strength"]]

    def targets(self, edit: str) -> dict[str, dict[str, int]]:
        """Item to what the edit asked of it: attribute to +1 (add) or -1 (take away)."""
        rows = self.edits[(self.edits["edit"] == edit) & (self.edits["strength_index"] == 0)]
        return {str(item): json.loads(asked) for item, asked in zip(rows["item_id"], rows["targets"], strict=True)}

    def pixels(self, items: list[str]) -> Tensor:
        """[n,C,S,S] uint8 input pictures."""
        if not items:
            return torch.empty((0, 3, 1, 1), dtype=torch.uint8)
        return load_items(self.data / "ingest" / self.dataset, items, ["pixels"])["pixels"]

    def edited(self, edit: str, items: list[str]) -> Tensor:
        """[n,K,C,S,S] uint8 edited pictures, one per strength."""
        if not items:
            return torch.empty((0, len(self.strengths), 3, 1, 1), dtype=torch.uint8)
        folder = str(self.edits.loc[self.edits["edit"] == edit, "shard"].iloc[0]).partition("/")[0]
        return load_items(self.data / "edit" / self.dataset / folder, items, ["edited"])["edited"]


def read_inputs(data: Path, dataset: str) -> Inputs:
    """Read what the stages wrote for one data set.

    Raises:
        ManifestError: The images or the edits are missing; without them there is nothing to show.
    """
    edits = _required(data / "edit" / dataset / "manifest.parquet", "edits/2")
    method: str = _facts(data / "edit" / dataset / "edit.json")["method"]
    if not (edits["method"] == method).any():
        raise ManifestError(
            f"report {dataset}: {data / 'edit' / dataset / 'manifest.parquet'} holds no edited image; "
            "every image of the split already has what the edits ask for: "
            "change edit.edits, edit.split or edit.max_images in params.yaml"
        )
    per_image = _optional(data / "evaluate" / dataset / "tables" / "per_image.parquet", "per_image/2")
    labels = _optional(data / "label" / dataset / "labels.parquet", "labels/1")
    facts = {
        "ingest": _facts(data / "ingest" / dataset / "ingest.json"),
        "label": _facts(data / "label" / dataset / "label.json"),
        "mixing": _facts(data / "mixing" / dataset / "mixing.json"),
        "invert": _facts(data / "invert" / dataset / "invert.json"),
        "edit": _facts(data / "edit" / dataset / "edit.json"),
        "evaluate": _facts(data / "evaluate" / dataset / "metrics.json"),
    }
    inputs = Inputs(
        dataset=dataset,
        data=data,
        manifest=_required(data / "ingest" / dataset / "manifest.parquet", "manifest/1"),
        edits=edits.sort_values(["edit", "item_id", "strength_index"], ignore_index=True),
        factors=_indexed(_optional(data / "ingest" / dataset / "factors.parquet", "avatars/1")),
        labels=_indexed(labels),
        curves=_optional(data / "mixing" / dataset / "curves.parquet", "curves/1"),
        boundaries=_optional(data / "boundary" / dataset / "boundaries.parquet", "boundaries/1"),
        noise_levels=_optional(data / "boundary" / dataset / "path.parquet", "path/2"),
        scores=_optional(data / "boundary" / dataset / "scores.parquet", "scores/1"),
        per_image=None if per_image is None else with_clean_success(per_image),
        facts=facts,
        method=method,
    )
    others = sorted(set(inputs.edits["method"]) - {method})
    return replace(_by(inputs, method), compared=_by(inputs, others[0]) if others else None)


def _by(inputs: Inputs, method: str) -> Inputs:
    """The part of inputs that is about one method's edits."""
    edits, per_image, facts = inputs.edits, inputs.per_image, inputs.facts
    if method != inputs.method:
        facts = {**facts, "evaluate": {"edits": facts["evaluate"].get("compared", {}).get(method, {})}}
    return replace(
        inputs,
        edits=edits[edits["method"] == method].reset_index(drop=True),
        per_image=None if per_image is None else per_image[per_image["method"] == method].reset_index(drop=True),
        facts=facts,
        method=method,
    )


def _required(path: Path, schema: str) -> pd.DataFrame:
    if not path.exists():
        raise ManifestError(f"report: {path}: no such file; run `boundaryflow run` to make it")
    return read_table(path, schema=schema)


def _optional(path: Path, schema: str) -> pd.DataFrame | None:
    return read_table(path, schema=schema) if path.exists() else None


def _indexed(table: pd.DataFrame | None) -> pd.DataFrame | None:
    return None if table is None else table.set_index("item_id")


def _facts(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
