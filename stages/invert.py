"""Stage invert: invert images to the mixing step, and store both latents."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boundaryflow.boundary.selection import to_fit_on
from boundaryflow.config import load_params
from boundaryflow.diffusion import Order, invert, timestep_path
from boundaryflow.editing import paper_invert
from boundaryflow.pixels import to_model_range
from boundaryflow.rng import item_noise
from boundaryflow.runtime.device import device, resolve_dtype
from boundaryflow.runtime.fingerprints import code_hash
from boundaryflow.runtime.frozen_model import open_model
from boundaryflow.runtime.memory import in_chunks
from boundaryflow.runtime.process import entry, own_folder
from boundaryflow.runtime.sharding import run_sharded
from boundaryflow.store.catalog.ingest import INGEST, MANIFEST
from boundaryflow.store.catalog.invert import INVERT, LATENTS
from boundaryflow.store.catalog.label import LABEL, LABELS
from boundaryflow.store.catalog.mixing import MIXING
from boundaryflow.store.fingerprint import fingerprint
from boundaryflow.store.shard_files import keep_only, shard_index
from boundaryflow.store.shards import ShardTask, load_items
from boundaryflow.store.tables import write_json

LOG = logging.getLogger(__name__)


def run_shard(
    task: ShardTask,
    *,
    ingested: str,
    model: str,
    dtype: str,
    t_mix: int,
    num_steps: int,
    noise_until: int,
    order: Order,
    run_seed: int,
    store_dtype: str,
    paper_mode: bool,
) -> dict[str, Tensor]:
    """Latents of the images that one shard lacks."""
    net = open_model(model, dtype)
    path = timestep_path(t_mix, num_steps)
    pixels = load_items(Path(ingested), task.missing, ["pixels"])["pixels"]

    def invert_some(some: slice) -> tuple[Tensor, Tensor]:
        x_0 = to_model_range(pixels[some].to(device()), net.value_range)
        if paper_mode:  # the authors' release pairs x_mix with the bottleneck of the previous timestep
            return paper_invert(net, x_0, path)
        noise = item_noise(run_seed, task.missing[some], "inversion", x_0.shape[1:])
        inversion = invert(net, x_0, path, start_noise=noise, noise_until=noise_until, order=order)
        return inversion.x_mix, inversion.h_mix

    parts = zip(*in_chunks(len(pixels), invert_some, net), strict=True)
    stored = getattr(torch, store_dtype)
    return {name: torch.cat(part).to(stored).cpu() for name, part in zip(("x_mix", "h_mix"), parts, strict=True)}


def run(
    dataset: str,
    *,
    model: str,
    dtype: str,
    run_seed: int,
    num_steps: int,
    noise_until: int,
    order: Order,
    max_images: int | None,
    store_dtype: str,
    shard_size: int,
    paper_mode: bool,
) -> int:
    """Invert the images that are not stored yet; returns their number."""
    ingested, out = INGEST.folder(dataset), own_folder("invert", dataset)
    t_mix = MIXING.read_facts(dataset)["t_mix"]
    net = open_model(model, dtype)
    resolved = str(resolve_dtype(dtype)).removeprefix("torch.")
    matters: dict[str, Any] = {
        "dtype": resolved,
        "noise_until": noise_until,
        "num_steps": num_steps,
        "order": order,
        "paper_mode": paper_mode,
        "run_seed": run_seed if noise_until else 0,
        "store_dtype": store_dtype,
        "t_mix": t_mix,
    }
    upstream = INGEST.read_facts(dataset)["cache_key"]
    cache_key = fingerprint(
        stage="invert", code=code_hash("stages.invert"), model=net.sha256, upstream=upstream, **matters
    )
    manifest = MANIFEST.read(ingested)
    if max_images is None:
        items = sorted(manifest.loc[manifest["status"] == "ok", "item_id"])
    else:
        items = to_fit_on(manifest, LABELS.read(LABEL.folder(dataset)).set_index("item_id"), max_images)
    context = {"ingested": str(ingested), "model": model, **matters}
    num_computed = run_sharded("invert", out, items, cache_key, shard_size, run_shard, context)
    _write_facts(out, {**matters, "model_sha256": net.sha256, "num_items": len(items), "cache_key": cache_key})
    return num_computed


def write_none(dataset: str, *, num_steps: int, noise_until: int, order: Order, **_others: Any) -> None:
    """Record that no edit needs inverted images, and remove the latents of earlier runs."""
    out = own_folder("invert", dataset)
    out.mkdir(parents=True, exist_ok=True)
    keep_only(out, set())
    path = {"t_mix": None, "num_steps": num_steps, "noise_until": noise_until, "order": order}
    _write_facts(out, {**path, "num_items": 0})
    LOG.info("invert: no edit needs images at the mixing step (edit.method and edit.compare); none is inverted")


def _write_facts(out: Path, facts: Mapping[str, Any]) -> None:
    LATENTS.write(out, shard_index(out))
    write_json(out / INVERT.facts, facts)


@entry
def main() -> None:
    """Run for the data set named on the command line."""
    params = load_params()
    dataset = params.dataset(sys.argv[1])
    if not dataset.needs_single_step:
        write_none(sys.argv[1], **dataset.invert.model_dump())
        return
    run(
        sys.argv[1],
        model=dataset.model,
        dtype=dataset.dtype,
        run_seed=params.run_seed,
        shard_size=dataset.ingest.shard_size,
        paper_mode=dataset.paper_mode,
        **dataset.invert.model_dump(),
    )


if __name__ == "__main__":
    main()
