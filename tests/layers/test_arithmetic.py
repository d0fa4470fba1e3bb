"""The nodes of a hand-drawn computational graph."""

import numpy as np
import pytest

import backend
from backend import xp
from layers import AddLayer, MulLayer
from tests.support.checks import assert_same, whole
from tests.support.layer_checks import Contract, Expected, LayerCase, Oracle

MULTIPLY = Oracle(
    lambda p, x, y: Expected(x * y, abs(x * y), 0, 1),
    lambda p, dout, x, y: {
        "x": Expected(dout * y, abs(dout * y), 0, 1),
        "y": Expected(dout * x, abs(dout * x), 0, 1),
    },
)
ADD = Oracle(
    lambda p, x, y: Expected(x + y, abs(x + y), 0, 1),
    lambda p, dout, x, y: {"x": Expected(dout), "y": Expected(dout)},
)
CASES = [
    LayerCase("MulLayer", lambda draw: MulLayer(), (4, 3), MULTIPLY, inputs=2),
    LayerCase("MulLayer of images", lambda draw: MulLayer(), (2, 3, 2, 4), MULTIPLY, inputs=2),
    LayerCase("AddLayer", lambda draw: AddLayer(), (4, 3), ADD, inputs=2),
    LayerCase("AddLayer of images", lambda draw: AddLayer(), (2, 3, 2, 4), ADD, inputs=2),
]


@pytest.mark.parametrize("case", CASES, ids=str)
class TestContract(Contract):
    pass


def test_the_books_shopping():
    """Chapter 5.4: 2 apples at 100 and 3 oranges at 150, with 10 % tax, are 715; the gradients as printed there."""
    apple, orange, both, tax = MulLayer(), MulLayer(), AddLayer(), MulLayer()
    price = tax.forward(both.forward(apple.forward(100, 2), orange.forward(150, 3)), 1.1)
    dall, dtax = tax.backward(1)
    dapple_price, dorange_price = both.backward(dall)
    dorange, dorange_num = orange.backward(dorange_price)
    dapple, dapple_num = apple.backward(dapple_price)
    assert round(price, 10) == 715
    gradients = [dapple_num, dapple, dorange, dorange_num, dtax]
    assert [round(float(g), 10) for g in gradients] == [110, 2.2, 3.3, 165, 650]


def test_gradients_of_numbers_that_arrays_hold(device):
    """A dout of 1 is the book's habit: it must not cost the images their memory order or dtype."""
    x, y = (whole((2, 3, 2, 4), "float32", seed) for seed in (1, 2))
    layer = MulLayer()
    layer.forward(x, y)
    dx, dy = layer.backward(1)
    assert_same(dx, y)
    assert_same(dy, x)
    assert not xp.shares_memory(dx, y)
    assert not xp.shares_memory(dy, x)


@pytest.mark.parametrize("layer", [MulLayer, AddLayer])
def test_refuses_two_shapes(device, layer):
    """Broadcasting would return gradients of the wrong shape."""
    for shapes in (((4, 3), (3,)), ((2, 3, 2, 2), (2, 3, 1, 1))):
        x, y = (backend.asarray(np.ones(shape, "float32")) for shape in shapes)
        with pytest.raises(ValueError) as caught:
            layer().forward(x, y)
        assert all(str(shape) in str(caught.value) for shape in shapes)


def test_repr():
    assert repr(MulLayer()) == "MulLayer()"
    assert repr(AddLayer()) == "AddLayer()"
