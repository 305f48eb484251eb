"""Charts as inline SVG. Colours and fonts come from the page's style sheet, so they follow its colour scheme."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

LEFT, RIGHT, TOP, BOTTOM = 44, 14, 12, 38


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        x: Positions, rising.
        y: Values; NaN breaks the curve.
        label: Name, shown on hover.
        style: CSS class that gives the colour, such as `c1`.
        low: Lower end of a band around the curve, or None.
        high: Upper end.
        faint: Drawn thin, as one of many.
        dots: A dot with a tooltip at each value.
    """

    x: Sequence[float]
    y: Sequence[float]
    label: str
    style: str
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    faint: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Frame:
    """Axes of a chart: ranges in data units, sizes in SVG units."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    width: int
    height: int

    def x(self, value: float) -> float:
        """Horizontal position of a value."""
        low, high = self.x_range
        return LEFT + (value - low) / ((high - low) or 1) * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Vertical position of a value, clipped to the frame."""
        low, high = self.y_range
        inside = min(max(value, low), high)
        return self.height - BOTTOM - (inside - low) / ((high - low) or 1) * (self.height - TOP - BOTTOM)


def ticks(low: float, high: float, num: int = 5) -> list[float]:
    """About `num` round values between two ends."""
    if not high > low:
        return [low]
    raw = (high - low) / num
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """Text of a tick: at most six decimals, with a minus sign instead of a hyphen."""
    return f"{round(value, 6):g}".replace("-", "−")


def line_chart(
    lines: Sequence[Line],
    *,
    name: str,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    x_ticks: Sequence[float] | None = None,
    mark: tuple[float, str] | None = None,
    size: tuple[int, int] = (360, 230),
) -> Markup:
    """Curves over a common axis.

    Args:
        lines: The curves, drawn in order.
        name: What the chart shows, for screen readers.
        x_label: Under the axis.
        y_label: Above the axis.
        y_range: Ends of the vertical axis; values beyond are drawn at the end. None fits the data.
        x_ticks: Where to put ticks; None chooses.
        mark: Position of a vertical line, and its text.
        size: Width and height in SVG units.
    """
    xs = [v for line in lines for v in line.x]
    bands = [band for line in lines for band in (line.y, line.low or (), line.high or ())]
    ys = [v for band in bands for v in band if not math.isnan(v)] or [0.0, 1.0]
    frame = Frame((min(xs), max(xs)), y_range or _padded(min(ys), max(ys)), *size)
    parts = [_axes(frame, x_label, y_label, x_ticks)]
    parts += [_band(frame, line) for line in lines if line.low is not None]
    if mark is not None:
        parts.append(_mark(frame, *mark))
    parts += [_curve(frame, line) for line in lines]
    return _svg(name, size, parts)


def histogram(
    groups: Mapping[str, Sequence[float]],
    styles: Mapping[str, str],
    *,
    name: str,
    x_label: str,
    num_bins: int = 28,
    x_range: tuple[float, float] | None = None,
    mark: tuple[float, str] | None = None,
    size: tuple[int, int] = (300, 170),
) -> Markup:
    """Overlaid histograms, each as a share of its own group, so that unequal groups compare.

    Args:
        groups: Group name to values.
        styles: Group name to CSS class.
        name: What the chart shows, for screen readers.
        x_label: Under the axis.
        num_bins: Bins over the range.
        x_range: Ends of the axis; None fits the data.
        mark: Position of a vertical line, and its text.
        size: Width and height in SVG units.
    """
    together = [v for values in groups.values() for v in values] or [0.0, 1.0]
    low, high = x_range or _padded(min(together), max(together))
    edges = np.linspace(low, high, num_bins + 1)
    counts = {group: np.histogram(np.asarray(values, np.float64), edges)[0] for group, values in groups.items()}
    shares = {group: count / max(len(groups[group]), 1) for group, count in counts.items()}
    top = max((float(share.max()) for share in shares.values()), default=0.0) or 1.0
    frame = Frame((low, high), (0, top * 1.08), *size)
    parts = [_axes(frame, x_label, "", None, y_ticks=())]
    if mark is not None:
        parts.append(_mark(frame, *mark))
    for group, share in shares.items():
        for edge, end, value, count in zip(edges, edges[1:], share, counts[group], strict=False):
            if count:
                x, y = frame.x(float(edge)), frame.y(float(value))
                parts.append(
                    f'<rect class="bin {styles[group]}" x="{x:.2f}" y="{y:.2f}" '
                    f'width="{frame.x(float(end)) - x - 0.6:.2f}" height="{frame.height - BOTTOM - y:.2f}">'
                    f"<title>{escape(group)}: {count} of {len(groups[group])}</title></rect>"
                )
    return _svg(name, size, parts)


def stage_graph(nodes: Sequence[tuple[str, str]], edges: Sequence[tuple[str, str]], *, name: str) -> Markup:
    """Stages in a row, in the order given, with an arc for each dependency.

    Dependencies of the last stage run below the row, the others above it.

    Args:
        nodes: Stage name, and one line on what it does.
        edges: (from, to) pairs of stage names.
        name: What the chart shows, for screen readers.
    """
    box, gap, tall = 112, 26, 50
    position = {node: index for index, (node, _) in enumerate(nodes)}
    spans = [position[b] - position[a] for a, b in edges if position[b] > position[a]]
    reach = round(10.5 * max([s for s in spans if s > 1], default=0)) + 8
    width, height = len(nodes) * (box + gap) - gap + 4, tall + 2 * reach
    last = nodes[-1][0] if nodes else ""

    def arc(a: str, b: str) -> str:
        span = position[b] - position[a]
        start, end = position[a] * (box + gap) + 2, position[b] * (box + gap) + 2
        if span == 1:
            y = reach + tall / 2
            line, head = f"M{start + box:g} {y:g}H{end - 5:g}", f"M{end:g} {y:g}l-7 -4v8z"
            return f'<path class="edge" d="{line}"/><path class="tip" d="{head}"/>'
        down = b == last
        y, lift = (reach + tall, 14 * span) if down else (reach, -14 * span)
        x0, x1 = start + box * (0.60 + 0.025 * span), end + box * (0.42 - 0.04 * span)
        tip = -5 if not down else 5
        path = f'd="M{x0:.1f} {y:g}C{x0:.1f} {y + lift:g} {x1:.1f} {y + lift:g} {x1:.1f} {y + tip:g}"'
        head = f'd="M{x1:.1f} {y:g}l-3.5 {1.4 * tip:g}h7z"'
        return f'<g class="far"><path class="edge" {path}/><path class="tip" {head}/></g>'

    parts = [arc(a, b) for a, b in edges if position[b] > position[a]]
    for node, meaning in nodes:
        x = position[node] * (box + gap) + 2
        parts.append(
            f'<a href="#stage-{escape(node)}"><g class="node"><title>{escape(meaning)}</title>'
            f'<rect x="{x}" y="{reach}" width="{box}" height="{tall}" rx="10"/>'
            f'<text class="name" x="{x + box / 2:g}" y="{reach + 30}">{escape(node)}</text></g></a>'
        )
    return Markup(  # noqa: S704 - every text in it is escaped above
        f'<svg class="graph" viewBox="0 0 {width} {height}" style="min-width:{0.8 * width:.0f}px" role="img" '
        f'aria-label="{escape(name)}">{"".join(parts)}</svg>'
    )


def _padded(low: float, high: float) -> tuple[float, float]:
    pad = 0.05 * (high - low) or 0.5
    return low - pad, high + pad


def _svg(name: str, size: tuple[int, int], parts: Sequence[str]) -> Markup:
    about = f'class="chart" viewBox="0 0 {size[0]} {size[1]}" role="img" aria-label="{escape(name)}"'
    return Markup(f"<svg {about}>{''.join(parts)}</svg>")  # noqa: S704 - every text in it is escaped where it is made


def _axes(
    frame: Frame, x_label: str, y_label: str, x_ticks: Sequence[float] | None, y_ticks: Sequence[float] | None = None
) -> str:
    floor, end = frame.height - BOTTOM, frame.width - RIGHT
    parts: list[str] = []
    for value in ticks(*frame.y_range, 4) if y_ticks is None else y_ticks:
        y = frame.y(value)
        zero = " zero" if value == 0 and frame.y_range[0] < 0 else ""
        parts.append(f'<line class="rule{zero}" x1="{LEFT}" x2="{end}" y1="{y:.2f}" y2="{y:.2f}"/>')
        parts.append(f'<text class="tick y" x="{LEFT - 7}" y="{y + 3.6:.2f}">{number(value)}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{end}" y1="{floor}" y2="{floor}"/>')
    for value in ticks(*frame.x_range, 6) if x_ticks is None else x_ticks:
        parts.append(f'<text class="tick x" x="{frame.x(value):.2f}" y="{floor + 15}">{number(value)}</text>')
    parts.append(f'<text class="label x" x="{(LEFT + end) / 2:g}" y="{frame.height - 6}">{escape(x_label)}</text>')
    if y_label:
        middle = f"{(TOP + floor) / 2:g}"
        turned = f'x="11" y="{middle}" transform="rotate(-90 11 {middle})"'
        parts.append(f'<text class="label x" {turned}>{escape(y_label)}</text>')
    return "".join(parts)


def _runs(line: Line) -> list[list[int]]:
    """Positions of unbroken stretches of a curve."""
    runs: list[list[int]] = [[]]
    for index, value in enumerate(line.y):
        if math.isnan(value):
            runs.append([])
        else:
            runs[-1].append(index)
    return [run for run in runs if run]


def _curve(frame: Frame, line: Line) -> str:
    width = "thin" if line.faint else "thick"
    parts: list[str] = []
    for run in _runs(line):
        points = " ".join(f"{frame.x(line.x[i]):.2f},{frame.y(line.y[i]):.2f}" for i in run)
        title = f"<title>{escape(line.label)}</title>"
        parts.append(f'<polyline class="line {width} {line.style}" points="{points}">{title}</polyline>')
        if line.dots:
            parts += [
                f'<circle class="dot {line.style}" cx="{frame.x(line.x[i]):.2f}" cy="{frame.y(line.y[i]):.2f}" r="3.2">'
                f"<title>{escape(line.label)} at {number(line.x[i])}: {number(round(line.y[i], 3))}</title></circle>"
                for i in run
            ]
    return "".join(parts)


def _band(frame: Frame, line: Line) -> str:
    low, high = line.low or (), line.high or ()
    known = [i for i in range(len(line.x)) if not (math.isnan(low[i]) or math.isnan(high[i]))]
    if len(known) < 2:
        return ""
    points = [(line.x[i], high[i]) for i in known] + [(line.x[i], low[i]) for i in reversed(known)]
    path = " ".join(f"{frame.x(x):.2f},{frame.y(y):.2f}" for x, y in points)
    return f'<polygon class="band {line.style}" points="{path}"/>'


def _mark(frame: Frame, position: float, text: str) -> str:
    x = frame.x(position)
    side, anchor = (-5, "end") if x > 0.6 * frame.width else (5, "start")
    return (
        f'<line class="mark" x1="{x:.2f}" x2="{x:.2f}" y1="{TOP - 4}" y2="{frame.height - BOTTOM}"/>'
        f'<text class="marktext" text-anchor="{anchor}" x="{x + side:.2f}" y="{TOP + 5}">{escape(text)}</text>'
    )
