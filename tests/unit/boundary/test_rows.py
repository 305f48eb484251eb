"""Latents read a few columns at a time give what they give as a whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from boundaryflow.boundary import InMemory, rows


@pytest.fixture(params=[1, 7, 1000])
def latents(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    monkeypatch.setattr(rows, "_CHUNK_BYTES", 4 * 23 * request.param)  # columns at a time
    monkeypatch.setattr(rows, "_PANEL", 5)
    return torch.randn(23, 2, 30, generator=torch.Generator().manual_seed(0)).half()


def test_inner_products_combinations_and_projections(latents: torch.Tensor) -> None:
    flat, shares = latents.flatten(1).double().numpy(), np.random.default_rng(0).normal(size=(3, 23))
    products = rows.inner_products(InMemory(latents))
    np.testing.assert_allclose(products, flat @ flat.T, rtol=1e-4, atol=1e-4)
    assert (products == products.T).all()
    sums = rows.combine(InMemory(latents), shares)
    np.testing.assert_allclose(sums.numpy(), shares @ flat, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        rows.project(InMemory(latents), sums), flat @ sums.double().numpy().T, rtol=1e-3, atol=1e-3
    )
