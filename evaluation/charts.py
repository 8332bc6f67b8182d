"""Line charts as geometry, which templates/chart.svg.j2 draws: inline SVG without scripts or bitmaps.

Not matplotlib: it would read class names as formulas or draw missing glyphs, and text in the page's own font
stays legible on a phone. Coordinates are SVG units; the page scales them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

LEFT, RIGHT, TOP, BOTTOM = 46.0, 344.0, 10.0, 196.0
"""Edges of the plot in a drawing of 360 x 240 units."""
MAX_POINTS = 250
"""Longer series are reduced to this many points, by averaging."""

# Lines in these colours have a contrast of 3:1 on white, and most colour-blind readers can tell them apart.
# They are used in this order.
COLOURS = ("#1d5fa8", "#c4500a", "#0b7a5c", "#8a3ab9", "#b8156b", "#6b6a00", "#00728f", "#7a4a2b")
GREY = "#8d96a3"

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart. Points are in order of increasing x."""

    name: str
    points: Sequence[Point]
    colour: str
    thick: bool = False


@dataclass(frozen=True, slots=True)
class Tick:
    """A position on an axis in SVG units, and its label."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    """A series ready to draw. `d` is the SVG path, `latest` the last value, for the legend."""

    name: str
    d: str
    colour: str
    thick: bool
    latest: str
    is_dot: bool
    """Whether the series has a single point, which the template draws as a dot."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart ready to draw. `summary` is the text for screen readers."""

    title: str
    summary: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    marker: Tick | None = None


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    x_range: Point | None = None,
    y_range: Point | None = None,
    marker: float | None = None,
) -> Chart | None:
    """A chart of the series that have points; None when no series has any.

    Args:
        title: Shown above the chart.
        series: Drawn in this order, the last one on top.
        x_label: What the x axis counts.
        y_label: What the y axis counts.
        x_range: Ends of the x axis. Default: the range of the data.
        y_range: Ends of the y axis. Default: from zero to the highest value.
        marker: An x value to mark with a vertical line.
    """
    drawn = [entry for entry in series if entry.points]
    if not drawn:
        return None
    xs = [x for entry in drawn for x, _ in entry.points]
    low, high = x_range or (min(xs), max(xs))
    x_values = ticks(low, high, 6) if low < high else [low]
    if low == high:
        low, high = low - 1, high + 1
    bottom, top = y_range or (0.0, max(max(y for _, y in thinned(entry.points)) for entry in drawn))
    if top <= bottom:
        top = bottom + 1.0

    def x_of(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (RIGHT - LEFT)

    def y_of(value: float) -> float:
        return BOTTOM - (min(max(value, bottom), top) - bottom) / (top - bottom) * (BOTTOM - TOP)

    x_ticks = tuple(Tick(x_of(value), number(value)) for value in x_values)
    y_ticks = tuple(Tick(y_of(value), number(value)) for value in ticks(bottom, top, 5))
    lines = tuple(
        Line(
            entry.name,
            _path([(x_of(x), y_of(y)) for x, y in thinned(entry.points)]),
            entry.colour,
            entry.thick,
            number(entry.points[-1][1]),
            len(entry.points) == 1,
        )
        for entry in drawn
    )
    ends = "; ".join(f"{line.name} ends at {line.latest}" for line in lines)
    mark = None if marker is None else Tick(x_of(marker), f"{marker:.2f}")
    return Chart(title, f"{title}: {y_label} over {x_label}. {ends}.", x_label, y_label, x_ticks, y_ticks, lines, mark)


def thinned(points: Sequence[Point]) -> Sequence[Point]:
    """Reduce to at most `MAX_POINTS` points, each the mean of an equal part of the series."""
    if len(points) <= MAX_POINTS:
        return points
    edges = [round(n * len(points) / MAX_POINTS) for n in range(MAX_POINTS + 1)]
    stretches = [points[start:end] for start, end in pairwise(edges)]
    return [
        (sum(x for x, _ in stretch) / len(stretch), sum(y for _, y in stretch) / len(stretch)) for stretch in stretches
    ]


def ticks(low: float, high: float, about: int) -> list[float]:
    """About `about` round values within low...high, 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / about
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A number as an axis label: 12k, 0.25, 1e-5."""
    size = abs(value)
    if size >= 10_000:
        return f"{value / 1000:.4g}k"
    if 0 < size < 0.001:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:.3g}" if size < 1000 else f"{value:.0f}"


def _path(points: Sequence[Point]) -> str:
    """SVG path data. A single point becomes a very short line, whose round ends are visible."""
    commands = [f"{'L' if n else 'M'}{x:.1f},{y:.1f}" for n, (x, y) in enumerate(points)]
    return "".join(commands) + ("h0.01" if len(points) == 1 else "")
