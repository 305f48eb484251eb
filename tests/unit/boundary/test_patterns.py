"""Patterns: how features change with an attribute, all other attributes being equal."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from boundaryflow.boundary import Gram, Labels, fit_boundaries
from boundaryflow.boundary.patterns import pattern_shares

NUM = 400


def correlated(rng: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Two attributes that go together in four images of five."""
    first = rng.random(NUM) < 0.5
    return first, np.where(rng.random(NUM) < 0.8, first, ~first)


def test_pattern_is_the_change_that_the_other_attribute_does_not_explain() -> None:
    rng = np.random.default_rng(0)
    first, second = correlated(rng)
    of_first, of_second = np.array([1.0, 0.0, 0.5]), np.array([0.0, 2.0, 0.5])
    features = first[:, None] * of_first + second[:, None] * of_second + 0.05 * rng.standard_normal((NUM, 3))
    every = np.arange(NUM)
    shares = pattern_shares([first, second], [every, every], 0)
    np.testing.assert_allclose(shares.sum(), 0, atol=1e-9)
    np.testing.assert_allclose(shares @ features, of_first, atol=0.06)
    alone = pattern_shares([first], [every], 0) @ features
    np.testing.assert_allclose(alone, features[first].mean(0) - features[~first].mean(0), rtol=0.02)


def test_unknown_labels_and_images_that_are_not_fitted_on_have_no_say() -> None:
    rng = np.random.default_rng(1)
    first, second = correlated(rng)
    features = np.stack([first, second], 1) + 0.05 * rng.standard_normal((NUM, 2))
    rows = [np.arange(300), np.arange(200)]
    shares = pattern_shares([first, second], rows, 0)
    assert (shares[300:] == 0).all()
    flipped = np.where(np.arange(NUM) < 200, second, ~second)
    np.testing.assert_array_equal(pattern_shares([first, flipped], rows, 0), shares)
    assert (shares @ features)[0] > 0.9


def test_weights_count_as_repeated_images() -> None:
    rng = np.random.default_rng(2)
    first, second = correlated(rng)
    features, weights = rng.standard_normal((NUM, 2)) + first[:, None], rng.integers(1, 4, NUM).astype(float)
    every = np.arange(NUM)
    weighted = pattern_shares([first, second], [every, every], 1, weights) @ features
    repeated = pattern_shares([first, second], [every, np.repeat(every, weights.astype(int))], 1) @ features
    np.testing.assert_allclose(weighted, repeated, atol=1e-9)


def test_attribute_that_equals_another_shares_the_pattern_with_it() -> None:
    first, _ = correlated(np.random.default_rng(3))
    both = pattern_shares([first, first], [np.arange(NUM)] * 2, 0) @ first
    assert 0.4 < both < 0.6


def test_fit_gives_the_patterns_when_asked() -> None:
    rng = np.random.default_rng(4)
    first, second = correlated(rng)
    features = torch.from_numpy(np.stack([first, 2.0 * second, rng.standard_normal(NUM)], 1)).float()
    features += 0.1 * torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    train, held_out = np.arange(300), np.arange(300, NUM)
    labels = [Labels("first", first, train, held_out), Labels("second", second, train, held_out)]
    about = {"space": "h", "t": 30, "model_sha256": "f" * 64}
    gram = Gram.of(features)
    with_patterns = fit_boundaries(gram, labels, estimator="ridge", with_patterns=True, **about)
    plain = fit_boundaries(gram, labels, estimator="ridge", **about)
    for (boundary, _), (without, _) in zip(with_patterns, plain, strict=True):
        assert without.pattern is None
        assert torch.equal(boundary.normal, without.normal)
    pattern = with_patterns[1][0].pattern
    assert pattern is not None
    torch.testing.assert_close(pattern, torch.tensor([0.0, 2.0, 0.0]), atol=0.15, rtol=0)
