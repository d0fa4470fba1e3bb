"""Inputs beside what a layer makes of them, for images and rows."""

import numpy as np
import pytest

from backend import asarray, asnumpy, xp
from backend.recording import Recorder
from kernels.core.layout import is_channels_last
from layers import Affine, Convolution, Dropout, Pooling, Relu, Sequential, Skip
from tests.support import oracles
from tests.support.layer_checks import Contract, Expected, LayerCase, Oracle
from tests.support.oracles import Geometry

AROUND = Geometry((3, 3), pads=(1, 1, 1, 1))


def exact(forward, backward):
    return Oracle(
        lambda p, x: Expected(forward(p, x)),
        lambda p, dout, x: {name: Expected(gradient) for name, gradient in backward(p, dout, x).items()},
    )


def images_forward(p, x):
    return np.concatenate([x, oracles.convolution(x, p["body.W"], p["body.b"], AROUND)], axis=1)


def images_backward(p, dout, x):
    own, rest = dout[:, :3], dout[:, 3:]
    return {
        "x": own + oracles.convolution_backward_input(rest, p["body.W"], x.shape, AROUND),
        "body.W": oracles.convolution_backward_weight(x, rest, p["body.W"].shape, AROUND),
        "body.b": rest.sum((0, 2, 3)),
    }


def rows_forward(p, x):
    return np.concatenate([x, x @ p["body.W"] + p["body.b"]], axis=1)


def rows_backward(p, dout, x):
    own, rest = dout[:, :4], dout[:, 4:]
    return {"x": own + rest @ p["body.W"].T, "body.W": x.T @ rest, "body.b": rest.sum(0)}


CASES = [
    LayerCase(
        "Skip of images",
        lambda draw: Skip(Convolution(draw(2, 3, 3, 3), draw(2), pad=1)),
        (2, 3, 4, 3),
        exact(images_forward, images_backward),
        exact=True,
    ),
    LayerCase(
        "Skip of rows",
        lambda draw: Skip(Affine(draw(4, 3), draw(3))),
        (5, 4),
        exact(rows_forward, rows_backward),
        exact=True,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
class TestContract(Contract):
    pass


def test_sequences_are_extended_along_their_last_axis(device):
    x = asarray(np.arange(12.0).reshape(1, 3, 4) - 5)
    layer = Skip(Relu())
    y = layer.forward(x)
    np.testing.assert_array_equal(asnumpy(y), np.concatenate([asnumpy(x), np.maximum(asnumpy(x), 0)], axis=2))
    np.testing.assert_array_equal(asnumpy(layer.backward(xp.ones_like(y))), 1 + (asnumpy(x) > 0))
    assert layer.output_shape((3, 4)) == (3, 8)


def test_images_come_out_with_their_channels_last(device):
    layer = Skip(Relu())
    y = layer.forward(xp.ones((2, 3, 4, 5), "float32"))
    assert is_channels_last(y)
    assert is_channels_last(layer.backward(y))


def test_an_output_shares_nothing_with_its_input():
    x = np.ones((2, 3), "float32")
    y = Skip(Dropout(0.5)).eval().forward(x)
    assert not np.shares_memory(x, y)


def test_names_and_ranges():
    layer = Skip(Sequential(Affine.of(4, 3)))
    assert list(layer.params) == ["body.Affine1.W", "body.Affine1.b"]
    with Recorder() as recorder:
        network = Sequential(layer)
        network.forward(np.ones((2, 4), "float32"))
        network.backward(np.ones((2, 7), "float32"))
    found = [(event.name, event.category) for event in recorder.events if event.kind == "layer"]
    assert found == [(name, phase) for phase in ("forward", "backward") for name in ("Skip1", "body", "Affine1")]
    joined = [event for event in recorder.events if event.name == "layout.joined"]
    assert [event.parent.name for event in joined] == ["Skip1"]
    assert repr(network) == "Sequential(\n  Skip1: Skip(Sequential(\n      Affine1: Affine(4 → 3)\n    ))\n)"


def test_a_body_that_changes_the_size_is_refused():
    with pytest.raises(ValueError, match=r"body makes \(3, 2, 2\) of \(3, 4, 4\): they cannot be put side by side"):
        Skip(Pooling(2, 2, stride=2)).output_shape((3, 4, 4))
    with pytest.raises(ValueError, match=r"Skip cannot put \(1, 3, 2, 2\) beside its input \(1, 3, 4, 4\)"):
        Skip(Pooling(2, 2, stride=2)).forward(np.ones((1, 3, 4, 4), "float32"))
    with pytest.raises(ValueError, match="cannot be put side by side"):
        Skip(Affine.of(48, 3)).output_shape((3, 4, 4))
    with pytest.raises(TypeError, match="Skip: body must be a layer"):
        Skip(3)
