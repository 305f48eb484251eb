"""Files of torch: the same tensors as torch reads, and nothing else, whatever the file says."""

from __future__ import annotations

import resource
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boundaryflow.errors import CheckpointError
from boundaryflow.formats import pickles
from boundaryflow.formats.torch_files import read_torch_file
from tests.hostile.corpus_models import TORCH, Calls, instructions, saved

DTYPES = (torch.float32, torch.float16, torch.float64, torch.bfloat16, torch.int64, torch.int32, torch.int16,
          torch.int8, torch.uint8, torch.bool, torch.complex64)  # fmt: skip
REASONS = {
    "script_without_a_module": "a TorchScript archive without a module",
    "pickle_calls": "wants to call posix.system; nothing in it was run",
    "pickle_calls_as_script": "wants to call posix.system; nothing in it was run",
    "old_pickle_calls": "wants to call posix.system; nothing in it was run",
    "plain_pickle": "it is a plain pickle, not a checkpoint of tensors; nothing in it was run",
    "plain_pickle_calls": "wants to call posix.system; nothing in it was run",
    "plain_pickle_in_text": "neither as a zip archive nor as a pickle",
    "stride_0": "a tensor of 3,600,000,000 numbers on a storage of 1;",
    "sparse": "wants to call torch._utils._rebuild_sparse_tensor",
    "meta": "wants to call torch._utils._rebuild_meta_tensor_no_storage",
    "shape_of_1e12": "has 308 bytes where 4,000,000,000,000 are stated",
    "shape_beyond_64_bits": "negative or too large",
    "shape_negative": "negative or too large",
    "old_1e12": "is cut short",
    "compressed": "is compressed or encrypted; torch writes it plain",
    "plan_of_1_GB": "data.pkl in it has more than 33,554,432 bytes",
    "storage_missing": "no item named",
    "bytes_of_1e18": "the pickle in it is damaged: expected 1000000000000000000 bytes",
    "no_end": "pickle exhausted before seeing STOP",
    "nothing_on_the_stack": "it reads beyond its stack",
    "changes_a_function": "it changes a function",
    "calls_torch_load": "wants to call torch.load",
    "another_zip": "a zip archive, but not of torch",
}


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before torch 1.6"])
def test_content_is_what_torch_reads(tmp_path: Path, old: bool) -> None:
    base = torch.arange(24.0).reshape(2, 3, 4)
    state: dict[str, Any] = {str(dtype): torch.arange(5).to(dtype) for dtype in DTYPES}
    state |= {"turned": base.permute(2, 0, 1), "part": base[1, 1:], "tied": base, "empty": torch.zeros(0, 3)}
    state |= {"one": torch.tensor(2.5), "parameter": torch.nn.Parameter(torch.ones(2))}
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    content = {"model": network.state_dict(), "more": state, "epoch": 3, "rates": (1e-3, [None, True, 10**30]), 7: "x"}
    path = tmp_path / "a.pt"
    path.write_bytes(saved(content, old=old))
    found, expected = read_torch_file(path).content, torch.load(path, weights_only=True)
    assert list(found) == list(expected)
    assert (found["epoch"], found["rates"], found[7]) == (3, (1e-3, [None, True, 10**30]), "x")
    for part in ("model", "more"):
        assert list(found[part]) == list(expected[part])
        for name, tensor in expected[part].items():
            assert (found[part][name].dtype, found[part][name].shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(found[part][name], tensor), name


def test_tensors_of_a_script_have_the_names_of_its_state_dict(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(network, torch.zeros(1, 2)), tmp_path / "a.pt")
    found = read_torch_file(tmp_path / "a.pt")
    assert found.is_script
    assert found.content.keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(found.content[name], tensor)


@pytest.mark.parametrize("case", sorted(REASONS))
def test_hostile_file_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = tmp_path / "net.pt"
    path.write_bytes(TORCH[case]())
    with pytest.raises(CheckpointError, match=REASONS[case]) as caught:
        read_torch_file(path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("case", sorted(TORCH.keys() - REASONS.keys()))
def test_odd_file_gives_its_tensors_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """What is wrong with these is told by who knows what the file should be."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "net.pt"
    path.write_bytes(TORCH[case]())
    read_torch_file(path)
    assert list(tmp_path.iterdir()) == [path]


class Keeps(torch.nn.Module):
    """Writes a file whenever torch.jit.load reads it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.weight, self.path = torch.zeros(3), path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.weight

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, str, bool]:
        return self.weight, self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, str, bool]) -> None:
        self.weight, self.path, self.training = state[0], state[1], state[2]
        torch.save(state[0], state[1])


def test_code_of_a_script_is_never_run(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Keeps(str(tmp_path / "written"))), tmp_path / "a.pt")
        torch.jit.load(tmp_path / "a.pt")
    assert (tmp_path / "written").exists()  # so much for torch's own reader
    (tmp_path / "written").unlink()
    assert read_torch_file(tmp_path / "a.pt").content == {}
    assert not (tmp_path / "written").exists()


def test_number_of_instructions_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "_MAX_INSTRUCTIONS", 1000)
    (tmp_path / "a.pt").write_bytes(instructions(b"\x80\x02" + b"]" * 1000 + b"."))
    with pytest.raises(CheckpointError, match="more than 1,000 instructions"):
        read_torch_file(tmp_path / "a.pt")


SEEDS = [
    saved({"a": torch.zeros(3), "b": [1, 2.5, None]}),
    saved({"a": torch.zeros(3), "b": [1, 2.5, None]}, old=True),
    saved({"a": Calls()}),
    TORCH["script_writes"](),
]


@settings(max_examples=300)
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=9)), max_size=8))
def test_damaged_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, changes: list[tuple[float, bytes]]
) -> None:
    damaged = bytearray(data)
    for where, part in changes:
        at = int(where * (len(damaged) - len(part)))
        damaged[at : at + len(part)] = part
    path = tmp_path_factory.getbasetemp() / "damaged.pt"
    path.write_bytes(damaged)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read_torch_file(path)
    except CheckpointError as error:
        assert "\n" not in str(error)  # noqa: PT017 - it may also be read
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2**16  # KiB


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_compression_of_the_plan_is_one_line(tmp_path: Path, compression: int) -> None:
    with zipfile.ZipFile(tmp_path / "whole.pt", "w") as archive:
        archive.writestr("archive/data.pkl", bytes(range(256)) * 40, compress_type=compression)
    whole = (tmp_path / "whole.pt").read_bytes()
    start = whole.index(b"data.pkl") + 8
    for at in range(start, whole.index(b"PK\1\2")):
        (tmp_path / "a.pt").write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with pytest.raises(CheckpointError):
            read_torch_file(tmp_path / "a.pt")
