"""From image files to pixels of one size.

Pictures are untrusted. Only the formats of `FORMATS` are tried. The size stated in the header is checked before
decoding, and the decoded size must equal it. Decoding one picture takes at most `MAX_DECODED_BYTES`; all pictures that
a process decodes at the same time share the budget `DECODING`.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError, features

from boundaryflow.errors import ManifestError, PipelineError
from boundaryflow.files import RefusedFileError, read_bytes
from boundaryflow.sources.archives import MAX_BYTES
from boundaryflow.sources.colours import to_srgb_of
from boundaryflow.sources.placement import Box, Fit, Placement, box_of, colour_of
from boundaryflow.text import visible

FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"),
    *(("AVIF",) if features.check("avif") else ()),
    *(("JPEG2000",) if features.check("jpg_2000") else ()),
)
"""Formats that are read, by Pillow's names. Its other decoders run programs, or open pictures within pictures."""
MAX_DECODED_BYTES = 1_600_000_000
"""Limit of memory for decoding one picture; one that needs more is rejected."""
_BYTES_PER_PIXEL = {"TIFF": 16, "WEBP": 24, "AVIF": 32, "JPEG2000": 32, "PPM": 12}
"""Bytes per pixel that decoding needs at most, if more than `_PLAIN`; see tests/unit/store/test_picture_bounds.py."""
_PLAIN = 8  # decoded and turned or converted, each with 4 bytes a pixel
_SCANNED = 12  # of a JPEG in several scans: 4 bytes decoded, and 2 for each of 4 values of all scans
MAX_ASPECT = 8.0
"""Pictures with a larger ratio of sides are rejected when cropping, as the crop would show too little of them."""
_MAX_TILE = 2**24  # limit of pixels in a tile of a TIFF, unless the picture itself has more
_MAX_SCANS, _MAX_SCANNED = 1000, 8_000_000_000  # limits for a JPEG: scans, and pixels times scans (some seconds)
_MAX_CHUNKS = 100_000  # limit for a PNG (a second)
_SCAN = b"\xff\xda"  # the marker at its start
_SEGMENT = re.compile(rb"\xff[\xc0-\xcf\xdb-\xfe]")  # a marker segment before it, with a length
_PNG = b"\x89PNG\r\n\x1a\n"
STRIP = 2**20  # pixels converted at once


def read_image(path: Path, **geometry: Any) -> NDArray[np.uint8]:
    """Decode an image file; see `decode_image`. The message of an error names the file."""
    try:
        return decode_image(read_bytes(path, MAX_BYTES), **geometry)[0]
    except RefusedFileError as error:
        raise ManifestError(f"image {path}: {error.reason}") from None
    except ManifestError as error:
        raise ManifestError(f"image {path}: {error}") from None


def decode_image(
    data: bytes,
    size: int,
    channels: int,
    fit: Fit,
    background: Sequence[int],
    crop: Box | None = None,
    levels: Sequence[float] | None = None,
) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Decode a picture, rotate it as EXIF says, crop, convert to sRGB, blend with the background, and resize.

    Args:
        data: Bytes of a picture in one of `FORMATS`; the first frame of an animation is used.
        size: Side of the result in pixels.
        channels: 3 for RGB, 1 for greyscale.
        fit: `crop` scales the short side to size and cuts the middle, `pad` scales the long side
            and fills with the background, `stretch` scales both.
        background: RGB colour, 0 to 255, under transparent pixels.
        crop: Part of the upright picture to use, in pixels; None for all of it. A picture that is too small for the
            box, but whose sides are `size`, counts as cropped already.
        levels: Values of black and white of pictures with more than 8 bits. None means 0 and 65535 for 16 bits, 0 and
            4095 for 12 bits, and refuses others. They are swapped for a TIFF in which zero is white.

    Returns:
        [channels,size,size] pixels, and width_px, height_px, format and mode of the file.

    Raises:
        ManifestError: The reason it cannot be used, without the file's name.
    """
    with open_picture(data) as picture:
        about = {
            "width_px": picture.width,
            "height_px": picture.height,
            "format": picture.format or "",
            "mode": picture.mode,
        }
        if fit == "crop" and crop is None:
            _check_aspect(picture)
        stated = picture.size
        if picture.format == "JPEG" and crop is None:
            picture.draft("RGB", (2 * size, 2 * size))  # decodes a large JPEG at reduced size
        span = span_of(picture, levels)
        width, height = stated if _is_scanned(picture, data) else picture.size
        with DECODING.lent(width * height * bytes_per_pixel(picture, data)):
            load(picture)
            plain = flatten(picture, box_of(*picture.size, size, crop), channels, background, span)
            placement = Placement.of(*plain.size, size, fit)
            fitted = placement.apply(plain, colour_of(plain.mode, background))
        pixels = np.array(fitted, np.uint8)  # a copy, as the picture's buffer is read-only
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)), about


@contextmanager
def open_picture(data: bytes) -> Generator[ImageFile.ImageFile]:
    """Open a picture and check its header against the limits, without decoding its pixels.

    Raises:
        ManifestError: The reason it cannot be used; also what a decoder raises within the `with` block.
    """
    if not data:
        raise ManifestError("the file is empty")
    _check_chunks(data)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            _check_bounds(picture, data)
            yield picture
    except UnidentifiedImageError:
        raise ManifestError(f"not an image that can be read (a format of {', '.join(FORMATS)})") from None
    except (PipelineError, MemoryError):
        raise
    except Exception as error:  # decoders raise many kinds of errors for damaged files
        raise ManifestError(f"damaged ({_line(error)})") from None


def _line(error: Exception) -> str:
    return visible(str(error).splitlines()[0][:200]) if str(error) else type(error).__name__


def bytes_per_pixel(picture: Image.Image, data: bytes) -> int:
    """Bytes per pixel that decoding takes at most."""
    return _SCANNED if _is_scanned(picture, data) else _BYTES_PER_PIXEL.get(picture.format or "", _PLAIN)


def _is_scanned(picture: Image.Image, data: bytes) -> bool:
    """Whether a picture is a JPEG that may have several scans: progressive, or with some colours in the first only.

    libjpeg reads only one scan of other JPEGs. A JPEG whose segments are not contiguous counts as one with several.
    """
    if picture.format not in ("JPEG", "MPO"):
        return False
    at, num = 2, len(picture.getbands())
    while _SEGMENT.match(data, at):
        at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    return "progressive" in picture.info or not data.startswith(_SCAN + bytes([0, 6 + 2 * num, num]), at)


def _check_chunks(data: bytes) -> None:
    """Refuse a PNG with so many chunks that reading them takes long."""
    at, num = len(_PNG), 0
    while data.startswith(_PNG) and at < len(data) and data[at + 4 : at + 8] != b"IEND":
        at, num = at + 12 + int.from_bytes(data[at : at + 4], "big"), num + 1
        if num > _MAX_CHUNKS:
            raise ManifestError(f"has more than {_MAX_CHUNKS:,} chunks; save it again")


def _check_bounds(picture: ImageFile.ImageFile, data: bytes) -> None:
    """Refuse, by its headers, a picture that would take too much memory or time, or contains a larger picture."""
    width, height = picture.size
    num = width * height
    most = MAX_DECODED_BYTES // bytes_per_pixel(picture, data)
    if num > most:
        raise ManifestError(f"{width} x {height} are more than {most:,} pixels; make it smaller")
    tags: Mapping[int, Any] = getattr(picture, "tag_v2", {})
    tile = [tags.get(key, 0) for key in (322, 323)]  # TileWidth, TileLength
    if not all(isinstance(side, int) for side in tile) or tile[0] * tile[1] > max(_MAX_TILE, num):
        raise ManifestError(f"{width} x {height} in tiles of {tile[0]} x {tile[1]}; save it again")
    num_scans = data.count(_SCAN) if _is_scanned(picture, data) else 1
    if num_scans > _MAX_SCANS or num_scans * num > _MAX_SCANNED:
        raise ManifestError(f"{width} x {height} in {num_scans:,} scans; save it again")
    if picture.format == "JPEG2000":
        at = data.find(b"\xff\x4f\xff\x51") + 4  # the SIZ segment, from which the decoder takes the size
        right, bottom, left, top = (int.from_bytes(data[at + n : at + n + 4], "big") for n in (4, 8, 12, 16))
        if (right - left, bottom - top) != picture.size or int.from_bytes(data[at + 36 : at + 38], "big") > 4:
            raise _other_size(picture.size, (right - left, bottom - top))


def _other_size(stated: tuple[int, int], found: tuple[int, int]) -> ManifestError:
    return ManifestError(f"damaged ({stated[0]} x {stated[1]} by its header, but {found[0]} x {found[1]})")


def _check_aspect(picture: Image.Image) -> None:
    width, height = picture.size
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ManifestError(f"{width} x {height} is longer than {MAX_ASPECT:g} times its width; crop it by hand")


def load(picture: ImageFile.ImageFile) -> None:
    """Decode, check the size against the header, and rotate upright."""
    stated = picture.size
    if picture.format == "PNG" and "transparency" in picture.info:
        _mend_key(picture)
    picture.load()
    if picture.size != stated or picture.im.size != stated:
        raise _other_size(stated, picture.im.size)
    ImageOps.exif_transpose(picture, in_place=True)


def _mend_key(picture: ImageFile.ImageFile) -> None:
    """Scale the transparent grey value of a PNG below 8 bits to 8 bits; Pillow scales only the pixels."""
    packing = str(picture.tile[0].args)
    if packing.endswith(";16B"):  # Pillow keeps one byte of each pixel, but compares it with the other byte of the key
        raise ManifestError("16 bits and a transparent colour (tRNS), which are not read together; save it with alpha")
    picture.info["transparency"] = picture.info["transparency"] * {"L;2": 85, "L;4": 17}.get(packing, 1)


def span_of(picture: Image.Image, levels: Sequence[float] | None) -> tuple[float, float] | None:
    """Values of black and white; None for a picture with 8 bits."""
    if not (picture.mode.startswith("I") or picture.mode == "F"):
        return None
    tags: Mapping[int, Any] = getattr(picture, "tag_v2", {})
    bits: int = tags.get(258, (16,))[0]  # BitsPerSample: 12 or 16
    if levels is not None:
        black, white = levels
    elif picture.mode.startswith("I;16") or picture.format == "PPM" and picture.mode == "I":
        black, white = 0.0, 2.0**bits - 1
    else:
        kind = "floating-point numbers" if picture.mode == "F" else "numbers of 32 bits"
        raise ManifestError(f"{kind}, whose range is unknown; state the values of black and white in ingest.levels")
    is_inverted = bool(tags) and not tags.get(262, 0)  # PhotometricInterpretation 0: white is zero
    return (white, black) if is_inverted else (black, white)


def flatten(
    picture: Image.Image, box: Box, channels: int, background: Sequence[int], span: tuple[float, float] | None
) -> Image.Image:
    """The box as an opaque picture in sRGB or greyscale; converted strip by strip, to save memory."""
    mode = "RGB" if channels == 3 else "L"
    convert = to_srgb_of(picture)
    if picture.mode == mode and convert is None and not picture.has_transparency_data:
        return picture if box == (0, 0, *picture.size) else picture.crop(box)
    left, top, right, bottom = box
    whole = Image.new(mode, (right - left, bottom - top))
    rows = max(1, STRIP // whole.width)
    for at in range(top, bottom, rows):
        strip = picture.crop((left, at, right, min(at + rows, bottom)))
        if span is not None:
            strip = in_8_bits(strip, span)
        if convert is not None:
            strip = convert(strip)
        if strip.has_transparency_data:
            over = strip.convert("RGBA")
            strip = Image.alpha_composite(Image.new("RGBA", over.size, (*background, 255)), over)
        whole.paste(strip.convert(mode), (0, at - top))
    return whole


def in_8_bits(strip: Image.Image, span: tuple[float, float]) -> Image.Image:
    """A greyscale picture with 8 bits of one with more, whose black and white are `span`."""
    values = np.asarray(strip, np.float64)
    if not np.isfinite(values).all():
        raise ManifestError("has values that are NaN or infinite")
    low, high = span
    return Image.fromarray(((values - low) / (high - low) * 255).round().clip(0, 255).astype(np.uint8))


class _Budget:
    """A budget of memory that the threads of a process share; a thread that needs more than is left waits."""

    def __init__(self, num_bytes: int) -> None:
        self._free = num_bytes
        self._changed = threading.Condition()

    @contextmanager
    def lent(self, num_bytes: int) -> Generator[None]:
        """Reserve this many bytes during the block, at most the whole budget."""
        with self._changed:
            self._changed.wait_for(lambda: self._free >= num_bytes)
            self._free -= num_bytes
        try:
            yield
        finally:
            with self._changed:
                self._free += num_bytes
                self._changed.notify_all()


DECODING = _Budget(2_000_000_000)
"""More than one picture needs, and less than 16 threads could need."""


ImageFile.LOAD_TRUNCATED_IMAGES = False  # truncated pictures are rejected
Image.MAX_IMAGE_PIXELS = None  # `_check_bounds` sets the limit, with its own message
