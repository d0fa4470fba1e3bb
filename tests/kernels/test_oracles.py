"""The oracles themselves, against published numbers and against one another: what checks the code is checked first.

The tables are those of the ONNX operator specification's examples (Conv, ConvTranspose, MaxPool, AveragePool, Softmax).
"""

import numpy as np
import pytest
from hypothesis import given, settings

from tests.support import oracles
from tests.support.oracles import Geometry

COUNTING = np.arange(1.0, 26.0).reshape(1, 1, 5, 5)
SQUARE = np.arange(1.0, 17.0).reshape(1, 1, 4, 4)


@pytest.mark.parametrize(
    ("height", "geometry", "expected"),
    [
        (5, Geometry((3, 3)), [[54, 63, 72], [99, 108, 117], [144, 153, 162]]),
        (
            5,
            Geometry((3, 3), pads=(1, 1, 1, 1)),
            [
                [12, 21, 27, 33, 24],
                [33, 54, 63, 72, 51],
                [63, 99, 108, 117, 81],
                [93, 144, 153, 162, 111],
                [72, 111, 117, 123, 84],
            ],
        ),
        (7, Geometry((3, 3), (2, 2)), [[54, 72], [144, 162], [234, 252]]),
        (
            7,
            Geometry((3, 3), (2, 2), (1, 1, 1, 1)),
            [[12, 27, 24], [63, 108, 81], [123, 198, 141], [112, 177, 124]],
        ),
    ],
)
def test_convolution_of_onnx(height, geometry, expected):
    x = np.arange(height * 5.0).reshape(1, 1, height, 5)
    np.testing.assert_array_equal(oracles.convolution(x, np.ones((1, 1, 3, 3)), None, geometry)[0, 0], expected)


def test_transposed_convolution_of_onnx():
    x = np.arange(9.0).reshape(1, 1, 3, 3)
    y = oracles.convolution_backward_input(x, np.ones((1, 2, 3, 3)), (1, 2, 5, 5), Geometry((3, 3)))
    expected = [[0, 1, 3, 3, 2], [3, 8, 15, 12, 7], [9, 21, 36, 27, 15], [9, 20, 33, 24, 13], [6, 13, 21, 15, 8]]
    np.testing.assert_array_equal(y[0], [expected, expected])


@pytest.mark.parametrize(
    ("x", "geometry", "expected"),
    [
        (
            COUNTING,
            Geometry((5, 5), pads=(2, 2, 2, 2)),
            [[13, 14, 15, 15, 15], [18, 19, 20, 20, 20], *[[23, 24, 25, 25, 25]] * 3],
        ),
        (COUNTING, Geometry((2, 2), (2, 2)), [[7, 9], [17, 19]]),
        (COUNTING, Geometry((3, 3), (2, 2), (1, 1, 1, 1)), [[7, 9, 10], [17, 19, 20], [22, 24, 25]]),
        (SQUARE, Geometry((3, 3), (2, 2), ceil=True), [[11, 12], [15, 16]]),
        (SQUARE, Geometry((2, 2), dilation=(2, 2)), [[11, 12], [15, 16]]),
    ],
)
def test_max_pool_of_onnx(x, geometry, expected):
    y, argmax = oracles.max_pool(x, geometry)
    np.testing.assert_array_equal(y[0, 0], expected)
    np.testing.assert_array_equal(argmax[0, 0] + 1, expected)  # the pixels count up from 1


@pytest.mark.parametrize(
    ("x", "geometry", "count_padding", "expected"),
    [
        (
            COUNTING,
            Geometry((5, 5), pads=(2, 2, 2, 2)),
            False,
            [
                [7, 7.5, 8, 8.5, 9],
                [9.5, 10, 10.5, 11, 11.5],
                [12, 12.5, 13, 13.5, 14],
                [14.5, 15, 15.5, 16, 16.5],
                [17, 17.5, 18, 18.5, 19],
            ],
        ),
        (
            COUNTING,
            Geometry((5, 5), pads=(2, 2, 2, 2)),
            True,
            [
                [2.52, 3.6, 4.8, 4.08, 3.24],
                [4.56, 6.4, 8.4, 7.04, 5.52],
                [7.2, 10, 13, 10.8, 8.4],
                [6.96, 9.6, 12.4, 10.24, 7.92],
                [6.12, 8.4, 10.8, 8.88, 6.84],
            ],
        ),
        (COUNTING, Geometry((2, 2), (2, 2)), False, [[4, 6], [14, 16]]),
        (COUNTING, Geometry((3, 3), (2, 2), (1, 1, 1, 1)), False, [[4, 5.5, 7], [11.5, 13, 14.5], [19, 20.5, 22]]),
        (SQUARE, Geometry((3, 3), (2, 2), ceil=True), False, [[6, 7.5], [12, 13.5]]),
    ],
)
def test_average_pool_of_onnx(x, geometry, count_padding, expected):
    np.testing.assert_allclose(oracles.average_pool(x, geometry, count_padding)[0, 0], expected, rtol=1e-14)


def test_softmax_of_onnx():
    np.testing.assert_allclose(
        oracles.softmax(np.array([[-1.0, 0.0, 1.0]])), [[0.09003058, 0.24472848, 0.66524094]], atol=5e-9
    )


def test_cross_entropy_of_known_probabilities():
    x = np.log([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]])
    expected = -(np.log(0.25) + np.log(0.75)) / 2
    assert oracles.softmax_cross_entropy(x, np.array([1, 2])) == pytest.approx(expected, abs=1e-15)
    assert oracles.softmax_cross_entropy(x, np.eye(3)[[1, 2]]) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("seed", range(3))
def test_gradients_agree_with_differences(seed):
    """The three losses that are no linear maps: their gradients against central differences, element by element."""
    rng = np.random.default_rng(seed)
    x, dy = rng.standard_normal((5, 3)), rng.standard_normal((5, 3))
    gamma, beta, t = rng.standard_normal(3), rng.standard_normal(3), rng.integers(0, 3, 5)
    dx, dgamma, dbeta = oracles.batch_norm_backward(dy, x, gamma, 0.1)

    def difference(function, at):
        result = np.zeros(at.shape)
        for index in np.ndindex(at.shape):
            ahead, behind = at.copy(), at.copy()
            ahead[index] += 1e-5
            behind[index] -= 1e-5
            result[index] = (function(ahead) - function(behind)) / 2e-5
        return result

    def norm(x, gamma, beta):
        return (oracles.batch_norm(x, gamma, beta, 0.1)[0] * dy).sum()

    np.testing.assert_allclose(dx, difference(lambda x: norm(x, gamma, beta), x), atol=1e-8)
    np.testing.assert_allclose(dgamma, difference(lambda gamma: norm(x, gamma, beta), gamma), atol=1e-8)
    np.testing.assert_allclose(dbeta, difference(lambda beta: norm(x, gamma, beta), beta), atol=1e-8)
    for labels in (t, rng.random((5, 3))):
        numerical = difference(lambda x, labels=labels: oracles.softmax_cross_entropy(x, labels), x)
        np.testing.assert_allclose(oracles.softmax_cross_entropy_backward(x, labels), numerical, atol=1e-8)


def _cases():
    from tests.support.geometries import cases

    return cases(ceil=True)


@settings(max_examples=40)
@given(_cases())
def test_linear_maps_agree_with_one_another(case):
    """Convolution is im2col and a product; its gradients and col2im are the adjoints. All exact in whole numbers."""
    rng = np.random.default_rng(case.seed)
    n, c, *_ = case.shape
    x, dy = rng.integers(-3, 4, case.shape), rng.integers(-3, 4, (n, 4, *case.output))
    weight = rng.integers(-3, 4, (4, c, *case.geometry.kernel))
    y = oracles.convolution(x, weight, None, case.geometry)
    columns = oracles.im2col(x, case.geometry)
    product = (columns @ weight.reshape(4, -1).T).reshape(n, *case.output, 4).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(y, product)
    dx = oracles.convolution_backward_input(dy, weight, x.shape, case.geometry)
    dweight = oracles.convolution_backward_weight(x, dy, weight.shape, case.geometry)
    assert (y * dy).sum() == (x * dx).sum() == (weight * dweight).sum()
    dcolumns = rng.integers(-3, 4, columns.shape)
    assert (columns * dcolumns).sum() == (x * oracles.col2im(dcolumns, x.shape, case.geometry)).sum()
