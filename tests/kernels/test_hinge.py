"""The hinge loss by its definition, label by label; the layer is tested in tests/layers/test_losses.py."""

import numpy as np
import pytest

from backend import asarray, asnumpy
from kernels.core.dtypes import acc_dtype
from kernels.hinge import hinge
from tests.support.checks import DTYPES, assert_same, frozen, laid_out, normal, thread_limit


def by_hand(x, t):
    margins = np.maximum(x.astype("longdouble") - x[np.arange(len(x)), t].astype("longdouble")[:, None] + 1, 0)
    margins[np.arange(len(x)), t] = 0
    dx = (margins > 0).astype("float64")
    dx[np.arange(len(x)), t] = -dx.sum(axis=1)
    return margins.sum() / len(x), dx


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["contiguous", "strided"])
def test_every_number_of_classes(device, dtype, layout):
    wide = acc_dtype(dtype)
    for samples, classes in [(5, classes) for classes in range(1, 35)] + [(20, 10), (3, 100)]:
        x = laid_out(normal((samples, classes), dtype) * 2, layout)
        t = np.random.default_rng(0).integers(0, classes, samples).astype("uint8")
        with frozen(x):
            loss, dx = hinge(x, asarray(t))
        exact, gradient = by_hand(asnumpy(x), t)
        # a margin is rounded twice, of numbers up to 20; those of float16 are computed in float32
        assert (loss.dtype, loss.shape) == (wide, ())
        assert abs(float(loss) - exact) <= 40 * np.finfo(wide).eps * (exact + 20 * classes)
        assert_same(dx, (gradient * wide.type(1 / samples)).astype(wide).astype(dtype))
        assert not np.signbit(asnumpy(dx)[gradient == 0]).any()


def test_nan_passes_to_the_loss_alone(device):
    x = np.zeros((2, 20), "float32")
    x[1, 17] = np.nan
    loss, dx = hinge(asarray(x), asarray(np.array([0, 3])))
    assert np.isnan(float(loss))
    assert asnumpy(dx)[1, 17] == 0
    assert asnumpy(dx)[1, 3] == -9


def test_threads_change_no_bit(device, monkeypatch):
    monkeypatch.setattr("backend.tuning.WORTH_CUTTING", 64)
    x, t, results = normal((37, 33)), asarray(np.arange(37) % 33), []
    for count in (1, 2, 3, 5):
        with thread_limit(count):
            results.append(hinge(x, t))
    for result in results[1:]:
        for one, other in zip(result, results[0], strict=True):
            assert_same(one, other)
