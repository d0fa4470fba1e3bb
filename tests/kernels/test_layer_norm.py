"""Layer and group normalisation against the papers' formulas, group by group in float64."""

import numpy as np
import pytest

import backend
from backend import asnumpy
from kernels.core import native
from kernels.layer_norm import group_norm, group_norm_backward, layer_norm, layer_norm_backward
from tests.support.checks import (
    DTYPES,
    LAYOUTS,
    assert_channels_last,
    assert_close,
    assert_same,
    assert_separate,
    check_gradient,
    frozen,
    laid_out,
    normal,
    thread_limit,
    watched_shares,
)

EPSILON = 1e-3
IMAGES = [((2, 6, 4, 5), 2), ((3, 4, 1, 3), 4), ((1, 5, 3, 2), 1), ((2, 3, 1, 1), 1), ((0, 4, 2, 2), 2)]
NOTHING = [((2, 4, 0, 3), 2), ((2, 0, 3, 3), 1), ((0, 0, 0, 0), 3)]


def arrays(shape, dtype, layout="contiguous"):
    """x with a mean that is not 0, gamma, beta, dy."""
    shapes = (shape, shape[1:2], shape[1:2], shape)
    x, *others = (normal(s, dtype, seed) for seed, s in enumerate(shapes))
    return [laid_out(array, layout) for array in (x * 2 + 1, *others)]


def standardized(values):
    """Return x̂ and 1/σ of the numbers of one group, by two passes in float64."""
    difference = values - values.sum() / values.size
    inverse = 1 / np.sqrt((difference**2).sum() / values.size + EPSILON)
    return difference * inverse, inverse


def expected(x, gamma, beta, dy, groups):
    """y, dx, dgamma and dbeta of images, from the formula of the gradient of each group's x̂; rows are 1x1 images."""
    x, gamma, beta, dy = (asnumpy(array).astype(np.float64) for array in (x, gamma, beta, dy))
    y, dx, of_gamma = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    size = x.shape[1] // groups
    for n in range(len(x)):
        for first in range(0, x.shape[1], size):
            at = n, slice(first, first + size)
            g, b = gamma[at[1]].reshape(-1, 1, 1), beta[at[1]].reshape(-1, 1, 1)
            unit, inverse = standardized(x[at])
            y[at] = g * unit + b
            of_gamma[at] = dy[at] * unit
            scaled = dy[at] * g
            dx[at] = inverse * (scaled - scaled.mean() - unit * (scaled * unit).mean())
    return y, dx, of_gamma.sum((0, 2, 3)), dy.sum((0, 2, 3))


def compare(seen, oracle, dtype, terms):
    bounds = {"terms": terms, "magnitude": 16, "roundings": 2}
    wide = "float32" if dtype == "float16" else dtype
    for actual, value, kept in zip(seen, oracle, (dtype, dtype, wide, wide), strict=True):
        assert_close(actual, value, kept, **bounds)


DTYPES_OR_LAYOUTS = [(dtype, "contiguous") for dtype in DTYPES] + [("float32", layout) for layout in LAYOUTS[1:]]


@pytest.mark.parametrize(("dtype", "layout"), DTYPES_OR_LAYOUTS)
@pytest.mark.parametrize(("shape", "groups"), IMAGES)
def test_groups(device, dtype, layout, shape, groups):
    given = x, gamma, beta, dy = arrays(shape, dtype, layout)
    with frozen(*given):
        y, normalized, inverse = group_norm(x, gamma, beta, groups, EPSILON)
        gradients = group_norm_backward(dy, normalized, inverse, gamma)
    assert_separate((y, *gradients), given)
    assert_channels_last(y, gradients[0])
    compare((y, *gradients), expected(*given, groups), dtype, 60)


@pytest.mark.parametrize(("dtype", "layout"), DTYPES_OR_LAYOUTS[:-1])
@pytest.mark.parametrize("shape", [(4, 7), (1, 3), (3, 1), (0, 5), (40, 17), (33, 64), (70, 131)])
def test_rows(device, dtype, layout, shape):
    given = x, gamma, beta, dy = arrays(shape, dtype, layout)
    with frozen(*given):
        y, normalized, inverse = layer_norm(x, gamma, beta, EPSILON)
        gradients = layer_norm_backward(dy, normalized, inverse, gamma)
    assert_separate((y, *gradients), given)
    pixels = (x.reshape(*shape, 1, 1), gamma, beta, dy.reshape(*shape, 1, 1))
    of_pixels = [value.reshape(value.shape[:2]) for value in expected(*pixels, 1)]
    compare((y, *gradients), of_pixels, dtype, 60)


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_change_no_bit(device, dtype):
    x, gamma, beta, dy = arrays((201, 50), dtype)
    results = []
    for count in (1, 2, 3, 5):
        with thread_limit(count), watched_shares() as shares:
            y, normalized, inverse = layer_norm(x, gamma, beta, EPSILON)
            results.append((y, normalized, inverse, *layer_norm_backward(dy, normalized, inverse, gamma)))
        assert count == 1 or shares or not native.available() or device.kind == "cuda"
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert_same(two, one)


@pytest.mark.parametrize("place", [0, 40, 66])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_bad_number_reaches_its_row_and_no_other(device, bad, place):
    x, gamma, beta, dy = arrays((5, 67), "float32")
    x[3, place] = bad
    y, normalized, inverse = layer_norm(x, gamma, beta, EPSILON)
    dx, _, dbeta = layer_norm_backward(dy, normalized, inverse, gamma)
    for result in (y, dx):
        assert np.isnan(asnumpy(result)[3, place])
        assert np.isfinite(asnumpy(result)[[0, 1, 2, 4]]).all()
    assert np.isfinite(asnumpy(dbeta)).all()


def test_shapes_that_do_not_fit_are_refused(device):
    x, gamma, beta, dy = arrays((4, 7), "float32")
    for wrong in ((x, gamma[:1], beta), (x, gamma, beta[:3]), (x.reshape(2, 2, 7), gamma, beta)):
        with pytest.raises(ValueError, match=r"needs x \(M, D\), gamma \(D,\) and beta \(D,\), got"):
            layer_norm(*wrong, EPSILON)
    _, normalized, inverse = layer_norm(x, gamma, beta, EPSILON)
    for given in ((dy[:3], normalized, inverse, gamma), (dy, normalized, inverse[:3], gamma)):
        with pytest.raises(ValueError, match=r"needs dy and normalized \(M, D\), inverse \(M, 1\) and gamma"):
            layer_norm_backward(*given)


def test_gradients(device):
    x, gamma, beta, dy = arrays((3, 7), "float64")
    _, normalized, inverse = layer_norm(x, gamma, beta, EPSILON)
    gradients = layer_norm_backward(dy, normalized, inverse, gamma)
    check_gradient(lambda *moved: (layer_norm(*moved, EPSILON)[0] * dy).sum(), [x, gamma, beta], gradients)
    x, gamma, beta, dy = arrays((2, 6, 3, 2), "float64")
    _, normalized, inverse = group_norm(x, gamma, beta, 3, EPSILON)
    gradients = group_norm_backward(dy, normalized, inverse, gamma)
    check_gradient(lambda *moved: (group_norm(*moved, 3, EPSILON)[0] * dy).sum(), [x, gamma, beta], gradients)


@pytest.mark.parametrize(("shape", "groups"), NOTHING)
def test_no_numbers(device, shape, groups):
    """There is no mean of nothing, and no warning about it."""
    x, gamma, beta, dy = arrays(shape, "float32")
    y, normalized, inverse = group_norm(x, gamma, beta, groups, 0)
    dx, dgamma, dbeta = group_norm_backward(dy, normalized, inverse, gamma)
    assert y.shape == dx.shape == shape
    for gradient in (dgamma, dbeta):
        assert_same(gradient, np.zeros(shape[1], "float32"))
    x, gamma, beta, dy = arrays((3, 0), "float32")
    y, normalized, inverse = layer_norm(x, gamma, beta, 0)
    assert y.shape == layer_norm_backward(dy, normalized, inverse, gamma)[0].shape == (3, 0)


def test_the_variance_does_not_cancel(device):
    """E[x²] - E[x]² in float32 would be 0 or worse for numbers near 10⁴ that differ by 2."""
    x = backend.asarray(np.tile(np.array([9999, 10001], "float32"), 50).reshape(1, -1))
    gamma, beta = (backend.asarray(np.full(100, value, "float32")) for value in (1, 0))
    y, _, inverse = layer_norm(x, gamma, beta, 0)
    assert float(inverse[0, 0]) == 1
    assert_same(y, asnumpy(x) - 10000)


@pytest.mark.parametrize("groups", [0, -1, 4, 12])
def test_refuses_groups(groups):
    with pytest.raises(
        ValueError,
        match=f"groups must be .*, got {groups}|{groups} groups do not divide 6 channels",
    ):
        group_norm(np.ones((1, 6, 2, 2)), np.ones(6), np.ones(6), groups, EPSILON)
