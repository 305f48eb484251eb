"""Time, disk and network calls of every stage, from counts and rates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from boundaryflow.config import AvatarSource, DatasetParams
from boundaryflow.editing.targets import directions_of
from boundaryflow.errors import ManifestError
from boundaryflow.estimate.counting import Planned, count
from boundaryflow.estimate.measure import Rates, measure, present_pictures
from boundaryflow.evaluation.per_image import MAX_REAL
from boundaryflow.runtime.device import device, resolve_dtype
from boundaryflow.sources.decoding import choose
from boundaryflow.sources.splits import split_images
from boundaryflow.store.catalog.ingest import INGEST, MANIFEST
from boundaryflow.store.catalog.label import LABEL, LABELS
from boundaryflow.store.catalog.raw import RAW

MEASURE_S = 20.0
_ROW_BYTES = 100  # per image in a compressed table: ids, names, numbers
_REPORT_S, _REPORT_BYTES = 1.5, 2_000_000


@dataclass(frozen=True)
class StageCost:
    """Expected cost of one stage.

    Attributes:
        stage: Name of the stage.
        num_images: Images that it works on.
        image_calls: Network calls per image: a batch of 32 counts as 32.
        seconds: Time on this machine, start-up included.
        num_bytes: Size of its outputs.
    """

    stage: str
    num_images: int
    image_calls: int
    seconds: float
    num_bytes: int


@dataclass(frozen=True)
class Forecast:
    """A whole run without earlier results.

    Attributes:
        dataset: Name of the data set.
        num_images: Number of its images.
        where: Device and dtype.
        stages: In the order in which they run.
    """

    dataset: str
    num_images: int
    where: str
    stages: tuple[StageCost, ...]


@dataclass(frozen=True)
class _Sizes:
    """Numbers of images.

    Attributes:
        all: Images of the data set.
        of_split: Split to its images.
        edited: Images that edits are made of.
        changed: Edit to the share of these images that it changes.
    """

    all: int
    of_split: Mapping[str, int]
    edited: int
    changed: Mapping[str, float]

    @property
    def fitted(self) -> int:
        """Images that boundaries are fitted and calibrated on."""
        return self.of_split["train"] + self.of_split["val"]


def forecast(
    dataset: str, params: DatasetParams, *, num_images: int | None = None, measure_s: float = MEASURE_S
) -> Forecast:
    """Estimate what a run of a data set takes on this machine without earlier results.

    Args:
        dataset: Name of the data set.
        params: Its parameters.
        num_images: Number of images to assume; None for its actual number.
        measure_s: Approximate time to spend on measuring, in seconds.

    Raises:
        PipelineError: There are no images to count, or the model cannot be opened.
    """
    sizes, planned = _sizes(dataset, params, num_images), Planned.of(dataset, params)
    rates = measure(dataset, params, planned, sizes.fitted, measure_s)
    dtype = str(resolve_dtype(params.dtype)).removeprefix("torch.")
    return Forecast(dataset, sizes.all, f"{device()}, {dtype}", _costs(params, planned, sizes, rates))


def _sizes(dataset: str, params: DatasetParams, num_images: int | None) -> _Sizes:
    shares = _split_shares(dataset, params)
    num_found = sum(shares.values())
    num = num_found if num_images is None else num_images
    of_split = {split: round(num * of / num_found) for split, of in shares.items()}
    edited = min(params.edit.max_images, of_split[params.edit.split])
    return _Sizes(num, of_split, edited, _changed_shares(dataset, params))


def _split_shares(dataset: str, params: DatasetParams) -> dict[str, int]:
    """Split to its number of images, of the last ingest or else of the raw pictures."""
    how = params.ingest
    try:
        manifest = MANIFEST.read(INGEST.folder(dataset))
        found = manifest.loc[manifest["status"] == "ok", "split"].tolist()
    except ManifestError:
        if isinstance(how.source, AvatarSource):
            names = [f"face-{number}" for number in range(how.source.num_images)]
        else:
            names = choose(present_pictures(dataset, how.source, how.image_size).names, how.max_images)
        split = how.split
        found = list(split_images(RAW.folder(dataset), dict(zip(names, names, strict=True)), split).values())
    return {split: found.count(split) for split in ("train", "val", "test")}


def _changed_shares(dataset: str, params: DatasetParams) -> dict[str, float]:
    """Edit to the share of images that it changes: by the labels, or about half if it only adds or only removes."""
    try:
        labels = LABELS.read(LABEL.folder(dataset)).set_index("item_id")
        items = [str(item) for item in labels.index]
        return {
            edit: sum(any(signs) for signs in directions_of(labels, items, targets).values()) / len(items)
            if set(targets) <= set(labels.columns)  # otherwise an attribute was left out, and so is the edit
            else 0.0
            for edit, targets in params.edit.edits.items()
        }
    except (ManifestError, KeyError):
        return {
            edit: 1 - 0.5 ** len(targets) if "flip" not in targets.values() else 1.0
            for edit, targets in params.edit.edits.items()
        }


def _costs(params: DatasetParams, planned: Planned, sizes: _Sizes, rates: Rates) -> tuple[StageCost, ...]:
    counts = count(planned, rates.family)
    num_pixels = params.ingest.channels * params.ingest.image_size**2
    num_attributes = len(params.label.attributes)
    num_strengths = sum(len(strengths) for strengths in params.edit.methods.values())
    single_step = params.needs_single_step
    observed = _to_fit_on(sizes, params.observe.max_images)
    levels = len(planned.noise_levels) if observed else 0
    mixed = min(params.mixing.num_images, sizes.of_split["train"]) if single_step else 0
    drawn = params.mixing.num_sampled if single_step else 0
    inverted = _to_fit_on(sizes, params.invert.max_images) if single_step else 0
    edits = {edit: round(sizes.edited * share) for edit, share in sizes.changed.items()}
    num_pictures = sum(edits.values()) * num_strengths

    def stored(dtype: str) -> int:
        return torch.empty(0, dtype=getattr(torch, dtype)).itemsize

    found: list[StageCost] = []

    def add(stage: str, num_images: int, image_calls: float, seconds: float, num_bytes: float) -> None:
        start = rates.start_network if image_calls else rates.start
        found.append(StageCost(stage, num_images, round(image_calls), start + seconds, round(num_bytes)))

    add("ingest", sizes.all, 0, sizes.all * rates.ingest, sizes.all * (num_pixels + _ROW_BYTES))
    add("label", sizes.all, 0, rates.label.begin + sizes.all * rates.label.each,
        sizes.all * (8 + 4 * num_attributes + 4 * rates.num_features))  # fmt: skip
    calls = mixed * params.mixing.num_steps + drawn * (params.mixing.num_steps - 1)
    separability = rates.separate.begin + 2 * params.mixing.num_steps * num_attributes * rates.separate.each
    add("mixing", mixed + drawn, calls, calls * rates.forward + separability * single_step,
        _ROW_BYTES * params.mixing.num_steps * (4 + num_attributes) * single_step)  # fmt: skip
    calls = inverted * counts.invert.image_calls
    latents = (num_pixels + rates.sizes.bottleneck) * stored(params.invert.store_dtype)
    add("invert", inverted, calls, calls * rates.forward, inverted * (latents + _ROW_BYTES))
    calls = observed * levels
    add(
        "observe", observed, calls, calls * rates.observe,
        observed * levels * rates.sizes.features * stored(params.observe.store_dtype),
    )  # fmt: skip
    add("boundary", sizes.fitted, 0, _fit_s(params, sizes, rates, observed, levels),
        4 * num_attributes * (single_step * (num_pixels + rates.sizes.bottleneck) + 2 * levels * rates.sizes.features)
        + inverted * num_attributes * len(params.boundary.spaces) * 16)  # fmt: skip
    calls, gradients = sum(sizes.edited * opening.image_calls for opening in counts.opening.values()), 0
    for (_method, edit), of_edit in counts.edits.items():
        calls += edits[edit] * of_edit.image_calls
        gradients += edits[edit] * of_edit.directions
    samples = params.edit.num_samples if planned.sampled else 0
    calls += samples * counts.sample.image_calls
    gradients += samples * counts.sample.directions
    written = len(edits) * sizes.edited * num_strengths + samples * (1 + len(planned.sampled))
    add("edit", sizes.edited, calls, calls * rates.forward + gradients * rates.gradient, written * num_pixels)
    judged = num_pictures + sum(edits.values())
    real = len(edits) * min(2 * MAX_REAL, sizes.all) if params.evaluate.clip else 0
    drawn = 4 * sum(edits.values()) if params.evaluate.counterfactuals else 0  # a truth: two faces, and their parts
    add("evaluate", sizes.edited, 0, rates.look.begin + rates.metrics.begin + judged * rates.metrics.each
        + real * rates.look.each + drawn * rates.ingest,
        num_pictures * _ROW_BYTES)  # fmt: skip
    add("report", sizes.edited, 0, _REPORT_S, _REPORT_BYTES)
    return tuple(found)


def _to_fit_on(sizes: _Sizes, max_images: int | None) -> int:
    """See `boundaryflow.boundary.selection.to_fit_on`; without a limit it is every image."""
    if max_images is None:
        return sizes.all
    return min(sizes.of_split["train"], max_images) + min(sizes.of_split["val"], (max_images + 1) // 2)


def _fit_s(params: DatasetParams, sizes: _Sizes, rates: Rates, observed: int, levels: int) -> float:
    """Seconds to fit all boundaries: solvers on inner products take about the square of the number of images."""
    most = params.boundary.max_per_class
    num = min(sizes.fitted, 2 * most if most else sizes.fitted)
    num_attributes = len(params.label.attributes)
    at_mixing_step = (rates.products + num_attributes * rates.fit_mixing) * (num / rates.num_fitted) ** 2
    at_mixing_step *= params.needs_single_step
    return rates.separate.begin + at_mixing_step + levels * rates.fit_level * (observed / rates.num_fitted) ** 2


def as_json(found: Forecast) -> str:
    """For programs."""
    stages = [vars(stage) for stage in found.stages]
    return json.dumps({**vars(found), "stages": stages}, indent=1)
