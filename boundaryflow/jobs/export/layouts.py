"""The layouts of an export: which files hold the pictures, and what is known of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from boundaryflow.errors import ManifestError, ParamsError
from boundaryflow.text import visible

Kind = Literal["folders", "imagefolder", "parquet", "webdataset", "table"]
PAIRS = "edits.parquet"
# Folders by which `datasets` tells splits apart, wherever they are in a path (datasets/data_files.py)
_SPLIT_WORD = re.compile(
    r"(?:^|[-._ 0-9])(?:train(?:ing)?|validation|valid|dev|val|test(?:ing)?|eval|evaluation)(?:$|[-._ 0-9])"
)


@dataclass(frozen=True)
class Layout:
    """How an export is laid out.

    Attributes:
        kind: `folders`: EDIT/STRENGTH/ITEM.png and metadata.parquet. `imagefolder`: the same for each split, with all
            that is known. `parquet`: pictures in Parquet files, as on the Hugging Face hub. `webdataset`: tar files.
            `table`: files before and after, and a table of their paths.
        label: Attribute that is the class of a picture; None for no class.
        with_before: With the picture before each edit; `table` has it always.
        shard_bytes: A Parquet or tar file is larger only if one picture is.

    Raises:
        ParamsError: They do not go together.
    """

    kind: Kind = "folders"
    label: str | None = None
    with_before: bool = False
    shard_bytes: int = 500 * 2**20

    def __post_init__(self) -> None:
        if self.label is not None and self.kind in ("folders", "table"):
            raise ParamsError(f"export: --label is for imagefolder, parquet and webdataset, not for {self.kind}")
        if self.with_before and self.kind == "folders":
            raise ParamsError("export: --before is for imagefolder, parquet and webdataset, not for folders")
        if self.with_before and self.label is not None and self.kind == "imagefolder":
            raise ParamsError(
                "export: --before adds a folder that torchvision takes for a class of --label; choose one of them, or "
                "--layout parquet"
            )

    @property
    def shows_before(self) -> bool:
        """Whether the picture before an edit is written."""
        return self.with_before or self.kind == "table"

    def stem(self, stem: str) -> str:
        """The name of a picture, fit for this layout: in tar files a point ends the name of a sample."""
        if self.kind != "webdataset":
            return stem
        path = PurePosixPath(stem)
        return str(path.with_name(path.name.replace(".", "_")))

    def check_paths(self, paths: Iterable[str], at: str) -> None:
        """Refuse folders that `datasets` takes for splits.

        Args:
            paths: Folders below that of a split.
            at: What is exported, for messages.

        Raises:
            ManifestError: There is one.
        """
        if self.kind != "imagefolder":
            return
        for folder in {part for path in (*paths, f"not_{self.label}") for part in path.split("/")}:
            if _SPLIT_WORD.search(folder):
                raise ManifestError(
                    f"{at}: datasets.load_dataset would take the folder {visible(folder)} for a split; export with "
                    "--names item, or with --layout parquet"
                )


FOLDERS = Layout()
