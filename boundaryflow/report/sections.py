"""The sections about the stages before the edits: mixing, boundaries, labels, images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from boundaryflow.report.figures import Line, histogram, line_chart
from boundaryflow.report.inputs import Inputs

SPACE_NAMES = {"eps": "ε-space", "h": "h-space"}
SPACE_STYLES = {"eps": "c1", "h": "c2"}


def mixing(inputs: Inputs) -> dict[str, Any] | None:
    """Radius and separability against the timestep, with the mixing step marked."""
    curves = inputs.curves
    if curves is None or curves.empty:
        return None
    t_mix = inputs.facts["mixing"].get("t_mix")
    mark = None if t_mix is None else (float(t_mix), f"t_mix = {t_mix}")
    by_name = {str(name): rows.sort_values("t") for name, rows in curves.groupby("curve", sort=True)}
    charts = [c for c in (_radius_chart(by_name, mark), _separability_chart(by_name, mark)) if c is not None]
    return {"charts": charts, "t_mix": t_mix, "facts": inputs.facts["mixing"]} if charts else None


def _series(rows: pd.DataFrame) -> tuple[list[float], list[float]]:
    return [float(t) for t in rows["t"]], [float(v) for v in rows["value"]]


def _radius_chart(by_name: dict[str, pd.DataFrame], mark: tuple[float, str] | None) -> dict[str, Any] | None:
    lines: list[Line] = []
    for curve, label, style in (("radius_inverted", "inverted images", "c1"), ("radius_sampled", "samples", "c2")):
        if curve not in by_name:
            continue
        t, radius = _series(by_name[curve])
        spread = _series(by_name[f"{curve}_sd"])[1] if f"{curve}_sd" in by_name else [math.nan] * len(t)
        low = [r - s for r, s in zip(radius, spread, strict=True)]
        high = [r + s for r, s in zip(radius, spread, strict=True)]
        lines.append(Line(t, radius, label, style, low=low, high=high))
    if not lines:
        return None
    return {
        "title": "Radius of the latents",
        "text": "Mean length of x_t over √d, with one standard deviation. A standard normal has 1. "
        "Where the two curves meet, inverted images and samples have the same length.",
        "legend": [(line.label, line.style) for line in lines],
        "chart": line_chart(
            lines, name="Radius of inverted and sampled latents over the timestep", x_label="timestep t",
            y_label="|x| / √d", mark=mark, size=(520, 290),
        ),
    }  # fmt: skip


def _separability_chart(by_name: dict[str, pd.DataFrame], mark: tuple[float, str] | None) -> dict[str, Any] | None:
    lines: list[Line] = []
    means: list[Line] = []
    for space, style in SPACE_STYLES.items():
        names = [name for name in by_name if name.startswith(f"auc_{space}:")]
        for name in names:
            t, auc = _series(by_name[name])
            lines.append(Line(t, auc, f"{name.split(':', 1)[1]}, {SPACE_NAMES[space]}", style, faint=True))
        if names:
            together = pd.concat([by_name[name] for name in names]).groupby("t")["value"].mean()
            t, auc = [float(i) for i in together.index], [float(v) for v in together]
            means.append(Line(t, auc, f"mean over attributes, {SPACE_NAMES[space]}", style))
    if not means:
        return None
    lowest = min((v for line in lines for v in line.y if not math.isnan(v)), default=0.5)
    return {
        "title": "Separability of the attributes",
        "text": "Cross-validated AUC of a linear SVM at each timestep: thin for one attribute, thick for their mean. "
        "0.5 is chance.",
        "legend": [(SPACE_NAMES[s], style) for s, style in SPACE_STYLES.items() if style in {m.style for m in means}],
        "chart": line_chart(
            [*lines, *means], name="Separability over the timestep", x_label="timestep t", y_label="AUC",
            y_range=(min(0.5, math.floor(10 * lowest) / 10), 1.0), mark=mark, size=(520, 290),
        ),
    }  # fmt: skip


def boundaries(inputs: Inputs) -> dict[str, Any] | None:
    """Per attribute and space: the held-out numbers, and the scores of both classes."""
    table, scores = inputs.boundaries, inputs.scores
    noise_levels = inputs.noise_levels if inputs.is_guided else None
    if table is None or (table.empty and (noise_levels is None or noise_levels.empty)):
        return None
    spaces = [s for s in SPACE_NAMES if s in set(table["space"])]
    named = table if noise_levels is None else pd.concat([table[["attribute"]], noise_levels[["attribute"]]])
    attributes: list[dict[str, Any]] = []
    for attribute in sorted({str(name) for name in named["attribute"]}):
        rows = table[table["attribute"] == attribute]
        of_space = {str(space): hyperplane.iloc[0] for space, hyperplane in rows.groupby("space")}
        hyperplanes = [_hyperplane(attribute, of_space[s], scores) for s in spaces if s in of_space]
        followed = None if noise_levels is None else _followed(attribute, noise_levels)
        attributes.append({"title": attribute.replace("_", " "), "hyperplanes": hyperplanes, "followed": followed})
    held_out = "test" if "auc_test" in table and table["auc_test"].notna().any() else "validation"
    features = "" if noise_levels is None else _feature_space(inputs.facts["edit"].get("features", {}))
    return {
        "attributes": attributes, "held_out": held_out, "spaces": [SPACE_NAMES[s] for s in spaces], "features": features
    }  # fmt: skip


def _feature_space(features: Mapping[str, Any]) -> str:
    """The features that the hyperplanes of guided edits lie in, in words."""
    layer, pool = features.get("layer"), features.get("pool")
    if layer is None:
        return "the bottleneck h of the network"
    return f"the output of the network's layer {layer}" + (f", averaged to {pool} x {pool} per channel" if pool else "")


def _followed(attribute: str, noise_levels: pd.DataFrame) -> str:
    """The range of noise levels at which guided edits follow the attribute's hyperplanes."""
    rows = noise_levels[(noise_levels["attribute"] == attribute) & noise_levels["followed"]].sort_values("t")
    if rows.empty:
        return "Followed at no noise level."
    first, cleanest = rows.iloc[-1], rows.iloc[0]
    return (
        f"Followed from timestep {first['t']} down, where noised images have an AUC of {first['auc_val']:.2f}, "
        f"to {cleanest['t']} with {cleanest['auc_val']:.2f}."
    )


def _hyperplane(attribute: str, row: pd.Series, scores: pd.DataFrame | None) -> dict[str, Any]:
    space = str(row["space"])
    auc = float(row.get("auc_test", math.nan))
    auc = float(row.get("auc_val", math.nan)) if math.isnan(auc) else auc
    cosine = float(row.get("bootstrap_cosine", math.nan))
    facts = [f"{int(row['num_positive'])} with, {int(row['num_negative'])} without"]
    if not math.isnan(cosine):
        facts.append(f"bootstrap {cosine:.2f}")
    return {
        "space": SPACE_NAMES[space],
        "auc": "–" if math.isnan(auc) else f"{auc:.3f}",
        "weak": auc < 0.8,
        "facts": "; ".join(facts),
        "chart": None if scores is None else _score_chart(attribute, space, scores),
    }


def _score_chart(attribute: str, space: str, scores: pd.DataFrame) -> Markup | None:
    rows = scores[(scores["attribute"] == attribute) & (scores["space"] == space) & scores["label"].notna()]
    held_out = rows[rows["split"] != "train"]
    rows = held_out if len(held_out) else rows
    if rows.empty:
        return None
    has = rows["label"].astype(float) > 0.5
    groups = {"without": list(rows.loc[~has, "signed_distance"]), "with": list(rows.loc[has, "signed_distance"])}
    return histogram(
        groups, {"without": "c1", "with": "c2"}, name=f"Held-out scores of {attribute} in {SPACE_NAMES[space]}",
        x_label="signed distance (latent units)", mark=(0.0, "") if _spans_zero(rows["signed_distance"]) else None,
    )  # fmt: skip


def _spans_zero(values: pd.Series) -> bool:
    return bool(values.min() <= 0 <= values.max())


def labels(inputs: Inputs) -> dict[str, Any] | None:
    """Per attribute: number of images with it, certainty of the labels, and their accuracy if the truth is known."""
    if inputs.labels is None or inputs.labels.empty:
        return None
    facts = inputs.facts["label"]
    per_attribute: dict[str, Any] = facts.get("attributes", facts)
    rows: list[dict[str, Any]] = []
    for attribute in sorted(str(c) for c in inputs.labels.columns):
        values = inputs.labels[attribute].astype(float)
        known = values.dropna()
        about: dict[str, Any] = per_attribute.get(attribute) or {}
        auc, accuracy = (_number(about, name) for name in ("auc", "accuracy"))
        if auc is None and inputs.factors is not None and attribute in inputs.factors:
            auc, accuracy = _against_truth(known, inputs.factors[attribute])
        rows.append(
            {
                "title": attribute.replace("_", " "),
                "positive": int((known > 0.5).sum()),
                "negative": int((known <= 0.5).sum()),
                "unknown": int(values.isna().sum()),
                "share": 100 * float((known > 0.5).mean()) if len(known) else 0.0,
                "sure": f"{100 * float((np.abs(known - 0.5) > 0.4).mean()):.0f} %" if len(known) else "–",
                "auc": "" if auc is None else f"{auc:.3f}",
                "accuracy": "" if accuracy is None else f"{100 * accuracy:.1f} %",
            }
        )
    return {"rows": rows, "truth": any(r["auc"] for r in rows), "unknown": any(r["unknown"] for r in rows)}


def _number(facts: dict[str, Any], name: str) -> float | None:
    value = facts.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _against_truth(known: pd.Series, truth: pd.Series) -> tuple[float | None, float | None]:
    """AUC (by ranks) and accuracy of label probabilities against the truth."""
    pairs = pd.DataFrame({"label": known, "truth": truth}).dropna()
    has = pairs["truth"].astype(bool)
    num_with, num_without = int(has.sum()), int((~has).sum())
    if not num_with or not num_without:
        return None, None
    ranks = pairs["label"].rank()
    auc = (float(ranks[has].sum()) - num_with * (num_with + 1) / 2) / (num_with * num_without)
    return auc, float(((pairs["label"] > 0.5) == has).mean())


def images(inputs: Inputs) -> dict[str, Any]:
    """Number of image files by status, with the reasons of rejected ones."""
    manifest = inputs.manifest
    ok, bad = manifest[manifest["status"] == "ok"], manifest[manifest["status"] == "bad"]
    duplicates = int((manifest["duplicates_of"].fillna("") != "").sum())
    splits = [(name, int((ok["split"] == name).sum())) for name in ("train", "val", "test")]
    formats = _counted(ok["format"])
    sizes = _counted(ok["width_px"].astype(str) + " × " + ok["height_px"].astype(str))
    files = [{"source": r["source"], "reason": r["reason"]} for r in bad.sort_values("source").to_dict("records")]
    return {
        "num_ok": len(ok), "num_bad": len(bad), "duplicates": duplicates, "splits": [s for s in splits if s[1]],
        "formats": formats, "sizes": sizes, "bad": files[:50], "bad_left_out": max(0, len(files) - 50),
    }  # fmt: skip


def _counted(values: pd.Series) -> Sequence[tuple[str, int]]:
    counts = values.astype(str).value_counts()
    return sorted(((str(k), int(v)) for k, v in counts.items()), key=lambda pair: (-pair[1], pair[0]))[:4]
