"""Images drawn from noise, as they are and with attributes changed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from boundaryflow.boundary import Boundaries, Boundary
from boundaryflow.boundary.hyperplane import Space, most_telling
from boundaryflow.diffusion import EpsModel, Inversion, ddim_step, denoise, timestep_path
from boundaryflow.diffusion.observation import noised_features
from boundaryflow.editing.editor import Editor, EditSettings
from boundaryflow.editing.mixing_step_editors import InvertedSource
from boundaryflow.rng import item_noise

SAMPLING_STEPS = 50  # from noise to an image
Change = tuple[Sequence[Boundaries], Tensor]
"""Boundaries of A attributes, and [B,A] which way each image goes along them: +1, -1 or 0."""


@dataclass(frozen=True)
class Sampler(ABC):
    """Draws images from noise, says which attributes they have, and changes these.

    What `draw` returns is what the other methods take. For the guided edit it is finished images, for the single step
    latents at the mixing step.

    Attributes:
        model: The frozen model.
        settings: Of the edits; one strength, eta 0.
        editor: The editor with these settings.
        seed: Seed of all noise.
        preserved: Boundaries of the attributes that edits of others preserve.
    """

    model: EpsModel
    settings: EditSettings
    editor: Editor
    seed: int
    preserved: Sequence[Boundaries]

    @abstractmethod
    def draw(self, noise: Tensor) -> Tensor:
        """Follow [B,C,H,W] noise of the last timestep, standard normal, towards images."""

    @abstractmethod
    def has(self, drawn: Tensor, ids: Sequence[str], boundaries: Sequence[Boundaries]) -> Tensor:
        """[B,A] whether they lie on the positive side of each hyperplane through the midpoint between the classes."""

    @abstractmethod
    def images(self, drawn: Tensor) -> Tensor:
        """[B,C,H,W] images in model range, as drawn."""

    @abstractmethod
    def changed(self, drawn: Tensor, ids: Sequence[str], changes: Sequence[Change]) -> list[Tensor]:
        """For each change [B,C,H,W] images in model range; what the changes have in common is computed once."""


class GuidedSampler(Sampler):
    """Draws images, then edits them."""

    def draw(self, noise: Tensor) -> Tensor:
        """See `Sampler.draw`."""
        return draw_images(self.model, noise).clamp(*self.model.value_range)

    def has(self, drawn: Tensor, ids: Sequence[str], boundaries: Sequence[Boundaries]) -> Tensor:
        """See `Sampler.has`: by each attribute's hyperplane with the best AUC."""
        seen: list[tuple[Boundary, Tensor]] = []
        features = self.settings.features
        for of_attribute in boundaries:
            best = most_telling(of_attribute.along_path(self.settings.timesteps, self.model.sha256, features.space))
            seen.append((best, noised_features(self.model, drawn, ids, best.t, self.seed, features)))
        return _sides(seen, len(drawn))

    def images(self, drawn: Tensor) -> Tensor:
        """See `Sampler.images`."""
        return drawn

    def changed(self, drawn: Tensor, ids: Sequence[str], changes: Sequence[Change]) -> list[Tensor]:
        """See `Sampler.changed`: an image that nothing is asked of stays as it is."""
        asked = [signs.ne(0).any(1) for _boundaries, signs in changes]
        rows: list[int] = torch.stack(asked).any(0).nonzero().flatten().tolist()
        if not rows:
            return [drawn for _ in changes]
        source = self.editor.open(drawn[rows], [ids[row] for row in rows])
        results: list[Tensor] = []
        for (boundaries, signs), of_change in zip(changes, asked, strict=True):
            edited: list[int] = of_change.nonzero().flatten().tolist()
            result = drawn.clone()
            if edited:
                places = [rows.index(row) for row in edited]
                result[edited] = self.editor.edit(source, places, boundaries, signs[edited], self.preserved)[:, 0]
            results.append(result)
        return results


class SingleStepSampler(Sampler):
    """Denoises to the mixing step, and moves the latents at that step."""

    def draw(self, noise: Tensor) -> Tensor:
        """See `Sampler.draw`."""
        return _walk_down(self.model, noise, self.settings.mixing_step, self.settings.num_steps)

    def has(self, drawn: Tensor, ids: Sequence[str], boundaries: Sequence[Boundaries]) -> Tensor:
        """See `Sampler.has`: in h-space where the classes are apart there, else in ε-space."""
        t_mix = self.settings.mixing_step
        spaces: list[Space] = ["h" if _is_apart(of_attribute, "h") else "eps" for of_attribute in boundaries]
        latents: dict[Space, Tensor] = {"eps": drawn}
        if "h" in spaces:
            latents["h"] = self.model.eps_and_h(drawn, t_mix)[1]
        hyperplanes = [b.in_space(s, self.model.sha256, t_mix) for b, s in zip(boundaries, spaces, strict=True)]
        return _sides([(of, latents[space]) for of, space in zip(hyperplanes, spaces, strict=True)], len(drawn))

    def images(self, drawn: Tensor) -> Tensor:
        """See `Sampler.images`."""
        return denoise(self.model, drawn, self._path)

    def changed(self, drawn: Tensor, ids: Sequence[str], changes: Sequence[Change]) -> list[Tensor]:
        """See `Sampler.changed`."""
        h_mix = self.model.eps_and_h(drawn, self.settings.mixing_step)[1]
        source = InvertedSource(ids, Inversion(drawn, h_mix, self._path, None))
        return [
            self.editor.edit(source, range(len(ids)), boundaries, signs, self.preserved)[:, 0]
            for boundaries, signs in changes
        ]

    @property
    def _path(self) -> tuple[int, ...]:
        return timestep_path(self.settings.mixing_step, self.settings.num_steps)


def drawn_noise(model: EpsModel, seed: int, ids: Sequence[str]) -> Tensor:
    """[B,C,H,W] standard normal noise that images are drawn from; on the CPU."""
    return item_noise(seed, ids, "sample", (model.channels, model.image_size, model.image_size))


def sample_ids(num: int) -> list[str]:
    """Ids that images drawn from noise have their noise from; more images do not change the first ones."""
    return [f"sample-{index:05d}" for index in range(num)]


def draw_images(model: EpsModel, x_T: Tensor) -> Tensor:
    """Images from noise, by deterministic DDIM."""
    return denoise(model, x_T, timestep_path(model.schedule.num_train_timesteps - 1, SAMPLING_STEPS))


def _sides(seen: Sequence[tuple[Boundary, Tensor]], num: int) -> Tensor:
    columns = [hyperplane.signed_distance(latents) > hyperplane.calibration.middle for hyperplane, latents in seen]
    return torch.stack(columns, 1).cpu() if columns else torch.zeros(num, 0, dtype=torch.bool)


def _is_apart(boundaries: Boundaries, space: Space) -> bool:
    hyperplane = boundaries.at_mixing_step.get(space)
    return hyperplane is not None and hyperplane.calibration.gap > 0


def _walk_down(model: EpsModel, x_T: Tensor, t_mix: int, num_steps: int) -> Tensor:
    """Deterministic DDIM from pure noise to the mixing step, with the same stride as below it."""
    last = model.schedule.num_train_timesteps - 1
    num = min(last + 1, 1 + max(1, round((num_steps - 1) * last / t_mix)))
    steps = [*[t for t in timestep_path(last, num)[::-1] if t > t_mix], t_mix]
    x_t = x_T
    for t, t_next in pairwise(steps):
        x_t = ddim_step(x_t, model.eps(x_t, t), model.schedule.alpha_bar(t), model.schedule.alpha_bar(t_next))
    return x_t
