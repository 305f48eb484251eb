"""The parts of the page about each edit: pictures, strips of all strengths, numbers, failures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from boundaryflow.evaluation.best_strength import SHARES
from boundaryflow.report.comparison import Comparison
from boundaryflow.report.figures import Line, line_chart, number
from boundaryflow.report.grids import Pictures, Shown, drawn
from boundaryflow.report.inputs import Inputs
from boundaryflow.report.numbers import BY_COLUMN, Estimate, Estimates, Metric, cross_fitted_means

TILES = frozenset({"target_success", "clean_success", "drift", "identity", "ssim", "counterfactual_recovery"})
_UNKNOWN = Estimate(math.nan, math.nan, math.nan, 0)
CARD_METRICS = ("target_success", "drift", "counterfactual_recovery")
CURVES = (
    ("target_success", "c1"), ("counterfactual_recovery", "c2"), ("drift", "c5"), ("identity", "c3"), ("ssim", "c4"),
)  # fmt: skip


def indexed(per_image: pd.DataFrame | None) -> dict[tuple[str, str, float], dict[str, Any]]:
    """(edit, item, strength) to the metrics of that picture."""
    if per_image is None:
        return {}
    rows = [{str(column): value for column, value in row.items()} for row in per_image.to_dict("records")]
    return {(str(row["edit"]), str(row["item_id"]), float(row["strength"])): row for row in rows}


def in_words(targets: Mapping[str, int]) -> str:
    """The requested change of an image, such as `+ smiling, − hat`."""
    return ", ".join(f"{'+' if sign > 0 else '−'} {attribute.replace('_', ' ')}" for attribute, sign in targets.items())


def faces(
    shown: Sequence[Shown],
    edit: str,
    strengths: Sequence[float],
    verdicts: Mapping[tuple[str, str, float], Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Pictures with their requested change, and the judge's result at each strength."""
    return [
        {
            "input": picture.input,
            "frames": picture.frames,
            "truth": picture.truth,
            "item": picture.item,
            "requested": in_words(picture.targets),
            "sign": "".join("+" if sign > 0 else "−" for sign in picture.targets.values()),
            "verdicts": [_verdict(verdicts.get((edit, picture.item, s))) for s in strengths],
            "probability": [_show("target_probability", verdicts.get((edit, picture.item, s))) for s in strengths],
        }
        for picture in shown
    ]


def _verdict(row: Mapping[str, Any] | None) -> str:
    success = None if row is None else row.get("target_success")
    if success is None or pd.isna(success):
        return ""
    return "yes" if success else "no"


def _show(column: str, row: Mapping[str, Any] | None, digits: int = 2) -> str:
    value = None if row is None else row.get(column)
    return "" if value is None or pd.isna(value) else f"{float(value):.{digits}f}".replace("-", "−")


def edit_cards(
    inputs: Inputs,
    pictures: Pictures,
    best: Mapping[str, float],
    estimates: Estimates,
    edits: Mapping[str, Mapping[str, str]],
    compared: Comparison | None,
    *,
    num_grid: int,
    seed: int,
) -> list[dict[str, Any]]:
    """One card per edit: pictures drawn by seed, numbers at each strength, and the other method at its best one."""
    verdicts, strengths = indexed(inputs.per_image), inputs.strengths
    cards: list[dict[str, Any]] = []
    for edit in inputs.edit_names:
        targets = inputs.targets(edit)
        items = drawn(targets, num_grid, seed=seed, purpose="report")
        frames = [
            {"strength": number(s)}
            | {c: BY_COLUMN[c].show(e.mean) for c, e in estimates.get((edit, s), {}).items() if c in CARD_METRICS}
            for s in strengths
        ]
        cards.append(
            {
                "edit": edit,
                "title": edit.replace("_", " "),
                "what": ", ".join(f"{a.replace('_', ' ')}: {how}" for a, how in edits.get(edit, {}).items()),
                "num": len(targets),
                "faces": faces(pictures.show(edit, items), edit, strengths, verdicts),
                "best": strengths.index(best[edit]),
                "metrics": [BY_COLUMN[c] for c in CARD_METRICS if any(c in frame for frame in frames)],
                "compared": compared.card(edit, items, pictures, CARD_METRICS) if compared else None,
                "frames": frames,
                "frames_json": json.dumps(frames, sort_keys=True, ensure_ascii=False),
            }
        )
    return cards


def strips(
    inputs: Inputs, pictures: Pictures, best: Mapping[str, float], *, num_strips: int, seed: int
) -> list[dict[str, Any]]:
    """A few images per edit, each at all strengths."""
    verdicts, strengths = indexed(inputs.per_image), inputs.strengths
    result: list[dict[str, Any]] = []
    for edit in inputs.edit_names:
        items = drawn(inputs.targets(edit), num_strips, seed=seed, purpose=f"strip {edit}")
        shown = faces(pictures.show(edit, items), edit, strengths, verdicts)
        result += [{"title": face["requested"], "best": strengths.index(best[edit]), "face": face} for face in shown]
    return result


def samples(inputs: Inputs, pictures: Pictures) -> list[dict[str, Any]]:
    """One strip per attribute: images drawn from noise, with the attribute off and on; one of the two is as drawn."""
    found = inputs.samples()
    if not found:
        return []
    drawn_at = pictures.samples(found["drawn"])
    strips: list[dict[str, Any]] = []
    for index, attribute in enumerate(inputs.facts["samples"]["attributes"]):
        has: list[bool] = found["has"][:, index].tolist()
        files = list(zip(drawn_at, pictures.samples(found["changed"][:, index], index), strict=True))
        rows = {
            name: [{"as_drawn": of == on, "src": pair[of != on]} for of, pair in zip(has, files, strict=True)]
            for name, on in (("off", False), ("on", True))
        }
        strips.append({"title": attribute.replace("_", " "), "num_on": sum(has), "rows": rows})
    return strips


def table(
    inputs: Inputs,
    metrics: Sequence[Metric],
    estimates: Estimates,
    best: Mapping[str, float],
    compared: Comparison | None,
) -> list[dict[str, Any]]:
    """One group per edit: a row per strength, and one of the other method at its best."""
    groups: list[dict[str, Any]] = []
    for edit in inputs.edit_names:
        rows = [
            {
                "strength": number(s),
                "style": "best" if s == best[edit] else "",
                "cells": [_cell(m, estimates[edit, s][m.column]) for m in metrics],
            }
            for s in inputs.strengths
            if (edit, s) in estimates
        ]
        if compared and (others := compared.numbers(edit)):
            cells = [_cell(m, others.get(m.column, _UNKNOWN)) for m in metrics]
            strength = f"{compared.title}, {number(compared.best[edit])}"
            rows.append({"strength": strength, "style": "compared", "cells": cells})
        groups.append({"edit": edit, "title": edit.replace("_", " "), "num": len(inputs.targets(edit)), "rows": rows})
    return groups


def _cell(metric: Metric, value: Estimate) -> dict[str, Any]:
    interval = "" if math.isnan(value.low) else f"{metric.show(value.low)} to {metric.show(value.high)}"
    return {
        "text": metric.show(value.mean),
        "interval": interval,
        "low": None if metric.column not in SHARES or math.isnan(value.low) else 100 * value.low,
        "high": 100 * value.high if value.num else None,
        "mean": 100 * value.mean if value.num else None,
        "num": value.num,
        "bad": metric.column == "counterfactual_recovery" and value.mean <= -0.005,
    }


def overall(inputs: Inputs, metrics: Sequence[Metric]) -> list[dict[str, str]]:
    """Mean over edits, each image at the strength that other images chose; for the other method likewise."""
    shown = [metric for metric in metrics if metric.column in TILES]
    ours, theirs = (
        {} if of is None or of.per_image is None else cross_fitted_means(of.per_image, shown)
        for of in (inputs, inputs.compared)
    )
    title = inputs.compared.method.replace("_", " ") if inputs.compared else ""
    return [
        {
            "title": metric.title,
            "text": metric.show(ours[metric.column]),
            "meaning": metric.meaning,
            "compared": f"{title} {metric.show(theirs[metric.column])}" if metric.column in theirs else "",
        }
        for metric in shown
        if metric.column in ours
    ]


def response_curves(inputs: Inputs, estimates: Estimates, best: Mapping[str, float]) -> dict[str, Any] | None:
    """Metrics against the strength: one chart per edit, all with the same axes."""
    present = [(c, style) for c, style in CURVES if any(c in row for row in estimates.values())]
    strengths = sorted(inputs.strengths)
    if not present or len(strengths) < 2:
        return None
    lowest = min((row[c].mean for row in estimates.values() for c, _ in present if row[c].num), default=0.0)
    floor = max(-1.0, 0.25 * math.floor(lowest / 0.25))
    charts: list[dict[str, Any]] = []
    for edit in inputs.edit_names:
        lines: list[Line] = []
        for column, style in present:
            values = [estimates[edit, s][column] for s in strengths if (edit, s) in estimates]
            share = column in SHARES
            lines.append(
                Line(
                    [s for s in strengths if (edit, s) in estimates],
                    [v.mean for v in values],
                    BY_COLUMN[column].title,
                    style,
                    low=[v.low for v in values] if share else None,
                    high=[v.high for v in values] if share else None,
                    dots=True,
                )
            )
        chart = line_chart(
            [line for line in lines if line.x] or lines,
            name=f"Metrics of {edit} against edit strength",
            x_label="edit strength",
            y_label="",
            y_range=(floor, 1.0),
            x_ticks=strengths,
            mark=(best[edit], ""),
            size=(300, 200),
        )
        charts.append({"title": edit.replace("_", " "), "chart": chart})
    return {"charts": charts, "legend": [(BY_COLUMN[c].title, style) for c, style in present], "floor": floor < 0}


def failures(
    inputs: Inputs, pictures: Pictures, best: Mapping[str, float], *, num_failures: int
) -> list[dict[str, Any]]:
    """The worst pictures at the strengths shown: furthest from the truth, and least probable to have the target."""
    if inputs.per_image is None:
        return []
    table = inputs.per_image
    table = table[[float(s) == best.get(str(e)) for e, s in zip(table["edit"], table["strength"], strict=True)]]
    lists: list[dict[str, Any]] = []
    if "counterfactual_recovery" in table and table["counterfactual_recovery"].notna().any():
        worst = table.dropna(subset="counterfactual_recovery").sort_values(
            ["counterfactual_recovery", "edit", "item_id"]
        )
        lists.append({"title": "Furthest from the truth", "why": "lowest counterfactual recovery R", "rows": worst})
    if "target_success" in table:
        missed = table[table["target_success"].notna() & (table["target_success"].astype(float) < 0.5)]
        order = [c for c in ("target_probability", "edit", "item_id") if c in missed]
        why = "lowest probability of the target, by the judge"
        lists.append({"title": "Target missed", "why": why, "num": len(missed), "rows": missed.sort_values(order)})
    for entry in lists:
        entry["of"] = len(table)
        entry["faces"] = [
            _failure(inputs, pictures, row, best) for row in entry.pop("rows").head(num_failures).to_dict("records")
        ]
    return lists


def _failure(inputs: Inputs, pictures: Pictures, row: dict[str, Any], best: Mapping[str, float]) -> dict[str, Any]:
    edit, item = str(row["edit"]), str(row["item_id"])
    (shown,) = pictures.show(edit, [item])
    return {
        "input": shown.input,
        "edited": shown.frames[inputs.strengths.index(best[edit])],
        "truth": shown.truth,
        "requested": in_words(shown.targets),
        "item": item,
        "reasons": _reasons(row),
    }


def _reasons(row: Mapping[str, Any]) -> list[str]:
    reasons: list[str] = []
    recovery = _show("counterfactual_recovery", row)
    if recovery:
        reasons.append(f"R = {recovery}")
    if _verdict(row) == "no":
        probability = _show("target_probability", row)
        reasons.append("missed" + (f", p = {probability}" if probability else ""))
    flipped = row.get("num_others_flipped")
    if flipped is not None and not pd.isna(flipped) and flipped > 0:
        reasons.append(f"{int(flipped)} other{'s' if flipped > 1 else ''} flipped")
    drift = row.get("drift")
    if drift is not None and not pd.isna(drift) and drift >= 0.05:
        reasons.append(f"drift {100 * drift:.0f} %")
    return reasons
