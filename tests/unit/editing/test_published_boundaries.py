"""Our conditional move against the conditional boundaries that InterFaceGAN publishes (Shen et al. 2020, MIT)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from boundaryflow.boundary import Boundary, Calibration
from boundaryflow.editing.single_step import Move

CONDITIONAL = (
    *(f"pggan_celebahq_{name}" for name in (
        "age_c_eyeglasses", "age_c_gender", "age_c_gender_eyeglasses", "eyeglasses_c_age", "eyeglasses_c_age_gender",
        "eyeglasses_c_gender", "gender_c_age", "gender_c_age_eyeglasses", "gender_c_eyeglasses")),
    *(f"stylegan_ffhq_{name}" for name in ("age_c_eyeglasses", "age_c_gender", "eyeglasses_c_age",
                                           "eyeglasses_c_gender")),
)  # fmt: skip


def boundary(folder: Path, name: str) -> Boundary:
    normal = torch.from_numpy(np.load(folder / f"{name}_boundary.npy", allow_pickle=False)[0])
    return Boundary(normal, 0.0, "eps", 500, name, "0" * 64, Calibration(1.0, -1.0, 1.0, 1.0, 2))


@pytest.mark.parametrize("name", CONDITIONAL)
def test_move_along_one_normal_and_along_no_other_is_the_published_direction(shared: Path, name: str) -> None:
    folder = shared / "assets/interfacegan_boundaries"
    if not folder.is_dir():
        pytest.skip("../shared/assets/interfacegan_boundaries is not there: it has InterFaceGAN's boundaries")
    rest = name.rpartition("_celebahq_" if "celebahq" in name else "_ffhq_")[2]
    prefix = name.removesuffix(rest)
    attribute, _, others = rest.partition("_c_")
    names = [attribute, *others.split("_")]
    move = Move([boundary(folder, prefix + n) for n in names], torch.tensor([[1.0] + [0.0] * (len(names) - 1)]))
    offset = move.offset([512])[0].double()
    published = torch.from_numpy(np.load(folder / f"{name}_boundary.npy", allow_pickle=False)[0])
    # moves are float32: 2e-8 is half of its last bit for the largest entries of a unit vector
    torch.testing.assert_close(offset / offset.norm(), published, atol=2e-8, rtol=0)
