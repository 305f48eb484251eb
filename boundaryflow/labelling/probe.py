"""Labels for all images from annotations of some: a linear probe of frozen features.

Source: Alain & Bengio 2016 (a linear classifier on frozen features), calibrated as Platt 1999.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from boundaryflow.errors import TooFewLabelsError
from boundaryflow.labelling.calibration import (
    cross_fitted,
    expected_calibration_error,
    fit_platt,
    log_loss,
    sigmoid,
)

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class ProbeReport:
    """Quality of a probe, measured on held-out folds of the annotated images.

    Attributes:
        num_annotated: Images with an annotation.
        num_positive: Annotated images with the attribute.
        auc: Area under the ROC curve, in [0, 1].
        log_loss: Mean -log p(true class), in nats.
        ece: Expected calibration error, in [0, 1].
        c: Chosen inverse penalty C; smaller is stronger.
    """

    num_annotated: int
    num_positive: int
    auc: float
    log_loss: float
    ece: float
    c: float


def probe_labels(
    features: NDArray[np.float32],
    labels: NDArray[np.float64],
    num_folds: int,
    *,
    attribute: str,
    penalties: Sequence[float] = PENALTIES,
) -> tuple[NDArray[np.float64], ProbeReport]:
    """Fit logistic regression to the annotated images, and predict all others.

    Folds are stratified and assigned by position, without randomness; the order of rows must not depend on labels, such
    as an order by hash. The penalty with the least log-loss over the folds is chosen (of equals the strongest). The
    reported AUC is on the same folds, so it is slightly optimistic by the choice among a few penalties; log-loss and
    calibration error are of calibration curves fitted to the other folds' scores.

    Args:
        features: [n,d] of all images.
        labels: [n] annotations as probabilities, NaN where there is none.
        num_folds: Folds of the cross-validation.
        attribute: Name, for messages.
        penalties: Values of C to choose from, ascending.

    Returns:
        [n] probabilities: the annotation where there is one, else the probe's; and the report.

    Raises:
        TooFewLabelsError: A class has fewer annotated images than there are folds.
    """
    from sklearn.metrics import roc_auc_score

    annotated = ~np.isnan(labels)
    known, has_attribute = features[annotated], labels[annotated] > 0.5
    num_positive = int(has_attribute.sum())
    num_negative = len(known) - num_positive
    if min(num_positive, num_negative) < num_folds:
        raise TooFewLabelsError(
            f"probe of {attribute!r}: {num_positive} annotated images with it and {num_negative} without, must be at "
            f"least {num_folds} each (num_folds); annotate more"
        )
    scores = {c: _out_of_fold(known, has_attribute, num_folds, c) for c in penalties}
    c = min(penalties, key=lambda c: log_loss(sigmoid(scores[c]), has_attribute))
    held_out = cross_fitted(scores[c], has_attribute, num_folds)
    curve = fit_platt(scores[c], has_attribute)
    whole = _regression(c).fit(known, has_attribute)
    probability = labels.copy()
    if not annotated.all():
        probability[~annotated] = curve.probabilities(whole.decision_function(features[~annotated]))
    return probability, ProbeReport(
        num_annotated=len(known),
        num_positive=num_positive,
        auc=float(roc_auc_score(has_attribute, scores[c])),
        log_loss=log_loss(held_out, has_attribute),
        ece=expected_calibration_error(held_out, has_attribute),
        c=c,
    )


def _out_of_fold(
    features: NDArray[np.float32], has_attribute: NDArray[np.bool_], num_folds: int, c: float
) -> NDArray[np.float64]:
    """Log-odds of every image by a regression that was fitted to the other folds."""
    from sklearn.model_selection import StratifiedKFold

    result = np.empty(len(features))
    for fit_on, rest in StratifiedKFold(num_folds).split(features, has_attribute):
        result[rest] = _regression(c).fit(features[fit_on], has_attribute[fit_on]).decision_function(features[rest])
    return result


def _regression(c: float) -> Pipeline:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))
