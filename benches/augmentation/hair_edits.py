"""Edits of the pictures to learn from, made by the product's editor with what the project fitted, and kept."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from benches.augmentation.hair import LABEL, NAME, OTHER, Parts, file_names
from boundaryflow.config import load_params
from boundaryflow.jobs.augmenter import run_shard
from boundaryflow.jobs.batch import plan_edits
from boundaryflow.runtime.fingerprints import code_hash
from boundaryflow.runtime.sharding import run_sharded
from boundaryflow.store.catalog.ingest import INGEST, MANIFEST
from boundaryflow.store.fingerprint import fingerprint
from boundaryflow.store.shards import load_items


@dataclass(frozen=True)
class Route:
    """A change of one attribute, which leads from one group to another.

    Attributes:
        attribute: What is changed.
        sign: +1 to add it, -1 to remove it.
        source: Group that is edited, see `Pictures.group`.
        group: Group that the edits are to belong to.
    """

    attribute: str
    sign: int
    source: int
    group: int

    @property
    def name(self) -> str:
        """Such as `male-on`."""
        return f"{self.attribute}-{'on' if self.sign > 0 else 'off'}"


ROUTES = (Route(OTHER, +1, 2, 3), Route(OTHER, -1, 1, 0))
"""Gender only: an edit of the hair that fails would teach a wrong label, one of gender leaves the label true."""


@dataclass(frozen=True)
class Edits:
    """Edits along one route.

    Attributes:
        rows: [N] rows of the edited pictures in CelebA.
        edited: [N,K,3,64,64] uint8, by rising strength.
        seen: [N,K,2] probabilities of LABEL and OTHER by the hyperplanes.
    """

    rows: NDArray[np.int64]
    edited: Tensor
    seen: Tensor


def make_edits(folder: Path, parts: Parts, route: Route, num: int, strengths: Sequence[float]) -> Edits:
    """Edit pictures of the route's source that the hyperplanes were fitted on, or find what was made before.

    Args:
        folder: The project, after `fit_project`.
        parts: What it was made of.
        route: What is changed.
        num: Number of pictures.
        strengths: Of the edits.
    """
    group = parts.of("train").group
    sources = [
        (name, row)
        for name, row, of in zip(file_names(parts), parts.numbers["train"], group, strict=True)
        if of == route.source and name.startswith("train/")
    ][:num]
    with contextlib.chdir(folder):
        section = load_params().dataset(NAME)
        manifest = MANIFEST.read(INGEST.folder(NAME))
        item_of = dict(zip(manifest["source"], manifest["item_id"], strict=True))
        items = [str(item_of[name]) for name, _row in sources]
        plan = plan_edits(NAME, section, 0, {name: [name] for name in (LABEL, OTHER)}, strengths)
        key = fingerprint(code=code_hash("boundaryflow.jobs.augmenter"), plan=plan.cache_key, route=route.name)
        context = {
            "ingested": str(INGEST.folder(NAME)), "attribute": route.attribute, "sign": route.sign,
            "plan": plan,
        }  # fmt: skip
        kept = Path("edits") / key[:12] / route.name
        run_sharded(f"edit {route.name}", kept, sorted(items), key, 16, run_shard, context)
        found = load_items(kept, items, ["edited", "seen"])
    columns = [list(plan.labeller.by).index(name) for name in (LABEL, OTHER)]
    return Edits(np.array([row for _name, row in sources]), found["edited"], found["seen"][..., columns])
