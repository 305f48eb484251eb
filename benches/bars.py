"""Bars: what a bench asks for, and whether it was met."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from benches import page

Bar = dict[str, Any]
MAX_DROP = 0.15


def bar(name: str, value: float, limit: float, direction: Literal["<=", ">="]) -> Bar:
    """One bar, as the JSON of a bench has it."""
    met = value <= limit if direction == "<=" else value >= limit
    return {"name": name, "value": round(value, 4), "limit": limit, "direction": direction, "met": bool(met)}


def bar_table(bars: Iterable[Bar]) -> str:
    """The bars as a table in Markdown."""
    rows = [
        [b["name"], f"{b['value']:.3g}", f"{b['direction']} {b['limit']:g}", "yes" if b["met"] else "**no**"]
        for b in bars
    ]
    return page.markdown_table(["bar", "measured", "limit", "met"], rows)


def beside(bars: Iterable[Bar], committed: Iterable[Bar]) -> tuple[str, list[str]]:
    """This run's values beside the committed ones.

    Returns:
        A table in Markdown; and the names of those that got worse by more than `MAX_DROP`, beyond what its limit allows
        where smaller is better.
    """
    before = {b["name"]: b["value"] for b in committed}
    rows: list[list[str]] = []
    dropped: list[str] = []
    for b in bars:
        value, was = b["value"], before.get(b["name"])
        is_worse = was is not None and (
            value < was * (1 - MAX_DROP)
            if b["direction"] == ">="
            else value > was * (1 + MAX_DROP) and value > b["limit"] / 2
        )
        dropped += [b["name"]] if is_worse else []
        change = "" if not was else f"{value / was - 1:+.0%}"
        rows.append(
            [b["name"], f"{value:.3g}", "" if was is None else f"{was:.3g}", change, "WORSE" if is_worse else ""]
        )
    return page.markdown_table(["bar", "this run", "committed", "change", ""], rows), dropped
