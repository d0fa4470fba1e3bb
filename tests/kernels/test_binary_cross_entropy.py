"""Binary cross-entropy against the definition in a wider type; the layer is tested in tests/layers/test_losses.py."""

import numpy as np
import pytest

from backend import asarray, asnumpy
from kernels.binary_cross_entropy import binary_cross_entropy, binary_cross_entropy_backward
from tests.support.checks import assert_same, frozen, laid_out, normal, thread_limit


def costs(x, t):
    """log(1 + exp(x)) - t·x, with terms that are never negative."""
    x, t = x.astype("longdouble"), t.astype("longdouble")
    weight = np.where(x > 0, 1 - t, t)
    return np.where(weight == 0, 0, weight * abs(x)) + np.log1p(np.exp(-abs(x)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scores_far_out_keep_the_digits_of_their_costs(device, dtype):
    """A cost of 1e-30 is that of a score of 69: log(1 + s) of a rounded 1 + s would be 0."""
    eps = np.finfo(dtype).eps
    for score in (*np.linspace(-87, 87, 88), 1e-3, -1e-20, 0.0, -0.0):
        for target in (0.0, 0.25, 1.0):
            x, t = np.full(3, score, dtype), np.full(3, target, dtype)
            loss, y = binary_cross_entropy(asarray(x), asarray(t))
            exact = costs(x, t).mean()
            assert abs(float(loss) - exact) <= 16 * eps * exact
            probability = 1 / (1 + np.exp(-x.astype("longdouble")))
            assert (abs(asnumpy(y) - probability) <= 8 * eps * probability + np.finfo(dtype).tiny * eps).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", ["contiguous", "strided"])
def test_every_size(device, dtype, layout):
    eps = np.finfo(dtype).eps
    for size in (*range(1, 35), 127, 128, 129, 1000):
        x, t = laid_out(normal((size,), dtype) * 4, layout), laid_out(asarray(np.arange(size) % 3 / 2), layout)
        with frozen(x, t):
            loss, y = binary_cross_entropy(x, t)
            dx = binary_cross_entropy_backward(y, t)
        exact = costs(asnumpy(x), asnumpy(t)).mean()
        assert abs(float(loss) - exact) <= 40 * eps * exact  # sums of up to 1000, in pairs
        assert (loss.dtype, y.dtype, y.shape) == (dtype, dtype, (size,))
        assert_same(dx, (asnumpy(y) - asnumpy(t).astype(dtype)) / np.dtype(dtype).type(size))


def test_infinities_and_nan(device):
    loss, y = binary_cross_entropy(asarray(np.array([np.inf, -np.inf], "float32")), asarray(np.array([1, 0])))
    assert float(loss) == 0
    assert asnumpy(y).tolist() == [1, 0]
    assert float(binary_cross_entropy(asarray(np.array([np.inf, 1.0])), asarray(np.array([0, 1])))[0]) == np.inf
    loss, y = binary_cross_entropy(asarray(np.array([np.nan, 1.0])), asarray(np.array([0, 1])))
    assert np.isnan(float(loss))
    assert np.isnan(asnumpy(y)).tolist() == [True, False]


@pytest.mark.parametrize("dtype", ["float16", "int32"])
def test_scores_of_another_dtype_are_refused(device, dtype):
    x, t = asarray(np.zeros(3, dtype)), asarray(np.ones(3))
    for operation in (binary_cross_entropy, binary_cross_entropy_backward):
        with pytest.raises(TypeError, match=f"{operation.__name__} needs float32 or float64, got {dtype}"):
            operation(x, t)


def test_threads_change_no_bit(device, monkeypatch):
    monkeypatch.setattr("backend.tuning.WORTH_CUTTING", 1 << 12)
    x, t, results = normal((100_003,)), asarray(np.arange(100_003) % 2), []
    for count in (1, 2, 3, 5):
        with thread_limit(count):
            loss, y = binary_cross_entropy(x, t)
            results.append((loss, y, binary_cross_entropy_backward(y, t)))
    for result in results[1:]:
        for one, other in zip(result, results[0], strict=True):
            assert_same(one, other)
