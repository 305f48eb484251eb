"""Baseline: ACE with an L1 distance (Jeanneret et al. 2023, "Adversarial counterfactual visual explanations").

The image is attacked, by descent along the sign of the gradient, so that a classifier errs on what the diffusion model
makes of it: a few noise levels up and down again. What changed little is then pasted from the input while the result
goes up and down once more. Kept from the release: five steps of noise where alpha_bar is 0.925, new noise at
every iteration, the threshold 0.15. Adapted: half as many iterations of twice the size; dilation 7 for 15
at 128 x 128; losses are summed by image, so that they do not depend on the batch; strengths are the size of a step,
as renders change by more than the 50 grey levels that the release can reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benches.quality.calls import Counted
from benches.quality.classifier import FittedClassifier, predicted_image
from benches.quality.counterfactuals import posterior, unchanged
from benches.quality.pictures import Pictures, noise_of
from boundaryflow.diffusion import noised
from boundaryflow.diffusion.schedule import CLEAN

LAMBDA, DILATION, NUM_ITERATIONS = 0.003, 7, 25


@dataclass(frozen=True)
class Ace:
    """The attack and its refinement.

    Attributes:
        model: The frozen model.
        classifier: What is attacked.
        path: Timesteps of the noise, ascending.
    """

    model: Counted
    classifier: FittedClassifier
    path: tuple[int, ...]

    def edit(self, pictures: Pictures, attributes: Sequence[str], step: float) -> Tensor:
        """[B,C,H,W] edits in model range.

        Args:
            pictures: Inputs.
            attributes: What to flip.
            step: Of one iteration, in grey levels of 255.
        """
        signs = pictures.directions(attributes)
        attacked = pictures.x_0
        for iteration in range(NUM_ITERATIONS):
            with torch.inference_mode(False), torch.enable_grad():
                x = attacked.clone().requires_grad_(True)
                logits = self.classifier.logits(self._filtered(pictures, x, f"ace {iteration}"), attributes)
                loss = F.softplus(-signs * logits).sum() + LAMBDA * (x - pictures.x_0).abs().sum() / 2
                gradient = torch.autograd.grad(loss, x)[0]
            attacked = (attacked - 2 * step / 255 * gradient.sign()).clamp(-1, 1)
        keep = unchanged(pictures.x_0, attacked, DILATION)
        return torch.where(keep, pictures.x_0, self._filtered(pictures, attacked, "ace", keep).clamp(-1, 1))

    def _filtered(self, pictures: Pictures, x: Tensor, purpose: str, keep: Tensor | None = None) -> Tensor:
        """What the diffusion model makes of images after a little noise, with what is kept pasted at every step."""
        schedule, x_0 = self.model.schedule, pictures.x_0
        x_t = noised(x, noise_of(pictures, self.path[-1], purpose), schedule.alpha_bar(self.path[-1]))
        for position in reversed(range(len(self.path))):
            t, below = self.path[position], self.path[position - 1] if position else CLEAN
            if keep is not None:
                x_t = torch.where(keep, noised(x_0, noise_of(pictures, t, "pasted"), schedule.alpha_bar(t)), x_t)
            eps = self.model.differentiable_eps(x_t, t) if x.requires_grad else self.model.eps(x_t, t)
            mean, variance = posterior(self.model, x_t, predicted_image(x_t, eps, schedule.alpha_bar(t)), t, below)
            x_t = mean + variance**0.5 * noise_of(pictures, t, f"{purpose} down")
        return x_t
