"""Stage evaluate: did the target change, did anything else, and is it still a good picture?"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from boundaryflow import evaluation as ev
from boundaryflow.avatars import ATTRIBUTES, FACTORS, Avatar, render, segment
from boundaryflow.errors import ManifestError
from boundaryflow.files import write_bytes
from boundaryflow.labelling import ClipLabeller, load_clip
from boundaryflow.storage.images import to_model_range
from boundaryflow.storage.shards import in_batches, load_items
from boundaryflow.storage.tables import read_table, write_json, write_table
from stages.best_strength import SHARES
from stages.frozen_model import device
from stages.params import ClipSource, LabelParams, PromptRule, load_params
from stages.process import Progress, entry, own_folder

LOG = logging.getLogger(__name__)
_BATCH = 256
MAX_REAL = 256
"""Real images that the edits of one direction are held against."""
_UNITS = {
    "target_probability": "probability",
    "drift": "probability",
    "psnr_db": "dB",
    "counterfactual_rmse": "1 is the range from black to white",
}


@dataclass(frozen=True)
class Bench:
    """Everything that pictures are judged with.

    Attributes:
        judges: Networks, or None.
        clip: Labeller for features, or None.
        directions: Attribute to the text direction from without to with, where there are prompts.
        avatars: Item to its face, where the truth is known.
    """

    judges: ev.Judges | None
    clip: ClipLabeller | None
    directions: Mapping[str, Tensor]
    avatars: Mapping[str, Avatar]


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
    ingested, edited_at = Path("data/ingest") / dataset, Path("data/edit") / dataset
    out = own_folder("evaluate", dataset)
    manifest = read_table(edited_at / "manifest.parquet", schema="edits/1")
    if manifest.empty:
        raise ManifestError(
            f"evaluate {dataset}: no image was asked to change; see edit.edits, edit.split and edit.max_images "
            "in params.yaml"
        )
    bench = open_bench(ingested, label, judges, clip, counterfactuals)
    rows: list[pd.DataFrame] = []
    distances: dict[tuple[str, float], dict[str, float]] = {}
    with Progress("evaluate", len(manifest), "pictures") as progress:
        for edit, of_edit in manifest.groupby("edit"):
            first = of_edit[of_edit["strength_index"] == 0].sort_values("item_id")
            asked = {str(item): json.loads(text) for item, text in zip(first["item_id"], first["targets"], strict=True)}
            strengths = sorted(set(zip(of_edit["strength_index"], of_edit["strength"], strict=True)))
            real = _real_features(dataset, ingested, bench, list(asked.values()))
            seen: dict[float, list[Tensor]] = {strength: [] for _, strength in strengths}
            for items in in_batches(ingested, list(asked), _BATCH):
                before = to_model_range(load_items(ingested, items, ["pixels"])["pixels"], (0.0, 1.0))
                after = to_model_range(load_items(edited_at / str(edit), items, ["edited"])["edited"], (0.0, 1.0))
                judged = Judged(bench, items, [asked[item] for item in items], before)
                for index, strength in strengths:
                    columns, features = judged.metrics(after[:, index])
                    rows.append(pd.DataFrame({"item_id": items, "edit": edit, "strength": strength, **columns}))
                    if features is not None:
                        seen[strength].append(features)
                    progress.advance(len(items))
            for strength, features in seen.items():
                of_sets = _distances(real, torch.cat(features)) if features and real is not None else {}
                distances[str(edit), float(strength)] = of_sets
    per_image = pd.concat(rows).sort_values(["edit", "strength", "item_id"], ignore_index=True)
    write_table(out / "tables" / "per_image.parquet", per_image, schema="per_image/1", units=_UNITS)
    summary = _summarise(per_image, distances, num_bootstraps, run_seed)
    write_bytes(out / "tables" / "summary.csv", summary.to_csv(index=False, float_format="%.6g").encode())
    intervals = [str(name) for name in summary.columns if str(name).endswith(("_low", "_high"))]
    over_edits = summary.drop(columns=["edit", *intervals]).groupby("strength", as_index=False).mean()
    write_bytes(out / "strength.csv", over_edits.to_csv(index=False, float_format="%.6g").encode())
    metrics = _metrics(summary, len(set(per_image["item_id"])))
    write_json(out / "metrics.json", metrics)
    return metrics


def open_bench(
    ingested: Path, label: LabelParams, judges: str | None, clip: str | None, counterfactuals: bool
) -> Bench:
    """Open what pictures are judged with."""
    labeller = load_clip(clip, device()) if clip else None
    directions: dict[str, Tensor] = {}
    templates = label.source.templates if isinstance(label.source, ClipSource) else ["{}"]
    for attribute, rule in label.attributes.items():
        if labeller is not None and isinstance(rule, PromptRule):
            sides = (labeller.text_feature(side, templates) for side in (rule.positive, rule.negative))
            directions[attribute] = (next(sides) - next(sides)).cpu()
    avatars: dict[str, Avatar] = {}
    if counterfactuals:
        path = ingested / "factors.parquet"
        if not path.exists():
            raise ManifestError(
                f"evaluate: {path} is not there; exact counterfactuals exist for the built-in renderer's faces only, "
                "set evaluate.counterfactuals to false"
            )
        for row in read_table(path, schema="avatars/1").to_dict("records"):
            attributes = {name: bool(row[name]) for name in ATTRIBUTES}
            avatars[row["item_id"]] = Avatar(attributes, {name: float(row[name]) for name in FACTORS})
    return Bench(ev.load_judges(Path(judges), device()) if judges else None, labeller, directions, avatars)


class Judged:
    """The inputs of one edit, judged once, against which pictures at every strength are held."""

    def __init__(self, bench: Bench, items: Sequence[str], targets: Sequence[dict[str, int]], before: Tensor) -> None:
        self._bench, self._targets, self._before = bench, targets, before
        self._truth, self._region = _truths(bench, items, targets, before.shape[-1])
        judges = bench.judges
        self._signs = torch.zeros(len(items), len(judges.attributes) if judges else 0)
        if judges:
            for row, asked in enumerate(targets):
                for attribute, sign in asked.items():
                    if attribute in judges.attributes:
                        self._signs[row, judges.attributes.index(attribute)] = sign
            self._probabilities = judges.probabilities(before)
            self._identity, self._parts = judges.identity(before), judges.parts(before)
        self._features = _features(bench.clip, before) if bench.clip else None

    def metrics(self, after: Tensor) -> tuple[dict[str, Any], Tensor | None]:
        """Column of per_image.parquet to one value per image; and the CLIP features of the pictures."""
        columns: dict[str, Tensor] = {}
        judges = self._bench.judges
        if judges and bool((self._signs != 0).any()):
            now = judges.probabilities(after)
            wanted = torch.where(self._signs > 0, now, 1 - now).masked_fill(self._signs == 0, 1.0)
            columns["target_success"] = ev.target_reached(now, self._signs)
            columns["target_probability"] = wanted.amin(1)
            columns["drift"] = ev.attribute_drift(self._probabilities, now, self._signs)
            columns["num_others_flipped"] = ev.num_flipped(self._probabilities, now, self._signs)
            columns["clean_success"] = columns["target_success"] & (columns["num_others_flipped"] == 0)
        identity, parts = (judges.identity(after), judges.parts(after)) if judges else (None, None)
        if identity is not None and self._identity is not None:
            columns["identity"] = (identity * self._identity).sum(1)
        columns["ssim"] = ev.ssim(after, self._before)
        columns["psnr_db"] = ev.psnr_db(after, self._before)
        if parts is not None and self._parts is not None:
            columns["segmentation_consistency"] = ev.segmentation_consistency(self._parts, parts)
            if self._region is not None:
                columns["segmentation_consistency_outside"] = ev.segmentation_consistency(
                    self._parts, parts, ~self._region
                )
        features = _features(self._bench.clip, after) if self._bench.clip else None
        if features is not None and self._features is not None and self._bench.directions:
            columns["s_dir"] = ev.directional_similarity(self._features, features, self._text_directions())
        if self._truth is not None and self._region is not None:
            columns["counterfactual_rmse"] = ev.rmse(after, self._truth)
            columns["counterfactual_recovery"] = ev.counterfactual_recovery(self._before, after, self._truth)
            columns["rmse_inside"] = ev.rmse(after, self._truth, self._region)
            columns["rmse_outside"] = ev.rmse(after, self._truth, ~self._region)
        return {name: values.cpu().numpy() for name, values in columns.items()}, features

    def _text_directions(self) -> Tensor:
        directions = self._bench.directions
        size = len(next(iter(directions.values())))
        rows = [
            sum((sign * directions[a] for a, sign in asked.items() if a in directions), torch.zeros(size))
            for asked in self._targets
        ]
        return torch.stack([torch.as_tensor(row) for row in rows])


def _truths(
    bench: Bench, items: Sequence[str], targets: Sequence[dict[str, int]], size: int
) -> tuple[Tensor | None, Tensor | None]:
    """The exact counterfactual of each image in [0, 1], and where it differs in what it shows."""
    if not bench.avatars:
        return None, None
    pictures, regions = [], []
    for item, asked in zip(items, targets, strict=True):
        source = changed = bench.avatars[item]
        for attribute, sign in asked.items():
            changed = changed.with_attribute(attribute, sign > 0)
        drawn, as_is = np.array(render(changed, size), np.float32), np.array(render(source, size), np.float32)
        pictures.append(torch.from_numpy(drawn.transpose(2, 0, 1) / 255))
        differs = (np.abs(drawn - as_is).max(2) > 0) | (segment(changed, size) != segment(source, size))
        regions.append(torch.from_numpy(differs))
    return torch.stack(pictures), torch.stack(regions)


def _real_features(dataset: str, ingested: Path, bench: Bench, targets: Sequence[dict[str, int]]) -> Tensor | None:
    """CLIP features of real images that have what the edit asks for on its images, up to 256 a side."""
    if bench.clip is None:
        return None
    labels = read_table(Path("data/label") / dataset / "labels.parquet", schema="labels/1").set_index("item_id")
    chosen: list[str] = []
    for asked in {json.dumps(t, sort_keys=True) for t in targets}:
        fits = np.ones(len(labels), bool)
        for attribute, sign in json.loads(asked).items():
            known = labels[attribute].notna().to_numpy()
            fits &= known & ((labels[attribute] > 0.5).to_numpy() == (sign > 0))
        chosen += sorted(labels.index[fits])[:MAX_REAL]
    if not chosen:
        return None
    pixels = load_items(ingested, sorted(set(chosen)), ["pixels"])["pixels"]
    return _features(bench.clip, to_model_range(pixels, (0.0, 1.0)))


def _distances(real: Tensor, features: Tensor) -> dict[str, float]:
    """As FID and KID, but on CLIP features, against real images that have what was asked for."""
    return {"clip_fd": ev.frechet_distance(real, features), "clip_kd": ev.kernel_distance(real, features)}


def _features(clip: ClipLabeller, images_01: Tensor) -> Tensor:
    """[N,D] image features on the CPU, a few images at a time."""
    return torch.cat([clip.image_features(part).cpu() for part in images_01.split(_BATCH)])


def _summarise(
    per_image: pd.DataFrame, distances: Mapping[tuple[str, float], Mapping[str, float]], num_bootstraps: int, seed: int
) -> pd.DataFrame:
    """One row per edit and strength: means over images, then distances between sets.

    Each mean has its 95 % interval: Wilson's where it is a share, else by bootstrap.
    """
    rows: list[dict[str, Any]] = []
    for (edit, strength), kept in distances.items():
        group = per_image[(per_image["edit"] == edit) & (per_image["strength"] == strength)]
        row: dict[str, Any] = {"edit": edit, "strength": strength, "num_images": len(group)}
        for column in group.columns.drop(["item_id", "edit", "strength"]):
            values = group[column].to_numpy(np.float64)
            row[column] = float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
            known = values[~np.isnan(values)]
            row[f"{column}_low"], row[f"{column}_high"] = (
                ev.wilson_interval(int((known > 0.5).sum()), len(known))
                if column in SHARES
                else ev.bootstrap_interval(known, num_bootstraps, seed)
            )
        rows.append({**row, **kept})
    return pd.DataFrame(rows)


def _metrics(summary: pd.DataFrame, num_images: int) -> dict[str, Any]:
    """metrics.json: edit to strength to metric; NaN becomes null."""
    edits: dict[str, dict[str, dict[str, float | None]]] = {}
    for row in summary.to_dict("records"):
        numbers = {
            str(k): None if not np.isfinite(v) else round(float(v), 5)
            for k, v in row.items()
            if k not in ("edit", "strength")
        }
        edits.setdefault(row["edit"], {})[f"{row['strength']:g}"] = numbers
    return {"num_images": num_images, "edits": edits}


@entry
def main() -> None:
    """Run for the data set named on the command line."""
    params = load_params()
    dataset = params.dataset(sys.argv[1])
    run(sys.argv[1], run_seed=params.run_seed, label=dataset.label, **dataset.evaluate.model_dump())


if __name__ == "__main__":
    main()
