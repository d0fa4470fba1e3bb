"""The bench of the ranges: what is counted, and what its exit code says."""

import pytest

from bench import ranges
from bench.ranges import Cost


def test_every_range_of_a_step_is_counted(monkeypatch):
    monkeypatch.setattr(ranges, "STEPS", 20)
    monkeypatch.setattr(ranges, "CALLS", 1)
    monkeypatch.setattr(ranges, "ROUNDS", 1)
    cost = ranges.measure_ranges()
    # step, data, forward, loss twice, backward, update; and a block of the loader, which has several batches
    assert 7 <= cost.counts["with"] <= 8
    assert cost.counts["push and pop"] == 4  # of three layers both ways, the Relu along with the layer before it
    assert 8 <= cost.counts["operation"] <= 14
    assert set(cost.each) == set(cost.counts)
    assert cost.step > 0


@pytest.mark.parametrize(("each", "code"), [(1e-7, 0), (1e-5, 1)])
def test_the_exit_code_says_whether_the_limit_is_kept(bench, monkeypatch, each, code):
    monkeypatch.setattr(
        ranges,
        "measure_ranges",
        lambda: Cost(5e-4, {"with": 5.0, "operation": 10.0}, {"with": each, "operation": each}),
    )
    result = bench("ranges")
    assert result.code == code, result.err
    assert result.out.splitlines()[-1].startswith(f"15 ranges in a step of 500 us take {15 * each / 5e-4:.2%} of it")
