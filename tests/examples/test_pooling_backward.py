"""The gradients of both poolings."""

import numpy as np

import backend
from backend import asnumpy
from examples.pooling_backward import DOUT, TEXT_DX, X, by_layer, main, max_pooling
from layers import AveragePooling, Pooling
from tests.support.checks import assert_same
from tests.support.example_checks import output_of


def test_max_pooling_gives_the_gradient_to_the_recorded_maxima(device):
    """To the bit: backward only moves numbers."""
    y, argmax, dx = max_pooling(backend.asarray(X), backend.asarray(DOUT))
    assert_same(dx, TEXT_DX)
    at = np.unravel_index(asnumpy(argmax), (4, 4))
    n, c = np.indices((2, 2, 2, 2))[:2]
    assert_same(y, X[n, c, at[0], at[1]])
    assert_same(y, X.reshape(2, 2, 2, 2, 2, 2).max(axis=(3, 5)))


def test_the_layer_computes_the_same_bits(device):
    y, dx = by_layer(Pooling(2, 2, stride=2), backend.asarray(X), backend.asarray(DOUT))
    assert_same(y, X.reshape(2, 2, 2, 2, 2, 2).max(axis=(3, 5)))
    assert_same(dx, TEXT_DX)


def test_average_pooling_shares_the_gradient_evenly(device):
    """To the bit: a quarter of a number is exact."""
    _, dx = by_layer(AveragePooling(2, 2, stride=2), backend.asarray(X), backend.asarray(DOUT))
    assert_same(dx, np.kron(DOUT / 4, np.ones((2, 2), "float32")))


PRINTED = """\
image 0, channel 0: x; largest; at (row,column); dout; dx
  0.79 0.36 0.41 0.16   0.94 0.89   (1,0) (1,3)   0.41 0.71   0.00 0.00 0.00 0.00
  0.94 0.56 0.26 0.89   0.99 0.94   (3,1) (3,3)   0.28 0.74   0.41 0.00 0.00 0.71
  0.82 0.50 0.81 0.47                                         0.00 0.00 0.00 0.00
  0.95 0.99 0.38 0.94                                         0.00 0.28 0.00 0.74
image 0, channel 1"""


def test_prints_every_entry(device):
    output = output_of(main, "--device", device.kind)
    assert output.startswith(PRINTED)
    assert "dx differs from the text's by 0 at most\nlayers.Pooling computes the same bits: True\n" in output
    assert output.endswith("  0.0700 0.0700 0.1850 0.1850\n")
