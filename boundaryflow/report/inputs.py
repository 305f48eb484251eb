"""All inputs of the report. Those that a run did not write are None, and their sections are left out."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from boundaryflow.errors import ManifestError
from boundaryflow.report.numbers import with_clean_success
from boundaryflow.store.catalog.boundary import BOUNDARIES, BOUNDARY, NOISE_LEVELS, SCORES
from boundaryflow.store.catalog.edit import EDIT, EDITS
from boundaryflow.store.catalog.evaluate import EVALUATE, PER_IMAGE
from boundaryflow.store.catalog.ingest import FACES, INGEST, MANIFEST
from boundaryflow.store.catalog.invert import INVERT
from boundaryflow.store.catalog.label import LABEL, LABELS
from boundaryflow.store.catalog.mixing import CURVES, MIXING
from boundaryflow.store.catalog.output import Table
from boundaryflow.store.catalog.samples import SAMPLES
from boundaryflow.store.shard_files import load_arrays


@dataclass(frozen=True)
class Inputs:
    """Tables and facts of one data set, by the stage that wrote them.

    Attributes:
        dataset: Name of the data set.
        root: The checkout.
        manifest: One row per image file.
        edits: One row per changed image, edit and strength.
        factors: Attributes and factors that the renderer drew, for avatars.
        labels: Probability of each attribute, indexed by item.
        curves: Curves of the stage mixing, a row per timestep and curve.
        boundaries: One row per boundary.
        noise_levels: One row per attribute and noise level that guided edits may follow.
        scores: Signed distance of each image, per boundary.
        per_image: Metrics of each edited picture, with `clean_success` if there is a judge.
        facts: Stage to its JSON facts; empty if there are none.
        method: Method that made these edits.
        compared: Inputs with another method's edits of the same images, or None.
    """

    dataset: str
    root: Path
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
        """Whether the edits are guided along noise levels; otherwise they are single steps."""
        return self.method == "guided" and not self.facts["edit"].get("paper_mode")

    @property
    def strengths(self) -> list[float]:
        """Edit strengths in the order of their index."""
        pairs = self.edits[["strength_index", "strength"]].drop_duplicates().sort_values("strength_index")
        return [float(s) for s in pairs["strength"]]

    def targets(self, edit: str) -> dict[str, dict[str, int]]:
        """Item to its requested change: attribute to +1 (add) or -1 (remove)."""
        rows = self.edits[(self.edits["edit"] == edit) & (self.edits["strength_index"] == 0)]
        return {str(item): json.loads(targets) for item, targets in zip(rows["item_id"], rows["targets"], strict=True)}

    def pixels(self, items: list[str]) -> NDArray[np.uint8]:
        """[n,C,S,S] uint8 input pictures."""
        if not items:
            return np.empty((0, 3, 1, 1), np.uint8)
        return load_arrays(INGEST.folder(self.dataset, self.root), items, ["pixels"])["pixels"]

    def edited(self, edit: str, items: list[str]) -> NDArray[np.uint8]:
        """[n,K,C,S,S] uint8 edited pictures, one per strength."""
        if not items:
            return np.empty((0, len(self.strengths), 3, 1, 1), np.uint8)
        folder = str(self.edits.loc[self.edits["edit"] == edit, "shard"].iloc[0]).partition("/")[0]
        return load_arrays(EDIT.folder(self.dataset, self.root) / folder, items, ["edited"])["edited"]

    def samples(self) -> dict[str, NDArray[Any]]:
        """Images drawn from noise: `drawn` [n,C,S,S], `has` [n,A], `changed` [n,A,C,S,S]; empty if there are none."""
        items, folder = self.facts["samples"].get("items", []), SAMPLES.folder(self.dataset, self.root)
        return load_arrays(folder, items, ("drawn", "has", "changed")) if items else {}


def read_inputs(root: Path, dataset: str) -> Inputs:
    """Read the outputs of the stages for one data set.

    Raises:
        ManifestError: The images or the edits are missing; without them there is nothing to show.
    """
    edits = _required(EDITS, EDIT.folder(dataset, root))
    method: str = _facts(EDIT.facts_path(dataset, root))["method"]
    if not (edits["method"] == method).any():
        raise ManifestError(
            f"report {dataset}: {EDIT.folder(dataset, root) / EDITS.file} holds no edited image; "
            "every image of the split already has what the edits ask for: "
            "change edit.edits, edit.split or edit.max_images in params.yaml"
        )
    per_image = _optional(PER_IMAGE, EVALUATE.folder(dataset, root))
    labels = _optional(LABELS, LABEL.folder(dataset, root))
    stages = (INGEST, LABEL, MIXING, INVERT, EDIT, SAMPLES, EVALUATE)
    inputs = Inputs(
        dataset=dataset,
        root=root,
        manifest=_required(MANIFEST, INGEST.folder(dataset, root)),
        edits=edits.sort_values(["edit", "item_id", "strength_index"], ignore_index=True),
        factors=_indexed(_optional(FACES, INGEST.folder(dataset, root))),
        labels=_indexed(labels),
        curves=_optional(CURVES, MIXING.folder(dataset, root)),
        boundaries=_optional(BOUNDARIES, BOUNDARY.folder(dataset, root)),
        noise_levels=_optional(NOISE_LEVELS, BOUNDARY.folder(dataset, root)),
        scores=_optional(SCORES, BOUNDARY.folder(dataset, root)),
        per_image=None if per_image is None else with_clean_success(per_image),
        facts={stage.name: _facts(stage.facts_path(dataset, root)) for stage in stages},
        method=method,
    )
    others = sorted(set(inputs.edits["method"]) - {method})
    return replace(_by(inputs, method), compared=_by(inputs, others[0]) if others else None)


def _by(inputs: Inputs, method: str) -> Inputs:
    """The part of the inputs with one method's edits."""
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


def _required(table: Table, folder: Path) -> pd.DataFrame:
    path = folder / table.file
    if not path.exists():
        raise ManifestError(f"report: {path}: no such file; run `boundaryflow run` to make it")
    return table.read(folder)


def _optional(table: Table, folder: Path) -> pd.DataFrame | None:
    return table.read(folder) if (folder / table.file).exists() else None


def _indexed(table: pd.DataFrame | None) -> pd.DataFrame | None:
    return None if table is None else table.set_index("item_id")


def _facts(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
