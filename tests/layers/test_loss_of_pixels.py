"""The softmax loss over the pixels of images, against a plain loop and that of as many samples."""

import numpy as np
import pytest

import backend
from backend import asnumpy, xp
from kernels.core.layout import is_channels_last
from layers import SoftmaxWithLoss
from tests.support.checks import assert_same, frozen, normal, variants


@pytest.mark.parametrize(("options", "form"), [
    ({}, "indices"),
    ({}, "one-hot"),
    ({"label_smoothing": 0.1, "class_weights": [1, 2, 3, 4]}, "indices"),
    ({"label_smoothing": 0.1, "class_weights": [1, 2, 3, 4]}, "one-hot"),
    ({"ignore_index": 1}, "indices"),
])  # fmt: skip
def test_the_loss_of_pixels_is_that_of_as_many_samples(device, options, form):
    x, t = normal((3, 4, 5, 2)), np.random.default_rng(0).integers(0, 4, (3, 5, 2))
    one_hot = np.eye(4, dtype="float32")[t]
    labels = xp.asarray(t if form == "indices" else one_hot.transpose(0, 3, 1, 2))
    flat = xp.asarray(t.reshape(30) if form == "indices" else one_hot.reshape(30, 4))
    rows = SoftmaxWithLoss(**options)
    expected = rows.forward(xp.ascontiguousarray(x.transpose(0, 2, 3, 1)).reshape(30, 4), flat)
    of_pixels = [asnumpy(array).reshape(3, 5, 2, 4).transpose(0, 3, 1, 2) for array in (rows.y, rows.backward(0.5))]
    for _, view in variants(x):
        loss = SoftmaxWithLoss(**options)
        with frozen(view, labels):
            value = loss.forward(view, labels)
            dx = loss.backward(0.5)
        assert_same(value, asnumpy(expected))
        assert_same(loss.y, of_pixels[0])
        assert_same(dx, of_pixels[1])
        assert is_channels_last(dx)
        assert float(loss.weight) == float(rows.weight)


def test_the_loss_is_the_mean_over_pixels(device):
    x, t = normal((2, 3, 4, 5), "float64"), np.random.default_rng(1).integers(0, 3, (2, 4, 5))
    found, scores = SoftmaxWithLoss().forward(x, xp.asarray(t)), asnumpy(x)
    loss = 0
    for n, row, column in np.ndindex(t.shape):
        pixel = scores[n, :, row, column]
        loss += np.log(np.exp(pixel).sum()) - pixel[t[n, row, column]]
    assert float(found) == pytest.approx(loss / t.size, rel=1e-12)


def test_predictions_are_over_the_channels(device):
    x = normal((2, 3, 4, 5))
    y = asnumpy(SoftmaxWithLoss().predictions(x))
    np.testing.assert_allclose(y.sum(axis=1), np.ones((2, 4, 5)), rtol=1e-6)
    assert (y.argmax(axis=1) == asnumpy(x).argmax(axis=1)).all()


def test_no_pixels_have_the_loss_0(device):
    loss = SoftmaxWithLoss()
    assert float(loss.forward(normal((2, 3, 0, 4)), xp.zeros((2, 0, 4), "int64"))) == 0
    assert loss.backward().shape == (2, 3, 0, 4)


@pytest.mark.parametrize("shape", [(2,), (2, 4), (2, 5, 4), (40,), (2, 4, 5, 3), (2, 3)])
def test_labels_of_another_shape_than_the_images_are_refused(shape):
    with (
        backend.use("cpu"),
        pytest.raises(ValueError, match=r"labels for scores of \(2, 3, 4, 5\) are \(2, 4, 5\) or \(2, 3, 4, 5\), got"),
    ):
        SoftmaxWithLoss().forward(normal((2, 3, 4, 5)), np.zeros(shape, "int64"))


def test_one_channel_is_no_score():
    with backend.use("cpu"), pytest.raises(ValueError, match="expected a score for each class"):
        SoftmaxWithLoss().forward(normal((2, 1, 4, 5)), np.zeros((2, 4, 5), "int64"))
