"""Pictures of Pillow, arrays and tensors to images of the model, and back to what they were."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from boundaryflow.diffusion import EpsModel
from boundaryflow.errors import ManifestError
from boundaryflow.pixels import to_model_range, to_u8
from boundaryflow.sources.images import decode_image
from boundaryflow.text import visible

Images = TypeVar("Images", Image.Image, list[Image.Image], NDArray[Any], Tensor)
_WITHOUT_PNG = ("CMYK", "YCbCr", "LAB", "F")
_BATCH_DIMENSIONS = 4


@dataclass(frozen=True)
class Given:
    """Images as they were given, and as the model takes them.

    Attributes:
        x_0: [N,C,H,W] in model range.
        ids: [N] hashes of their pixels, from which their noise is drawn.
        like: What was given.
        value_range: What black and white are to the model.
    """

    x_0: Tensor
    ids: list[str]
    like: Any
    value_range: tuple[float, float]

    def back(self, edited: Tensor) -> Any:
        """Images [N,C,H,W] in model range as what was given: its type, dtype, device, and order of axes."""
        like = self.like
        if isinstance(like, Image.Image | list):
            pictures = [picture_of(pixels) for pixels in to_u8(edited, self.value_range)]
            return pictures if isinstance(like, list) else pictures[0]
        if _is_u8(like):
            result = to_u8(edited, self.value_range)
        else:
            low, high = self.value_range
            before = _channels_first(like)
            change = (edited - self.x_0) / (high - low)  # added, so that what is not changed stays bit for bit
            result = (before + change.to(before)).clamp(0, 1)
        if isinstance(like, Tensor):
            result = result.to(like.device)
            return result if like.ndim == _BATCH_DIMENSIONS else result[0]
        array = result.numpy()
        if like.ndim == 2:  # noqa: PLR2004 - [H,W], greyscale
            return array[0, 0]
        array = np.ascontiguousarray(array.transpose(0, 2, 3, 1))
        return array if like.ndim == _BATCH_DIMENSIONS else array[0]


def read_images(images: Any, model: EpsModel, geometry: Mapping[str, Any], what: str = "images") -> Given:
    """Check images, and bring them to the range of the model; only pictures of Pillow are cropped and resized.

    Args:
        images: A picture, a list of pictures; an array [H,W,C] or [N,H,W,C] or, in greyscale, [H,W]; a tensor [C,H,W]
            or [N,C,H,W]. Arrays and tensors are uint8, or floats in [0, 1].
        model: The model.
        geometry: How pictures are brought to the model's size, see `decode_image`.
        what: Name of the argument, for messages.

    Raises:
        ManifestError: They are of another type, size or dtype, or out of range.
    """
    if isinstance(images, Image.Image | list):
        listed = cast("list[Any]", images if isinstance(images, list) else [images])
        pixels = [_decoded(picture, geometry, what) for picture in listed]
        if not pixels:
            raise ManifestError(f"{what}: an empty list, must have at least one picture")
        u8 = torch.from_numpy(np.stack(pixels))
        return Given(to_model_range(u8, model.value_range), _hashes(u8), images, model.value_range)
    plain = _channels_first(images, what)
    wanted = (model.channels, model.image_size, model.image_size)
    if tuple(plain.shape[1:]) != wanted:
        raise ManifestError(
            f"{what}: of {' x '.join(map(str, plain.shape[1:]))} (channels, height, width), must be of "
            f"{' x '.join(map(str, wanted))}, as the model is; give PIL pictures to have them cropped and resized"
        )
    low, high = model.value_range
    if _is_u8(images):
        return Given(to_model_range(plain.cpu(), model.value_range), _hashes(plain), images, model.value_range)
    _check_range(plain, what)
    x_0 = plain.cpu().float() * (high - low) + low
    return Given(x_0, _hashes(plain.float()), images, model.value_range)


def read_masks(mask: Any, num: int, geometry: Mapping[str, Any]) -> Tensor:
    """Where images may change, [N,H,W] in [0, 1].

    Args:
        mask: A picture, brought to the model's size like the pictures, or an array or tensor [H,W] or [N,H,W], boolean,
            uint8 or in [0, 1]; white, True and 1 may change.
        num: Number of images.
        geometry: See `read_images`.

    Raises:
        ManifestError: It is of another type, size or dtype, or out of range.
    """
    size = geometry["size"]
    if isinstance(mask, Image.Image):
        grey = {**geometry, "channels": 1, "background": (0, 0, 0), "levels": None}
        found = torch.from_numpy(_decoded(mask, grey, "mask")).float() / 255
    else:
        if not isinstance(mask, np.ndarray | Tensor):
            raise ManifestError(f"mask: is a {type(mask).__name__}, must be a PIL picture, an array or a tensor")
        plain = mask.cpu() if isinstance(mask, Tensor) else torch.from_numpy(np.array(mask))
        found = plain.float() / 255 if plain.dtype == torch.uint8 else plain.float()
        if plain.dtype not in (torch.uint8, torch.bool):
            _check_range(plain, "mask")
        found = found[None] if found.ndim == 2 else found  # noqa: PLR2004 - [H,W]
    if tuple(found.shape) not in ((1, size, size), (num, size, size)):
        raise ManifestError(f"mask: of shape {list(found.shape)}, must be [{size}, {size}] or [{num}, {size}, {size}]")
    return found.expand(num, -1, -1)


def _decoded(picture: Any, geometry: Mapping[str, Any], what: str) -> NDArray[np.uint8]:
    """The pixels that the picture's file would give: upright, in sRGB, cropped and resized."""
    if not isinstance(picture, Image.Image):
        raise ManifestError(
            f"{what}: holds a {type(picture).__name__}, must be a PIL picture, a list of these, an array or a tensor"
        )
    buffer = io.BytesIO()
    kind = "TIFF" if picture.mode in _WITHOUT_PNG else "PNG"
    try:
        picture.save(buffer, kind, exif=picture.getexif(), compress_level=1)
        return decode_image(buffer.getvalue(), **geometry)[0]
    except (ManifestError, OSError, ValueError) as error:
        raise ManifestError(
            f"{what}: a picture of {picture.width} x {picture.height}, mode {picture.mode}: {visible(str(error))}"
        ) from None


def _channels_first(images: Any, what: str = "images") -> Tensor:
    """[N,C,H,W] of an array or tensor."""
    if isinstance(images, Tensor):
        found = images[None] if images.ndim == 3 else images  # noqa: PLR2004 - [C,H,W]
    elif isinstance(images, np.ndarray):
        array = cast("NDArray[Any]", images)
        array = array[..., None] if array.ndim == 2 else array  # noqa: PLR2004 - [H,W]
        array = array[None] if array.ndim == 3 else array  # noqa: PLR2004 - [H,W,C]
        if array.dtype.str[1:] not in ("u1", "f2", "f4", "f8") or not array.dtype.isnative:
            raise _wrong_dtype(what, str(array.dtype))
        found = torch.from_numpy(np.moveaxis(array, -1, 1).copy() if array.ndim == _BATCH_DIMENSIONS else array.copy())
    else:
        raise ManifestError(
            f"{what}: is a {type(images).__name__}, must be a PIL picture, a list of these, an array or a tensor"
        )
    if not (found.dtype == torch.uint8 or found.is_floating_point()):
        raise _wrong_dtype(what, str(found.dtype).removeprefix("torch."))
    if found.ndim != _BATCH_DIMENSIONS or not len(found):
        axes = "[C, H, W] or [N, C, H, W]" if isinstance(images, Tensor) else "[H, W, C] or [N, H, W, C]"
        raise ManifestError(f"{what}: of shape {list(images.shape)}, must be {axes}")
    return found


def _wrong_dtype(what: str, dtype: str) -> ManifestError:
    return ManifestError(f"{what}: of dtype {dtype}, must be uint8 (0 to 255) or floats in [0, 1]")


def _check_range(plain: Tensor, what: str) -> None:
    low, high = float(plain.min()), float(plain.max())
    if not (low >= 0 and high <= 1):  # also refuses NaN
        raise ManifestError(f"{what}: floats from {low:g} to {high:g}, must be in [0, 1]")


def _is_u8(images: Any) -> bool:
    return images.dtype == (torch.uint8 if isinstance(images, Tensor) else np.uint8)


def _hashes(pixels: Tensor) -> list[str]:
    rows: Sequence[Tensor] = list(pixels.detach().cpu().contiguous())
    return [hashlib.sha256(row.numpy().tobytes()).hexdigest()[:16] for row in rows]


def picture_of(pixels: Tensor) -> Image.Image:
    """A Pillow picture of [C,H,W] uint8."""
    array = pixels.cpu().numpy()
    return Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0))
