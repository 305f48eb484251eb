"""Training sets of faces in which hats go with smiles, mended in several ways; and the faces that tell how well."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benches.augmentation.project import run_stages, write_project
from benches.checkout import ROOT
from boundaryflow.avatars import render, sample_avatars
from boundaryflow.config import load_params

LABEL, OTHER = "smiling", "hat"
STAGES = ("listing", "ingest", "label", "mixing", "invert", "observe", "boundary")


@dataclass(frozen=True)
class Pictures:
    """Labelled pictures.

    Attributes:
        images_u8: [N,3,S,S].
        label: [N] bool, what the classifier is to tell.
        other: [N] bool, what must not sway it.
        synthetic: [N] bool, whether it is an edit.
    """

    images_u8: Tensor
    label: NDArray[np.bool_]
    other: NDArray[np.bool_]
    synthetic: NDArray[np.bool_]

    @property
    def group(self) -> NDArray[np.int64]:
        """[N] 0 to 3: label and other."""
        return self.label.astype(np.int64) * 2 + self.other

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Pictures:
        """Some of them, by a mask or by number."""
        return Pictures(
            self.images_u8[torch.from_numpy(rows)], self.label[rows], self.other[rows], self.synthetic[rows]
        )


def correlation_of(agreement: float) -> float:
    """Correlation of two normals whose signs agree so often (the arcsine law)."""
    return math.sin(math.pi * (agreement - 0.5))


def balanced(num: int, seed: int) -> Pictures:
    """Real faces, as many of each of the four groups, all else left to chance."""
    rng, wanted = np.random.default_rng([seed, 7]), -(-num // 4)
    found: dict[int, list[Any]] = {group: [] for group in range(4)}
    while any(len(faces) < wanted for faces in found.values()):
        for face in sample_avatars(64, rng):
            group = found[int(face.attributes[LABEL]) * 2 + int(face.attributes[OTHER])]
            if len(group) < wanted:
                group.append(face)
    faces = [face for group in found.values() for face in group]
    pictures = np.stack([np.array(render(face, 64)).transpose(2, 0, 1) for face in faces])
    label, other = (np.array([face.attributes[name] for face in faces], bool) for name in (LABEL, OTHER))
    return Pictures(torch.from_numpy(pictures), label, other, np.zeros(len(faces), bool))


def mended(folder: Path, num_images: int, agreement: float, seed: int) -> tuple[Pictures, dict[str, Any]]:
    """The spoilt set and the edits that balance it, made as a user would: by the stages and `augment`.

    Args:
        folder: Project to work in; what is there already is kept.
        num_images: Faces, of which 15 % calibrate the hyperplanes.
        agreement: Share of the faces that have both attributes or none.
        seed: Which faces.

    Returns:
        All pictures, and the record of the augmentation.
    """
    _write_params(folder, num_images, agreement, seed)
    run_stages(folder, [f"stages.{stage}" for stage in STAGES], "faces")
    # one that falls short has written what there is
    run_stages(folder, ["boundaryflow.jobs.augment"], "independent", must_succeed=False)
    table = pd.read_parquet(folder / "out/metadata.parquet")
    images = [np.array(Image.open(folder / "out" / name)).transpose(2, 0, 1) for name in table["file_name"]]
    label, other = (table[f"label_{name}"].to_numpy(int).astype(bool) for name in (LABEL, OTHER))
    record: dict[str, Any] = json.loads((folder / "out/runs.jsonl").read_text().splitlines()[-1])
    return Pictures(torch.from_numpy(np.stack(images)), label, other, table["synthetic"].to_numpy(bool)), record


def _write_params(folder: Path, num_images: int, agreement: float, seed: int) -> None:
    faces = load_params(ROOT, check_files=False).data["avatars"].model_dump(mode="json")
    faces["ingest"]["source"] = {
        "kind": "avatars",
        "num_images": num_images,
        "seed": seed,
        "rates": {},
        "correlations": {f"{OTHER}~{LABEL}": round(correlation_of(agreement), 6)},
    }
    faces["ingest"]["split"] = {"val": 0.15, "test": 0.0}
    faces["label"] = {"source": {"kind": "avatars"}, "attributes": {a: {"column": None} for a in (LABEL, OTHER)}}
    faces["mixing"].update(rule="fixed", fixed_t=349)
    faces["boundary"].update(balance_others=True)
    faces["edit"]["split"] = "val"
    faces["edit"]["edits"] = {a: {a: "flip"} for a in (LABEL, OTHER)}
    recipe = {
        "dataset": "faces",
        "target": {"independent": [OTHER, LABEL]},
        "split": "train",
        "strengths": [0.75, 1.25],
        "min_probability": 0.8,
        "out": "out",
    }
    write_project(folder, "faces", faces, {"independent": recipe}, "*")
