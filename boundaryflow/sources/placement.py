"""Where the model's square picture lies in the picture that it was made from: the way there and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from boundaryflow.errors import ManifestError

Fit = Literal["crop", "pad", "stretch"]
Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""


@dataclass(frozen=True)
class Placement:
    """A box of an upright picture that is scaled to a part of the model's picture, all of it unless it is padded.

    Attributes:
        size: Side of the model's picture.
        whole: Width and height of the upright picture.
        box: Left, top, right and bottom of the box; they need not be whole numbers.
        part: Left, top, right and bottom of the part.
    """

    size: int
    whole: tuple[int, int]
    box: tuple[float, float, float, float]
    part: tuple[int, int, int, int]

    @classmethod
    def of(cls, width: int, height: int, size: int, fit: Fit, crop: Box | None = None) -> Placement:
        """The placement of an upright picture; see `decode_image` for the arguments.

        Raises:
            ManifestError: The picture is smaller than the crop box.
        """
        left, top, right, bottom = box_of(width, height, size, crop)
        across, down = right - left, bottom - top
        part = (0, 0, size, size)
        box: tuple[float, float, float, float] = (left, top, right, bottom)
        if fit == "crop":
            side = min(across, down)
            x, y = left + (across - side) / 2, top + (down - side) / 2
            box = (x, y, x + side, y + side)
        elif fit == "pad":
            longest = max(across, down)
            wide, high = (size if of == longest else max(1, round(of / longest * size)) for of in (across, down))
            x, y = round((size - wide) / 2), round((size - high) / 2)
            part = (x, y, x + wide, y + high)
        return cls(size, (width, height), box, part)

    def apply(self, picture: Image.Image, colour: int | tuple[int, ...]) -> Image.Image:
        """The model's picture of an upright picture; what is padded gets the colour."""
        left, top, right, bottom = self.part
        if picture.size == (self.size, self.size) and self.box == (0, 0, *picture.size):
            return picture
        scaled = picture.resize((right - left, bottom - top), Image.Resampling.LANCZOS, box=self.box)
        if scaled.size == (self.size, self.size):
            return scaled
        padded = Image.new(picture.mode, (self.size, self.size), colour)
        padded.paste(scaled, (left, top))
        return padded

    @property
    def rows(self) -> tuple[int, float, float, int]:
        """The way back, from top to bottom, as the fields of `boundaryflow.editing.full_size.Axis`."""
        return self.whole[1], self.box[1], self.box[3], self.part[3] - self.part[1]

    @property
    def columns(self) -> tuple[int, float, float, int]:
        """The way back, from left to right."""
        return self.whole[0], self.box[0], self.box[2], self.part[2] - self.part[0]


def is_cropped(width_px: int, height_px: int, size: int, crop: Box) -> bool:
    """Whether a picture counts as cropped already: its sides are `size`, and the box does not fit into it."""
    left, top, width, height = crop
    return (width_px, height_px) == (size, size) and (left + width > size or top + height > size)


def box_of(width_px: int, height_px: int, size: int, crop: Box | None) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the part of a picture that is used.

    Raises:
        ManifestError: The picture is smaller than the crop box.
    """
    if crop is None or is_cropped(width_px, height_px, size, crop):
        return 0, 0, width_px, height_px
    left, top, width, height = crop
    if left + width > width_px or top + height > height_px:
        raise ManifestError(
            f"{width_px} x {height_px} is smaller than the crop box, {width} x {height} from {left}, {top}"
        )
    return left, top, left + width, top + height


def colour_of(mode: str, background: Sequence[int]) -> int | tuple[int, ...]:
    """The background as a colour of a picture of mode RGB or L."""
    return tuple(background) if mode == "RGB" else round(sum(background) / 3)
