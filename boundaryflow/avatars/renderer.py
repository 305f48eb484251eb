"""Draw an avatar: its picture, and the exact map of which part each pixel shows."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from boundaryflow.avatars.factors import Avatar

PARTS: tuple[str, ...] = ("background", "skin", "hair", "eyes", "mouth", "eyeglasses", "beard", "hat", "shirt")

_UNIT = 256  # lengths in `FACTORS` are in 1/256 of the side
_OVERSAMPLE = 4

Colour = tuple[float, float, float]  # each in [0, 1]


class _Shape(NamedTuple):
    """One call of Pillow's ImageDraw; later shapes cover earlier ones."""

    draw: str
    points: list[float]
    part: str
    colour: Colour
    options: dict[str, Any]


def render(avatar: Avatar, size: int = 64) -> Image.Image:
    """Draw the picture.

    Args:
        avatar: The face.
        size: Side in pixels. Shapes are drawn four times as large, then averaged.

    Returns:
        RGB image of size x size.
    """
    side = size * _OVERSAMPLE
    canvas = Image.fromarray(_background(avatar, side))
    _draw(canvas, avatar, {})
    small = np.asarray(canvas.reduce(_OVERSAMPLE), np.float32)
    across = np.linspace(-1, 1, size, dtype=np.float32)[None, :, None]
    lit = small * (1 + avatar.factors["light"]) * (1 + avatar.factors["light_side"] * across)
    return Image.fromarray(lit.clip(0, 255).round().astype(np.uint8))


def segment(avatar: Avatar, size: int = 64) -> NDArray[np.uint8]:
    """Index into `PARTS` of what each pixel shows most of.

    Returns:
        [size, size] array.
    """
    side = size * _OVERSAMPLE
    canvas = Image.new("L", (side, side), 0)
    _draw(canvas, avatar, {part: index for index, part in enumerate(PARTS)})
    blocks = np.asarray(canvas).reshape(size, _OVERSAMPLE, size, _OVERSAMPLE).swapaxes(1, 2).reshape(size, size, -1)
    counts = np.stack([(blocks == index).sum(-1) for index in range(len(PARTS))])
    return counts.argmax(0).astype(np.uint8)


def _draw(canvas: Image.Image, avatar: Avatar, labels: dict[str, int]) -> None:
    """Draw every shape, in its colour or, where `labels` is given, in its part's number."""
    pen = ImageDraw.Draw(canvas)
    scale = canvas.width / _UNIT
    for shape in _shapes(avatar):
        ink: Any = labels[shape.part] if labels else tuple(round(255 * min(max(c, 0), 1)) for c in shape.colour)
        options = {k: round(v * scale) if k == "width" else v for k, v in shape.options.items()}
        if "radius" in options:
            options["radius"] *= scale
        ink_as = "outline" if shape.draw == "ellipse" and "width" in options else "fill"
        args = [options.pop("start"), options.pop("end")] if shape.draw == "chord" else []
        getattr(pen, shape.draw)([p * scale for p in shape.points], *args, **{ink_as: ink}, **options)


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    return colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1))


def _add(colour: Colour, amount: float) -> Colour:
    return (colour[0] + amount, colour[1] + amount, colour[2] + amount)


def _times(colour: Colour, by: float) -> Colour:
    return (colour[0] * by, colour[1] * by, colour[2] * by)


def _background(avatar: Avatar, side: int) -> NDArray[np.uint8]:
    f = avatar.factors
    top = np.array(_hsv(f["background_hue"], f["background_saturation"], f["background_value"]))
    fade = 1 - 0.3 * np.linspace(0, 1, side)
    column = (255 * top[None, :] * fade[:, None]).round().astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(column[:, None, :], (side, side, 3)))


def _shapes(avatar: Avatar) -> Iterator[_Shape]:
    """All shapes of a face, from back to front."""
    a, f = avatar.attributes, avatar.factors
    skin = _add((0.50, 0.32, 0.22) if a["dark_skin"] else (0.94, 0.77, 0.66), f["skin_tone"])
    hair = _add((0.90, 0.75, 0.36) if a["blond_hair"] else (0.24, 0.15, 0.10), f["hair_tone"])
    cloth = _hsv(f["shirt_hue"], 0.55, f["shirt_value"])
    yield from _head(avatar, skin, hair, cloth)
    if a["beard"]:
        yield from _beard(avatar, _times(hair, 0.8))
    yield from _eyes(avatar, _times(hair, 0.75))
    yield from _nose(avatar, _times(skin, 0.8))
    yield from _mouth(avatar)
    if a["eyeglasses"]:
        yield from _eyeglasses(avatar)
    if a["hat"]:
        yield from _hat(avatar, cloth)


def _box(x: float, y: float, half_width: float, half_height: float) -> list[float]:
    return [x - half_width, y - half_height, x + half_width, y + half_height]


def _head(avatar: Avatar, skin: Colour, hair: Colour, cloth: Colour) -> Iterator[_Shape]:
    f = avatar.factors
    x, y, w, h = f["centre_x"], f["centre_y"], f["face_width"], f["face_height"]
    shade = _times(skin, 0.82)
    if avatar.attributes["long_hair"]:
        back = [x - w - 20, y - h + 4, x + w + 20, y + h + 34]
        yield _Shape("rounded_rectangle", back, "hair", _times(hair, 0.85), {"radius": 48})
    yield _Shape("rectangle", _box(x, y + h, 25, 34), "skin", shade, {})
    yield _Shape("ellipse", [x - 104, y + h + 10, x + 104, y + h + 170], "shirt", cloth, {})
    for side in (-1, 1):
        yield _Shape("ellipse", _box(x + side * (w - 1), y + 2, 12, 18), "skin", shade, {})
    yield _Shape("ellipse", [x - w - 8, y - h - 16, x + w + 8, y + 34], "hair", hair, {})
    yield _Shape("ellipse", _box(x, y, w, h), "skin", skin, {})
    fringe = [x - w - 4, y - h - 12, x + w + 4, y + h * 0.9]
    yield _Shape("chord", fringe, "hair", hair, {"start": 202, "end": 338})


def _beard(avatar: Avatar, colour: Colour) -> Iterator[_Shape]:
    f = avatar.factors
    x, y, w, h = f["centre_x"], f["centre_y"], f["face_width"], f["face_height"]
    jaw = [x - w + 2, y - h * 0.55, x + w - 2, y + h + 7]
    yield _Shape("chord", jaw, "beard", colour, {"start": 16, "end": 164})


def _eyes(avatar: Avatar, brow: Colour) -> Iterator[_Shape]:
    f = avatar.factors
    x, y, r = f["centre_x"] + f["yaw"], f["centre_y"] - 12, f["eye_size"]
    for side in (-1, 1):
        ex = x + side * f["eye_gap"]
        px = ex + f["gaze"] * r
        yield _Shape("ellipse", _box(ex, y, r * 1.35, r), "eyes", (0.98, 0.98, 0.98), {})
        yield _Shape("ellipse", _box(px, y, r * 0.8, r * 0.8), "eyes", _hsv(f["iris_hue"], 0.6, 0.5), {})
        yield _Shape("ellipse", _box(px, y, r * 0.4, r * 0.4), "eyes", (0.05, 0.05, 0.05), {})
        tilt = side * f["brow_tilt"]
        line = [ex - r * 1.6, y - r * 2 + tilt, ex + r * 1.6, y - r * 2 - tilt]
        yield _Shape("line", line, "hair", brow, {"width": 7})


def _nose(avatar: Avatar, colour: Colour) -> Iterator[_Shape]:
    f = avatar.factors
    x, y = f["centre_x"] + f["yaw"], f["centre_y"] - 4
    tip_x, tip_y = x + 0.4 * f["yaw"], y + f["nose_length"]
    yield _Shape("polygon", [x - 3, y, x + 3, y, tip_x + 9, tip_y, tip_x - 9, tip_y], "skin", colour, {})
    yield _Shape("ellipse", _box(tip_x, tip_y, 9, 6), "skin", colour, {})


def _mouth(avatar: Avatar) -> Iterator[_Shape]:
    a, f = avatar.attributes, avatar.factors
    x, y, half = f["centre_x"] + f["yaw"], f["centre_y"] + 46, f["mouth_width"]
    lip = (0.52, 0.18, 0.18) if a["dark_skin"] else (0.76, 0.25, 0.25)
    curve = (17 if a["smiling"] else -8) + f["mouth_curve"]
    across = np.linspace(-1, 1, 25)

    def arc(reach: float, drop: float) -> list[tuple[float, float]]:
        """A parabola whose ends are higher than its middle by `curve`, sunk by `drop` there."""
        return [(x + reach * u * half, y - curve * (u * u - 0.5) + drop * (1 - u * u)) for u in across]

    def flat(points: list[tuple[float, float]]) -> list[float]:
        return [value for point in points for value in point]

    if a["mouth_open"]:
        upper, lower = arc(1, -6), arc(1, 20)
        outline = upper + lower[::-1]
        yield _Shape("polygon", flat(outline), "mouth", (0.28, 0.06, 0.08), {})
        teeth = arc(0.85, -5) + arc(0.85, 4)[::-1]
        yield _Shape("polygon", flat(teeth), "mouth", (0.96, 0.94, 0.92), {})
        yield _Shape("line", flat([*outline, outline[0]]), "mouth", lip, {"width": 7, "joint": "curve"})
    else:
        yield _Shape("line", flat(arc(1, 0)), "mouth", lip, {"width": 10, "joint": "curve"})


def _eyeglasses(avatar: Avatar) -> Iterator[_Shape]:
    f = avatar.factors
    x, y, gap = f["centre_x"] + f["yaw"], f["centre_y"] - 12, f["eye_gap"]
    rim, ink = 24, (0.09, 0.09, 0.11)
    yield _Shape("line", [x - gap + rim - 3, y - 3, x + gap - rim + 3, y - 3], "eyeglasses", ink, {"width": 7})
    for side in (-1, 1):
        ex = x + side * gap
        yield _Shape("ellipse", _box(ex, y, rim, rim - 2), "eyeglasses", ink, {"width": 7})
        temple = [ex + side * (rim - 2), y - 4, f["centre_x"] + side * (f["face_width"] + 2), y - 8]
        yield _Shape("line", temple, "eyeglasses", ink, {"width": 6})


def _hat(avatar: Avatar, colour: Colour) -> Iterator[_Shape]:
    f = avatar.factors
    x, y, w, h = f["centre_x"], f["centre_y"], f["face_width"], f["face_height"]
    crown = [x - w - 10, y - h - 36, x + w + 10, y + 36]
    yield _Shape("chord", crown, "hat", colour, {"start": 180, "end": 360})
    brim = [x - w - 20 + f["yaw"], y - h + 32, x + w + 20 + f["yaw"], y - h + 50]
    yield _Shape("rounded_rectangle", brim, "hat", _times(colour, 0.72), {"radius": 7})
