"""How a denoiser is trained: its network, the optimiser, the steps, and how good it has become."""

from boundaryflow.training.denoiser import DenoiserTraining, TrainSettings
from boundaryflow.training.network import NetworkSettings, build_network, open_identity_path
from boundaryflow.training.quality import round_trip_psnr_db, weighted_loss

__all__ = [
    "DenoiserTraining",
    "NetworkSettings",
    "TrainSettings",
    "build_network",
    "open_identity_path",
    "round_trip_psnr_db",
    "weighted_loss",
]
