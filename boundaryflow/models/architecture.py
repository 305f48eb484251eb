"""Description of a U-Net of any family, in the terms of diffusers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from boundaryflow.errors import CheckpointError
from boundaryflow.models.families import Family

ATTENTION_FROM = 16
"""Side of the feature maps at which all of the paper's networks begin to attend."""
SIZE_OF_WIDTHS: Mapping[tuple[int, ...], int] = {
    (1, 2, 2, 2): 32, (1, 2, 3, 4): 64, (1, 1, 2, 3, 4): 128, (1, 1, 2, 2, 4, 4): 256,
}  # fmt: skip
"""Side of the images by the widths of the levels: `create_model` of improved-diffusion and guided-diffusion."""


@dataclass(frozen=True)
class Architecture:
    """What was found out about a network, and its tensors under diffusers' names.

    Attributes:
        family: Where the checkpoint came from.
        config: As in a diffusers config.json of `UNet2DModel`.
        state: Tensors by diffusers' names.
        assumptions: What the tensors do not say and was taken for granted, a sentence each.
        num_heads: Heads at every width, where a fixed number of channels a head cannot express it.
        assumes_size: Was the size of the images taken for granted?
    """

    family: Family
    config: dict[str, Any]
    state: dict[str, Tensor]
    assumptions: tuple[str, ...]
    num_heads: int | None = None
    assumes_size: bool = False


@dataclass(frozen=True)
class Shape:
    """What the names and shapes of a network's tensors say.

    Attributes:
        width: Base width, which the time embedding starts from.
        first: Width behind the first convolution.
        widths: Of each level, from the full size down.
        num_res_blocks: Residual blocks of a level, on the way down.
        attends: Of each level, whether it attends.
        in_channels: Channels of a sample.
        out_channels: Channels of the output.
    """

    width: int
    first: int
    widths: list[int]
    num_res_blocks: int
    attends: list[bool]
    in_channels: int
    out_channels: int


_S = TypeVar("_S", bound=Shape)


def checked_shape(read: Callable[[], _S], where: object) -> _S:
    """The shape that `read` finds.

    Raises:
        CheckpointError: A tensor is missing, or the network is of a variant that is not known.
    """
    try:
        shape = read()
    except KeyError as error:
        raise CheckpointError(f"model {where}: tensor {error} is missing; the file is incomplete") from None
    check_channels(shape.in_channels, shape.out_channels, where)
    if not shape.widths or {shape.widths[0], shape.first} != {shape.width}:
        raise CheckpointError(
            f"model {where}: its first level is not of the base width {shape.width}; not a known variant"
        )
    return shape


class Renamer:
    """Takes tensors of one naming and gives them names of another; knows what nobody took."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._left = dict(state)
        self.taken: dict[str, Tensor] = {}

    def has(self, old: str) -> bool:
        """Is there a tensor, or a module with tensors, of this name left?"""
        return any(name == old or name.startswith(f"{old}.") for name in self._left)

    def module(self, old: str, new: str) -> None:
        """Rename weight and bias of a layer."""
        for part in ("weight", "bias"):
            if f"{old}.{part}" in self._left:
                self.tensor(f"{new}.{part}", self._left.pop(f"{old}.{part}"))

    def modules(self, old: str, new: str, names: Mapping[str, str]) -> None:
        """Rename layers within a block; an optional one may be missing."""
        for before, after in names.items():
            self.module(f"{old}.{before}", f"{new}.{after}")

    def take(self, old: str) -> Tensor | None:
        """Remove a tensor, to be named by hand."""
        return self._left.pop(old, None)

    def tensor(self, new: str, value: Tensor) -> None:
        """Name a tensor."""
        self.taken[new] = value

    @property
    def left(self) -> list[str]:
        """Names that nobody took."""
        return sorted(self._left)


def num_blocks(names: Collection[str], side: str) -> int:
    """How many numbered blocks there are: one more than the largest number behind `side`.

    Raises:
        ValueError: A number is none, or larger than there are tensors.
    """
    numbers = [int(name.split(".")[1]) for name in names if name.startswith(f"{side}.")]
    num = 1 + max(numbers, default=-1)
    if num > len(names):
        raise ValueError(f"{num:,} blocks in {len(names)} tensors")
    return num


def check_all_taken(renamer: Renamer, where: object) -> None:
    """Refuse a network of which a part would be lost.

    Raises:
        CheckpointError: A tensor has no place.
    """
    if renamer.left:
        raise CheckpointError(
            f"model {where}: {len(renamer.left)} tensors have no place in the network, the first is {renamer.left[0]}; "
            "the file is of a variant that is not known"
        )


def common_config(image_size: int, shape: Shape) -> dict[str, Any]:
    """The part of a `UNet2DModel` config.json that all families share."""
    return {
        "_class_name": "UNet2DModel",
        "sample_size": image_size,
        "in_channels": shape.in_channels,
        "out_channels": shape.out_channels,
        "block_out_channels": shape.widths,
        "layers_per_block": shape.num_res_blocks,
        "mid_block_scale_factor": 1,
        "center_input_sample": False,
        "time_embedding_type": "positional",
        "act_fn": "silu",
        "norm_num_groups": 32,
        "dropout": 0.0,
        "add_attention": True,
    }


def image_size_from(
    stated: int | None,
    attention_at: Iterable[bool],
    num_levels: int,
    where: object,
    widths: Sequence[int] = (),
) -> tuple[int, list[str]]:
    """Side of the images: as stated, else from the widths, else from where the network begins to attend.

    Args:
        stated: Of the sidecar.
        attention_at: Level by level from the full size down: does it attend?
        num_levels: How many levels there are.
        where: For messages.
        widths: Of a family in which they go with the size, see `SIZE_OF_WIDTHS`.

    Returns:
        Side in pixels, and the assumption made, if any.

    Raises:
        CheckpointError: Nothing was stated and no level attends, or the levels do not divide the size.
    """
    first = next((level for level, attends in enumerate(attention_at) if attends), None)
    of_widths = SIZE_OF_WIDTHS.get(tuple(width // widths[0] for width in widths)) if widths else None
    if of_widths and of_widths // 2 ** (first or 0) < ATTENTION_FROM:
        of_widths = None  # no known network attends on small maps only: these are the widths of another size
    if stated is None and first is None and of_widths is None:
        raise CheckpointError(
            f"model {where}: its tensors do not say the size of its images (no level attends); state image_size in the "
            "sidecar"
        )
    size = stated or of_widths or ATTENTION_FROM * 2 ** (first or 0)
    if size % 2 ** (num_levels - 1):
        raise CheckpointError(
            f"model {where}: image_size is {size}, must be a multiple of {2 ** (num_levels - 1)}; the network "
            f"halves it {num_levels - 1} times"
        )
    if stated is not None:
        return size, []
    begins = size // 2 ** (first or 0)
    if of_widths:
        attends = "" if first is None else f"; attention then begins at {begins} x {begins}"
        return size, [f"images of {size} x {size} pixels: its widths are this family's for that size{attends}"]
    return size, [
        f"images of {size} x {size} pixels: attention begins at {begins} x {begins}. Were it at {2 * begins}, they "
        f"would be {2 * size} x {2 * size}; `inspect --try PICTURES` measures which"
    ]


def check_channels(in_channels: int, out_channels: int, where: object) -> None:
    """Refuse networks on anything but greyscale or RGB images.

    Raises:
        CheckpointError: Input or output channels are not those of an image.
    """
    if in_channels not in (1, 3):
        raise CheckpointError(
            f"model {where}: it takes {in_channels} channels, must be 1 or 3; it works on latents, or on an image "
            "with a condition beside it"
        )
    if out_channels not in (in_channels, 2 * in_channels):
        raise CheckpointError(
            f"model {where}: it gives {out_channels} channels for {in_channels}, must be as many or twice as many "
            "(noise and variance)"
        )
