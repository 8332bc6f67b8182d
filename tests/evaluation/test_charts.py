import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.charts import BOTTOM, LEFT, MAX_POINTS, RIGHT, TOP, Series, line_chart, number, thinned, ticks


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(3, 8))
def test_ticks_are_round_evenly_spaced_and_inside(low: float, span: float, about: int) -> None:
    found = ticks(low, low + span, about)
    slack = span * 1e-6 + 1e-9
    assert all(low - slack <= tick <= low + span + slack for tick in found)
    assert 1 <= len(found) <= about + 1
    if len(found) > 1:
        step = found[1] - found[0]
        mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
        assert min(abs(mantissa - factor) for factor in (1, 2, 5, 10)) < 0.01 + 1e-9 * abs(low) / step


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.25, "0.25"), (1e-5, "1e-5"), (2.5e-4, "2.5e-4"), (1200, "1200"), (90000, "90k"), (0.1 + 0.2, "0.3")],
)
def test_axis_labels_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_a_long_series_is_drawn_as_means_that_keep_its_level() -> None:
    points = [(float(n), float(n % 2)) for n in range(10_000)]
    drawn = thinned(points)
    assert len(drawn) == MAX_POINTS
    assert all(y == pytest.approx(0.5) for _, y in drawn)
    assert drawn[0][0] < 40
    assert drawn[-1][0] > 9960


def test_lines_stay_inside_the_plot_and_the_ends_lie_on_its_edges() -> None:
    chart = line_chart(
        "t", [Series("a", [(10, 2.0), (20, 900.0), (30, -4.0)], "#000")], x_label="x", y_label="y", y_range=(0, 10)
    )
    assert chart is not None
    points = [(float(x), float(y)) for x, y in re.findall(r"([\d.]+),([\d.]+)", chart.lines[0].d)]
    assert [x for x, _ in points] == [LEFT, (LEFT + RIGHT) / 2, RIGHT]
    assert [y for _, y in points][1:] == [TOP, BOTTOM]


def test_a_chart_without_points_is_none_and_one_point_is_a_dot() -> None:
    assert line_chart("t", [Series("a", [], "#000")], x_label="x", y_label="y") is None
    chart = line_chart("t", [Series("a", [(7, 0.0)], "#000")], x_label="step", y_label="y")
    assert chart is not None
    assert chart.lines[0].is_dot
    assert [tick.label for tick in chart.x_ticks] == ["7"]


def test_a_reader_without_eyes_hears_what_the_lines_end_at() -> None:
    chart = line_chart("Loss", [Series("total", [(1, 9.0), (2, 2.5)], "#000")], x_label="step", y_label="loss")
    assert chart is not None
    assert chart.summary == "Loss: loss over step. total ends at 2.5."
