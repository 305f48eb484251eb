"""Stage mixing: measure the model's latents at every timestep, and choose the mixing step."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from boundaryflow.config import load_params
from boundaryflow.diffusion import Order, timestep_path
from boundaryflow.editing import Curves, choose_mixing_step, measure_curves
from boundaryflow.editing.mixing_step import Rule
from boundaryflow.files import write_bytes
from boundaryflow.pixels import to_model_range
from boundaryflow.rng import item_noise
from boundaryflow.runtime.frozen_model import open_model
from boundaryflow.runtime.memory import with_less
from boundaryflow.runtime.process import Progress, entry, own_folder
from boundaryflow.store.catalog.ingest import INGEST, MANIFEST
from boundaryflow.store.catalog.label import LABEL, LABELS
from boundaryflow.store.catalog.mixing import CURVES, MIXING
from boundaryflow.store.shards import load_items
from boundaryflow.store.tables import write_json

LOG = logging.getLogger(__name__)
SUMMARY = ("t", "radius_inverted", "radius_sampled", "auc_eps", "auc_h")
"""Columns of curves.csv."""


def run(
    dataset: str,
    *,
    model: str,
    dtype: str,
    run_seed: int,
    num_images: int,
    num_sampled: int,
    num_steps: int,
    noise_until: int,
    order: Order,
    rule: Rule,
    fixed_t: int | None,
    tolerance: float,
    min_t: int,
    max_t: int,
) -> int:
    """Write the curves and the mixing step; returns the mixing step."""
    out = own_folder("mixing", dataset)
    out.mkdir(parents=True, exist_ok=True)
    net = open_model(model, dtype)
    ingested = INGEST.folder(dataset)
    labels = LABELS.read(LABEL.folder(dataset)).set_index("item_id")
    items = chosen_items(ingested, labels, num_images)
    pixels = load_items(ingested, items, ["pixels"])["pixels"]
    path = timestep_path(net.schedule.num_train_timesteps - 1, num_steps)
    shape = (net.channels, net.image_size, net.image_size)
    names = [f"sample-{index:04d}" for index in range(num_sampled)]
    x_0, noise = to_model_range(pixels, net.value_range), item_noise(run_seed, items, "inversion", shape)
    known = {str(name): column.to_numpy(np.float64) for name, column in labels.loc[items].items()}
    with Progress("mixing", (len(items) + num_sampled) * num_steps, "network calls") as progress:
        curves = with_less(
            lambda size: measure_curves(
                net,
                x_0,
                item_noise(run_seed, names, "mixing", shape),
                path,
                known,
                start_noise=noise,
                noise_until=noise_until,
                order=order,
                batch_size=size,
                seed=run_seed,
                on_progress=progress.advance,
            ),
            net,
        )
    t_mix = choose_mixing_step(
        curves, net.schedule, rule, tolerance=tolerance, min_t=min_t, max_t=max_t, fixed_t=fixed_t
    )
    CURVES.write(out, long_table(curves))
    values = (
        curves.timesteps, curves.radius_inverted, curves.radius_sampled, curves.mean_auc("eps"), curves.mean_auc("h")
    )  # fmt: skip
    summary = dict(zip(SUMMARY, values, strict=True))
    write_bytes(out / "curves.csv", pd.DataFrame(summary).to_csv(index=False, float_format="%.6g").encode())
    write_json(out / MIXING.facts, {"t_mix": t_mix, "rule": rule, "tolerance": tolerance, "model_sha256": net.sha256})
    return t_mix


def write_none(dataset: str) -> None:
    """Record that no edit needs a mixing step."""
    out = own_folder("mixing", dataset)
    out.mkdir(parents=True, exist_ok=True)
    types = {"t": np.int64, "curve": str, "value": np.float64}
    CURVES.write(out, pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in types.items()}))
    write_bytes(out / "curves.csv", (",".join(SUMMARY) + "\n").encode())
    write_json(out / MIXING.facts, {"t_mix": None})
    LOG.info("mixing: no edit needs a mixing step (edit.method and edit.compare); none is searched for")


def chosen_items(ingested: Path, labels: pd.DataFrame, num_images: int) -> list[str]:
    """The first training images by id, labelled ones first; as ids are hashes, this is a random sample."""
    manifest = MANIFEST.read(ingested)
    usable = manifest[(manifest["status"] == "ok") & (manifest["split"] == "train")]
    labelled = labels.notna().any(axis=1)
    chosen = sorted(usable["item_id"], key=lambda item: (not labelled.loc[item], item))[:num_images]
    return sorted(chosen)


def long_table(curves: Curves) -> pd.DataFrame:
    """One row per timestep and curve."""
    named: dict[str, Sequence[float] | NDArray[np.float64]] = {
        "radius_inverted": curves.radius_inverted,
        "radius_inverted_sd": curves.radius_inverted_sd,
        "radius_sampled": curves.radius_sampled,
        "radius_sampled_sd": curves.radius_sampled_sd,
    }
    named.update({f"auc_{space}:{attribute}": values for (space, attribute), values in curves.auc.items()})
    parts = [pd.DataFrame({"t": curves.timesteps, "curve": name, "value": values}) for name, values in named.items()]
    return pd.concat(parts, ignore_index=True)


@entry
def main() -> None:
    """Run for the data set named on the command line."""
    params = load_params()
    dataset = params.dataset(sys.argv[1])
    if not dataset.needs_single_step:
        write_none(sys.argv[1])
        return
    run(
        sys.argv[1],
        model=dataset.model,
        dtype=dataset.dtype,
        run_seed=params.run_seed,
        noise_until=dataset.invert.noise_until,
        order=dataset.invert.order,
        **dataset.mixing.model_dump(),
    )


if __name__ == "__main__":
    main()
