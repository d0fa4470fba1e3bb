"""Conv2D and Pool2D as the example shows them."""

import json

import numpy as np

from examples.channels_last import main, output_sizes, poolings, rebuilt, several_inputs, without_gradients
from tests.support.example_checks import output_of


def test_output_sizes(device):
    """Of 8 rows and 7 columns under 3x3 at stride 2: "same" makes ⌈8/2⌉ and ⌈7/2⌉, with the odd row at the bottom."""
    assert output_sizes() == [
        ("valid", (0, 0, 0, 0), (3, 3, 4)),
        ("same", (0, 1, 1, 1), (4, 4, 4)),
        (1, (1, 1, 1, 1), (4, 4, 4)),
        ((0, 1), (0, 0, 1, 1), (3, 4, 4)),
        ((0, 1, 2, 0), (0, 1, 2, 0), (4, 4, 4)),
    ]


def test_poolings(device):
    """By hand, over 1 4 4 2 and one zero behind: each is a sum of halves, exact."""
    expected = {
        "max": ([4, 4, 4, 2], [0, 2, 1, 1]),
        "average": ([2.5, 4, 3, 2], [0.5, 1, 1, 1.5]),
        "average, padding counted": ([2.5, 4, 3, 1], [0.5, 1, 1, 1]),
    }
    found = poolings()
    assert found.keys() == expected.keys()
    for name, arrays in expected.items():
        for array, numbers in zip(found[name], arrays, strict=True):
            assert array.dtype == np.float32
            assert array.tolist() == numbers, name


def test_several_inputs(device):
    shapes, error = several_inputs()
    assert shapes == [(2, 8, 7, 4), (1, 5, 9, 4)]
    assert error < 1e-14


def test_gradients_that_are_not_retained(device):
    assert without_gradients() == ["none", "W, b"]


def test_rebuilt(device):
    text, difference = rebuilt()
    assert difference == 0
    made = json.loads(text)
    assert (made["in_ch"], made["out_ch"], made["kernel_shape"], made["pad"]) == (3, 4, [3, 3], "same")


def test_prints(device):
    output = output_of(main, "--device", device.kind)
    assert "pad same          top, bottom, left, right (0, 1, 1, 1)   output (4, 4, 4)" in output
    assert "retain_grads=False: none; True: W, b" in output
    assert '{"layer": "Conv2D", "in_ch": 3' in output
