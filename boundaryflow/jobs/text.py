"""A boundary from words: CLIP scores images against two descriptions, and hyperplanes are fitted to separate them."""

from __future__ import annotations

import logging
import re
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from boundaryflow.boundary import Boundaries, save_boundaries
from boundaryflow.config import ClipSource, DatasetParams, is_name, load_params
from boundaryflow.diffusion import EpsModel, Features
from boundaryflow.editing.sampling import draw_images
from boundaryflow.errors import BoundaryError, ManifestError, ParamsError
from boundaryflow.jobs.fit_noised import Sides, fit_noised
from boundaryflow.labelling.clip_labels import load_clip
from boundaryflow.pixels import to_model_range, to_u8
from boundaryflow.rng import item_noise
from boundaryflow.runtime.device import device
from boundaryflow.runtime.frozen_model import batch_size, open_model
from boundaryflow.runtime.process import Progress
from boundaryflow.sources.images import FORMATS, read_image
from boundaryflow.sources.raw import survey
from boundaryflow.sources.walking import path_of
from boundaryflow.store.catalog.ingest import INGEST, MANIFEST
from boundaryflow.store.catalog.jobs import TEXT
from boundaryflow.store.catalog.observe import OBSERVE
from boundaryflow.store.shards import load_items
from boundaryflow.text import visible

LOG = logging.getLogger(__name__)
On = Literal["samples", "images"]
EXTREMES = 1 / 3  # share of the images used on each side: those with the most extreme CLIP scores
MIN_IMAGES = 24


def boundary_from_words(
    dataset: str, positive: str, negative: str, name: str, *, on: On, num: int, seed: int, positives: Path | None = None
) -> tuple[Path, Boundaries]:
    """Fit the boundary between two descriptions, for guided edits.

    Args:
        dataset: Data set whose model to use.
        positive: Description of edited images.
        negative: Description of images before the edit.
        name: Name of the boundary.
        on: Use images that the model draws, which needs no data set, or the data set's own.
        num: Number of these images.
        seed: Seed of the drawn images.
        positives: Folder of images of the positive side (the paper's own method); all `num` images are then the
            negative side, and CLIP is not used.

    Returns:
        The file, and its boundaries.

    Raises:
        PipelineError: There is no such data set or image, no CLIP, or the two sides cannot be separated.
    """
    if not is_name(name):
        raise ParamsError(
            f"text --name {visible(name)!r}: must be letters, digits, _ and -, begin with a letter or digit, at most "
            "64 of them"
        )
    params = load_params().dataset(dataset)
    model = open_model(params.model, params.dtype)
    x_0, ids = _drawn(model, num, seed) if on == "samples" else _of_dataset(dataset, model, num)
    if len(ids) < MIN_IMAGES:
        raise ManifestError(f"text: {len(ids)} images to compare, must be at least {MIN_IMAGES}; raise --num")
    if positives is None:
        sides = _by_words(params, model, x_0, ids, positive, negative)
    else:
        shown = _of_folder(positives, params, model)
        has = np.repeat([True, False], [len(shown), len(ids)])
        sides = Sides(torch.cat([shown, x_0]), [*(f"positive-{k}" for k in range(len(shown))), *ids], has)
    observed = OBSERVE.read_facts(dataset)
    features = Features(**observed.get("features", {}))
    how = params.boundary
    hyperplanes = fit_noised(
        model, sides, observed["timesteps"], features, name,
        ridge=how.ridge, neighbours=how.neighbours, min_auc=how.min_auc,
    )  # fmt: skip
    if not hyperplanes:
        raise BoundaryError(
            f"text: {positive!r} and {negative!r} are not separable at any noise level "
            f"(no held-out AUC of boundary.min_auc, {params.boundary.min_auc}); use other words, or raise --num"
        )
    found, path = Boundaries(name, {}, hyperplanes), TEXT.folder(dataset) / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_boundaries(path, found)
    return path, found


def name_of(words: str) -> str:
    """A name for a boundary, from its description."""
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")[:60] or "text"


def _drawn(model: EpsModel, num: int, seed: int) -> tuple[Tensor, list[str]]:
    ids = [f"text-{seed}-{index:05d}" for index in range(num)]
    low, high = model.value_range
    parts: list[Tensor] = []
    with Progress("drawing", num, "images") as progress:
        size = batch_size(model)
        for start in range(0, num, size):
            some = ids[start : start + size]
            noise = item_noise(seed, some, "text", (model.channels, model.image_size, model.image_size))
            parts.append(draw_images(model, noise).clamp(low, high))
            progress.advance(len(some))
    return torch.cat(parts), ids


def _of_dataset(dataset: str, model: EpsModel, num: int) -> tuple[Tensor, list[str]]:
    folder = INGEST.folder(dataset)
    manifest = MANIFEST.read(folder)
    items = sorted(manifest.loc[(manifest["status"] == "ok") & (manifest["split"] != "test"), "item_id"])[:num]
    return to_model_range(load_items(folder, items, ["pixels"])["pixels"], model.value_range), items


def _of_folder(folder: Path, params: DatasetParams, model: EpsModel) -> Tensor:
    readable = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    names = [file.name for file in survey(folder, what="text --positives") if file.kind == "picture"]
    paths = [path_of(folder, name) for name in names if PurePosixPath(name).suffix.lower() in readable]
    if len(paths) < MIN_IMAGES // 3:
        raise ManifestError(f"text --positives {folder}: {len(paths)} pictures, must be at least {MIN_IMAGES // 3}")
    pixels = [read_image(path, **{**params.ingest.geometry, "crop": None}) for path in paths]
    return to_model_range(torch.from_numpy(np.stack(pixels)), model.value_range)


def _by_words(
    params: DatasetParams, model: EpsModel, x_0: Tensor, ids: list[str], positive: str, negative: str
) -> Sides:
    """The images with the most extreme CLIP scores, on either side."""
    source = params.label.source
    weights = source.weights if isinstance(source, ClipSource) else params.evaluate.clip
    if weights is None:
        raise BoundaryError("text: no CLIP to read the words with; name one in evaluate.clip, or give --positives")
    clip = load_clip(weights, device())
    u8 = to_u8(x_0, model.value_range)
    features = torch.cat([clip.image_features(to_model_range(part, (0.0, 1.0))) for part in u8.split(256)])
    templates = source.templates if isinstance(source, ClipSource) else ("{}",)
    odds = clip.log_odds(features, [positive], [negative], templates=templates).numpy()
    rows, has = extremes(odds)
    LOG.info("text: mean log-odds %.2f and %.2f on the two sides", odds[rows[has]].mean(), odds[rows[~has]].mean())
    return Sides(x_0[rows], [ids[row] for row in rows], has)


def extremes(odds: NDArray[np.floating]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """The images with the most extreme scores on either side.

    Args:
        odds: [N] scores.

    Returns:
        [M] positions, ascending, and [M] whether each is on the upper side.
    """
    order = np.argsort(odds, kind="stable")
    each = max(10, int(len(order) * EXTREMES))
    rows = np.sort(np.concatenate([order[:each], order[-each:]]))
    return rows, odds[rows] > np.median(odds[rows])
