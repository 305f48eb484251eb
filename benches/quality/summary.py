"""From the numbers of the rows to what holds at one target success, the bars, and the tables."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benches import page
from benches.quality.measure import PER_IMAGE
from benches.quality.rows import CLEANED, OURS
from boundaryflow.avatars import ATTRIBUTES
from boundaryflow.evaluation import bootstrap_interval

OF_SETS = ("fid", "kid")
LEVEL = 0.95
NUM_BOOTSTRAPS = 300
_RECOVERY, _SPEARMAN = "median over attributes of the median recovery", "mean Spearman of strength and judge"
_ERROR = "error over the cleaned paper mode's, at success {:.2f}"
_DRIFT = "drift over the cleaned paper mode's, at success {:.2f}"
Rows = Mapping[str, Mapping[str, Any]]


def curve(measured: Mapping[str, Mapping[str, Any]], name: str) -> list[float]:
    """[K] mean over attributes and images of one measure."""
    return np.nanmean([np.nanmean(of[name], axis=1) for of in measured.values()], axis=0).tolist()


def at_success(row: Mapping[str, Any], level: float) -> dict[str, float] | None:
    """Every measure where the mean target success is `level`, between the strengths on both sides of it.

    Returns:
        None where no strength of the row reaches it.
    """
    curves = {name: curve(row["attributes"], name) for name in PER_IMAGE} | {name: row[name] for name in OF_SETS}
    success = curves["success"]
    if success[0] >= level:
        return {name: values[0] for name, values in curves.items()}
    for k, (low, high) in enumerate(pairwise(success)):
        if low < level <= high:
            share = (level - low) / (high - low)
            return {name: v[k] + share * (v[k + 1] - v[k]) for name, v in curves.items()}
    return None


def best_recovery(of_attribute: Mapping[str, Any]) -> tuple[int, float]:
    """The strength with the largest median recovery, and that median."""
    medians = [float(np.nanmedian(values)) for values in of_attribute["recovery"]]
    best = int(np.argmax(medians))
    return best, medians[best]


def matched_level(rows: Rows, size: int) -> float:
    """95 % target success, or the highest that both the default and the cleaned paper mode reach."""
    reached = [max(curve(rows[f"{name}, n={size}"]["attributes"], "success")) for name in (OURS, CLEANED)]
    return min(LEVEL, *reached)


def bars(rows: Rows, size: int, strength_0_difference: float) -> list[dict[str, Any]]:
    """What is asked of the default method, with intervals over the edited faces."""
    ours, paper = (rows[f"{name}, n={size}"] for name in (OURS, CLEANED))
    level = matched_level(rows, size)
    rng = np.random.default_rng(0)
    samples: dict[str, list[float]] = {}
    for _ in range(NUM_BOOTSTRAPS):
        index = {
            name: rng.integers(0, len(of["spearman"]), len(of["spearman"])) for name, of in ours["attributes"].items()
        }
        for name, value in _compared(_resampled(ours, index), _resampled(paper, index), level).items():
            samples.setdefault(name, []).append(value)
    values = _compared(ours, paper, level)
    limits = ((_RECOVERY, 0.5, ">="), (_ERROR.format(level), 0.6, "<="),
              (_DRIFT.format(level), 0.5, "<="), (_SPEARMAN, 0.97, ">="))  # fmt: skip
    found = [(name, values.get(name, float("nan")), samples.get(name), limit, way) for name, limit, way in limits]
    pairs = min(max(np.mean(of["success"], axis=1)) for of in ours["pairs"].values())
    found.append(("largest difference at strength 0, model range", strength_0_difference, None, 0.0063, "<="))
    found.append(("worst success of a pair set jointly", float(pairs), None, 0.9, ">="))
    return [
        {"name": name, "value": round(value, 4), "limit": limit, "direction": way,
         "interval": None if drawn is None else np.nanpercentile(drawn, [2.5, 97.5]).round(4).tolist(),
         "met": bool(value >= limit if way == ">=" else value <= limit)}
        for name, value, drawn, limit, way in found
    ]  # fmt: skip


def _compared(ours: Mapping[str, Any], paper: Mapping[str, Any], level: float) -> dict[str, float]:
    """The bars that depend on the faces."""
    found = {
        _RECOVERY: float(np.median([best_recovery(of)[1] for of in ours["attributes"].values()])),
        _SPEARMAN: float(np.nanmean([np.nanmean(of["spearman"]) for of in ours["attributes"].values()])),
    }
    a, b = at_success(ours, level), at_success(paper, level)
    if a and b:
        found |= {_ERROR.format(level): a["rmse"] / b["rmse"], _DRIFT.format(level): a["drift"] / b["drift"]}
    return found


def _resampled(row: Mapping[str, Any], index: Mapping[str, NDArray[np.int64]]) -> dict[str, Any]:
    """A row as if other faces had been drawn."""
    attributes = {
        name: {measure: np.asarray(values)[..., index[name]] for measure, values in of.items()}
        for name, of in row["attributes"].items()
    }
    return {**row, "attributes": attributes}


def tables(rows: Rows, found_bars: list[dict[str, Any]], size: int) -> str:
    """The page's tables."""
    level = matched_level(rows, size)
    attribute_rows: list[list[str]] = []
    for key, row in rows.items():
        cells: list[str] = []
        medians: list[float] = []
        for of in row["attributes"].values():
            best, median = best_recovery(of)
            low, high = bootstrap_interval(np.array(of["recovery"][best]), 1000, 0)
            cells.append(f"{median:.2f} [{low:.2f}, {high:.2f}]; {np.mean(of['success'][best]):.2f}")
            medians.append(median)
        attribute_rows.append([key, *cells, f"{np.median(medians):.2f}"])
    bar_rows = [
        [b["name"], str(b["value"]), "" if b["interval"] is None else "{} to {}".format(*b["interval"]),
         f"{b['direction']} {b['limit']}", "yes" if b["met"] else "no"]
        for b in found_bars
    ]  # fmt: skip
    parts = [
        f"At a mean target success of {level:.2f} (n/r: not reached; in brackets the row at its strongest):",
        _at_level(rows, level, every_row=True),
        *([f"At {LEVEL}, the rows that reach it:", _at_level(rows, LEVEL, every_row=False)] if level < LEVEL else []),
        "By attribute, at the strength of the largest median recovery (median [95 % of the mean]; success):",
        page.markdown_table(["row", *ATTRIBUTES, "median"], attribute_rows),
        page.markdown_table(["bar", "measured", "95 % interval", "limit", "met"], bar_rows),
    ]
    return "\n\n".join(parts)


def _at_level(rows: Rows, level: float, *, every_row: bool) -> str:
    """One line a row: everything at one mean target success."""
    names = ("success", "rmse", "rmse_inside", "rmse_outside", "recovery", "drift", "identity", "ssim")
    lines: list[list[str]] = []
    for key, row in rows.items():
        matched = at_success(row, level)
        strongest = {name: curve(row["attributes"], name)[-1] for name in PER_IMAGE} | {n: row[n][-1] for n in OF_SETS}
        at = matched or strongest
        cells = [*(f"{at[name]:.3f}" for name in names), f"{1000 * at['kid']:.2f}"]
        if matched:
            lines.append([key, *cells])
        elif every_row:
            lines.append([key, f"n/r ({cells[0]})", *(f"({cell})" for cell in cells[1:])])
    header = ["row", "success", "RMSE to the truth", "inside", "outside", "recovery", "drift", "identity", "SSIM"]
    return page.markdown_table([*header, "KID x 1000"], lines)
