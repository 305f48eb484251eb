"""YAML that people write: read within bounds, and every mistake in one line with its number."""

from __future__ import annotations

from pathlib import Path

import pytest

from boundaryflow.config import activate_dataset, copy_entry, load_params
from boundaryflow.config.yaml_file import as_written, read_yaml
from boundaryflow.errors import ParamsError
from boundaryflow.files import RefusedFileError
from tests.hostile.corpus_labels import SETTINGS

MESSAGES = {
    "date that is none": "params.yaml line 2: '2024-02-30' is neither a readable date nor a number; put it in quotes",
    "number of 4000 digits": "params.yaml line 2: has a number that does not fit into 64 bits; lower it",
    "number of 5000 digits": "params.yaml line 2: has a text of 5,000 characters, at most 4,096 are read",
    "UTF-16": "params.yaml line 1: is not UTF-8 (byte 0xff); save it as UTF-8",
    "Latin-1": "params.yaml line 2: is not UTF-8 (byte 0xe9); save it as UTF-8",
    "key twice": "params.yaml line 3: has the key 'run_seed' a second time (first in line 1); keep one",
    "key twice in a line": "params.yaml line 1: has the key 'b' a second time (first in line 1); keep one",
    "merge conflict": "params.yaml line 2: merge conflict; resolve it (`git status` says how)",
    "aliases of aliases": "has more than 50,000 values; shorten it",
    "alias within itself": "params.yaml line 1: *a is part of itself; write the value out",
    "50000 levels deep": "params.yaml line 1: is nested more than 40 levels deep; write it flatter",
    "tag that runs": "params.yaml line 1: is not YAML: could not determine a constructor for the tag",
    "tag of nothing": "params.yaml line 1: has a value of kind set, which is not read; write a list or a mapping",
    "list at the top": "params.yaml: must have the keys datasets, run_seed and data at its top",
    "nothing": "params.yaml: must have the keys datasets, run_seed and data at its top",
    "control character": "params.yaml line 1: has a character that YAML does not allow; remove it",
    "NUL by escape": "params.yaml line 1: has a text with a control character; remove it",
    "surrogate": "params.yaml line 1: has a text with a control character; remove it",
    "tab": "params.yaml line 2: is not YAML: found character '\\t' that cannot start any token",
    "not closed": "params.yaml line 2: is not YAML: expected ',' or ']', but got '<stream end>'",
    "two documents": "params.yaml line 2: is not YAML: but found another document",
    "list as a key": "params.yaml line 1: is not YAML: found unhashable key",
}


@pytest.mark.parametrize("name", MESSAGES)
def test_settings_that_are_not_in_order_are_told_in_one_line(tmp_path: Path, name: str) -> None:
    SETTINGS[name](tmp_path)
    with pytest.raises(ParamsError) as caught:
        load_params(tmp_path)
    assert MESSAGES[name] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_large_and_special_files_are_not_read(tmp_path: Path) -> None:
    for name, reason in (("2 MB", "more than the 1,048,576 that are read"), ("FIFO", "a FIFO, not a regular file")):
        path = SETTINGS[name](tmp_path / name)
        with pytest.raises(RefusedFileError, match=reason):
            read_yaml(path)


def test_aliases_within_bounds_stand_for_what_they_name(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &a {x: 1}\nb: *a\nc: {<<: *a, x: 2, y: 3}\n", encoding="utf-8")
    assert read_yaml(tmp_path / "a.yaml") == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 2, "y": 3}}


@pytest.mark.parametrize("name", ["007", "on", "1e3", "null", "2024-01-01", "0x1f", "faces"])
def test_names_that_yaml_takes_for_something_else_are_written_in_quotes(tmp_path: Path, name: str) -> None:
    assert (as_written(name) == name) == (name == "faces")
    path, entry = tmp_path / "params.yaml", tmp_path / "entry.yaml"
    path.write_text("datasets: [avatars]\ndata:\n  avatars: 1\n", encoding="utf-8")
    entry.write_text("model: ε\n", encoding="utf-8")
    copy_entry(path, name, entry)
    activate_dataset(path, name)
    assert read_yaml(path) == {"datasets": ["avatars", name], "data": {"avatars": 1, name: {"model": "ε"}}}
