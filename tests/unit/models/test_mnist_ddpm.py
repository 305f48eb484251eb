"""A published network with an architecture, range and time of its own, through `examples/mnist_ddpm.py`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from boundaryflow.diffusion import denoise, invert
from boundaryflow.errors import CheckpointError
from boundaryflow.jobs.inspection import inspect
from boundaryflow.models import load_model

EXAMPLE = Path(__file__).parents[3] / "examples/mnist_ddpm.py"
NAMES = ("starter", "augmentation", "hist_044bc9c", "hist_b1303a4")


@pytest.fixture
def weights(shared: Path) -> Path:
    folder = shared / "assets/ddpm_yichizz"
    if not folder.is_dir():
        pytest.skip("../shared/assets/ddpm_yichizz is not there: it has the weights of github.com/Yichizz")
    return folder


def model_of(weights: Path, name: str, tmp_path: Path) -> str:
    shutil.copy(EXAMPLE, tmp_path / "net.py")
    (tmp_path / "ddpm_mnist_starter.pth").symlink_to(weights / name)
    return f"{tmp_path / 'net.py'}:make_model"


@pytest.mark.parametrize("name", NAMES)
def test_golden_outputs_are_met_through_the_protocol(weights: Path, tmp_path: Path, name: str) -> None:
    model = load_model(model_of(weights, f"ddpm_mnist_{name}.pth", tmp_path))
    golden = np.load(weights / f"ddpm_mnist_{name}_golden.npz")
    eps = model.eps(torch.from_numpy(golden["xt"]), torch.from_numpy(golden["t"]))
    # float32 through four 7 x 7 convolutions, in another order of sums than the author's
    torch.testing.assert_close(eps, torch.from_numpy(golden["eps"]), atol=2e-5, rtol=0)
    assert model.schedule.num_train_timesteps == 1001
    level = torch.tensor([model.schedule.alpha_bar(int(t)) for t in golden["t"]]).reshape(-1, 1, 1, 1)
    x_t = level.sqrt() * torch.from_numpy(golden["x0"]) + (1 - level).sqrt() * torch.from_numpy(golden["noise"])
    torch.testing.assert_close(x_t, torch.from_numpy(golden["xt"]), atol=2e-5, rtol=0)


def test_inversion_is_the_authors_and_comes_back(weights: Path, tmp_path: Path) -> None:
    model = load_model(model_of(weights, "ddpm_mnist_starter.pth", tmp_path))
    golden = np.load(weights / "ddpm_mnist_starter_golden.npz")
    path = tuple(int(step) for step in golden["ddim_steps"])
    x_0 = torch.from_numpy(golden["x0"])[:2]
    inversion = invert(model, x_0, path, keep_residuals=True)
    back = denoise(model, inversion.x_mix, path, residuals=inversion.residuals)
    torch.testing.assert_close(back, x_0, atol=1e-4, rtol=0)
    assert inversion.h_mix.shape == (2, 32, 28, 28)


def test_cold_diffusion_of_the_same_repository_is_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no noise schedule"):
        load_model(model_of(weights, "ddm_mnist.pth", tmp_path))
    with pytest.raises(CheckpointError, match="of no family that is known .* against the protocol EpsModel"):
        inspect(str(weights / "ddm_mnist.pth"))


def test_its_pictures_are_predicted_well_in_its_range(weights: Path, shared: Path, tmp_path: Path) -> None:
    source = model_of(weights, "ddpm_mnist_starter.pth", tmp_path)
    golden = np.load(weights / "ddpm_mnist_starter_golden.npz")
    from PIL import Image

    for row, x_0 in enumerate(golden["x0"][:4, 0]):
        Image.fromarray(((x_0 + 0.5) * 255).round().astype(np.uint8)).save(tmp_path / f"{row}.png")
    facts = inspect(source, [tmp_path / f"{row}.png" for row in range(4)])
    assert facts["error"] < 0.7
    assert facts["verdict"] == "it predicts the noise of these pictures"
