"""Train the avatar denoiser: 64 x 64 pictures, folded to 12 channels of 32 x 32, in a small U-Net.

    python -m training.avatars.train_denoiser --cache CACHE     1.5 million faces: six minutes on an H200

Run again to go on from the last checkpoint, which lies beside the folder of the model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from boundaryflow.jobs.train_denoiser import Budget, train_denoiser
from boundaryflow.jobs.training_pictures import TrainingPictures
from boundaryflow.training import NetworkSettings, TrainSettings
from training.avatars.faces import faces

NETWORK = NetworkSettings(image_size=64, channels=3, pixel_unshuffle=2, widths=(32, 96, 192))
NUM_FACES = 80_000


def main() -> None:
    """Train, and write the diffusers folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for training faces")
    parser.add_argument("--out", type=Path, default=Path("out/avatars64"))
    parser.add_argument("--images", type=int, default=1_540_000, help="images seen in all")
    parser.add_argument("--start-from", type=Path, help="folder of a model with this network, such as avatars64")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    drawn = faces("denoiser", NUM_FACES, args.cache)["images"].transpose(0, 3, 1, 2)
    pictures = TrainingPictures.of_array(drawn, f"{NUM_FACES} avatars of training/avatars/faces.py")
    settings, budget = TrainSettings(batch_size=args.batch_size, mirror=True), Budget(images=args.images)
    train_denoiser(
        pictures, args.out, NETWORK, settings, budget, start_from=args.start_from, licence="MIT (own drawings)",
        tell=print,
    )  # fmt: skip


if __name__ == "__main__":
    main()
