"""Frozen models behind the one protocol of `boundaryflow.diffusion.EpsModel`."""

from boundaryflow.models.checkpoints import Checkpoint, build_network, load_model, open_checkpoint
from boundaryflow.models.frozen import FrozenModel, network_sha256
from boundaryflow.models.stated import Stated
from boundaryflow.models.unet import UNetModel

__all__ = [
    "Checkpoint",
    "FrozenModel",
    "Stated",
    "UNetModel",
    "build_network",
    "load_model",
    "network_sha256",
    "open_checkpoint",
]
