"""Probabilities that mean what they say: closed forms, and curves that are known."""

from __future__ import annotations

import numpy as np
import pytest

from boundaryflow.errors import LabelError
from boundaryflow.labelling import calibrate
from boundaryflow.labelling.calibration import cross_fitted, expected_calibration_error, fit_platt, log_loss, sigmoid

NAN = np.nan


def drawn(num: int, slope: float, offset: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 3, num)
    return scores, rng.random(num) < sigmoid(slope * scores + offset)


def test_curve_of_the_labels_is_found() -> None:
    curve = fit_platt(*drawn(20_000, 0.5, -1.0))
    assert curve.slope == pytest.approx(0.5, abs=0.02)  # standard error about 0.008
    assert curve.offset == pytest.approx(-1.0, abs=0.06)


def test_curve_does_not_depend_on_the_unit_of_the_scores() -> None:
    scores, has = drawn(200, 0.5, -1.0)
    np.testing.assert_allclose(
        fit_platt(scores, has).probabilities(scores),
        fit_platt(1e3 * scores + 7, has).probabilities(1e3 * scores + 7),
        atol=1e-3,
    )


def test_scores_that_part_the_classes_leave_the_curve_finite() -> None:
    scores = np.r_[np.full(10, -1.0), np.full(10, 1.0)]
    found = fit_platt(scores, scores > 0).probabilities(scores)
    np.testing.assert_allclose(found, np.r_[np.full(10, 1 / 12), np.full(10, 11 / 12)], atol=1e-3)  # Platt's targets
    assert np.isfinite(fit_platt(np.zeros(4), np.array([True, True, True, False])).slope)


def test_measures_are_their_closed_forms() -> None:
    has = np.array([True, False, True, False])
    assert log_loss(np.full(4, 0.5), has) == pytest.approx(np.log(2))
    assert log_loss(np.array([1.0, 0, 1, 0]), has) == 0
    assert log_loss(np.array([0.0, 0, 1, 0]), has) == pytest.approx(np.log(1e7) / 4)
    assert expected_calibration_error(np.full(4, 0.5), has) == 0
    assert expected_calibration_error(np.array([0.9, 0.9, 0.9, 0.1]), has) == pytest.approx((0.7 + 0.1) / 4)
    assert expected_calibration_error(np.array([1.0, 0, 1, 0]), has) == 0


def test_calibration_of_sure_scores_lowers_both_errors_out_of_fold() -> None:
    scores, has = drawn(400, 0.2, 0.5)
    labels = np.where(np.arange(400) < 100, has, NAN)
    curve, report = calibrate(scores, labels, "hat")
    assert (report.num_annotated, report.num_positive) == (100, int(has[:100].sum()))
    assert report.log_loss_after < report.log_loss_before
    assert report.ece_after < report.ece_before
    unseen = scores[100:], has[100:]
    assert log_loss(curve.probabilities(unseen[0]), unseen[1]) < log_loss(sigmoid(unseen[0]), unseen[1])
    assert calibrate(scores, labels, "hat") == (curve, report)


def test_folds_are_spoken_for_by_the_others() -> None:
    scores, has = drawn(60, 0.5, 0)
    flipped = has.copy()
    flipped[:12] = ~flipped[:12]
    held_out = cross_fitted(scores, has, 5)
    assert held_out.shape == (60,)
    assert not np.allclose(held_out, fit_platt(scores, has).probabilities(scores))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            [1.0] * 6 + [0.0] * 6,
            "calibration of 'hat': 6 annotated images with it and 6 without, must be at least 20 tog",
        ),
        (
            [1.0] * 24,
            "24 annotated images with it and 0 without, must be at least 20 together and 2 each; annotate more",
        ),
        ([0.0] * 12 + [1.0] * 12, "the scores contradict the annotations"),
    ],
)
def test_annotations_that_calibrate_nothing_are_refused(labels: list[float], message: str) -> None:
    scores = np.linspace(2, -2, len(labels))
    with pytest.raises(LabelError, match=message) as caught:
        calibrate(scores, np.array(labels), "hat")
    assert "\n" not in str(caught.value)
