"""Stage boundary: one hyperplane per attribute and latent space."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from boundaryflow.boundary import Boundary, Gram, fit_boundary, most_certain, save_boundaries
from boundaryflow.boundary.hyperplane import Space
from boundaryflow.storage.shards import load_items
from boundaryflow.storage.tables import read_json, read_table, write_json, write_table
from stages.params import load_params
from stages.process import Progress, entry, own_folder

LOG = logging.getLogger(__name__)
LATENT = {"eps": "x_mix", "h": "h_mix"}


def run(
    dataset: str,
    *,
    run_seed: int,
    spaces: Sequence[Space],
    c: float,
    num_bootstraps: int,
    min_confidence: float,
    balance: bool,
    max_per_class: int | None,
) -> pd.DataFrame:
    """Fit and write all boundaries of a data set; returns one row per boundary."""
    inverted, out = Path("data/invert") / dataset, own_folder("boundary", dataset)
    out.mkdir(parents=True, exist_ok=True)
    facts = read_json(inverted / "invert.json")
    labels = read_table(Path("data/label") / dataset / "labels.parquet", schema="labels/1").set_index("item_id")
    manifest = read_table(Path("data/ingest") / dataset / "manifest.parquet", schema="manifest/1").set_index("item_id")
    items = sorted(set(labels.index) & set(manifest.index[manifest["status"] == "ok"]))
    split = manifest.loc[items, "split"].to_numpy()
    boundaries: dict[str, dict[Space, Boundary]] = {str(name): {} for name in labels.columns}
    rows: list[dict[str, Any]] = []
    scores: list[pd.DataFrame] = []
    with Progress("boundary", len(spaces) * len(boundaries), "boundaries") as progress:
        for space in spaces:
            gram = Gram.of(load_items(inverted, items, [LATENT[space]])[LATENT[space]])
            for attribute, of_attribute in boundaries.items():
                probability = labels.loc[items, attribute].to_numpy(np.float64)
                confident = np.maximum(probability, 1 - probability) >= min_confidence  # not where it is unknown
                train = most_certain(
                    np.flatnonzero((split == "train") & confident), probability, items,
                    balance=balance, max_per_class=max_per_class,
                )  # fmt: skip
                boundary, row = _fit(
                    gram, probability > 0.5, train, np.flatnonzero((split == "val") & confident),
                    space=space, t_mix=facts["t_mix"], attribute=attribute, model_sha256=facts["model_sha256"],
                    c=c, num_bootstraps=num_bootstraps, seed=run_seed,
                )  # fmt: skip
                of_attribute[space] = boundary
                distance = boundary.signed_distance(gram.latents).numpy()
                test = (split == "test") & ~np.isnan(probability)
                row["auc_test"] = _auc(probability[test] > 0.5, distance[test])
                rows.append(row)
                scores.append(
                    pd.DataFrame(
                        {
                            "item_id": items,
                            "split": split,
                            "attribute": attribute,
                            "space": space,
                            "signed_distance": distance.astype(np.float32),
                            "label": probability.astype(np.float32),
                        }
                    )
                )
                LOG.info("boundary %s in %s-space: test AUC %.3f", attribute, space, row["auc_test"])
                progress.advance(1)
    for attribute, of_attribute in boundaries.items():
        save_boundaries(out / f"{attribute}.safetensors", of_attribute)
    table = pd.DataFrame(rows).sort_values(["attribute", "space"], ignore_index=True)
    units = {"mean_positive": "latent units", "mean_negative": "latent units", "sd": "latent units"}
    write_table(out / "boundaries.parquet", table, schema="boundaries/1", units=units)
    write_table(
        out / "scores.parquet",
        pd.concat(scores).sort_values(["attribute", "space", "item_id"], ignore_index=True),
        schema="scores/1",
        units={"signed_distance": "latent units", "label": "probability"},
    )
    write_json(Path("data/boundary_metrics") / f"{dataset}.json", _metrics(table))
    return table


def _fit(
    gram: Gram,
    has_attribute: NDArray[np.bool_],
    train: NDArray[np.int64],
    held_out: NDArray[np.int64],
    **where: Any,  # passed through to fit_boundary, which names and checks each
) -> tuple[Boundary, dict[str, Any]]:
    boundary, report = fit_boundary(gram, has_attribute, train, held_out, **where)
    held = boundary.calibration
    return boundary, {
        "attribute": boundary.attribute,
        "space": boundary.space,
        "num_positive": report.num_positive,
        "num_negative": report.num_negative,
        "train_accuracy": report.train_accuracy,
        "auc_val": held.auc,
        "mean_positive": held.mean_positive,
        "mean_negative": held.mean_negative,
        "sd": held.sd,
        "bootstrap_cosine": report.bootstrap_cosine,
    }


def _auc(has_attribute: NDArray[np.bool_], distance: NDArray[np.float32]) -> float:
    """AUC, or NaN where one class has no image."""
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
    run(sys.argv[1], run_seed=params.run_seed, **params.dataset(sys.argv[1]).boundary.model_dump())


if __name__ == "__main__":
    main()
