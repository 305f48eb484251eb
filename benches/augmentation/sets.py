"""Training sets of faces in which hats go with smiles, mended in several ways; and the faces that tell how well."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from boundaryflow.avatars import render, sample_avatars
from boundaryflow.config import load_params

ROOT = Path(__file__).parents[2]
LABEL, OTHER = "smiling", "hat"
STAGES = ("ingest", "label", "mixing", "invert", "observe", "boundary")


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

    def take(self, rows: NDArray[np.bool_]) -> Pictures:
        """Some of them."""
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
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for stage in (*STAGES, "augment"):
        name = "independent" if stage == "augment" else "faces"
        done = subprocess.run([sys.executable, "-m", f"stages.{stage}", name], cwd=folder, env=environment, check=False)
        if done.returncode and stage != "augment":  # one that falls short has written what there is
            done.check_returncode()
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
    params = {"datasets": ["faces"], "run_seed": 0, "augment": {"independent": recipe}, "data": {"faces": faces}}
    for name in ("raw/faces", "pretrained"):
        (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / "data/raw/faces").mkdir(exist_ok=True)
    if not (folder / "data/pretrained").exists():
        shutil.copytree(ROOT / "data/pretrained", folder / "data/pretrained")
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
