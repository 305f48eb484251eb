"""Train the judges of avatar edits: attributes, identity, parts.

    python -m training.avatars.train_judges --cache CACHE [--only classify embed segment]

Their faces come from a random stream of their own, so no data set, nor the denoiser, has seen one.
Run again to go on from the last checkpoint in the cache folder.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from boundaryflow.avatars import ATTRIBUTES, FACTORS, PARTS
from boundaryflow.evaluation.judges import FILES, JudgeNet, SegmenterNet, read_judge, save_judge
from training.avatars.faces import faces

LOG = logging.getLogger(__name__)
NUM_FACES = 20_000
PERSONAL = (  # what makes a person: neither pose nor mood, light, clothes or background
    "face_width",
    "face_height",
    "eye_gap",
    "eye_size",
    "nose_length",
    "mouth_width",
    "brow_tilt",
    "iris_hue",
    "skin_tone",
    "hair_tone",
)
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


def fit(
    net: nn.Module,
    loss_of: Callable[[int], Tensor],
    num_steps: int,
    lr: float,
    name: str,
    *,
    weight_decay: float = 1e-3,
    checkpoint: Path | None = None,
    checkpoint_every_s: float = 60,
) -> None:
    """AdamW, up to `lr` within the first tenth and down a cosine to zero.

    Args:
        net: Trained in place.
        loss_of: Loss of a step, the same whenever it is asked for.
        num_steps: Optimiser steps in all.
        lr: Highest learning rate.
        name: For the log.
        weight_decay: Of AdamW.
        checkpoint: State of the run; where it exists, the run goes on from it.
        checkpoint_every_s: Seconds between checkpoints.
    """
    optimiser = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, num_steps, pct_start=0.1)
    parts = {"net": net, "optimiser": optimiser, "schedule": schedule}
    first = 0
    if checkpoint is not None and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        first = state.pop("step")
        for part, kept in state.items():
            parts[part].load_state_dict(kept)
        LOG.info("%s goes on at step %d", name, first)
    started = saved = time.monotonic()
    for step in range(first, num_steps):
        loss = loss_of(step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        now = time.monotonic()
        if (step + 1) % 100 == 0:
            LOG.info("%s step %d/%d loss %.4f %.0f s", name, step + 1, num_steps, loss.item(), now - started)
        if checkpoint is not None and (now - saved > checkpoint_every_s or step + 1 == num_steps):
            state = {key: part.state_dict() for key, part in parts.items()}
            temporary = checkpoint.with_suffix(".tmp")
            torch.save({**state, "step": step + 1}, temporary)
            os.replace(temporary, checkpoint)
            saved = now


def train_classifier(cache: Path, out: Path) -> None:
    """Eight attributes, each yes or no."""
    data = faces("judges", NUM_FACES, cache)
    images, truth = data["images"], torch.from_numpy(data["attributes"].astype(np.float32))
    net = JudgeNet(3, JUDGE_WIDTHS, 64, len(ATTRIBUTES), "classify")

    def loss_of(step: int) -> Tensor:
        draw = torch.Generator().manual_seed(step)
        rows = torch.randint(NUM_FACES, (96,), generator=draw)
        return F.binary_cross_entropy_with_logits(net(roughen(pictures_01(images, rows), draw)), truth[rows])

    fit(net, loss_of, 1500, 2e-3, "attributes", checkpoint=cache / "judge_classify.pt")
    config = {"channels": 3, "widths": JUDGE_WIDTHS, "image_size": 64, "num_outputs": len(ATTRIBUTES)}
    save_judge(out, "classify", net, config, ATTRIBUTES)


def personal(factors: NDArray[np.float32]) -> Tensor:
    """[N, len(PERSONAL)] what makes each person, in units of each factor's spread."""
    names = list(FACTORS)
    columns = [(factors[:, names.index(name)] - FACTORS[name].centre) / FACTORS[name].spread for name in PERSONAL]
    return torch.from_numpy(np.stack(columns, 1).astype(np.float32))


def train_embedder(cache: Path, out: Path) -> None:
    """Who it is: the direction of the person's own factors, guessed from the picture.

    The guess is pulled towards the mean where a factor cannot be seen, as hair under a hat, so
    what is uncertain weighs little in the embedding. Attributes, pose, light, clothes and
    background vary freely between the faces and are not asked for, so they leave it alone.
    """
    data = faces("judges", NUM_FACES, cache)
    images, truth = data["images"], personal(data["factors"])
    net = JudgeNet(3, JUDGE_WIDTHS, 64, len(PERSONAL), "classify")  # not yet of unit length
    if (out / FILES["classify"]).exists():
        known, _config, _names = read_judge(out / FILES["classify"], "classify")
        net.body.load_state_dict(known.body.state_dict())  # it knows where to look

    def loss_of(step: int) -> Tensor:
        draw = torch.Generator().manual_seed(step)
        rows = torch.randint(NUM_FACES, (64,), generator=draw)
        return F.mse_loss(net(roughen(pictures_01(images, rows), draw)), truth[rows])

    fit(net, loss_of, 600, 2e-3, "identity", checkpoint=cache / "judge_embed.pt")
    config = {"channels": 3, "widths": JUDGE_WIDTHS, "image_size": 64, "num_outputs": len(PERSONAL)}
    save_judge(out, "embed", net, config, PERSONAL)


def train_segmenter(cache: Path, out: Path) -> None:
    """Which part each pixel shows."""
    data = faces("judges", NUM_FACES, cache)
    images, parts = data["images"], data["parts"]
    net = SegmenterNet(3, SEGMENTER_WIDTHS, len(PARTS))

    def loss_of(step: int) -> Tensor:
        draw = torch.Generator().manual_seed(step)
        rows = torch.randint(NUM_FACES, (32,), generator=draw)
        clean = pictures_01(images, rows)
        noise = 0.04 * torch.rand(len(rows), 1, 1, 1, generator=draw) * torch.randn(clean.shape, generator=draw)
        truth = torch.from_numpy(np.asarray(parts[rows.numpy()])).long()
        return F.cross_entropy(net((clean + noise).clamp(0, 1)), truth)

    fit(net, loss_of, 400, 3e-3, "segmenter", checkpoint=cache / "judge_segment.pt")
    config = {"channels": 3, "widths": SEGMENTER_WIDTHS, "image_size": 64, "num_parts": len(PARTS)}
    save_judge(out, "segment", net, config, PARTS)


TRAINERS = {"classify": train_classifier, "embed": train_embedder, "segment": train_segmenter}


def main() -> None:
    """Train the judges named, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for training faces")
    parser.add_argument("--out", type=Path, default=Path("data/pretrained/avatars64_judges"))
    parser.add_argument("--only", nargs="+", choices=list(TRAINERS), default=list(TRAINERS), help="which judges")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)  # initial weights
    for kind in args.only:
        TRAINERS[kind](args.cache, args.out)


if __name__ == "__main__":
    main()
