"""Train the avatar denoiser: 64 x 64 pictures, folded to 12 channels of 32 x 32, in a small U-Net.

    python -m torch.distributed.run --nproc-per-node 2 -m training.avatars.train_denoiser --cache CACHE --threads 1

Run again to go on from the last checkpoint in the cache folder.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from torch import Tensor

from training.avatars.faces import faces
from training.denoiser import TrainSettings, open_identity_path, save_pretrained, train

UNSHUFFLE = 2
CHANNELS = (32, 96, 192)
NUM_FACES = 40_000


def build_network() -> UNet2DModel:
    """The untrained network: attention only in the middle, 64 channels a head."""
    unet = UNet2DModel(
        sample_size=64 // UNSHUFFLE,
        in_channels=3 * UNSHUFFLE**2,
        out_channels=3 * UNSHUFFLE**2,
        layers_per_block=1,
        block_out_channels=CHANNELS,
        down_block_types=("DownBlock2D",) * len(CHANNELS),
        up_block_types=("UpBlock2D",) * len(CHANNELS),
        norm_num_groups=4,
        attention_head_dim=64,
    )
    open_identity_path(unet)
    return unet


def main() -> None:
    """Train, then write the diffusers folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for training faces and checkpoints")
    parser.add_argument("--out", type=Path, default=Path("data/pretrained/avatars64"))
    parser.add_argument("--steps", type=int, default=3200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--export-only", action="store_true", help="write the folder from the checkpoint as it is")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    pictures = faces("denoiser", NUM_FACES, args.cache)["images"]

    def batch(indices: Tensor) -> Tensor:
        chosen = torch.from_numpy(np.asarray(pictures[indices.numpy()])).permute(0, 3, 1, 2)
        return F.pixel_unshuffle(chosen.float() / 127.5 - 1, UNSHUFFLE)

    checkpoint = args.cache / "avatar_denoiser.pt"
    done = torch.load(checkpoint, weights_only=True)["step"] if args.export_only else args.steps
    settings = TrainSettings(num_steps=done, flip=True)
    net = train(build_network, batch, NUM_FACES, settings, checkpoint)
    if os.environ.get("RANK", "0") == "0":
        save_pretrained(net, args.out, {"data": "avatars64", "faces": NUM_FACES}, settings, pixel_unshuffle=UNSHUFFLE)


if __name__ == "__main__":
    main()
