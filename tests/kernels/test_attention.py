"""Attention against softmax(q·kᵀ / √D)·v written out in float64, and against PyTorch."""

import tracemalloc

import numpy as np
import pytest

import backend
from backend import asnumpy, workspace
from kernels import attention as module
from kernels.attention import attention, attention_backward
from kernels.core import native
from tests.support.attention_reference import arrays, both, compare, plain
from tests.support.checks import (
    DTYPES,
    LAYOUTS,
    assert_same,
    assert_separate,
    check_gradient,
    frozen,
    normal,
    thread_limit,
)
from tests.support.device_memory import peak_bytes

SHAPES = [(2, 3, 7, 5), (1, 2, 33, 8), (3, 1, 1, 4), (1, 1, 1, 1), (1, 2, 70, 33), (1, 1, 40, 130)]
EMPTY = [(0, 2, 5, 4), (2, 0, 5, 4), (2, 3, 0, 4)]
VIEWS = [False, True]

CASES = [(dtype, "contiguous") for dtype in DTYPES] + [("float32", layout) for layout in LAYOUTS[1:]]


@pytest.mark.parametrize("causal", VIEWS)
@pytest.mark.parametrize(("dtype", "layout"), CASES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values(device, shape, dtype, layout, causal):
    given = q, k, v, dy = arrays(shape, dtype, layout)
    with frozen(*given):
        y, log_sums = attention(q, k, v, causal)
    given = [*given, y, log_sums]
    with frozen(*given):
        gradients = attention_backward(dy, q, k, v, y, log_sums, causal)
    assert_separate((y, log_sums, *gradients), given[:4])
    compare((y, log_sums, *gradients), plain(q, k, v, causal, dy), shape, dtype)


@pytest.mark.parametrize("causal", VIEWS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pytorch(device, shape, causal):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: attention is not compared with it")
    q, k, v, dy = arrays(shape, "float64")
    tensors = [torch.from_numpy(asnumpy(array)).requires_grad_() for array in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(*tensors, is_causal=causal)
    expected.backward(torch.from_numpy(asnumpy(dy)))
    y, _, *gradients = both(q, k, v, dy, causal)
    for mine, theirs in zip((y, *gradients), (expected.detach(), *(each.grad for each in tensors)), strict=True):
        np.testing.assert_allclose(asnumpy(mine), theirs.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("causal", VIEWS)
def test_gradients(device, causal):
    q, k, v, dy = arrays((2, 2, 6, 3), "float64")
    *_, dq, dk, dv = both(q, k, v, dy, causal)
    check_gradient(lambda *moved: (attention(*moved, causal)[0] * dy).sum(), [q, k, v], [dq, dk, dv])


@pytest.mark.parametrize("shape", EMPTY, ids=str)
def test_no_numbers(device, shape):
    q, k, v, dy = arrays(shape, "float32")
    y, log_sums, *gradients = both(q, k, v, dy, True)
    assert log_sums.shape == shape[:3]
    assert all(array.shape == shape and array.dtype == "float32" for array in (y, *gradients))


@pytest.mark.parametrize("causal", VIEWS)
def test_large_scores_do_not_overflow(device, causal):
    """exp(score) alone would: the largest score of a row comes off first, whichever tile it is in."""
    q, k, v, dy = arrays((1, 1, 67, 2), "float32")
    q, k = q * 60, k * 60
    y, log_sums, *gradients = both(q, k, v, dy, causal)
    expected = plain(q, k, v, causal)
    assert float(abs(log_sums).max()) > 1000
    np.testing.assert_allclose(asnumpy(y), expected[0][0], atol=5e-3)  # scores of 10⁴ are rounded to 10⁻³
    np.testing.assert_allclose(asnumpy(log_sums), expected[1][0], rtol=1e-6)
    assert all(np.isfinite(asnumpy(array)).all() for array in gradients)


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:divide by zero")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_query_reaches_its_row_and_no_other(device, bad):
    q, k, v, dy = arrays((2, 1, 40, 3), "float32")
    q[1, 0, 35] = bad
    y, log_sums, dq, dk, dv = map(asnumpy, both(q, k, v, dy, False))
    for array in (y, log_sums, dq):
        assert np.isnan(array[1, 0, 35]).all()
        assert np.isfinite(array[0]).all()
        assert np.isfinite(array[1, 0, :35]).all()
        assert np.isfinite(array[1, 0, 36:]).all()
    for array in (dk, dv):
        assert np.isfinite(array[0]).all()
        assert np.isnan(array[1]).any(axis=(0, 2)).all()


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:divide by zero")
@pytest.mark.parametrize("place", [0, 33, 39])
@pytest.mark.parametrize("which", ["k", "v"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_causal_query_sees_nothing_of_a_later_key(device, which, bad, place):
    given = dict(zip("qkv", arrays((1, 2, 40, 3), "float32"), strict=False))
    dy = normal((1, 2, 40, 3), seed=5)
    clean = [asnumpy(array) for array in both(*given.values(), dy, True)]
    given[which][0, 1, place] = bad
    seen = [asnumpy(array) for array in both(*given.values(), dy, True)]
    for mine, right in zip(seen[:3], clean[:3], strict=True):  # y, log sums and dq
        np.testing.assert_allclose(mine[0, 0], right[0, 0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(mine[0, 1, :place], right[0, 1, :place], rtol=1e-5, atol=1e-6)
    if which == "v" or np.isnan(bad):
        assert not np.isfinite(seen[0][0, 1, place:]).any()


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:divide by zero")
def test_scores_of_minus_infinity(device):
    """Such a key has no weight, also where a whole tile of keys is such; a row of these alone is NaN."""
    q, k, v, _ = arrays((1, 1, 70, 2), "float32")
    q[...] = abs(q)
    k[0, 0, :50] = -np.inf
    seen = asnumpy(attention(q, k, v)[0])
    expected = attention(q[:, :, :20].copy(), k[:, :, 50:].copy(), v[:, :, 50:].copy())[0]
    np.testing.assert_allclose(seen[:, :, :20], asnumpy(expected), rtol=1e-5, atol=1e-6)
    k[...] = -np.inf
    assert all(np.isnan(asnumpy(array)).all() for array in attention(q, k, v))


@pytest.mark.parametrize("causal", VIEWS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_change_no_bit(device, dtype, causal):
    """Of sequences longer and shorter than the blocks of queries that NumPy and the C kernels take."""
    for shape in ((1, 3, 70, 6), (3, 4, 9, 5)):
        q, k, v, dy = arrays(shape, dtype)
        results = []
        for count in (1, 2, 3):
            with thread_limit(count):
                results.append(both(q, k, v, dy, causal))
        for other in results[1:]:
            for one, two in zip(results[0], other, strict=True):
                assert_same(two, one)
        compare(results[0], plain(q, k, v, causal, dy), shape, dtype)


@pytest.mark.parametrize("causal", VIEWS)
@pytest.mark.parametrize("queries", [1, 3, 70, 1000])
def test_numpy_computes_by_any_block_of_queries(monkeypatch, queries, causal):
    monkeypatch.setattr(module, "_QUERIES", queries)
    shape = (2, 3, 70, 6)
    with backend.use("cpu"), native.enabled(False):
        q, k, v, dy = arrays(shape, "float32")
        compare(both(q, k, v, dy, causal), plain(q, k, v, causal, dy), shape, "float32")


@pytest.mark.gpu
@pytest.mark.parametrize("causal", VIEWS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_devices_agree(dtype, causal):
    shape, results = (2, 2, 37, 9), []
    for device in ("cpu", "cuda"):
        with backend.use(device):
            results.append([asnumpy(array) for array in both(*arrays(shape, dtype), causal)])
    for mine, other in zip(*results, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=float(8 * np.finfo(dtype).eps) * np.abs(other).max())


@pytest.mark.parametrize("causal", VIEWS)
@pytest.mark.parametrize("in_c", [False, True])
def test_memory_does_not_grow_with_the_square_of_the_length(in_c, causal):
    """A matrix of scores would be 64 MiB for the longer sequence; what grows is of the size of the arrays."""
    if in_c and not native.available():
        pytest.skip("the C kernels were not built")
    peaks = {}
    with backend.use("cpu"), native.enabled(in_c), thread_limit(1):
        for length in (1024, 4096):
            q, k, v, dy = arrays((1, 1, length, 4), "float32")
            workspace.clear()
            tracemalloc.start()
            try:
                both(q, k, v, dy, causal)
                peaks[length] = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
    assert peaks[4096] < 4096**2  # bytes: a quarter of one such matrix
    assert peaks[4096] - peaks[1024] < 4096**2 // 2


@pytest.mark.gpu
@pytest.mark.parametrize("causal", VIEWS)
def test_memory_of_a_gpu_does_not_grow_with_the_square_of_the_length(causal):
    """A matrix of scores would be 4 MiB for the longer sequence, sixteen times as much as for the shorter."""
    peaks = {}
    with backend.use("cuda"):
        for length in (256, 1024):
            given = arrays((1, 1, length, 4), "float32")
            both(*given, causal)  # compiles, and makes what is kept for all calls
            with peak_bytes() as peak:
                results = both(*given, causal)
            peaks[length] = peak.most
            assert peak.most >= sum(array.nbytes for array in results)
    assert peaks[1024] < 1024**2  # bytes: a quarter of one such matrix
    assert peaks[1024] <= 4 * peaks[256]


def test_what_does_not_fit_is_refused(device):
    q, k, v, dy = arrays((2, 2, 5, 3), "float32")
    y, log_sums = attention(q, k, v)
    with pytest.raises(ValueError, match=r"one shape \(N, heads, T, D\), got q \(2, 2, 5, 3\), k \(2, 2, 4, 3\)"):
        attention(q, k[:, :, 1:], v)
    with pytest.raises(ValueError, match=r"one shape \(N, heads, T, D\), got q \(2, 5, 3\)"):
        attention(q[:, 0], k[:, 0], v[:, 0])
    with pytest.raises(ValueError, match="heads of at least one number"):
        attention(q[..., :0], k[..., :0], v[..., :0])
    with pytest.raises(TypeError, match="one dtype, got q float32 and v float64"):
        attention(q, k, v.astype("float64"))
    with pytest.raises(TypeError, match="needs float16, float32 or float64, got int32"):
        attention(*(array.astype("int32") for array in (q, k, v)))
    with pytest.raises(TypeError, match="causal"):
        attention(q, k, v, "yes")
    with pytest.raises(ValueError, match=r"log_sums must be \(2, 2, 5\) of float32, got \(2, 2, 4\)"):
        attention_backward(dy, q, k, v, y, log_sums[..., 1:])
    with pytest.raises(ValueError, match=r"log_sums must be .* of float32, got .* of float64"):
        attention_backward(dy, q, k, v, y, log_sums.astype("float64"))
