"""Hostile settings and label tables, made anew for each test: name to what writes it and returns its path."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

Writer = Callable[[Path], Path]


def _file(name: str, content: str | bytes, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _fifo(name: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    os.mkfifo(folder / name)
    return folder / name


def _settings(content: str | bytes) -> Writer:
    return partial(_file, "params.yaml", content)


_LAUGHS = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
SETTINGS: dict[str, Writer] = {
    "date that is none": _settings("run_seed: 0\ndatasets: 2024-02-30\n"),
    "number of 4000 digits": _settings(f"a: 1\nrun_seed: {'9' * 4000}\n"),
    "number of 5000 digits": _settings(f"a: 1\nrun_seed: {'9' * 5000}\n"),
    "UTF-16": _settings("run_seed: 0\n".encode("utf-16")),
    "Latin-1": _settings("run_seed: 0\ndatasets: [caf\xe9]\n".encode("latin-1")),
    "key twice": _settings("run_seed: 0\ndatasets: [a]\nrun_seed: 1\n"),
    "key twice in a line": _settings("data: {b: 1, b: 2}\n"),
    "merge conflict": _settings("a: 1\n<<<<<<< HEAD\nb: 1\n=======\nb: 2\n>>>>>>> theirs\n"),
    "aliases of aliases": _settings(_LAUGHS),
    "alias within itself": _settings("a: &a [*a]\n"),
    "50000 levels deep": _settings("a: " + "[" * 50_000),
    "tag that runs": _settings("a: !!python/object/apply:os.system [touch PWNED]\n"),
    "tag of nothing": _settings("datasets: !!set {a, b}\n"),
    "list at the top": _settings("- a\n- b\n"),
    "nothing": _settings(""),
    "control character": _settings("a: x\x01\n"),
    "NUL by escape": _settings('a: "x\\0y"\n'),
    "surrogate": _settings('a: "\\ud800"\n'),
    "tab": _settings("a:\n\t- 1\n"),
    "not closed": _settings("a: [1\n"),
    "two documents": _settings("a: 1\n---\nb: 1\n"),
    "list as a key": _settings("{[1]: 2}\n"),
    "2 MB": _settings("# " + "x" * 2**21),
    "FIFO": partial(_fifo, "params.yaml"),
}
"""Each is a params.yaml."""


def _table(name: str, content: str | bytes) -> Writer:
    return partial(_file, name, content)


def _parquet(columns: dict[str, list[object]], metadata: dict[bytes, bytes], folder: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns).replace_schema_metadata(metadata)
    pq.write_table(table, folder / "labels.parquet")
    return folder / "labels.parquet"


def _parquet_of_one_value(num_rows: int, folder: Path) -> Path:
    """A few kilobytes that say the same long text over and over."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    cells = pa.DictionaryArray.from_arrays(pa.array([0] * num_rows, pa.int32()), pa.array(["x" * 10_000]))
    table = pa.table({"file": cells, "hat": cells})
    pq.write_table(table, folder / "labels.parquet", compression="zstd")
    return folder / "labels.parquet"


def _parquet_column_twice(folder: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_arrays([pa.array(["0.png"]), pa.array([1]), pa.array([0])], ["file", "hat", "hat"])
    pq.write_table(table, folder / "labels.parquet")
    return folder / "labels.parquet"


def _folder_of(name: str, folder: Path) -> Path:
    (folder / name).mkdir(parents=True)
    return folder / name


_ROWS: dict[str, list[object]] = {"file": [f"{i}.png" for i in range(12)], "hat": [i % 2 for i in range(12)]}
PANDAS: dict[str, bytes] = {
    "no JSON": b"{",
    "a list": b"[]",
    "an index that is not there": b'{"index_columns": ["__index_level_0__"], "columns": [], "column_indexes": []}',
    "a type that is none": b'{"index_columns": [], "columns": [{"name": "hat", "field_name": "hat", "pandas_type": "x",'
    b' "numpy_type": "nonsense[zz]", "metadata": {"timezone": 7}}], "column_indexes": [{"name": 1}]}',
}
"""What Parquet tables may claim of their pandas origin; nothing of it is needed to read them."""
TABLES: dict[str, Writer] = {
    **{
        f"Parquet, pandas metadata: {name}": partial(_parquet, _ROWS, {b"pandas": about})
        for name, about in PANDAS.items()
    },
    "Parquet with a column twice": _parquet_column_twice,
    "Parquet of one long text": partial(_parquet_of_one_value, 30_000),
    "Parquet cut off": _table("labels.parquet", b"PAR1" + b"\0" * 40 + b"PAR1"),
    "Parquet, endless footer": _table("labels.parquet", b"PAR1" + b"\xff\xff\xff\x7fPAR1"),
    "CSV with a NUL": _table("labels.csv", b"file,hat\n0.png,\0\n"),
    "CSV in Latin-1": _table("labels.csv", "file,hat\ncaf\xe9.png,1\n".encode("latin-1")),
    "CSV in UTF-16": _table("labels.csv", "file,hat\n0.png,1\n".encode("utf-16")),
    "CSV of one long cell": _table("labels.csv", b"file,hat\n" + b"x" * 200_000),
    "CSV, quote not closed": _table("labels.csv", 'file,hat\n"0.png,1\n' + "a,b\n" * 1000),
    "CSV of 20,000 columns": _table("labels.csv", ",".join(f"c{i}" for i in range(20_000)) + "\n"),
    "CSV with escapes": _table("labels.csv", "file,h\x1b[31mat\n0.png,\x1b]0;pwned\x07\n1.png,2\n"),
    "TSV of blanks": _table("labels.tsv", "\t\t\n\t\t\n"),
    "JSON lines 50000 deep": _table("labels.jsonl", '{"file": ' + "[" * 50_000),
    "JSON lines, number of 5000 digits": _table("labels.jsonl", f'{{"file": "0.png", "hat": {"9" * 5000}}}\n'),
    "JSON lines, number beyond floats": _table("labels.jsonl", '{"file": "0.png", "hat": 1e999}\n'),
    "JSON lines of numbers": _table("labels.jsonl", "1\n2\n"),
    "CelebA, count of 5000 digits": _table("labels.txt", f"{'9' * 5000}\nhat\n0.png 1\n"),
    "CelebA, count below 0": _table("labels.txt", "-5\nhat\n0.png 1\n"),
    "CelebA, count in other digits": _table("labels.txt", "\u0663\nhat\n0.png 1\n"),
    "CelebA, huge value": _table("labels.txt", f"1\nhat\n0.png {'9' * 5000}\n"),
    "mapping, number of 5000 digits": _table("labels.txt", f"idx orig_idx orig_file\n{'9' * 5000} 1 000001.jpg\n"),
    "partition, number of 5000 digits": _table("labels.txt", f"000001.jpg 0\n000002.jpg {'9' * 5000}\n"),
    "web page": _table("labels.csv", "<!DOCTYPE html><html>"),
    "Git LFS pointer": _table("labels.csv", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
    "table that is a FIFO": partial(_fifo, "labels.csv"),
    "table that is a folder": partial(_folder_of, "labels.csv"),
}
"""Each is a table of labels, good ones among them: what is odd about them may not matter."""
CASES: dict[str, Writer] = {**SETTINGS, **TABLES}
