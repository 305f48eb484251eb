"""The command sample: images drawn from noise, with chosen rates of some attributes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from boundaryflow.config import load_params
from boundaryflow.editing.sampling import drawn_noise, sample_ids
from boundaryflow.errors import BoundaryError
from boundaryflow.files import write_bytes
from boundaryflow.jobs.fitted import fitted_boundaries, model_and_settings, open_boundary
from boundaryflow.jobs.photos import tile
from boundaryflow.jobs.pictures import check_targets
from boundaryflow.pixels import to_u8
from boundaryflow.runtime.frozen_model import batch_size
from boundaryflow.runtime.samples import open_sampler
from boundaryflow.seeds import item_seed
from boundaryflow.sources.encoding import encode_png


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
    sampler = open_sampler(model, settings, seed, fitted_boundaries(dataset), strength)
    size = batch_size(model)
    drawn = [sampler.draw(some) for some in drawn_noise(model, seed, sample_ids(num)).split(size)]
    has = torch.cat([sampler.has(x_t, some, boundaries) for x_t, some in zip(drawn, _split(ids, size), strict=True)])
    signs = directions_to_shares(has, list(attributes.values()), ids)
    pictures: list[Tensor] = []
    for x_t, some, towards in zip(drawn, _split(ids, size), signs.split(size), strict=True):
        (changed,) = sampler.changed(x_t, some, [(boundaries, towards)]) if boundaries else (sampler.images(x_t),)
        pictures.append(to_u8(changed, model.value_range))
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


def _split(ids: list[str], size: int) -> list[list[str]]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]
