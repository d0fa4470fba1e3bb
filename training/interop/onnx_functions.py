"""Recognize functions of one number that a graph writes in several nodes, by the numbers that they compute."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy

from layers import Gelu
from training.interop.onnx_operators import EXACT_GELU
from training.interop.onnx_reading import Constants, Node
from training.interop.onnx_scaling import Scaling
from training.interop.onnx_tidy import Item

_erf = numpy.vectorize(math.erf, otypes=["float64"])
_OPERATORS: dict[str, Callable[..., numpy.ndarray]] = {
    "Add": numpy.add,
    "Div": numpy.divide,
    "Erf": _erf,
    "Exp": numpy.exp,
    "Identity": lambda x: x,
    "Mul": numpy.multiply,
    "Neg": numpy.negative,
    "Pow": numpy.power,
    "Sigmoid": lambda x: 1 / (1 + numpy.exp(-x)),
    "Sqrt": numpy.sqrt,
    "Sub": numpy.subtract,
    "Tanh": numpy.tanh,
}
_MOST_NODES = 40
_POINTS = numpy.concatenate([numpy.linspace(-12, 12, 2401), [-1e4, -100.0, -30.0, 30.0, 100.0, 1e4]])


def _gelu(x: numpy.ndarray) -> numpy.ndarray:
    return x / 2 * (1 + numpy.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _exact_gelu(x: numpy.ndarray) -> numpy.ndarray:
    return x / 2 * (1 + _erf(x / math.sqrt(2)))


def recognized(
    start: str, end: str, shape: tuple[int, ...], nodes: Mapping[str, Node], constants: Constants
) -> list[Item]:
    """Return the layers that compute the value ``end`` from ``start``, both of samples of ``shape``; [] for none.

    Args:
        nodes: the node of each value.

    Raises:
        ValueError: the function is known, and xpnet has no layer for it.
    """
    with numpy.errstate(all="ignore"):
        found = _computed(start, end, nodes, constants)
        if found is None:
            return []
        for function, layer in ((_gelu, Gelu), (_exact_gelu, None)):
            expected = function(_POINTS)
            factor = found[1400] / expected[1400]  # at 2
            if numpy.isfinite(factor) and numpy.allclose(found, factor * expected, rtol=1e-6, atol=1e-6 * abs(factor)):
                if layer is None:
                    raise ValueError(EXACT_GELU)
                factor = float(f"{factor:.6g}")  # float32 constants multiply to almost 1
                return [layer(), *([] if factor == 1 else [Scaling(shape, factor, 0)])]
    return []


def _computed(start: str, end: str, nodes: Mapping[str, Node], constants: Constants) -> numpy.ndarray | None:
    """Return a value where ``start`` is ``_POINTS``; None if it is no function of one number, or of many nodes."""
    known = {start: _POINTS}
    waiting, seen = [end], 0
    while waiting:
        name = waiting[-1]
        seen += 1
        if name in known:
            waiting.pop()
        elif name in constants:
            array = constants.get(name)
            if array is None or array.size != 1 or array.dtype.kind not in "fiu" or constants.holds_batch(name):
                return None
            known[name] = numpy.full(_POINTS.shape, array.item(), "float64")
        else:
            node = nodes.get(name)
            if node is None or node.kind not in _OPERATORS or seen > 4 * _MOST_NODES:
                return None
            missing = [each for each in node.inputs if each not in known]
            waiting += missing
            if not missing:
                known[name] = _OPERATORS[node.kind](*(known[each] for each in node.inputs))
    return known[end]
