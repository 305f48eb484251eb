"""All judges of a folder, this project's and third-party ones, and which of them decides on which attribute."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from boundaryflow.errors import CheckpointError
from boundaryflow.evaluation.declared import SUFFIX, find_declarations, read_declaration
from boundaryflow.evaluation.foreign import DeclaredNet
from boundaryflow.evaluation.judges import FILES, Segmenter, in_batches, load_segmenter, read_judge
from boundaryflow.text import visible

OWN = FILES["classify"].partition(".")[0]
"""Name of this project's classifier."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Classifier:
    """A network that classifies attributes.

    Attributes:
        name: Its name in tables.
        attributes: Its attributes, in the order of its outputs.
        probabilities: Function of pictures [B,C,H,W] in [0, 1] to [B,A].
    """

    name: str
    attributes: tuple[str, ...]
    probabilities: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Embedder:
    """A face recognition network.

    Attributes:
        vectors: Function of pictures [B,C,H,W] in [0, 1] to [B,D].
        distance: Function of two such batches to pairwise distances [B]; None if no threshold is known.
        threshold: Largest distance of two pictures of the same person.
    """

    vectors: Callable[[Tensor], Tensor]
    distance: Callable[[Tensor, Tensor], Tensor] | None = None
    threshold: float = math.inf


@dataclass(frozen=True)
class Judges:
    """The judges of a folder.

    Attributes:
        classifiers: In order of precedence: the first that knows an attribute decides on it.
        embedder: Face recognition network, or None.
        segmenter: Segmentation network, or None.
    """

    classifiers: tuple[Classifier, ...]
    embedder: Embedder | None
    segmenter: Segmenter | None

    @cached_property
    def deciding(self) -> dict[str, str]:
        """Attribute to the name of the classifier that decides on it."""
        return {name: judge.name for judge in reversed(self.classifiers) for name in judge.attributes}

    @cached_property
    def attributes(self) -> tuple[str, ...]:
        """Names of all known attributes, those of the first classifier first."""
        return tuple(dict.fromkeys(name for judge in self.classifiers for name in judge.attributes))

    @torch.inference_mode()
    def verdicts(self, images_01: Float[Tensor, "b c h w"]) -> dict[str, Tensor]:
        """Name of each classifier to its probabilities [B,A], in the order of its attributes."""
        return {judge.name: judge.probabilities(images_01) for judge in self.classifiers}

    def decided(self, verdicts: Mapping[str, Tensor]) -> Float[Tensor, "b a"]:
        """Probability of each of `attributes`, by the classifier that decides on it."""
        places = {judge.name: judge.attributes for judge in self.classifiers}
        by = [(name, self.deciding[name]) for name in self.attributes]
        return torch.stack([verdicts[judge][:, places[judge].index(name)] for name, judge in by], 1)

    def probabilities(self, images_01: Float[Tensor, "b c h w"]) -> Float[Tensor, "b a"]:
        """Probability of each of `attributes` for pictures."""
        return self.decided(self.verdicts(images_01))

    @torch.inference_mode()
    def identity(self, images_01: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"] | None:
        """Identity vectors, or None without an embedder."""
        return None if self.embedder is None else self.embedder.vectors(images_01)

    def same_person(self, before: Float[Tensor, "b d"], after: Float[Tensor, "b d"]) -> Bool[Tensor, " b"] | None:
        """Whether two identity vectors are of the same person, or None without a threshold."""
        if self.embedder is None or self.embedder.distance is None:
            return None
        return self.embedder.distance(before, after) <= self.embedder.threshold

    def parts(self, images_01: Float[Tensor, "b c h w"]) -> Int64[Tensor, "b h w"] | None:
        """Number of the part of each pixel, or None without a segmenter."""
        return None if self.segmenter is None else self.segmenter(images_01)


def judge_files(folder: Path) -> list[Path]:
    """The files that the results of a folder's judges depend on: all files except notes."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md")


def open_declared(folder: Path) -> list[DeclaredNet]:
    """Open and check the third-party networks that a folder declares.

    Raises:
        CheckpointError: One is missing, damaged, or differs from its declaration.
    """
    for path in find_declarations(folder):
        name = path.name.removesuffix(SUFFIX)
        if not _NAME.fullmatch(name) or name == OWN:
            raise CheckpointError(
                f"judge {visible(str(path))}: its name must be of letters, digits, _ and -, at most 64, and not {OWN}; "
                "rename it"
            )
    return [DeclaredNet(read_declaration(path)) for path in find_declarations(folder)]


def load_judges(folder: Path, device: torch.device | str = "cpu") -> Judges:
    """Read the judges of a folder: at least one classifier, and optionally an embedder and a segmenter.

    Declared networks, sorted by the names of their declarations, take precedence over this project's, as they are
    independent of it. They run on the CPU.

    Raises:
        CheckpointError: A file is missing, damaged, or not a judge.
    """
    declared = open_declared(folder)
    classifiers = [
        Classifier(net.declaration.name, tuple(net.declaration.attributes), net)
        for net in declared
        if net.declaration.kind == "classify"
    ]
    own = folder / FILES["classify"]
    if own.exists() or not classifiers:
        net, _config, names = read_judge(own, "classify", device)
        classifiers.append(Classifier(OWN, tuple(names), lambda images_01: in_batches(net, images_01).sigmoid()))
    embed, segment = folder / FILES["embed"], folder / FILES["segment"]
    embedders = [_embedder(net) for net in declared if net.declaration.kind == "embed"]
    if embed.exists():
        embedders.append(_own_embedder(read_judge(embed, "embed", device)[0]))
    segmenter = load_segmenter(segment, device) if segment.exists() else None
    return Judges(tuple(classifiers), embedders[0] if embedders else None, segmenter)


def _own_embedder(net: nn.Module) -> Embedder:
    return Embedder(lambda images_01: in_batches(net, images_01))


def _embedder(net: DeclaredNet) -> Embedder:
    distances: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "cosine": lambda a, b: 1 - F.cosine_similarity(a, b),
        "l2": lambda a, b: (a - b).norm(dim=1),
    }
    return Embedder(net, distances[net.declaration.distance], net.declaration.threshold)
