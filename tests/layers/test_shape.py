"""Flatten."""

import math

import numpy as np
import pytest

import backend
from layers import Flatten
from tests.support.checks import assert_same
from tests.support.layer_checks import Contract, Expected, LayerCase, Oracle

FLATTEN = Oracle(
    lambda p, x: Expected(x.reshape(len(x), math.prod(x.shape[1:]))),
    lambda p, dout, x: {"x": Expected(dout.reshape(x.shape))},
)
CASES = [
    LayerCase(f"Flatten {shape[1:]}", lambda draw: Flatten(), shape, FLATTEN)
    for shape in ((2, 3, 2, 4), (2, 3, 1, 4), (2, 3, 4, 1), (2, 1, 3, 4), (2, 3, 1, 1), (2, 3, 4), (2, 5))
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
