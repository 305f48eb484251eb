"""The edits of the rows, each made once and kept."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from benches.kept import kept
from benches.quality.baselines import baseline_rows
from benches.quality.pictures import Faces, Latents
from benches.quality.rows import CLEANED, OURS, Row, all_rows
from boundaryflow.avatars import ATTRIBUTES
from boundaryflow.diffusion import EpsModel
from boundaryflow.pixels import to_u8
from boundaryflow.runtime.fingerprints import code_hash

PAIRS = (("hat", "eyeglasses"), ("dark_skin", "eyeglasses"), ("long_hair", "hat"), ("beard", "eyeglasses"))
CODE = ("benches.quality.pictures", "benches.quality.calls")


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        images: Faces to edit, each on one attribute; the attributes and the seeds take turns.
        sizes: Faces to fit on, for every row; other methods only with the most of these.
        ours_only: The same, for the default row and the first seed only.
        seeds: Of the faces to fit on.
        t_mix: Mixing step of the rows that have one.
        mix_steps: Timesteps up to it.
    """

    images: int
    sizes: tuple[int, ...]
    ours_only: tuple[int, ...]
    seeds: tuple[int, ...]
    t_mix: int
    mix_steps: int

    def edited_on(self, attribute: str, seed: int) -> list[int]:
        """The faces that are edited on an attribute by what was fitted on the faces of a seed."""
        first = ATTRIBUTES.index(attribute) + len(ATTRIBUTES) * self.seeds.index(seed)
        return list(range(first, self.images, len(ATTRIBUTES) * len(self.seeds)))


@dataclass(frozen=True)
class Made:
    """Some edits of a row.

    Attributes:
        row: Which.
        size: How many faces it was fitted on; None if on none.
        attributes: What is flipped.
        faces: Numbers of the edited faces.
        edited: [N,K,3,64,64] uint8, by rising strength.
        calls: Network calls per face and strength, see `Counted`.
    """

    row: Row
    size: int | None
    attributes: tuple[str, ...]
    faces: list[int]
    edited: Tensor
    calls: float

    @property
    def key(self) -> str:
        """What the row is called in the table."""
        return self.row.name if self.size is None else f"{self.row.name}, n={self.size}"


def every_edit(
    plan: Plan,
    model: EpsModel,
    test: Faces,
    settings: dict[str, Any],
    keep: Path,
    only: Sequence[str] | None,
    skip: Sequence[str] = (),
) -> Iterator[Made]:
    """Make the edits, or find those that were made before by the same code with the same settings.

    Args:
        plan: Which.
        model: The frozen model.
        test: The faces to edit.
        settings: See `all_rows`.
        keep: Folder of what was made.
        only: Names of rows; None is all.
        skip: Names of rows to leave out.
    """
    for seed in plan.seeds:
        sizes = sorted({*plan.sizes, *(plan.ours_only if seed == plan.seeds[0] else ())})
        latents = Latents(model, Faces.draw(0, max(sizes), seed), Faces.draw(1, 200, seed), settings["features"])
        for size in sizes:
            rows = all_rows(model, latents, size, plan.t_mix, settings, plan.mix_steps)
            for row in [*rows, *baseline_rows(model, latents, size, settings)]:
                left_out = row.name in skip or (only is not None and row.name not in only)
                if left_out or not _is_wanted(row, plan, seed, size):
                    continue
                edits = [((name,), plan.edited_on(name, seed)[: row.most_faces]) for name in ATTRIBUTES]
                if row.name in (OURS, CLEANED) and size == max(plan.sizes):
                    edits += [(pair, plan.edited_on(pair[0], seed)) for pair in PAIRS]
                started = time.monotonic()
                for attributes, faces in edits:
                    found = _kept(row, model, seed, size, test, faces, attributes, keep)
                    yield Made(row, size if row.is_fitted else None, attributes, faces, *found)
                print(f"seed {seed}, n={size}: {row.name}, {time.monotonic() - started:.0f} s", flush=True)


def _is_wanted(row: Row, plan: Plan, seed: int, size: int) -> bool:
    if row.is_baseline:
        return size == max(plan.sizes) and (row.most_faces is None or seed == plan.seeds[0])
    return row.name == OURS or (size in plan.sizes and (row.is_fitted or size == min(plan.sizes)))


@cache
def _code_hash(code: tuple[str, ...]) -> str:
    """Of the files as they were when they were first asked for."""
    return code_hash(*code, *CODE)


def _kept(
    row: Row,
    model: EpsModel,
    seed: int,
    size: int,
    test: Faces,
    faces: list[int],
    attributes: tuple[str, ...],
    keep: Path,
) -> tuple[Tensor, float]:
    """[N,K,3,64,64] uint8; network calls per face and strength."""
    cache_key = [row.name, row.what, row.strengths, row.settings, _code_hash(row.code), model.sha256,
              [test.ids[face] for face in faces], attributes, *([seed, size] if row.is_fitted else [])]  # fmt: skip

    def make() -> tuple[Tensor, dict[str, Any]]:
        row.counter.reset()
        edited = row.edit(test.take(faces), attributes)
        calls = row.counter.per_strength(len(faces), len(row.strengths))
        return to_u8(edited), {"row": row.name, "calls": calls}

    edited, about = kept(keep, cache_key, make)
    return edited, about["calls"]
