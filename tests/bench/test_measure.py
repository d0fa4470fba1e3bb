import pytest

from bench import measure, sides, timing
from bench.sides import Case, Side
from bench.workloads import DisagreementError, workloads

XPNET = sides.load("xpnet")
SOFTMAX = next(each for each in workloads() if each.name == "softmax")


class Other(Side):
    """A side with ways that cost what the test says; the name of a way tells it what to compute."""

    name = "other"

    def __init__(self, *ways):
        self._ways = ways

    def ways(self, operation, images):
        return self._ways

    def softmax_cross_entropy(self, x, t, way=""):
        case = XPNET.softmax_cross_entropy(x, t)
        if way == "wrong":
            return Case(case.step, lambda: {"dx": 2 * case.values()["dx"]})
        return case if way else None


@pytest.fixture
def costs(monkeypatch):
    """Three ways are tried in two rounds, and cost so many seconds."""
    costs = iter([0.3, 0.4, 0.2, 0.5, 0.1, 0.6])
    monkeypatch.setattr(timing, "quick_time", lambda case: next(costs))


def test_the_fastest_way_is_compared_and_all_are_told(costs):
    row = measure.measure(SOFTMAX, [XPNET, Other("a", "b", "c")], 1, 1, 0)
    figures = row["sides"]["other"]
    assert figures["way"] == "b"
    assert figures["tried_ms"] == pytest.approx({"b": 100, "c": 200, "a": 300})
    assert row["ratios"] == {"other": row["sides"]["xpnet"]["ms"] / figures["ms"]}


def test_every_way_has_to_agree(costs):
    with pytest.raises(DisagreementError, match=r"dx of other \(wrong\) differs from xpnet's by 1\.0e\+00"):
        measure.measure(SOFTMAX, [XPNET, Other("a", "wrong")], 1, 1, 0)


def test_a_side_that_cannot_do_it_is_left_out():
    row = measure.measure(SOFTMAX, [XPNET, Other("")], 1, 1, 0)
    assert list(row["sides"]) == ["xpnet"]
    assert row["ratios"] == {}
