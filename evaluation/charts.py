"""Line charts as geometry that templates/chart.svg.j2 draws: inline SVG, no script, no pictures.

Not matplotlib: class names are data here and would be read as formulas or as missing glyphs, and text in
the page's own font stays legible on a phone. Coordinates are SVG units; the page scales them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

LEFT, RIGHT, TOP, BOTTOM = 46.0, 344.0, 10.0, 196.0
"""The plot's edges in a drawing of 360 x 240 units."""
MAX_POINTS = 250
"""Longer series are drawn as the means of so many stretches."""

# Dark enough for 3:1 on white as lines, and told apart by most colour-blind readers; in order of use.
COLOURS = ("#1d5fa8", "#c4500a", "#0b7a5c", "#8a3ab9", "#b8156b", "#6b6a00", "#00728f", "#7a4a2b")
GREY = "#8d96a3"

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """One line: points by rising x."""

    name: str
    points: Sequence[Point]
    colour: str
    thick: bool = False


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on an axis in SVG units, and its label."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    """A series ready to draw: `d` is the path, `latest` the last value for the legend."""

    name: str
    d: str
    colour: str
    thick: bool
    latest: str
    is_dot: bool
    """A single point; the template draws it as a dot."""


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart ready to draw. `summary` is what a screen reader says."""

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
    """A chart of the series that have points; None when none has.

    Args:
        title: Stands above the chart.
        series: Drawn in order, the last on top.
        x_label: What the x axis counts.
        y_label: What the y axis counts.
        x_range: Ends of the axis; those of the data where not given.
        y_range: Ends of the axis; zero to the data's highest value where not given.
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
    """At most `MAX_POINTS`: the means of stretches of equal length."""
    if len(points) <= MAX_POINTS:
        return points
    edges = [round(n * len(points) / MAX_POINTS) for n in range(MAX_POINTS + 1)]
    stretches = [points[start:end] for start, end in pairwise(edges)]
    return [
        (sum(x for x, _ in stretch) / len(stretch), sum(y for _, y in stretch) / len(stretch)) for stretch in stretches
    ]


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) within low...high, about so many."""
    rough = (high - low) / about
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """Short and exact enough for an axis: 12k, 0.25, 1e-5."""
    size = abs(value)
    if size >= 10_000:
        return f"{value / 1000:.4g}k"
    if 0 < size < 0.001:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:.3g}" if size < 1000 else f"{value:.0f}"


def _path(points: Sequence[Point]) -> str:
    """SVG path data; a single point becomes a line of almost no length, whose round ends show."""
    commands = [f"{'L' if n else 'M'}{x:.1f},{y:.1f}" for n, (x, y) in enumerate(points)]
    return "".join(commands) + ("h0.01" if len(points) == 1 else "")
