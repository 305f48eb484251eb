"""Draw the faces of the data set `faces` from noise, and leave out what is no face, or too near to a photograph.

    python -m training.faces.draw CELEBA --cache CACHE

Faces are numbered, and drawn by number: nobody chose them by looks. Of the first 2,400, in this order, are left out:
those in which dlib's detector of frontal faces finds none with a score of at least 0.5 (nine of ten held-out
photographs reach it), and those that lie nearer to a training picture, or to its mirror image, than the nearest
hundredth of held-out photographs does (root mean square of pixels). The first 1,200 that remain are written.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from boundaryflow.diffusion import denoise, timestep_path
from boundaryflow.models import load_model
from boundaryflow.pixels import to_u8
from boundaryflow.rng import item_noise
from boundaryflow.runtime.device import device
from training.faces.pictures import NUM_TRAIN, read_celeba

MODEL, OUT = Path("data/pretrained/faces64"), Path("data/raw/faces/drawn.tar")
NUM_DRAWN, NUM_KEPT, NUM_STEPS, BATCH = 2400, 1200, 100, 300
MIN_SCORE = 0.5
JPEG_QUALITY = 95


def drawn_faces(cache: Path) -> NDArray[np.uint8]:
    """[N,3,64,64], by 100 DDIM steps; kept in the cache."""
    path = cache / "drawn.npy"
    if not path.exists():
        model, steps = load_model(MODEL, device=device()), timestep_path(999, NUM_STEPS)
        parts: list[Tensor] = []
        for start in range(0, NUM_DRAWN, BATCH):
            ids = [name_of(number) for number in range(start, min(start + BATCH, NUM_DRAWN))]
            noise = item_noise(0, ids, "drawn", (3, 64, 64)).to(device())
            parts.append(to_u8(denoise(model, noise, steps)).cpu())
        cache.mkdir(parents=True, exist_ok=True)
        np.save(path, torch.cat(parts).numpy())
    return np.load(path)


def name_of(number: int) -> str:
    """Name of a drawn face; its noise depends on it."""
    return f"drawn-{number:04d}"


def detector_scores(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """[N] the best score of dlib's detector of frontal faces (King 2009), on 160 x 160 with a margin; -2 for none."""
    import dlib  # pyright: ignore[reportMissingImports]

    detector, scores = dlib.get_frontal_face_detector(), []
    for picture in pixels.transpose(0, 2, 3, 1):
        large = np.asarray(Image.fromarray(picture).resize((160, 160), Image.Resampling.BICUBIC))
        found = detector.run(np.pad(large, ((50, 50), (50, 50), (0, 0)), mode="edge"), 0, -1.0)[1]
        scores.append(max(found, default=-2.0))
    return np.array(scores)


def nearest(pixels: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[N] root mean square difference, of 255, to the nearest of the others and of their mirror images."""
    mine = torch.from_numpy(pixels).flatten(1).float()
    theirs = torch.from_numpy(np.concatenate([others, others[..., ::-1]])).flatten(1).float()
    least = [torch.cdist(some, theirs).amin(1) for some in mine.split(256)]
    return (torch.cat(least) / mine.shape[1] ** 0.5).numpy()


def main() -> None:
    """Write the archive, and what was left out and why."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("celeba", type=Path, help="folder of CelebA's archive and attributes")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the faces drawn")
    args = parser.parse_args()
    drawn, photographs = drawn_faces(args.cache), read_celeba(args.celeba).pixels
    scores = detector_scores(drawn)
    near, usual = (nearest(some, photographs[:NUM_TRAIN]) for some in (drawn, photographs[NUM_TRAIN:]))
    is_face, is_new = scores >= MIN_SCORE, near >= np.percentile(usual, 1)
    kept = np.flatnonzero(is_face & is_new)[:NUM_KEPT]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(OUT, "w") as archive:
        for number in kept:
            file = io.BytesIO()
            Image.fromarray(drawn[number].transpose(1, 2, 0)).save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
            member = tarfile.TarInfo(f"{name_of(int(number))}.jpg")
            member.size = file.tell()
            file.seek(0)
            archive.addfile(member, file)
    found = {
        "drawn": len(drawn),
        "without_a_face": int((~is_face).sum()),
        "too_near_to_a_training_picture": int((is_face & ~is_new).sum()),
        "written": len(kept),
        "photographs_with_a_face": round(float((detector_scores(photographs[NUM_TRAIN:]) >= MIN_SCORE).mean()), 4),
        "nearest_training_picture": {
            name: {f"percentile_{p}": round(float(np.percentile(values, p)), 2) for p in (0, 1, 10, 50)}
            for name, values in (("drawn", near), ("held_out_photographs", usual))
        },
    }
    path = Path(__file__).parent / "quality.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(f"{json.dumps({**before, 'drawn': found}, indent=2)}\n")


if __name__ == "__main__":
    main()
