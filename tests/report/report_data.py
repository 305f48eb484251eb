"""Made-up outputs of every stage, in the real schemas: avatars whose edits are blends towards the truth."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from boundaryflow.avatars import ATTRIBUTES, Avatar, render, sample_avatars
from boundaryflow.store.shards import complete_shard, plan_shards
from boundaryflow.store.tables import write_json, write_table

DVC_YAML = """
stages:
  ingest:
    desc: raw images to pixels of one size
    matrix: {ds: "${datasets}"}
    cmd: python -m stages.ingest ${item.ds}
    deps: [stages/ingest.py]
    outs: [{"data/ingest/${item.ds}": {persist: true}}]
  invert:
    matrix: {ds: "${datasets}"}
    cmd: python -m stages.invert ${item.ds}
    deps: ["data/ingest/${item.ds}", "data/mixing/${item.ds}/mixing.json"]
    outs: [{"data/invert/${item.ds}": {persist: true}}]
  label:
    matrix: {ds: "${datasets}"}
    cmd: python -m stages.label ${item.ds}
    deps: ["data/ingest/${item.ds}"]
    outs: ["data/label/${item.ds}"]
  mixing:
    matrix: {ds: "${datasets}"}
    cmd: python -m stages.mixing ${item.ds}
    deps: ["data/ingest/${item.ds}", "data/label/${item.ds}"]
    outs: ["data/mixing/${item.ds}"]
  boundary:
    matrix: {ds: "${datasets}"}
    cmd: python -m stages.boundary ${item.ds}
    deps: ["data/invert/${item.ds}", "data/label/${item.ds}"]
    outs: ["data/boundary/${item.ds}"]
  edit:
    matrix: {ds: "${datasets}"}
    cmd: python -m stages.edit ${item.ds}
    deps: ["data/ingest/${item.ds}", "data/invert/${item.ds}", "data/boundary/${item.ds}", "data/label/${item.ds}"]
    outs: [{"data/edit/${item.ds}": {persist: true}}]
  evaluate:
    matrix: {ds: "${datasets}"}
    cmd: python -m stages.evaluate ${item.ds}
    deps: ["data/ingest/${item.ds}", "data/label/${item.ds}", "data/edit/${item.ds}"]
    outs: ["data/evaluate/${item.ds}/tables"]
    metrics: [{"data/evaluate/${item.ds}/metrics.json": {cache: false}}]
"""
PARAMETERS: dict[str, Any] = {
    "model": "data/pretrained/avatars64",
    "dtype": "auto",
    "ingest": {"source": {"kind": "avatars", "num_images": 16}, "image_size": 32, "background": [255, 255, 255]},
    "mixing": {"rule": "separability", "tolerance": 0.02},
    "edit": {
        "strengths": [0.0, 1.0, 2.0],
        "split": "test",
        "edits": {"hat": {"hat": "flip"}, "beard": {"beard": "on"}},
    },
    "report": {"seed": 0, "num_grid": 3, "num_strips": 2, "num_failures": 4},
}


def write_inputs(
    data: Path, *, dataset: str = "avatars", num: int = 16, size: int = 32, edits: Sequence[str] = ("beard", "hat"),
    strengths: Sequence[float] = (0.0, 1.0, 2.0), methods: Mapping[str, float] | None = None,
) -> None:  # fmt: skip
    """Write one folder per stage under `data`.

    `methods` is how good each is, that of the edits first and then the one that it is compared with.
    """
    methods = methods or {"single_step": 1.0}
    rng = np.random.default_rng(7)
    avatars = {}
    for avatar in sample_avatars(num, rng):
        buffer = io.BytesIO()
        render(avatar, size).save(buffer, "PNG")
        avatars[hashlib.sha256(buffer.getvalue()).hexdigest()[:16]] = avatar
    items = sorted(avatars)
    _ingest(data / "ingest" / dataset, avatars, items, size)
    labels = pd.DataFrame({a: [_noisy(rng, avatars[i].attributes[a]) for i in items] for a in ATTRIBUTES})
    labels.insert(0, "item_id", items)
    _table(data / "label" / dataset / "labels.parquet", labels, "labels/1")
    _mixing(data / "mixing" / dataset, edits)
    (data / "invert" / dataset).mkdir(parents=True)
    write_json(
        data / "invert" / dataset / "invert.json", {"cache_key": "ab" * 8, "t_mix": 500, "model_sha256": "cd" * 32}
    )
    _boundaries(data / "boundary" / dataset, rng, avatars, items, edits)
    _edits(data / "edit" / dataset, rng, avatars, items, size, edits, strengths, methods)
    _evaluate(data / "evaluate" / dataset, rng, items, edits, strengths, methods)


def _noisy(rng: np.random.Generator, truth: bool) -> float:
    return float(1 / (1 + np.exp(-(3 if truth else -3) - rng.normal())))


def _table(path: Path, table: pd.DataFrame, schema: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, table, schema=schema, units={})


def _shards(folder: Path, items: Sequence[str], tensors: Mapping[str, torch.Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = {item: row for row, item in enumerate(items)}
    for task in plan_shards(folder, items, "cache_key", 8).tasks:
        picked = [rows[item] for item in task.missing]
        complete_shard(task, {name: tensor[picked] for name, tensor in tensors.items()})


def _pixels(avatar: Avatar, size: int) -> NDArray[np.uint8]:
    return np.asarray(render(avatar, size)).transpose(2, 0, 1)


def _ingest(folder: Path, avatars: Mapping[str, Avatar], items: Sequence[str], size: int) -> None:
    _shards(folder, items, {"pixels": torch.tensor(np.stack([_pixels(avatars[i], size) for i in items]))})
    rows = [
        {"item_id": item, "source": f"avatar-{k:06d}", "width_px": size, "height_px": size, "format": "PNG",
         "mode": "RGB", "split": ("train", "val", "test", "test")[k % 4], "status": "ok", "reason": "",
         "duplicates_of": ""}
        for k, item in enumerate(items)
    ]  # fmt: skip
    bad = {
        **rows[0],
        "item_id": "0" * 16,
        "source": "cut<off>.jpg",
        "status": "bad",
        "reason": "truncated: 812 of 4096 bytes",
    }
    _table(folder / "manifest.parquet", pd.DataFrame([*rows, bad]), "manifest/1")
    factors = [{"item_id": i, **avatars[i].attributes, **avatars[i].factors} for i in items]
    _table(folder / "factors.parquet", pd.DataFrame(factors), "avatars/1")
    write_json(folder / "ingest.json", {"cache_key": "12" * 8, "num_ok": len(rows), "num_bad": 1, "reasons": {}})


def _mixing(folder: Path, attributes: Sequence[str]) -> None:
    t = np.arange(0, 1000, 37)
    curves = {
        "radius_inverted": 0.55 + 0.45 * (1 - np.exp(-t / 220)),
        "radius_sampled": 0.60 + 0.40 * (1 - np.exp(-t / 260)),
        "radius_inverted_sd": 0.08 * np.exp(-t / 300),
        "radius_sampled_sd": 0.05 * np.exp(-t / 300),
    }
    for k, attribute in enumerate(attributes):
        curves[f"auc_eps:{attribute}"] = 0.55 + 0.4 / (1 + np.exp((t - 620 - 20 * k) / 70))
        curves[f"auc_h:{attribute}"] = 0.60 + (0.38 - 0.03 * k) * np.exp(-(((t - 480) / 300) ** 2))
    parts = [pd.DataFrame({"t": t, "curve": name, "value": values}) for name, values in curves.items()]
    _table(folder / "curves.parquet", pd.concat(parts, ignore_index=True), "curves/1")
    write_json(folder / "mixing.json", {"t_mix": 500, "rule": "separability", "tolerance": 0.02})


def _boundaries(
    folder: Path,
    rng: np.random.Generator,
    avatars: Mapping[str, Avatar],
    items: Sequence[str],
    attributes: Sequence[str],
) -> None:
    rows, scores = [], []
    for attribute in attributes:
        for space, gap in (("eps", 1.5), ("h", 3.0)):
            rows.append(
                {"attribute": attribute, "space": space, "num_positive": 5, "num_negative": 7,
                 "auc_val": 0.9, "auc_test": 0.7 + 0.07 * gap, "mean_positive": gap, "mean_negative": -gap, "sd": 1.0,
                 "bootstrap_cosine": 0.61}
            )  # fmt: skip
            for k, item in enumerate(items):
                has = avatars[item].attributes[attribute]
                distance = (gap if has else -gap) / 2 + rng.normal()
                split = ("train", "val", "test", "test")[k % 4]
                scores.append([item, split, attribute, space, distance, float(has)])
    _table(folder / "boundaries.parquet", pd.DataFrame(rows), "boundaries/1")
    columns = ["item_id", "split", "attribute", "space", "signed_distance", "label"]
    levels = [
        {"attribute": a, "t": t, "auc_val": auc, "followed": auc >= 0.7}
        for a in attributes
        for t, auc in ((0, 0.95), (300, 0.74), (500, 0.61))
    ]
    _table(folder / "path.parquet", pd.DataFrame(levels), "path/2")
    _table(folder / "scores.parquet", pd.DataFrame(scores, columns=columns), "scores/1")


def _edits(
    folder: Path, rng: np.random.Generator, avatars: Mapping[str, Avatar], items: Sequence[str], size: int,
    edits: Sequence[str], strengths: Sequence[float], methods: Mapping[str, float],
) -> None:  # fmt: skip
    rows: list[dict[str, Any]] = []
    first = next(iter(methods))
    for method, edit in ((method, edit) for method in methods for edit in edits):
        at = edit if method == first else f"{edit}.{method}"
        pictures = []
        for item in items:
            avatar = avatars[item]
            targets = {edit: -1 if avatar.attributes[edit] else 1}
            source = _pixels(avatar, size).astype(np.float32)
            truth = _pixels(avatar.with_attribute(edit, not avatar.attributes[edit]), size).astype(np.float32)
            share = [min(1.0, max(0.0, methods[method] * s * rng.uniform(0.3, 1.2))) for s in strengths]
            blends = [
                source + w * (truth - source) + rng.normal(0, 4 * s, source.shape)
                for w, s in zip(share, strengths, strict=True)
            ]
            pictures.append(np.stack(blends).clip(0, 255).astype(np.uint8))
            rows += [
                {"item_id": item, "edit": edit, "method": method, "strength": s, "strength_index": k,
                 "targets": json.dumps(targets), "shard": f"{at}/shard", "row": 0}
                for k, s in enumerate(strengths)
            ]  # fmt: skip
        _shards(folder / at, items, {"edited": torch.tensor(np.stack(pictures))})
    _table(folder / "manifest.parquet", pd.DataFrame(rows), "edits/2")
    facts = {"edits": {e: {e: "flip"} for e in edits}, "split": "test", "dtype": "float32", "method": first}
    write_json(folder / "edit.json", facts)


def _evaluate(
    folder: Path, rng: np.random.Generator, items: Sequence[str], edits: Sequence[str], strengths: Sequence[float],
    methods: Mapping[str, float],
) -> None:  # fmt: skip
    rows: list[dict[str, Any]] = []
    for method, edit in ((method, edit) for method in methods for edit in edits):
        skill = methods[method] * rng.uniform(0.7, 2.2)
        for item in items:
            for s in strengths:
                p = 1 / (1 + np.exp(-(skill * s * 3 - 2.5 + rng.normal())))
                rows.append(
                    {"item_id": item, "edit": edit, "method": method, "strength": s, "target_success": bool(p > 0.5),
                     "target_probability": p, "drift": abs(rng.normal(0.02, 0.01)) * (1 + s**2),
                     "num_others_flipped": int(rng.uniform() < 0.05 * s**2), "identity": 1 - 0.08 * s * rng.uniform(),
                     "ssim": 1 - 0.1 * s * rng.uniform(),
                     "psnr_db": 36 - 5 * s + rng.normal(), "segmentation_consistency": 1 - 0.03 * s * rng.uniform(),
                     "s_dir": 0.3 * min(s, 1.5) + rng.normal(0, 0.1), "counterfactual_rmse": 0.1,
                     "counterfactual_recovery": 0.5 * s - 0.25 * s**2 + rng.normal(0, 0.12)}
                )  # fmt: skip
    _table(folder / "tables" / "per_image.parquet", pd.DataFrame(rows), "per_image/2")
    ends = {"target_success_low": 0.11, "target_success_high": 0.92, "identity_low": 0.871, "identity_high": 0.952}
    stated = {e: {f"{s:g}": {"clip_fd": 12.25, "clip_kd": None, **ends} for s in strengths} for e in edits}
    compared = {method: stated for method in [*methods][1:]}
    write_json(folder / "metrics.json", {"num_images": len(items), "edits": stated, "compared": compared})
