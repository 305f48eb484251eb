"""Latents an image a row, in memory or on a disk, read a few columns at a time.

A space has hundreds of thousands of dimensions, an image in each of them one value: all latents of a data set do not
fit into memory, a few of their columns do. What a fit needs of them, inner products, combinations and projections, is a
sum over columns, so that each of these takes one pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

_CHUNK_BYTES = 128 << 20  # of float32 columns in memory at a time
_PANEL = 1024  # rows of inner products at a time


@runtime_checkable
class LatentRows(Protocol):
    """Latents of one space, flattened."""

    def __len__(self) -> int:
        """Number of latents, n."""
        ...

    @property
    def num_values(self) -> int:
        """Dimensions of the space, d."""
        ...

    def columns(self, start: int, stop: int) -> Float[Tensor, "n c"]:
        """Some dimensions of all latents, float32."""
        ...


class InMemory:
    """Latents in one tensor.

    Args:
        latents: [n,...] of any floating dtype; kept as they are.
    """

    def __init__(self, latents: Float[Tensor, "n ..."]) -> None:
        self._flat = latents.flatten(1)

    def __len__(self) -> int:
        return len(self._flat)

    @property
    def num_values(self) -> int:
        """See `LatentRows`."""
        return self._flat.shape[1]

    def columns(self, start: int, stop: int) -> Float[Tensor, "n c"]:
        """See `LatentRows`."""
        return self._flat[:, start:stop].float()


def inner_products(rows: LatentRows) -> NDArray[np.float64]:
    """[n,n] of each latent with each, in one pass: float32 products of some columns, added up in float64."""
    products = np.zeros((len(rows), len(rows)))
    for _start, columns in _chunks(rows):
        for first in range(0, len(rows), _PANEL):
            last = min(first + _PANEL, len(rows))  # the lower triangle
            products[first:last, :last] += (columns[first:last] @ columns[:last].T).cpu().numpy()
    for first in range(0, len(rows), _PANEL):
        last = min(first + _PANEL, len(rows))
        products[:first, first:last] = products[first:last, :first].T
        block = products[first:last, first:last]
        block[:] = (block + block.T) / 2
    return products


def combine(rows: LatentRows, shares: NDArray[np.float64]) -> Float[Tensor, "p d"]:
    """Sums of latents, each with its share, in one pass.

    Args:
        rows: n latents.
        shares: [p,n].
    """
    weights = torch.from_numpy(np.ascontiguousarray(shares)).float()
    sums = torch.empty(len(shares), rows.num_values)
    for start, columns in _chunks(rows):
        sums[:, start : start + columns.shape[1]] = weights @ columns.cpu()
    return sums


def project(rows: LatentRows, normals: Float[Tensor, "p d"]) -> NDArray[np.float64]:
    """[n,p] inner products of latents with a few vectors, in one pass."""
    found = np.zeros((len(rows), len(normals)))
    for start, columns in _chunks(rows):
        found += (columns.cpu() @ normals[:, start : start + columns.shape[1]].T).numpy()
    return found


def _chunks(rows: LatentRows) -> Iterator[tuple[int, Tensor]]:
    """Number of the first column, and columns [n,c]."""
    width = max(1, min(rows.num_values, _CHUNK_BYTES // (4 * max(1, len(rows)))))
    for start in range(0, rows.num_values, width):
        yield start, rows.columns(start, min(start + width, rows.num_values))
