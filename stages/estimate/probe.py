"""What this machine takes for a network call, and for the work around it: each is done for a few seconds and timed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from boundaryflow.boundary import Gram, InMemory, Labels, fit_boundaries
from boundaryflow.diffusion import EpsModel
from boundaryflow.labelling import load_clip
from stages.estimate.counting import Planned, count
from stages.evaluate import Judged, open_bench
from stages.frozen_model import batch_size, device, open_model
from stages.ingest import draw_avatars, face_of, open_raw
from stages.judging import judge
from stages.params import AvatarSource, DatasetParams

_LEAST_FITTED, _MOST_FITTED = 64, 384
_NUM_PICTURES = 32


@dataclass(frozen=True)
class Rates:
    """Seconds for the parts of the work.

    Attributes:
        start: Of a stage before it begins: DVC, Python, the libraries.
        ingest: An image.
        label: An image.
        forward: An image-call.
        gradient: What a direction pulled back adds to an image-call.
        products: The inner products of `num_fitted` images, in all spaces of the mixing step.
        fit_mixing: The boundaries of an attribute at the mixing step, on as many.
        fit_level: Its plane of a noise level, on as many.
        num_fitted: Images in those two.
        look: Of the evaluation's CLIP, a picture.
        judge: All that an edited picture is judged by.
        num_bottleneck: Values of h.
        family: Of the model.
    """

    start: float
    ingest: float
    label: float
    forward: float
    gradient: float
    products: float
    fit_mixing: float
    fit_level: float
    num_fitted: int
    look: float
    judge: float
    num_bottleneck: int
    family: str


def measure(dataset: str, params: DatasetParams, planned: Planned, num_labelled: int, seconds: float) -> Rates:
    """Time the parts of the work on this machine.

    Args:
        dataset: Name.
        params: The data set's.
        planned: Its way through its latents.
        num_labelled: Images that boundaries are fitted and calibrated on.
        seconds: To be spent, about; a large network may take longer for what it cannot do without.
    """
    share = seconds / 10
    model = open_model(params.model, params.dtype)
    sample = torch.randn(1, model.channels, model.image_size, model.image_size)
    num_bottleneck = model.eps_and_h(sample, planned.noise_levels[-1])[1].numel()
    forward, gradient = _network(model, planned, num_bottleneck, 4 * share)
    num_fitted = max(_LEAST_FITTED, min(num_labelled, _MOST_FITTED))
    products, fit_mixing, fit_level = _fits(params, model, num_bottleneck, num_fitted)
    labeller = params.label.source
    return Rates(
        start=_start(),
        ingest=_ingest(dataset, params, share),
        label=_clip_s(getattr(labeller, "weights", None), params, share),
        forward=forward,
        gradient=gradient,
        products=products,
        fit_mixing=fit_mixing,
        fit_level=fit_level,
        num_fitted=num_fitted,
        look=_clip_s(params.evaluate.clip, params, share),
        judge=_judge_s(params, share),
        num_bottleneck=num_bottleneck,
        family=getattr(model, "family", "ddpm"),
    )


def _timed(work: Callable[[], object], seconds: float) -> float:
    """Seconds that something takes, done again and again for so long, and at least once after a first time."""
    work()
    started, turns = time.perf_counter(), 0
    while turns == 0 or time.perf_counter() - started < seconds:
        work()
        turns += 1
    return (time.perf_counter() - started) / turns


def _start() -> float:
    """Seconds for DVC and a stage to be loaded."""
    started = time.perf_counter()
    for module in ("dvc.repo", "stages.edit"):
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True, capture_output=True)  # noqa: S603
    return time.perf_counter() - started


def _network(model: EpsModel, planned: Planned, num_bottleneck: int, seconds: float) -> tuple[float, float]:
    """Seconds of an image-call and of a gradient, the engine's own work included, on a path cut short."""
    size, short = batch_size(model), planned.cut_short()
    counts = count(short, getattr(model, "family", "ddpm"))
    x_0 = torch.randn(size, model.channels, model.image_size, model.image_size).clamp(-1, 1)
    took = _timed(lambda: short.invert(model, x_0), seconds / 2)
    forward = took / (size * counts.invert.image_calls)
    settings = short.settings()
    if not settings.is_guided:
        return forward, 0.0
    (attributes,) = short.params.edit.edits.values()
    took = _timed(lambda: short.edit(model, x_0, list(attributes), settings, num_bottleneck), seconds / 2)
    (editing,) = counts.edits.values()
    calls = counts.opening.image_calls + editing.image_calls
    return forward, max(0.0, took / size - calls * forward) / editing.directions


def _fits(params: DatasetParams, model: EpsModel, num_bottleneck: int, num: int) -> tuple[float, float, float]:
    """Seconds for inner products, to fit an attribute at the mixing step, and at a noise level; latents are drawn."""
    how, chance = params.boundary, np.random.default_rng(0)
    order = chance.permutation(num)
    known = Labels("probe", chance.random(num) < 0.5, order[: num * 4 // 5], order[num * 4 // 5 :])
    sizes = {"eps": model.channels * model.image_size**2, "h": num_bottleneck}
    products, at_mixing_step, at_level = 0.0, 0.0, 0.0
    for space in how.spaces:
        latents = torch.randn(num, sizes[space])
        latents[:, 0] += 3.0 * torch.from_numpy(known.has_attribute)  # apart as those of images are
        started = time.perf_counter()
        gram = Gram.of(InMemory(latents.half()))
        multiplied = time.perf_counter()
        about: dict[str, Any] = {"space": space, "t": 0, "model_sha256": model.sha256, "ridge": how.ridge}
        fit_boundaries(gram, [known], estimator=how.estimator, c=how.c, num_bootstraps=how.num_bootstraps, **about)
        fitted = time.perf_counter()
        if space == "h" or len(how.spaces) == 1:
            fit_boundaries(gram, [known], estimator="ridge", **about)
            at_level = time.perf_counter() - fitted
        products += multiplied - started
        at_mixing_step += fitted - multiplied
    return products, at_mixing_step, at_level


def _ingest(dataset: str, params: DatasetParams, seconds: float) -> float:
    """Seconds to draw a face, or to read and decode one of the data set's own pictures."""
    how = params.ingest
    if isinstance(how.source, AvatarSource):
        faces = draw_avatars(how.source.model_copy(update={"num_images": _NUM_PICTURES}), 0)
        return _timed(lambda: [face_of(face, how.image_size) for face in faces], seconds) / len(faces)
    raw = open_raw(dataset, how.source, how.image_size)
    names = list(raw.names)[:: max(1, len(raw.names) // (4 * _NUM_PICTURES))]
    started = time.perf_counter()
    for _ in judge(raw, names, {}, how.geometry, os.cpu_count() or 1):
        pass
    return (time.perf_counter() - started) / max(1, len(names))


def _pictures(params: DatasetParams) -> torch.Tensor:
    return torch.rand(_NUM_PICTURES, params.ingest.channels, params.ingest.image_size, params.ingest.image_size)


def _clip_s(weights: str | None, params: DatasetParams, seconds: float) -> float:
    """Seconds for CLIP to look at a picture."""
    if weights is None:
        return 0.0
    clip, pictures = load_clip(weights, device()), _pictures(params)
    return _timed(lambda: clip.image_features(pictures), seconds) / _NUM_PICTURES


def _judge_s(params: DatasetParams, seconds: float) -> float:
    """Seconds to judge an edited picture."""
    how = params.evaluate
    bench = open_bench(Path(), params.label, how.judges, how.clip, counterfactuals=False)
    before = _pictures(params)
    targets = [dict.fromkeys(next(iter(params.edit.edits.values())), 1)] * _NUM_PICTURES
    judged = Judged(bench, [f"probe-{number}" for number in range(_NUM_PICTURES)], targets, before)
    return _timed(lambda: judged.metrics(before), seconds) / _NUM_PICTURES
