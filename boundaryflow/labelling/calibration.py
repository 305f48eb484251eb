"""Calibration of scores to probabilities, with some annotated images.

Sources: Platt 1999 (a logistic curve through the scores, with smoothed targets); Guo et al. 2017
(expected calibration error; with the offset at zero Platt's slope is their temperature).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from boundaryflow.errors import LabelError, TooFewLabelsError

MIN_ANNOTATED = 20
_MAX_FOLDS = 5
_NUM_BINS = 10
_SMALLEST = 1e-7


@dataclass(frozen=True)
class Platt:
    """Platt scaling: probability = sigmoid(slope · score + offset)."""

    slope: float
    offset: float

    def probabilities(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability of each score."""
        return sigmoid(self.slope * scores + self.offset)


@dataclass(frozen=True)
class CalibrationReport:
    """Quality of probabilities before and after calibration, measured by cross-validation.

    Attributes:
        num_annotated: Annotated images.
        num_positive: Annotated images with the attribute.
        log_loss_before: Mean -log p(true class), in nats, with the probabilities sigmoid(score).
        log_loss_after: The same on held-out folds, with calibrated probabilities.
        ece_before: Expected calibration error of sigmoid(score), in [0, 1].
        ece_after: The same on held-out folds, with calibrated probabilities.
    """

    num_annotated: int
    num_positive: int
    log_loss_before: float
    log_loss_after: float
    ece_before: float
    ece_after: float


def fit_platt(scores: NDArray[np.float64], has_attribute: NDArray[np.bool_]) -> Platt:
    """Fit the curve by maximum likelihood.

    Source: Platt 1999, section 2.2: the targets are smoothed to (n+1)/(n+2) and 1/(n+2), as if each class had one
    example of the other, which keeps the slope finite where scores separate the classes.

    Args:
        scores: Any numbers, higher for images with the attribute.
        has_attribute: Their labels, with both classes.
    """
    from sklearn.linear_model import LogisticRegression

    num_positive = int(has_attribute.sum())
    num_negative = len(scores) - num_positive
    target = np.where(has_attribute, (num_positive + 1) / (num_positive + 2), 1 / (num_negative + 2))
    centre, scale = float(scores.mean()), float(scores.std()) or 1.0
    standard = ((scores - centre) / scale)[:, None]
    sides = np.repeat([True, False], len(scores))
    model = LogisticRegression(C=1e6, max_iter=1000)
    model.fit(np.tile(standard, (2, 1)), sides, sample_weight=np.concatenate([target, 1 - target]))
    coef: NDArray[np.float64] = np.asarray(model.coef_)
    slope = float(coef[0, 0]) / scale
    return Platt(slope, float(np.asarray(model.intercept_)[0]) - slope * centre)


def calibrate(
    scores: NDArray[np.float64], labels: NDArray[np.float64], attribute: str
) -> tuple[Platt, CalibrationReport]:
    """Fit a curve to the annotated images, and measure its quality by cross-validation.

    Args:
        scores: [n] log-odds, such as CLIP's.
        labels: [n] annotations as probabilities, NaN where there is none.
        attribute: Name, for messages.

    Raises:
        TooFewLabelsError: Too few annotated images, or of one class only.
        LabelError: The scores contradict the annotations (negative slope).
    """
    annotated = ~np.isnan(labels)
    scores, has_attribute = scores[annotated], labels[annotated] > 0.5
    num, num_positive = len(scores), int(has_attribute.sum())
    if num < MIN_ANNOTATED or min(num_positive, num - num_positive) < 2:
        raise TooFewLabelsError(
            f"calibration of {attribute!r}: {num_positive} annotated images with it and {num - num_positive} without, "
            f"must be at least {MIN_ANNOTATED} together and 2 each; annotate more, or set calibration to null"
        )
    curve = fit_platt(scores, has_attribute)
    if curve.slope <= 0:
        raise LabelError(
            f"calibration of {attribute!r}: the scores contradict the annotations (slope {curve.slope:.3g}, "
            "must be above 0); check that positive and negative are not swapped, or use other prompts or outputs"
        )
    before, after = sigmoid(scores), cross_fitted(scores, has_attribute, _MAX_FOLDS)
    return curve, CalibrationReport(
        num, num_positive,
        log_loss(before, has_attribute), log_loss(after, has_attribute),
        expected_calibration_error(before, has_attribute), expected_calibration_error(after, has_attribute),
    )  # fmt: skip


def cross_fitted(scores: NDArray[np.float64], has_attribute: NDArray[np.bool_], num_folds: int) -> NDArray[np.float64]:
    """Probabilities of scores by curves that were fitted to the other folds.

    Folds are assigned by position, without randomness; the order must not depend on scores or labels.
    """
    from sklearn.model_selection import StratifiedKFold

    num_folds = min(num_folds, int(has_attribute.sum()), int((~has_attribute).sum()))
    result = np.empty(len(scores))
    for fit_on, rest in StratifiedKFold(num_folds).split(scores, has_attribute):
        result[rest] = fit_platt(scores[fit_on], has_attribute[fit_on]).probabilities(scores[rest])
    return result


def log_loss(probability: NDArray[np.float64], has_attribute: NDArray[np.bool_]) -> float:
    """Mean -log p(true class), in nats; probabilities are clipped to at least 1e-7."""
    right = np.where(has_attribute, probability, 1 - probability)
    return float(-np.log(np.clip(right, _SMALLEST, 1)).mean())


def expected_calibration_error(probability: NDArray[np.float64], has_attribute: NDArray[np.bool_]) -> float:
    """Mean difference of probability and frequency over ten bins, weighted by the images in each bin.

    Source: Guo et al. 2017, eq. 3, applied to the probability of the attribute.
    """
    at = np.minimum((probability * _NUM_BINS).astype(int), _NUM_BINS - 1)
    gaps = [abs(float((probability[at == b] - has_attribute[at == b]).sum())) for b in range(_NUM_BINS)]
    return sum(gaps) / len(probability)


def sigmoid(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of log-odds."""
    return 0.5 * (1 + np.tanh(0.5 * log_odds))
