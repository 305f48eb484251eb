"""A classifier of the faces to fit on, for the baselines that follow one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benches.quality.pictures import BATCH, Latents, Pictures, noise_of
from boundaryflow.diffusion import EpsModel, noised
from boundaryflow.evaluation.judges import JudgeNet

_WIDTHS = (32, 64, 96, 128)
_NUM_EPOCHS, _BATCH, _LEARNING_RATE, _WEIGHT_DECAY, _LARGEST_SHIFT = 40, 50, 2e-3, 0.05, 4


def predicted_image(x_t: Tensor, eps: Tensor, alpha_bar: float) -> Tensor:
    """The image that a noisy sample is predicted to become, clipped to [-1, 1] (DDIM eq. 9)."""
    return ((x_t - (1 - alpha_bar) ** 0.5 * eps) / alpha_bar**0.5).clamp(-1, 1)


class FittedClassifier:
    """A small network of attributes, fitted on the same faces and labels as the hyperplanes.

    It is shown each face as it is and as the denoiser predicts it from a noisy sample, which is what guidance shows
    it; mirrored and shifted at random. The epoch with the smallest loss on the faces to calibrate on is kept.

    Args:
        model: The frozen model.
        latents: The faces.
        num_train: How many of them to fit on.
        highest: Noisiest timestep of a predicted face.
    """

    def __init__(self, model: EpsModel, latents: Latents, num_train: int, highest: int) -> None:
        self._model, self._highest = model, highest
        self._train, self._held_out = latents.train.take(range(num_train)), latents.held_out
        self.attributes = list(latents.train.has)

    def gradient(self, images: Tensor, attributes: Sequence[str], directions: Tensor) -> Tensor:
        """[B,C,H,W] gradient of -logit towards the target, summed over the attributes to flip.

        Args:
            images: In model range.
            attributes: Which.
            directions: [B,A] +1 towards the attribute, -1 away from it.
        """
        with torch.inference_mode(False), torch.enable_grad():
            seen = images.clone().requires_grad_(True)
            return torch.autograd.grad(-(self.logits(seen, attributes) * directions).sum(), seen)[0]

    def logits(self, images: Tensor, attributes: Sequence[str]) -> Tensor:
        """[B,A] for images in model range."""
        return self.net((images + 1) / 2)[:, [self.attributes.index(name) for name in attributes]]

    @cached_property
    def net(self) -> JudgeNet:
        """Fitted when first asked for."""
        pictures = torch.stack([self._train.x_0, self._predicted(self._train)])
        labels, held_out_labels = _labels(self._train), _labels(self._held_out)
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
            torch.manual_seed(0)
            net = JudgeNet(pictures.shape[2], _WIDTHS, pictures.shape[-1], labels.shape[1], "classify")
            num_steps = _NUM_EPOCHS * -(-len(labels) // _BATCH)
            optimiser = torch.optim.AdamW(net.parameters(), _LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _LEARNING_RATE, num_steps)
            best, kept = float("inf"), net.state_dict()
            for _epoch in range(_NUM_EPOCHS):
                for rows in torch.randperm(len(labels)).split(_BATCH):
                    some = _shaken(pictures[torch.randint(2, (len(rows),)), rows])
                    loss = F.binary_cross_entropy_with_logits(net((some + 1) / 2), labels[rows])
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
                    schedule.step()
                with torch.no_grad():
                    now = net((self._held_out.x_0 + 1) / 2)
                held_out_loss = float(F.binary_cross_entropy_with_logits(now, held_out_labels))
                if held_out_loss < best:
                    best, kept = held_out_loss, {name: value.clone() for name, value in net.state_dict().items()}
        net.load_state_dict(kept)
        return net.eval().requires_grad_(False)

    def _predicted(self, pictures: Pictures) -> Tensor:
        """[N,C,H,W] faces as predicted from samples at timesteps that are spread over the path."""
        found: list[Tensor] = []
        num = len(pictures.ids)
        for start in range(0, num, BATCH):
            some = pictures.take(range(start, min(start + BATCH, num)))
            t = self._highest * min(start + BATCH, num) // num
            alpha_bar = self._model.schedule.alpha_bar(t)
            x_t = noised(some.x_0, noise_of(some, t, "classifier"), alpha_bar)
            found.append(predicted_image(x_t, self._model.eps(x_t, t), alpha_bar))
        return torch.cat(found).clone()


def _labels(pictures: Pictures) -> Tensor:
    return torch.from_numpy(np.stack(list(pictures.has.values()), 1)).float()


def _shaken(images: Tensor) -> Tensor:
    """Images mirrored and shifted at random, a batch in one way."""
    shift = torch.randint(-_LARGEST_SHIFT, _LARGEST_SHIFT + 1, (2,)).tolist()
    padded = F.pad(images, (_LARGEST_SHIFT,) * 4, mode="replicate").roll(shift, (2, 3))
    cropped = padded[..., _LARGEST_SHIFT:-_LARGEST_SHIFT, _LARGEST_SHIFT:-_LARGEST_SHIFT]
    return cropped.flip(3) if torch.rand(()) < 0.5 else cropped  # noqa: PLR2004
