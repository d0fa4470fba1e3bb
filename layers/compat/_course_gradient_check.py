"""Compute numerical gradients as the course does, by central differences, and compare other gradients with them.

The step is by default the course's, 1e-5, for float64; 1e-2 for float32 and 1e-1 for float16, whose rounding errors
would exceed the effect of a smaller step.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy

from backend import array_module, asnumpy
from backend.checks import real
from backend.types import Array
from layers.numerical import require_writable

_STEPS = {"float64": 1e-5, "float32": 1e-2, "float16": 1e-1}


def eval_numerical_gradient(f: Callable[[Any], Any], x: Array, verbose: bool = True, h: float | None = None) -> Array:
    """Compute the gradient of ``f`` at ``x``, one element at a time.

    Args:
        f: a function of an array that returns one number. ``x`` itself is changed for it and restored exactly, also
            when ``f`` raises, so ``f`` may ignore its argument and read ``x``.
        x: a floating array of any shape.
        verbose: print each element with its index.
        h: the step; by default as this module says.

    Returns:
        The gradient, shape and dtype of ``x``.

    Raises:
        TypeError: ``x`` is not a floating array.
        ValueError: ``f`` does not return one number.
    """
    gradient = array_module(x).zeros_like(x)
    for index, above, below, width in _differences("eval_numerical_gradient", f, x, h):
        for value in (above, below):
            if not (isinstance(value, (int, float)) or getattr(value, "size", None) == 1):
                raise ValueError(
                    "eval_numerical_gradient needs a function that returns one number, got "
                    f"{getattr(value, 'shape', type(value).__name__)} (eval_numerical_gradient_array is for functions "
                    "that return arrays)"
                )
        slope = (above - below) / width
        gradient[index] = slope.reshape(())
        if verbose:
            print(index, gradient[index])
    return gradient


def eval_numerical_gradient_array(f: Callable[[Any], Any], x: Array, df: Array, h: float | None = None) -> Array:
    """Compute the gradient at ``x`` of a loss that ``f`` is part of, given that of f's result: Σ df·∂f/∂x.

    Args:
        f: a function of an array that returns an array; see ``eval_numerical_gradient``.
        x: a floating array of any shape.
        df: the gradient of what ``f`` returns, in its shape.
        h: the step; by default as this module says.

    Returns:
        The gradient, shape and dtype of ``x``.

    Raises:
        TypeError: ``x`` is not a floating array.
        ValueError: ``f`` returns an array of another shape than ``df``.
    """
    gradient = array_module(x).zeros_like(x)
    for index, above, below, width in _differences("eval_numerical_gradient_array", f, x, h):
        shape, given = (getattr(array, "shape", type(array).__name__) for array in (above, df))
        if shape != given:
            raise ValueError(f"eval_numerical_gradient_array needs df of the shape of f(x), {shape}, got {given}")
        gradient[index] = ((above - below) * df).sum() / width
    return gradient


def eval_numerical_gradient_blobs(
    f: Callable[..., Any], inputs: tuple[Any, ...], output: Any, h: float | None = None
) -> list[Any]:
    """Compute the gradient of each of ``inputs``: blobs, objects with arrays ``vals`` and ``diffs``.

    ``f(*inputs, output)`` writes its result to ``output.vals``; ``output.diffs`` is the gradient of that.
    """

    def result(_: Any) -> Any:
        f(*inputs, output)
        return output.vals

    return [eval_numerical_gradient_array(result, blob.vals, output.diffs, h) for blob in inputs]


def eval_numerical_gradient_net(net: Any, inputs: tuple[Any, ...], output: Any, h: float | None = None) -> list[Any]:
    """Call ``eval_numerical_gradient_blobs`` for a network whose ``forward()`` reads and writes the blobs."""
    return eval_numerical_gradient_blobs(lambda *_: net.forward(), inputs, output, h)


def grad_check_sparse(
    f: Callable[[Any], Any], x: Array, analytic_grad: Array, num_checks: int = 10, h: float | None = None
) -> None:
    """Print, for a few elements of ``x`` that Python's ``random`` draws, the numerical gradient of ``f``, the given
    one and their relative difference; see ``eval_numerical_gradient``.
    """
    if not x.size:
        return
    for _ in range(num_checks):
        index = tuple(random.randrange(size) for size in x.shape)
        ((_, above, below, width),) = _differences("grad_check_sparse", f, x, h, [index])
        numerical, analytic = float((above - below) / width), float(analytic_grad[index])
        total = abs(numerical) + abs(analytic)
        error = abs(numerical - analytic) / total if total else 0.0
        print(f"numerical: {numerical:f} analytic: {analytic:f}, relative error: {error:e}")


def rel_error(x: Array, y: Array) -> float:
    """Return the largest |x - y| / max(1e-8, |x| + |y|) of all elements, as the notebooks define it; NaN where one is.

    Args:
        x: a number or an array, on any device.
        y: a number, or an array of the same shape.

    Raises:
        ValueError: the shapes differ.
    """
    host = [numpy.float64(asnumpy(array)) for array in (x, y)]
    if host[0].shape != host[1].shape and host[0].ndim and host[1].ndim:
        raise ValueError(f"rel_error compares arrays of one shape, got {host[0].shape} and {host[1].shape}")
    with numpy.errstate(invalid="ignore"):
        error = abs(host[0] - host[1]) / numpy.maximum(1e-8, abs(host[0]) + abs(host[1]))
    return float(error.max(initial=0))


def _differences(
    owner: str, f: Callable[[Any], Any], x: Array, h: float | None, indices: list[tuple[int, ...]] | None = None
) -> Iterator[tuple[tuple[int, ...], Any, Any, Any]]:
    """Yield each index, ``f`` with that element of ``x`` a step above and a step below, and the distance of the two."""
    kind = str(getattr(x, "dtype", type(x).__name__))
    if kind not in _STEPS:
        raise TypeError(f"{owner} needs x as a floating array, got {kind}")
    require_writable(owner, x)
    step = _STEPS[kind] if h is None else real("h", h, above=0)
    for index in numpy.ndindex(x.shape) if indices is None else indices:
        original = x[index].copy()
        try:
            x[index] = original + step
            above, upper = _kept(f(x)), x[index].copy()
            x[index] = original - step
            below, lower = _kept(f(x)), x[index].copy()
        finally:
            x[index] = original
        if upper == lower:
            raise ValueError(f"{owner}: a step h of {step:g} leaves x{list(index)}, {original} of {kind}, as it is")
        yield index, above, below, upper - lower


def _kept(value: Any) -> Array:
    """Return a copy of the result of ``f``, which may return the same buffer each time."""
    return value.copy() if hasattr(value, "copy") else value
