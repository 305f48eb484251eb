"""Headers of safetensors files: what they say is held against the file before anything is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import save

from boundaryflow.formats.tensor_files import read_about, read_tensors
from boundaryflow.formats.tensor_headers import read_header
from tests.hostile.corpus_models import SAFETENSORS

REASONS = {
    "about_deep": "its header is nested too deep",
    "about_list": "its header holds a list, must be a JSON object",
    "about_nan": "it has NaN, which is not a number",
    "about_no_json": "its header is not JSON at line 1",
    "cut": "cut off",
    "deep": "its header is nested too deep",
    "digits": "Exceeds the limit",
    "entry_list": "the entry of tensor a is damaged",
    "f4": "tensor a is of type F4, which is not read",
    "header_of_1e18": "cut off",
    "list": "its header holds a list, must be a JSON object",
    "metadata_list": "its metadata values are not strings",
    "not_utf_8": "is not JSON: 'utf-8' codec",
    "nothing": "cut off",
    "shape_negative": "the entry of tensor a is damaged",
    "shape_of_1e12": "invalid shape",
    "shape_of_words": "the entry of tensor a is damaged",
}


def test_header_says_shapes_and_facts(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save({"a": torch.zeros(2, 3), "b": torch.tensor(1)}, {"boundaryflow": '{"kind": "x"}', "k": "v"}))
    header = read_header(path)
    assert (header.shapes, header.about) == ({"a": (2, 3), "b": ()}, {"kind": "x"})


@pytest.mark.parametrize("case", sorted(REASONS))
def test_damaged_file_is_refused_by_every_reader(tmp_path: Path, case: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(SAFETENSORS[case]())
    readers = (read_tensors,) if case == "shape_of_1e12" else (read_tensors, read_about)
    for read in readers:
        with pytest.raises(SafetensorError, match=REASONS[case]) as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.safetensors")
    with pytest.raises(SafetensorError, match="a FIFO, not a regular file"):
        read_tensors(tmp_path / "a.safetensors")


@settings(max_examples=300)
@given(st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=9)), max_size=6))
def test_damaged_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[float, bytes]]
) -> None:
    damaged = bytearray(save({"a": torch.zeros(3), "bb": torch.ones(2, 2).half()}, {"boundaryflow": '{"k": [1, "x"]}'}))
    for where, part in changes:
        at = int(where * (len(damaged) - len(part)))
        damaged[at : at + len(part)] = part
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(damaged)
    try:
        read_tensors(path)
    except SafetensorError as error:
        assert "\n" not in str(error)  # noqa: PT017 - it may also be read
