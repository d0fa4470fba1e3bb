"""What a convolution measures of its output for a batch normalization: against float64, and against doing it apart."""

import numpy as np
import pytest
from hypothesis import strategies as st

import backend
from backend import asnumpy, xp
from kernels import batch_statistics
from kernels.batch_norm import batch_norm
from kernels.convolution import convolution, convolution_measured
from kernels.core import native
from kernels.core.columns import columns
from kernels.core.window import Window
from kernels.implicit_gemm import active_capability
from tests.support import oracles
from tests.support.checks import DTYPES, assert_close, assert_same, for_all, frozen, normal, thread_limit

CASES = st.tuples(
    st.integers(1, 9),  # images
    st.integers(1, 5),  # channels of a group
    st.tuples(st.integers(1, 12), st.integers(1, 40)),  # the image
    st.integers(1, 20) | st.sampled_from([33, 64, 65, 130]),  # filters of a group
    st.sampled_from([Window(1), Window(3, 1, 1), Window(3, 2, 1), Window((1, 2), 1, (1, 1)), Window(3, 1, 2, 2)]),
    st.integers(1, 2),  # groups
    st.booleans(),  # bias
)


def measures(dtype):
    """Whether the arrays' device has kernels that measure an output of this dtype; a GPU does it by tensor cores."""
    capability = active_capability()
    return native.available() if capability is None else dtype != "float64" and capability >= 80


def check_moments(y, moments):
    """Moments of a float16 or float32 or float64 y against those of the same numbers in float64."""
    rows = np.moveaxis(asnumpy(y), 1, -1).reshape(-1, y.shape[1])
    (mean, variance), wide = batch_statistics.joined(moments), asnumpy(moments.means).dtype
    assert moments.rows == len(rows)
    assert wide == ("float32" if rows.dtype == "float16" else rows.dtype)
    _, means, variances = oracles.batch_norm(rows, np.ones(rows.shape[1]), np.zeros(rows.shape[1]), 1.0)
    sizes, eps = np.abs(np.float64(rows)).mean(axis=0), np.finfo(wide).eps
    assert_close(mean, means, wide, terms=len(rows) + 1, magnitude=sizes)
    spread = np.sqrt(variances) + (len(rows) + 2) * eps * sizes
    assert_close(variance, variances, wide, terms=len(rows) + 4, magnitude=variances + 4 * spread * sizes)


def test_moments_of_every_geometry(device):
    @for_all(device, CASES, st.sampled_from(DTYPES), st.integers(0, 1000))
    def check(case, dtype, seed):
        n, own, image, filters, window, groups, has_bias = case
        x, weight = (
            normal((n, own * groups, *image), dtype, seed),
            normal((filters * groups, own, *window.kernel), dtype),
        )
        bias = normal((filters * groups,), dtype, seed + 2) * 4 if has_bias else None
        if min(window.over(image).output) < 1:
            return
        with frozen(*([x, weight] if bias is None else [x, weight, bias])):
            y, moments = convolution_measured(x, weight, bias, window, groups)
        assert_same(y, asnumpy(convolution(x, weight, bias, window, groups)), dtype)
        if moments is not None:
            check_moments(y, moments)


@pytest.mark.parametrize("dtype", DTYPES)
def test_which_ways_measure(device, dtype):
    """NumPy's convolution does not, nor one of float64 or without tensor cores on a GPU, nor one without results."""
    x, weight = normal((2, 3, 6, 6), dtype), normal((4, 3, 3, 3), dtype)
    moments = convolution_measured(x, weight, None, Window(3, 1, 1))[1]
    assert (moments is not None) == measures(dtype)
    y, moments = convolution_measured(x[:0], weight, None, Window(3, 1, 1))
    assert (y.shape, moments) == ((0, 4, 6, 6), None)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("multiplier", [1, 3])
@pytest.mark.parametrize("channels", [2, 16, 65, 200])
def test_moments_of_a_depthwise_convolution(device, channels, multiplier, dtype):
    """C takes them, of blocks of whole rows of pixels: here some, of which the last has fewer."""
    x, weight = normal((7, channels, 9, 14), dtype), normal((channels * multiplier, 1, 3, 3), dtype, 1)
    bias = normal((channels * multiplier,), dtype, 2) * 4
    with frozen(x, weight, bias):
        y, moments = convolution_measured(x, weight, bias, Window(3, 1, 1), channels)
    assert_same(y, asnumpy(convolution(x, weight, bias, Window(3, 1, 1), channels)), dtype)
    assert (moments is not None) == (active_capability() is None and native.available())
    if moments is not None:
        assert len(moments.means) > 1
        check_moments(y, moments)


def test_moments_do_not_cancel(device):
    """E[x²] - E[x]² in float32 would be 0 or worse for numbers near 10⁴ that spread by 1."""
    image = backend.asarray(np.resize(np.array([1, -1], "float32"), (3, 1, 16, 16)))
    _, moments = convolution_measured(image, xp.ones((1, 1, 1, 1), "float32"), xp.full(1, 1e4, "float32"), Window(1))
    if moments is not None:
        mean, variance = batch_statistics.joined(moments)
        assert (float(mean[0]), float(variance[0])) == (1e4, 1.0)


@pytest.mark.filterwarnings("ignore:invalid value")  # a BLAS multiplies infinity by the zeros that it pads with
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_measured(device, value):
    x = normal((2, 3, 9, 9), "float32")
    x[1, 2, 4, 4] = value
    _, moments = convolution_measured(x, normal((4, 3, 3, 3), "float32"), None, Window(3, 1, 1))
    if moments is not None:
        assert np.isnan(asnumpy(batch_statistics.joined(moments)[1])).all()


@pytest.mark.parametrize("shape", [(20, 3, 8, 8), (3, 5, 17, 31), (40, 4, 4, 4), (2, 2, 60, 33)], ids=str)
@pytest.mark.parametrize("filters", [3, 16, 100])
@pytest.mark.parametrize("is_depthwise", [False, True])
@pytest.mark.usefixtures("in_c")
def test_threads_change_no_bit(shape, filters, is_depthwise, monkeypatch):
    monkeypatch.setattr("backend.tuning.WORTH_CUTTING", 1)
    groups = shape[1] if is_depthwise else 1
    x, weight = normal(shape, "float32"), normal((filters * groups, shape[1] // groups, 3, 3), "float32")
    found = []
    for count in (1, 2, 3, 5):
        with thread_limit(count):
            y, moments = convolution_measured(x, weight, None, Window(3, 1, 1), groups)
        found.append((y, moments.means, moments.squares))
    for other in found[1:]:
        for expected, array in zip(found[0], other, strict=True):
            assert np.array_equal(expected, array)


@pytest.mark.parametrize("rows", [1, 5, 100, 4096, 5000])
@pytest.mark.parametrize("channels", [1, 3, 16, 65, 600])
@pytest.mark.parametrize("run", [1, 2, 7, 32, 300])
def test_blocks_have_whole_runs(rows, channels, run):
    cut = columns(rows * run, channels, run)
    assert cut.block_rows * cut.fold % run == 0
    assert cut.block_size == cut.block_rows * cut.width
    assert cut.parts == cut.blocks * cut.fold + rows * run % cut.fold
    assert (cut.blocks - 1) * cut.block_rows < rows * run // cut.fold <= cut.blocks * cut.block_rows


@pytest.mark.parametrize("relu", [False, True])
def test_normalization_by_given_moments(device, relu):
    x, weight = normal((40, 3, 12, 12), "float32"), normal((6, 3, 3, 3), "float32")
    y, moments = convolution_measured(x, weight, None, Window(3, 1, 1))
    rows = y.transpose(0, 2, 3, 1).reshape(-1, 6)
    gamma, beta = normal((6,), "float32"), normal((6,), "float32")
    running = [[xp.ones(6, "float32") for _ in range(2)] for _ in range(2)]
    apart = batch_norm(rows, gamma, beta, *running[0], 1e-5, 0.9, relu)
    given = batch_norm(rows, gamma, beta, *running[1], 1e-5, 0.9, relu, measured=moments)
    for one, other in zip((*apart[:3], *running[0]), (*given[:3], *running[1]), strict=True):
        np.testing.assert_allclose(asnumpy(other), asnumpy(one), rtol=1e-5, atol=1e-5)


def test_moments_of_another_matrix_are_refused(device):
    y, moments = convolution_measured(normal((2, 3, 8, 8), "float32"), normal((6, 3, 1, 1), "float32"), None, Window(1))
    if moments is None:
        return
    rows, vector = y.transpose(0, 2, 3, 1).reshape(-1, 6), xp.ones(6, "float32")
    running = xp.ones(6, "float32"), xp.ones(6, "float32")
    with pytest.raises(ValueError, match=r"moments of \(127, 6\) are needed, got those of \(128, 6\)"):
        batch_norm(rows[1:], vector, vector, *running, 1e-5, 0.9, measured=moments)
    assert float(running[0].sum()) == 6


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [257 * 8, 1000 * 8 + 3, 9000 * 8 + 1])
@pytest.mark.parametrize("channels", [1, 5, 16, 70])
def test_ranges_are_put_together(rows, channels):
    """More than a pass should read: fewer, of the same moments."""
    with backend.use("cuda"):
        x = normal((rows, channels), "float32", 1) * 3 + 5
        host = asnumpy(x).astype("float64")
        parts = [host[first : first + 8] for first in range(0, rows, 8)]
        means = xp.asarray(np.stack([part.mean(axis=0) for part in parts]).astype("float32"))
        squares = xp.asarray(np.stack([part.var(axis=0) * len(part) for part in parts]).astype("float32"))
        cut = batch_statistics.Tiling(1, 8, len(parts), len(parts))
        fewer = batch_statistics.fewer(batch_statistics.Moments(means, squares, rows, cut))
        assert len(fewer.means) <= 256
        assert (len(fewer.means) - 1) * fewer.cut.range_rows < rows <= len(fewer.means) * fewer.cut.range_rows
        mean, variance = map(asnumpy, batch_statistics.joined(fewer))
        np.testing.assert_allclose(mean, host.mean(axis=0), rtol=2e-6)
        np.testing.assert_allclose(variance, host.var(axis=0), rtol=2e-6)
