"""The command sample: images drawn from noise, with chosen rates of some attributes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from boundaryflow.boundary import Boundaries, Boundary
from boundaryflow.boundary.hyperplane import Space, most_telling
from boundaryflow.config import load_params
from boundaryflow.diffusion import EpsModel, Inversion, ddim_step, denoise, timestep_path
from boundaryflow.diffusion.observation import noised_features
from boundaryflow.editing.editor import Editor, EditSettings
from boundaryflow.editing.mixing_step_editors import InvertedSource
from boundaryflow.errors import BoundaryError
from boundaryflow.files import write_bytes
from boundaryflow.jobs.fitted import fitted_boundaries, model_and_settings, open_boundary
from boundaryflow.jobs.photos import tile
from boundaryflow.jobs.pictures import check_targets
from boundaryflow.pixels import to_u8
from boundaryflow.rng import item_noise
from boundaryflow.runtime.editor import open_editor
from boundaryflow.runtime.frozen_model import batch_size
from boundaryflow.seeds import item_seed
from boundaryflow.sources.encoding import encode_png

SAMPLING_STEPS = 50  # from noise to an image


def sample_images(
    dataset: str, num: int, attributes: Mapping[str, float], seed: int, out: Path, strength: float = 1.0
) -> Path:
    """Draw images from noise, with chosen rates of some attributes.

    Images are drawn first without regard to attributes. If more or fewer of them than requested have an attribute
    (decided at the midpoint between the classes), only the difference is edited, chosen pseudo-randomly; the others
    stay as drawn, which keeps the variety of all other attributes. With `edit.method: single_step` the latents are
    moved at the mixing step, during sampling.

    Args:
        dataset: Data set whose model and boundaries to use.
        num: Number of images.
        attributes: Attribute to the share of images with it, in [0, 1]; other attributes stay as drawn.
        seed: Seed of the noise.
        out: Folder for the pictures.
        strength: Strength of the edits, as in `edit_photos`.

    Returns:
        The file with the grid of all samples; the single pictures are in the same folder.

    Raises:
        PipelineError: There is no such data set or boundary, it does not fit the model, or it was fitted in paper mode.
    """
    ids = [f"sample-{seed}-{index:05d}" for index in range(num)]
    grid = out / f"samples-{seed}.png"
    check_targets("sample", [strength], out, [grid, *(out / f"{item}.png" for item in ids)])
    params = load_params().dataset(dataset)
    if params.paper_mode:
        raise BoundaryError(
            f"sample {dataset}: paper_mode edits given images only; set paper_mode: false and run again"
        )
    model, settings = model_and_settings(dataset, params)
    boundaries = [open_boundary(dataset, attribute) for attribute in attributes]
    made_by = _GuidedSampler if settings.is_guided else _SingleStepSampler
    settings = replace(settings, strengths=[strength], eta=0.0)  # sampling is deterministic, as the inversion was
    sampler = made_by(model, settings, open_editor(model, settings, seed), seed, boundaries, fitted_boundaries(dataset))
    noise = item_noise(seed, [f"sample-{index:05d}" for index in range(num)], "sample", _shape(model))
    size = batch_size(model)
    drawn = [sampler.draw(some) for some in noise.split(size)]
    has = torch.cat([sampler.has(x_t, some) for x_t, some in zip(drawn, _split(ids, size), strict=True)])
    signs = directions_to_shares(has, list(attributes.values()), ids)
    pictures = [
        to_u8(sampler.finish(x_t, some, towards), model.value_range)
        for x_t, some, towards in zip(drawn, _split(ids, size), signs.split(size), strict=True)
    ]
    u8 = torch.cat(pictures)
    facts = {"synthetic": "true", "seed": str(seed), "attributes": json.dumps(dict(attributes)), "model": model.sha256}
    for item, picture in zip(ids, u8, strict=True):
        write_bytes(out / f"{item}.png", encode_png(picture, facts))
    write_bytes(grid, encode_png(tile(u8, num_columns=8), facts))
    return grid


def directions_to_shares(has: Tensor, shares: Sequence[float], ids: list[str]) -> Tensor:
    """Choose pseudo-randomly the fewest images whose change gives attributes the requested shares.

    Args:
        has: [N,A] whether each image has each attribute.
        shares: [A] requested share of images with it, in [0, 1]; rounded to whole images.
        ids: [N] names; their hashes decide which images are chosen.

    Returns:
        [N,A] +1 to add it, -1 to remove it, 0 for no change.
    """
    signs = torch.zeros(has.shape)
    for column, share in enumerate(shares):
        surplus = int(has[:, column].sum()) - int(share * len(ids) + 0.5)
        from_side = has[:, column] if surplus > 0 else ~has[:, column]
        lots = sorted(from_side.nonzero().flatten().tolist(), key=lambda row: item_seed(column, ids[row], "share"))
        signs[lots[: abs(surplus)], column] = -1.0 if surplus > 0 else 1.0
    return signs


def _sides(seen: Sequence[tuple[Boundary, Tensor]], num: int) -> Tensor:
    """[num,A] whether latents lie on the positive side of each hyperplane through the midpoint between the classes."""
    columns = [hyperplane.signed_distance(latents) > hyperplane.calibration.middle for hyperplane, latents in seen]
    return torch.stack(columns, 1) if columns else torch.zeros(num, 0, dtype=torch.bool)


def _split(ids: list[str], size: int) -> list[list[str]]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def _shape(model: EpsModel) -> tuple[int, int, int]:
    return model.channels, model.image_size, model.image_size


@dataclass(frozen=True)
class _Sampler:
    """Fields of both samplers."""

    model: EpsModel
    settings: EditSettings
    editor: Editor
    seed: int
    boundaries: Sequence[Boundaries]
    preserved: Sequence[Boundaries]


class _GuidedSampler(_Sampler):
    """Draws images, then edits the chosen ones."""

    def draw(self, noise: Tensor) -> Tensor:
        """[B,C,H,W] images in model range."""
        return draw_images(self.model, noise).clamp(*self.model.value_range)

    def has(self, x_0: Tensor, ids: list[str]) -> Tensor:
        """[B,A] whether images have each attribute, by its hyperplane with the best AUC."""
        seen: list[tuple[Boundary, Tensor]] = []
        features = self.settings.features
        for of_attribute in self.boundaries:
            best = most_telling(of_attribute.along_path(self.settings.timesteps, self.model.sha256, features.space))
            seen.append((best, noised_features(self.model, x_0, ids, best.t, self.seed, features)))
        return _sides(seen, len(x_0))

    def finish(self, x_0: Tensor, ids: list[str], signs: Tensor) -> Tensor:
        """[B,C,H,W] images in model range, changed where a sign is not 0."""
        rows = signs.ne(0).any(1).nonzero().flatten().tolist()
        if not rows:
            return x_0
        source = self.editor.open(x_0[rows], [ids[row] for row in rows])
        result = x_0.clone()
        result[rows] = self.editor.edit(source, range(len(rows)), self.boundaries, signs[rows], self.preserved)[:, 0]
        return result


class _SingleStepSampler(_Sampler):
    """Denoises to the mixing step, and moves the chosen latents at that step."""

    def draw(self, noise: Tensor) -> Tensor:
        """[B,C,H,W] latents at the mixing step."""
        return _walk_down(self.model, noise, self.settings.mixing_step, self.settings.num_steps)

    def has(self, x_mix: Tensor, _ids: list[str]) -> Tensor:
        """[B,A] whether the latents lie on the positive side of each hyperplane."""
        space: Space = "h" if all("h" in b.at_mixing_step for b in self.boundaries) else "eps"
        t_mix = self.settings.mixing_step
        latents = self.model.eps_and_h(x_mix, t_mix)[1] if space == "h" else x_mix
        hyperplanes = [b.in_space(space, self.model.sha256, t_mix) for b in self.boundaries]
        return _sides([(hyperplane, latents) for hyperplane in hyperplanes], len(x_mix))

    def finish(self, x_mix: Tensor, ids: list[str], signs: Tensor) -> Tensor:
        """[B,C,H,W] images in model range."""
        t_mix = self.settings.mixing_step
        path = timestep_path(t_mix, self.settings.num_steps)
        if not self.boundaries:
            return denoise(self.model, x_mix, path)
        _eps, h_mix = self.model.eps_and_h(x_mix, t_mix)
        source = InvertedSource(ids, Inversion(x_mix, h_mix, path, None))
        return self.editor.edit(source, range(len(ids)), self.boundaries, signs, self.preserved)[:, 0]


def draw_images(model: EpsModel, x_T: Tensor) -> Tensor:
    """Images from noise, by deterministic DDIM."""
    return denoise(model, x_T, timestep_path(model.schedule.num_train_timesteps - 1, SAMPLING_STEPS))


def _walk_down(model: EpsModel, x_T: Tensor, t_mix: int, num_steps: int) -> Tensor:
    """Deterministic DDIM from pure noise to the mixing step, with the same stride as below it."""
    last = model.schedule.num_train_timesteps - 1
    num = min(last + 1, 1 + max(1, round((num_steps - 1) * last / t_mix)))
    steps = [*[t for t in timestep_path(last, num)[::-1] if t > t_mix], t_mix]
    x_t = x_T
    for t, t_next in pairwise(steps):
        x_t = ddim_step(x_t, model.eps(x_t, t), model.schedule.alpha_bar(t), model.schedule.alpha_bar(t_next))
    return x_t
