"""The softmax loss over the steps of sequences, against that of as many samples."""

import numpy as np
import pytest

import backend
from backend import asnumpy, xp
from layers import SoftmaxWithLoss
from tests.support.checks import assert_same, frozen, laid_out, normal


@pytest.mark.parametrize(("options", "form"), [
    ({}, "indices"),
    ({}, "one-hot"),
    ({"label_smoothing": 0.1, "class_weights": [1, 2, 3, 4]}, "indices"),
    ({"label_smoothing": 0.1, "class_weights": [1, 2, 3, 4]}, "one-hot"),
    ({"ignore_index": 1}, "indices"),
])  # fmt: skip
def test_the_loss_of_sequences_is_that_of_all_their_steps(device, options, form):
    x, t = normal((3, 5, 4)), np.random.default_rng(0).integers(0, 4, (3, 5))
    labels = xp.asarray(t if form == "indices" else np.eye(4, dtype="float32")[t])
    loss, rows = SoftmaxWithLoss(**options), SoftmaxWithLoss(**options)
    with frozen(x, labels):
        value = loss.forward(laid_out(x, "strided"), labels)
        expected = rows.forward(x.reshape(15, 4), labels.reshape(15, *labels.shape[2:]))
    assert_same(value, asnumpy(expected))
    assert_same(loss.y, asnumpy(rows.y).reshape(3, 5, 4))
    assert loss.t is labels
    assert float(loss.weight) == float(rows.weight)
    assert_same(loss.backward(0.5), asnumpy(rows.backward(0.5)).reshape(3, 5, 4))


def test_steps_that_do_not_count_have_no_gradient(device):
    """As the ends of shorter sequences: the others count as in a batch without them."""
    x, t = normal((2, 4, 3), "float64"), xp.asarray([[0, 2, -1, -1], [1, 1, 0, -1]])
    loss, counted = SoftmaxWithLoss(ignore_index=-1), xp.asarray([0, 1, 4, 5, 6])
    value = loss.forward(x, t)
    alone = SoftmaxWithLoss()
    expected = alone.forward(x.reshape(8, 3)[counted], t.reshape(8)[counted])
    assert float(value) == pytest.approx(float(expected), rel=1e-12)
    gradient = asnumpy(loss.backward()).reshape(8, 3)
    assert not gradient[[2, 3, 7]].any()
    np.testing.assert_allclose(gradient[asnumpy(counted)], asnumpy(alone.backward()), rtol=1e-12)


def test_no_steps_have_the_loss_0(device):
    loss = SoftmaxWithLoss()
    assert float(loss.forward(normal((2, 0, 3)), xp.zeros((2, 0), "int64"))) == 0
    assert loss.backward().shape == (2, 0, 3)


@pytest.mark.parametrize("shape", [(2,), (2, 3), (8,), (2, 4, 2), (2, 3, 4)])
def test_labels_of_another_shape_than_the_sequences_are_refused(shape):
    with (
        backend.use("cpu"),
        pytest.raises(ValueError, match=r"labels for scores of \(2, 4, 3\) are \(2, 4\) or"),
    ):
        SoftmaxWithLoss().forward(normal((2, 4, 3)), np.zeros(shape, "int64"))
