"""Measure the embedded digit weights on MNIST's test split, and write `quality.json`.

    python -m training.digits.report FOLDER --cache CACHE [--only judge denoiser samples]

FOLDER as for training.digits.train. Neither the denoiser nor the judge has seen the test split.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from boundaryflow.evaluation.panel import load_judges
from training.avatars.report import measure_denoiser, save_samples, update_quality
from training.digits.train import THICK_PX, THIN_PX, load_split

HERE = Path(__file__).parent


def measure_judge(folder: Path, held_out: dict[str, NDArray[np.generic]]) -> dict[str, Any]:
    """Accuracy and AUC of both attributes, each on the digits of which it is known."""
    judges = load_judges(folder)
    images = torch.from_numpy(held_out["images"])[:, None].float() / 255
    guesses = torch.cat([judges.probabilities(batch) for batch in images.split(500)]).numpy()
    digits, strokes = held_out["digits"], held_out["strokes"]
    truths = {
        "four_vs_nine": (np.isin(digits, (4, 9)), digits == 4),
        "thick": ((strokes > THICK_PX) | (strokes < THIN_PX), strokes > THICK_PX),
    }
    result: dict[str, Any] = {"accuracy": {}, "auc": {}, "num_images": {}}
    for name, (known, truth) in truths.items():
        guess = guesses[known, judges.attributes.index(name)]
        result["accuracy"][name] = round(float(((guess > 0.5) == truth[known]).mean()), 4)
        result["auc"][name] = round(float(roc_auc_score(truth[known], guess)), 4)
        result["num_images"][name] = int(known.sum())
    return result


def main() -> None:
    """Measure what is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = ["judge", "denoiser", "samples"]
    parser.add_argument("folder", type=Path, help="folder with train.tar.gz and test.tar.gz")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=Path("data/pretrained"), help="folder of all weights")
    parser.add_argument("--out", type=Path, default=HERE, help="where quality.json and samples.png go")
    parser.add_argument("--only", nargs="+", choices=everything, default=everything)
    parser.add_argument("--num", type=int, default=64, help="images on the round trip, and samples")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    file, unet, judges = args.out / "quality.json", args.weights / "digits32", args.weights / "digits32_judges"
    held_out = load_split(args.folder, "test", args.cache)
    if "judge" in args.only:
        update_quality(file, "judge", judges, lambda: measure_judge(judges, held_out))
    if "denoiser" in args.only:
        rows = np.random.default_rng(0).permutation(len(held_out["images"]))[: args.num]  # the file is in digits' order
        x_0 = torch.from_numpy(held_out["images"][rows])[:, None].float() / 127.5 - 1
        update_quality(file, "denoiser", unet, lambda: measure_denoiser(unet, x_0))
    if "samples" in args.only and unet.exists():
        save_samples(unet, args.num, args.out / "samples.png")


if __name__ == "__main__":
    main()
