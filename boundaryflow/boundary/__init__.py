"""Hyperplanes that separate latents with an attribute from latents without."""

from boundaryflow.boundary.fit import FitReport, Gram, fit_boundary
from boundaryflow.boundary.hyperplane import Boundary, Calibration, load_boundaries, save_boundaries
from boundaryflow.boundary.selection import most_certain

__all__ = [
    "Boundary",
    "Calibration",
    "FitReport",
    "Gram",
    "fit_boundary",
    "load_boundaries",
    "most_certain",
    "save_boundaries",
]
