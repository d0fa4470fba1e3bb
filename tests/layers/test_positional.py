"""Positions that are added to the numbers of a sequence."""

import math

import numpy as np
import pytest

from backend import asnumpy, xp
from layers import PositionalEmbedding, PositionalEncoding
from tests.support.checks import assert_same, normal
from tests.support.layer_checks import Contract, Expected, LayerCase, Oracle


def waves(length, size):
    """Section 3.5 of the paper, number by number."""
    return np.array(
        [
            [(math.cos if i % 2 else math.sin)(t / 10000 ** ((i - i % 2) / size)) for i in range(size)]
            for t in range(length)
        ]
    )


def added(x, positions, roundings):
    return Expected(x + positions, np.abs(x) + np.abs(positions), 0, roundings)


ENCODING = Oracle(
    lambda p, x: added(x, waves(*x.shape[1:]), 2), lambda p, dout, x: {"x": Expected(dout)}
)  # fmt: skip


def learned(p, dout, x):
    dW = np.zeros(p["W"].shape)
    dW[: x.shape[1]] = dout.sum(0)
    size = np.zeros(p["W"].shape)
    size[: x.shape[1]] = np.abs(dout).sum(0)
    return {"x": Expected(dout), "W": Expected(dW, size, len(x), 1)}


EMBEDDING = Oracle(lambda p, x: added(x, p["W"][: x.shape[1]], 1), learned)

CASES = [
    LayerCase("PositionalEncoding", lambda draw: PositionalEncoding(5, 6), (2, 5, 6), ENCODING),
    LayerCase("PositionalEncoding of an odd size", lambda draw: PositionalEncoding(9, 3), (3, 4, 3), ENCODING),
    LayerCase("PositionalEmbedding", lambda draw: PositionalEmbedding(draw(4, 3)), (2, 4, 3), EMBEDDING),
    LayerCase("PositionalEmbedding, shorter", lambda draw: PositionalEmbedding(draw(6, 3)), (3, 4, 3), EMBEDDING),
]


@pytest.mark.parametrize("case", CASES, ids=str)
class TestContract(Contract):
    pass


def test_positions_do_not_depend_on_the_length(device):
    layer = PositionalEncoding(100, 8)
    long = asnumpy(layer.forward(xp.zeros((1, 100, 8), "float32")))
    assert_same(layer.forward(xp.zeros((1, 7, 8), "float32")), long[:, :7])
    np.testing.assert_allclose(long[0], waves(100, 8), rtol=0, atol=1e-7)


@pytest.mark.parametrize("make", [lambda: PositionalEncoding(4, 3), lambda: PositionalEmbedding.of(4, 3)])
def test_what_does_not_fit_is_refused(device, make):
    for shape in ((5, 3), (4, 2), (3,), (2, 2, 3)):
        with pytest.raises(ValueError, match=r"takes sequences \(T, 3\) with T up to 4, got"):
            make().forward(normal((2, *shape)))


def test_a_frozen_embedding_has_no_gradient(device):
    layer = PositionalEmbedding.of(4, 3)
    layer.frozen = True
    layer.backward(layer.forward(normal((2, 4, 3))))
    assert layer.grads == {}
