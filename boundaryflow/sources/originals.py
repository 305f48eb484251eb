"""A picture at its own size, and what the change of the model's picture makes of it.

A picture stays in its own mode, depth and colour space. What the edit did not change keeps every value. Pictures with
palettes, of CMYK, of 32 bits or with a single transparent colour become RGB or greyscale of 8 bits in sRGB first, and
those of 9 to 16 bits greyscale of 16 bits from black to white.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, ImageFile
from torch import Tensor

from boundaryflow.editing.full_size import Axis, FullSizeChange
from boundaryflow.errors import ManifestError
from boundaryflow.sources.colours import ColourSpace, space_of, srgb_profile, to_srgb_of
from boundaryflow.sources.images import (
    DECODING,
    STRIP,
    bytes_per_pixel,
    flatten,
    load,
    open_picture,
    span_of,
)
from boundaryflow.sources.placement import Placement

MAX_PIXELS = 100_000_000
"""A larger picture is not delivered at its own size: it would be in memory several times. Half of it with 16 bits."""
_PLAIN_MODES = ("L", "LA", "RGB", "RGBA")
_LUMA = np.array([[0.299], [0.587], [0.114]], np.float32)


@dataclass(frozen=True)
class Original:
    """An upright picture.

    Attributes:
        pixels: [H,W,C] uint8 or uint16: grey, grey and alpha, RGB, or RGB and alpha.
        space: Its colour space; None is sRGB.
        profile: ICC profile to write; None for none, as in the file.
        exif: Its EXIF, without orientation; None if it has none.
        placement: Where the model's picture lies in it.
    """

    pixels: NDArray[Any]
    space: ColourSpace | None
    profile: bytes | None
    exif: bytes | None
    placement: Placement

    def edited(self, before: UInt8[Tensor, "c s s"], after: UInt8[Tensor, "c s s"]) -> NDArray[Any]:
        """[H,W,C] the picture with the change from `before` to `after`.

        Args:
            before: The model's picture of it, as `decode_image` gives it.
            after: The edit of that.
        """
        left, top, right, bottom = self.placement.part
        change = FullSizeChange(
            before[:, top:bottom, left:right].float(),
            after[:, top:bottom, left:right].float(),
            Axis(*self.placement.rows),
            Axis(*self.placement.columns),
        )
        result = self.pixels.copy()
        height, width = result.shape[:2]
        rows = max(1, STRIP // width)
        for start in range(0, height, rows):
            stop = min(start + rows, height)
            if change.touches(start, stop):
                result[start:stop] = self._strip(change, start, stop, len(before))
        return result

    def _strip(self, change: FullSizeChange, start: int, stop: int, channels: int) -> NDArray[Any]:
        """The rows from `start` to `stop` after the edit, for a model of 1 or 3 channels."""
        result = self.pixels[start:stop].copy()
        num_colours = result.shape[2] - (result.shape[2] % 2 == 0)
        colours = result[:, :, :num_colours]
        per_level = 1 if result.dtype == np.uint8 else 257
        plain = _picture((colours.astype(np.uint32) + per_level // 2) // per_level)
        seen = self.space.to_srgb(plain) if self.space and self.space.to_srgb else plain
        shown = _pixels(seen.convert("RGB" if channels == 3 else "L"))
        delta = change.of_rows(torch.from_numpy(shown.transpose(2, 0, 1).copy()).float(), start)
        levels = delta.numpy().transpose(1, 2, 0)
        if num_colours < result.shape[2]:
            levels = levels * (result[:, :, num_colours:] / np.float32(255 * per_level))
        if num_colours < levels.shape[2]:
            levels = levels @ _LUMA  # as Pillow converts to grey
        if self.space and self.space.from_srgb:
            wanted = _pixels(seen).astype(np.float32) + levels
            goal = self.space.from_srgb(_picture(wanted.round().clip(0, 255)))
            levels = _pixels(goal).astype(np.float32) - _pixels(self.space.from_srgb(seen)).astype(np.float32)
        result[:, :, :num_colours] = (colours + levels * per_level).round().clip(0, 255 * per_level)
        return result


def read_original(data: bytes, geometry: Mapping[str, Any]) -> Original:
    """Decode a picture at its own size.

    Args:
        data: Bytes of a picture that `decode_image` has decoded with the same geometry.
        geometry: Keyword arguments of `decode_image`.

    Raises:
        ManifestError: The reason it cannot be used, without the file's name.
    """
    with open_picture(data) as picture:
        width, height = picture.size
        has_16_bits = picture.mode.startswith("I") or _has_16_bit_colours(picture, data)
        most = MAX_PIXELS // 2 if has_16_bits else MAX_PIXELS
        if width * height > most:
            raise ManifestError(
                f"{width} x {height} are more than the {most:,} pixels up to which originals are edited; make it "
                "smaller, or deliver the model's pictures (deliver: model)"
            )
        span = span_of(picture, geometry["levels"])
        with DECODING.lent(width * height * bytes_per_pixel(picture, data)):
            load(picture)
            placement = Placement.of(*picture.size, geometry["size"], geometry["fit"], geometry["crop"])
            exif = picture.getexif()
            written = exif.tobytes() if len(exif) else None
            if _has_16_bit_colours(picture, data):
                pixels, like, is_converted = _colours_of_16_bits(picture, data), picture, False
            elif span is not None and picture.mode.startswith("I"):
                pixels, like, is_converted = _greys_of_16_bits(picture, span), picture, False
            else:
                like, is_converted = _plain(picture, span, geometry["background"])
                pixels = _pixels(like)
            space = None if is_converted else space_of(_pixel_like(like))
            profile = srgb_profile() if is_converted and picture.info.get("icc_profile") else space and space.profile
    return Original(pixels, space, profile, written, placement)


def _plain(
    picture: ImageFile.ImageFile, span: tuple[float, float] | None, background: Sequence[int]
) -> tuple[Image.Image, bool]:
    """The picture in one of `_PLAIN_MODES` with 8 bits, and whether its colours had to be converted to sRGB."""
    is_keyed = picture.has_transparency_data and picture.mode in ("L", "RGB")
    if picture.mode in _PLAIN_MODES:
        opaque = picture.convert("RGBA" if picture.mode == "RGB" else "LA") if is_keyed else picture
        space = space_of(_pixel_like(picture))
        if space is not None or to_srgb_of(picture) is None:
            return opaque, False
    if picture.has_transparency_data:
        convert = to_srgb_of(picture)
        return (convert(picture) if convert else picture).convert("RGBA"), True
    channels = 1 if picture.mode in ("1", "L") or span else 3
    return flatten(picture, (0, 0, *picture.size), channels, background, span), True


def _pixel_like(picture: Image.Image) -> Image.Image:
    """A pixel with the picture's profile, grey or RGB as its colours are."""
    pixel = Image.new("RGB" if picture.mode in ("RGB", "RGBA") else "L", (1, 1))
    pixel.info = picture.info
    return pixel


def _greys_of_16_bits(picture: Image.Image, span: tuple[float, float]) -> NDArray[np.uint16]:
    """[H,W,1] of a picture with more than 8 bits."""
    low, high = span
    values = np.asarray(picture)
    if (low, high) == (0.0, 65535.0):
        return values.astype(np.uint16)[:, :, None]
    return ((values - low) / (high - low) * 65535).round().clip(0, 65535).astype(np.uint16)[:, :, None]


def _has_16_bit_colours(picture: ImageFile.ImageFile, data: bytes) -> bool:
    """Whether a picture is a PNG of 16 bits with colours or alpha, of which Pillow keeps 8 bits."""
    is_deep = picture.format == "PNG" and data[24] == 16 and data[25] in (2, 4, 6)  # IHDR: bit depth and colour type
    return is_deep and "transparency" not in picture.info


def _colours_of_16_bits(picture: ImageFile.ImageFile, data: bytes) -> NDArray[np.uint16]:
    """[H,W,C] upright, of such a picture.

    Pillow's decoder is made to give the bytes that it leaves out: the lower ones of colours, and all of grey and alpha.
    """
    with Image.open(io.BytesIO(data), formats=["PNG"]) as again:
        packing = str(again.tile[0].args)
        has_all = packing == "LA;16B"
        again.tile = [again.tile[0]._replace(args="RGBA" if has_all else packing.replace("16B", "16L"))]
        load(again)
        found = _pixels(again)
    if has_all:
        return (found[:, :, ::2].astype(np.uint16) * 256 + found[:, :, 1::2]).astype(np.uint16)
    return (_pixels(picture).astype(np.uint16) * 256 + found).astype(np.uint16)


def _pixels(picture: Image.Image) -> NDArray[np.uint8]:
    """[H,W,C]."""
    pixels = np.array(picture, np.uint8)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _picture(pixels: NDArray[Any]) -> Image.Image:
    """Of pixels [H,W,1] or [H,W,3], 0 to 255."""
    pixels = pixels.astype(np.uint8)
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
