"""Section ingest: images in, pixels out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from boundaryflow.config.annotations import TableLabels
from boundaryflow.config.base import RawPath, Section, Share
from boundaryflow.config.image_sources import ImageSource

Byte = Annotated[int, Field(ge=0, le=255)]


class CropBox(Section):
    """What is cut out of every picture before it is brought to size, in its own pixels."""

    left: int = Field(ge=0)
    top: int = Field(ge=0)
    width: int = Field(ge=1)
    height: int = Field(ge=1)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """As `decode_image` takes it."""
        return self.left, self.top, self.width, self.height


def _held_out_tag(value: Any) -> str:
    return "folders" if isinstance(value, list) else "share"


HeldOut = Annotated[
    Annotated[Share, Tag("share")] | Annotated[list[str], Tag("folders")],
    Discriminator(_held_out_tag),
]


class Groups(Section):
    """Which images belong together, such as those of one person: those with the same value in a column."""

    source: Annotated[TableLabels, Field(discriminator="kind")]
    column: str


def _is_none(value: object) -> bool:
    return value is None


class Split(Section):
    """What is held out from fitting: a share of the images, or those in folders of these names; the rest is fitted on.

    Shares are of the images that no folder names. Images of a group come into one split.
    """

    val: HeldOut
    test: HeldOut
    groups: Groups | None = Field(default=None, exclude_if=_is_none)  # younger: what lacks it is dumped as it was


class FileSplit(Section):
    """What is held out, from a file beside the images: CelebA's partition file, or a table with these two columns."""

    path: RawPath
    file_column: str | None
    split_column: str | None


def _split_tag(split: Any) -> str:
    if isinstance(split, Section):
        return type(split).__name__
    return "FileSplit" if isinstance(split, dict) and {"path", "file_column", "split_column"} & set(split) else "Split"


class IngestParams(Section):
    """Images in, pixels out."""

    source: ImageSource
    max_images: int | None = Field(ge=8)
    image_size: int = Field(ge=8, le=1024)
    channels: Literal[1, 3]
    crop: CropBox | None
    fit: Literal["crop", "pad", "stretch"]
    background: tuple[Byte, Byte, Byte]
    levels: tuple[float, float] | None = None  # younger than the other keys; params.yaml files lack it
    split: Annotated[Annotated[Split, Tag("Split")] | Annotated[FileSplit, Tag("FileSplit")], Discriminator(_split_tag)]
    shard_size: int = Field(ge=1)
    max_failed_items: int = Field(ge=0)

    @field_validator("levels")
    @classmethod
    def _rising(cls, levels: tuple[float, float] | None) -> tuple[float, float] | None:
        if levels is not None and not levels[0] < levels[1]:
            raise ValueError("the value of black must be below the value of white")
        return levels

    @property
    def geometry(self) -> dict[str, Any]:
        """What `decode_image` makes of a picture."""
        return {
            "size": self.image_size,
            "channels": self.channels,
            "crop": self.crop and self.crop.box,
            "fit": self.fit,
            "background": self.background,
            "levels": self.levels,
        }
