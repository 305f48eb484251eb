"""Distances between the distributions of features of edited and of real pictures.

Both use torchmetrics with precomputed features.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class _Given(nn.Module):
    """The feature network for torchmetrics: the identity, as its inputs are features already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features.flatten(1)


def _fed(metric: nn.Module, real: Tensor, edited: Tensor) -> nn.Module:
    metric.update(real, real=True)  # pyright: ignore[reportCallIssue]
    metric.update(edited, real=False)  # pyright: ignore[reportCallIssue]
    return metric


def frechet_distance(real: Float[Tensor, "n d"], edited: Float[Tensor, "m d"]) -> float:
    """Fréchet distance between Gaussians fitted to two sets of features (FID, Heusel et al. 2017).

    Biased upwards by about d^2 / n: compare only values of the same n and features.

    Returns:
        A distance of at least 0; NaN if a set has fewer than two members.

    Example:
        Equal covariances, means one apart:

        >>> features = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
        >>> round(frechet_distance(features, features + torch.tensor([1.0, 0.0])), 4)
        1.0
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    if min(len(real), len(edited)) < 2:
        return float("nan")
    metric = FrechetInceptionDistance(feature=_Given(real.shape[1]), normalize=True, input_img_size=(1, 1, 1))
    metric.set_dtype(torch.float64)
    return max(0.0, float(_fed(metric, real.double(), edited.double()).compute()))  # pyright: ignore[reportCallIssue]


def kernel_distance(real: Float[Tensor, "n d"], edited: Float[Tensor, "m d"]) -> float:
    """Unbiased squared maximum mean discrepancy with a cubic kernel (KID, Binkowski et al. 2018).

    Returns:
        About 0, possibly negative, for sets of the same distribution; NaN if a set has fewer than two members.

    Example:
        The kernel of x and y in d dimensions is (x.y / d + 1)^3. All points at 0 and all at 1, d = 1: 1 + 8 - 2.

        >>> kernel_distance(torch.zeros(4, 1), torch.ones(4, 1))
        7.0
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(len(real), len(edited))
    if size < 2:
        return float("nan")
    metric = KernelInceptionDistance(feature=_Given(real.shape[1]), subsets=1, subset_size=size, normalize=True)
    metric.set_dtype(torch.float64)  # torchmetrics shuffles the set: in float64 the order has no effect
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mean, _sd = _fed(metric, real[:size].double(), edited[:size].double()).compute()  # pyright: ignore[reportCallIssue]
    return float(mean)
