"""How the change of a small picture is brought to its original: avatars of 256 pixels through the model of 64.

    make bench NAME=originals        about five minutes on one thread

Faces are drawn at 256 pixels, brought to 64 as `ingest` does, and each edited on one attribute. Every way of enlarging
the change is held against the exact counterfactual at 256 pixels; once for the edits, and once for the renderer's own
change at 64 pixels, where nothing but the enlarging is wrong. Edits are kept in out/bench_originals. Writes
benches/results/originals.json, the table in docs/delivery.md and docs/images/originals.png.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from benches import machine, page
from benches.bars import bar
from benches.bench_quality import settings_of
from benches.checkout import ROOT
from benches.kept import kept
from benches.quality.calls import Counted
from benches.quality.guided import Guided
from benches.quality.pictures import Faces, Latents, Pictures
from boundaryflow.avatars import ATTRIBUTES, Avatar, render, segment
from boundaryflow.editing.full_size import Axis, FullSizeChange, Kernel, linear, without_faint
from boundaryflow.pixels import to_u8
from boundaryflow.runtime.fingerprints import code_hash
from boundaryflow.runtime.frozen_model import open_model

RESULT, PAGE = ROOT / "benches/results/originals.json", ROOT / "docs/delivery.md"
PICTURE, KEEP = ROOT / "docs/images/originals.png", ROOT / "out/bench_originals"
SIZE, SMALL = 256, 64
NUM_FACES, NUM_TRAIN, NUM_HELD_OUT, STRENGTH = 24, 128, 64, 1.0
AXIS = Axis(SIZE, 0, SIZE, SMALL)
OURS, NONE, BICUBIC, MODEL = "ours", "the original, not edited", "bicubic", "the model's picture, enlarged (bicubic)"
SHOWN = (0, 1, 3, 4, 5, 6)  # faces in the picture


class Case(NamedTuple):
    """An edit: pictures [3,S,S] in levels 0 to 255.

    Attributes:
        attribute: What was flipped.
        original: At 256 pixels.
        truth: Its counterfactual.
        before: What the model saw.
        after: Its edit.
        exact: The counterfactual at 64 pixels.
        region: [256,256] where the two differ.
    """

    attribute: str
    original: Tensor
    truth: Tensor
    before: Tensor
    after: Tensor
    exact: Tensor
    region: Tensor


def bicubic(x: Tensor) -> Tensor:
    """Keys 1981, with a = -0.5."""
    x = x.abs()
    inner, outer = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, inner, torch.where(x < 2, outer, torch.zeros_like(x)))


def lanczos(x: Tensor) -> Tensor:
    """With three lobes."""
    return torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), torch.zeros_like(x))


def enlarged(small: Tensor, kernel: Kernel) -> Tensor:
    """[...,256,256]."""
    weights = AXIS.weights(kernel)
    return weights @ small @ weights.T


def guided_filter(case: Case, after: Tensor) -> Tensor:
    """The change by the fast guided filter of He and Sun (2015): channel by channel, 3 x 3 pixels."""

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, 3, 1, 1, count_include_pad=False)

    before, change = case.before, without_faint(after - case.before)
    shared = mean(before * change) - mean(before) * mean(change)
    slope = shared / ((mean(before * before) - mean(before) ** 2).clamp(min=0) + 16)
    level = mean(mean(change) - slope * mean(before))
    return enlarged(mean(slope), linear) * case.original + enlarged(level, linear)


def joint_bilateral(case: Case, after: Tensor) -> Tensor:
    """The change by joint bilateral upsampling (Kopf et al. 2007): 5 x 5 pixels, sigmas of 1 pixel and 20 levels."""
    change = without_faint(after - case.before)
    at = (torch.arange(SIZE) + 0.5) * SMALL / SIZE - 0.5
    total, weight = torch.zeros_like(case.original), torch.zeros(SIZE, SIZE)
    for down in range(-2, 3):
        for across in range(-2, 3):
            y, x = at.round().long() + down, at.round().long() + across
            near = torch.exp(-((y - at)[:, None] ** 2 + (x - at)[None] ** 2) / 2)
            y, x = y.clamp(0, SMALL - 1), x.clamp(0, SMALL - 1)
            alike = (case.original - case.before[:, y][:, :, x]).square().mean(0)
            share = near * (torch.exp(-alike / (2 * 20**2)) + 1e-6)
            total, weight = total + share * change[:, y][:, :, x], weight + share
    return total / weight


def _interpolated(kernel: Kernel) -> Callable[[Case, Tensor], Tensor]:
    return lambda case, after: case.original + enlarged(without_faint(after - case.before), kernel)


def _ours(case: Case, after: Tensor) -> Tensor:
    return case.original + FullSizeChange(case.before, after, AXIS, AXIS).of_rows(case.original, 0)


WAYS: Mapping[str, Callable[[Case, Tensor], Tensor]] = {
    NONE: lambda case, _after: case.original,
    MODEL: lambda _case, after: enlarged(after, bicubic),
    "bilinear": _interpolated(linear),
    BICUBIC: _interpolated(bicubic),
    "Lanczos": _interpolated(lanczos),
    "guided filter": lambda case, after: case.original + guided_filter(case, after),
    "joint bilateral": lambda case, after: case.original + joint_bilateral(case, after),
    OURS: _ours,
}


def drawn(avatar: Avatar, size: int) -> Tensor:
    """[3,size,size]."""
    return torch.from_numpy(np.asarray(render(avatar, size), np.float32).transpose(2, 0, 1).copy())


def reduced(picture: Tensor) -> Tensor:
    """[3,64,64] as `ingest` makes it."""
    image = Image.fromarray(picture.byte().numpy().transpose(1, 2, 0))
    small = np.asarray(image.resize((SMALL, SMALL), Image.Resampling.LANCZOS), np.float32)
    return torch.from_numpy(small.transpose(2, 0, 1).copy())


def cases() -> list[Case]:
    """The edits, made or found, attribute by attribute."""
    settings, faces = settings_of("avatars"), Faces.draw(7, NUM_FACES)
    large = torch.stack([drawn(avatar, SIZE) for avatar in faces.avatars])
    before = torch.stack([reduced(picture) for picture in large])
    edited = _edited(settings, faces, before)
    found: list[Case] = []
    for row, avatar in enumerate(faces.avatars):
        name = ATTRIBUTES[row % len(ATTRIBUTES)]
        changed = avatar.with_attribute(name, not avatar.attributes[name])
        truth = drawn(changed, SIZE)
        differs = torch.from_numpy(segment(changed, SIZE) != segment(avatar, SIZE))
        region = differs | ((truth - large[row]).abs().amax(0) > 0)
        found.append(Case(name, large[row], truth, before[row], edited[row].float(), reduced(truth), region))
    return found


def _edited(settings: Mapping[str, Any], faces: Faces, before: Tensor) -> Tensor:
    """[N,3,64,64] uint8: face by face, flipped in one attribute."""
    model = open_model(str(ROOT / "data/pretrained/avatars64"), "auto")
    code = code_hash("benches.quality.guided")
    key = [dict(settings), NUM_FACES, NUM_TRAIN, NUM_HELD_OUT, STRENGTH, model.sha256, code]

    def make() -> tuple[Tensor, dict[str, Any]]:
        latents = Latents(model, Faces.draw(0, NUM_TRAIN), Faces.draw(1, NUM_HELD_OUT), settings["features"])
        guided = Guided(Counted(model), latents, NUM_TRAIN, dict(settings))
        pictures = Pictures(before / 127.5 - 1, faces.has, faces.ids)
        edited = torch.empty(before.shape, dtype=torch.uint8)
        for column, name in enumerate(ATTRIBUTES):
            rows = list(range(column, NUM_FACES, len(ATTRIBUTES)))
            edited[rows] = to_u8(guided.edit(pictures.take(rows), [name], [STRENGTH])[:, 0])
            print(f"edited: {name}", flush=True)
        return edited, {}

    return kept(KEEP, key, make)[0]


def measure(every: Sequence[Case], *, exact: bool) -> dict[str, dict[str, float]]:
    """Way to its errors, means over the faces."""
    found: dict[str, dict[str, float]] = {}
    for way, make in WAYS.items():
        started, rows = time.perf_counter(), []
        for case in every:
            made = make(case, case.exact if exact else case.after).round().clamp(0, 255)
            error = (made - case.truth).square().mean(0)
            inner, slopes, right = case.region[1:, 1:], _gradient(made), _gradient(case.truth)
            rows.append(
                {
                    "rmse": error.mean().sqrt(),
                    "rmse_inside": error[case.region].mean().sqrt(),
                    "rmse_outside": error[~case.region].mean().sqrt(),
                    "sharpness": slopes[inner].mean() / right[inner].mean(),
                    "rmse_of_gradients": (slopes - right)[inner].square().mean().sqrt(),
                    "unchanged": (made == case.original).all(0).float().mean(),
                }
            )
        found[way] = {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}
        found[way]["seconds_per_picture"] = round((time.perf_counter() - started) / len(every), 4)
    return found


def _gradient(picture: Tensor) -> Tensor:
    """[255,255] length of the differences to the pixels above and to the left."""
    down, across = picture[:, 1:, 1:] - picture[:, :-1, 1:], picture[:, 1:, 1:] - picture[:, 1:, :-1]
    return (down.square() + across.square()).sum(0).sqrt()


def table(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The table in docs/delivery.md."""
    columns = ("rmse", "rmse_inside", "rmse_outside", "sharpness")
    edits, exact = found["edits"], found["exact"]
    rows = [
        [f"**{way}**" if way == OURS else way]
        + [f"{edits[way][name]:.2f}" for name in columns]
        + [f"{100 * edits[way]['unchanged']:.0f} %", f"{exact[way]['rmse']:.2f}"]
        for way in WAYS
    ]
    header = ["way", "RMSE", "inside", "outside", "sharpness", "pixels unchanged", "RMSE, exact change"]
    return page.markdown_table(header, rows)


def draw(every: Sequence[Case]) -> Image.Image:
    """A column for each of some faces: the original, the model's picture enlarged, bicubic, ours, the truth."""
    columns = [
        torch.cat([case.original, *(WAYS[way](case, case.after) for way in (MODEL, BICUBIC, OURS)), case.truth], 1)
        for case in (every[number] for number in SHOWN)
    ]
    pixels = torch.cat(columns, 2).round().clamp(0, 255).byte()
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def main() -> None:
    """Measure, and write the result, the table and the picture."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    every = cases()
    found = {"edits": measure(every, exact=False), "exact": measure(every, exact=True)}
    bars = [
        bar(f"{name} of {OURS}, by {way}; {which}", found[which][OURS][name] / found[which][way][name], limit, "<=")
        for which, name, way, limit in (
            ("edits", "rmse", BICUBIC, 1.0),
            ("edits", "rmse_inside", MODEL, 1.05),
            ("edits", "rmse_outside", MODEL, 0.75),
            ("exact", "rmse", BICUBIC, 0.8),
        )
    ]
    bars.append(bar(f"sharpness of {OURS}; edits", found["edits"][OURS]["sharpness"], 0.95, ">="))
    settings = {"faces": NUM_FACES, "trained_on": NUM_TRAIN, "strength": STRENGTH, "size": SIZE, "small": SMALL}
    result = {"machine": machine.facts(), "settings": settings, **found, "bars": bars}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    page.fill(PAGE, "originals", table(found))
    draw(every).save(PICTURE, optimize=True)
    print(table(found))


if __name__ == "__main__":
    main()
