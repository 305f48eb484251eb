"""What the classifiers learn from, and what they say of the pictures to test on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from benches.augmentation.classifier import balancing, logits, trained
from benches.augmentation.sets import Pictures

NUM_STEPS = 300


@dataclass(frozen=True)
class Arm:
    """A way to learn.

    Attributes:
        learns_from: `real`, `copies`, or the name of a set of edits.
        is_balanced: Each group is drawn as often as any other.
        is_classic: With classic augmentation.
    """

    learns_from: str = "real"
    is_balanced: bool = False
    is_classic: bool = True


BARE, WEIGHTED, COPIES, OURS, BOTH = (
    "classic augmentation",
    "re-weighting",
    "copies of the rare pictures",
    "our edits",
    "our edits and re-weighting",
)
ARMS = {
    "the set as it is": Arm(is_classic=False),
    BARE: Arm(),
    WEIGHTED: Arm(is_balanced=True),
    COPIES: Arm("copies"),
    OURS: Arm("edits"),
    BOTH: Arm("edits", is_balanced=True),
    "edits that the built-in judge accepts, and re-weighting": Arm("edits, built-in judge", is_balanced=True),
}


def training_sets(real: Pictures, edits: Mapping[str, Pictures]) -> dict[str, Pictures]:
    """The sets that arms learn from: the real pictures, alone, with copies, or with edits.

    Args:
        real: The training set.
        edits: Name of each set of edits to its pictures; of each group there are as many copies as edits in `edits`.
    """
    wanted = np.bincount(edits["edits"].group, minlength=4)
    copies = [np.resize(np.flatnonzero(real.group == group), num) for group, num in enumerate(wanted)]
    with_edits = {name: joined(real, some) for name, some in edits.items()}
    return {"real": real, "copies": joined(real, real.take(np.concatenate(copies))), **with_edits}


def joined(first: Pictures, second: Pictures) -> Pictures:
    """The pictures of both."""
    return Pictures(
        torch.cat([first.images_u8, second.images_u8]),
        np.concatenate([first.label, second.label]),
        np.concatenate([first.other, second.other]),
        np.concatenate([first.synthetic, second.synthetic]),
    )


def answers(arm: Arm, train: Pictures, test: Pictures, seed: int) -> NDArray[np.bool_]:
    """[N] whether a classifier is right about each picture to test on."""
    weights = balancing(train.group) if arm.is_balanced else None
    net = trained(
        train.images_u8, train.label[:, None], seed, classic=arm.is_classic, weights=weights, num_steps=NUM_STEPS
    )
    return (logits(net, test.images_u8)[:, 0] > 0) == test.label
