"""A metered model counts what it did, and is otherwise the model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from boundaryflow.diffusion import BOTTLENECK
from boundaryflow.models import load_model
from boundaryflow.runtime.metering import Metered, Tally, cost_path, keep_cost
from tests.conftest import ROOT
from tests.small_project import write_project


def test_calls_are_counted_by_images_and_results_are_the_models(tmp_path: Path) -> None:
    write_project(tmp_path)
    model = load_model(str(tmp_path / "data/pretrained/tiny"))
    metered = Metered(model, Tally())
    x_t = torch.randn(3, 3, 16, 16)
    eps, h = metered.eps_and_h(x_t, 5)
    torch.testing.assert_close(eps, model.eps(x_t, 5))
    metered.eps_with_h(x_t[:2], 5, h[:2])
    normals = torch.randn(3, 4, h[0].numel())
    metered.pullback(x_t, 5, BOTTLENECK, lambda _: normals)
    assert (metered.tally.image_calls, metered.tally.pullbacks, metered.tally.directions) == (8, 3, 12)
    assert metered.tally.seconds > 0
    assert (metered.sha256, metered.family) == (model.sha256, "diffusers")


def test_cost_of_a_stage_is_kept(tmp_path: Path) -> None:
    keep_cost(tmp_path, "invert@faces", 1.5)
    found = json.loads(cost_path(tmp_path, "invert@faces").read_text())
    assert found["seconds"] == 1.5
    assert found["peak_mib"] > 10


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak includes that of the process that started it")
def test_peak_memory_is_that_of_the_process_and_not_of_the_one_that_started_it() -> None:
    child = "from boundaryflow.runtime.metering import peak_mib; print(peak_mib())"
    code = (
        "import subprocess, sys; much = bytearray(b'x' * 2**28)\n"
        f"print(subprocess.run([sys.executable, '-c', {child!r}], capture_output=True, text=True, check=True).stdout)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 5 < float(done.stdout) < 200  # MiB; its parent has 256 more
