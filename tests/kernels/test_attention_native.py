"""Attention in C: tails of tiles and blocks, what a causal query sees, and bits that depend on nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend import workspace
from kernels.attention import attention
from tests.support.attention_reference import arrays, both, compare, plain
from tests.support.checks import DTYPES, assert_same, normal, thread_limit

pytestmark = pytest.mark.usefixtures("in_c")

LENGTHS = st.one_of(st.integers(1, 20), st.sampled_from([47, 48, 49, 63, 64, 65, 97, 113, 130, 145]))
DEPTHS = st.one_of(st.integers(1, 20), st.sampled_from([31, 32, 33, 63, 64, 65, 96, 130, 255, 256, 257]))
VIEWS = [False, True]


@settings(max_examples=120)
@given(st.integers(1, 3), LENGTHS, DEPTHS, st.sampled_from(DTYPES), st.booleans())
def test_every_tail(heads, length, depth, dtype, causal):
    shape = (1, heads, length, depth)
    given = arrays(shape, dtype)
    compare(both(*given, causal), plain(*given[:3], causal, given[3]), shape, dtype)


@pytest.mark.parametrize("causal", VIEWS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 5, 150, 33), (2, 7, 64, 64), (60, 4, 17, 40)], ids=str)
def test_threads_change_no_bit(shape, dtype, causal):
    given, results = arrays(shape, dtype), []
    for count in (1, 2, 3, 5):
        with thread_limit(count):
            results.append(both(*given, causal))
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert_same(two, one)


@pytest.mark.parametrize("causal", VIEWS)
@pytest.mark.parametrize("shape", [(1, 2, 70, 33), (1, 2, 130, 64), (2, 1, 5, 3)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_that_was_used_before_does_not_matter(monkeypatch, shape, dtype, causal):
    given = arrays(shape, dtype)
    clean, empty = both(*given, causal), workspace.empty

    def used(*arguments):
        array = empty(*arguments)
        array.fill(np.nan)
        return array

    monkeypatch.setattr(workspace, "empty", used)
    for one, two in zip(clean, both(*given, causal), strict=True):
        assert_same(two, one)


@pytest.mark.parametrize("place", [0, 1, 6, 47, 48, 63, 64, 65, 100, 129])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("depth", [5, 16])
def test_a_later_key_changes_no_bit_of_an_earlier_query(bad, place, depth):
    """Nor of the gradient of an earlier query."""
    q, k, v, dy = arrays((1, 2, 130, depth), "float32")
    clean = both(q, k, v, dy, True)
    k[0, 1, place], v[0, 1, place] = bad, bad
    seen = both(q, k, v, dy, True)
    for mine, right in zip(seen[:3], clean[:3], strict=True):  # y, log sums and dq
        assert_same(mine[0, 0], right[0, 0])
        assert_same(mine[0, 1, :place], right[0, 1, :place])
        assert not np.isfinite(mine[0, 1, place:]).all()


@pytest.mark.parametrize("place", [0, 1, 6, 47, 48, 63, 64, 65, 100, 129])
@pytest.mark.parametrize("depth", [5, 16])
def test_an_earlier_query_changes_no_bit_of_the_gradients_of_a_later_key(place, depth):
    q, k, v, dy = arrays((1, 2, 130, depth), "float32")
    clean = both(q, k, v, dy, True)
    q[0, 1, place] = np.nan
    dy[0, 1, place] = np.nan
    seen = both(q, k, v, dy, True)
    for mine, right in zip(seen[3:], clean[3:], strict=True):  # dk and dv
        assert_same(mine[0, 0], right[0, 0])
        assert_same(mine[0, 1, place + 1 :], right[0, 1, place + 1 :])
        assert np.isnan(mine[0, 1, : place + 1]).all()


@pytest.mark.parametrize("length", [1, 5, 48, 63, 65, 96, 129])
def test_a_causal_query_has_the_bits_of_a_shorter_sequence(length):
    q, k, v, _ = arrays((1, 2, 130, 20), "float32")
    whole = attention(q, k, v, causal=True)
    part = attention(q[:, :, :length], k[:, :, :length], v[:, :, :length], causal=True)
    for mine, right in zip(part, whole, strict=True):
        assert_same(mine, right[:, :, :length])


@pytest.mark.parametrize("causal", VIEWS)
def test_equal_scores_give_the_mean_of_the_values(causal):
    """Of whole numbers, whose sums are exact: each query has the mean of those that it sees."""
    length = 128
    q, v = np.zeros((1, 1, length, 7), "float32"), np.rint(8 * normal((1, 1, length, 7)))
    y, log_sums = attention(q, q, v, causal)
    count = np.arange(1, length + 1) if causal else np.full(length, length)
    sums = np.cumsum(v, axis=2) if causal else np.broadcast_to(v.sum(axis=2, keepdims=True), v.shape)
    assert_same(y, sums / count[:, None].astype("float32"))
    np.testing.assert_allclose(log_sums[0, 0], np.log(count), rtol=1e-6)
