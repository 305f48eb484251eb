"""Stage boundary: hyperplanes per attribute, at the mixing step in each space and along the path of noise levels."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from boundaryflow.boundary import (
    Boundaries,
    Boundary,
    Estimator,
    FitReport,
    Gram,
    average_neighbours,
    check_classes,
    fit_boundaries,
    low_passed,
    project,
    save_boundaries,
    separable,
)
from boundaryflow.boundary.hyperplane import Space
from boundaryflow.boundary.labelled import Choice, Labelled
from boundaryflow.config import load_params
from boundaryflow.config.advice import with_advice
from boundaryflow.diffusion import Features
from boundaryflow.diffusion.observation import tensor_name
from boundaryflow.errors import BoundaryError
from boundaryflow.runtime.process import Progress, entry, own_folder
from boundaryflow.store.catalog.boundary import BOUNDARIES, METRICS, NOISE_LEVELS, SCORES
from boundaryflow.store.catalog.ingest import INGEST, MANIFEST
from boundaryflow.store.catalog.invert import INVERT
from boundaryflow.store.catalog.label import LABEL, LABELS
from boundaryflow.store.catalog.observe import OBSERVE
from boundaryflow.store.shard_files import shard_index
from boundaryflow.store.shard_rows import ShardRows
from boundaryflow.store.shards import load_items
from boundaryflow.store.tables import write_json

LOG = logging.getLogger(__name__)
LATENT = {"eps": "x_mix", "h": "h_mix"}


def run(
    dataset: str,
    *,
    run_seed: int,
    single_step: bool,
    spaces: Sequence[Space],
    estimator: Estimator,
    c: float,
    ridge: float | None,
    num_bootstraps: int,
    low_pass: float,
    min_auc: float,
    neighbours: int,
    **choice: Any,  # of `Choice`, which names each
) -> pd.DataFrame:
    """Fit and write all boundaries of a data set; returns one row per boundary at the mixing step.

    Without `single_step` there are none: nothing was inverted to it.
    """
    out = own_folder("boundary", dataset)
    out.mkdir(parents=True, exist_ok=True)
    inverted, observed = (stage.read_facts(dataset) for stage in (INVERT, OBSERVE))
    labels = LABELS.read(LABEL.folder(dataset)).set_index("item_id")
    noise_levels, features = observed["timesteps"] if observed["num_items"] else [], Features(**observed["features"])
    inverted_images, observed_images = (
        _labelled(stage.folder(dataset), dataset, labels, Choice(**choice)) for stage in (INVERT, OBSERVE)
    )
    looked_at = [inverted_images] * single_step + [observed_images] * (bool(noise_levels) or not single_step)
    attributes = _fittable(out, looked_at)
    spaces = spaces if single_step else ()
    table = Table()
    at_mixing_step: dict[str, dict[Space, Boundary]] = {attribute: {} for attribute in attributes}
    along_path: dict[str, list[tuple[Boundary, FitReport]]] = {attribute: [] for attribute in attributes}
    with Progress("boundary", (len(spaces) + len(noise_levels)) * len(attributes), "boundaries") as progress:
        images = inverted_images
        used = images.used(attributes)
        _check_memory(dataset, len(used))
        for space in spaces:
            latents = ShardRows(INVERT.folder(dataset), images.items, LATENT[space])
            fitted = fit_boundaries(
                Gram.of(latents.take(used.tolist())), images.among(used, attributes),
                space=space, t=inverted["t_mix"], model_sha256=inverted["model_sha256"],
                estimator=estimator, c=c, ridge=ridge, num_bootstraps=num_bootstraps, seed=run_seed,
            )  # fmt: skip
            boundaries = [boundary for boundary, _report in fitted]
            if space == "eps" and low_pass > 0:
                boundaries = [_low_passed(boundary, images, latents, low_pass) for boundary in boundaries]
            inner = project(latents, torch.stack([boundary.normal for boundary in boundaries]))
            for boundary, (_, report), along in zip(boundaries, fitted, inner.T, strict=True):
                at_mixing_step[boundary.attribute][space] = boundary
                table.add_at_mixing_step(boundary, report, images, along + boundary.intercept)
                progress.advance(1)
        images = observed_images
        every = np.arange(len(images.items))
        val = np.flatnonzero(images.split == "val")
        val_latents: list[Tensor] = []
        for t in noise_levels:
            name = tensor_name(features, t)
            latents = load_items(OBSERVE.folder(dataset), images.items, [name])[name]
            val_latents.append(latents[val])
            fitted = fit_boundaries(
                Gram.of(latents), images.among(every, attributes),
                space=features.space, t=t, model_sha256=observed["model_sha256"], estimator="ridge", ridge=ridge,
                with_patterns=True,
            )  # fmt: skip
            for boundary, report in fitted:
                along_path[boundary.attribute].append((boundary, report))
                progress.advance(1)
    for attribute in attributes:
        probability, _train, held_out = images.of(attribute)
        rows = np.searchsorted(val, held_out)
        hyperplanes = average_neighbours(
            [boundary for boundary, _report in along_path[attribute]],
            [of_level[rows] for of_level in val_latents],
            probability[held_out] > 0.5,
            neighbours=neighbours,
        )
        followed = separable(hyperplanes, min_auc)
        followed_at = {hyperplane.t for hyperplane in followed}
        for hyperplane, (_boundary, report) in zip(hyperplanes, along_path[attribute], strict=True):
            table.add_along_path(hyperplane, report, is_followed=hyperplane.t in followed_at)
        if noise_levels:
            LOG.info("boundary %s: followed from timestep %s", attribute, followed[-1].t if followed else "none")
        found = Boundaries(attribute, at_mixing_step[attribute], followed)
        if found.all:
            save_boundaries(out / f"{attribute}.safetensors", found)
        else:
            LOG.warning("%s; it is left out, and so is every edit that needs it", with_advice(found.not_separable))
            (out / f"{attribute}.safetensors").unlink(missing_ok=True)
    return table.write(dataset, out)


def _fittable(out: Path, images: Sequence[Labelled]) -> list[str]:
    """The attributes that each set of images has enough of, on both sides; the others lose what they had before.

    Raises:
        BoundaryError: There is none.
    """
    lacking: dict[str, str] = {}
    names = [str(name) for name in images[0].labels.columns]
    for name in names:
        try:
            for some in images:
                probability, train, held_out = some.of(name)
                check_classes(probability > 0.5, train, held_out, name)
        except BoundaryError as error:
            lacking[name] = str(error)
    if len(lacking) == len(names):
        raise BoundaryError(next(iter(lacking.values()), "boundary: no attribute has labels; run `boundaryflow run`"))
    for name, reason in lacking.items():
        LOG.warning("%s; it is left out, and so is every edit that needs it", reason)
        (out / f"{name}.safetensors").unlink(missing_ok=True)
    return [name for name in names if name not in lacking]


def _labelled(latents: Path, dataset: str, labels: pd.DataFrame, choice: Choice) -> Labelled:
    """The labelled images whose latents a folder has."""
    manifest = MANIFEST.read(INGEST.folder(dataset)).set_index("item_id")
    there = set(shard_index(latents)["item_id"])
    items = sorted(set(labels.index) & set(manifest.index[manifest["status"] == "ok"]) & there)
    return Labelled(items, manifest.loc[items, "split"].to_numpy(), labels.loc[items], choice)


def _check_memory(dataset: str, num: int) -> None:
    """Refuse so many images that their inner products do not fit into this machine.

    Raises:
        BoundaryError: They do not.
    """
    needed, there = 3 * 8 * num**2, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        fits = int((there / 24) ** 0.5)
        raise BoundaryError(
            f"boundary {dataset}: {num} images to fit and calibrate on, their inner products take {needed / 2**30:.0f} "
            f"GiB and the machine has {there / 2**30:.0f}; set boundary.max_per_class so that at most {fits} are used"
        )


def _low_passed(boundary: Boundary, images: Labelled, latents: ShardRows, width: float) -> Boundary:
    probability, _train, held_out = images.of(boundary.attribute)
    return low_passed(boundary, latents.shape, width, latents.take(held_out.tolist()), probability[held_out] > 0.5)


class Table:
    """What is known of each boundary, and of each image at the mixing step."""

    def __init__(self) -> None:
        self._at_mixing_step: list[dict[str, Any]] = []
        self._along_path: list[dict[str, Any]] = []
        self._scores: list[pd.DataFrame] = []

    def add_at_mixing_step(
        self, boundary: Boundary, report: FitReport, images: Labelled, distance: NDArray[np.float64]
    ) -> None:
        """Note a boundary, and the signed distances [n] of the images."""
        probability, _train, _held_out = images.of(boundary.attribute)
        test = (images.split == "test") & ~np.isnan(probability)
        auc_test = _auc(probability[test] > 0.5, distance[test])
        LOG.info("boundary %s in %s-space: test AUC %.3f", boundary.attribute, boundary.space, auc_test)
        self._at_mixing_step.append(
            {
                "attribute": boundary.attribute,
                "space": boundary.space,
                **_facts(boundary, report),
                "train_accuracy": report.train_accuracy,
                "bootstrap_cosine": report.bootstrap_cosine,
                "auc_test": auc_test,
            }
        )
        self._scores.append(
            pd.DataFrame(
                {
                    "item_id": images.items,
                    "split": images.split,
                    "attribute": boundary.attribute,
                    "space": boundary.space,
                    "signed_distance": distance.astype(np.float32),
                    "label": probability.astype(np.float32),
                }
            )
        )

    def add_along_path(self, boundary: Boundary, report: FitReport, *, is_followed: bool) -> None:
        """Note the boundary of a noise level."""
        row = {"attribute": boundary.attribute, "t": boundary.t, **_facts(boundary, report), "followed": is_followed}
        self._along_path.append(row)

    def write(self, dataset: str, out: Path) -> pd.DataFrame:
        """Write the tables and the metrics; returns one row per boundary at the mixing step."""
        table = BOUNDARIES.typed(pd.DataFrame(self._at_mixing_step), ["attribute", "space"])
        BOUNDARIES.write(out, table)
        NOISE_LEVELS.write(out, NOISE_LEVELS.typed(pd.DataFrame(self._along_path), ["attribute", "t"]))
        scores = pd.concat([pd.DataFrame(), *self._scores])
        SCORES.write(out, SCORES.typed(scores, ["attribute", "space", "item_id"]))
        write_json(METRICS.folder(f"{dataset}.json"), _metrics(table), scratch=out)
        return table


def _facts(boundary: Boundary, report: FitReport) -> dict[str, float]:
    """What is noted of every boundary."""
    held_out = boundary.calibration
    return {
        "num_positive": report.num_positive,
        "num_negative": report.num_negative,
        "auc_val": held_out.auc,
        "mean_positive": held_out.mean_positive,
        "mean_negative": held_out.mean_negative,
        "sd": held_out.sd,
    }


def _auc(has_attribute: NDArray[np.bool_], distance: NDArray[np.float64]) -> float:
    """AUC, or NaN where one class has no image."""
    from sklearn.metrics import roc_auc_score

    if has_attribute.all() or not has_attribute.any():
        return float("nan")
    return float(roc_auc_score(has_attribute, distance))


def _metrics(table: pd.DataFrame) -> dict[str, dict[str, dict[str, float | None]]]:
    """Attribute to space to the numbers worth following from run to run."""
    result: dict[str, dict[str, dict[str, float | None]]] = {}
    for row in table.to_dict("records"):
        numbers = {k: float(row[k]) for k in ("auc_val", "auc_test", "bootstrap_cosine")}
        result.setdefault(row["attribute"], {})[row["space"]] = {
            k: None if np.isnan(v) else v for k, v in numbers.items()
        }
    return result


@entry
def main() -> None:
    """Run for the data set named on the command line."""
    params = load_params()
    dataset = params.dataset(sys.argv[1])
    run(
        sys.argv[1],
        run_seed=params.run_seed,
        single_step=dataset.needs_single_step,
        **dataset.boundary.model_dump(),
    )


if __name__ == "__main__":
    main()
