"""Declarations of third-party networks: format of their input, and meaning of their outputs.

`NAME.judge.json` beside the network states what an ONNX or TFLite file does not contain; docs/datasets.md lists the
keys. Reading a declaration does not open the network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from boundaryflow.errors import CheckpointError
from boundaryflow.files import MAX_SETTINGS_BYTES, RefusedFileError, read_bytes
from boundaryflow.formats.tensor_headers import parse_json_object
from boundaryflow.text import visible

SUFFIX = ".judge.json"
RUNTIMES = {".onnx": "onnx", ".tflite": "tflite"}
"""Ending of a network's file to the extra that reads it."""
_LARGEST = 4096  # pixels a side
_TOLERANCE = 1e-3  # by which the sum of a softmax may differ from 1
_MAX_OUTPUTS = 2**20
_MOST = 1e9  # largest value of a range, which excludes infinity

Order = Literal["rgb", "bgr", "grey"]
Layout = Literal["nchw", "nhwc"]
Activation = Literal["none", "sigmoid", "softmax"]
Distance = Literal["cosine", "l2"]

_ALWAYS = ("kind", "file", "input_size", "channel_order", "layout", "range")
_OPTIONAL = ("sha256", "mean", "std", "image_size", "crop", "output")
_OF_KIND = {"classify": ("activation", "attributes"), "embed": ("distance", "threshold")}
_BOX = ("left", "top", "width", "height")


@dataclass(frozen=True)
class Declaration:
    """Content of a declaration.

    Attributes:
        path: The declaration.
        kind: `classify` for attributes, `embed` for identity.
        network: The file of the network.
        sha256: Required SHA-256 of the network's file, or None.
        input_size: Width and height of its input in pixels.
        order: Order of its channels.
        layout: Order of the axes of its input.
        value_range: Input values of black and white, before `mean` and `std`.
        mean: Subtracted from these, one value per channel of the network.
        std: Divisor after that, one value per channel of the network.
        image_size: Side of the data set's pictures in pixels, if the network is for one size only.
        crop: left, top, width, height of the part to use, in pixels of such a picture; None for all.
        output: Name of the output to read; None if there is only one.
        attributes: Attribute to the indices of outputs to sum; empty for `embed`.
        activation: Function from outputs to probabilities.
        distance: Distance of two vectors of `embed`.
        threshold: Largest distance of two pictures of the same person; infinite for `classify`.
    """

    path: Path
    kind: Literal["classify", "embed"]
    network: Path
    sha256: str | None
    input_size: tuple[int, int]
    order: Order
    layout: Layout
    value_range: tuple[float, float]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int | None
    crop: tuple[int, int, int, int] | None
    output: str | None
    attributes: Mapping[str, tuple[int, ...]]
    activation: Activation
    distance: Distance
    threshold: float

    @property
    def name(self) -> str:
        """Name of the judge in tables."""
        return self.path.name.removesuffix(SUFFIX)

    @property
    def num_channels(self) -> int:
        """Channels of the network's input."""
        return 1 if self.order == "grey" else 3

    def prepare(self, images_01: Float[Tensor, "b c h w"]) -> Float[Tensor, "b i j k"]:
        """Convert pictures in [0, 1] to network input: crop, resize (bilinear, antialiased), channel order, range.

        Colour is converted to grey by ITU-R BT.601, grey to colour by repetition.
        """
        if self.crop is not None:
            left, top, width, height = self.crop
            images_01 = images_01[:, :, top : top + height, left : left + width]
        size = (self.input_size[1], self.input_size[0])
        if images_01.shape[-2:] != size:
            images_01 = F.interpolate(images_01, size=size, mode="bilinear", antialias=True, align_corners=False)
        if self.order == "grey" and images_01.shape[1] != 1:
            weights = images_01.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)
            images_01 = (images_01 * weights).sum(1, keepdim=True)
        elif self.order != "grey":
            images_01 = images_01.expand(-1, 3, -1, -1)
        if self.order == "bgr":
            images_01 = images_01.flip(1)
        low, high = self.value_range
        mean, std = (images_01.new_tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        ready = (images_01 * (high - low) + low - mean) / std
        return ready if self.layout == "nchw" else ready.permute(0, 2, 3, 1)

    def probabilities(self, outputs: Float[Tensor, "b k"]) -> Float[Tensor, "b a"]:
        """Probability of each attribute, from the network's outputs.

        Raises:
            ValueError: Without an activation, a value is not a probability.
        """
        if self.activation == "sigmoid":
            outputs = outputs.sigmoid()
        elif self.activation == "softmax":
            outputs = outputs.softmax(1)
        found = torch.stack([outputs[:, list(places)].sum(1) for places in self.attributes.values()], 1)
        off = found[(found < -_TOLERANCE) | (found > 1 + _TOLERANCE)]
        if len(off):
            raise ValueError(
                f"gives {float(off[0]):.4g}, which is not a probability; set activation to sigmoid or softmax, or the "
                "range right"
            )
        return found.clamp(0, 1)


def find_declarations(folder: Path) -> list[Path]:
    """The declarations of a folder, by name."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def read_declaration(path: Path) -> Declaration:
    """Read a declaration and check every value of it.

    Raises:
        CheckpointError: It cannot be read, or is not a valid declaration.
    """
    try:
        return _parsed(path, parse_json_object(read_bytes(path, MAX_SETTINGS_BYTES)))
    except RefusedFileError as error:
        reason = error.reason
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
    except ValueError as error:
        reason = str(error)
    raise CheckpointError(f"judge {visible(str(path))}: {visible(reason)}")


def _parsed(path: Path, fields: dict[str, Any]) -> Declaration:
    kind: Any = _one_of(fields, "kind", tuple(_OF_KIND))
    needed = (*_ALWAYS, *_OF_KIND[kind])
    known = (*needed, *_OPTIONAL)
    for key in fields:
        if key not in known:
            near = get_close_matches(key, known, 1)
            raise ValueError(f"has no key {key!r:.60}{f'; did you mean {near[0]!r}?' if near else ''}")
    for key in needed:
        if key not in fields:
            raise ValueError(f"lacks {key}, which a judge of kind {kind} needs; docs/datasets.md says what it is")
    order: Any = _one_of(fields, "channel_order", get_args(Order))
    channels = 1 if order == "grey" else 3
    low, high = _numbers(fields, "range", 2)
    std = _numbers(fields, "std", channels, 1.0)
    if low == high or 0.0 in std:
        raise ValueError("range must be two different numbers, and std must not be 0")
    image_size: int | None = None if fields.get("image_size") is None else _whole(fields, "image_size", 1)
    distance: Any = _one_of(fields, "distance", get_args(Distance)) if kind == "embed" else "cosine"
    activation: Any = _one_of(fields, "activation", get_args(Activation)) if kind == "classify" else "none"
    return Declaration(
        path=path,
        kind=kind,
        network=_network(path, fields),
        sha256=_sha256(fields),
        input_size=_size(fields),
        order=order,
        layout=_one_of(fields, "layout", get_args(Layout)),
        value_range=(low, high),
        mean=_numbers(fields, "mean", channels, 0.0),
        std=std,
        image_size=image_size,
        crop=_crop(fields, image_size),
        output=None if fields.get("output") is None else _text(fields, "output"),
        attributes=_attributes(fields) if kind == "classify" else {},
        activation=activation,
        distance=distance,
        threshold=_numbers(fields, "threshold", 1)[0] if kind == "embed" else math.inf,
    )


def _one_of(fields: Mapping[str, Any], key: str, words: tuple[str, ...]) -> Any:
    if fields.get(key) not in words:
        raise ValueError(f"{key} is {fields.get(key)!r:.60}, must be one of {', '.join(words)}")
    return fields[key]


def _text(fields: Mapping[str, Any], key: str) -> str:
    if not isinstance(fields.get(key), str) or not fields[key]:
        raise ValueError(f"{key} is {fields.get(key)!r:.60}, must be a text")
    return fields[key]


def _whole(fields: Mapping[str, Any], key: str, least: int) -> int:
    if type(fields.get(key)) is not int or not least <= fields[key] <= _LARGEST:
        raise ValueError(f"{key} is {fields.get(key)!r:.60}, must be a whole number of {least} to {_LARGEST:,}")
    return fields[key]


def _numbers(fields: Mapping[str, Any], key: str, num: int, default: float | None = None) -> tuple[float, ...]:
    values: Any = fields.get(key)
    if values is None and default is not None:
        return (default,) * num
    several: list[Any] = values if isinstance(values, list) else [values]
    if len(several) != num or not all(type(v) in (int, float) and abs(v) < _MOST for v in several):
        raise ValueError(f"{key} is {values!r:.60}, must be {num} number{'s' * (num > 1)}")
    return tuple(float(v) for v in several)


def _network(path: Path, fields: Mapping[str, Any]) -> Path:
    name = _text(fields, "file")
    if Path(name).name != name or name in ("", ".", ".."):
        raise ValueError(f"file is {name!r:.60}, must be the name of a file beside the declaration, without a folder")
    if Path(name).suffix.lower() not in RUNTIMES:
        raise ValueError(f"file is {name!r:.60}, must be a network that ends in {' or '.join(RUNTIMES)}")
    return path.parent / name


def _sha256(fields: Mapping[str, Any]) -> str | None:
    if fields.get("sha256") is None:
        return None
    text = _text(fields, "sha256").lower()
    if len(text) != 64 or set(text) - set("0123456789abcdef"):  # noqa: PLR2004 - of SHA-256
        raise ValueError(f"sha256 is {text!r:.80}, must be 64 hexadecimal digits")
    return text


def _size(fields: Mapping[str, Any]) -> tuple[int, int]:
    values = fields["input_size"]
    if not isinstance(values, list) or len(values) != 2:  # noqa: PLR2004 - width and height
        raise ValueError(f"input_size is {values!r:.60}, must be width and height, such as [64, 64]")
    sides: dict[str, Any] = {"width of input_size": values[0], "height of input_size": values[1]}
    width, height = (_whole(sides, key, 1) for key in sides)
    return width, height


def _crop(fields: Mapping[str, Any], image_size: int | None) -> tuple[int, int, int, int] | None:
    box: Any = fields.get("crop")
    if box is None:
        return None
    if image_size is None:
        raise ValueError("crop is in pixels of the data set's pictures; say in image_size which size these have")
    if not isinstance(box, dict) or set(box) != set(_BOX):
        raise ValueError(f"crop is {box!r:.60}, must have the keys {', '.join(_BOX)}")
    left, top, width, height = (_whole(box, key, 0 if key in _BOX[:2] else 1) for key in _BOX)
    if left + width > image_size or top + height > image_size:
        raise ValueError(f"crop {left}, {top}, {width}, {height} leaves a picture of {image_size} x {image_size}")
    return left, top, width, height


def _attributes(fields: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    values: Any = fields["attributes"]
    if not isinstance(values, dict) or not values:
        raise ValueError('attributes must say which output is which attribute, such as {"smiling": 3}')
    found: dict[str, tuple[int, ...]] = {}
    for name, places in values.items():
        several = places if isinstance(places, list) else [places]
        if not several or not all(type(k) is int and 0 <= k < _MAX_OUTPUTS for k in several):
            raise ValueError(f"attributes: {name!r:.60} is {places!r:.60}, must be the number of an output, from 0 on")
        if len(set(several)) != len(several):
            raise ValueError(f"attributes: {name!r:.60} names an output twice")
        if not name or visible(name) != name:
            raise ValueError(f"attributes: {name!r:.60} is not a valid attribute name")
        found[name] = tuple(several)
    if fields["activation"] == "sigmoid" and any(len(places) > 1 for places in found.values()):
        raise ValueError("attributes: probabilities of activation sigmoid do not add up; give one output each")
    return found
