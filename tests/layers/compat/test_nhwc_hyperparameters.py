"""Conv2D and Pool2D: what they are made from, and what is refused."""

import json

import numpy as np
import pytest

import backend
from layers.compat.nhwc import Conv2D, Pool2D
from tests.support.checks import assert_same, normal

# -- hyper-parameters ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (
            lambda: Conv2D(3, 8, (3, 2), stride=2, pad="same", init=0.01, dtype="float64"),
            {
                "layer": "Conv2D",
                "in_ch": 3,
                "out_ch": 8,
                "kernel_shape": [3, 2],
                "stride": [2, 2],
                "pad": "same",
                "init": 0.01,
                "dtype": "float64",
            },
        ),
        (
            lambda: Conv2D(np.int64(1), 2, 3, (1, 2), pad=(1, 0), init=np.float32(0.25)).astype("float16"),
            {
                "layer": "Conv2D",
                "in_ch": 1,
                "out_ch": 2,
                "kernel_shape": [3, 3],
                "stride": [1, 2],
                "pad": [1, 1, 0, 0],
                "init": 0.25,
                "dtype": "float16",
            },
        ),
        (
            lambda: Pool2D((2, 3), 2, (0, 1, 2, 1), "average", count_padding=np.True_),
            {
                "layer": "Pool2D",
                "kernel_shape": [2, 3],
                "stride": [2, 2],
                "pad": [0, 1, 2, 1],
                "mode": "average",
                "count_padding": True,
            },
        ),
        (
            lambda: Pool2D(2, pad="valid"),
            {
                "layer": "Pool2D",
                "kernel_shape": [2, 2],
                "stride": [1, 1],
                "pad": "valid",
                "mode": "max",
                "count_padding": False,
            },
        ),
    ],
)
def test_hyperparameters_rebuild_the_layer(device, layer, expected):
    """Through JSON; with the weights carried over, it computes the same."""
    made = layer()
    assert made.hyperparameters == expected
    given = json.loads(json.dumps(made.hyperparameters))
    twin = type(made).from_hyperparameters(given)
    assert given == expected
    assert twin.hyperparameters == expected
    assert repr(twin) == repr(made)
    for name, array in made.params.items():
        assert twin.params[name].shape == array.shape
        assert twin.params[name].dtype == array.dtype
        setattr(twin, name, array)
    x = normal((2, 6, 7, expected.get("in_ch", 2)))
    assert_same(twin.forward(x), made.forward(x))


def test_what_has_a_default_may_be_left_out():
    assert (
        Conv2D.from_hyperparameters({"in_ch": 1, "out_ch": 2, "kernel_shape": [3, 3]}).hyperparameters["pad"] == [0] * 4
    )
    assert repr(Pool2D.from_hyperparameters({"kernel_shape": 2})) == "Pool2D(max, kernel 2x2)"


@pytest.mark.parametrize(
    ("hyperparameters", "error", "message"),
    [
        (
            {"kernel_shape": 2, "in_ch": 3},
            ValueError,
            r"hyperparameters needs 'out_ch', got \['kernel_shape', 'in_ch'\]",
        ),
        (
            {"in_ch": 1, "out_ch": 2, "kernel_shape": 2, "mode": "max"},
            ValueError,
            "hyperparameters takes 'in_ch', .*, got 'mode'",
        ),
        (
            {"layer": "Pool2D", "in_ch": 1, "out_ch": 2, "kernel_shape": 2},
            ValueError,
            r"hyperparameters\['layer'\] must be one of 'Conv2D', got 'Pool2D'",
        ),
        ([3], TypeError, r"hyperparameters must be a dictionary .*got \[3\]"),
    ],
)
def test_refuses_hyperparameters(hyperparameters, error, message):
    with pytest.raises(error, match=message):
        Conv2D.from_hyperparameters(hyperparameters)


# -- what is refused -----------------------------------------------------------------------------------------------


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Conv2D(0, 1, 3), ValueError, "in_ch must be a whole number from 1 .*, got 0"),
        (lambda: Conv2D(1, 1.5, 3), ValueError, "out_ch must be a whole number from 1 .*, got 1.5"),
        (lambda: Conv2D(1, 1, (3, 0)), ValueError, r"kernel_shape\[1\] must be a whole number from 1 .*, got 0"),
        (lambda: Conv2D(1, 1, (3, 3, 3)), ValueError, "kernel_shape must be one number or a pair"),
        (lambda: Conv2D(1, 1, 3, stride=0), ValueError, "stride must be a whole number from 1 .*, got 0"),
        (lambda: Conv2D(1, 1, 3, pad="full"), ValueError, "'same', 'valid', got 'full'"),
        (lambda: Conv2D(1, 1, 3, pad=(1, 2, 3)), ValueError, "padding must be one number, a pair, four numbers"),
        (lambda: Conv2D(1, 1, 3, init="glorot"), ValueError, "got 'glorot'"),
        (lambda: Conv2D(1, 1, 3, dtype="int32"), TypeError, "int32"),
        (lambda: Pool2D(2, mode="mean"), ValueError, "mode must be one of 'max', 'average', got 'mean'"),
        (lambda: Pool2D(2, count_padding=True), ValueError, "count_padding is for mode 'average' only"),
        (lambda: Pool2D(2).forward(ones(2, 4, 4)), ValueError, r"takes images \(N, H, W, C\), got shape \(2, 4, 4\)"),
        (lambda: Pool2D(2).forward(ones(1, 1, 4, 4)), ValueError, "window of 2 does not fit the image's height: 1"),
        (lambda: Pool2D(1, pad=1).forward(ones(1, 3, 3, 1)), ValueError, "nothing but padding"),
        (
            lambda: Pool2D(2).forward([ones(1, 4, 4, 1), 3]),
            TypeError,
            "Pool2D needs x as a floating-point array, got int",
        ),
        (
            lambda: Conv2D(3, 1, 3).forward(ones(2, 3, 9, 9)),
            ValueError,
            r"takes images \(N, H, W, 3\), got .*\(2, 3, 9, 9\)",
        ),
        (
            lambda: Conv2D(3, 1, 3).forward(ones(9, 9, 3)),
            ValueError,
            r"takes images \(N, H, W, 3\), got shape \(9, 9, 3\)",
        ),
        (lambda: Conv2D(3, 1, 3).output_shape((3, 9, 9)), ValueError, "takes .* with 3 channels, got"),
        (lambda: Pool2D(2).output_shape((9, 9)), ValueError, r"takes images \(H, W, C\), got \(9, 9\)"),
    ],
)
def test_refuses(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_repr():
    assert repr(Conv2D(3, 4, (3, 2), 2, "same")) == "Conv2D(3 → 4, kernel 3x2, stride 2, padding same)"
    assert repr(Pool2D(2, 2, 1, "average", True)) == "Pool2D(average, kernel 2x2, stride 2, padding 1, padding counted)"


def test_weights_are_those_of_its_size(device):
    """He's deviation is √(2 / inputs of an output)."""
    backend.random.seed(3)
    layer = Conv2D(4, 6, (3, 2), dtype="float64")
    backend.random.seed(3)
    assert_same(layer.W, backend.random.normal((3, 2, 4, 6), (2 / 24) ** 0.5, "float64"))
    assert_same(layer.b, np.zeros(6))
