"""The network that is trained: a diffusers `UNet2DModel`, which starts as the identity."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from boundaryflow.errors import ParamsError
from boundaryflow.models.diffusers_parts import UNet2DModel

_NUM_GROUPS = 4
_HEAD_CHANNELS = 64


@dataclass(frozen=True)
class NetworkSettings:
    """What network is trained.

    Attributes:
        image_size: Side of the images in pixels.
        channels: 3 for RGB, 1 for greyscale.
        pixel_unshuffle: Images are folded by this factor before the first convolution, see `FrozenModel`.
        widths: Channels of each level; each level halves the feature maps of the one before.
        layers: Resnets per level.
        attention: Sides of the feature maps at which levels attend; the middle block attends in any case.
        schedule: Of the betas, by diffusers' name: `linear` or `squaredcos_cap_v2`.

    Raises:
        ParamsError: There is no such network.
    """

    image_size: int = 64
    channels: int = 3
    pixel_unshuffle: int = 2
    widths: tuple[int, ...] = (32, 96, 192)
    layers: int = 1
    attention: tuple[int, ...] = ()
    schedule: str = "linear"

    def __post_init__(self) -> None:
        """Check that the sizes fit one another."""
        shown = ", ".join(map(str, self.widths))
        factor = self.pixel_unshuffle * 2 ** (len(self.widths) - 1)
        least = 2 * (self.folded_channels + _NUM_GROUPS)
        if not self.widths or any(width < 1 or width % (2 * _NUM_GROUPS) for width in self.widths):
            raise ParamsError(f"widths {shown}: each must be a multiple of {2 * _NUM_GROUPS}, such as 32,96,192")
        if self.image_size % factor:
            raise ParamsError(
                f"size {self.image_size}: must be a multiple of {factor} (unshuffle {self.pixel_unshuffle}, halved "
                f"{len(self.widths) - 1} times); choose another size, or fewer widths"
            )
        if self.widths[0] < least:
            raise ParamsError(
                f"widths {shown}: the first must be at least {least}, as {self.channels} channels folded by "
                f"{self.pixel_unshuffle} are {self.folded_channels}; raise it, or lower unshuffle"
            )
        for side in self.attention:
            if side not in self.sides:
                raise ParamsError(f"attention {side}: the feature maps have sides {', '.join(map(str, self.sides))}")

    @property
    def folded_channels(self) -> int:
        """Channels that the network sees."""
        return self.channels * self.pixel_unshuffle**2

    @property
    def sides(self) -> list[int]:
        """Side of the feature maps at each level."""
        return [self.image_size // self.pixel_unshuffle // 2**level for level in range(len(self.widths))]


def build_network(settings: NetworkSettings) -> UNet2DModel:
    """The untrained network; its initial weights are drawn from torch's global generator."""
    attends = [side in settings.attention for side in settings.sides]
    attending = [width for width, yes in zip(settings.widths, attends, strict=True) if yes]
    unet = UNet2DModel(
        sample_size=settings.sides[0],
        in_channels=settings.folded_channels,
        out_channels=settings.folded_channels,
        layers_per_block=settings.layers,
        block_out_channels=settings.widths,
        down_block_types=tuple("AttnDownBlock2D" if yes else "DownBlock2D" for yes in attends),
        up_block_types=tuple("AttnUpBlock2D" if yes else "UpBlock2D" for yes in reversed(attends)),
        norm_num_groups=_NUM_GROUPS,
        attention_head_dim=math.gcd(_HEAD_CHANNELS, settings.widths[-1], *attending),
    )
    open_identity_path(unet)
    return unet


@torch.no_grad()
def open_identity_path(unet: Any, offset: float = 16.0) -> None:
    """Start a `UNet2DModel` as eps(x_t, t) = x_t, which is the answer at the noisy end.

    Near t = T the noise is the sample itself, to a part in a hundred and fifty; whatever the
    network gets wrong there comes back that many times larger in the predicted image. A network
    of this class has no connection from input to output and would learn one slowly. But it can
    hold one: the first convolution copies the sample, the last skip connection hands it to
    channel pairs (+x, -x), and silu(y) - silu(-y) = y carries it through the last activation.
    Each group of the last GroupNorm also gets a pair of constants (+offset, -offset). They leave
    the group's mean at zero and make up nearly all of its variance, so the norm neither takes
    away the mean of x nor rescales it.

    Args:
        unet: A freshly made network; each group of its last norm must have room for one pair of
            constants beside whole pairs, and all groups together for a pair per channel of the
            sample.
        offset: Size of the constants, in standard deviations of the sample.

    Raises:
        ValueError: There is too little room.
    """
    folded, width = unet.conv_in.in_channels, unet.conv_in.out_channels
    groups = unet.conv_norm_out.num_groups
    size = width // groups
    pairs = size // 2 - 1
    if size % 2 or pairs * groups < folded:
        raise ValueError(
            f"{groups} groups of {size} channels hold {pairs * groups} pairs beside constants, not {folded}"
        )
    centre = unet.conv_in.weight.shape[-1] // 2
    last = unet.up_blocks[-1].resnets[-1]
    shortcut = last.conv_shortcut
    skip = shortcut.in_channels - width  # the first convolution's channels come last
    for part in (
        last.conv2.weight,
        last.conv2.bias,
        shortcut.weight,
        shortcut.bias,
        unet.conv_out.weight,
        unet.conv_out.bias,
    ):
        part.zero_()
    unet.conv_in.weight[:folded] = 0
    unet.conv_in.bias[:folded] = 0
    gain = ((2 * offset**2 + 2 * pairs) / size) ** 0.5
    for channel in range(folded):
        group, place = divmod(channel, pairs)
        first = group * size + 2 * place
        unet.conv_in.weight[channel, channel, centre, centre] = 1
        for sign, pair in ((1, first), (-1, first + 1)):
            shortcut.weight[pair, skip + channel] = sign
            unet.conv_out.weight[channel, pair, centre, centre] = sign * gain
    for group in range(groups):
        shortcut.bias[(group + 1) * size - 2] = offset
        shortcut.bias[(group + 1) * size - 1] = -offset
