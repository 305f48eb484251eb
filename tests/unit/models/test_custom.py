"""A network of the user's own: the worked example of docs/models.md, run as it stands there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from boundaryflow.diffusion import denoise, invert, timestep_path
from boundaryflow.errors import CheckpointError
from boundaryflow.models import load_model

DOC = Path(__file__).parents[3] / "docs/models.md"


@pytest.fixture
def example(tmp_path: Path) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)
    path = tmp_path / "net.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("example_net", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    save_file(module.Net().state_dict(), tmp_path / "net.safetensors")
    return f"{path}:make_model"


def test_example_of_the_docs_can_be_edited_with(example: str) -> None:
    model = load_model(example)
    assert model.value_range == (-0.5, 0.5)
    x_0, path = torch.rand(2, 3, 32, 32) - 0.5, timestep_path(300, 6)
    inversion = invert(model, x_0, path, keep_residuals=True)
    assert inversion.h_mix.shape == (2, 32, 8, 8)
    back = denoise(model, inversion.x_mix, path, residuals=inversion.residuals)
    torch.testing.assert_close(back, x_0, atol=1e-4, rtol=0)


def test_time_reaches_the_network_as_a_share(example: str) -> None:
    model = load_model(example)
    seen: list[torch.Tensor] = []
    model._network.down1.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[1]))  # noqa: SLF001
    model.eps(torch.zeros(2, 3, 32, 32), torch.tensor([0, 250]))
    torch.testing.assert_close(seen[0], torch.tensor([[0.0], [0.25]]))


def test_hash_covers_weights_and_code(example: str) -> None:
    before = load_model(example).sha256
    path = Path(example.rpartition(":")[0])
    path.write_text(path.read_text() + "\n# changed\n")
    assert load_model(example).sha256 != before


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def other(): ...", "has no function make_model"),
        ("import nosuchmodule", "cannot be imported, ModuleNotFoundError"),
        ("def make_model(device, dtype): return 1 / 0", "make_model failed, ZeroDivisionError"),
        ("def make_model(device, dtype): return 3", "what it gives has no image_size"),
    ],
    ids=["no function", "import fails", "call fails", "not a model"],
)
def test_wrong_function_is_refused_in_one_line(tmp_path: Path, code: str, message: str) -> None:
    (tmp_path / "net.py").write_text(code)
    with pytest.raises(CheckpointError, match=message):
        load_model(f"{tmp_path / 'net.py'}:make_model")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file; give FILE.py:FUNCTION"):
        load_model(f"{tmp_path / 'net.py'}:make_model")
