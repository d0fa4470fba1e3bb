"""The layers over sequences that ``xpnet check`` runs, and bounds for their results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy

import layers
from backend import asarray
from backend.types import Array
from training.check.bounds import Bound
from training.check.layer_bounds import layer_bounds, run_layer

Results = dict[str, Array]

_RECURRENT = {"RNN": (layers.RNN, 1), "LSTM": (layers.LSTM, 4), "GRU": (layers.GRU, 3)}


def sequence_cases() -> Iterator[tuple[str, Callable[[str], Results], Callable[[str], dict[str, Bound]] | None]]:
    """Yield the operation, and functions of a dtype that run it and that compute its bounds on the CPU.

    The embedding has none: it must have the same bits as on the CPU.
    """
    for indices in ("uint8", "int32", "int64"):
        yield "embedding", partial(_embedding, indices), None
    for name in _RECURRENT:
        for shape in ((5, 7, 12), (33, 3, 40), (1, 20, 3)):
            inputs = partial(_inputs, name, shape)
            yield name, partial(_run, inputs), partial(_bounds, inputs)


def _numbers(shape: tuple[int, ...], dtype: str, seed: int) -> Array:
    return asarray(numpy.random.default_rng(seed).standard_normal(shape).astype(dtype))


def _embedding(indices: str, dtype: str) -> Results:
    layer = layers.Embedding(_numbers((70, 33), dtype, 1))
    x = numpy.random.default_rng(0).integers(0, 50, (40, 25)).astype(indices)
    y = layer.forward(asarray(x))
    layer.backward(_numbers(y.shape, dtype, 2))
    return {"y": y, "dW": layer.dW}


def _inputs(name: str, shape: tuple[int, int, int], dtype: str) -> tuple[Any, Array, Array]:
    kind, gates = _RECURRENT[name]
    units, inputs = 16, shape[2]
    shapes = (inputs, gates * units), (units, gates * units), (gates * units,), (gates * units,)
    layer = kind(*(_numbers(each, dtype, seed) / 4 for seed, each in enumerate(shapes)))
    return layer, _numbers(shape, dtype, 5), _numbers((*shape[:2], units), dtype, 6)


def _run(inputs: Callable[[str], tuple[Any, Any, Any]], dtype: str) -> Results:
    return run_layer(*inputs(dtype))


def _bounds(inputs: Callable[[str], tuple[Any, Any, Any]], dtype: str) -> dict[str, Bound]:
    return layer_bounds(*inputs(dtype))
