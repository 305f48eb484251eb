"""From edited pixels to the files that people get: the original with the change, or the model's picture.

A guided edit is the image plus a change, which the original can have as well. A single step redraws the whole
picture, so that there is no change to bring back: of it, and of drawn avatars, which are nobody's files, the model's
pictures are delivered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from boundaryflow.config import DatasetParams, DeliveryParams, NamedDeliveryParams
from boundaryflow.errors import ManifestError, ParamsError
from boundaryflow.sources.archives import UnusableError
from boundaryflow.sources.decoding import item_id_of
from boundaryflow.sources.encoding import SUFFIXES, Encoding, Format, check_size, encode
from boundaryflow.sources.originals import Original, read_original
from boundaryflow.sources.raw import RawPictures

HEAD_BYTES = 12
"""Leading bytes of a file that tell its format."""


@dataclass(frozen=True)
class Finishing:
    """What becomes of edited pixels.

    Attributes:
        geometry: Keyword arguments of `decode_image`, by which the model's picture was made.
        is_original: Deliver the original with the change, else the model's picture.
        format: Of the files; `source` is that of the original if it is PNG, JPEG or WebP, else PNG.
        quality: See `Encoding`.
        keep_metadata: Keep the EXIF of the original.
        names: Name files after the `item` or the `source`.
        suffix: Added to the name of the source.
    """

    geometry: Mapping[str, Any]
    is_original: bool = False
    format: Format | str = "png"
    quality: int | None = None
    keep_metadata: bool = False
    names: str = "item"
    suffix: str = ""

    @property
    def needs_file(self) -> bool:
        """Whether the file of the original is needed."""
        return self.is_original or self.format == "source"

    def described(self) -> dict[str, Any]:
        """Everything that a delivered file depends on, except its pixels and facts."""
        return asdict(self)

    def stem(self, item: str, source: str) -> str:
        """Path of a picture within the folder of its edit, without the suffix of its format."""
        if self.names == "item":
            return item
        path = PurePosixPath(source)
        return str(path.with_name(f"{path.stem}{self.suffix}"))

    def extension(self, head: bytes | None) -> str:
        """Suffix of the delivered file, such as `.png`, from the first bytes of the original."""
        return SUFFIXES[self._encoding(head).format]

    def _encoding(self, head: bytes | None) -> Encoding:
        if self.format != "source":
            return Encoding(self.format, self.quality)  # pyright: ignore[reportArgumentType]
        head = head or b""
        if head.startswith(b"\xff\xd8"):
            return Encoding("jpeg", self.quality)
        return Encoding("webp", self.quality) if head[8:12] == b"WEBP" else Encoding()

    def open(self, data: bytes | None, before: Tensor) -> Finisher:
        """Prepare the delivery of the edits of one picture.

        Args:
            data: Its file; None where it has none, or none is needed.
            before: [C,S,S] uint8 pixels that the model saw of it.

        Raises:
            ManifestError: The original cannot be edited: the reason, without its name.
        """
        original, encoding = None, self._encoding(data)
        if self.is_original and data is not None:
            original = read_original(data, self.geometry)
            check_size(original.pixels.shape[1], original.pixels.shape[0], encoding)
        return Finisher(self, encoding, original, before)


@dataclass(frozen=True)
class Finisher:
    """Edits of one picture on their way to files; see `Finishing.open`."""

    how: Finishing
    encoding: Encoding
    original: Original | None
    before: Tensor

    @property
    def extension(self) -> str:
        """Suffix of the files."""
        return SUFFIXES[self.encoding.format]

    def pixels(self, after: Tensor) -> NDArray[Any]:
        """[H,W,C] what is delivered for an edit [C,S,S]."""
        if self.original is None:
            return np.ascontiguousarray(after.cpu().numpy().transpose(1, 2, 0))
        return self.original.edited(self.before, after)

    def file(self, pixels: NDArray[Any], facts: Mapping[str, str]) -> bytes:
        """The file of pixels [H,W,C]; see `encode`."""
        original = self.original
        return encode(
            pixels,
            facts,
            self.encoding,
            background=self.how.geometry["background"],
            profile=original and original.profile,
            exif=original.exif if original and self.how.keep_metadata else None,
        )


def finishing_of(
    what: str, delivery: DeliveryParams, dataset: DatasetParams, *, method: str | None = None, has_files: bool = True
) -> Finishing:
    """What becomes of the edits of a data set's model.

    Args:
        what: Job or command, for messages.
        delivery: What is asked for; without `deliver` the original, where it can be had.
        dataset: Section of the data set.
        method: Of the edits; None is `edit.method`.
        has_files: Whether the pictures come from files, and were not drawn.

    Raises:
        ParamsError: The original is asked for where it cannot be had.
    """
    is_guided = (method or dataset.edit.method) == "guided" and not dataset.paper_mode
    return finishing_with(what, delivery, dataset.ingest.geometry, is_guided=is_guided, has_files=has_files)


def finishing_with(
    what: str, delivery: DeliveryParams, geometry: Mapping[str, Any], *, is_guided: bool, has_files: bool = True
) -> Finishing:
    """What becomes of edits of pictures of a geometry; see `finishing_of`."""
    lacking = "" if has_files else "the pictures are drawn, and have no files"
    if not is_guided:
        lacking = "a single step redraws the whole picture, so that there is no change to add to the original"
    if lacking and (delivery.deliver == "original" or delivery.metadata == "keep"):
        key = "deliver is original" if delivery.deliver == "original" else "metadata is keep"
        raise ParamsError(f"{what}: {key}, but {lacking}; choose deliver: model and metadata: drop")
    named = delivery if isinstance(delivery, NamedDeliveryParams) else NamedDeliveryParams()
    return Finishing(
        geometry,
        is_original=not lacking and delivery.deliver != "model",
        format=delivery.format,
        quality=delivery.quality,
        keep_metadata=delivery.metadata == "keep",
        names=named.names,
        suffix=named.suffix,
    )


class SourceFiles:
    """Files of the pictures of a data set, by item.

    Args:
        what: Job or command, for messages.
        raw: Raw pictures of the data set.
        names: Item to name.
    """

    def __init__(self, what: str, raw: RawPictures, names: Mapping[str, str]) -> None:
        self._what, self._raw, self._names = what, raw, names
        self._known = set(raw.names)

    def read(self, item: str) -> bytes:
        """The file of an item.

        Raises:
            ManifestError: It is gone, or is another one than the one that was edited.
        """
        name = self._names.get(item, "")
        try:
            data = self._raw.read(name) if name in self._known else b""
        except UnusableError as error:
            raise ManifestError(self._told(name, str(error))) from None
        if item_id_of(data) != item:
            raise ManifestError(self._told(name, "is gone, or is no longer the file that was edited"))
        return data

    def _told(self, name: str, reason: str) -> str:
        return f"{self._what}: {name}: {reason}; run `boundaryflow run` again, or deliver the model's pictures"

    def in_order(self, items: Sequence[str]) -> list[str]:
        """Items in the order in which their files are read fastest; as they are if it does not matter."""
        place = {name: position for position, name in enumerate(self._raw.names)}
        if not any(self._raw.is_in_order(self._names[item]) for item in items if self._names.get(item) in place):
            return list(items)
        return sorted(items, key=lambda item: place.get(self._names.get(item, ""), -1))
