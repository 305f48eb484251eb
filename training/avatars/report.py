"""Measure the embedded avatar weights on faces nothing was trained on, and write `quality.json`.

    python -m training.avatars.report --cache CACHE [--only judges clip denoiser samples]

What is not named keeps its last figures. What has no weights yet is left out, and said so.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import Tensor

from boundaryflow.avatars import ATTRIBUTES, FACTORS, PARTS, Avatar, render, sample_avatars, segment
from boundaryflow.diffusion import denoise, timestep_path
from boundaryflow.evaluation.panel import load_judges
from boundaryflow.labelling.clip_labels import load_clip
from boundaryflow.models import load_model
from boundaryflow.training.quality import NUM_STEPS, T_ROUND_TRIP, round_trip_psnr_db
from training.avatars.faces import avatars_of, faces

LOG = logging.getLogger(__name__)
HERE = Path(__file__).parent
NUM_HELD_OUT = 2000
NUM_DRAWN_AGAIN = 500  # for identity and parts, whose truth is not in the cache
SITUATION = ("light", "light_side", "gaze", "mouth_curve")  # may differ between two pictures of one person
BATCH = 32


def as_01(images: NDArray[np.generic]) -> Tensor:
    """[N,H,W,3] bytes to [N,3,H,W] in [0, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 255


def per_attribute(values: list[float]) -> dict[str, float]:
    """Rounded, under the attributes' names."""
    return {name: round(float(v), 4) for name, v in zip(ATTRIBUTES, values, strict=True)}


def another_picture(avatars: list[Avatar], seed: int) -> list[Avatar]:
    """The same persons, with attributes and situation drawn anew."""
    drawn = sample_avatars(len(avatars), np.random.default_rng(seed))
    return [
        Avatar(new.attributes, {**old.factors, **{name: new.factors[name] for name in SITUATION}})
        for old, new in zip(avatars, drawn, strict=True)
    ]


def on_one_stage(avatars: list[Avatar]) -> list[Avatar]:
    """The same persons before one background and in one shirt: nothing but the face tells them apart."""
    scenery = [name for name in FACTORS if name.startswith(("background", "shirt"))]
    return [Avatar(a.attributes, {**a.factors, **{n: FACTORS[n].centre for n in scenery}}) for a in avatars]


def measure_judges(folder: Path, cache: Path) -> dict[str, Any]:
    """Accuracy of the classifier, verification AUC of the embedding, mean IoU of the parts."""
    judges = load_judges(folder)
    held_out = faces("heldout", NUM_HELD_OUT, cache)
    images, truth = as_01(held_out["images"]), held_out["attributes"].astype(bool)
    found = torch.cat([judges.probabilities(batch) for batch in images.split(BATCH)]).numpy() > 0.5
    result: dict[str, Any] = {"accuracy": per_attribute(list((found == truth).mean(0)))}
    avatars = avatars_of("heldout", 0)[:NUM_DRAWN_AGAIN]
    if judges.embedder is not None:
        first, second = on_one_stage(avatars), on_one_stage(another_picture(avatars, seed=1))
        sides = [as_01(np.stack([np.asarray(render(a)) for a in side])) for side in (first, second)]
        vectors = [torch.cat([judges.identity(b) for b in side.split(BATCH)]) for side in sides]  # type: ignore[misc]
        similarity = (vectors[0] @ vectors[1].T).numpy()
        same = np.eye(len(avatars), dtype=bool)
        result["identity"] = {
            "verification_auc": round(float(roc_auc_score(same.ravel(), similarity.ravel())), 4),
            "mean_cosine_same_person": round(float(similarity[same].mean()), 4),
            "mean_cosine_other_person": round(float(similarity[~same].mean()), 4),
        }
    if judges.segmenter is not None:
        parts = np.stack([segment(a) for a in avatars])
        guess = torch.cat([judges.parts(b) for b in images[: len(avatars)].split(BATCH)]).numpy()  # type: ignore[misc]
        iou = {
            name: float(((guess == k) & (parts == k)).sum() / ((guess == k) | (parts == k)).sum())
            for k, name in enumerate(PARTS)
        }
        result["segmenter"] = {
            "mean_iou": round(float(np.mean(list(iou.values()))), 4),
            "iou": {name: round(value, 4) for name, value in iou.items()},
        }
    return result


def measure_clip(file: Path, cache: Path) -> dict[str, Any]:
    """Zero-shot AUC and accuracy from the prompt pairs of `prompts.json`."""
    labeller = load_clip(str(file))
    held_out = faces("heldout", NUM_HELD_OUT, cache)
    images, truth = as_01(held_out["images"]), held_out["attributes"].astype(bool)
    features = torch.cat([labeller.image_features(batch) for batch in images.split(BATCH)])
    prompts = json.loads((HERE / "prompts.json").read_text())
    guesses = [labeller.probabilities(features, **prompts[name]).numpy() for name in ATTRIBUTES]
    return {
        "zero_shot_auc": per_attribute([float(roc_auc_score(truth[:, k], p)) for k, p in enumerate(guesses)]),
        "zero_shot_accuracy": per_attribute([float(((p > 0.5) == truth[:, k]).mean()) for k, p in enumerate(guesses)]),
    }


def measure_denoiser(folder: Path, x_0: Tensor) -> dict[str, Any]:
    """Round trip in float32 and in bfloat16."""
    in_float32 = round_trip_psnr_db(load_model(folder), x_0)
    LOG.info("round trip in float32 %.2f dB", in_float32)
    in_bfloat16 = round_trip_psnr_db(load_model(folder, dtype=torch.bfloat16), x_0)
    return {
        "round_trip_psnr_db": {"float32": in_float32, "bfloat16": in_bfloat16},
        "num_images": len(x_0),
        "num_steps": NUM_STEPS,
        "t_mix": T_ROUND_TRIP,
    }


def save_samples(folder: Path, num: int, out: Path, seed: int = 0) -> None:
    """A grid of samples from noise, not picked: 50 DDIM steps from t = T - 1, eta = 0."""
    model = load_model(folder)
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn(num, model.channels, model.image_size, model.image_size, generator=draw)
    path = timestep_path(model.schedule.num_train_timesteps - 1, 50)
    pictures = torch.cat([denoise(model, batch, path) for batch in noise.split(BATCH)])
    save_grid(pictures, out)


def save_grid(x_0: Tensor, out: Path) -> None:
    """Write images in model range side by side as a PNG, as square as can be."""
    pixels = ((x_0.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    num, channels, height, width = pixels.shape
    columns = math.ceil(math.sqrt(num))
    sheet = torch.zeros(channels, -(-num // columns) * height, columns * width, dtype=torch.uint8)
    for k, picture in enumerate(pixels):
        top, left = k // columns * height, k % columns * width
        sheet[:, top : top + height, left : left + width] = picture
    Image.fromarray(sheet.permute(1, 2, 0).squeeze(2).numpy()).save(out, optimize=True)


def update_quality(file: Path, name: str, weights: Path, measure: Callable[[], dict[str, Any]]) -> None:
    """Measure one thing and put it among the figures there are."""
    if not weights.exists():
        LOG.warning("%s: %s does not exist yet; left out", name, weights)
        return
    known = json.loads(file.read_text()) if file.exists() else {}
    found = measure()
    LOG.info("%s: %s", name, found)
    file.write_text(json.dumps({**known, name: found}, indent=2, sort_keys=True) + "\n")


def main() -> None:
    """Measure what is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = ["judges", "clip", "denoiser", "samples"]
    parser.add_argument("--cache", type=Path, required=True, help="folder for held-out faces")
    parser.add_argument("--weights", type=Path, default=Path("data/pretrained"), help="folder of all weights")
    parser.add_argument("--out", type=Path, default=HERE, help="where quality.json and samples.png go")
    parser.add_argument("--only", nargs="+", choices=everything, default=everything)
    parser.add_argument("--num", type=int, default=32, help="images on the round trip, and samples")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    file, unet = args.out / "quality.json", args.weights / "avatars64"
    if "judges" in args.only:
        folder = args.weights / "avatars64_judges"
        update_quality(file, "judges", folder, lambda: measure_judges(folder, args.cache))
    if "clip" in args.only:
        weights = args.weights / "avatars64_clip" / "clip.pt"
        update_quality(file, "clip", weights, lambda: measure_clip(weights, args.cache))
    if "denoiser" in args.only:
        pictures = faces("heldout", NUM_HELD_OUT, args.cache)["images"][: args.num]
        update_quality(file, "denoiser", unet, lambda: measure_denoiser(unet, as_01(pictures) * 2 - 1))
    if "samples" in args.only and unet.exists():
        save_samples(unet, args.num, args.out / "samples.png")


if __name__ == "__main__":
    main()
