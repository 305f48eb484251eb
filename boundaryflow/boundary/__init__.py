"""Hyperplanes that separate latents with an attribute from latents without."""

from boundaryflow.boundary.fit import FitReport, Gram, fit_boundary
from boundaryflow.boundary.hyperplane import Boundary, Calibration, load_boundaries, save_boundaries

__all__ = [
    "Boundary",
    "Calibration",
    "FitReport",
    "Gram",
    "fit_boundary",
    "load_boundaries",
    "save_boundaries",
]
