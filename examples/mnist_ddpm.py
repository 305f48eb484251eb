"""A network of somebody else's, in no format that is known: MNIST digits of 28 x 28, from github.com/Yichizz.

The repository `Yichizz/hot_vs_cold_diffusion` (MIT) has `model/ddpm_mnist_starter.pth`, a plain convolutional network
without down- or upsampling. Lay that file beside a copy of this one, as `data/pretrained/mnist/ddpm_mnist_starter.pth`
and `data/pretrained/mnist/mnist_ddpm.py`, and write

    model: data/pretrained/mnist/mnist_ddpm.py:make_model

The repository's `ddm_mnist.pth` is of another process (it fades pictures instead of adding noise) and is refused.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from boundaryflow.diffusion import NoiseSchedule
from boundaryflow.errors import CheckpointError
from boundaryflow.models import FrozenModel, network_sha256
from boundaryflow.models.weights import read_weights


def _block(before: int, after: int) -> nn.Module:
    block = nn.Module()
    block.net = nn.Sequential(nn.Conv2d(before, after, 7, padding=3), nn.LayerNorm((after, 28, 28)), nn.GELU())
    block.forward = block.net.forward
    return block


class Net(nn.Module):
    """Four blocks and a convolution; the time is added after the first block."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 16, 32, 32, 16)
        blocks = [_block(before, after) for before, after in zip(widths, widths[1:], strict=False)]
        self.blocks = nn.ModuleList([*blocks, nn.Conv2d(16, 1, 3, padding=1)])
        inner = [layer for before in (32, 128, 128) for layer in (nn.Linear(before, 128), nn.GELU())]
        self.time_embed = nn.Sequential(*inner, nn.Linear(128, 16))
        self.register_buffer("frequencies", torch.zeros(16))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Noise in x [B,1,28,28] at time [B], a share of 1."""
        angle = time[:, None] * self.frequencies
        embedded = self.time_embed(torch.cat([angle.sin(), angle.cos() - 1], 1))
        x = self.blocks[0](x) + embedded[:, :, None, None]
        for block in list(self.blocks)[1:]:
            x = block(x)
        return x


def make_model(device: torch.device | str, dtype: torch.dtype) -> FrozenModel:
    """The frozen model.

    Raises:
        CheckpointError: The file is missing, or of another process.
    """
    file = Path(__file__).with_name("ddpm_mnist_starter.pth")
    state = read_weights(file).state  # torch.load(file, weights_only=True) does as well
    if "beta_t" not in state:
        raise CheckpointError(f"model {file}: has no noise schedule (beta_t); it is of another process than DDPM")
    betas = state["beta_t"]  # 1001 entries, for the timesteps 0 to 1000
    net = Net()
    net.load_state_dict({k.removeprefix("gt."): v for k, v in state.items() if k.startswith("gt.")})
    return FrozenModel(
        net.to(dtype),
        net.blocks[2],  # there is no bottleneck: h is the output of the third block, [32,28,28]
        NoiseSchedule.from_betas(betas),
        image_size=28,
        channels=1,
        value_range=(-0.5, 0.5),
        time_scale=1 / 1000,
        sha256=network_sha256(net, Path(__file__)),
        device=device,
    )
