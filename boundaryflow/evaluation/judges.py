"""Small frozen networks that judge edits: which attributes, whose face, which part is where.

They are trained on other images than any data set holds (recipes/), know nothing of the
diffusion model, and are read from safetensors files whose metadata says what they are.
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
from boundaryflow.tensor_files import read_tensors, write_tensors

_BATCH_SIZE = 256

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
    """Convolutions that halve the picture, then one linear layer on all that is left.

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
        num_parts: How many parts there are.
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
    """A network that says which part each pixel shows.

    Attributes:
        parts: Names of the parts, by their numbers.
        net: Network of part logits.
    """

    parts: tuple[str, ...]
    net: nn.Module

    @torch.inference_mode()
    def __call__(self, images_01: Float[Tensor, "b c h w"]) -> Int64[Tensor, "b h w"]:
        """Number of the part that each pixel shows."""
        return _in_batches(self.net, images_01, lambda out: out.argmax(1))


@dataclass(frozen=True)
class Judges:
    """What there is to judge with.

    Attributes:
        attributes: Names the classifier knows, in the order of its outputs.
        image_size: Side of the pictures in pixels.
        channels: Channels of the pictures.
        classifier: Network of attribute logits.
        embedder: Network of identity vectors, or None.
        segmenter: Says which part each pixel shows, or None.
    """

    attributes: tuple[str, ...]
    image_size: int
    channels: int
    classifier: nn.Module
    embedder: nn.Module | None
    segmenter: Segmenter | None

    @torch.inference_mode()
    def probabilities(self, images_01: Float[Tensor, "b c h w"]) -> Float[Tensor, "b a"]:
        """Probability of each attribute."""
        return _in_batches(self.classifier, images_01).sigmoid()

    @torch.inference_mode()
    def identity(self, images_01: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"] | None:
        """Unit vector that stands for who it is, or None without an embedder."""
        return None if self.embedder is None else _in_batches(self.embedder, images_01)

    def parts(self, images_01: Float[Tensor, "b c h w"]) -> Int64[Tensor, "b h w"] | None:
        """Which part each pixel shows, or None without a segmenter."""
        return None if self.segmenter is None else self.segmenter(images_01)


def _in_batches(net: nn.Module, images_01: Tensor, reduce: Callable[[Tensor], Tensor] = lambda out: out) -> Tensor:
    """Run where the network lives, a few images at a time; the result lies where the images do."""
    home = next(net.parameters()).device
    return torch.cat([reduce(net(part.to(home))).to(images_01.device) for part in images_01.split(_BATCH_SIZE)])


def save_judge(folder: Path, kind: Kind, net: nn.Module, config: dict[str, Any], names: Sequence[str]) -> None:
    """Write one judge with half-precision weights.

    Args:
        folder: Folder of the judges.
        kind: Which judge it is.
        net: `JudgeNet` or `SegmenterNet`.
        config: The arguments it was made with, and `image_size`.
        names: Names of its outputs; empty for an embedder.
    """
    tensors = {name: tensor.half() for name, tensor in net.state_dict().items()}
    write_tensors(folder / FILES[kind], tensors, {"kind": kind, "config": config, "names": list(names)})


def load_judges(folder: Path, device: torch.device | str = "cpu") -> Judges:
    """Read the judges of a folder; the attribute classifier must be there, the others may be.

    Raises:
        CheckpointError: A file is missing, damaged, or not a judge.
    """
    classifier, config, names = _load(folder / FILES["classify"], "classify", device)
    embed, segment = folder / FILES["embed"], folder / FILES["segment"]
    return Judges(
        tuple(names),
        config["image_size"],
        config["channels"],
        classifier,
        _load(embed, "embed", device)[0] if embed.exists() else None,
        load_segmenter(segment, device) if segment.exists() else None,
    )


def load_segmenter(path: Path, device: torch.device | str = "cpu") -> Segmenter:
    """Read a segmenter, such as the one among the judges of a folder.

    Raises:
        CheckpointError: The file is missing, damaged, or not a segmenter.
    """
    net, _config, names = _load(path, "segment", device)
    return Segmenter(tuple(names), net)


def _load(path: Path, kind: Kind, device: torch.device | str) -> tuple[nn.Module, dict[str, Any], list[str]]:
    if not path.exists():
        raise CheckpointError(f"judge {path}: no such file; give a folder with judges, or set evaluate.judges to null")
    try:
        tensors, about = read_tensors(path)
    except SafetensorError as error:
        raise CheckpointError(f"judge {path}: not a whole safetensors file ({error}); fetch it again") from None
    if about.get("kind") != kind:
        raise CheckpointError(f"judge {path}: kind is {about.get('kind')!r}, must be {kind!r}")
    config = about["config"]
    if kind == "segment":
        net: nn.Module = SegmenterNet(config["channels"], config["widths"], config["num_parts"])
    else:
        net = JudgeNet(config["channels"], config["widths"], config["image_size"], config["num_outputs"], kind)
    net.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return net.to(device).eval().requires_grad_(False), config, about["names"]
