"""Conversion to sRGB by the colour profile that is embedded in a picture."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

_MAX_PROFILE = 4 * 2**20  # bytes
_SRGB_STEP = 2  # of 255: a profile that changes colours by at most this much counts as sRGB
_SPACES = {"RGB ": ("RGB", "RGBA"), "CMYK": ("CMYK",), "GRAY": ("L", "LA")}
"""ICC colour space to the Pillow modes of pictures in it."""


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
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            plain,
            "RGBA" if mode == "RGBA" else "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
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
