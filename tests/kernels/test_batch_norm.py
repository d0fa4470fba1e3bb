"""Batch normalisation against the paper's formulas, row by row."""

import numpy as np
import pytest
from hypothesis import strategies as st

import backend
from backend import asnumpy
from kernels.batch_norm import batch_norm, normalize
from kernels.batch_norm_backward import normalize_backward, normalize_backward_fixed
from kernels.batch_statistics import batch_statistics
from kernels.core import launch, native
from tests.support import oracles
from tests.support.checks import (
    DTYPES,
    assert_close,
    assert_same,
    assert_separate,
    check_gradient,
    for_all,
    frozen,
    laid_out,
    normal,
    thread_limit,
    variants,
    watched_shares,
    whole,
)

EPSILON = 1e-5
COLUMNS = st.integers(1, 6) | st.sampled_from([15, 17, 33, 63, 64, 65, 129])  # around and between vectors' widths
MATRICES = (st.integers(1, 70), COLUMNS, st.sampled_from(DTYPES), st.integers(0, 1000))
LAYOUTS = st.sampled_from(["contiguous", "strided", "reversed", "fortran"])


def arrays(rows, columns, dtype, seed):
    """x, dy (M, C); gamma, beta (C,)."""
    return (
        normal((rows, columns), dtype, seed) * 2 + 1,
        normal((rows, columns), dtype, seed + 1),
        normal((columns,), dtype, seed + 2),
        normal((columns,), dtype, seed + 3),
    )


def wide(dtype):
    return "float32" if dtype == "float16" else dtype


def forward(x, gamma, beta):
    mean, variance = batch_statistics(x)
    y, inverse = normalize(x, mean, variance, gamma, beta, EPSILON)
    return y, mean, variance, inverse


def test_statistics(device):
    @for_all(device, *MATRICES, LAYOUTS)
    def check(rows, columns, dtype, seed, layout):
        x = laid_out(arrays(rows, columns, dtype, seed)[0], layout)
        with frozen(x):
            mean, variance = batch_statistics(x)
        host = asnumpy(x)
        _, means, variances = oracles.batch_norm(host, np.ones(columns), np.zeros(columns), EPSILON)
        sizes = np.abs(np.float64(host)).mean(axis=0)
        assert_close(mean, means, wide(dtype), terms=rows + 1, magnitude=sizes)
        # deviations come from a mean that is off by terms·eps·sizes, and squaring doubles what they are off
        eps = np.finfo(wide(dtype)).eps
        spread = np.sqrt(variances) + (rows + 2) * eps * sizes
        assert_close(variance, variances, wide(dtype), terms=rows + 4, magnitude=variances + 4 * spread * sizes)
        assert_separate((mean, variance), [x])


def test_the_variance_does_not_cancel(device):
    """E[x²] - E[x]² in float32 would be 0 or worse for numbers near 10⁴ that spread by 1."""
    x = backend.asarray((np.arange(1000) % 2 * 2 - 1 + 10000.0).astype("float32").reshape(-1, 1))
    mean, variance = batch_statistics(x)
    assert (float(mean[0]), float(variance[0])) == (10000.0, 1.0)


def test_float16_statistics_do_not_overflow(device):
    x = whole((100, 2), "float16", most=0)
    x[::2] = 2000
    mean, variance = batch_statistics(x)
    assert mean.dtype == variance.dtype == "float32"
    np.testing.assert_array_equal(asnumpy(mean), [1000, 1000])
    np.testing.assert_array_equal(asnumpy(variance), [1e6, 1e6])


def bounds(x, dy, gamma):
    """Return upper bounds of every column's numbers, for tolerances: |x - mean|·inverse, inverse, |gamma|·inverse."""
    _, means, variances = oracles.batch_norm(x, np.ones(x.shape[1]), np.zeros(x.shape[1]), EPSILON)
    inverse = 1 / np.sqrt(variances + EPSILON)
    # x - mean is off by the rounding of the mean: relative to |x|, not to the deviation
    return (np.abs(np.float64(x)).max(axis=0) + np.abs(means)) * inverse, np.abs(np.float64(gamma)) * inverse


def test_normalize(device):
    @for_all(device, *MATRICES, LAYOUTS)
    def check(rows, columns, dtype, seed, layout):
        x, _, gamma, beta = arrays(rows, columns, dtype, seed)
        x = laid_out(x, layout)
        mean, variance = batch_statistics(x)
        with frozen(x, mean, variance, gamma, beta):
            y, inverse = normalize(x, mean, variance, gamma, beta, EPSILON)
        host, gamma_, beta_ = asnumpy(x), asnumpy(gamma), asnumpy(beta)
        expected, _, variances = oracles.batch_norm(host, gamma_, beta_, EPSILON)
        largest, _ = bounds(host, None, gamma_)
        # the inverse follows the variance, whose relative error grows with (largest deviation)² · terms
        assert_close(
            inverse,
            1 / np.sqrt(variances + EPSILON),
            wide(dtype),
            terms=2 * rows + 8,
            magnitude=(1 + largest) / np.sqrt(variances + EPSILON),
        )
        sizes = np.abs(np.float64(gamma_)) * largest * (1 + largest) + np.abs(np.float64(beta_))
        assert_close(y, expected, dtype, terms=3 * rows + 12, magnitude=sizes)
        assert_separate((y, inverse), [x, mean, variance, gamma, beta])


ENDINGS = st.sampled_from(["", "relu", "bypass"])


def test_a_batch_is_normalized_and_moves_the_running_statistics(device):
    @for_all(device, *MATRICES, LAYOUTS, ENDINGS)
    def check(rows, columns, dtype, seed, layout, ending):
        x, other, gamma, beta = arrays(rows, columns, dtype, seed)
        x, bypass = laid_out(x, layout), laid_out(other, layout) if ending == "bypass" else None
        before = normal((columns,), wide(dtype), seed + 4), abs(normal((columns,), wide(dtype), seed + 5))
        running, fixed = [array.copy() for array in before], [x, gamma, beta, *([bypass] if ending == "bypass" else [])]
        with frozen(*fixed):
            y, mean, inverse, positive = batch_norm(x, gamma, beta, *running, EPSILON, 0.75, bool(ending), bypass)
            own_mean, variance = batch_statistics(x)
            plain, own_inverse = normalize(x, own_mean, variance, gamma, beta, EPSILON)
        if bypass is not None:
            plain = plain + bypass
        rectified = asnumpy(plain) if not ending else np.maximum(asnumpy(plain), 0)
        parts = [
            own_mean,
            own_inverse,
            *(0.75 * a + 0.25 * b for a, b in zip(before, (own_mean, variance), strict=True)),
        ]
        if positive is None:
            assert ending in ("", "relu")
        else:
            assert_same(positive, asnumpy(y) > 0, "bool")
        if device.kind == "cpu":
            assert_same(y, rectified)
            for one, two in zip((mean, inverse, *running), parts, strict=True):
                assert_same(one, two)
        else:  # the ranges' sums are the same, put together in another order
            largest, _ = bounds(asnumpy(x), None, asnumpy(gamma))
            sizes = abs(np.float64(asnumpy(gamma))) * largest * (1 + largest) + abs(np.float64(asnumpy(beta)))
            sizes = sizes + (0 if bypass is None else abs(asnumpy(bypass)))
            assert_close(y, rectified, dtype, terms=3 * rows + 12, magnitude=sizes)
            for one, two in zip((mean, inverse, *running), map(asnumpy, parts), strict=True):
                assert_close(one, two, wide(dtype), terms=4 * rows + 12, magnitude=(abs(two) + 1) * (1 + largest) ** 2)
        assert_separate((y, mean, inverse), [x, gamma, beta, *running])


def test_strided_running_statistics_are_moved(device):
    x, _, gamma, beta = arrays(9, 3, "float32", 0)
    pairs = normal((2, 6))
    apart, together = [pairs[0, ::2], pairs[1, ::2]], [pairs[0, ::2].copy(), pairs[1, ::2].copy()]
    for running in (apart, together):
        batch_norm(x, gamma, beta, *running, EPSILON, 0.9)
    for one, two in zip(apart, together, strict=True):
        assert_same(one, two)


def test_a_batch_that_cannot_be_normalized_is_refused(device):
    x, _, gamma, beta = arrays(4, 3, "float32", 0)
    vectors = (gamma, beta, gamma.copy(), beta.copy(), EPSILON, 0.9)
    with pytest.raises(ValueError, match=r"x must have rows to take statistics of, got shape \(0, 3\)"):
        batch_norm(x[:0], *vectors)
    for place in range(4):
        wrong = [vector[:1] if index == place else vector for index, vector in enumerate(vectors)]
        with pytest.raises(ValueError, match=r"gamma, beta and running statistics must have shape \(3,\)"):
            batch_norm(x, *wrong)
    for relu, bypass in ((False, x), (True, x[:2]), (True, x.astype("float64"))):
        with pytest.raises(ValueError, match=r"a bypass needs relu, and the shape and dtype of x, float32\[4, 3\]"):
            batch_norm(x, *vectors, relu, bypass)


def test_gradients_of_another_shape_are_refused(device):
    x, dy, gamma, beta = arrays(4, 3, "float32", 0)
    for backward in (normalize_backward, normalize_backward_fixed):
        with pytest.raises(ValueError, match=r"dy must have the shape of x, \(4, 3\), got \(3, 3\)"):
            backward(dy[:3], x, gamma, beta, gamma)
    with pytest.raises(ValueError, match=r"bypass must have the shape of x, \(4, 3\), got \(3, 3\)"):
        normalize(x, gamma, beta, gamma, beta, EPSILON, bypass=dy[:3])


@pytest.mark.parametrize("relu", [False, True])
def test_fixed_statistics_with_a_bypass(device, relu):
    x, bypass, gamma, beta = arrays(9, 5, "float32", 0)
    mean, variance = normal((5,)), abs(normal((5,), seed=1))
    positive = backend.xp.empty((9, 5), bool) if relu else None
    y, _ = normalize(x, mean, variance, gamma, beta, EPSILON, positive, bypass)
    plain = normalize(x, mean, variance, gamma, beta, EPSILON)[0] + bypass
    assert_same(y, np.maximum(asnumpy(plain), 0) if relu else plain)
    if positive is not None:
        assert_same(positive, asnumpy(plain) > 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (37, 5), (300, 40)])
def test_the_mask_of_a_relu_is_computed_again(device, dtype, rows, columns):
    """Bit for bit where y was above 0, NaN and a y that rounds to 0 among them."""
    x, dy, gamma, beta = arrays(rows, columns, dtype, 0)
    gamma[-1:], beta[-1:] = 1e-9, 0  # float16 rounds both to 0
    if rows > 1:
        x[3, 0] = np.nan
    running = normal((columns,), wide(dtype)), normal((columns,), wide(dtype))
    y, mean, inverse, _ = batch_norm(x, gamma, beta, *running, EPSILON, 0.9, relu=True)
    out = [backend.xp.empty(columns, dtype) for _ in range(2)]
    with frozen(dy, x, mean, inverse, gamma, beta):
        dx, *gradients = normalize_backward(dy, x, mean, inverse, gamma, beta, out)
    masked = backend.asarray(np.where(asnumpy(y) > 0, asnumpy(dy), 0).astype(dtype))
    expected = normalize_backward(masked, x, mean, inverse, gamma)
    assert all(gradient is array for gradient, array in zip(gradients, out, strict=True))
    for one, two in zip((dx, *gradients), expected, strict=True):
        assert_same(one, two.astype(dtype))


def test_backward(device):
    @for_all(device, *MATRICES, LAYOUTS)
    def check(rows, columns, dtype, seed, layout):
        x, dy, gamma, beta = arrays(rows, columns, dtype, seed)
        x, dy = laid_out(x, layout), laid_out(dy, layout)
        _, mean, _, inverse = forward(x, gamma, beta)
        with frozen(dy, x, mean, inverse, gamma):
            dx, dgamma, dbeta = normalize_backward(dy, x, mean, inverse, gamma)
        dy_, x_, gamma_ = asnumpy(dy), asnumpy(x), asnumpy(gamma)
        expected = oracles.batch_norm_backward(dy_, x_, gamma_, EPSILON)
        largest, scale = bounds(x_, dy_, gamma_)
        upstream = np.abs(np.float64(dy_))
        total = upstream.sum(axis=0)
        growth = (1 + largest) ** 3
        terms = 4 * rows + 16
        sizes = (upstream + total / rows * 2) * scale * growth
        assert_close(dx, expected[0], dtype, terms=terms, magnitude=sizes)
        assert_close(dgamma, expected[1], wide(dtype), terms=terms, magnitude=total * growth)
        assert_close(dbeta, expected[2], wide(dtype), terms=rows, magnitude=total)
        assert_separate((dx, dgamma, dbeta), [dy, x, mean, inverse, gamma])


def test_backward_of_constants(device):
    @for_all(device, *MATRICES, LAYOUTS)
    def check(rows, columns, dtype, seed, layout):
        x, dy, gamma, _ = arrays(rows, columns, dtype, seed)
        x, dy = laid_out(x, layout), laid_out(dy, layout)
        mean = normal((columns,), wide(dtype), seed + 4)
        inverse = abs(normal((columns,), wide(dtype), seed + 5))
        with frozen(dy, x, mean, inverse, gamma):
            dx, dgamma, dbeta = normalize_backward_fixed(dy, x, mean, inverse, gamma)
        dy_, x_, gamma_, mean_, inverse_ = (np.float64(asnumpy(a)) for a in (dy, x, gamma, mean, inverse))
        assert_close(dx, dy_ * gamma_ * inverse_, dtype, terms=2, magnitude=abs(dy_ * gamma_ * inverse_))
        sizes = (abs(dy_) * (abs(x_) + abs(mean_)) * inverse_).sum(axis=0)
        expected = (dy_ * (x_ - mean_) * inverse_).sum(axis=0)
        assert_close(dgamma, expected, wide(dtype), terms=rows + 3, magnitude=sizes)
        assert_close(dbeta, dy_.sum(axis=0), wide(dtype), terms=rows, magnitude=abs(dy_).sum(axis=0))
        assert_separate((dx, dgamma, dbeta), [dy, x, mean, inverse, gamma])


@pytest.mark.parametrize(("rows", "columns"), [(2, 1), (7, 3), (20, 4)])
def test_gradients_are_those_of_the_forward(device, rows, columns):
    x, dy, gamma, beta = arrays(rows, columns, "float64", 0)
    _, mean, variance, inverse = forward(x, gamma, beta)
    check_gradient(
        lambda x, gamma, beta: (forward(x, gamma, beta)[0] * dy).sum(),
        [x, gamma, beta],
        normalize_backward(dy, x, mean, inverse, gamma),
    )
    check_gradient(
        lambda x, gamma, beta: (normalize(x, mean, variance, gamma, beta, EPSILON)[0] * dy).sum(),
        [x, gamma, beta],
        normalize_backward_fixed(dy, x, mean, inverse, gamma),
    )


def test_layouts_change_no_bit(device):
    """Column sums may run in another order over other strides, so whole numbers: then every order is exact."""
    x, dy = whole((16, 3)), whole((16, 3), seed=1)
    gamma, beta = whole((3,), seed=2), whole((3,), seed=3)
    expected = forward(x, gamma, beta)
    for (_, x_), (_, dy_) in zip(variants(x), reversed(variants(dy)), strict=True):
        actual = forward(x_, gamma, beta)
        for one, other in zip(expected[:2], actual[:2], strict=True):
            assert_same(other, one)
        _, _, dbeta = normalize_backward(dy_, x_, actual[1], actual[3], gamma)
        assert_same(dbeta, dy.sum(axis=0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "columns"), [(4099, 2), (4096, 3), (1500, 40), (2500, 40)]
)  # 4099 is prime: nothing folds
def test_parts_are_put_together(device, dtype, rows, columns):
    """Columns whose level drifts from block to block, so that the blocks' own means differ."""
    x, dy, gamma, beta = arrays(rows, columns, dtype, 0)
    x = x + backend.asarray((np.arange(rows) * 8 // rows * 2.0).astype(dtype))[:, None]
    y, mean, variance, inverse = forward(x, gamma, beta)
    dx, dgamma, dbeta = normalize_backward(dy, x, mean, inverse, gamma)
    host, dy, gamma, beta = (np.float64(asnumpy(array)) for array in (x, dy, gamma, beta))
    expected_y, expected_mean, expected_variance = oracles.batch_norm(host, gamma, beta, EPSILON)
    expected_dx, expected_dgamma, expected_dbeta = oracles.batch_norm_backward(dy, host, gamma, EPSILON)
    # Sums of thousands of numbers in blocks: errors grow with the blocks' depth, not with their number of terms.
    sizes = abs(host).mean(axis=0)
    assert_close(mean, expected_mean, wide(dtype), terms=64, magnitude=sizes)
    assert_close(variance, expected_variance, wide(dtype), terms=128, magnitude=expected_variance + sizes)
    assert_close(y, expected_y, dtype, terms=256, magnitude=abs(gamma) * 4 + abs(beta))
    total = abs(dy).sum(axis=0)
    assert_close(dbeta, expected_dbeta, wide(dtype), terms=64, magnitude=total)
    assert_close(dgamma, expected_dgamma, wide(dtype), terms=256, magnitude=total * 4)
    scale = abs(gamma) / np.sqrt(expected_variance)
    assert_close(dx, expected_dx, dtype, terms=256, magnitude=(abs(dy) + 1) * 4 * scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "columns"), [(24000, 1), (8000, 3), (3000, 64)])
def test_threads_change_no_bit(device, dtype, rows, columns):
    x, dy, gamma, beta = arrays(rows, columns, dtype, 0)
    results = []
    for count in (1, 2, 3, 5):
        with thread_limit(count), watched_shares() as shares:
            y, mean, variance, inverse = forward(x, gamma, beta)
            results.append((y, mean, variance, inverse, *normalize_backward(dy, x, mean, inverse, gamma)))
        assert count == 1 or not native.available() or device.kind == "cuda" or min(shares) > 1
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert_same(two, one)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 700, 999])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_bad_number_reaches_its_column_and_no_other(device, bad, place):
    x, dy, gamma, beta = arrays(1000, 5, "float32", 0)
    x[place, 2] = bad
    running = normal((5,)), normal((5,))
    y, mean, inverse, _ = batch_norm(x, gamma, beta, *running, EPSILON, 0.9, relu=True)
    dx, dgamma, dbeta = normalize_backward(dy, x, mean, inverse, gamma)
    good = np.arange(5) != 2
    for result in (y, mean, inverse, *running, dx, dgamma):
        assert not np.isfinite(asnumpy(result)[..., 2]).any()
        assert np.isfinite(asnumpy(result)[..., good]).all()
    assert np.isfinite(asnumpy(dbeta)).all()


def test_one_far_number_does_not_cancel_the_variance(device):
    x = whole((3000, 2), most=1)
    x[0, 0] = x[1700, 1] = 10.0**6
    exact = asnumpy(x).astype("float64").var(axis=0)
    np.testing.assert_allclose(asnumpy(batch_statistics(x)[1]), exact, rtol=1e-5)


def test_a_constant_column_becomes_beta(device):
    x, gamma, beta = whole((8, 2), most=0) + 3, whole((2,), seed=1) + 4, whole((2,), seed=2)
    y, mean, variance, inverse = forward(x, gamma, beta)
    assert_same(mean, x[0])
    np.testing.assert_array_equal(asnumpy(variance), 0)
    np.testing.assert_array_equal(asnumpy(y), np.broadcast_to(asnumpy(beta), (8, 2)))
    dx, dgamma, _ = normalize_backward(whole((8, 2), seed=3), x, mean, inverse, gamma)
    assert np.isfinite(asnumpy(dx)).all()
    np.testing.assert_array_equal(asnumpy(dgamma), 0)


def test_the_inverse_is_of_the_variance_plus_epsilon(device):
    variance = backend.asarray(np.array([0.25, 3.0], "float32"))
    zeros = backend.asarray(np.zeros(2, "float32"))
    _, inverse = normalize(whole((1, 2)), zeros, variance, zeros, zeros, 1.0)
    np.testing.assert_allclose(asnumpy(inverse), [1 / np.sqrt(1.25), 0.5], rtol=2e-7)


def test_no_rows_give_no_rows(device):
    x, dy, gamma, beta = arrays(0, 3, "float32", 0)
    mean, variance = whole((3,)), whole((3,), most=0) + 1
    y, inverse = normalize(x, mean, variance, gamma, beta, EPSILON)
    assert y.shape == (0, 3)
    for backward in (normalize_backward, normalize_backward_fixed):
        dx, dgamma, dbeta = backward(dy, x, mean, inverse, gamma)
        assert dx.shape == (0, 3)
        np.testing.assert_array_equal(asnumpy(dgamma), 0)
        np.testing.assert_array_equal(asnumpy(dbeta), 0)


@pytest.mark.parametrize("rows", [1, 64, 200])
def test_no_columns_give_none(device, rows):
    x, dy, gamma, beta = arrays(rows, 0, "float32", 0)
    y, mean, _, inverse = forward(x, gamma, beta)
    assert y.shape == normalize_backward(dy, x, mean, inverse, gamma)[0].shape == (rows, 0)


@pytest.mark.gpu
def test_host_and_device_arrays_do_not_mix():
    with backend.use("cuda"):
        x, dy, gamma, beta = arrays(4, 3, "float32", 0)
        _, mean, variance, inverse = forward(x, gamma, beta)
        with pytest.raises(TypeError, match=r"numpy.*cupy"):
            normalize(asnumpy(x), mean, variance, gamma, beta, EPSILON)
        with pytest.raises(TypeError, match=r"numpy.*cupy"):
            normalize_backward(asnumpy(dy), x, mean, inverse, gamma)
        with pytest.raises(TypeError, match=r"numpy.*cupy"):
            normalize_backward_fixed(asnumpy(dy), asnumpy(x), mean, inverse, gamma)


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "value"), [("_NARROW", 0), ("_MOST_BLOCKS", 2)])
def test_wide_indices_and_a_small_grid_change_no_bit(monkeypatch, name, value):
    def results():
        x, dy, gamma, beta = arrays(500, 40, "float32", 0)
        y, mean, variance, inverse = forward(x, gamma, beta)
        return (y, mean, variance, inverse, *normalize_backward(dy, x, mean, inverse, gamma))

    with backend.use("cuda"):
        expected = results()
        monkeypatch.setattr(launch, name, value)
        for one, two in zip(expected, results(), strict=True):
            assert_same(two, one)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [8, 12, 40, 7])
def test_addresses_change_no_bit(device, columns, dtype):
    """Where a GPU's threads may take several columns at once, and where the addresses do not let them."""

    def shifted(x):
        room = backend.xp.empty(x.size + 1, x.dtype)
        room[1:] = x.ravel()
        return room[1:].reshape(x.shape)

    x, dy, gamma, beta = arrays(300, columns, dtype, 1)
    bypass = normal((300, columns), dtype, 9)

    def run(x, dy, bypass):
        running = [backend.xp.ones(columns, wide(dtype)) for _ in range(2)]
        y, mean, inverse, _ = batch_norm(x, gamma, beta, *running, EPSILON, 0.9, True)
        added, _, _, positive = batch_norm(x, gamma, beta, *running, EPSILON, 0.9, True, bypass)
        fixed = normalize(x, mean, mean * mean, gamma, beta, EPSILON)
        return y, added, positive, *fixed, *normalize_backward(dy, x, mean, inverse, gamma, beta)

    for one, other in zip(run(x, dy, bypass), run(*map(shifted, (x, dy, bypass))), strict=True):
        assert np.array_equal(asnumpy(one), asnumpy(other))
