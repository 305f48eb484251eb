"""Train who labels faces, who judges their edits, and who compares people.

    python -m training.faces.train_judges CELEBA --teacher DLIB.dat --landmarks LANDMARKS.dat --cache CACHE

The labeller and the judge are the same small network, trained on disjoint halves of CelebA's pictures 000001 to
008500; of the 40 attributes they keep those that both know with an AUC of at least 0.9 on pictures 008501 to 010000.
Identity is distilled from dlib's face recognition (King 2009; its two files are in the package face-recognition-models,
CC0): for each picture, the direction of its descriptor from the mean. Writes `quality.json` beside this file.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from boundaryflow.evaluation.judges import JudgeNet, save_judge
from boundaryflow.runtime.device import device
from training.avatars.train_judges import fit
from training.faces.pictures import NUM_TRAIN, CelebA, halves, pictures_of, read_celeba

WIDTHS = (32, 64, 128, 192)
NUM_STEPS, BATCH = 4000, 192
MIN_AUC = 0.9
NUM_DIMENSIONS = 64  # of identity; dlib has 128, of which half say next to nothing
RENAMED = {"Mouth_Slightly_Open": "mouth_open", "No_Beard": "beard"}
"""What the networks call an attribute of CelebA, where it is not its name in small letters; `beard` is the opposite."""
IMPLIED = {
    "5_o_Clock_Shadow", "Goatee", "Mustache", "Sideburns", "Heavy_Makeup", "Wearing_Lipstick", "High_Cheekbones",
    "Rosy_Cheeks",
}  # fmt: skip
"""What the judge leaves out: a beard, a gender or a smile cannot change without these, so they are no side effects."""
SAME_PERSON = 0.5  # dlib's distance, stricter than its authors' 0.6


def augmented(images_01: Tensor, draw: torch.Generator) -> Tensor:
    """Pictures [B,3,64,64] turned, shifted, mirrored, blurred, in other contrast, noisy, with a part covered."""
    num, where = len(images_01), images_01.device

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=draw, device=where)

    angle, scale = (uniform(num) - 0.5) * 0.28, 1 + (uniform(num) - 0.5) * 0.2
    shift = (uniform(2, num) - 0.5) * 0.16
    mirror = torch.where(uniform(num) < 0.5, -1.0, 1.0)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = [torch.stack([cos * mirror, -sin, shift[0]], 1), torch.stack([sin * mirror, cos, shift[1]], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images_01.shape), align_corners=False)
    out = F.grid_sample(images_01, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    blurred = F.avg_pool2d(F.pad(out, (1, 1, 1, 1), mode="replicate"), 3, 1)
    out = torch.where((uniform(num) < 0.4).view(-1, 1, 1, 1), out.lerp(blurred, uniform(num, 1, 1, 1)), out)
    gain = 1 + 0.15 * torch.randn(num, 3, 1, 1, generator=draw, device=where) * uniform(num, 1, 1, 1)
    noise = 0.05 * uniform(num, 1, 1, 1) * torch.randn(out.shape, generator=draw, device=where)
    out = 0.5 + (out - 0.5) * gain + (uniform(num, 1, 1, 1) - 0.5) * 0.2 + noise
    at, half, pixel = uniform(2, num) * 64, uniform(num) * 12, torch.arange(64, device=where)
    across, down = ((pixel - centre[:, None]).abs() < half[:, None] for centre in at)
    covered = across[:, None, None, :] & down[:, None, :, None] & (uniform(num) < 0.3).view(-1, 1, 1, 1)
    return torch.where(covered, torch.full_like(out, 0.5), out).clamp(0, 1)


def fit_on(
    net: nn.Module, pixels: Tensor, rows: NDArray[np.int64], loss_of: Callable[[Tensor, Tensor], Tensor], seed: int
) -> nn.Module:
    """Fit to augmented pictures. `loss_of` takes the network's output and the rows that it is of."""
    draw = torch.Generator(pixels.device).manual_seed(seed)
    chosen = torch.from_numpy(rows).to(pixels.device)

    def loss_of_step(_step: int) -> Tensor:
        some = chosen[torch.randint(len(chosen), (BATCH,), generator=draw, device=pixels.device)]
        return loss_of(net(augmented(pixels[some].float() / 255, draw)), some)

    fit(net.to(pixels.device).train(), loss_of_step, NUM_STEPS, 3e-3, f"seed {seed}", weight_decay=0.05)
    return net.eval()


@torch.inference_mode()
def outputs(net: nn.Module, pixels: Tensor) -> Tensor:
    """What a network gives, on the CPU."""
    return torch.cat([net(some.float() / 255).cpu() for some in pixels.split(512)])


def descriptors(celeba: Path, teacher: Path, landmarks: Path, cache: Path) -> NDArray[np.float32]:
    """[N,128] dlib's descriptors of all pictures; two hours of processor time, kept in the cache."""
    path = cache / "descriptors.npy"
    if not path.exists():
        import dlib  # pyright: ignore[reportMissingImports]

        shape, net = dlib.shape_predictor(str(landmarks)), dlib.face_recognition_model_v1(str(teacher))
        face, found = dlib.rectangle(40, 80, 138, 178), []
        for _, data in sorted(pictures_of(celeba)):
            image = np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((178, 218), Image.Resampling.BICUBIC))
            found.append(np.asarray(net.compute_face_descriptor(dlib.get_face_chip(image, shape(image, face), 150))))
        cache.mkdir(parents=True, exist_ok=True)
        np.save(path, np.array(found, np.float32))
    return np.load(path)


def train_classifiers(data: CelebA, pixels: Tensor, out: Path) -> dict[str, Any]:
    """The labeller and the judge; what both know well is kept."""
    truth = torch.from_numpy(data.attributes).float().to(pixels.device)
    nets: dict[str, nn.Module] = {}
    auc: dict[str, dict[str, float]] = {}
    for seed, (name, rows) in enumerate(halves().items()):
        torch.manual_seed(seed)
        net = JudgeNet(3, WIDTHS, 64, len(data.names), "classify")
        nets[name] = fit_on(
            net, pixels, rows, lambda out, some: F.binary_cross_entropy_with_logits(out, truth[some]), seed
        )
        found = outputs(net, pixels[NUM_TRAIN:]).numpy()
        known = data.attributes[NUM_TRAIN:]
        auc[name] = {a: round(float(roc_auc_score(known[:, k], found[:, k])), 4) for k, a in enumerate(data.names)}
    kept = [k for k, a in enumerate(data.names) if min(of[a] for of in auc.values()) >= MIN_AUC]
    for name, net in nets.items():
        wanted = [data.names[k] for k in kept if name == "labeller" or data.names[k] not in IMPLIED]
        names = keep_outputs(net, wanted, data.names)
        config = {"channels": 3, "widths": list(WIDTHS), "image_size": 64, "num_outputs": len(names)}
        folder = out / ("faces64_judges" if name == "judge" else "faces64_labeller")
        save_judge(folder, "classify", net.cpu(), config, names)
    return {"auc": auc, "kept": [data.names[k] for k in kept]}


def keep_outputs(net: Any, kept: Sequence[str], names: Sequence[str]) -> list[str]:
    """Drop the other rows of the last layer; returns what the outputs are called then."""
    rows = [list(names).index(name) for name in kept]
    signs = torch.tensor([-1.0 if RENAMED.get(name) == "beard" else 1.0 for name in kept])
    head = nn.Linear(net.head.in_features, len(kept))
    with torch.no_grad():
        head.weight.copy_(net.head.weight[rows].cpu() * signs[:, None])
        head.bias.copy_(net.head.bias[rows].cpu() * signs)
    net.head = head
    return [RENAMED.get(name, name.lower()) for name in kept]


def keep_principal(net: Any, vectors: Tensor) -> None:
    """Turn the last layer's outputs to their principal directions, and drop the last ones."""
    directions = torch.linalg.svd(vectors, full_matrices=False)[2][:NUM_DIMENSIONS].to(net.head.weight)
    head = nn.Linear(net.head.in_features, NUM_DIMENSIONS).to(net.head.weight)
    with torch.no_grad():
        head.weight.copy_(directions @ net.head.weight)
        head.bias.copy_(directions @ net.head.bias)
    net.head = head


def train_identity(pixels: Tensor, taught: NDArray[np.float32], out: Path) -> dict[str, float]:
    """Who it is, as dlib's network sees it."""
    directions = F.normalize(torch.from_numpy(taught - taught[:NUM_TRAIN].mean(0)), dim=1).to(pixels.device)
    torch.manual_seed(9)
    net = JudgeNet(3, WIDTHS, 64, directions.shape[1], "embed")
    rows = np.concatenate(list(halves().values()))
    fit_on(net, pixels, rows, lambda out, some: 10 * (1 - (out * directions[some]).sum(1)).mean(), 9)
    keep_principal(net, outputs(net, pixels[:NUM_TRAIN:2]))
    held_out = pixels[NUM_TRAIN:]
    found, mirrored = outputs(net, held_out), outputs(net, held_out.flip(-1))
    upper = np.triu_indices(len(found), 1)
    of_teacher = torch.from_numpy(taught[NUM_TRAIN:])
    apart = torch.cdist(of_teacher, of_teacher).numpy()[upper]
    alike = (found @ found.T).numpy()[upper]
    config = {"channels": 3, "widths": list(WIDTHS), "image_size": 64, "num_outputs": NUM_DIMENSIONS}
    save_judge(out / "faces64_judges", "embed", net.cpu(), config, [])
    return {
        "same_person_auc": round(float(roc_auc_score(apart < SAME_PERSON, alike)), 4),
        "same_person_pairs": int((apart < SAME_PERSON).sum()),
        "cosine_mirrored": round(float((found * mirrored).sum(1).mean()), 3),
        "cosine_others": round(float(alike.mean()), 3),
    }


def main() -> None:
    """Train all three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("celeba", type=Path, help="folder of the archive and the attributes")
    parser.add_argument("--teacher", type=Path, required=True, help="dlib_face_recognition_resnet_model_v1.dat")
    parser.add_argument("--landmarks", type=Path, required=True, help="shape_predictor_5_face_landmarks.dat")
    parser.add_argument("--cache", type=Path, required=True, help="folder for dlib's descriptors")
    parser.add_argument("--out", type=Path, default=Path("out/pretrained"))
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    data = read_celeba(args.celeba)
    pixels = torch.from_numpy(data.pixels).to(device())
    taught = descriptors(args.celeba, args.teacher, args.landmarks, args.cache)
    quality = {"classifiers": train_classifiers(data, pixels, args.out)}
    quality["identity"] = train_identity(pixels, taught, args.out)
    (Path(__file__).parent / "quality.json").write_text(f"{json.dumps(quality, indent=2)}\n")


if __name__ == "__main__":
    main()
