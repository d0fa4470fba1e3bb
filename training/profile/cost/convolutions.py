"""The cost of convolution layers."""

from __future__ import annotations

from kernels import depthwise
from layers import Convolution, ConvolutionTranspose
from training.profile.cost.depthwise import Depthwise
from training.profile.cost.direct import Direct
from training.profile.cost.products import column_sums, parameter_bytes
from training.profile.cost.winograd import Winograd
from training.profile.cost.work import Array, Cost, Work, formula


@formula(Convolution)
def _convolution(layer: Convolution, x: Array, y: Array) -> Cost:
    kind = Winograd if layer.winograd else Depthwise if depthwise.applies(layer.W, layer.groups) else Direct
    made = kind(x.samples, x.shape[0], x.shape[1:], len(layer.W), layer.window, layer.groups, x.dtype)
    weights, turning = parameter_bytes(layer), _turning(x)
    forward = turning.then(made.forward()).then(Work(0, y.size, x.nbytes + weights + y.nbytes, made.bias()))
    of_bias = column_sums(y.size // len(layer.W), len(layer.W), x.dtype)
    backward = turning.then(made.weight_gradient()).then(of_bias).then(Work(nbytes=x.nbytes + y.nbytes + weights))
    if layer.input_gradient:
        backward = backward.then(made.input_gradient()).then(Work(nbytes=layer.W.nbytes + x.nbytes))
    return Cost(forward, backward, keeps_input=True, relu_launches=2 * made.relu_parts)


@formula(ConvolutionTranspose)
def _convolution_transpose(layer: ConvolutionTranspose, x: Array, y: Array) -> Cost:
    """Its forward is the input gradient of a convolution from its output to its input."""
    back = Direct(x.samples, y.shape[0], y.shape[1:], len(layer.W), layer.window, 1, x.dtype)
    weights, turning = parameter_bytes(layer), _turning(x)
    forward = turning.then(back.input_gradient()).then(Work(0, y.size, x.nbytes + weights + y.nbytes, 1))
    of_bias = column_sums(y.size // y.shape[0], y.shape[0], x.dtype)
    backward = turning.then(back.weight_gradient()).then(of_bias).then(Work(nbytes=x.nbytes + y.nbytes + weights))
    if layer.input_gradient:
        backward = backward.then(back.forward()).then(Work(nbytes=layer.W.nbytes + x.nbytes))
    return Cost(forward, backward, keeps_input=True)


def _turning(x: Array) -> Work:
    """The copy of images whose memory is not channels-last."""
    return Work(launches=1, workspace=x.nbytes) if x.must_be_turned else Work()
