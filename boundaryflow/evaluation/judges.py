"""Small frozen networks of this project that judge edits: attributes, identity, and segmentation into parts.

They are trained on images that are in no data set (training/), without the diffusion model, and are read from
safetensors files whose metadata states kind, arguments and names of outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from safetensors import SafetensorError
from torch import Tensor, nn

from boundaryflow.errors import CheckpointError
from boundaryflow.formats.tensor_files import read_tensors, write_tensors

_BATCH_SIZE = 256
_LARGEST = 2**16
"""Limit of channels, outputs and pixels per side in a judge's config."""

Kind = Literal["classify", "embed", "segment"]
FILES: dict[Kind, str] = {
    "classify": "attributes.safetensors",
    "embed": "identity.safetensors",
    "segment": "segmenter.safetensors",
}


def _block(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(8, out_channels), nn.SiLU())


class JudgeNet(nn.Module):
    """Convolutions that halve the picture, then one linear layer on the flattened result.

    Args:
        channels: Channels of the picture.
        widths: Channels after each halving, multiples of 8.
        image_size: Side of the picture in pixels.
        num_outputs: Logits, or dimensions of the embedding.
        head: `classify` gives logits, `embed` unit vectors.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        image_size: int,
        num_outputs: int,
        head: Literal["classify", "embed"],
    ) -> None:
        super().__init__()
        inputs = [channels, *widths[:-1]]
        self.body = nn.Sequential(*(_block(a, b, stride=2) for a, b in zip(inputs, widths, strict=True)))
        side = image_size
        for _ in widths:
            side = -(-side // 2)
        self.head = nn.Linear(widths[-1] * side * side, num_outputs)
        self._unit = head == "embed"

    def forward(self, images_01: Tensor) -> Tensor:
        """[B,C,S,S] in [0, 1] to [B,num_outputs]."""
        out = self.head(self.body(images_01 * 2 - 1).flatten(1))
        return F.normalize(out, dim=1) if self._unit else out


class SegmenterNet(nn.Module):
    """A small U-Net from a picture to part logits at every pixel.

    Args:
        channels: Channels of the picture.
        widths: Channels of each level, multiples of 8; the first is at full size.
        num_parts: Number of parts.
    """

    def __init__(self, channels: int, widths: Sequence[int], num_parts: int) -> None:
        super().__init__()
        self.stem = _block(channels, widths[0], stride=1)
        self.down = nn.ModuleList(_block(a, b, stride=2) for a, b in zip(widths, widths[1:], strict=False))
        self.up = nn.ModuleList(_block(a + b, a, stride=1) for a, b in zip(widths, widths[1:], strict=False))
        self.head = nn.Conv2d(widths[0], num_parts, 1)

    def forward(self, images_01: Tensor) -> Tensor:
        """[B,C,S,S] in [0, 1] to [B,num_parts,S,S]."""
        levels = [self.stem(images_01 * 2 - 1)]
        for down in self.down:
            levels.append(down(levels[-1]))
        out = levels.pop()
        for up in reversed(self.up):
            skip = levels.pop()
            out = up(torch.cat([skip, F.interpolate(out, size=skip.shape[-2:], mode="nearest")], 1))
        return self.head(out)


@dataclass(frozen=True)
class Segmenter:
    """A network that assigns a part to each pixel.

    Attributes:
        parts: Names of the parts, in the order of their numbers.
        net: Network of part logits.
    """

    parts: tuple[str, ...]
    net: nn.Module

    @torch.inference_mode()
    def __call__(self, images_01: Float[Tensor, "b c h w"]) -> Int64[Tensor, "b h w"]:
        """Number of the part of each pixel."""
        return in_batches(self.net, images_01, lambda out: out.argmax(1))


def in_batches(net: nn.Module, images_01: Tensor, reduce: Callable[[Tensor], Tensor] = lambda out: out) -> Tensor:
    """Run on the network's device, a few images at a time; the result is on the images' device."""
    home = next(net.parameters()).device
    return torch.cat([reduce(net(part.to(home))).to(images_01.device) for part in images_01.split(_BATCH_SIZE)])


def save_judge(folder: Path, kind: Kind, net: nn.Module, config: dict[str, Any], names: Sequence[str]) -> None:
    """Write one judge with half-precision weights.

    Args:
        folder: Folder of the judges.
        kind: Kind of the judge.
        net: `JudgeNet` or `SegmenterNet`.
        config: Arguments of the network's constructor, and `image_size`.
        names: Names of its outputs; empty for an embedder.
    """
    tensors = {name: tensor.half() for name, tensor in net.state_dict().items()}
    write_tensors(folder / FILES[kind], tensors, {"kind": kind, "config": config, "names": list(names)})


def load_segmenter(path: Path, device: torch.device | str = "cpu") -> Segmenter:
    """Read a segmenter, such as that of a folder of judges.

    Raises:
        CheckpointError: The file is missing, damaged, or not a segmenter.
    """
    net, _config, names = read_judge(path, "segment", device)
    return Segmenter(tuple(names), net)


def read_judge(
    path: Path, kind: Kind, device: torch.device | str = "cpu"
) -> tuple[nn.Module, dict[str, Any], list[str]]:
    """Read one judge: its network, the arguments of its constructor, and the names of its outputs.

    Raises:
        CheckpointError: The file is missing, damaged, or not a judge of this kind.
    """
    if not path.exists():
        raise CheckpointError(f"judge {path}: no such file; give a folder that has judges, or none")
    try:
        tensors, about = read_tensors(path)
        if about.get("kind") != kind:
            raise ValueError(f"kind is {about.get('kind')!r:.60}, must be {kind!r}")
        config: Any = about.get("config")
        names: Any = about.get("names")
        if not isinstance(config, dict) or not _is_list(names, str):
            raise ValueError("its header has no config, or no list of names")
        net = _network(kind, config, names, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
        for name, tensor in tensors.items():
            if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"tensor {name} is not of finite floating-point numbers")
    except SafetensorError as error:
        raise CheckpointError(f"judge {path}: not a complete safetensors file ({error}); fetch it again") from None
    except ValueError as error:
        raise CheckpointError(f"judge {path}: {error}; fetch it again, or give another") from None
    net.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return net.to(device).eval().requires_grad_(False), config, names


def _network(kind: Kind, config: dict[str, Any], names: list[str], found: dict[str, tuple[int, ...]]) -> nn.Module:
    """A network without weights, whose shapes were compared with the tensors of the file."""
    output = "num_parts" if kind == "segment" else "num_outputs"
    for key in ("channels", "image_size", output):
        if type(config.get(key)) is not int or not 1 <= config[key] <= _LARGEST:
            raise ValueError(f"{key} is {config.get(key)!r:.60}, must be a whole number of 1 to {_LARGEST:,}")
    widths: Any = config.get("widths")
    num = config[output]
    if not _is_list(widths, int) or not 1 <= len(widths) <= len(found) or any(w % 8 or w < 1 for w in widths):
        raise ValueError("widths must be as many multiples of 8 as the network has levels")
    if kind != "embed" and len(names) != num:
        raise ValueError(f"it names {len(names)} outputs and has {num:,}")
    with torch.device("meta"):  # shapes only, without memory
        if kind == "segment":
            net: nn.Module = SegmenterNet(config["channels"], widths, num)
        else:
            net = JudgeNet(config["channels"], widths, config["image_size"], num, kind)
    wanted = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if wrong:
        shapes = f"{found.get(wrong[0], 'missing')}, must be {wanted.get(wrong[0], 'left out')}"
        raise ValueError(f"{len(wrong)} tensors do not fit its config, the first is {wrong[0]}: {shapes}")
    return net


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(type(part) is kind for part in value)
