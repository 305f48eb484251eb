"""What people have said of images, in files beside them or in their names: a class for each kind, with its rules.

Another kind is a class here and in `Annotations`, and its reader in `sources/annotations.py` or, if it has columns of
any content, in `sources/cells.py`; `tests/contract/test_kinds.py` says what is missing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator

from boundaryflow.config.base import RawPath, Section
from boundaryflow.config.label_rules import AttributeRule, ColumnRule, ThresholdRule, ValueRule
from boundaryflow.config.wording import nearest


class LabelKind(Section):
    """What a kind of label source may say differently.

    Attributes:
        rules: The rules of attributes that it can follow, beside those made of other attributes.
        needs: The same in words.
        names_attributes: Whether what is read has a column of each attribute's name, as `calibration` needs.
    """

    rules: ClassVar[tuple[type[Section], ...]] = (ValueRule, ThresholdRule, ColumnRule)
    needs: ClassVar[str] = "a column"
    names_attributes: ClassVar[bool] = False

    @property
    def read_from(self) -> LabelKind:
        """The source that the rules are of: another one, where this one learns from it."""
        return self

    @property
    def columns(self) -> list[str] | None:
        """All columns that there can be; None if only the files tell."""
        return None

    @property
    def clip_weights(self) -> str | None:
        """The CLIP model that labels, if one does."""
        return None

    @property
    def network(self) -> str | None:
        """The file or folder of the networks that label, if any do."""
        return self.clip_weights

    def files(self) -> Iterator[tuple[str, str]]:
        """Keys, within the source, and paths of what is read from beside the images."""
        yield from ()

    def disagreements(self, attributes: Collection[str]) -> Iterator[str]:
        """Lines `key: what is wrong`, the key within the data set."""
        yield from ()

    def about_rule(self, name: str, rule: AttributeRule) -> Iterator[str]:
        """What is wrong with an attribute's rule here: texts that follow its key."""
        column = rule.column or name if isinstance(rule, ValueRule | ThresholdRule | ColumnRule) else None
        if column is not None and self.columns is not None and column not in self.columns:
            yield f".column: there is no {column!r}{nearest(column, self.columns)}"


class CsvSource(LabelKind):
    """A table with a row per image: CSV, TSV, Parquet or JSON lines; its path, or a pattern, within data/raw/NAME."""

    names_attributes = True
    kind: Literal["csv"]
    path: RawPath
    file_column: str

    def files(self) -> Iterator[tuple[str, str]]:
        """See `LabelKind`."""
        yield "path", self.path

    def about_rule(self, name: str, rule: AttributeRule) -> Iterator[str]:
        """See `LabelKind`."""
        if isinstance(rule, ValueRule | ThresholdRule | ColumnRule) and (rule.column or name) == self.file_column:
            yield f".column: {self.file_column!r} is the column of file names; name the one with the values"


class LongSource(LabelKind):
    """A table with a row per image and attribute."""

    needs = "a column (the attribute's name in the table)"
    names_attributes = True
    kind: Literal["long"]
    path: RawPath
    file_column: str
    attribute_column: str
    value_column: str

    def files(self) -> Iterator[tuple[str, str]]:
        """See `LabelKind`."""
        yield "path", self.path

    def disagreements(self, attributes: Collection[str]) -> Iterator[str]:
        """See `LabelKind`."""
        three = [self.file_column, self.attribute_column, self.value_column]
        if twice := next((column for column in three if three.count(column) > 1), None):
            yield f"label.source: {twice!r} is two of file_column, attribute_column and value_column; name three"


class CelebaSource(LabelKind):
    """The annotation file of CelebA, CelebA-HQ or CelebAMask-HQ.

    `mapping` is CelebA-HQ-to-CelebA-mapping.txt, where the images have CelebA-HQ's numbers and the
    annotations CelebA's.
    """

    needs = "a column (the attribute's name in the file)"
    names_attributes = True
    kind: Literal["celeba"]
    path: RawPath
    mapping: RawPath | None

    def files(self) -> Iterator[tuple[str, str]]:
        """See `LabelKind`."""
        yield "path", self.path
        if self.mapping is not None:
            yield "mapping", self.mapping


def named_groups(pattern: str) -> list[str]:
    """Names of the groups of a regular expression of RE2, which takes linear time whatever it is matched with.

    Raises:
        ValueError: RE2 cannot read it, or it has no named group, an unnamed one or a name twice.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        found = pc.call_function("extract_regex", [pa.array([], pa.string())], pc.ExtractRegexOptions(pattern))
    except pa.ArrowInvalid as error:
        if "unnamed groups" in str(error):
            raise ValueError("has a group without a name; write (?P<name>...), or (?:...) to name none") from None
        raise ValueError(f"{str(error)[:1].lower()}{str(error)[1:]}; it is written as RE2 reads it") from None
    names = [field.name for field in found.type]
    if not names:
        raise ValueError(r"names no group; write what is to be a column as (?P<name>...), such as (?P<subject>\d+)_")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"has two groups named {twice}; rename one")
    return names


def _has_groups(pattern: str) -> str:
    named_groups(pattern)
    return pattern


class FolderLabels(LabelKind):
    """Folders as labels.

    The column `folder` is the name of the folder that an image lies in, `folder_1` that of the topmost above it,
    `folder_2` that of the next.
    """

    rules = (ValueRule,)
    needs = "column: folder with positive and negative folder names"
    kind: Literal["folders"]

    def about_rule(self, name: str, rule: AttributeRule) -> Iterator[str]:
        """See `LabelKind`."""
        if isinstance(rule, ValueRule) and not is_folder_column(rule.column):
            yield f".column: is {rule.column!r}, must be folder; folders have no other column, but folder_1, folder_2"


def is_folder_column(column: str) -> bool:
    """Whether `FolderLabels` has such a column."""
    return re.fullmatch(r"folder(_[1-9]\d?)?", column, re.ASCII) is not None


class NameLabels(LabelKind):
    """Labels in the pictures' own paths: the columns are the named groups of a regular expression."""

    needs = "a column (a named group of the pattern)"
    names_attributes = True
    kind: Literal["names"]
    pattern: Annotated[str, AfterValidator(_has_groups)]

    @property
    def columns(self) -> list[str]:
        """See `LabelKind`."""
        return named_groups(self.pattern)


class PairLabels(LabelKind):
    """A text file with a file name and a value in each line, apart by white space; the column is `value`."""

    kind: Literal["pairs"]
    path: RawPath

    @property
    def columns(self) -> list[str]:
        """See `LabelKind`."""
        return ["value"]

    def files(self) -> Iterator[tuple[str, str]]:
        """See `LabelKind`."""
        yield "path", self.path


class ImageFolderLabels(LabelKind):
    """Files `metadata.csv`, `.jsonl` or `.parquet` in any folder, whose `file_name` is relative to that folder."""

    names_attributes = True
    kind: Literal["imagefolder"]

    def files(self) -> Iterator[tuple[str, str]]:
        """See `LabelKind`."""
        yield "kind", "**/metadata.*"


class JsonLabels(LabelKind):
    """JSON: one object of all pictures, a list of records, or a file for each picture.

    Attributes:
        path: The file, or a pattern for several.
        file_column: Key of the file names in a list of records; None for the other forms.
        per_picture: Each file has the attributes of the picture of the same path, but for the suffix.
    """

    needs = "a column (a key of the objects; `value` where there is one value for each picture)"
    names_attributes = True
    kind: Literal["json"]
    path: RawPath
    file_column: str | None
    per_picture: bool

    def files(self) -> Iterator[tuple[str, str]]:
        """See `LabelKind`."""
        yield "path", self.path

    def disagreements(self, attributes: Collection[str]) -> Iterator[str]:
        """See `LabelKind`."""
        if self.per_picture and self.file_column is not None:
            yield "label.source.file_column: must be null with per_picture: true, where a file's name says its picture"


class WebDatasetLabels(LabelKind):
    """Members of archives beside pictures of the same key: keys of `.json`, and the columns `cls` and `txt`."""

    names_attributes = True
    kind: Literal["webdataset"]
    path: RawPath

    def files(self) -> Iterator[tuple[str, str]]:
        """See `LabelKind`."""
        yield "path", self.path


class ParquetLabels(LabelKind):
    """Columns beside the pictures of Parquet files: `ingest.source` is of kind parquet, too."""

    names_attributes = True
    kind: Literal["parquet"]
    path: RawPath
    image_column: str | None

    def files(self) -> Iterator[tuple[str, str]]:
        """See `LabelKind`."""
        yield "path", self.path


TableLabels = (
    CsvSource
    | FolderLabels
    | NameLabels
    | PairLabels
    | ImageFolderLabels
    | JsonLabels
    | WebDatasetLabels
    | ParquetLabels
)
"""Annotations with columns of any content."""
Annotations = TableLabels | LongSource | CelebaSource
"""What people have said of images."""
