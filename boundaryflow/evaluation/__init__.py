"""Metrics of edits: pure functions on pictures, probabilities and features."""

from boundaryflow.evaluation.attributes import attribute_drift, num_flipped, target_reached
from boundaryflow.evaluation.counterfactual import counterfactual_recovery, rmse
from boundaryflow.evaluation.directional import directional_similarity
from boundaryflow.evaluation.distribution import frechet_distance, kernel_distance
from boundaryflow.evaluation.intervals import bootstrap_interval, wilson_interval
from boundaryflow.evaluation.judges import Segmenter, load_segmenter
from boundaryflow.evaluation.panel import Judges, load_judges
from boundaryflow.evaluation.structure import psnr_db, segmentation_consistency, ssim

__all__ = [
    "Judges",
    "Segmenter",
    "attribute_drift",
    "bootstrap_interval",
    "counterfactual_recovery",
    "directional_similarity",
    "frechet_distance",
    "kernel_distance",
    "load_judges",
    "load_segmenter",
    "num_flipped",
    "psnr_db",
    "rmse",
    "segmentation_consistency",
    "ssim",
    "target_reached",
    "wilson_interval",
]
