"""Stage evaluate: success, side effects and image quality of edits."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from boundaryflow.config import LabelParams, load_params
from boundaryflow.errors import ManifestError
from boundaryflow.evaluation.best_strength import SHARES, SUCCESS_BY, cross_fitted
from boundaryflow.evaluation.distribution import frechet_distance, kernel_distance
from boundaryflow.evaluation.intervals import bootstrap_interval, wilson_interval
from boundaryflow.evaluation.per_image import (
    BATCH,
    MAX_REAL,
    MetricModels,
    PerImageMetrics,
    image_features,
    open_metric_models,
)
from boundaryflow.files import write_bytes
from boundaryflow.pixels import to_model_range
from boundaryflow.runtime.device import device
from boundaryflow.runtime.process import Progress, entry, own_folder
from boundaryflow.sources.datasets import read_faces
from boundaryflow.store.catalog.edit import EDIT, EDITS
from boundaryflow.store.catalog.evaluate import EVALUATE, PER_IMAGE
from boundaryflow.store.catalog.ingest import FACES, INGEST
from boundaryflow.store.catalog.label import LABEL, LABELS
from boundaryflow.store.shard_files import in_batches
from boundaryflow.store.shards import load_items
from boundaryflow.store.tables import write_json

LOG = logging.getLogger(__name__)


def run(
    dataset: str,
    *,
    run_seed: int,
    label: LabelParams,
    judges: str | None,
    clip: str | None,
    counterfactuals: bool,
    num_bootstraps: int,
) -> dict[str, Any]:
    """Write the metrics of a data set's edits; returns metrics.json."""
    ingested, edited_at = INGEST.folder(dataset), EDIT.folder(dataset)
    out = own_folder("evaluate", dataset)
    manifest = EDITS.read(edited_at)
    method: str = EDIT.read_facts(dataset)["method"]
    if manifest.empty:
        raise ManifestError(
            f"evaluate {dataset}: no edit changes any image; see edit.edits, edit.split and edit.max_images "
            "in params.yaml"
        )
    if counterfactuals and not (ingested / FACES.file).exists():
        raise ManifestError(
            f"evaluate: {ingested / FACES.file} is not there; exact counterfactuals exist for the built-in renderer's "
            "faces only, set evaluate.counterfactuals to false"
        )
    faces = read_faces(ingested) if counterfactuals else {}
    models = open_metric_models(judges, clip, label.prompts, label.templates, faces, device())
    rows: list[pd.DataFrame] = []
    distances: dict[tuple[str, str, float], dict[str, float]] = {}
    with Progress("evaluate", len(manifest), "pictures") as progress:
        for edit, of_edit in manifest.groupby("edit"):
            first = of_edit.drop_duplicates("item_id").sort_values("item_id")
            requested = {
                str(item): json.loads(text) for item, text in zip(first["item_id"], first["targets"], strict=True)
            }
            made = of_edit.drop_duplicates(["method", "strength_index"]).sort_values(["method", "strength_index"])
            real = _real_features(dataset, ingested, models, list(requested.values()))
            seen: dict[tuple[str, float], list[Tensor]] = {}
            for items in in_batches(ingested, list(requested), BATCH):
                before = to_model_range(load_items(ingested, items, ["pixels"])["pixels"], (0.0, 1.0))
                judged = PerImageMetrics(models, items, [requested[item] for item in items], before)
                for by, of_method in made.groupby("method"):
                    folder = edited_at / str(of_method["shard"].iloc[0]).partition("/")[0]
                    after = to_model_range(load_items(folder, items, ["edited"])["edited"], (0.0, 1.0))
                    for index, strength in zip(of_method["strength_index"], of_method["strength"], strict=True):
                        columns, features = judged.metrics(after[:, index])
                        about = {"item_id": items, "edit": edit, "method": by, "strength": strength}
                        rows.append(pd.DataFrame({**about, **columns}))
                        of_strength = seen.setdefault((str(by), float(strength)), [])
                        if features is not None:
                            of_strength.append(features)
                        progress.advance(len(items))
            for (by, strength), features in seen.items():
                of_sets = _distances(real, torch.cat(features)) if features and real is not None else {}
                distances[str(edit), by, strength] = of_sets
    per_image = pd.concat(rows).sort_values(["edit", "method", "strength", "item_id"], ignore_index=True)
    PER_IMAGE.write(out, per_image)
    summary = _summarise(per_image, distances, num_bootstraps, run_seed)
    write_bytes(out / "tables" / "summary.csv", summary.to_csv(index=False, float_format="%.6g").encode())
    ours = summary[summary["method"] == method]
    intervals = [str(name) for name in ours.columns if str(name).endswith(("_low", "_high"))]
    over_edits = ours.drop(columns=["edit", "method", *intervals]).groupby("strength", as_index=False).mean()
    write_bytes(out / "strength.csv", over_edits.to_csv(index=False, float_format="%.6g").encode())
    metrics: dict[str, Any] = {
        "num_images": len(set(per_image["item_id"])),
        "method": method,
        "edits": _metrics(ours),
        "compared": {str(by): _metrics(rows) for by, rows in summary.groupby("method") if by != method},
        "chosen": {str(by): _chosen(rows, num_bootstraps, run_seed) for by, rows in per_image.groupby("method")},
    }
    if models.judges is not None:
        metrics["judged_by"] = models.judges.deciding
    write_json(out / EVALUATE.facts, metrics)
    return metrics


def _real_features(
    dataset: str, ingested: Path, models: MetricModels, targets: Sequence[dict[str, int]]
) -> Tensor | None:
    """CLIP features of real images with the attributes that the edit sets, at most 256 per direction."""
    if models.clip is None:
        return None
    labels = LABELS.read(LABEL.folder(dataset)).set_index("item_id")
    chosen: list[str] = []
    for text in {json.dumps(t, sort_keys=True) for t in targets}:
        fits = np.ones(len(labels), bool)
        for attribute, sign in json.loads(text).items():
            known = labels[attribute].notna().to_numpy()
            fits &= known & ((labels[attribute] > 0.5).to_numpy() == (sign > 0))
        chosen += sorted(labels.index[fits])[:MAX_REAL]
    if not chosen:
        return None
    pixels = load_items(ingested, sorted(set(chosen)), ["pixels"])["pixels"]
    return image_features(models.clip, to_model_range(pixels, (0.0, 1.0)))


def _distances(real: Tensor, features: Tensor) -> dict[str, float]:
    """FID and KID on CLIP features, against real images with the requested attributes."""
    return {"clip_fd": frechet_distance(real, features), "clip_kd": kernel_distance(real, features)}


def _summarise(
    per_image: pd.DataFrame,
    distances: Mapping[tuple[str, str, float], Mapping[str, float]],
    num_bootstraps: int,
    seed: int,
) -> pd.DataFrame:
    """One row per edit, method and strength: means over images, then distances between sets.

    Each mean has its 95 % interval: Wilson's where it is a share, else by bootstrap.
    """
    rows: list[dict[str, Any]] = []
    groups = per_image.groupby(["edit", "method", "strength"])
    for (edit, method, strength), kept in distances.items():
        group = groups.get_group((edit, method, strength))
        about = {"edit": edit, "method": method, "strength": strength}
        rows.append({**about, **_means(group, num_bootstraps, seed), **kept})
    return pd.DataFrame(rows)


def _means(rows: pd.DataFrame, num_bootstraps: int, seed: int) -> dict[str, float]:
    """Number of images, and the mean of each metric with its interval; NaN where no image has a value."""
    means: dict[str, float] = {"num_images": len(rows)}
    for column in map(str, rows.columns.drop(["item_id", "edit", "method", "strength"])):
        values = rows[column].to_numpy(np.float64)
        known = values[~np.isnan(values)]
        means[column] = float(known.mean()) if len(known) else float("nan")
        means[f"{column}_low"], means[f"{column}_high"] = (
            wilson_interval(int((known > 0.5).sum()), len(known))
            if column in SHARES or column.startswith(SUCCESS_BY)
            else bootstrap_interval(known, num_bootstraps, seed)
        )
    return means


def _chosen(per_image: pd.DataFrame, num_bootstraps: int, seed: int) -> dict[str, dict[str, Any]]:
    """One method's edits at the strengths that other images chose: these strengths, and the means."""
    return {
        str(edit): {
            "strengths": sorted({float(s) for s in rows["strength"]}),
            **_numbers(_means(rows, num_bootstraps, seed)),
        }
        for edit, rows in cross_fitted(per_image).groupby("edit")
    }


def _numbers(row: Mapping[str, float]) -> dict[str, float | None]:
    """Rounded; NaN becomes null."""
    return {name: round(float(value), 5) if np.isfinite(value) else None for name, value in row.items()}


def _metrics(summary: pd.DataFrame) -> dict[str, dict[str, dict[str, float | None]]]:
    """One method's edits: edit to strength to metric; NaN becomes null."""
    edits: dict[str, dict[str, dict[str, float | None]]] = {}
    for row in summary.to_dict("records"):
        numbers = _numbers({str(k): v for k, v in row.items() if k not in ("edit", "method", "strength")})
        edits.setdefault(row["edit"], {})[f"{row['strength']:g}"] = numbers
    return edits


@entry
def main() -> None:
    """Run for the data set named on the command line."""
    params = load_params()
    dataset = params.dataset(sys.argv[1])
    run(sys.argv[1], run_seed=params.run_seed, label=dataset.label, **dataset.evaluate.model_dump())


if __name__ == "__main__":
    main()
