"""Conversion to sRGB, and back, by the colour profile that is embedded in a picture."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms

_MAX_PROFILE = 4 * 2**20  # bytes
_SRGB_STEP = 2  # of 255: a profile that changes colours by at most this much counts as sRGB
_SPACES = {"RGB ": ("RGB", "RGBA"), "CMYK": ("CMYK",), "GRAY": ("L", "LA")}
"""ICC colour space to the Pillow modes of pictures in it."""


class ColourSpace(NamedTuple):
    """A colour space of pictures without alpha.

    Attributes:
        profile: Its ICC profile.
        to_srgb: From it to an RGB picture in sRGB; None if it is sRGB itself.
        from_srgb: The way back, from an RGB picture.
    """

    profile: bytes
    to_srgb: Callable[[Image.Image], Image.Image] | None
    from_srgb: Callable[[Image.Image], Image.Image] | None


def to_srgb_of(picture: Image.Image) -> Callable[[Image.Image], Image.Image] | None:
    """A function that converts a part of a picture to sRGB; None if the profile is missing, broken or sRGB itself."""
    profile = picture.info.get("icc_profile")
    if not isinstance(profile, bytes) or not 0 < len(profile) <= _MAX_PROFILE:
        return None
    mode = {"P": "RGB", "PA": "RGBA", "I;16": "L", "I;16B": "L", "I": "L", "F": "L"}.get(picture.mode, picture.mode)
    if mode in ("RGB", "RGBA"):
        mode = "RGBA" if picture.has_transparency_data else "RGB"
    transform = _to_srgb(profile, mode)
    return transform and (lambda strip: _converted(strip, mode, transform))


def space_of(picture: Image.Image) -> ColourSpace | None:
    """The colour space that an RGB or greyscale picture without alpha says it is in.

    None if it says none, its profile is broken or is of another kind of picture, or leads to sRGB but not back.
    """
    profile = picture.info.get("icc_profile")
    if not isinstance(profile, bytes) or not 0 < len(profile) <= _MAX_PROFILE:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if picture.mode not in _SPACES.get(getattr(source.profile, "xcolor_space", ""), ()):
            return None
        back = _transform(ImageCms.createProfile("sRGB"), source, "RGB", picture.mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    there = _to_srgb(profile, picture.mode)
    return ColourSpace(profile, there and there.apply, back.apply if there else None)


def srgb_profile() -> bytes:
    """An ICC profile of sRGB, the same at every call."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)  # when it was made; ICC.1:2010, section 7.2
    return bytes(profile)


def _converted(strip: Image.Image, mode: str, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    if mode != "LA":
        return transform.apply(strip if strip.mode == mode else strip.convert(mode))
    colours = transform.apply(strip.getchannel("L"))
    colours.putalpha(strip.getchannel("A"))
    return colours


@lru_cache(maxsize=8)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The relative colorimetric transform; None if the profile is broken, for another kind of picture, or sRGB."""
    plain = "L" if mode == "LA" else mode
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space: str = getattr(source.profile, "xcolor_space", "")
        if mode not in _SPACES.get(space, ()):
            return None
        to = "RGBA" if mode == "RGBA" else "RGB"
        transform = _transform(source, ImageCms.createProfile("sRGB"), plain, to)
        if plain == "CMYK":
            return transform
        values = np.linspace(0, 255, 18).round().astype(np.uint8)
        colours = np.stack(np.meshgrid(values, values, values), -1).reshape(1, -1, 3)
        probe = Image.fromarray(colours).convert(plain)
        before = np.asarray(probe.convert("RGB"), np.int16)
        change = np.abs(np.asarray(transform.apply(probe).convert("RGB"), np.int16) - before).max()
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return transform if change > _SRGB_STEP else None


def _transform(source: Any, target: Any, mode: str, to: str) -> ImageCms.ImageCmsTransform:
    """Relative colorimetric, with black point compensation."""
    return ImageCms.buildTransform(
        source,
        target,
        mode,
        to,
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
