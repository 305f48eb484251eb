"""The recipe of the built-in faces: what is trained on what, and what the archive holds."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from boundaryflow.evaluation.judges import JudgeNet, read_judge
from training.faces.draw import nearest
from training.faces.pictures import CROP, NUM_TRAIN, halves, read_celeba
from training.faces.train_judges import IMPLIED, NUM_DIMENSIONS, augmented, keep_outputs, keep_principal

ROOT = Path(__file__).parents[3]
QUALITY = json.loads((ROOT / "training/faces/quality.json").read_text())


def test_labeller_and_judge_share_no_picture() -> None:
    labeller, judge = halves()["labeller"], halves()["judge"]
    assert set(labeller) | set(judge) == set(range(NUM_TRAIN))
    assert len(labeller) == len(judge) == NUM_TRAIN // 2


def test_celeba_is_read_in_order_of_its_numbers_and_cut(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "img_align_89x109.tar", "w") as archive:
        for name, shade in (("000002.jpg", 200), ("000001.jpg", 50)):
            file = io.BytesIO()
            picture = np.zeros((109, 89, 3), np.uint8)
            picture[CROP[1] : CROP[3], CROP[0] : CROP[2]] = shade
            Image.fromarray(picture).save(file, "JPEG", quality=95)
            member = tarfile.TarInfo(f"some/{name}")
            member.size = file.tell()
            file.seek(0)
            archive.addfile(member, file)
    (tmp_path / "list_attr_celeba.txt").write_text("2\nBald Male\n000001.jpg -1 1\n000002.jpg 1 -1\n")
    data = read_celeba(tmp_path)
    assert data.pixels.shape == (2, 3, 64, 64)
    assert np.abs(data.pixels[:, :, 8:56, 8:56].astype(int) - np.array([50, 200]).reshape(2, 1, 1, 1)).max() <= 2
    assert data.attributes.tolist() == [[False, True], [True, False]]
    assert data.names == ("Bald", "Male")


def test_outputs_are_kept_by_name_and_beard_is_negated() -> None:
    net = JudgeNet(3, (8, 8), 16, 4, "classify")
    pictures = torch.rand(2, 3, 16, 16)
    before = net(pictures)
    assert keep_outputs(net, ["No_Beard", "Male"], ["Bald", "Male", "Smiling", "No_Beard"]) == ["beard", "male"]
    torch.testing.assert_close(net(pictures), torch.stack([-before[:, 3], before[:, 1]], 1))


def test_principal_directions_keep_the_angles() -> None:
    net = JudgeNet(3, (8,), 4, 128, "embed")  # its last layer sees 32 numbers, so its outputs span 33 directions
    pictures = torch.rand(100, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    before = net(pictures).detach()
    keep_principal(net, before)
    after = net(pictures)
    assert after.shape == (100, NUM_DIMENSIONS)
    torch.testing.assert_close(after @ after.T, before @ before.T, atol=1e-4, rtol=0)


def test_mirror_image_counts_as_near() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8), dtype=np.uint8)
    assert nearest(pictures[:1, :, :, ::-1].copy(), pictures)[0] == pytest.approx(0, abs=0.01)
    assert nearest(255 - pictures[:1], pictures[:1])[0] > 50


def test_augmented_pictures_stay_pictures() -> None:
    pictures = torch.rand(8, 3, 64, 64)
    out = augmented(pictures, torch.Generator().manual_seed(0))
    assert out.shape == pictures.shape
    assert 0 <= float(out.min()) < float(out.max()) <= 1
    assert F.mse_loss(out, pictures) > 0.001


def test_archive_holds_what_the_recipe_says() -> None:
    with tarfile.open(ROOT / "data/raw/faces/drawn.tar") as archive:
        names = archive.getnames()
        first = archive.extractfile(names[0])
        assert first is not None
        assert Image.open(first).size == (64, 64)
    drawn = QUALITY["drawn"]
    assert len(names) == len(set(names)) == drawn["written"] == 1200
    assert names == sorted(names)
    far = drawn["nearest_training_picture"]
    assert far["drawn"]["percentile_0"] > far["held_out_photographs"]["percentile_0"], "no copy of a training picture"


@pytest.mark.parametrize("folder", ["faces64_labeller", "faces64_judges"])
def test_networks_know_what_the_data_set_asks(folder: str) -> None:
    names = read_judge(ROOT / "data/pretrained" / folder / "attributes.safetensors", "classify")[2]
    assert {"smiling", "mouth_open", "eyeglasses", "beard", "bangs", "blond_hair", "male"} <= set(names)
    kept = set(QUALITY["classifiers"]["kept"])
    assert len(names) == len(kept if folder == "faces64_labeller" else kept - IMPLIED)
    assert (
        min(min(of[a] for a in QUALITY["classifiers"]["kept"]) for of in QUALITY["classifiers"]["auc"].values()) >= 0.9
    )
