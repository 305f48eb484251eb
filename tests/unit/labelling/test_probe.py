"""A linear probe: annotations of some images, labels for all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from boundaryflow.avatars import render, sample_avatars
from boundaryflow.errors import LabelError
from boundaryflow.labelling import calibrate, probe_labels
from boundaryflow.labelling.calibration import log_loss, sigmoid
from boundaryflow.labelling.clip_labels import load_clip

CLIP = Path(__file__).parents[3] / "data/pretrained/avatars64_clip/clip.pt"
NAN = np.nan


def drawn(num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    has = rng.random(num) < 0.4
    features = rng.normal(size=(num, 16)).astype(np.float32)
    features[:, 0] += 2 * has
    return features * np.float32(7) + np.float32(3), has


def test_annotated_images_keep_their_label_and_the_rest_is_well_guessed() -> None:
    features, has = drawn(600)
    labels = np.where(np.arange(600) < 200, np.where(has, 0.9, 0.0), NAN)
    found, report = probe_labels(features, labels, 5, attribute="hat")
    np.testing.assert_array_equal(found[:200], labels[:200])
    auc = float(roc_auc_score(has[200:], found[200:]))
    assert auc > 0.85  # the best there is, of two normals 2 apart, is 0.921
    assert report.auc == pytest.approx(auc, abs=0.06)
    assert report.log_loss == pytest.approx(log_loss(found[200:], has[200:]), abs=0.1)
    assert report.ece < 0.12
    assert (report.num_annotated, report.num_positive) == (200, int(has[:200].sum()))
    again, same = probe_labels(features, labels, 5, attribute="hat")
    np.testing.assert_array_equal(found, again)
    assert report == same


def test_features_of_no_use_are_found_out() -> None:
    features, has = drawn(300)
    found, report = probe_labels(features[:, 1:], np.where(np.arange(300) < 150, has, NAN), 5, attribute="hat")
    assert 0.3 < report.auc < 0.7
    assert report.c == 1e-4
    assert abs(found[150:] - has[:150].mean()).max() < 0.35


def test_all_images_annotated_is_fine_and_too_few_of_a_class_is_not() -> None:
    features, has = drawn(40)
    found, _ = probe_labels(features, has.astype(float), 5, attribute="hat")
    np.testing.assert_array_equal(found, has)
    labels = np.where(np.arange(40) < 6, np.arange(40) < 3, NAN)
    with pytest.raises(
        LabelError, match=r"probe of 'hat': 3 annotated images with it and 3 without, must be at least 5"
    ):
        probe_labels(features, labels, 5, attribute="hat")


@pytest.fixture(scope="module")
def faces() -> tuple[torch.Tensor, dict[str, np.ndarray]]:
    """CLIP features of 120 cartoon faces, and the truth about them."""
    avatars = sample_avatars(120, np.random.default_rng(5))
    pixels = np.stack([np.asarray(render(avatar, 64)) for avatar in avatars])
    pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    truth = {name: np.array([a.attributes[name] for a in avatars]) for name in ("smiling", "hat")}
    return load_clip(str(CLIP)).image_features(pictures), truth


@pytest.mark.parametrize("attribute", ["smiling", "hat"])
def test_half_of_the_faces_teach_the_probe_the_rest(
    faces: tuple[torch.Tensor, dict[str, np.ndarray]], attribute: str
) -> None:
    features, truth = faces[0].numpy(), faces[1][attribute]
    labels = np.where(np.arange(120) < 60, truth, NAN)
    found, report = probe_labels(features, labels, 5, attribute=attribute)
    assert roc_auc_score(truth[60:], found[60:]) > 0.95
    assert report.auc > 0.9


def test_annotations_calibrate_the_words(faces: tuple[torch.Tensor, dict[str, np.ndarray]]) -> None:
    odds = load_clip(str(CLIP)).log_odds(
        faces[0], ["a smiling face"], ["a frowning face"], templates=["{}", "a photo of {}"], temperature=0.2
    )
    scores, truth = odds.double().numpy(), faces[1]["smiling"]
    curve, report = calibrate(scores, np.where(np.arange(120) < 60, truth, NAN), "smiling")
    before, after = (log_loss(p[60:], truth[60:]) for p in (sigmoid(scores), curve.probabilities(scores)))
    assert report.log_loss_after < report.log_loss_before
    assert after < before
