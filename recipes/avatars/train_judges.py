"""Train the judges of avatar edits: attributes, identity, parts.

    python -m recipes.avatars.train_judges --cache CACHE [--only classify embed segment]

Their faces come from a random stream of their own, so no data set, nor the denoiser, has seen one.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from boundaryflow.avatars import ATTRIBUTES, PARTS, Avatar, render, sample_avatars
from boundaryflow.evaluation.judges import JudgeNet, SegmenterNet, save_judge
from recipes.avatars.faces import avatars_of, faces

LOG = logging.getLogger(__name__)
NUM_FACES = 20_000
NUM_TWINS = 8_000
EMBEDDING = 64
JUDGE_WIDTHS = (24, 48, 96, 128)
SEGMENTER_WIDTHS = (16, 32, 64, 96)


def pictures_01(images: NDArray[np.uint8], rows: Tensor) -> Tensor:
    """[B,3,64,64] in [0, 1]."""
    return torch.from_numpy(np.asarray(images[rows.numpy()])).permute(0, 3, 1, 2).float() / 255


def roughen(images_01: Tensor, draw: torch.Generator) -> Tensor:
    """What edited pictures have and renders have not: noise, blur, other contrast, a shift by a pixel."""
    batch = len(images_01)
    out = images_01
    if torch.rand((), generator=draw) < 0.3:
        out = F.avg_pool2d(F.pad(out, (1, 1, 1, 1), mode="replicate"), 3, 1)
    dx, dy = torch.randint(-1, 2, (2,), generator=draw).tolist()
    out = out.roll((dy, dx), (2, 3))
    gain = 1 + 0.1 * torch.randn(batch, 3, 1, 1, generator=draw)
    noise = 0.06 * torch.rand(batch, 1, 1, 1, generator=draw) * torch.randn(out.shape, generator=draw)
    return (0.5 + (out - 0.5) * gain + noise).clamp(0, 1)


def fit(net: nn.Module, loss_of: object, num_steps: int, lr: float, name: str) -> None:
    """AdamW with a cosine to zero; `loss_of(step)` gives the loss of a step."""
    optimiser = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, num_steps, pct_start=0.1)
    started = time.monotonic()
    for step in range(num_steps):
        loss = loss_of(step)  # type: ignore[operator]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            LOG.info("%s step %d/%d loss %.4f %.0f s", name, step + 1, num_steps, loss.item(), time.monotonic() - started)


def train_classifier(cache: Path, out: Path) -> None:
    """Eight attributes, each yes or no."""
    data = faces("judges", NUM_FACES, cache)
    images, truth = data["images"], torch.from_numpy(data["attributes"].astype(np.float32))
    net = JudgeNet(3, JUDGE_WIDTHS, 64, len(ATTRIBUTES), "classify")

    def loss_of(step: int) -> Tensor:
        draw = torch.Generator().manual_seed(step)
        rows = torch.randint(NUM_FACES, (96,), generator=draw)
        return F.binary_cross_entropy_with_logits(net(roughen(pictures_01(images, rows), draw)), truth[rows])

    fit(net, loss_of, 1500, 2e-3, "attributes")
    config = {"channels": 3, "widths": JUDGE_WIDTHS, "image_size": 64, "num_outputs": len(ATTRIBUTES)}
    save_judge(out, "classify", net, config, ATTRIBUTES)


def twins(cache: Path) -> NDArray[np.uint8]:
    """The first faces once more, with all attributes drawn anew: the same person, changed."""
    path = cache / f"twins_{NUM_TWINS}.npy"
    if not path.exists():
        rng = np.random.default_rng(20_230_215)
        drawn: list[NDArray[np.uint8]] = []
        for chunk in range(NUM_TWINS // 500):
            for face, other in zip(avatars_of("judges", chunk), sample_avatars(500, rng), strict=True):
                drawn.append(np.asarray(render(Avatar(other.attributes, face.factors))))
        np.save(path, np.stack(drawn))
    return np.load(path, mmap_mode="r")


def train_embedder(cache: Path, out: Path) -> None:
    """Who it is: near for the same factors whatever the attributes, far for others (InfoNCE)."""
    images, others = faces("judges", NUM_FACES, cache)["images"], twins(cache)
    net = JudgeNet(3, JUDGE_WIDTHS, 64, EMBEDDING, "embed")

    def loss_of(step: int) -> Tensor:
        draw = torch.Generator().manual_seed(step)
        rows = torch.randperm(NUM_TWINS, generator=draw)[:96]
        first, second = (net(roughen(pictures_01(i, rows), draw)) for i in (images, others))
        logits = first @ second.T / 0.1
        same = torch.arange(len(rows))
        return (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)) / 2

    fit(net, loss_of, 600, 2e-3, "identity")
    config = {"channels": 3, "widths": JUDGE_WIDTHS, "image_size": 64, "num_outputs": EMBEDDING}
    save_judge(out, "embed", net, config, ())


def train_segmenter(cache: Path, out: Path) -> None:
    """Which part each pixel shows."""
    data = faces("judges", NUM_FACES, cache)
    images, parts = data["images"], data["parts"]
    net = SegmenterNet(3, SEGMENTER_WIDTHS, len(PARTS))

    def loss_of(step: int) -> Tensor:
        draw = torch.Generator().manual_seed(step)
        rows = torch.randint(NUM_FACES, (32,), generator=draw)
        clean = pictures_01(images, rows)
        noisy = (clean + 0.04 * torch.rand(len(rows), 1, 1, 1, generator=draw) * torch.randn(clean.shape, generator=draw))
        return F.cross_entropy(net(noisy.clamp(0, 1)), torch.from_numpy(np.asarray(parts[rows.numpy()])).long())

    fit(net, loss_of, 400, 3e-3, "segmenter")
    config = {"channels": 3, "widths": SEGMENTER_WIDTHS, "image_size": 64, "num_parts": len(PARTS)}
    save_judge(out, "segment", net, config, PARTS)


def main() -> None:
    """Train the judges named, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for training faces")
    parser.add_argument("--out", type=Path, default=Path("data/pretrained/avatars64_judges"))
    parser.add_argument("--only", nargs="+", choices=["classify", "embed", "segment"], default=["classify", "embed", "segment"])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)  # initial weights
    trainers = {"classify": train_classifier, "embed": train_embedder, "segment": train_segmenter}
    for kind in args.only:
        trainers[kind](args.cache, args.out)


if __name__ == "__main__":
    main()
