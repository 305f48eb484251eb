"""Tables as Parquet and facts as JSON, written atomically; equal content gives equal bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from boundaryflow.errors import ManifestError
from boundaryflow.files import write_bytes

_SCHEMA, _UNITS = b"boundaryflow.schema", b"boundaryflow.units"


def write_json(path: Path, content: Any, *, scratch: Path | None = None) -> None:
    """Write JSON with sorted keys. NaN is refused: it is not JSON."""
    write_bytes(path, (json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n").encode(), scratch=scratch)


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote.

    Raises:
        ManifestError: The file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such file; run `boundaryflow run` to make it") from None
    except ValueError as error:
        raise ManifestError(f"{path}: damaged ({error}); delete it and run `boundaryflow run`") from None


def write_table(path: Path, table: pd.DataFrame, *, schema: str, units: Mapping[str, str] | None = None) -> None:
    """Write a table that opens in pandas, polars and DuckDB without this project.

    Args:
        path: Parquet file.
        table: See `table_bytes`.
        schema: See `table_bytes`.
        units: See `table_bytes`.
    """
    write_bytes(path, table_bytes(table, schema=schema, units=units))


def table_bytes(table: pd.DataFrame, *, schema: str, units: Mapping[str, str] | None = None) -> bytes:
    """A table as a Parquet file, the same bytes for the same content.

    Args:
        table: Rows in the order in which they are written; its index is not written.
        schema: Name and version of the columns, such as `manifest/1`.
        units: Column to unit, kept in the file's metadata.
    """
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    about = {_SCHEMA: schema.encode(), _UNITS: json.dumps(dict(units or {}), sort_keys=True).encode()}
    buffer = io.BytesIO()
    pq.write_table(arrow.replace_schema_metadata(about), buffer, compression="zstd")
    return buffer.getvalue()


def table_schema(path: Path) -> tuple[str | None, dict[str, str]]:
    """Schema and units in the metadata of a Parquet file; None and an empty dict if `write_table` did not write it.

    Raises:
        ArrowInvalid, OSError: The file cannot be read.
    """
    about = pq.read_schema(path).metadata or {}
    schema = about.get(_SCHEMA)
    return (schema.decode() if schema else None), json.loads(about.get(_UNITS, b"{}"))


def read_table(path: Path, *, schema: str) -> pd.DataFrame:
    """Read a table written by `write_table`.

    Raises:
        ManifestError: The file is missing, damaged, or of another schema.
    """
    return parse_table(path, str(path), schema=schema)


def parse_table(source: Path | BinaryIO, name: str, *, schema: str) -> pd.DataFrame:
    """Read a table of `table_bytes`, from a file or from memory.

    Args:
        source: The file, or its bytes.
        name: Its name in error messages.
        schema: Required schema.

    Raises:
        ManifestError: It is missing, damaged, or of another schema.
    """
    try:
        arrow = pq.read_table(source)
    except FileNotFoundError:
        raise ManifestError(f"table {name}: no such file; run `boundaryflow run` to make it") from None
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ManifestError(f"table {name}: damaged ({reason}); delete it and run `boundaryflow run`") from None
    found = (arrow.schema.metadata or {}).get(_SCHEMA, b"none").decode()
    if found != schema:
        raise ManifestError(
            f"table {name}: schema is {found!r}, must be {schema!r}; run `boundaryflow run` to rebuild it"
        )
    return arrow.to_pandas()
