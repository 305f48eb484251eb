"""Memory that does not suffice: smaller batches, the same bytes, one line about it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from boundaryflow.errors import PipelineError
from boundaryflow.formats.tensor_files import read_tensors
from boundaryflow.runtime import memory
from tests.small_project import content, run_here


@pytest.fixture(autouse=True)
def _full_size() -> Iterator[None]:
    memory.forget()
    yield
    memory.forget()


def _needs(limit: int, seen: list[tuple[int, int]]) -> Any:
    def work(some: slice) -> list[int]:
        if some.stop - some.start > limit:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] data. DefaultCPUAllocator: can't allocate memory")
        seen.append((some.start, some.stop))
        return list(range(some.start, some.stop))

    return work


def test_chunks_get_smaller_and_nothing_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("BOUNDARYFLOW_BATCH_SIZE", "16")
    seen: list[tuple[int, int]] = []
    with caplog.at_level(logging.WARNING):
        done = memory.in_chunks(20, _needs(5, seen))
    assert [item for part in done for item in part] == list(range(20))
    assert seen == [(0, 4), (4, 8), (8, 12), (12, 16), (16, 20)]
    assert [record.getMessage().partition("(")[0] for record in caplog.records] == [
        "not enough memory for 16 images at once ",
        "not enough memory for 8 images at once ",
    ]
    assert "going on with 4 (BOUNDARYFLOW_BATCH_SIZE=4)" in caplog.text
    assert memory.chunk_size() == 4, "the rest of the process goes on with what is known to fit"


def test_single_image_that_does_not_fit_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOUNDARYFLOW_BATCH_SIZE", "2")
    with pytest.raises(PipelineError, match="there is not enough memory for one image at a time .* use a machine"):
        memory.in_chunks(3, _needs(0, []))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("could not create a memory object"),
        RuntimeError("std::bad_alloc"),
    ],
    ids=["python", "cuda", "onednn", "c++"],
)
def test_every_way_of_saying_it_is_understood(error: BaseException) -> None:
    assert memory.is_out_of_memory(error)


def test_other_errors_stay_what_they_are() -> None:
    def work(_some: slice) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        memory.in_chunks(3, work)
    assert not memory.is_out_of_memory(ValueError("out of memory"))


def test_halvings_of_a_killed_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOUNDARYFLOW_BATCH_SIZE", "12")
    monkeypatch.setenv("BOUNDARYFLOW_BATCH_HALVINGS", "2")
    assert memory.chunk_size() == 3
    monkeypatch.setenv("BOUNDARYFLOW_BATCH_HALVINGS", "9")
    assert memory.chunk_size() == 1


@pytest.mark.parametrize("stage", ["mixing", "invert", "observe", "edit"])
def test_stage_in_little_memory_ends_with_the_same_result(
    project: Path, monkeypatch: pytest.MonkeyPatch, stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Kernels round otherwise for other batches: latents to the last bits of a float16, single pixels by one level."""
    from boundaryflow.models.frozen import FrozenModel

    folder = project / "data" / stage
    before, tensors = content(folder), _tensors(folder)
    for path in folder.rglob("shard-*"):
        path.unlink()
    forward = FrozenModel._forward  # what every call of the network goes through

    def in_little_memory(self: Any, x_t: torch.Tensor, *rest: Any, **options: Any) -> Any:
        if len(x_t) > 4:
            raise MemoryError
        return forward(self, x_t, *rest, **options)

    monkeypatch.setattr(FrozenModel, "_forward", in_little_memory)
    with caplog.at_level(logging.WARNING):
        run_here(project, monkeypatch, stage)
    assert "going on with 4" in caplog.text
    after = content(folder)
    assert set(after) == set(before)
    if stage == "mixing":
        assert after["avatars/mixing.json"] == before["avatars/mixing.json"]
    for name, tensor in _tensors(folder).items():
        if stage == "edit":
            difference = (tensor.int() - tensors[name].int()).abs()
            assert difference.max() <= 1, name
            assert difference.float().mean() < 1e-3, name
        else:
            torch.testing.assert_close(tensor, tensors[name], rtol=2e-3, atol=2e-3)


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.name} {name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in read_tensors(path)[0].items()
    }


def test_batch_gives_a_call_enough_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from boundaryflow.models import load_model
    from boundaryflow.runtime import frozen_model

    monkeypatch.delenv("BOUNDARYFLOW_BATCH_SIZE", raising=False)
    monkeypatch.setenv("BOUNDARYFLOW_DEVICE", "cpu")
    model = load_model("data/pretrained/avatars64")
    assert frozen_model.flops(model) == pytest.approx(1.3e9, rel=0.1)
    assert frozen_model.batch_size(model) == 32
    monkeypatch.setitem(frozen_model._counted, model.sha256, 497_000_000_000)  # the paper's network at 256 pixels
    assert frozen_model.batch_size(model) == 1
    monkeypatch.setitem(frozen_model._counted, model.sha256, 10)
    assert frozen_model.batch_size(model) == 256
