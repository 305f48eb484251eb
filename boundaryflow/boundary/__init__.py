"""Hyperplanes that separate latents with an attribute from latents without."""

from boundaryflow.boundary.fit import Estimator, FitReport, Gram, Labels, check_classes, fit_boundaries, fit_boundary
from boundaryflow.boundary.hyperplane import Boundaries, Boundary, Calibration, load_boundaries, save_boundaries
from boundaryflow.boundary.low_pass import low_passed
from boundaryflow.boundary.noise_levels import average_neighbours, separable
from boundaryflow.boundary.rows import InMemory, LatentRows, project
from boundaryflow.boundary.selection import balancing_weights, most_certain

__all__ = [
    "Boundaries",
    "Boundary",
    "Calibration",
    "Estimator",
    "FitReport",
    "Gram",
    "InMemory",
    "Labels",
    "LatentRows",
    "average_neighbours",
    "balancing_weights",
    "check_classes",
    "fit_boundaries",
    "fit_boundary",
    "load_boundaries",
    "low_passed",
    "most_certain",
    "project",
    "save_boundaries",
    "separable",
]
