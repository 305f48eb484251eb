"""What a process of this project imports of diffusers, and what others find after it."""

from __future__ import annotations

import subprocess
import sys

from boundaryflow.compiler import COMPILER, is_own_process, without_compiler
from tests.conftest import ROOT

_OWN = """
import sys
sys.argv = ["boundaryflow"]
from boundaryflow.models.diffusers_parts import UNet2DModel, import_quickly
slow = {"torch._dynamo", "torchvision", "scipy.stats", "diffusers.models.unets", "diffusers.models.transformers"}
assert not slow & set(sys.modules), slow & set(sys.modules)

from boundaryflow.runtime.frozen_model import flops, open_model
assert flops(open_model("data/pretrained/digits32", "float32")) > 1e6
assert not slow & set(sys.modules), slow & set(sys.modules)

import torch
blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (32,)}
unet, x = UNet2DModel(sample_size=8, **blocks).eval(), torch.ones(1, 3, 8, 8)
with torch.no_grad():
    expected = unet(x, 1).sample

class Compiled:  # someone else's
    channels, image_size, sha256 = 3, 8, "f" * 64
    def eps(self, x_t, t):
        if not hasattr(self, "network"):
            self.network = torch.compile(unet, backend="eager")
        self.made = self.network(torch.ones(1, 3, 8, 8), 1).sample
        return self.made

model = Compiled()
with torch.no_grad():
    flops(model)
torch.testing.assert_close(model.made, expected)
import torch._dynamo
assert torch._dynamo.config

from diffusers import SD3Transformer2DModel, UNet2DConditionModel
from diffusers.models.unets.unet_2d import UNet2DModel as again
assert again is UNet2DModel

def fails():
    import diffusers.models.unets.unet_2d
    raise AttributeError("another version of diffusers")
assert not import_quickly(fails)
assert not [name for name in sys.modules if name.split(".")[0] == "diffusers"]
import diffusers.models.unets.unet_2d
"""


def test_own_process_imports_little_and_nobody_misses_the_rest() -> None:
    done = subprocess.run([sys.executable, "-c", _OWN], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_process_of_others_is_left_alone() -> None:
    assert not is_own_process()  # pytest
    before = sys.modules.get(COMPILER)
    with without_compiler():
        assert sys.modules.get(COMPILER) is before
