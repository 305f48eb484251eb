"""What an entry of the catalog says: of a folder of data/, and of a table in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

SHARD = r"shard-\d+of\d+-[0-9a-f]{12}\.safetensors"
"""The name of a file of `store.shards`."""


@dataclass(frozen=True)
class Table:
    """A Parquet table.

    Attributes:
        file: Its name, from the folder of the data set.
        schema: Name and version of its columns.
        units: Column to unit.
    """

    file: str
    schema: str
    units: Mapping[str, str] = field(default_factory=dict[str, str])

    def read(self, folder: Path) -> pd.DataFrame:
        """Read it.

        Raises:
            ManifestError: It is missing, damaged, or of another schema.
        """
        from boundaryflow.store.tables import read_table

        return read_table(folder / self.file, schema=self.schema)

    def write(self, folder: Path, table: pd.DataFrame, units: Mapping[str, str] | None = None) -> None:
        """Write it; `units` are of columns that are named by the data set."""
        from boundaryflow.store.tables import write_table

        write_table(folder / self.file, table, schema=self.schema, units={**self.units, **(units or {})})


@dataclass(frozen=True)
class Output:
    r"""A folder of data/, with an entry for each data set, or for each job.

    Attributes:
        name: Of the folder, and of the stage or kind of job that writes it.
        files: Regular expression that the names of its files match, below the entry: what `boundaryflow gc` may remove.
        facts: The JSON file that says how it was made; empty if there is none.
        counted: What `boundaryflow status` counts: a table, by its rows; or `facts` and the keys there of the number
            of items and of those rejected.
        runs_networks: Whether its stage needs the GPU.
        by: Who fills it; a person chose the names in it, if not a stage or a job.
    """

    name: str
    files: str = ""
    facts: str = ""
    counted: tuple[str, ...] = ()
    runs_networks: bool = False
    by: Literal["stage", "job", "person"] = "stage"

    def folder(self, entry: str, root: Path = Path()) -> Path:
        """The folder of a data set or job."""
        return root / "data" / self.name / entry

    def facts_path(self, entry: str, root: Path = Path()) -> Path:
        """The JSON file of a data set."""
        return self.folder(entry, root) / self.facts

    def read_facts(self, entry: str, root: Path = Path()) -> Any:
        """What the JSON file of a data set says.

        Raises:
            ManifestError: It is missing or damaged.
        """
        from boundaryflow.store.tables import read_json

        return read_json(self.facts_path(entry, root))
