"""What a checkpoint's tensors do not say, and a sidecar file may: heads, order, schedule, image size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from boundaryflow.errors import CheckpointError
from boundaryflow.files import MAX_SETTINGS_BYTES, RefusedFileError, read_bytes
from boundaryflow.formats.tensor_headers import parse_json_object
from boundaryflow.models.families import Family
from boundaryflow.models.weights import EmaChoice

SIDECAR = "boundaryflow.json"
MAX_IMAGE_SIZE = 2**14
"""Pixels a side; no network on pixels comes near it."""
_CHOICES = {"qkv_order": ("legacy", "new"), "ema": ("prefer", "require", "never"),
            "family": ("ddpm", "iddpm", "diffusers"), "channel_order": ("rgb", "bgr")}  # fmt: skip


@dataclass(frozen=True)
class Stated:
    """Facts stated about a checkpoint; None leaves the family's usual value in force.

    Attributes:
        image_size: Side of the images in pixels.
        num_heads: Attention heads, the same number at every width.
        head_channels: Channels of an attention head, the same at every width.
        qkv_order: How an iDDPM attention packs its queries, keys and values: `legacy` head by head,
            `new` all queries first.
        schedule: As in diffusers' scheduler_config.json: beta_schedule, num_train_timesteps, ...
        ema: Which weights of a training checkpoint.
        pixel_unshuffle: See `FrozenModel`.
        family: What the network of a converted checkpoint was trained as.
        value_range: What black and white are to the network.
        channel_order: `rgb` or `bgr`, in which the network was trained (OpenCV reads BGR).
    """

    image_size: int | None = None
    num_heads: int | None = None
    head_channels: int | None = None
    qkv_order: str | None = None
    schedule: Mapping[str, Any] = field(default_factory=dict[str, Any])
    ema: EmaChoice = "prefer"
    pixel_unshuffle: int = 1
    family: Family | None = None
    value_range: tuple[float, float] = (-1.0, 1.0)
    channel_order: str = "rgb"

    def __post_init__(self) -> None:
        """Check types and ranges.

        Raises:
            CheckpointError: A value makes no sense, or both ways to state the heads are used.
        """
        for name in ("image_size", "num_heads", "head_channels", "pixel_unshuffle"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise CheckpointError(f"{name} is {value!r:.60}, must be a whole number of at least 1")
            if value is not None and value > MAX_IMAGE_SIZE:
                raise CheckpointError(f"{name} is {value!r:.20}, must be at most {MAX_IMAGE_SIZE:,}")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise CheckpointError(f"{name} is {value!r:.60}, must be one of {', '.join(choices)}")
        span: Any = self.value_range  # it comes from JSON
        is_pair = (
            isinstance(span, list | tuple) and [type(v) in (int, float) for v in cast(list[Any], span)] == [True] * 2
        )
        if not is_pair or not -1000 <= self.value_range[0] < self.value_range[1] <= 1000:  # noqa: PLR2004
            raise CheckpointError(f"value_range is {span!r:.60}, must be black and white, such as [-1, 1]")
        object.__setattr__(self, "value_range", (float(self.value_range[0]), float(self.value_range[1])))
        if self.num_heads is not None and self.head_channels is not None:
            raise CheckpointError("num_heads and head_channels are both stated; state one")
        if not isinstance(self.schedule, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - it comes from JSON
            raise CheckpointError(f"schedule is {self.schedule!r:.60}, must be a mapping such as beta_schedule: linear")

    def facts(self) -> dict[str, Any]:
        """What was stated, by name."""
        usual = Stated()
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != getattr(usual, f.name)}


def sidecar_of(path: Path) -> Path:
    """Where the facts about a checkpoint are stated: in a folder, or beside a file under its name and `.json`."""
    return path / SIDECAR if path.is_dir() else path.with_name(f"{path.name}.json")


def read_stated(path: Path) -> Stated:
    """Read the sidecar of a checkpoint; nothing is stated where there is none.

    Raises:
        CheckpointError: It is not JSON, has an unknown key or a value out of range.
    """
    sidecar = sidecar_of(path)
    if not sidecar.exists():
        return Stated()
    content = read_json(sidecar)
    known = [f.name for f in fields(Stated)]
    for key in content:
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise CheckpointError(f"model {sidecar}: unknown key {key!r:.60}; {hint}")
    try:
        return Stated(**content)
    except CheckpointError as error:
        raise CheckpointError(f"model {sidecar}: {error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a model folder.

    Raises:
        CheckpointError: The file is missing or not a JSON object.
    """
    try:
        return parse_json_object(read_bytes(path, MAX_SETTINGS_BYTES))
    except FileNotFoundError:
        raise CheckpointError(f"model {path.parent}: {path.name} is missing; a diffusers folder has it") from None
    except RefusedFileError as error:
        raise CheckpointError(f"model {path}: {error.reason}; give another folder") from None
    except ValueError as error:
        raise CheckpointError(f"model {path}: {error}; fetch the file again") from None
