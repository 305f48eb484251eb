"""A metered model counts what it did, and is otherwise the model."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from boundaryflow.diffusion import BOTTLENECK
from boundaryflow.models import load_model
from boundaryflow.runtime.metering import Metered, Tally, cost_path, keep_cost
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
