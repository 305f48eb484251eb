"""Fit hyperplanes in a space of very many dimensions, through the Gram matrix of their few points.

Source: BoundaryDiffusion (Zhu et al. 2023), section 3.3, fits scikit-learn's linear SVC with C = 1 on
the latents themselves. A linear SVM sees its points only through their inner products, and so do
ridge regression and the difference of the class means: one [n,n] matrix serves all attributes,
folds and bootstraps, and the normal is a combination of the points, the same hyperplane at a cost that
does not grow with the dimension.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from boundaryflow.boundary.hyperplane import Boundary, Calibration
from boundaryflow.boundary.patterns import pattern_shares
from boundaryflow.boundary.rows import InMemory, LatentRows, combine, inner_products
from boundaryflow.errors import BoundaryError

Estimator = Literal["svm", "ridge", "mean"]
RIDGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Penalties that leave-one-out chooses among."""
_COPIES_BYTES = 2**29


@dataclass(frozen=True)
class Gram:
    """Latents of one space with their inner products.

    Attributes:
        rows: The n latents.
        products: [n,n] float64 inner products of the latents.
    """

    rows: LatentRows
    products: NDArray[np.float64]

    @classmethod
    def of(cls, latents: LatentRows | Float[Tensor, "n ..."]) -> Gram:
        """Multiply each latent with each, in one pass."""
        rows = InMemory(latents) if isinstance(latents, Tensor) else latents
        return cls(rows, inner_products(rows))


@dataclass(frozen=True)
class Labels:
    """What is known of one attribute.

    Attributes:
        attribute: Name, for messages and the file.
        has_attribute: [n] the label of each latent; only those in `train` and `held_out` are read.
        train: Rows to fit on.
        held_out: Rows to calibrate on; none of them may be in `train`.
        weights: [n] how much each training image counts, above 0 (see `balancing_weights`); None: all
            the same.
    """

    attribute: str
    has_attribute: NDArray[np.bool_]
    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    weights: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class FitReport:
    """How a boundary was fitted and how steady it is.

    Attributes:
        num_positive: Training images with the attribute.
        num_negative: Training images without.
        train_accuracy: Share of training images on their own side, in [0, 1].
        bootstrap_cosine: Mean cosine between normals fitted on independent bootstrap samples of
            the training images, in [-1, 1]; NaN with fewer than two bootstraps.
    """

    num_positive: int
    num_negative: int
    train_accuracy: float
    bootstrap_cosine: float


def fit_boundary(
    gram: Gram,
    has_attribute: NDArray[np.bool_],
    train: NDArray[np.int64],
    held_out: NDArray[np.int64],
    *,
    attribute: str,
    weights: NDArray[np.float64] | None = None,
    **how: Any,  # passed on to fit_boundaries, which names each
) -> tuple[Boundary, FitReport]:
    """Fit one attribute's boundary in one space; see `Labels` and `fit_boundaries`."""
    return fit_boundaries(gram, [Labels(attribute, has_attribute, train, held_out, weights)], **how)[0]


def fit_boundaries(
    gram: Gram,
    labels: Sequence[Labels],
    *,
    space: str,
    t: int,
    model_sha256: str,
    estimator: Estimator = "svm",
    c: float = 1.0,
    ridge: float | None = None,
    with_patterns: bool = False,
    num_bootstraps: int = 0,
    seed: int = 0,
) -> list[tuple[Boundary, FitReport]]:
    """Fit the boundaries of some attributes in one space; the latents are read once for all their normals.

    Args:
        gram: All latents of the space.
        labels: Of each attribute.
        space: Which latent space this is, see `Boundary`.
        t: Timestep of the latents.
        model_sha256: Hash of the model.
        estimator: `svm`, the paper's; `ridge`, regression on the two labels, which is linear
            discriminant analysis with a shrunken covariance (Hastie et al. 2009, exercise 4.2);
            `mean`, the difference of the class means.
        c: Penalty of the SVM; large is a hard margin.
        ridge: Penalty of the ridge regression, as a multiple of the mean eigenvalue of the
            centred Gram matrix, so that it has no unit; None: the one of `RIDGES` with the
            smallest leave-one-out error on the training images.
        with_patterns: Also find the pattern of each attribute, from the labels of all of them; see `pattern_shares`.
        num_bootstraps: Bootstrap samples for the steadiness of the normal.
        seed: Seed of the bootstraps.

    Raises:
        BoundaryError: A class has fewer than two images to fit on or one to calibrate on.
    """
    for known in labels:
        check_classes(known.has_attribute, known.train, known.held_out, known.attribute)
    if not labels:
        return []
    solver = _Solver(estimator, c, ridge)
    num_bootstraps = num_bootstraps if num_bootstraps > 1 else 0
    # An attribute's training images, then bootstrap samples of them.
    samples = [(known, rows) for known in labels for rows in (known.train, *_bootstraps(known, num_bootstraps, seed))]
    every = _solve_all(gram, samples, solver)
    at = range(0, len(samples), 1 + num_bootstraps)
    solved = [every[first] for first in at]
    cosines = [_mean_cosine(gram, [shares for shares, _ in every[i + 1 : i + 1 + num_bootstraps]]) for i in at]
    in_patterns: list[NDArray[np.float64]] = []
    if with_patterns:
        every_label, rows = [known.has_attribute for known in labels], [known.train for known in labels]
        in_patterns = [pattern_shares(every_label, rows, k, known.weights) for k, known in enumerate(labels)]
    sums = combine(gram.rows, np.stack([*(shares for shares, _offset in solved), *in_patterns]))
    patterns = list(sums[len(labels) :]) or [None] * len(labels)
    found: list[tuple[Boundary, FitReport]] = []
    for known, (shares, offset), cosine, direction, pattern in zip(
        labels, solved, cosines, sums[: len(labels)], patterns, strict=True
    ):
        has, train, held_out = known.has_attribute, known.train, known.held_out
        along = gram.products @ shares  # inner products with the normal, before it is a unit vector
        norm = float(np.sqrt(shares @ along))
        distances = (along + offset) / norm
        boundary = Boundary(
            normal=direction / direction.norm(), intercept=offset / norm, space=space, t=t,
            attribute=known.attribute, model_sha256=model_sha256,
            calibration=calibrate(distances[held_out], has[held_out]), pattern=pattern,
        )  # fmt: skip
        report = FitReport(
            num_positive=int(has[train].sum()),
            num_negative=int((~has[train]).sum()),
            train_accuracy=float(((distances[train] > 0) == has[train]).mean()),
            bootstrap_cosine=cosine,
        )
        found.append((boundary, report))
    return found


def _solve_all(
    gram: Gram, samples: Sequence[tuple[Labels, NDArray[np.int64]]], solver: _Solver
) -> list[tuple[NDArray[np.float64], float]]:
    """Solve each sample, those with the same rows and weights together: ridge regression decomposes these once.

    One decomposition is in memory at a time.
    """
    groups: dict[bytes | int, list[int]] = {}
    for place, (known, rows) in enumerate(samples):
        weights = b"" if known.weights is None else known.weights[rows].tobytes()
        groups.setdefault(rows.tobytes() + weights if solver.estimator == "ridge" else place, []).append(place)

    def solve(places: Sequence[int]) -> list[tuple[NDArray[np.float64], float]]:
        known, rows = samples[places[0]]
        has = [samples[place][0].has_attribute for place in places]
        return solver.solve(gram, has, rows, known.weights)

    found: dict[int, tuple[NDArray[np.float64], float]] = {}
    with ThreadPoolExecutor(_num_threads(solver.estimator, len(gram.products))) as pool:
        for places, solved in zip(groups.values(), pool.map(solve, groups.values()), strict=True):
            found |= zip(places, solved, strict=True)
    return [found[place] for place in range(len(samples))]


def _num_threads(estimator: Estimator, num: int) -> int:
    """Samples to solve at once: an SVM keeps one core busy, and a copy of the inner products in memory.

    The others multiply matrices, on all cores as it is.
    """
    at_most = _COPIES_BYTES // (8 * num**2 + 1)
    return max(1, min(os.cpu_count() or 1, at_most)) if estimator == "svm" else 1


def check_classes(
    has_attribute: NDArray[np.bool_], train: NDArray[np.int64], held_out: NDArray[np.int64], attribute: str
) -> None:
    """See whether a boundary can be fitted.

    Raises:
        BoundaryError: A class has fewer than two images to fit on or one to calibrate on.
    """
    for rows, least, purpose in ((train, 2, "to fit on"), (held_out, 1, "to calibrate on")):
        positive = int(has_attribute[rows].sum())
        negative = len(rows) - positive
        if min(positive, negative) < least:
            raise BoundaryError(
                f"boundary {attribute!r}: {positive} images with it and {negative} without {purpose}, must be at "
                f"least {least} each; add labelled images or leave the attribute out"
            )


@dataclass(frozen=True)
class _Solver:
    estimator: Estimator
    c: float
    ridge: float | None

    def solve(
        self,
        gram: Gram,
        labels: Sequence[NDArray[np.bool_]],
        rows: NDArray[np.int64],
        weights: NDArray[np.float64] | None,
    ) -> list[tuple[NDArray[np.float64], float]]:
        """For each attribute's labels the share of every latent in the normal, and the intercept that goes with it."""
        products = gram.products[np.ix_(rows, rows)]
        weight = np.ones(len(rows)) if weights is None else weights[rows]
        spectrum = _Spectrum.of(products, weight / weight.sum()) if self.estimator == "ridge" else None
        found: list[tuple[NDArray[np.float64], float]] = []
        for has in (of_all[rows] for of_all in labels):
            alphas = np.zeros(len(gram.products))
            if self.estimator == "svm":
                from sklearn.svm import SVC

                svm = SVC(kernel="precomputed", C=self.c)
                svm.fit(products, has, sample_weight=None if weights is None else weight)
                np.add.at(alphas, rows[svm.support_], svm.dual_coef_[0])
                found.append((alphas, float(svm.intercept_[0])))
                continue
            positive, negative = weight * has, weight * ~has
            positive, negative = positive / positive.sum(), negative / negative.sum()
            solved = positive - negative if spectrum is None else spectrum.solve(np.where(has, 1.0, -1.0), self.ridge)
            np.add.at(alphas, rows, solved)
            distances = products @ solved
            found.append((alphas, -float(positive @ distances + negative @ distances) / 2))
        return found


@dataclass(frozen=True)
class _Spectrum:
    """Weighted, centred inner products, decomposed: every ridge regression on them is a few products away.

    In its dual form ridge regression is w = Xc^T S^1/2 (S^1/2 Xc Xc^T S^1/2 + l I)^-1 S^1/2 y, with
    Xc the points less their weighted mean and S the weights.

    Attributes:
        values: [n-1] eigenvalues of S^1/2 Xc Xc^T S^1/2, but for the one of the intercept.
        vectors: [n,n-1] their eigenvectors.
        root: [n] square roots of the weights, which sum to 1; the intercept's eigenvector.
    """

    values: NDArray[np.float64]
    vectors: NDArray[np.float64]
    root: NDArray[np.float64]

    @classmethod
    def of(cls, products: NDArray[np.float64], weight: NDArray[np.float64]) -> _Spectrum:
        mean = products @ weight
        centred = products - mean[:, None] - mean[None, :] + weight @ mean
        root = np.sqrt(weight)
        scaled = root[:, None] * centred * root[None, :]
        # Lift the eigenvalue 0 of the intercept above all others, so that it is the last one.
        lifted = scaled + 2 * (np.trace(scaled) + 1) * np.outer(root, root)
        values, vectors = np.linalg.eigh(lifted)
        return cls(values[:-1].clip(min=0), vectors[:, :-1], root)

    def solve(self, y: NDArray[np.float64], ridge: float | None) -> NDArray[np.float64]:
        """[n] share of every point in the normal."""
        scaled = self.vectors.T @ (self.root * y)
        mean = max(float(self.values.mean()), np.finfo(float).tiny)
        if ridge is None:
            ridge = min(RIDGES, key=lambda r: self._left_out_error(scaled, r * mean))
        best = ridge * mean
        shares = self.root * (self.vectors @ (scaled / (self.values + best)))
        return shares - self.root**2 * shares.sum()  # the same normal, written on points that are not centred

    def _left_out_error(self, scaled: NDArray[np.float64], penalty: float) -> float:
        """Weighted mean squared error on each point, fitted without it (PRESS, Allen 1974)."""
        kept = penalty / (self.values + penalty)
        residuals, leverage = self.vectors @ (kept * scaled), (self.vectors**2) @ kept
        return float(((residuals / leverage.clip(min=1e-12)) ** 2).sum())


def calibrate(distances: NDArray[np.float64], has_attribute: NDArray[np.bool_]) -> Calibration:
    """Calibration from signed distances [m] of held-out latents and from whether each has the attribute, [m]."""
    from sklearn.metrics import roc_auc_score

    positive, negative = distances[has_attribute], distances[~has_attribute]
    within = np.concatenate([positive - positive.mean(), negative - negative.mean()])
    return Calibration(
        mean_positive=float(positive.mean()),
        mean_negative=float(negative.mean()),
        sd=float(np.sqrt((within**2).mean())),
        auc=float(roc_auc_score(has_attribute, distances)),
        num=len(distances),
    )


def _bootstraps(known: Labels, num: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Samples of the training images, each with two images of either class at least."""
    rng = np.random.default_rng(seed)
    while num > 0:
        rows = rng.choice(known.train, len(known.train))
        if 2 <= known.has_attribute[rows].sum() <= len(rows) - 2:
            num -= 1
            yield rows


def _mean_cosine(gram: Gram, shares: Sequence[NDArray[np.float64]]) -> float:
    """Mean cosine between normals, without ever forming them: w = X^T a, so w.v = a^T (X X^T) b."""
    if not shares:
        return float("nan")
    stacked = np.stack(shares)
    products = stacked @ gram.products @ stacked.T
    norms = np.sqrt(np.diag(products))
    cosines = products / np.outer(norms, norms)
    return float(cosines[np.triu_indices(len(shares), 1)].mean())
