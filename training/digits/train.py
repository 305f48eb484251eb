"""Train the denoiser of handwritten digits, and the judge of their edits, on MNIST's training split.

    python -m training.digits.train FOLDER --cache CACHE [--only denoiser judge]

FOLDER as for training.digits.unpack. Digits of 28 x 28 are set into 32 x 32.
"""

from __future__ import annotations

import argparse
import io
import logging
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from boundaryflow.evaluation.judges import JudgeNet, save_judge
from training.avatars.train_judges import fit, roughen
from training.denoiser import TrainSettings, open_identity_path, save_pretrained, train
from training.digits.unpack import digits_in, stroke_width

UNSHUFFLE = 2
CHANNELS = (32, 64, 128)
THICK_PX = 3.0
THIN_PX = 2.9
JUDGE_WIDTHS = (16, 32, 64)


def load_split(folder: Path, split: str, cache: Path) -> dict[str, NDArray[np.generic]]:
    """`images` [N,32,32] uint8, `digits` [N], `strokes` [N] in pixels."""
    path = cache / f"mnist_{split}.npz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        found = list(digits_in(folder / f"{split}.tar.gz", range(10)))
        pictures = [np.asarray(Image.open(io.BytesIO(data)).convert("L")) for _, _, data in found]
        np.savez(
            path,
            images=np.stack([np.pad(p, 2) for p in pictures]),
            digits=np.array([digit for _, digit, _ in found]),
            strokes=np.array([stroke_width(p) for p in pictures], np.float32),
        )
    return dict(np.load(path))


def build_network() -> UNet2DModel:
    """The untrained denoiser: 1 x 32 x 32 folded to 4 x 16 x 16."""
    unet = UNet2DModel(
        sample_size=32 // UNSHUFFLE,
        in_channels=UNSHUFFLE**2,
        out_channels=UNSHUFFLE**2,
        layers_per_block=1,
        block_out_channels=CHANNELS,
        down_block_types=("DownBlock2D",) * len(CHANNELS),
        up_block_types=("UpBlock2D",) * len(CHANNELS),
        norm_num_groups=4,
        attention_head_dim=64,
    )
    open_identity_path(unet)
    return unet


def train_denoiser(data: dict[str, NDArray[np.generic]], cache: Path, out: Path, num_steps: int) -> None:
    """All ten digits."""
    images = torch.from_numpy(data["images"])

    def batch(rows: Tensor) -> Tensor:
        return F.pixel_unshuffle(images[rows][:, None].float() / 127.5 - 1, UNSHUFFLE)

    settings = TrainSettings(num_steps=num_steps, batch_size=64)
    net = train(build_network, batch, len(images), settings, cache / "digit_denoiser.pt")
    save_pretrained(net, out, {"data": "MNIST training split"}, settings, pixel_unshuffle=UNSHUFFLE)


def train_judge(data: dict[str, NDArray[np.generic]], out: Path) -> None:
    """A four or a nine, thick or thin; each learns from the digits of which it is known."""
    net = JudgeNet(1, JUDGE_WIDTHS, 32, 2, "classify")
    images = torch.from_numpy(data["images"])
    clear = (data["strokes"] > THICK_PX) | (data["strokes"] < THIN_PX)
    pairs = [np.flatnonzero(np.isin(data["digits"], (4, 9))), np.flatnonzero(clear)]
    truth = torch.from_numpy(np.stack([data["digits"] == 4, data["strokes"] > THICK_PX], 1)).float()

    def loss_of(step: int) -> Tensor:
        draw = torch.Generator().manual_seed(step)
        losses = []
        for column, known in enumerate(pairs):
            rows = torch.from_numpy(known)[torch.randint(len(known), (64,), generator=draw)]
            rough = roughen(images[rows][:, None].expand(-1, 3, -1, -1).float() / 255, draw)[:, :1]
            losses.append(F.binary_cross_entropy_with_logits(net(rough)[:, column], truth[rows, column]))
        return losses[0] + losses[1]

    fit(net, loss_of, 500, 2e-3, "digit judge")
    config = {"channels": 1, "widths": JUDGE_WIDTHS, "image_size": 32, "num_outputs": 2}
    save_judge(out, "classify", net, config, ("four_vs_nine", "thick"))


def main() -> None:
    """Train what is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with train.tar.gz and test.tar.gz")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("data/pretrained"))
    parser.add_argument("--only", nargs="+", choices=["denoiser", "judge"], default=["judge", "denoiser"])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    data = load_split(args.folder, "train", args.cache)
    if "judge" in args.only:
        train_judge(data, args.out / "digits32_judges")
    if "denoiser" in args.only:
        train_denoiser(data, args.cache, args.out / "digits32", args.steps)


if __name__ == "__main__":
    main()
