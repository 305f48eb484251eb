"""Tables and JSON: the same bytes for the same content, and clear refusals."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from boundaryflow.errors import ManifestError
from boundaryflow.store.tables import read_table, write_json, write_table

TABLE = pd.DataFrame({"item_id": ["a", "b"], "value": [1.5, float("nan")], "flag": [True, False]})


def test_round_trip_keeps_values_and_says_schema_and_units(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "t.parquet"
    write_table(path, TABLE, schema="t/1", units={"value": "px"})
    pd.testing.assert_frame_equal(read_table(path, schema="t/1"), TABLE, check_dtype=False)
    about = pq.read_schema(path).metadata
    assert about[b"boundaryflow.schema"] == b"t/1"
    assert about[b"boundaryflow.units"] == b'{"value": "px"}'


def test_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_table(tmp_path / name, TABLE, schema="t/1")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_wrong_or_damaged_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with pytest.raises(ManifestError, match="no such file"):
        read_table(path, schema="t/1")
    write_table(path, TABLE, schema="t/1")
    with pytest.raises(ManifestError, match="schema is 't/1', must be 't/2'"):
        read_table(path, schema="t/2")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ManifestError, match="damaged"):
        read_table(path, schema="t/1")


def test_json_refuses_what_is_not_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": [2]})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": [\n    2\n  ],\n  "b": 1\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", {"a": float("nan")})
    assert not (tmp_path / "b.json").exists()
