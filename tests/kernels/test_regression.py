"""Squared and Huber's errors against their definitions; the layers are tested in tests/layers/test_losses.py."""

import numpy as np
import pytest

from backend import asarray, asnumpy
from kernels.regression import huber, huber_backward, squared_error
from tests.support.checks import assert_same, frozen, laid_out, normal, thread_limit


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", ["contiguous", "strided"])
def test_every_size(device, dtype, layout):
    eps = np.finfo(dtype).eps
    for size in (*range(1, 35), 127, 128, 129, 1000):
        x, t = laid_out(normal((size,), dtype) * 3, layout), laid_out(normal((size,), dtype, 1), layout)
        error = asnumpy(x) - asnumpy(t)
        e = abs(error.astype("longdouble"))
        costs = {"squared": e * e, "huber": np.where(e <= 2, e * e / 2, 2 * (e - 1))}
        with frozen(x, t):
            results = {"squared": squared_error(x, t), "huber": huber(x, t, 2.0)}
        for name, (loss, found) in results.items():
            exact = costs[name].mean()
            assert (loss.dtype, loss.shape) == (dtype, ())
            assert abs(float(loss) - exact) <= 40 * eps * exact  # sums of up to 1000, in pairs
            assert_same(found, error)
        dx = huber_backward(asarray(error), 2.0)
        assert_same(dx, np.clip(error, -2, 2) / np.dtype(dtype).type(size))


def test_nan_and_infinities(device):
    zero = asarray(np.zeros(2))
    for bad, loss in ((np.nan, np.nan), (np.inf, np.inf), (-np.inf, np.inf)):
        x = asarray(np.array([1.0, bad]))
        for function in (squared_error, lambda x, t: huber(x, t, 0.5)):
            assert np.array_equal(float(function(x, zero)[0]), loss, equal_nan=True)
        dx = asnumpy(huber_backward(x, 0.5))
        assert np.array_equal(dx, np.clip(asnumpy(x), -0.5, 0.5) / 2, equal_nan=True)


@pytest.mark.parametrize("dtype", ["float16", "int32"])
def test_predictions_of_another_dtype_are_refused(device, dtype):
    x, t = asarray(np.zeros(3, dtype)), asarray(np.ones(3))
    for operation, *numbers in ((squared_error, t), (huber, t, 1.0), (huber_backward, 1.0)):
        with pytest.raises(TypeError, match=f"{operation.__name__} needs float32 or float64, got {dtype}"):
            operation(x, *numbers)


def test_threads_change_no_bit(device, monkeypatch):
    monkeypatch.setattr("backend.tuning.WORTH_CUTTING", 1 << 12)
    x, t, results = normal((100_003,)), normal((100_003,), seed=1), []
    for count in (1, 2, 3, 5):
        with thread_limit(count):
            loss, error = huber(x, t, 0.7)
            results.append((loss, error, huber_backward(error, 0.7), *squared_error(x, t)))
    for result in results[1:]:
        for one, other in zip(result, results[0], strict=True):
            assert_same(one, other)
