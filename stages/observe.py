"""Stage observe: the features of every labelled image at many noise levels."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from boundaryflow.boundary.selection import to_fit_on
from boundaryflow.config import load_params
from boundaryflow.config.edit_settings import features_of
from boundaryflow.diffusion import Features, timestep_path
from boundaryflow.diffusion.observation import DENSITY, noised_features, tensor_name
from boundaryflow.pixels import to_model_range
from boundaryflow.runtime.device import device, resolve_dtype
from boundaryflow.runtime.fingerprints import code_hash
from boundaryflow.runtime.frozen_model import check_features, open_model
from boundaryflow.runtime.memory import in_chunks
from boundaryflow.runtime.process import entry, own_folder, tick
from boundaryflow.runtime.sharding import run_sharded
from boundaryflow.store.catalog.ingest import INGEST, MANIFEST
from boundaryflow.store.catalog.label import LABEL, LABELS
from boundaryflow.store.catalog.observe import NOISED, OBSERVE
from boundaryflow.store.fingerprint import fingerprint
from boundaryflow.store.shard_files import shard_index
from boundaryflow.store.shards import ShardTask, load_items
from boundaryflow.store.tables import write_json


def run_shard(
    task: ShardTask,
    *,
    ingested: str,
    model: str,
    dtype: str,
    features: Features,
    timesteps: list[int],
    run_seed: int,
    store_dtype: str,
) -> dict[str, Tensor]:
    """Features of the images that one shard still lacks."""
    net, stored = open_model(model, dtype), getattr(torch, store_dtype)
    pixels = load_items(Path(ingested), task.missing, ["pixels"])["pixels"]

    def observe_some(some: slice) -> dict[str, Tensor]:
        x_0, ids = to_model_range(pixels[some].to(device()), net.value_range), task.missing[some]
        seen = {tensor_name(features, t): noised_features(net, x_0, ids, t, run_seed, features) for t in timesteps}
        tick(len(ids))
        return {name: of_t.to(stored).cpu() for name, of_t in seen.items()}  # a GPU may have no room for all chunks

    parts = in_chunks(len(pixels), observe_some, net)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def run(
    dataset: str,
    *,
    model: str,
    dtype: str,
    run_seed: int,
    features: Features,
    t_max: int,
    num_steps: int,
    max_images: int,
    store_dtype: str,
    shard_size: int,
) -> int:
    """Look at what has not been looked at yet; returns the number of images that were."""
    ingested, out = INGEST.folder(dataset), own_folder("observe", dataset)
    net = open_model(model, dtype)
    check_features(net, features, model)
    matters = {
        "features": asdict(features),
        "dtype": str(resolve_dtype(dtype)).removeprefix("torch."),
        "run_seed": run_seed,
        "store_dtype": store_dtype,
        "timesteps": list(timestep_path(t_max, num_steps, DENSITY)),
    }
    upstream = INGEST.read_facts(dataset)["cache_key"]
    cache_key = fingerprint(
        stage="observe", code=code_hash("stages.observe"), model=net.sha256, upstream=upstream, **matters
    )
    labels = LABELS.read(LABEL.folder(dataset)).set_index("item_id")
    items = to_fit_on(MANIFEST.read(ingested), labels, max_images)
    context = {"ingested": str(ingested), "model": model, **matters, "features": features}
    num_computed = run_sharded("observe", out, items, cache_key, shard_size, run_shard, context)
    NOISED.write(out, shard_index(out))
    write_json(out / OBSERVE.facts, {**matters, "model_sha256": net.sha256, "num_items": len(items)})
    return num_computed


@entry
def main() -> None:
    """Run for the data set named on the command line."""
    params = load_params()
    dataset = params.dataset(sys.argv[1])
    run(
        sys.argv[1],
        model=dataset.model,
        dtype=dataset.dtype,
        run_seed=params.run_seed,
        shard_size=dataset.ingest.shard_size,
        features=features_of(dataset.observe),
        **dataset.observe.model_dump(exclude={"features"}),
    )


if __name__ == "__main__":
    main()
