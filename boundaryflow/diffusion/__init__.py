"""The diffusion process of a frozen model: schedule, one DDIM step, inversion and denoising."""

from boundaryflow.diffusion.ddim import ddim_mean, ddim_sigma, ddim_step, noised
from boundaryflow.diffusion.protocol import EpsModel
from boundaryflow.diffusion.schedule import NoiseSchedule, timestep_path
from boundaryflow.diffusion.trajectory import HShift, Inversion, denoise, invert, walk_up

__all__ = [
    "EpsModel",
    "HShift",
    "Inversion",
    "NoiseSchedule",
    "ddim_mean",
    "ddim_sigma",
    "ddim_step",
    "denoise",
    "invert",
    "noised",
    "timestep_path",
    "walk_up",
]
