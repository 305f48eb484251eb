"""The pictures of the report: their choice, exact counterfactuals, and their files."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from boundaryflow.avatars import ATTRIBUTES, FACTORS, Avatar, render
from boundaryflow.files import write_bytes
from boundaryflow.report.inputs import Inputs
from boundaryflow.seeds import item_seed

_OWN = re.compile(r"[0-9a-f]{16}(?:-\d+|-truth)?\.png")


def drawn(items: Iterable[str], num: int, *, seed: int, purpose: str) -> list[str]:
    """Items drawn by seed; adding or removing items does not change the order of the others."""
    return sorted(items, key=lambda item: (item_seed(seed, item, purpose), item))[:num]


def to_image(pixels: NDArray[np.uint8]) -> Image.Image:
    """Picture of [C,H,W] uint8 pixels, C 1 or 3."""
    array = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def counterfactual(
    factors: pd.DataFrame | None, item: str, targets: Mapping[str, int], size: int
) -> Image.Image | None:
    """The exact counterfactual: the renderer's picture of the same face with the changed attributes.

    Args:
        factors: Attributes and factors of each avatar, indexed by item; None for real images.
        item: Item of the face.
        targets: Attribute to +1 (add) or -1 (remove).
        size: Side in pixels.

    Returns:
        None if it is not known: for a real image, or an attribute that the renderer does not have.
    """
    if factors is None or item not in factors.index or not set(targets) <= set(ATTRIBUTES):
        return None
    row: Mapping[Any, Any] = factors.loc[item].to_dict()
    avatar = Avatar({a: bool(row[a]) for a in ATTRIBUTES}, {f: float(row[f]) for f in FACTORS})
    for attribute, sign in targets.items():
        avatar = avatar.with_attribute(attribute, sign > 0)
    return render(avatar, size)


@dataclass(frozen=True)
class Shown:
    """Files of one image under one edit, relative to the page.

    Attributes:
        item: Whose image.
        targets: Attribute to +1 or -1.
        input: Input picture.
        frames: Edited pictures, one per strength.
        truth: Exact counterfactual, or None.
    """

    item: str
    targets: dict[str, int]
    input: str
    frames: tuple[str, ...]
    truth: str | None


class Pictures:
    """Writes each picture of the report once, and returns its path."""

    def __init__(self, inputs: Inputs, out: Path) -> None:
        """Take the pictures from `inputs`, write them under `out`."""
        self._inputs = inputs
        self._out = out
        self._written: set[Path] = set()

    def show(self, edit: str, items: Sequence[str]) -> list[Shown]:
        """Write input, edited pictures and truth of some images under one edit."""
        wanted = list(items)
        targets = self._inputs.targets(edit)
        pixels, edited = self._inputs.pixels(wanted), self._inputs.edited(edit, wanted)
        shown: list[Shown] = []
        for item, source, frames in zip(wanted, pixels, edited, strict=True):
            truth = counterfactual(self._inputs.factors, item, targets[item], source.shape[-1])
            shown.append(
                Shown(
                    item=item,
                    targets=targets[item],
                    input=self._keep(f"images/input/{item}.png", to_image(source)),
                    frames=tuple(
                        self._keep(f"images/{edit}/{item}-{k}.png", to_image(frame)) for k, frame in enumerate(frames)
                    ),
                    truth=None if truth is None else self._keep(f"images/{edit}/{item}-truth.png", truth),
                )
            )
        return shown

    def compared(self, inputs: Inputs, edit: str, items: Sequence[str], index: int) -> list[str]:
        """Write another method's pictures of some images under one edit, at one of its strengths."""
        folder = f"images/{edit}.{inputs.method}"
        frames = inputs.edited(edit, list(items))[:, index]
        return [
            self._keep(f"{folder}/{item}-{index}.png", to_image(frame))
            for item, frame in zip(items, frames, strict=True)
        ]

    def samples(self, pictures: NDArray[np.uint8], index: int | None = None) -> list[str]:
        """Write [n,C,H,W] images drawn from noise: as drawn, or with attribute number `index` changed."""
        end = "" if index is None else f"-{index}"
        return [
            self._keep(f"images/from.noise/{number:016x}{end}.png", to_image(picture))  # a name that no edit has
            for number, picture in enumerate(pictures)
        ]

    def _keep(self, name: str, image: Image.Image) -> str:
        path = self._out / name
        if path not in self._written:
            buffer = io.BytesIO()
            image.save(buffer, "PNG", optimize=True)
            write_bytes(path, buffer.getvalue())
            self._written.add(path)
        return quote(name)

    def remove_former(self) -> None:
        """Remove the pictures of an earlier report, recognised by their names; other files stay."""
        for path in (self._out / "images").glob("*/*.png"):
            if path not in self._written and _OWN.fullmatch(path.name) and not path.is_symlink():
                path.unlink()
                with suppress(OSError):  # it has other files
                    path.parent.rmdir()


def readme_picture(inputs: Inputs, strengths: Mapping[str, float], *, seed: int, cell: int = 128) -> Image.Image:
    """One picture for a README: a column per edit, rows input, edited and (where it is known) truth.

    The image of each column is drawn by seed among those to which the edit adds something, or among all that it changes
    if it only removes.

    Args:
        inputs: Outputs of the stages.
        strengths: Edit to the strength shown.
        seed: Seed of the draw.
        cell: Side of one enlarged picture, pixels.
    """
    columns: list[tuple[str, int, list[Image.Image | None]]] = []
    for edit in inputs.edit_names:
        targets = inputs.targets(edit)
        adding = [item for item, signs in targets.items() if max(signs.values()) > 0]
        item = drawn(adding or targets, 1, seed=seed, purpose=f"readme {edit}")[0]
        source = inputs.pixels([item])[0]
        edited = inputs.edited(edit, [item])[0][inputs.strengths.index(strengths[edit])]
        truth = counterfactual(inputs.factors, item, targets[item], source.shape[-1])
        sign = next(iter(targets[item].values())) if len(targets[item]) == 1 else 0
        columns.append((edit, sign, [to_image(source), to_image(edited), truth]))
    rows = ["input", "edited"] + ["truth"] * any(pictures[2] is not None for _, _, pictures in columns)
    return _sheet(columns, rows, cell)


def _sheet(columns: Sequence[tuple[str, int, list[Image.Image | None]]], rows: Sequence[str], cell: int) -> Image.Image:
    margin, gap, head, side = 20, 8, 34, 72
    width = 2 * margin + side + len(columns) * (cell + gap) - gap
    height = 2 * margin + head + len(rows) * (cell + gap) - gap
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(16), ImageFont.load_default(15)
    round_corners = Image.new("L", (4 * cell, 4 * cell), 0)
    ImageDraw.Draw(round_corners).rounded_rectangle((0, 0, 4 * cell - 1, 4 * cell - 1), 40, fill=255)
    mask = round_corners.reduce(4)
    for row, label in enumerate(rows):
        y = margin + head + row * (cell + gap) + cell // 2
        pen.text((margin + side - 14, y), label, "#6b6862", small, anchor="rm")
    for column, (edit, sign, pictures) in enumerate(columns):
        x = margin + side + column * (cell + gap)
        title = {1: "+ ", -1: "- ", 0: ""}[sign] + edit.replace("_", " ")
        pen.text((x + cell // 2, margin + head // 2 - 4), title, "#1d1c1a", font, anchor="mm")
        for row, picture in enumerate(pictures[: len(rows)]):
            if picture is not None:
                large = picture.convert("RGB").resize((cell, cell), Image.Resampling.LANCZOS)
                sheet.paste(large, (x, margin + head + row * (cell + gap)), mask)
    return sheet
