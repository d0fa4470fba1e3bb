"""The totals of an epoch, batch by batch."""

import numpy as np
import pytest

import backend
from backend import asnumpy
from kernels.core.dtypes import acc_dtype
from kernels.totals import add_to_totals
from tests.support.checks import DTYPES, assert_same, frozen, laid_out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("labels", ["int8", "uint16", "int32", "int64", "uint64"])
@pytest.mark.parametrize("shape", [(1, 1), (9, 10), (300, 3), (0, 4), (5, 1100)])
def test_a_batch_is_added(device, dtype, labels, shape):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, shape).astype(dtype)  # with ties
    y[1::4, -1], y[2::4] = np.nan, np.nan
    t = rng.integers(0, shape[1], shape[0]).astype(labels) if shape[1] < 100 else np.arange(shape[0]).astype(labels)
    wide = acc_dtype(np.dtype(dtype))
    totals, loss = backend.asarray(np.array([1.5, 2, 3])), backend.asarray(np.array(0.1, wide))
    arrays = [laid_out(backend.asarray(y), "strided"), backend.asarray(t)]
    with frozen(loss, *arrays):
        add_to_totals(totals, loss, *arrays)
        add_to_totals(totals, loss, *arrays)
    product, right = float(wide.type(0.1) * shape[0]), np.count_nonzero(y.argmax(axis=1) == t)
    assert_same(totals, np.array([1.5 + product + product, 2 + 2 * right, 3 + 2 * shape[0]]))


def test_a_label_out_of_range_is_never_right(device):
    y = backend.asarray(np.eye(3, dtype="float32"))
    for label in (-1, 3, 1 << 32, -(1 << 32), (1 << 32) + 1):
        totals = backend.xp.zeros(3)
        add_to_totals(totals, backend.xp.zeros((), "float32"), y, backend.asarray(np.full(3, label, "int64")))
        assert asnumpy(totals).tolist() == [0, 0, 3]


def test_labels_that_do_not_fit_are_refused(device):
    y, totals, loss = backend.xp.zeros((3, 2), "float32"), backend.xp.zeros(3), backend.xp.zeros((), "float32")
    with pytest.raises(ValueError, match=r"labels for scores of \(3, 2\) are \(3,\), got \(2,\)"):
        add_to_totals(totals, loss, y, backend.xp.zeros(2, "int32"))
    with pytest.raises(TypeError, match="of an integer dtype, got float32"):
        add_to_totals(totals, loss, y, backend.xp.zeros(3, "float32"))
    with pytest.raises(ValueError, match=r"scores of \(3, 0\) have no classes"):
        add_to_totals(totals, loss, y[:, :0], backend.xp.zeros(3, "int32"))
    for wrong in (backend.xp.zeros(2), backend.xp.zeros(3, "float32")):
        with pytest.raises(ValueError, match=r"totals must be float64 \(3,\), got float"):
            add_to_totals(wrong, loss, y, backend.xp.zeros(3, "int32"))
        assert not wrong.any()
    assert asnumpy(totals).tolist() == [0, 0, 0]
