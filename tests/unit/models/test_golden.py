"""Agreement with what the reference networks computed (../shared/golden, see its README).

Tolerances are those that two float32 implementations on a CPU reach: 1e-4 on one pass, 1e-3 on a
loop of nine or ten.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from boundaryflow.diffusion import EpsModel, denoise, invert
from boundaryflow.editing.paper_mode import paper_edit, paper_invert, project_to
from boundaryflow.models import Stated, load_model, open_checkpoint

ONE_PASS, LOOP = {"atol": 1e-4, "rtol": 0.0}, {"atol": 1e-3, "rtol": 0.0}
STATED: dict[str, dict[str, Any]] = {
    "ddpm_tiny.ckpt": {},
    "iddpm_afhq_style_tiny.pt": {"head_channels": 16},
    "iddpm_improved_style_tiny.pt": {"num_heads": 4},
}
"""What no tensor says; the number of heads is of no trace in the weights."""


@pytest.fixture(params=sorted(STATED))
def golden(request: pytest.FixtureRequest, shared: Path, tmp_path: Path) -> tuple[EpsModel, dict[str, Tensor], dict]:
    name: str = request.param
    (tmp_path / name).symlink_to(shared / "golden" / name)
    if STATED[name]:
        (tmp_path / f"{name}.json").write_text(json.dumps(STATED[name]))
    with safe_open(shared / "golden" / f"{Path(name).stem}.expected.safetensors", "pt") as file:
        meta = json.loads(file.metadata()["meta"])
        expected = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    return load_model(tmp_path / name), expected, meta


def test_one_pass_agrees(golden: tuple[EpsModel, dict[str, Tensor], dict[str, Any]]) -> None:
    model, expected, meta = golden
    assert model.image_size == meta["image_size"]
    eps, h = model.eps_and_h(expected["x0"], expected["forward_t"])
    torch.testing.assert_close(eps, expected["forward_out"][:, :3], **ONE_PASS)
    torch.testing.assert_close(h, expected["forward_h"], **ONE_PASS)


def test_inversion_and_reconstruction_agree(golden: tuple[EpsModel, dict[str, Tensor], dict[str, Any]]) -> None:
    model, expected, meta = golden
    x_lat, h_lat = paper_invert(model, expected["x0"], meta["timesteps"])
    torch.testing.assert_close(x_lat, expected["x_lat"], **LOOP)
    torch.testing.assert_close(h_lat, expected["h_lat"], **LOOP)
    inversion = invert(model, expected["x0"], meta["timesteps"])
    torch.testing.assert_close(inversion.x_mix, expected["x_lat"], **LOOP)
    back = denoise(model, expected["x_lat"], meta["timesteps"])
    torch.testing.assert_close(back, expected["reconstruction"], **LOOP)


def test_paper_mode_edit_agrees(golden: tuple[EpsModel, dict[str, Tensor], dict[str, Any]]) -> None:
    model, expected, meta = golden
    at = project_to(expected["x_lat"], expected["normal_z"], meta["distance"])
    torch.testing.assert_close(at, expected["z_edit"], **ONE_PASS)
    edited = paper_edit(
        model,
        expected["x_lat"],
        expected["h_lat"],
        meta["timesteps"],
        normal_eps=expected["normal_z"],
        normal_h=expected["normal_h"],
        distance=meta["distance"],
        inject_h=meta["family"] == "ddpm",  # see boundaryflow/editing/paper_mode.py
        eta=meta["eta"],
    )
    torch.testing.assert_close(edited, expected["edited"], **LOOP)


@pytest.mark.parametrize("name", sorted(STATED))
def test_architecture_is_inferred(shared: Path, name: str) -> None:
    with safe_open(shared / "golden" / f"{Path(name).stem}.expected.safetensors", "pt") as file:
        meta = json.loads(file.metadata()["meta"])
    found = open_checkpoint(shared / "golden" / name, Stated(**STATED[name]))
    config, family = found.architecture.config, found.architecture.family
    assert family == meta["family"]
    width = meta.get("ch") or meta["num_channels"]
    mult = meta.get("ch_mult") or [int(m) for m in meta["channel_mult"].split(",")]
    assert config["block_out_channels"] == [width * m for m in mult]
    assert config["layers_per_block"] == meta["num_res_blocks"]
    assert found.image_size == meta["image_size"]
    assert found.learns_variance is bool(meta.get("learn_sigma"))
