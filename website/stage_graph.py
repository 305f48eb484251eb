"""The stage graph of docs/architecture.md as an SVG: Mermaid, which git hosts draw, is a script from elsewhere.

It is an N² chart: stages on the diagonal, in an order in which each comes after what it reads; a line leaves a stage to
the right, and goes down into the stage that reads from it, with a dot at the turn.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

import networkx as nx

_EDGE = re.compile(r"^(\w+)(?:\[\((.*?)\)\])? --(?: (.*?) -->|>) (\w+)$")
_WIDTH, _HEIGHT, _BOX = 104, 40, 26
_Edge = tuple[str, str, str]


def read_edges(mermaid: str) -> tuple[list[_Edge], dict[str, str]]:
    """Edges (from, to, what) of a Mermaid flowchart, and the names of nodes that have one of their own.

    Raises:
        ValueError: A line is none of the kinds that are known.
    """
    edges: list[_Edge] = []
    names: dict[str, str] = {}
    for line in (line.strip() for line in mermaid.strip().splitlines()[1:]):
        found = _EDGE.match(line)
        if found is None:
            raise ValueError(f"stage graph: {line!r} is no edge")
        edges.append((found[1], found[4], found[3] or ""))
        if found[2]:
            names[found[1]] = found[2]
    return edges, names


def as_svg(edges: Sequence[_Edge], names: dict[str, str]) -> str:
    """The chart."""
    graph = nx.DiGraph([(start, end) for start, end, _ in edges])
    order = list(nx.lexicographical_topological_sort(graph, key=list(graph).index))
    at = {node: (number * _WIDTH + _WIDTH / 2, number * _HEIGHT + _HEIGHT / 2) for number, node in enumerate(order)}
    width, height = len(order) * _WIDTH, len(order) * _HEIGHT
    parts = [f'<div class="stages"><svg viewBox="0 0 {width} {height}" role="img" aria-label="The stage graph">']
    for start, end, what in edges:
        (left, top), (right, bottom) = at[start], at[end]
        parts.append(f'<path d="M{left} {top} H{right} V{bottom}"/><circle cx="{right}" cy="{top}" r="3.5"/>')
        if what:
            parts.append(f'<text class="what" x="{right - 6}" y="{top - 5}">{escape(what)}</text>')
    for node, (x, y) in at.items():
        box = f'x="{x - _WIDTH / 2 + 4}" y="{y - _BOX / 2}" width="{_WIDTH - 8}" height="{_BOX}" rx="4"'
        parts.append(f'<rect {box}/><text x="{x}" y="{y + 4}">{escape(names.get(node, node))}</text>')
    return "".join([*parts, "</svg></div>"])
