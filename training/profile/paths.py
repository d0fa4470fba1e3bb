"""Find out how a device computes the convolutions of a network."""

from __future__ import annotations

from typing import NamedTuple

import numpy

from kernels.core import native
from kernels.core.filters import is_depthwise
from kernels.implicit_gemm import refusal_by
from layers import Convolution, ConvolutionTranspose
from layers.base import walk
from training.models.network import Network


class Path(NamedTuple):
    """The way in which a convolution is computed, and the reason."""

    layer: str
    name: str
    reason: str


def paths_of(network: Network, capability: int | None, precision: str) -> list[Path]:
    """Return how the convolutions of a network are computed.

    Args:
        capability: compute capability of the GPU, 80 for 8.0, or None for a CPU.
        precision: one of ``training.optim.NAMES``.
    """
    dtype = numpy.dtype("float16" if precision == "fp16" else "float32")
    return [
        Path(place, *_path(layer, capability, dtype, precision))
        for place, layer in walk(network.layers)
        if isinstance(layer, (Convolution, ConvolutionTranspose))
    ]


def _path(
    layer: Convolution | ConvolutionTranspose, capability: int | None, dtype: numpy.dtype, precision: str
) -> tuple[str, str]:
    if isinstance(layer, Convolution) and layer.winograd:
        return "Winograd", "the layer asks for it"
    if isinstance(layer, Convolution) and is_depthwise(layer.W.shape, layer.groups):
        return "depthwise", "each filter sees one channel"
    if capability is None:
        if native.computes(dtype):
            return "direct, in C", f"for {native.library().processor}"
        return "im2col and BLAS", f"in NumPy: {native.refusal() or f'there is no C kernel for {dtype}'}"
    if refused := refusal_by(capability, dtype, layer.W.shape, layer.window.stride, getattr(layer, "groups", 1)):
        return "im2col and cuBLAS", f"an implicit GEMM {refused}"
    products = {"fp32": "float32 as three products of TF32", "tf32": "TF32", "fp16": "float16"}
    return "implicit GEMM", f"{products[precision]} on tensor cores"
