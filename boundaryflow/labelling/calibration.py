"""From scores to probabilities that mean what they say, by a few annotated images.

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
    """Probability as a logistic curve of a score: sigmoid(slope · score + offset)."""

    slope: float
    offset: float

    def probabilities(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability that each score stands for."""
        return sigmoid(self.slope * scores + self.offset)


@dataclass(frozen=True)
class CalibrationReport:
    """What calibration did to probabilities, measured by cross-validation.

    Attributes:
        num_annotated: Images that it was fitted to.
        num_positive: Those of them with the attribute.
        log_loss_before: Mean -log p of the truth, in nats, of the scores' own probabilities.
        log_loss_after: The same of images that the curve was not fitted to.
        ece_before: Expected calibration error of the scores' own probabilities, in [0, 1].
        ece_after: The same of images that the curve was not fitted to.
    """

    num_annotated: int
    num_positive: int
    log_loss_before: float
    log_loss_after: float
    ece_before: float
    ece_after: float


def fit_platt(scores: NDArray[np.float64], has_attribute: NDArray[np.bool_]) -> Platt:
    """Fit the curve that makes the labels likeliest.

    Source: Platt 1999, section 2.2: each class's target is drawn in by one imagined example of the
    other kind, (n+1)/(n+2) and 1/(n+2), which keeps the slope finite where scores part the classes.

    Args:
        scores: Any numbers, higher where the attribute is likelier.
        has_attribute: Their labels; both classes occur.
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
    """Fit a curve to the annotated images, and measure by cross-validation what it is worth.

    Args:
        scores: [n] log-odds, such as CLIP's.
        labels: [n] annotations as probabilities, NaN where there is none.
        attribute: Name, for messages.

    Raises:
        TooFewLabelsError: Too few annotated images, or of one class only.
        LabelError: The scores say the opposite of the annotations.
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
            f"calibration of {attribute!r}: the scores say the opposite of the annotations (slope {curve.slope:.3g}, "
            "must be above 0); look for positive and negative in the wrong place, or take other prompts or outputs"
        )
    before, after = sigmoid(scores), cross_fitted(scores, has_attribute, _MAX_FOLDS)
    return curve, CalibrationReport(
        num, num_positive,
        log_loss(before, has_attribute), log_loss(after, has_attribute),
        expected_calibration_error(before, has_attribute), expected_calibration_error(after, has_attribute),
    )  # fmt: skip


def cross_fitted(scores: NDArray[np.float64], has_attribute: NDArray[np.bool_], num_folds: int) -> NDArray[np.float64]:
    """Probabilities of scores by curves that were fitted to the other folds.

    Folds follow the order of the scores, without chance: give them in an order that means nothing.
    """
    from sklearn.model_selection import StratifiedKFold

    num_folds = min(num_folds, int(has_attribute.sum()), int((~has_attribute).sum()))
    result = np.empty(len(scores))
    for fit_on, rest in StratifiedKFold(num_folds).split(scores, has_attribute):
        result[rest] = fit_platt(scores[fit_on], has_attribute[fit_on]).probabilities(scores[rest])
    return result


def log_loss(probability: NDArray[np.float64], has_attribute: NDArray[np.bool_]) -> float:
    """Mean -log of the probability of what is true, in nats; none counts as under 1e-7."""
    right = np.where(has_attribute, probability, 1 - probability)
    return float(-np.log(np.clip(right, _SMALLEST, 1)).mean())


def expected_calibration_error(probability: NDArray[np.float64], has_attribute: NDArray[np.bool_]) -> float:
    """How far probabilities are from frequencies: mean difference over ten bins, weighted by their number.

    Source: Guo et al. 2017, eq. 3, of the probability of the attribute.
    """
    at = np.minimum((probability * _NUM_BINS).astype(int), _NUM_BINS - 1)
    gaps = [abs(float((probability[at == b] - has_attribute[at == b]).sum())) for b in range(_NUM_BINS)]
    return sum(gaps) / len(probability)


def sigmoid(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability that log-odds stand for."""
    return 0.5 * (1 + np.tanh(0.5 * log_odds))
