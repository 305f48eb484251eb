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
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from boundaryflow.evaluation.judges import JudgeNet, save_judge
from boundaryflow.jobs.train_denoiser import Budget, train_denoiser
from boundaryflow.jobs.training_pictures import TrainingPictures
from boundaryflow.training import NetworkSettings, TrainSettings
from training.avatars.train_judges import fit, roughen
from training.digits.unpack import digits_in, stroke_width

NETWORK = NetworkSettings(image_size=32, channels=1, pixel_unshuffle=2, widths=(32, 64, 128))
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
    parser.add_argument("--out", type=Path, default=Path("out/pretrained"))
    parser.add_argument("--only", nargs="+", choices=["denoiser", "judge"], default=["judge", "denoiser"])
    parser.add_argument("--images", type=int, default=96_000, help="that the denoiser sees in all")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    data = load_split(args.folder, "train", args.cache)
    if "judge" in args.only:
        train_judge(data, args.out / "digits32_judges")
    if "denoiser" in args.only:
        order = np.random.default_rng(0).permutation(len(data["images"]))  # the last ones are held out
        pictures = TrainingPictures.of_array(data["images"][order][:, None], "MNIST, training split")
        out, settings, budget = args.out / "digits32", TrainSettings(batch_size=64), Budget(images=args.images)
        train_denoiser(pictures, out, NETWORK, settings, budget, licence="CC BY-SA 3.0, as usually given", tell=print)


if __name__ == "__main__":
    main()
