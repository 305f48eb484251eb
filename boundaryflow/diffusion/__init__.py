"""The diffusion process of a frozen model: schedule, one DDIM step, inversion and denoising."""

from boundaryflow.diffusion.ddim import ddim_mean, ddim_sigma, ddim_step, noise_to_signal, noised
from boundaryflow.diffusion.features import BOTTLENECK, Features
from boundaryflow.diffusion.protocol import EpsModel
from boundaryflow.diffusion.schedule import NoiseSchedule, timestep_path
from boundaryflow.diffusion.trajectory import HShift, Inversion, Order, denoise, invert, walk_up

__all__ = [
    "BOTTLENECK",
    "EpsModel",
    "Features",
    "HShift",
    "Inversion",
    "NoiseSchedule",
    "Order",
    "ddim_mean",
    "ddim_sigma",
    "ddim_step",
    "denoise",
    "invert",
    "noise_to_signal",
    "noised",
    "timestep_path",
    "walk_up",
]
