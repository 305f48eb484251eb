"""From the numbers of single photographs to tables and bars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from benches import page
from benches.bars import Bar, bar, bar_table
from benches.photos.measure import PER_IMAGE
from benches.photos.recognition import SAME_PERSON
from boundaryflow.evaluation.intervals import bootstrap_interval, wilson_interval

OURS = "guided"
BUILT_IN, ELSEWHERE = "built in", "from elsewhere"
Values = dict[str, list[float]]


def shown(row: Mapping[str, Any], judge: str, strength: float | None = None) -> dict[str, Values]:
    """Attribute to the values of single photographs at one strength; None is the one with the highest success."""
    found: dict[str, Values] = {}
    for attribute, of in row["judges"].get(judge, {}).items():
        best = int(np.argmax(np.mean(of["success"], 1)))
        k = best if strength is None else list(row["strengths"]).index(strength)
        found[attribute] = {name: of[name][k] for name in PER_IMAGE}
        recognised = row["recognition"].get(attribute)
        found[attribute]["distance"] = recognised[k] if recognised else [np.nan] * len(of["success"][k])
        found[attribute] |= {"monotonicity": of["monotonicity"], "frechet": [of["frechet"][k]], "male": of["male"]}
    return found


def _lines(rows: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], float | None]]:
    """Names of lines, rows and the strength shown: every strength of the guided edit, of others the best."""
    for name, row in rows.items():
        if row["is_ours"]:
            yield from ((f"{name}, strength {strength:g}", row, strength) for strength in row["strengths"])
        elif "delivered" in row:
            share = np.mean(sum(row["delivered"].values(), []))
            yield f"{name}; {share:.2f} delivered", row, None
        else:
            yield name, row, None


def tables(found: Mapping[str, Any]) -> str:
    """A row per method and judge, success per attribute, side effects per gender, and the bars."""
    limit = found["same_person"]
    lines: list[list[str]] = []
    successes: list[list[str]] = []
    groups: list[list[str]] = []
    attributes = found["settings"]["attributes"]
    for name, row, strength in _lines(found["rows"]):
        for judge in row["judges"]:
            best = shown(row, judge, strength)
            if not best:
                continue
            lines.append([name, judge, *_pooled(best, limit)])
            successes.append([name, judge, *(_mean(best[a]["success"]) if a in best else "" for a in attributes)])
            if judge == BUILT_IN:
                groups.append([name, *_by_gender(best)])
    header = ["row", "judge", "success", "drift", "others changed", "same person", "same person (dlib)", "identity",
              "SSIM", "Fréchet distance", "monotonicity", "preserved"]  # fmt: skip
    return "\n\n".join(
        [
            page.markdown_table(header, lines),
            "Success per attribute:",
            page.markdown_table(["row", "judge", *attributes], successes),
            "Drift by gender, as the judge sees it before the edit, with 95 % intervals; edits of gender are left out:",
            page.markdown_table(["row", "women", "men"], groups),
            "Bars:",
            bar_table(found["bars"]),
        ]
    )


def bars(found: Mapping[str, Any]) -> list[Bar]:
    """What is asked of the guided edit at a strength of 1, and the same of what is delivered of it."""
    rows, limit = found["rows"], found["same_person"]
    of = _asked(rows[OURS], 1.0, limit, "")
    of.append(bar("largest difference at strength 0", rows[OURS]["strength_0_max_difference"], 0.0, "<="))
    for row in rows.values():
        if "delivered" in row:
            of += _asked(row, None, limit, "delivered: ")
    return of


def _asked(row: Mapping[str, Any], strength: float | None, limit: float, prefix: str) -> list[Bar]:
    mine, theirs = shown(row, BUILT_IN, strength), shown(row, ELSEWHERE, strength)
    no_gender = {name: of for name, of in mine.items() if name != "male"}
    distance = _known(_all(no_gender, "distance"))
    of = [
        bar(f"success of {name}, by a network from elsewhere", float(np.mean(theirs[name]["success"])), 0.9, ">=")
        for name in ("smiling", "male")
        if name in theirs
    ]
    of += [
        bar(f"success of {name}", float(np.mean(mine[name]["success"])), 0.85, ">=") for name in ("eyeglasses", "bangs")
    ]
    of.append(bar("same person, gender apart", _share(_all(no_gender, "identity"), limit), 0.9, ">="))
    if len(distance):
        same = float((distance < SAME_PERSON).mean())
        of.append(bar("same person by face recognition, gender apart", same, 0.9, ">="))
    others = float(np.nanmean(_all(mine, "others_changed")))
    smile, gender = (float(np.nanmean(mine[name]["preserved"])) for name in ("mouth_open", "blond_hair"))
    of.append(bar("other attributes changed", others, 0.02, "<="))
    of.append(bar("smile kept when the mouth opens or shuts", smile, 0.8, ">="))
    of.append(bar("gender kept when hair turns blond or not", gender, 0.95, ">="))
    return [{**one, "name": prefix + one["name"]} for one in of]


def _pooled(best: Mapping[str, Values], limit: float) -> list[str]:
    success = _all(best, "success")
    low, high = wilson_interval(int(success.sum()), len(success))
    identity = _all(best, "identity")
    is_known = not np.isnan(identity).all()
    return [
        f"{success.mean():.2f} [{low:.2f}, {high:.2f}]",
        _mean(_all(best, "drift"), 3),
        _mean(_all(best, "others_changed"), 3),
        f"{_share(identity, limit):.2f}" if is_known else "",
        _recognised(best),
        _mean(identity),
        _mean(_all(best, "ssim")),
        _mean(_all(best, "frechet")) if is_known else "",
        _mean(_all(best, "monotonicity")),
        _mean(_all(best, "preserved")),
    ]


def _by_gender(best: Mapping[str, Values]) -> list[str]:
    kept = [of for name, of in best.items() if name != "male"]
    every = np.concatenate([of["drift"] for of in kept])
    is_there = ~np.isnan(every)
    drift, male = every[is_there], np.concatenate([of["male"] for of in kept]).astype(bool)[is_there]
    cells: list[str] = []
    for values in (drift[~male], drift[male]):
        low, high = bootstrap_interval(values, 500, seed=0)
        cells.append(f"{values.mean():.3f} [{low:.3f}, {high:.3f}]")
    return cells


def _known(values: Any) -> Any:
    return values[~np.isnan(values)]


def _all(best: Mapping[str, Values], name: str) -> Any:
    return np.concatenate([np.array(of[name], float) for of in best.values()])


def _recognised(best: Mapping[str, Values]) -> str:
    distance = _all(best, "distance")
    known = _known(distance)
    return f"{(known < SAME_PERSON).mean():.2f}" if len(known) else ""


def _share(identity: Any, limit: float) -> float:
    return float((_known(identity) > limit).mean())


def _mean(values: Any, digits: int = 2) -> str:
    values = np.asarray(values, float)
    return "" if np.isnan(values).all() else f"{np.nanmean(values):.{digits}f}"
