"""Flatten, Reshape and Permute."""

import math

import numpy as np
import pytest

import backend
from layers import Flatten, Permute, Reshape
from tests.support.checks import assert_same
from tests.support.layer_checks import Contract, Expected, LayerCase, Oracle

FLATTEN = Oracle(
    lambda p, x: Expected(x.reshape(len(x), math.prod(x.shape[1:]))),
    lambda p, dout, x: {"x": Expected(dout.reshape(x.shape))},
)


def reshaped(shape):
    return Oracle(
        lambda p, x: Expected(x.reshape(len(x), *shape)), lambda p, dout, x: {"x": Expected(dout.reshape(x.shape))}
    )


def permuted(axes):
    back = np.argsort((0, *axes))
    return Oracle(
        lambda p, x: Expected(x.transpose(0, *axes)), lambda p, dout, x: {"x": Expected(dout.transpose(*back))}
    )


CASES = [
    LayerCase(f"Flatten {shape[1:]}", lambda draw: Flatten(), shape, FLATTEN)
    for shape in ((2, 3, 2, 4), (2, 3, 1, 4), (2, 3, 4, 1), (2, 1, 3, 4), (2, 3, 1, 1), (2, 3, 4), (2, 5))
]
CASES += [
    LayerCase(f"Reshape {shape[1:]} to {to}", lambda draw, to=to: Reshape(to), shape, reshaped(to))
    for shape, to in (((2, 3, 2, 4), (3, 8, 1)), ((2, 3, 8, 1), (3, 2, 4)), ((2, 24), (2, 3, 4)), ((2, 6, 4), (24,)))
]
CASES += [
    LayerCase(f"Permute {shape[1:]} by {axes}", lambda draw, axes=axes: Permute(axes), shape, permuted(axes))
    for shape, axes in (
        ((2, 3, 5, 1), (2, 1, 3)),
        ((2, 3, 2, 4), (3, 1, 2)),
        ((2, 3, 2, 4), (1, 2, 3)),
        ((2, 3, 4), (2, 1)),
        ((2, 5), (1,)),
    )
]


@pytest.mark.parametrize("case", CASES, ids=str)
class TestContract(Contract):
    pass


def test_order_is_logical(device):
    """Channels first, then rows, then columns, though images lie in memory with channels last."""
    nhwc = backend.asarray(np.arange(12, dtype="float32").reshape(1, 2, 2, 3))
    assert_same(Flatten().forward(nhwc.transpose(0, 3, 1, 2)), np.float32([[0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]]))


def test_refuses_integers():
    with pytest.raises(TypeError, match="Flatten needs x as a floating-point array, got uint8"):
        Flatten().forward(np.ones((2, 3), "uint8"))


def test_repr():
    assert repr(Flatten()) == "Flatten()"
    assert repr(Reshape((3, 8, 1))) == "Reshape(3 x 8 x 1)"
    assert repr(Permute((2, 1, 3))) == "Permute(2, 1, 3)"


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"Reshape\(3 x 8 x 1\) takes 24 numbers per sample, got \(3, 2, 3\)"):
        Reshape((3, 8, 1)).forward(np.ones((2, 3, 2, 3), "float32"))
    with pytest.raises(ValueError, match=r"Permute\(2, 1\) takes samples of 2 axes, got \(3, 2, 3\)"):
        Permute((2, 1)).forward(np.ones((2, 3, 2, 3), "float32"))
    for axes in ((0, 1), (1, 1), (1, 3), (2,)):
        with pytest.raises(ValueError, match="axes"):
            Permute(axes)
    with pytest.raises(ValueError, match=r"shape\[1\] must be a whole number of at least 1"):
        Reshape((3, 0))
