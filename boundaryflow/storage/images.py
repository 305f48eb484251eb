"""Between image files and tensors. Clipping and rounding happen here and nowhere else."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from boundaryflow.errors import ManifestError

Fit = Literal["crop", "pad", "stretch"]
Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""
MAX_PIXELS = 200_000_000
"""Larger pictures are set aside: they would need gigabytes to decode."""
_FACTS_BYTES = 2**16
"""Of a PNG file, in which the facts of `encode_png` lie."""
MAX_ASPECT = 8.0
"""Narrower pictures are set aside: what a crop leaves of them shows nothing of the whole."""


def to_model_range(
    pixels_u8: UInt8[Tensor, "*n c h w"], value_range: tuple[float, float] = (-1.0, 1.0)
) -> Float[Tensor, "*n c h w"]:
    """Pixels 0..255 to what the model takes for black and white."""
    low, high = value_range
    return pixels_u8.float() * ((high - low) / 255) + low


def to_u8(x_0: Float[Tensor, "*n c h w"], value_range: tuple[float, float] = (-1.0, 1.0)) -> UInt8[Tensor, "*n c h w"]:
    """Model range to pixels 0..255, clipped and rounded."""
    low, high = value_range
    return ((x_0.float() - low) * (255 / (high - low))).round().clamp(0, 255).to(torch.uint8)


def read_image(
    path: Path, size: int, channels: int, fit: Fit, background: Sequence[int], crop: Box | None = None
) -> NDArray[np.uint8]:
    """Decode an image file; see `decode_image`. The message of an error names the file."""
    try:
        return decode_image(path.read_bytes(), size, channels, fit, background, crop)[0]
    except ManifestError as error:
        raise ManifestError(f"image {path}: {error}") from None


def decode_image(
    data: bytes, size: int, channels: int, fit: Fit, background: Sequence[int], crop: Box | None = None
) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Decode, turn as EXIF says, lay over the background, cut out the crop, bring to size.

    Args:
        data: Bytes of a picture in any format that Pillow reads; of an animation the first frame.
        size: Side of the result in pixels.
        channels: 3 for RGB, 1 for greyscale.
        fit: `crop` scales the short side to size and cuts the middle, `pad` scales the long side
            and fills with the background, `stretch` scales both.
        background: RGB colour, 0 to 255, under transparent pixels.
        crop: What of the upright picture is used, in its own pixels; None is all of it.

    Returns:
        [channels,size,size] pixels, and the file's own width_px, height_px, format and mode.

    Raises:
        ManifestError: The reason it cannot be used, without the file's name.
    """
    if not data:
        raise ManifestError("the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as picture:
            about = {
                "width_px": picture.width,
                "height_px": picture.height,
                "format": picture.format or "",
                "mode": picture.mode,
            }
            _check_size(picture, crop)
            if picture.format == "JPEG" and crop is None:
                picture.draft("RGB", (2 * size, 2 * size))  # decodes large pictures at a fraction
            picture.load()
            upright = ImageOps.exif_transpose(picture)
            plain = _cut(_flatten(upright, channels, background), crop)
    except UnidentifiedImageError:
        raise ManifestError("not an image that can be read") from None
    except ManifestError:
        raise
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise ManifestError(f"damaged ({str(error).splitlines()[0] if str(error) else type(error).__name__})") from None
    fitted = _fit(plain, size, fit, background)
    pixels = np.array(fitted, np.uint8)  # a copy: the picture's own bytes cannot be written to
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)), about


def _check_size(picture: Image.Image, crop: Box | None) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise ManifestError(f"{width} x {height} are more than {MAX_PIXELS:,} pixels; make it smaller")
    if crop is None and max(width, height) > MAX_ASPECT * min(width, height):
        raise ManifestError(f"{width} x {height} is longer than {MAX_ASPECT:g} times its width; crop it by hand")


def _cut(picture: Image.Image, crop: Box | None) -> Image.Image:
    if crop is None:
        return picture
    left, top, width, height = crop
    if left + width > picture.width or top + height > picture.height:
        raise ManifestError(
            f"{picture.width} x {picture.height} is smaller than the crop box, {width} x {height} from {left}, {top}"
        )
    return picture.crop((left, top, left + width, top + height))


def _flatten(picture: Image.Image, channels: int, background: Sequence[int]) -> Image.Image:
    """RGB or greyscale with nothing see-through."""
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture, np.float64)
        top = 65535.0 if values.max() > 255 else 255.0
        picture = Image.fromarray((values / top * 255).round().clip(0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        over = picture.convert("RGBA")
        ground = Image.new("RGBA", over.size, (*background, 255))
        picture = Image.alpha_composite(ground, over)
    return picture.convert("RGB" if channels == 3 else "L")


def _fit(picture: Image.Image, size: int, fit: Fit, background: Sequence[int]) -> Image.Image:
    if picture.size == (size, size):
        return picture
    if fit == "stretch":
        return picture.resize((size, size), Image.Resampling.LANCZOS)
    if fit == "crop":
        return ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)
    colour = tuple(background) if picture.mode == "RGB" else round(sum(background) / 3)
    return ImageOps.pad(picture, (size, size), Image.Resampling.LANCZOS, color=colour)


def encode_png(pixels_u8: UInt8[Tensor, "c h w"], facts: Mapping[str, str] | None = None) -> bytes:
    """A PNG file with facts in its text chunks; the same bytes for the same content.

    Args:
        pixels_u8: [C,H,W] with 1 or 3 channels.
        facts: Keyword to text.
    """
    array = pixels_u8.cpu().numpy()
    about = PngImagePlugin.PngInfo()
    for name, text in sorted((facts or {}).items()):
        about.add_text(name, text)
    buffer = io.BytesIO()
    Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0)).save(buffer, "PNG", pnginfo=about)
    return buffer.getvalue()


def is_synthetic(data: bytes) -> bool:
    """Whether a file is a PNG that `encode_png` wrote with the fact `synthetic: true`."""
    return data.startswith(b"\x89PNG") and b"tEXtsynthetic\x00true" in data[:_FACTS_BYTES]


ImageFile.LOAD_TRUNCATED_IMAGES = False  # a truncated picture is set aside, never half used
Image.MAX_IMAGE_PIXELS = None  # `_check_size` decides, with a message of its own
