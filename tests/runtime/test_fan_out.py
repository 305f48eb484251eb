"""Where shards are computed: what is refused, and what is not begun after a failure."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from boundaryflow.errors import ManifestError, ParamsError
from boundaryflow.runtime import fan_out
from boundaryflow.runtime.cluster_worker import differences
from boundaryflow.runtime.provenance import package_versions


def complete(group: int, context: Mapping[str, Any]) -> int:
    """Fails for group 0; each of the others takes a while."""
    Path(context["folder"], str(group)).write_text(str(os.getpid()))
    if group == 0:
        raise ManifestError("shard 0 is bad")
    time.sleep(0.3)
    return 1


@pytest.mark.parametrize(("workers", "threads"), [("2", 1), ("1", 2)], ids=["processes", "threads"])
def test_what_has_not_begun_is_not_computed_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str, threads: int
) -> None:
    monkeypatch.setenv("BOUNDARYFLOW_WORKERS", workers)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    with pytest.raises(ManifestError, match="shard 0 is bad"):
        list(fan_out.fan_out(complete, range(16), {"folder": str(tmp_path)}, tmp_path, num_threads=threads))
    assert len(list(tmp_path.iterdir())) < 10


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "1" * 5000, "99999"])
def test_number_of_workers_is_checked(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOUNDARYFLOW_WORKERS", value)
    with pytest.raises(ParamsError, match="BOUNDARYFLOW_WORKERS is .*, must be a whole number from 1"):
        fan_out._num_workers()


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "long"])
def test_patience_is_checked(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOUNDARYFLOW_DASK_WAIT_S", value)
    with pytest.raises(ParamsError, match=f"BOUNDARYFLOW_DASK_WAIT_S is '{value}', must be a number of seconds"):
        fan_out._patience_s()


@pytest.mark.parametrize("name", ["diffusers", "torchvision", "clip-anytorch", "torchmetrics", "torch", "pyarrow"])
def test_worker_with_another_version_of_what_decides_results_is_told_apart(name: str) -> None:
    ours = package_versions()
    assert differences(ours, {**ours, name: "0.0"}) == f"{name} is 0.0, here {ours[name]}"
