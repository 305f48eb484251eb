"""CelebA with blond hair that nearly always goes with one gender, and the project in which it is edited."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from benches.augmentation.project import run_stages, write_project
from benches.augmentation.sets import Pictures
from benches.checkout import ROOT
from boundaryflow.config import load_params
from training.faces.pictures import CROP, pictures_of, read_celeba

NAME, LABEL, OTHER = "hair", "blond_hair", "male"
TRAIN = (10, 490, 490, 10)
"""Pictures to learn from: women and men without blond hair, women and men with it."""
NUM_CALIBRATION = (2, 73, 73, 2)
"""Those of TRAIN on which the hyperplanes are calibrated, the others they are fitted on."""
VAL, TEST = (21, 100, 100, 21), (500, 500, 500, 50)
STAGES = ("listing", "ingest", "label", "mixing", "invert", "observe", "boundary")


@dataclass(frozen=True)
class Parts:
    """CelebA's 10,000 and which of them are for what.

    Attributes:
        pictures: All.
        numbers: Part (train, val, test) to the rows of its pictures.
    """

    pictures: Pictures
    numbers: dict[str, NDArray[np.int64]]

    def of(self, part: str) -> Pictures:
        """The pictures of one part."""
        return self.pictures.take(self.numbers[part])


def read_parts(celeba: Path, seed: int) -> Parts:
    """Read CelebA and draw the three parts by lot; no picture is in two of them."""
    data = read_celeba(celeba)
    label, other = (data.attributes[:, data.names.index(name)] for name in ("Blond_Hair", "Male"))
    pictures = Pictures(torch.from_numpy(data.pixels), label, other, np.zeros(len(label), bool))
    rng = np.random.default_rng([seed, 21])
    cells = [rng.permutation(np.flatnonzero(pictures.group == group)) for group in range(4)]
    numbers: dict[str, NDArray[np.int64]] = {}
    for part, sizes in {"train": TRAIN, "val": VAL, "test": TEST}.items():
        numbers[part] = np.concatenate([cell[:num] for cell, num in zip(cells, sizes, strict=True)])
        cells = [cell[num:] for cell, num in zip(cells, sizes, strict=True)]
    return Parts(pictures, numbers)


def fit_project(folder: Path, celeba: Path, parts: Parts) -> None:
    """Fit the hyperplanes of both attributes on the pictures to learn from, by the stages, as a user would.

    The project has no other pictures and no other labels. What was computed before stays.
    """
    faces = load_params(ROOT).data["faces"].model_dump(mode="json")
    left, top, right, bottom = CROP
    faces["ingest"]["source"] = {"kind": "folder"}
    faces["ingest"]["crop"] = {"left": left, "top": top, "width": right - left, "height": bottom - top}
    faces["ingest"]["split"] = {"val": ["val"], "test": 0.0}
    faces["label"] = {
        "source": {"kind": "csv", "path": "labels.csv", "file_column": "file"},
        "attributes": {name: {"column": None} for name in (LABEL, OTHER)},
    }
    faces["boundary"].update(balance_others=True)
    faces["edit"].update(split="train", compare=None, edits={name: {name: "flip"} for name in (LABEL, OTHER)})
    faces["evaluate"].update(judges=None)
    write_project(folder, NAME, faces, {}, "faces64")
    raw, chosen = folder / "data/raw" / NAME, parts.of("train")
    names = file_names(parts)
    files = dict(pictures_of(celeba))
    for name in names:
        (raw / name).parent.mkdir(exist_ok=True)
        (raw / name).write_bytes(files[Path(name).name])
    table = pd.DataFrame({"file": names, LABEL: chosen.label.astype(int), OTHER: chosen.other.astype(int)})
    table.to_csv(raw / "labels.csv", index=False)
    run_stages(folder, [f"stages.{stage}" for stage in STAGES], NAME)


def file_names(parts: Parts) -> list[str]:
    """Of the pictures to learn from, within the project's raw folder."""
    rows, group = parts.numbers["train"], parts.of("train").group
    before = [int((group[:place] == group[place]).sum()) for place in range(len(rows))]
    calibrates = [place < NUM_CALIBRATION[of] for place, of in zip(before, group, strict=True)]
    return [f"{'val' if val else 'train'}/{row + 1:06}.jpg" for row, val in zip(rows, calibrates, strict=True)]
