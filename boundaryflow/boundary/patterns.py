"""How features change with an attribute, as opposed to the direction that tells best who has it.

The normal of a hyperplane is a filter: it also points away from what disturbs the decision, such as the variation that
all images share. What changes in the features when the attribute does is its pattern (Haufe et al. 2014, "On the
interpretation of weight vectors of linear models in multivariate neuroimaging", NeuroImage 87, equations 5 to 8).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_RIDGE = 0.01  # of the mean variance of the labels, so that two attributes with equal labels have patterns


def pattern_shares(
    labels: Sequence[NDArray[np.bool_]],
    fitted_on: Sequence[NDArray[np.int64]],
    attribute: int,
    weights: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """The share of every image in the pattern of one attribute.

    The pattern is the attribute's coefficient in a linear regression of the features on all labels: how the features
    differ between images with the attribute and without, all other attributes being equal.

    Args:
        labels: Of each attribute, [n].
        fitted_on: Of each attribute the images that its boundary is fitted on. The regression is on those of
            `attribute`; the label of another attribute that is not fitted on there counts as the mean of the others.
        attribute: Whose pattern.
        weights: [n] how much each image counts; None: all the same.

    Returns:
        [n] shares, which sum to 0; the pattern is the sum of the features, each with its share.
    """
    rows = fitted_on[attribute]
    weight = np.ones(len(rows)) if weights is None else weights[rows]
    weight = weight / weight.sum()
    known = (np.isin(rows, of) for of in fitted_on)
    design = np.stack([_centred(of[rows], there, weight) for of, there in zip(labels, known, strict=True)], 1)
    covariance = design.T @ (weight[:, None] * design)
    penalty = max(_RIDGE * float(np.diag(covariance).mean()), np.finfo(float).tiny)
    own = np.zeros(len(labels))
    own[attribute] = 1
    shares = np.zeros(len(labels[attribute]))
    coefficients = np.linalg.solve(covariance + penalty * np.eye(len(labels)), own)
    np.add.at(shares, rows, weight * (design @ coefficients))
    return shares


def _centred(has: NDArray[np.bool_], is_known: NDArray[np.bool_], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Labels less their weighted mean, 0 where unknown."""
    total = float(weight[is_known].sum())
    mean = float((weight * has)[is_known].sum()) / total if total else 0.0
    return np.where(is_known, has - mean, 0.0)
