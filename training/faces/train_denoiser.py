"""Train the denoiser of faces: `boundaryflow train-denoiser` on CelebA's pictures 000001 to 008500.

    python -m training.faces.train_denoiser CELEBA --minutes 6.4      on a GPU; 1.5 million pictures on an H200
    python -m training.faces.train_denoiser CELEBA --start-from data/pretrained/faces64 --out out/more --images 600000

CELEBA is a folder with img_align_89x109.tar and list_attr_celeba.txt. Run again to go on from the last checkpoint.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from boundaryflow.jobs.train_denoiser import Budget, train_denoiser
from boundaryflow.jobs.training_pictures import TrainingPictures
from boundaryflow.training import NetworkSettings, TrainSettings
from training.faces.pictures import NUM_TRAIN, read_celeba

NETWORK = NetworkSettings(image_size=64, channels=3, pixel_unshuffle=2, widths=(32, 96, 192))
NUM_HELD_OUT = 256
FACTS = {
    "source": "CelebA pictures 000001 to 008500, crop 64 x 64 at left 12, top 28 of 89 x 109",
    "pictures": NUM_TRAIN,
    "held_out": NUM_HELD_OUT,
    "sha256": "celeba10k",
}


def main() -> None:
    """Train, and write the diffusers folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("celeba", type=Path, help="folder of the archive and the attributes")
    parser.add_argument("--out", type=Path, default=Path("out/faces64"))
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=6.4)
    length.add_argument("--images", type=int, help="images seen, instead of --minutes")
    parser.add_argument("--start-from", type=Path, help="folder of a model with this network, such as faces64")
    parser.add_argument("--batch-size", type=int, default=256)
    args = parser.parse_args()
    rows = np.arange(NUM_TRAIN + NUM_HELD_OUT)
    pictures = TrainingPictures(read_celeba(args.celeba).pixels, rows[:NUM_TRAIN], rows[NUM_TRAIN:], FACTS)
    settings = TrainSettings(batch_size=args.batch_size, mirror=True)
    budget = Budget(minutes=args.minutes) if args.images is None else Budget(images=args.images)
    train_denoiser(
        pictures, args.out, NETWORK, settings, budget, start_from=args.start_from, tell=print,
        licence="CelebA: non-commercial research only",
    )  # fmt: skip


if __name__ == "__main__":
    main()
