"""From the numbers of the rows to what holds at one target success, the bars, and the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benches import page
from benches.quality.measure import OF_SETS, PER_IMAGE
from benches.quality.rows import CLEANED, FAMILY, OURS
from boundaryflow.avatars import ATTRIBUTES
from boundaryflow.evaluation.intervals import bootstrap_interval

LEVEL = 0.95
LEAST_SUCCESS = 0.5  # of a baseline's strongest edits, for its error to count
DEFAULT_STRENGTH = 1.0
MOUTHS = ("smiling", "mouth_open")
NUM_BOOTSTRAPS = 300
LIMITS = {
    "median over attributes of the median recovery": (0.7, ">="),
    "least median recovery of an attribute": (0.35, ">="),
    "mean success at the default strength": (0.95, ">="),
    "mean drift at the default strength": (0.005, "<="),
    "median over attributes of the median recovery at the default strength": (0.6, ">="),
    "success of smiles and open mouths at the default strength, the lesser": (0.9, ">="),
    "error over the best baseline's, at matched success": (0.7, "<="),
    "error over that of any baseline, with no more network calls than it, at matched success": (1.0, "<="),
    "mean Spearman of strength and judge": (0.97, ">="),
    "network calls per image at one strength": (81.0, "<="),
    "largest difference at strength 0, model range": (0.0063, "<="),
    "worst success of a pair set jointly": (0.9, ">="),
    "median over attributes of the median recovery, n=100": (0.5, ">="),
}
"""Bars of the default method by name: the limit, and which side of it is asked for."""
_RECOVERY, _LEAST, _SUCCESS, _DRIFT, _RECOVERY_THERE, _MOUTHS, _ERROR, _SAME_CALLS, _SPEARMAN, *_REST = LIMITS
_CALLS, _STILL, _PAIRS, _FEW = _REST
COLUMNS = {"success": "success", "RMSE to the truth": "rmse", "inside": "rmse_inside", "outside": "rmse_outside",
           "recovery": "recovery", "drift": "drift", "identity": "identity", "SSIM": "ssim", "KID": "kid"}  # fmt: skip
USUAL = {"flip rate": "success", "MNAC": "mnac", "CD": "cd", "COUT": "cout", "FVA": "same_face", "FS": "identity",
         "FID": "fid_judge", "sFID": "sfid", "calls": "calls", "seconds": "seconds"}  # fmt: skip
_DIGITS = {"kid": ".5f", "calls": ".0f", "mnac": ".2f", "cd": ".2f", "seconds": ".2f"}
Rows = Mapping[str, Mapping[str, Any]]


def curve(measured: Mapping[str, Mapping[str, Any]], name: str) -> list[float]:
    """[K] mean over attributes and images of one measure."""
    return _mean([_mean(of[name], 1) for of in measured.values()], 0).tolist()


def _mean(values: Any, axis: int) -> NDArray[np.float64]:
    """Over the values that are numbers; NaN where none is."""
    numbers = np.asarray(values, float)
    known = np.isfinite(numbers)
    count = known.sum(axis)
    return np.where(count > 0, np.where(known, numbers, 0).sum(axis) / np.maximum(count, 1), np.nan)


def at_success(row: Mapping[str, Any], level: float) -> dict[str, float] | None:
    """Every measure where the mean target success is `level`, between the strengths on both sides of it.

    Returns:
        None where no strength of the row reaches it.
    """
    return _at_success(_curves(row), level)


def _curves(row: Mapping[str, Any]) -> dict[str, list[float]]:
    """Every measure to [K] values."""
    return {name: curve(row["attributes"], name) for name in PER_IMAGE} | {
        name: row[name] for name in OF_SETS if name in row
    }


def _at_success(curves: Mapping[str, Sequence[float]], level: float) -> dict[str, float] | None:
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


def error_ratio(ours: Mapping[str, Sequence[float]], other: Mapping[str, Sequence[float]]) -> float:
    """Our error to the truth over that of another row, at 95 % success, or the highest that both reach.

    Args:
        ours: `success` and `rmse` to [K] values.
        other: The same.
    """
    level = min(LEVEL, max(ours["success"]), max(other["success"]))
    a, b = _at_success(ours, level), _at_success(other, level)
    return a["rmse"] / b["rmse"] if a and b else float("nan")


def baselines(rows: Rows) -> dict[str, Mapping[str, Any]]:
    """The methods of others that edit: half of their strongest edits succeed, on as many faces as ours."""
    most = max(_num_faces(row) for row in rows.values())
    return {
        key: row
        for key, row in rows.items()
        if row["is_baseline"] and _num_faces(row) == most and max(curve(row["attributes"], "success")) >= LEAST_SUCCESS
    }


def bars(rows: Rows, size: int, strength_0_difference: float) -> list[dict[str, Any]]:
    """What is asked of the default method, with intervals over the edited faces."""
    ours = rows[f"{OURS}, n={size}"]
    family, others = ([_arrays(row) for row in of] for of in (_family(rows, size), baselines(rows).values()))
    few = rows.get(f"{OURS}, n=100")
    rng = np.random.default_rng(0)
    samples: dict[str, list[float]] = {}
    for _ in range(NUM_BOOTSTRAPS):
        index = {
            name: rng.integers(0, len(of["spearman"]), len(of["spearman"])) for name, of in ours["attributes"].items()
        }
        drawn = ([_resampled(row, index) for row in of] for of in (family, others))
        for name, value in _compared(*drawn).items():
            samples.setdefault(name, []).append(value)
    pairs = [max(np.mean(of["success"], axis=1)) for of in ours["pairs"].values()]
    values = {
        **_compared(family, others),
        _CALLS: ours["calls"],
        _STILL: strength_0_difference,
        **({_PAIRS: float(min(pairs))} if pairs else {}),
        **({_FEW: _recoveries(few)[0]} if few else {}),
    }
    return [
        {"name": name, "value": round(values[name], 4), "limit": limit, "direction": way,
         "interval": _interval(samples.get(name, [])),
         "met": bool(values[name] >= limit if way == ">=" else values[name] <= limit)}
        for name, (limit, way) in LIMITS.items() if name in values
    ]  # fmt: skip


def _family(rows: Rows, size: int) -> list[Mapping[str, Any]]:
    """The default, then the same with fewer calls."""
    return [rows[key] for name in FAMILY if (key := f"{name}, n={size}") in rows]


def _interval(drawn: Sequence[float]) -> list[float] | None:
    """95 % of the drawn values; None where there are none, or some are no numbers."""
    is_known = len(drawn) > 0 and bool(np.isfinite(drawn).all())
    return np.percentile(drawn, [2.5, 97.5]).round(4).tolist() if is_known else None


def _num_faces(row: Mapping[str, Any]) -> int:
    return sum(len(of["spearman"]) for of in row["attributes"].values())


def _recoveries(row: Mapping[str, Any]) -> tuple[float, float]:
    """Median and least over the attributes of the median recovery, each at its best strength."""
    medians = [best_recovery(of)[1] for of in row["attributes"].values()]
    return float(np.median(medians)), min(medians)


def _compared(family: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The bars that depend on the faces."""
    ours = family[0]
    median, least = _recoveries(ours)
    of = ours["attributes"]
    k = list(ours["strengths"]).index(DEFAULT_STRENGTH)
    found = {
        _RECOVERY: median,
        _LEAST: least,
        _SUCCESS: curve(of, "success")[k],
        _DRIFT: curve(of, "drift")[k],
        _RECOVERY_THERE: float(np.median([np.nanmedian(a["recovery"][k]) for a in of.values()])),
        _MOUTHS: min(float(np.mean(of[name]["success"][k])) for name in MOUTHS),
        _SPEARMAN: float(np.nanmean([np.nanmean(a["spearman"]) for a in of.values()])),
    }
    if others:
        found[_ERROR], found[_SAME_CALLS] = np.max([_against(family, other) for other in others], 0).tolist()
    return found


def _against(family: Sequence[Mapping[str, Any]], other: Mapping[str, Any]) -> tuple[float, float]:
    """Our error over that of a baseline: the default's, and of ours that need no more calls the least; NaN if none."""
    errors = _errors(other)
    ratios = [(error_ratio(_errors(row), errors), row["calls"] <= other["calls"]) for row in family]
    return ratios[0][0], min((ratio for ratio, is_as_cheap in ratios if is_as_cheap), default=float("nan"))


def _errors(row: Mapping[str, Any]) -> dict[str, list[float]]:
    return {name: curve(row["attributes"], name) for name in ("success", "rmse")}


def _arrays(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with what `_compared` needs of it, as arrays."""
    names = ("success", "drift", "recovery", "rmse", "spearman")
    return {
        **row,
        "attributes": {a: {name: np.asarray(of[name]) for name in names} for a, of in row["attributes"].items()},
    }


def _resampled(row: Mapping[str, Any], index: Mapping[str, NDArray[np.int64]]) -> dict[str, Any]:
    """A row as if other faces had been drawn."""
    attributes = {
        name: {measure: values[..., index[name]] for measure, values in of.items()}
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
        _at_level(rows, level, COLUMNS),
        "The same under the names that papers on counterfactuals use, with the cost of an image at one strength:",
        _at_level(rows, level, USUAL),
        *(
            [f"At {LEVEL}, the rows that reach it:", _at_level(rows, LEVEL, COLUMNS, every_row=False)]
            if level < LEVEL
            else []
        ),
        "By attribute, at the strength of the largest median recovery (median [95 % of the mean]; success):",
        page.markdown_table(["row", *ATTRIBUTES, "median"], attribute_rows),
        "Error of the default over that of each baseline, at a success that both reach:",
        _baseline_table(rows, size),
        page.markdown_table(["bar", "measured", "95 % interval", "limit", "met"], bar_rows),
    ]
    return "\n\n".join(parts)


def _baseline_table(rows: Rows, size: int) -> str:
    family = _family(rows, size)
    lines = [
        [key, *(f"{ratio:.2f}" for ratio in _against(family, row)), f"{row['calls']:.0f}"]
        for key, row in baselines(rows).items()
    ]
    return page.markdown_table(["baseline", "the default's", "the best of ours with no more calls", "calls"], lines)


def front_table(rows: Rows, size: int) -> str:
    """Quality against cost, by rising network calls, of all rows fitted on `size` faces or on none.

    Every row at the common success, or in brackets at its strongest. A row is on the front if no row that needs no more
    calls has as small an error.
    """
    level, lines = matched_level(rows, size), list[list[str]]()
    least = float("inf")
    shown = {key: row for key, row in rows.items() if row["num_train"] in (None, size)}
    for key, row in sorted(shown.items(), key=lambda item: item[1]["calls"]):
        matched = at_success(row, level)
        at = matched or {name: values[-1] for name, values in _curves(row).items()}
        is_on_front = matched is not None and at["rmse"] < least
        least = min(least, at["rmse"]) if matched else least
        cells = [f"{at[name]:.3f}" for name in ("success", "rmse", "recovery", "drift", "identity")]
        cells = [f"{_recoveries(row)[0]:.2f}", *(cells if matched else [f"({cell})" for cell in cells])]
        lines.append([key, f"{row['calls']:.0f}", f"{row['seconds']:.2f}", *cells, "yes" if is_on_front else ""])
    names = ("success", "RMSE to the truth", "recovery", "drift", "identity", "on the front")
    return page.markdown_table(["row", "calls", "seconds", "recovery at each attribute's best", *names], lines)


def _at_level(rows: Rows, level: float, columns: Mapping[str, str], *, every_row: bool = True) -> str:
    """One line a row: everything at one mean target success.

    Args:
        rows: All of them.
        level: The success.
        columns: Heading to the measure.
        every_row: Also those that do not reach it, at their strongest, in brackets.
    """
    lines: list[list[str]] = []
    for key, row in rows.items():
        matched = at_success(row, level)
        at = {**(matched or {name: values[-1] for name, values in _curves(row).items()}), **_costs(row)}
        cells = [
            f"{at[name]:.3f}" if name not in _DIGITS else f"{at[name]:{_DIGITS[name]}}" for name in columns.values()
        ]
        if matched:
            lines.append([key, *cells])
        elif every_row:
            lines.append([key, f"n/r ({cells[0]})", *(f"({cell})" for cell in cells[1:])])
    return page.markdown_table(["row", *columns], lines)


def _costs(row: Mapping[str, Any]) -> dict[str, float]:
    return {"calls": row["calls"], "seconds": row["seconds"]}
