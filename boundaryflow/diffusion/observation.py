"""Features of images at many noise levels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from boundaryflow.diffusion.ddim import noised
from boundaryflow.diffusion.features import Features
from boundaryflow.diffusion.protocol import EpsModel
from boundaryflow.rng import item_noise

DENSITY = 1.5  # the path's timesteps lie denser towards the image, where a step changes more


def tensor_name(features: Features, t: int) -> str:
    """Name in a shard of the features at timestep t; a shard of other features has none of this name."""
    return f"{features.space}_{t:04d}"


def noised_features(
    net: EpsModel, x_0: Tensor, ids: Sequence[str], t: int, run_seed: int, features: Features
) -> Tensor:
    """[B,D] features of images [B,C,H,W] after adding the noise of timestep t."""
    noise = item_noise(run_seed, ids, f"observe {t}", x_0.shape[1:])
    return features_only(net, noised(x_0, noise, net.schedule.alpha_bar(t)), t, features)


def features_only(net: EpsModel, x_t: Tensor, t: int | Tensor, features: Features) -> Tensor:
    """[B,D] features of noisy images [B,C,H,W]; the network stops at their layer if it can (see `EpsModel`)."""
    stops = getattr(net, "features_only", None)
    return net.eps_and_features(x_t, t, features)[1] if stops is None else stops(x_t, t, features)
