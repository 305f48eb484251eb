"""Baselines: visual counterfactuals by guidance (DiME, FastDiME, MaskDiME).

All three noise the image and denoise it with DDPM's steps, from whose mean a gradient is subtracted, times the
variance of the step. They differ in the image that the classifier is shown, and in what they paste from the input.
Kept from the releases: start (where alpha_bar is 0.40), 60 steps, L1 weight 0.05, pasting from half-way on (FastDiME),
mask threshold 0.15, half of the masked pixels for the classifier (MaskDiME). Adapted to 64 x 64: the scales, as
the gradient of a pixel is another; dilation 3 for 5 at 128 x 128; for MaskDiME one share of pixels for all attributes;
for DiME 20 steps, as the calls grow with their square. Repaired: pasted parts have the noise of the timestep
that they are pasted at. Left out: the perceptual loss, for want of a VGG19; and the ladder of scales for images that
the classifier is not yet convinced of: here every scale is a strength.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benches.quality.calls import Counted
from benches.quality.classifier import FittedClassifier, predicted_image
from benches.quality.pictures import Edit, Pictures, in_batches, noise_of
from boundaryflow.boundary import Boundaries, Boundary
from boundaryflow.diffusion import Features, ddim_mean, ddim_sigma, denoise, noised
from boundaryflow.diffusion.schedule import CLEAN

L1, UNCHANGED, DILATION = 0.05, 0.15, 3
MASKED, SHOWN = 0.15, 0.5  # MaskDiME: share of pixels that may change, and share of these that the classifier sees

AtScale = Callable[[Pictures, Sequence[str], float], Tensor]
"""(pictures, attributes, scale) to edits [B,C,H,W]."""
Guide = Callable[[Tensor, int, Tensor], tuple[Tensor, Tensor]]
"""(x_t, t, the image predicted at the step before) to the predicted noise, and the gradient of the loss."""


def at_scales(edit: AtScale, scales: Sequence[float]) -> Edit:
    """A row from an edit at one scale."""

    def of(pictures: Pictures, attributes: Sequence[str]) -> Tensor:
        return in_batches(pictures, lambda some: torch.stack([edit(some, attributes, s) for s in scales], 1))

    return of


def nearest(hyperplanes: Sequence[Boundary], t: int) -> Boundary:
    """The hyperplane of the timestep nearest to t."""
    return min(hyperplanes, key=lambda hyperplane: abs(hyperplane.t - t))


@dataclass(frozen=True)
class Loops:
    """The loops of the family.

    Attributes:
        model: The frozen model.
        classifier: What is followed.
        path: Timesteps, ascending.
    """

    model: Counted
    classifier: FittedClassifier
    path: tuple[int, ...]

    def dime(self, pictures: Pictures, attributes: Sequence[str], scale: float) -> Tensor:
        """DiME (Jeanneret et al. 2022): at every step the classifier sees a sample that is drawn down to the end."""
        directions, x_t, seen = pictures.directions(attributes), self._start(pictures), pictures.x_0
        for position, t in self._down():
            gradient = scale / self.model.schedule.alpha_bar(t) ** 0.5
            gradient = gradient * self.classifier.gradient(seen, attributes, directions)
            gradient = gradient + L1 * (x_t - pictures.x_0).sign()
            mean, variance = self._posterior(x_t, self._predicted(x_t, self.model.eps(x_t, t), t), position)
            x_t = mean - variance * gradient + variance**0.5 * noise_of(pictures, t)
            if position:
                seen = denoise(
                    self.model, x_t, self.path[:position], eta=1.0,
                    noise=lambda below, above=t: noise_of(pictures, below, f"from {above} to"),
                )  # fmt: skip
        return x_t

    def fast_dime(self, pictures: Pictures, attributes: Sequence[str], scale: float) -> Tensor:
        """FastDiME (Weng et al. 2024): the classifier sees the predicted image, of the step before."""
        directions = pictures.directions(attributes)

        def guide(x_t: Tensor, t: int, seen: Tensor) -> tuple[Tensor, Tensor]:
            return self.model.eps(x_t, t), self.classifier.gradient(seen, attributes, directions)

        return self._fast_dime(pictures, guide, scale)

    def fast_dime_with(self, hyperplanes: Callable[[], Mapping[str, Boundaries]], features: Features) -> AtScale:
        """FastDiME's loop with the log-odds of our hyperplanes at the noisy sample, pulled back to it."""

        def edit(pictures: Pictures, attributes: Sequence[str], scale: float) -> Tensor:
            directions = pictures.directions(attributes)
            followed = [hyperplanes()[name].noised for name in attributes]

            def guide(x_t: Tensor, t: int, _seen: Tensor) -> tuple[Tensor, Tensor]:
                at = [nearest(of_attribute, t) for of_attribute in followed]
                slopes = torch.stack([b.normal * b.calibration.gap / b.calibration.sd**2 for b in at])
                eps, pulled = self.model.pullback(x_t, t, features, lambda _: -(directions @ slopes)[:, None])
                return eps, pulled[:, 0]

            return self._fast_dime(pictures, guide, scale) if all(followed) else pictures.x_0

        return edit

    def mask_dime(self, pictures: Pictures, attributes: Sequence[str], scale: float) -> Tensor:
        """MaskDiME (Guo et al. 2026): only the pixels of the largest gradient are moved, and shown changed."""
        directions, x_0, x_t = pictures.directions(attributes), pictures.x_0, self._start(pictures)
        shown = torch.zeros_like(x_0[:, :1], dtype=torch.bool)
        for position, t in self._down():
            alpha_bar = self.model.schedule.alpha_bar(t)
            predicted = self._predicted(x_t, self.model.eps(x_t, t), t)
            gradient = self.classifier.gradient(torch.where(shown, predicted, x_0), attributes, directions)
            gradient = scale * gradient / alpha_bar**0.5
            size = gradient.abs().mean(1, keepdim=True)
            masked, shown = _largest(size, MASKED), _largest(size, MASKED * SHOWN)
            mean, variance = self._posterior(x_t, predicted, position)
            moved = mean - variance * (gradient + L1 * (x_t - x_0).sign())
            x_t = torch.where(masked, moved, self._pasted(pictures, position))
        return x_t

    def _fast_dime(self, pictures: Pictures, guide: Guide, scale: float) -> Tensor:
        x_0, x_t, seen = pictures.x_0, self._start(pictures), pictures.x_0
        keep = torch.zeros_like(x_0[:, :1], dtype=torch.bool)
        for position, t in self._down():
            eps, gradient = guide(x_t, t, seen)
            seen = self._predicted(x_t, eps, t)
            mean, variance = self._posterior(x_t, seen, position)
            gradient = scale * gradient + L1 * (x_t - x_0).sign()
            x_t = mean - variance * gradient + variance**0.5 * noise_of(pictures, t)
            if position < len(self.path) // 2:
                keep = unchanged(x_0, seen, DILATION)
                pasted = noised(
                    x_0, noise_of(pictures, t, "pasted"), self.model.schedule.alpha_bar(self._below(position))
                )
                seen, x_t = torch.where(keep, x_0, seen), torch.where(keep, pasted, x_t)
        return torch.where(keep, x_0, x_t)

    def _start(self, pictures: Pictures) -> Tensor:
        t = self.path[-1]
        return noised(pictures.x_0, noise_of(pictures, t, "start"), self.model.schedule.alpha_bar(t))

    def _pasted(self, pictures: Pictures, position: int) -> Tensor:
        """The inputs, noised to the timestep below a position."""
        noise = noise_of(pictures, self.path[position], "pasted")
        return noised(pictures.x_0, noise, self.model.schedule.alpha_bar(self._below(position)))

    def _down(self) -> list[tuple[int, int]]:
        """Positions on the path and their timesteps, from the noisiest."""
        return list(enumerate(self.path))[::-1]

    def _below(self, position: int) -> int:
        return self.path[position - 1] if position else CLEAN

    def _predicted(self, x_t: Tensor, eps: Tensor, t: int) -> Tensor:
        return predicted_image(x_t, eps, self.model.schedule.alpha_bar(t))

    def _posterior(self, x_t: Tensor, predicted: Tensor, position: int) -> tuple[Tensor, float]:
        return posterior(self.model, x_t, predicted, self.path[position], self._below(position))


def posterior(model: Counted, x_t: Tensor, predicted: Tensor, t: int, below: int) -> tuple[Tensor, float]:
    """Mean and variance of the sample at the timestep below, given the predicted image (DDPM eq. 7)."""
    alpha_bar, alpha_bar_below = model.schedule.alpha_bar(t), model.schedule.alpha_bar(below)
    eps = (x_t - alpha_bar**0.5 * predicted) / (1 - alpha_bar) ** 0.5
    return ddim_mean(x_t, eps, alpha_bar, alpha_bar_below, eta=1.0), ddim_sigma(alpha_bar, alpha_bar_below, 1.0) ** 2


def unchanged(x_0: Tensor, edited: Tensor, dilation: int) -> Tensor:
    """[B,1,H,W] where the change is below a share of its largest, in all of a neighbourhood (FastDiME, ACE)."""
    size = (edited - x_0).abs().sum(1, keepdim=True)
    size = size / size.amax((1, 2, 3), keepdim=True).clamp(min=1e-6)
    return F.max_pool2d(size, dilation, 1, dilation // 2) < UNCHANGED


def _largest(size: Tensor, share: float) -> Tensor:
    """[B,1,H,W] the largest of the sizes and their neighbours."""
    least = size.flatten(1).quantile(1 - share, dim=1)[:, None, None, None]
    return F.max_pool2d((size >= least).float(), DILATION, 1, DILATION // 2) > 0
