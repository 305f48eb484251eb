"""Frozen models behind the one protocol of `boundaryflow.diffusion.EpsModel`."""

from boundaryflow.models.checkpoints import load_model
from boundaryflow.models.unet import UNetModel

__all__ = ["UNetModel", "load_model"]
