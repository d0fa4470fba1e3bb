"""Errors of a convolution: each has the numbers that do not fit, and comes before anything is computed."""

import numpy as np
import pytest

import backend
from backend import asnumpy
from kernels.convolution import convolution, convolution_backward_input, convolution_backward_weight
from kernels.core.window import Window
from tests.support.checks import whole


def _refused(x=(2, 4, 6, 6), weight=(6, 4, 3, 3), bias=(6,), groups=1, dtype="float32"):
    return {"x": x, "weight": weight, "bias": bias, "groups": groups, "dtype": dtype}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (_refused(x=(4, 6, 6)), r"images \(N, C, H, W\), got shape \(4, 6, 6\)"),
        (_refused(weight=(6, 4, 2, 3)), r"weight of shape \(6, 4, 2, 3\) .*kernel 3x3"),
        (_refused(weight=(6, 36)), r"weight of shape \(6, 36\)"),
        (_refused(weight=(6, 3, 3, 3)), r"\(2, 4, 6, 6\) have 4 channels; weight \(6, 3, 3, 3\) .*needs 3"),
        (_refused(x=(2, 0, 6, 6), weight=(6, 0, 3, 3)), r"at least one filter and channel.*\(6, 0, 3, 3\)"),
        (_refused(weight=(0, 4, 3, 3), bias=(0,)), r"at least one filter and channel.*\(0, 4, 3, 3\)"),
        (_refused(groups=3), "3 groups do not divide 4 channels and 6 filters"),
        (_refused(groups=4), "4 groups do not divide 4 channels and 6 filters"),
        (_refused(groups=0), "groups must be a whole number of at least 1, got 0"),
        (_refused(groups=2), r"weight \(6, 4, 3, 3\) with 2 group.* needs 8"),
        (_refused(dtype="float64"), "x is float32, weight is float64"),
        (_refused(x=(2, 4, 2, 6)), "window of 3 does not fit the image's height: 2"),
        (_refused(bias=(5,)), r"bias.*\(5,\)"),
        (_refused(bias=(1,)), r"bias.*\(1,\)"),
        (_refused(bias=(6, 1)), r"bias.*\(6, 1\)"),
    ],
)
def test_refusals_of_the_forward(device, given, message):
    weight = whole(given["weight"], given["dtype"])
    with pytest.raises(ValueError, match=message):
        convolution(whole(given["x"]), weight, whole(given["bias"]), Window(3), given["groups"])


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool"])
def test_refusals_of_a_dtype(device, dtype):
    """Images as bytes, and with weights of bytes too: a library's integer product would wrap."""
    x, weight, dy = whole((2, 4, 6, 6)).astype(dtype), whole((6, 4, 3, 3)), whole((2, 6, 4, 4)).astype(dtype)
    message = f"convolution needs float16, float32 or float64, got {dtype}"
    for filters in (weight, weight.astype(dtype)):
        with pytest.raises(TypeError, match=message):
            convolution(x, filters, None, Window(3))
        with pytest.raises(TypeError, match=message):
            convolution_backward_input(dy, filters, x.shape, Window(3))
    for gradient in (dy, dy.astype("float32")):
        with pytest.raises(TypeError, match=message):
            convolution_backward_weight(x, gradient, weight.shape, Window(3))


@pytest.mark.parametrize("shape", [(2, 6, 4, 5), (2, 5, 4, 4), (1, 6, 4, 4), (6, 4, 4)])
@pytest.mark.parametrize("groups", [1, 2])
def test_refusals_of_a_wrong_gradient(device, shape, groups):
    x, weight, dy = whole((2, 4, 6, 6)), whole((6, 4 // groups, 3, 3)), whole(shape)
    message = rf"gradient has shape {shape}, the output \(2, 6, 4, 4\)".replace("shape (", r"shape \(").replace(
        "),", r"\),"
    )
    with pytest.raises(ValueError, match=message):
        convolution_backward_input(dy, weight, x.shape, Window(3), groups)
    with pytest.raises(ValueError, match=message):
        convolution_backward_weight(x, dy, weight.shape, Window(3), groups)


@pytest.mark.parametrize(
    ("weight", "groups"),
    [((6, 3, 3, 3), 1), ((6, 2, 3, 3), 1), ((6, 0, 3, 3), 1), ((6, 4, 3, 3), 2), ((6, 4, 2, 2), 1), ((6, 1, 3, 3), 3)],
)
def test_refusals_of_a_wrong_weight_shape(device, weight, groups):
    """A gradient for filters that the forward would have refused is no gradient."""
    with pytest.raises(ValueError, match=r"\(6, \d, \d, \d\)|groups"):
        convolution_backward_weight(whole((2, 4, 6, 6)), whole((2, 6, 4, 4)), weight, Window(3), groups)
    with pytest.raises(ValueError, match=r"\(6, \d, \d, \d\)|groups"):
        convolution_backward_input(whole((2, 6, 4, 4)), whole(weight), (2, 4, 6, 6), Window(3), groups)


def test_refusal_of_an_array_for_another_weight(device):
    x, dy = whole((2, 4, 6, 6)), whole((2, 6, 4, 4))
    for out in (whole((6, 4, 3, 4)), whole((1, 6, 4, 3, 3))):
        with pytest.raises(ValueError, match=r"out.*\(6, 4, 3, 3\)|\(6, 4, 3, 3\).*out"):
            convolution_backward_weight(x, dy, (6, 4, 3, 3), Window(3), out=out)
    for out in (whole((5,)), whole((1,)), whole((6, 1))):
        with pytest.raises(ValueError, match=r"bias_out must have shape \(6,\), got \("):
            convolution_backward_weight(x, dy, (6, 4, 3, 3), Window(3), bias_out=out)


def test_refusal_of_a_bias_of_another_dtype(device):
    x, weight, bias = whole((2, 4, 6, 6)), whole((6, 4, 3, 3)), whole((6,))
    with pytest.raises(ValueError, match="needs one dtype: x is float32, weight is float32, bias is float64"):
        convolution(x, weight, bias.astype("float64"), Window(3))
    with pytest.raises(TypeError, match="convolution needs float16, float32 or float64, got int32"):
        convolution(x, weight, bias.astype("int32"), Window(3))


@pytest.mark.gpu
@pytest.mark.parametrize("groups", [1, 4])
def test_host_and_device_arrays_do_not_mix(groups):
    with backend.use("cuda"):
        x, weight, dy = whole((2, 4, 6, 6)), whole((4, 4 // groups, 3, 3)), whole((2, 4, 4, 4))
        window = Window(3)
        with pytest.raises(TypeError, match=r"numpy.*cupy"):
            convolution(x, asnumpy(weight), None, window, groups)
        with pytest.raises(TypeError, match=r"numpy.*cupy"):
            convolution(asnumpy(x), asnumpy(weight), backend.asarray(np.zeros(4, "float32")), window, groups)
        with pytest.raises(TypeError, match=r"numpy.*cupy"):
            convolution_backward_input(asnumpy(dy), weight, x.shape, window, groups)
        with pytest.raises(TypeError, match=r"numpy.*cupy"):
            convolution_backward_weight(x, asnumpy(dy), weight.shape, window, groups)
