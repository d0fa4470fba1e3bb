"""The course's hinge loss against loops."""

import numpy as np
import pytest

import backend
from backend import asnumpy, xp
from layers.compat.course import svm_loss
from tests.support.checks import (
    DTYPES,
    assert_close,
    assert_same,
    assert_separate,
    check_gradient,
    frozen,
    normal,
    variants,
    whole,
)


def by_loops(x, y):
    x, dx, loss = np.float64(asnumpy(x)), np.zeros(x.shape), 0.0
    for i, label in enumerate(asnumpy(y)):
        for j in range(x.shape[1]):
            margin = x[i, j] - x[i, label] + 1
            if j != label and margin > 0:
                loss += margin / len(x)
                dx[i, j] += 1 / len(x)
                dx[i, label] -= 1 / len(x)
    return loss, dx


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["int64", "uint8", "int8", "uint64"])
def test_loss_and_gradient(device, dtype, kind):
    y = backend.asarray(np.array([3, 0, 1, 1, 2, 3], kind))
    for _, x in variants(normal((6, 4), dtype, 1)):
        with frozen(x, y):
            loss, dx = svm_loss(x, y)
        assert_separate((loss, dx), [x, y])
        expected, gradient = by_loops(x, y)
        assert loss.shape == ()
        assert_close(loss, expected, "float32" if dtype == "float16" else dtype, terms=24, magnitude=10)
        assert_close(dx, gradient, dtype, terms=4, magnitude=1)


def test_numerical_gradient(device):
    x, y = normal((5, 3), "float64"), xp.asarray([0, 2, 1, 1, 0])
    check_gradient(lambda x: svm_loss(x, y)[0], [x], [svm_loss(x, y)[1]])


def test_a_margin_of_nothing_has_no_gradient(device):
    """Whole scores, of which many are at the corner."""
    x, y = whole((8, 5), "float32", 1), xp.asarray([0, 1, 2, 3, 4, 0, 1, 2])
    loss, dx = svm_loss(x, y)
    expected, gradient = by_loops(x, y)
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    assert_same(dx, gradient, "float32")


def test_equal_scores_cost_one_for_each_wrong_class(device):
    assert float(svm_loss(xp.zeros((4, 10)), [0, 3, 9, 9])[0]) == 9


def test_no_samples(device):
    loss, dx = svm_loss(xp.zeros((0, 3), "float32"), xp.zeros(0, int))
    assert (float(loss), dx.shape, dx.dtype) == (0, (0, 3), "float32")


def test_scores_that_are_no_number_are_no_loss(device):
    x = xp.zeros((2, 3))
    x[1, 2] = np.nan
    assert np.isnan(float(svm_loss(x, [0, 0])[0]))
    assert np.isnan(float(svm_loss(x, [0, 2])[0]))


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_that_is_no_class(device, label):
    """Named on the CPU; on a GPU the loss is no number, since raising would wait."""
    x, y = xp.zeros((2, 3), "float32"), xp.asarray([1, label])
    if device.kind == "cpu":
        with pytest.raises(ValueError, match=f"label {label} at index 1 is out of range: expected 0 to 2"):
            svm_loss(x, y)
    else:
        assert np.isnan(float(svm_loss(x, y)[0]))


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (np.zeros(3), [1], ValueError, r"svm_loss needs scores \(N, C\), got shape \(3,\)"),
        (np.zeros((2, 1)), [0, 0], ValueError, "svm_loss needs scores of at least 2 classes, got 1"),
        (np.zeros((2, 3)), [1], ValueError, r"labels for scores of \(2, 3\) are \(2,\), got \(1,\)"),
        (np.zeros((2, 3)), [[1], [2]], ValueError, r"are \(2,\), got \(2, 1\)"),
        (np.zeros((2, 3)), np.eye(2, 3), ValueError, r"are \(2,\), got \(2, 3\)"),
        (np.zeros((2, 3)), [1.0, 2.0], TypeError, "labels are class indices, of an integer dtype, got float64"),
        (np.zeros((2, 3)), [True, False], TypeError, "labels are class indices, of an integer dtype, got bool"),
    ],
)
def test_refuses(x, y, error, message):
    with pytest.raises(error, match=message):
        svm_loss(x, y)
