"""Charts have their points where the numbers say."""

import math

import pytest

from training.report.charts import BOTTOM, HEIGHT, LEFT, MOST_POINTS, RIGHT, TOP, WIDTH, Axis, Series, chart
from training.report.markup import document, element


def points_of(drawn, kind="polyline"):
    return [
        tuple(map(float, point.split(",")))
        for line in drawn.iter(kind)
        if "curve" in line.get("class")
        for point in line.get("points").split()
    ]


def test_points_lie_on_their_axes():
    drawn = chart("t", [Series("a", "train", [(0, 0), (5, 50), (10, 100)])], "x", zero=True)
    (x0, y0), (x1, y1), (x2, y2) = points_of(drawn)
    assert LEFT < x0 < x1 < x2 < WIDTH - RIGHT
    assert y0 == HEIGHT - BOTTOM
    assert TOP < y2 < y1 < y0
    assert (x1, y1) == (pytest.approx((x0 + x2) / 2, abs=0.1), pytest.approx((y0 + y2) / 2, abs=0.1))


def test_decades_are_as_far_apart_as_each_other_on_a_logarithmic_axis():
    drawn = chart(
        "t", [Series("a", "train", [(1, 1e-3), (10, 1e-2), (100, 1e-1), (0, 1), (1, -1)])], "x", logs=(True, True)
    )
    (x0, y0), (x1, y1), (x2, y2) = points_of(drawn)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y1 - y0 == pytest.approx(y2 - y1, abs=0.2)


def test_a_curve_breaks_where_a_number_is_not_finite():
    drawn = chart("t", [Series("a", "train", [(1, 1), (2, 2), (3, math.nan), (4, 3), (5, math.inf), (6, 1)])], "x")
    assert len(list(drawn.iter("polyline"))) == 1
    assert len(list(drawn.iter("circle"))) == 4


@pytest.mark.parametrize("points", [[], [(1, 1)], [(1, 0), (2, 0)], [(1, 1e308), (2, -1e308)], [(1e-30, 1e-30)]])
@pytest.mark.parametrize("options", [{}, {"zero": True}, {"logs": (True, True)}, {"diagonal": True}, {"whole_x": True}])
def test_any_numbers_can_be_drawn(points, options):
    drawn = chart("t", [Series("a", "train", points)], "x", **options)
    for each in drawn.iter():
        assert not any("nan" in str(value) or "inf" in str(value) for value in each.attrib.values())


def test_long_curves_keep_their_ends_and_few_points():
    found = points_of(chart("t", [Series("a", "train", [(n, n) for n in range(250_000)])], "x"))
    assert len(found) == MOST_POINTS
    assert found[0][0] < LEFT + 20
    assert found[-1][0] > WIDTH - RIGHT - 20


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.93, 0.99), (-3, 1e6), (1e-9, 2e-9), (5, 5.0000001)])
def test_ticks_are_few_and_within_the_axis(low, high):
    ticks = Axis.over([low, high], 0, 100).ticks()
    assert 2 <= len(ticks) <= 7
    assert all(-1e-6 <= Axis.over([low, high], 0, 100).place(tick) <= 100 + 1e-6 for tick in ticks)
    assert all(tick == int(tick) for tick in Axis.over([1, 3], 0, 100).ticks(whole=True))


def test_texts_and_attributes_are_escaped():
    hostile = "</p><script>\x00\u2028&lt;"
    page = document(hostile, "b > i {}", [element("p", hostile, title='"><script>')])
    assert "<script>" not in page.replace('title="', "").replace('&quot;&gt;<script&gt;"', "")
    assert "b > i {}" in page
    assert "\x00" not in page
    assert "&lt;/p&gt;&lt;script&gt;\\x00\\u2028&amp;lt;" in page
