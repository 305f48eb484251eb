"""Times of network calls and other work on this machine, each measured for a few seconds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from boundaryflow.boundary import Gram, InMemory, Labels, fit_boundaries
from boundaryflow.config import (
    AvatarSource,
    ClassifierSource,
    DatasetParams,
    FolderSource,
    ListedSource,
    ParquetSource,
)
from boundaryflow.diffusion import EpsModel
from boundaryflow.diffusion.observation import noised_features
from boundaryflow.editing import separability
from boundaryflow.errors import ManifestError
from boundaryflow.estimate.counting import Planned, Sizes, count
from boundaryflow.evaluation.panel import load_judges
from boundaryflow.evaluation.per_image import PerImageMetrics, open_metric_models
from boundaryflow.labelling.clip_labels import load_clip
from boundaryflow.runtime.device import device
from boundaryflow.runtime.frozen_model import batch_size, check_features, open_model
from boundaryflow.sources.datasets import draw_avatars, face_of, open_raw, open_unlisted
from boundaryflow.sources.decoding import decode_all
from boundaryflow.sources.listing import pictures_path
from boundaryflow.sources.raw import RawPictures

_LEAST_FITTED, _MOST_FITTED = 64, 384
_NUM_PICTURES = 32


class Timing(NamedTuple):
    """Time of a repeated piece of work, in seconds.

    Attributes:
        begin: Once, before the first repetition: loading of libraries and weights.
        each: Per repetition.
    """

    begin: float
    each: float


NOTHING = Timing(0.0, 0.0)


@dataclass(frozen=True)
class Rates:
    """Times of the parts of the work, in seconds.

    Attributes:
        start: Start of a stage: DVC, Python, libraries.
        start_network: Start of a stage that runs the model.
        ingest: Per image.
        label: Per image, by CLIP or classifiers.
        separate: AUC of one attribute at one timestep, in the search for the mixing step.
        forward: Per image-call.
        observe: Per image-call that ends at the features.
        gradient: Per direction that is pulled back in an image-call.
        products: Inner products of `num_fitted` images, in all spaces of the mixing step.
        fit_mixing: Boundaries of an attribute at the mixing step, on `num_fitted` images.
        fit_level: Hyperplanes of all attributes at a noise level, on `num_fitted` images, with a shared decomposition.
        num_fitted: Images in the measured fits.
        look: CLIP features in the evaluation, per picture.
        metrics: All metrics of an edited picture.
        sizes: Number of values of h, and of the features that observe stores.
        num_features: Values that label stores per image; 0 without a network.
        family: Family of the model.
    """

    start: float
    start_network: float
    ingest: float
    label: Timing
    separate: Timing
    forward: float
    observe: float
    gradient: float
    products: float
    fit_mixing: float
    fit_level: float
    num_fitted: int
    look: Timing
    metrics: Timing
    sizes: Sizes
    num_features: int
    family: str


def measure(dataset: str, params: DatasetParams, planned: Planned, num_labelled: int, seconds: float) -> Rates:
    """Time the parts of the work on this machine.

    Args:
        dataset: Name of the data set.
        params: Its parameters.
        planned: Its settings and timesteps.
        num_labelled: Images that boundaries are fitted and calibrated on.
        seconds: Approximate time to spend; the minimum for a large network may take longer.
    """
    share = seconds / 10
    started = time.perf_counter()
    model = open_model(params.model, params.dtype)
    opened = time.perf_counter() - started
    sample = torch.randn(1, model.channels, model.image_size, model.image_size)
    num_bottleneck = model.eps_and_h(sample, planned.noise_levels[-1])[1].numel()
    sizes = Sizes(num_bottleneck, check_features(model, planned.features, params.model))
    forward, gradient = _network(model, planned, sizes, 4 * share)
    separate = _separate(params)  # before the fits: its beginning loads scikit-learn
    num_fitted = max(_LEAST_FITTED, min(num_labelled, _MOST_FITTED))
    products, fit_mixing, fit_level = _fits(params, model, sizes, num_fitted)
    weights = params.label.source.clip_weights
    label, num_features = _labelling(params, share)
    start, start_network = starts("stages.boundary", "stages.edit")
    return Rates(
        start=start,
        start_network=start_network + opened,
        ingest=_ingest(dataset, params, share),
        label=label,
        separate=separate,
        forward=forward,
        observe=_observe(model, planned, share),
        gradient=gradient,
        products=products,
        fit_mixing=fit_mixing,
        fit_level=fit_level,
        num_fitted=num_fitted,
        look=label if params.evaluate.clip == weights else _clip(params.evaluate.clip, params, share),
        metrics=_metrics(params, share),
        sizes=sizes,
        num_features=num_features,
        family=getattr(model, "family", "ddpm"),
    )


def _timed(begin: Callable[[], Callable[[], object]], seconds: float) -> Timing:
    """Time a piece of work: its first call and, repeated for `seconds` but at least once, each further call."""
    started = time.perf_counter()
    work = begin()
    work()
    begun, turns = time.perf_counter(), 0
    while turns == 0 or time.perf_counter() - begun < seconds:
        work()
        turns += 1
    each = (time.perf_counter() - begun) / turns
    return Timing(max(0.0, begun - started - each), each)


def _each(work: Callable[[], object], seconds: float) -> float:
    """Time of work that loads nothing."""
    return _timed(lambda: work, seconds).each


def starts(*modules: str) -> list[float]:
    """Times to load DVC and one of these stages each."""
    dvc = _run_s("-m", "dvc", "stage", "list")
    return [dvc + _run_s("-c", f"import {module}") for module in modules]


def _run_s(*arguments: str) -> float:
    """Time of a Python process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=False, capture_output=True)  # noqa: S603
    return time.perf_counter() - started


def _network(model: EpsModel, planned: Planned, sizes: Sizes, seconds: float) -> tuple[float, float]:
    """Times of an image-call and of a gradient, the engine's own work included, on a shortened path."""
    size, short = batch_size(model), planned.cut_short()
    counts = count(short, getattr(model, "family", "ddpm"))
    x_0 = torch.randn(size, model.channels, model.image_size, model.image_size).clamp(-1, 1)
    took = _each(lambda: short.invert(model, x_0), seconds / 2)
    forward = took / (size * counts.invert.image_calls)
    if short.params.edit.method != "guided":
        return forward, 0.0
    (attributes,) = short.params.edit.edits.values()
    took = _each(lambda: short.edit(model, x_0, list(attributes), sizes), seconds / 2)
    (editing,) = counts.edits.values()
    calls = counts.opening[short.params.edit.method].image_calls + editing.image_calls
    return forward, max(0.0, took / size - calls * forward) / editing.directions


def _observe(model: EpsModel, planned: Planned, seconds: float) -> float:
    """Time of an image-call of the stage observe."""
    size, t = batch_size(model), planned.noise_levels[-1]
    x_0 = torch.randn(size, model.channels, model.image_size, model.image_size).clamp(-1, 1)
    ids = [f"timing-{number}" for number in range(size)]
    return _each(lambda: noised_features(model, x_0, ids, t, 0, planned.features), seconds) / size


def _fits(params: DatasetParams, model: EpsModel, sizes: Sizes, num: int) -> tuple[float, float, float]:
    """Times of inner products, of an attribute at the mixing step, and of all at a noise level, on random latents."""
    how, chance = params.boundary, np.random.default_rng(0)
    order = chance.permutation(num)
    # as many as are solved together
    has = chance.random((min(len(params.label.attributes), os.cpu_count() or 1), num)) < 0.5
    known = [Labels("probe", of_one, order[: num * 4 // 5], order[num * 4 // 5 :]) for of_one in has]
    about: dict[str, Any] = {"t": 0, "model_sha256": model.sha256, "ridge": how.ridge}

    def latents(size: int) -> InMemory:
        drawn = torch.randn(num, max(size, len(has)))
        drawn[:, : len(has)] += 3.0 * torch.from_numpy(has.T)  # apart as those of images are
        return InMemory(drawn.half())

    products, at_mixing_step = 0.0, 0.0
    for space in how.spaces:
        of_space = latents({"eps": model.channels * model.image_size**2, "h": sizes.bottleneck}[space])
        started = time.perf_counter()
        gram = Gram.of(of_space)
        multiplied = time.perf_counter()
        fit_boundaries(
            gram, known, estimator=how.estimator, c=how.c, num_bootstraps=how.num_bootstraps, space=space, **about
        )
        fitted = time.perf_counter()
        products += multiplied - started
        at_mixing_step += fitted - multiplied
    observed = latents(sizes.features)
    started = time.perf_counter()
    fit_boundaries(Gram.of(observed), known, estimator="ridge", with_patterns=True, space="h", **about)
    return products, at_mixing_step / len(known), time.perf_counter() - started


def _ingest(dataset: str, params: DatasetParams, seconds: float) -> float:
    """Time to draw a face, or to read and decode one of the data set's own pictures."""
    how = params.ingest
    if isinstance(how.source, AvatarSource):
        faces = draw_avatars(how.source.model_copy(update={"num_images": _NUM_PICTURES}), 0)
        return _each(lambda: [face_of(face, how.image_size) for face in faces], seconds) / len(faces)
    raw = present_pictures(dataset, how.source, how.image_size)
    names = list(raw.names)[:: max(1, len(raw.names) // (4 * _NUM_PICTURES))]
    started = time.perf_counter()
    for _ in decode_all(raw, names, {}, how.geometry, os.cpu_count() or 1):
        pass
    return (time.perf_counter() - started) / max(1, len(names))


def present_pictures(dataset: str, source: ListedSource, image_size: int) -> RawPictures:
    """The raw pictures of a data set, which need not be listed yet; of a remote folder those of its last listing.

    Raises:
        ManifestError: There are none, or a remote folder has not been listed.
    """
    if isinstance(source, FolderSource | ParquetSource):
        return open_unlisted(dataset, source, image_size)
    if not pictures_path(dataset).is_file():
        what = f"{source.place(dataset)} has not been listed yet; run `python -m stages.listing {dataset}`"
        raise ManifestError(f"estimate {dataset}: {what}")
    return open_raw(dataset, source, image_size)


def _pictures(params: DatasetParams) -> torch.Tensor:
    return torch.rand(_NUM_PICTURES, params.ingest.channels, params.ingest.image_size, params.ingest.image_size)


def _labelling(params: DatasetParams, seconds: float) -> tuple[Timing, int]:
    """Time of labelling an image by a network, and the number of values that are stored of it."""
    source = params.label.source
    if not isinstance(source, ClassifierSource):
        weights = source.clip_weights
        return _clip(weights, params, seconds), load_clip(weights).num_features if weights else 0
    pictures = _pictures(params)

    def begin() -> Callable[[], object]:
        classifiers = load_judges(Path(source.weights), device())
        return lambda: classifiers.probabilities(pictures)

    return _of_one(_timed(begin, seconds)), len(load_judges(Path(source.weights)).attributes)


def _clip(weights: str | None, params: DatasetParams, seconds: float) -> Timing:
    """Time of CLIP features of a picture."""
    if weights is None:
        return NOTHING
    pictures = _pictures(params)

    def begin() -> Callable[[], object]:
        clip = load_clip(weights, device())
        return lambda: clip.image_features(pictures)

    return _of_one(_timed(begin, seconds))


def _metrics(params: DatasetParams, seconds: float) -> Timing:
    """Time of all metrics of an edited picture."""
    how, before = params.evaluate, _pictures(params)
    targets = [dict.fromkeys(next(iter(params.edit.edits.values())), 1)] * _NUM_PICTURES

    def begin() -> Callable[[], object]:
        models = open_metric_models(how.judges, how.clip, params.label.prompts, params.label.templates, {}, device())
        judged = PerImageMetrics(models, [f"timing-{number}" for number in range(_NUM_PICTURES)], targets, before)
        return lambda: judged.metrics(before)

    return _of_one(_timed(begin, seconds))


def _of_one(timing: Timing) -> Timing:
    return Timing(timing.begin, timing.each / _NUM_PICTURES)


def _separate(params: DatasetParams) -> Timing:
    """Time of the AUC of an attribute at one timestep, in one space."""
    num = params.mixing.num_images
    has = np.arange(num) % 2 == 0
    points = np.random.default_rng(0).standard_normal((num, 2 * num)) + has[:, None]
    products = points @ points.T  # shared by all attributes
    return _timed(lambda: lambda: separability(products, has, seed=0), 0.0)
