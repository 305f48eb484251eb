"""Entries of the catalog: a folder of data/, and a table in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        file: Its path, relative to the folder of the data set.
        schema: Name and version of its columns.
        units: Column to unit.
        types: Column to dtype, for a table that may have no rows.
    """

    file: str
    schema: str
    units: Mapping[str, str] = field(default_factory=dict[str, str])
    types: Mapping[str, str] = field(default_factory=dict[str, str])

    def typed(self, table: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
        """The table with the declared dtypes (an empty one too), its rows sorted by `order`."""
        typed = table.reindex(columns=list(self.types)).astype(dict(self.types))
        return typed.sort_values(list(order), ignore_index=True)

    def read(self, folder: Path) -> pd.DataFrame:
        """Read the table.

        Raises:
            ManifestError: It is missing, damaged, or of another schema.
        """
        from boundaryflow.store.tables import read_table

        return read_table(folder / self.file, schema=self.schema)

    def write(self, folder: Path, table: pd.DataFrame, units: Mapping[str, str] | None = None) -> None:
        """Write the table; `units` gives the units of columns whose names depend on the data set."""
        from boundaryflow.store.tables import write_table

        write_table(folder / self.file, table, schema=self.schema, units={**self.units, **(units or {})})


@dataclass(frozen=True)
class Output:
    r"""A folder of data/, with an entry for each data set, or for each job.

    Attributes:
        name: Name of the folder, and of the stage or kind of job that writes it.
        files: Regular expression of the paths of its files, relative to an entry; `boundaryflow gc` removes only such.
        facts: The JSON file that says how it was made; empty if there is none.
        counted: What `boundaryflow status` counts: the rows of tables; or `facts`, with the keys of the numbers of
            items and of rejected items.
        runs_networks: Whether its stage needs the GPU.
        by: Who writes it: a stage, a job, or a person, who also chooses the names of its entries.
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
        """Content of the JSON file of a data set.

        Raises:
            ManifestError: It is missing or damaged.
        """
        from boundaryflow.store.tables import read_json

        return read_json(self.facts_path(entry, root))
