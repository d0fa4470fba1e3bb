"""Dropout."""

import numpy as np
import pytest

import backend
from backend import asnumpy, xp
from layers import Dropout
from tests.support.checks import assert_same, normal
from tests.support.layer_checks import Contract, Expected, LayerCase, Oracle


def kept(shape, ratio):
    """Word i of the generator, in memory order (N, H, W, C), keeps element i unless it is among the lowest
    ratio·2³² words.
    """
    words = asnumpy(backend.random.Generator(0).bits(int(np.prod(shape))))
    if len(shape) != 4:
        return (words >= ratio * 2**32).reshape(shape)
    n, c, h, w = shape
    return (words >= ratio * 2**32).reshape(n, h, w, c).transpose(0, 3, 1, 2)


def masked(ratio):
    return Oracle(
        lambda p, x: Expected(x * kept(x.shape, ratio)),
        lambda p, dout, x: {"x": Expected(dout * kept(x.shape, ratio))},
    )


def scaled(factor):
    return Oracle(
        lambda p, x: Expected(x * factor, abs(x), 0, 2),
        lambda p, dout, x: {"x": Expected(dout * factor, abs(dout), 0, 2)},
    )


def enlarged(ratio):
    def results(numbers):
        stays = numbers * kept(numbers.shape, ratio) / (1 - ratio)
        return Expected(stays, abs(stays), 0, 2)

    return Oracle(lambda p, x: results(x), lambda p, dout, x: {"x": results(dout)})


CASES = [
    LayerCase(f"Dropout{name}{mode}", lambda draw, mode=mode: Dropout(0.3).train(not mode), shape, oracle)
    for name, shape in ((" of a matrix", (4, 5)), (" of images", (2, 3, 3, 2)))
    for mode, oracle in (("", masked(0.3)), (", eval", scaled(0.7)))
] + [
    LayerCase(
        f"Dropout of images, inverted{mode}",
        lambda draw, mode=mode: Dropout(0.3, inverted=True).train(not mode),
        (2, 3, 3, 2),
        oracle,
    )
    for mode, oracle in (("", enlarged(0.3)), (", eval", scaled(1.0)))
]


@pytest.mark.parametrize("case", CASES, ids=str)
class TestContract(Contract):
    pass


def test_the_default_is_to_drop(device):
    x = xp.ones((10, 10), "float32")
    layer = Dropout(0.5)
    dropped = asnumpy(layer.forward(x))
    assert set(dropped.ravel().tolist()) == {0.0, 1.0}
    assert_same(layer.backward(x), dropped)


def test_evaluation_by_mode(device):
    x = normal((3, 4))
    layer = Dropout(0.25).eval()
    assert_same(layer.forward(x), x * 0.75)
    assert float((layer.train().forward(x) == 0).sum()) > 0


def test_share_that_is_dropped(device):
    """Of 4096 elements: within 5 standard deviations of √(n·p·(1 - p))."""
    x = xp.ones((64, 64), "float32")
    for ratio in (0.1, 0.5, 0.9):
        dropped = 4096 - float(Dropout(ratio).forward(x).sum())
        assert abs(dropped - 4096 * ratio) < 5 * (4096 * ratio * (1 - ratio)) ** 0.5


def test_nothing_is_dropped_at_zero(device):
    x = normal((2, 3))
    assert_same(Dropout(0).forward(x), x)


def test_every_forward_draws_a_mask(device):
    x, layer = xp.ones((8, 8), "float32"), Dropout(0.5)
    first, second = asnumpy(layer.forward(x)), asnumpy(layer.forward(x))
    assert (first != second).any()
    backend.random.seed(0)
    assert_same(layer.forward(x), first)


@pytest.mark.gpu
def test_masks_are_the_same_on_every_device():
    masks = []
    for name in ("cpu", "cuda"):
        with backend.use(name):
            backend.random.seed(3)
            masks.append(asnumpy(Dropout(0.4).forward(xp.ones((2, 3, 4, 5), "float32"))))
    assert_same(masks[1], masks[0])


@pytest.mark.parametrize("ratio", [-0.1, 1, 1.5, float("nan")])
def test_refuses_a_ratio(ratio):
    with pytest.raises(ValueError, match=f"dropout_ratio must be .* at least 0 and below 1, got {ratio}"):
        Dropout(ratio)


def test_refuses_integers():
    with pytest.raises(TypeError, match="Dropout needs x as a floating-point array, got int64"):
        Dropout().forward(np.ones((2, 3), "int64"))


def test_repr():
    assert repr(Dropout(0.25)) == "Dropout(0.25)"


def test_inverted_dropout_keeps_the_mean_and_is_nothing_in_evaluation(device):
    x = xp.ones((64, 64), "float32")
    layer = Dropout(0.25, inverted=True)
    y = asnumpy(layer.forward(x))
    assert set(y.ravel().tolist()) == {0.0, float(np.float32(4 / 3))}
    assert abs(y.mean() - 1) < 5 * (0.25 / 0.75 / 4096) ** 0.5
    assert_same(layer.eval().forward(x), x)


def test_almost_all_dropped_stays_finite_in_float16(device):
    y = Dropout(1 - 2**-20, inverted=True).forward(xp.ones((8, 8), "float16"))
    assert bool(xp.isfinite(y).all())


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_backward_belongs_to_the_forward_whatever_the_mode_is_by_then(device, inverted, training):
    layer, ones = Dropout(0.5, inverted), xp.ones((4, 50), "float32")
    y = layer.train(training).forward(ones)
    layer.train(not training)
    assert_same(layer.backward(ones), y)
