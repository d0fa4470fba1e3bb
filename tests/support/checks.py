"""Shared assertions and inputs for tests of operations, on every backend."""

from contextlib import contextmanager
from unittest import mock

import numpy as np
from hypothesis import given, settings

import backend
from backend import array_module, asnumpy, threads, tuning
from kernels.core import pool

DTYPES = ("float16", "float32", "float64")


# -- inputs ------------------------------------------------------------------------------------------------


def whole(shape, dtype="float32", seed=0, most=3):
    """Return integers from -most to most on the active device, whose sums are exact in any order."""
    return backend.asarray(np.random.default_rng(seed).integers(-most, most + 1, shape).astype(dtype))


def normal(shape, dtype="float32", seed=0):
    """Return normally distributed numbers on the active device."""
    return backend.asarray(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


def _spread(x, xp):
    wide = xp.full(tuple(2 * size + 1 for size in x.shape), 99, x.dtype)
    view = wide[tuple(slice(1, None, 2) for _ in x.shape)]
    view[...] = x
    return view


def _channels_last(x, xp):
    return xp.ascontiguousarray(xp.moveaxis(x, 1, -1)).transpose(0, x.ndim - 1, *range(1, x.ndim - 1))


_LAYOUTS = {
    "contiguous": lambda x, xp: xp.ascontiguousarray(x),
    "strided": _spread,
    "reversed": lambda x, xp: xp.ascontiguousarray(xp.flip(x))[tuple(slice(None, None, -1) for _ in x.shape)],
    "fortran": lambda x, xp: xp.asfortranarray(x),
    "channels_last": _channels_last,
}
LAYOUTS = tuple(_LAYOUTS)


def laid_out(x, layout):
    """Return a copy of ``x`` with the same values and other strides: one of ``LAYOUTS``."""
    if layout == "channels_last" and x.ndim < 3:
        layout = "contiguous"
    view = _LAYOUTS[layout](x.copy(), array_module(x))
    assert view.shape == x.shape
    return view


def variants(x):
    """Return ``x`` in every layout: (name, array)."""
    return [(layout, laid_out(x, layout)) for layout in LAYOUTS if x.ndim > 2 or layout != "channels_last"]


def for_all(device, *strategies, cpu=150, cuda=5):
    """Run the decorated function at once, on examples of the strategies; on fewer on a GPU, where they take longer."""

    def run(check):
        examples = settings(max_examples=cpu if device.kind == "cpu" else cuda)
        examples(given(*strategies)(check))()
        return check

    return run


# -- what an operation must not change -------------------------------------------------------------------


@contextmanager
def frozen(*arrays):
    """Assert that the arrays do not change inside the ``with``; host arrays are read-only in it."""
    before = [asnumpy(array).tobytes() for array in arrays]
    locked = [array for array in arrays if isinstance(array, np.ndarray) and array.flags.writeable]
    for array in locked:
        array.flags.writeable = False
    try:
        yield
    finally:
        for array in locked:
            array.flags.writeable = True
    for index, (array, bits) in enumerate(zip(arrays, before, strict=True)):
        assert asnumpy(array).tobytes() == bits, f"input {index} was modified"


def assert_separate(outputs, inputs):
    """Assert that no output shares memory with an input or with another output."""
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    arrays = [*outputs, *inputs]
    for i, output in enumerate(outputs):
        for other in arrays[i + 1 :]:
            assert not array_module(output, other).shares_memory(output, other), "an output aliases an array"


def assert_channels_last(*arrays):
    """Assert that (N, C, H, W) arrays lie in memory as (N, H, W, C), without gaps."""
    for array in arrays:
        size, expected = array.itemsize, {}
        for axis in (1, 3, 2, 0):  # channels run fastest
            expected[axis], size = size, size * array.shape[axis]
        for axis, stride in expected.items():
            assert array.shape[axis] < 2 or array.size == 0 or array.strides[axis] == stride, (
                f"shape {array.shape} has strides {array.strides}: axis {axis} should have {stride}"
            )


# -- comparisons -------------------------------------------------------------------------------------------


def assert_same(actual, expected, dtype=None):
    """Assert equal shapes, dtypes and values (NaN equals NaN), and name the first element that differs."""
    dtype = np.dtype(dtype or expected.dtype)
    assert actual.dtype == dtype, f"dtype {actual.dtype}, expected {dtype}"
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    actual, expected = asnumpy(actual), asnumpy(expected).astype(dtype)
    differs = ~((actual == expected) | ((actual != actual) & (expected != expected)))
    if differs.any():
        index = tuple(int(i) for i in np.argwhere(differs)[0])
        raise AssertionError(
            f"{int(differs.sum())} of {actual.size} differ, first at {index}: {actual[index]!r}, "
            f"expected {expected[index]!r}"
        )


def assert_close(actual, expected, dtype, *, terms, magnitude, roundings=2, intermediate=0.0):
    """Assert that ``actual`` is ``expected`` (float64) up to what rounding explains.

    The tolerance at an element is that of a sum of ``terms`` products in any order, terms·eps·Σ|aᵢ·bᵢ| (Higham,
    "Accuracy and stability of numerical algorithms", section 3.1; eps of float32 for float16, which is summed in
    it), and a few roundings of the result in its own dtype.

    Args:
        terms: the number of terms in a sum.
        magnitude: Σ|aᵢ·bᵢ| of each element: a number or an array.
        roundings: the number of roundings of a result to ``dtype``.
        intermediate: the largest number that is rounded, if it is larger than the result.

    """
    dtype = np.dtype(dtype)
    assert actual.dtype == dtype, f"dtype {actual.dtype}, expected {dtype}"
    assert actual.shape == np.shape(expected), f"shape {actual.shape}, expected {np.shape(expected)}"
    actual, expected = asnumpy(actual).astype(np.float64), np.float64(expected)
    info = np.finfo(dtype)
    of_sum = terms * float(np.finfo("float32" if dtype == "float16" else dtype).eps) * np.float64(magnitude)
    rounded = np.maximum(np.maximum(np.abs(expected), np.abs(actual)), intermediate)
    of_rounding = roundings * float(info.eps) * rounded
    of_subnormals = roundings * float(info.smallest_subnormal)
    tolerance = np.broadcast_to(of_sum + of_rounding + of_subnormals, expected.shape)
    error = np.abs(actual - expected)
    excess = np.where(error <= tolerance, 0, np.where(np.isnan(error), np.inf, error / tolerance))
    if excess.size and excess.max() > 0:
        index = tuple(int(i) for i in np.unravel_index(np.argmax(excess), excess.shape))
        raise AssertionError(
            f"at {index}: {actual[index]!r}, expected {expected[index]!r}: off by {error[index]:.3g}, tolerance "
            f"{tolerance[index]:.3g} = sum of {terms} terms {np.broadcast_to(of_sum, error.shape)[index]:.3g} + "
            f"{roundings} roundings {np.broadcast_to(of_rounding, error.shape)[index]:.3g} + subnormals "
            f"{of_subnormals:.3g} ({int((error > tolerance).sum())} of {error.size} too far)"
        )


def check_gradient(loss, inputs, gradients, seed=0, step=1e-5):
    """Assert that ``gradients`` are those of ``loss`` at ``inputs``, along random directions in float64.

    Args:
        loss: function of the inputs, returning one number.
        inputs: float64 arrays; not modified.
        gradients: d loss / d input, one for each input.
        step: central differences err by about step² · |third derivative| plus eps · |loss| / step.

    """
    rng = np.random.default_rng(seed)
    for position, (x, gradient) in enumerate(zip(inputs, gradients, strict=True)):
        assert x.dtype == "float64"
        assert gradient.shape == x.shape
        if not x.size:
            continue
        for _ in range(2):
            direction = backend.asarray(rng.standard_normal(x.shape))
            moved = [[*inputs[:position], x + sign * step * direction, *inputs[position + 1 :]] for sign in (1, -1)]
            ahead, behind = (float(loss(*arrays)) for arrays in moved)
            numerical, analytical = (ahead - behind) / (2 * step), float((gradient * direction).sum())
            size = float(abs(gradient * direction).sum())
            tolerance = 1e-6 * (1 + size) + 4e-16 * (abs(ahead) + abs(behind)) / step
            assert abs(numerical - analytical) <= tolerance, (
                f"input {position}: along a random direction the loss changes by {numerical!r}, the gradient says "
                f"{analytical!r}; tolerance {tolerance:.3g}"
            )


# -- cutting and threads -------------------------------------------------------------------------------------


@contextmanager
def thread_limit(count):
    """Limit xpnet to ``count`` threads inside the ``with``."""
    before = threads.limit()
    threads.set_limit(count)
    try:
        yield
    finally:
        threads.set_limit(before)


@contextmanager
def column_bytes(count):
    """Limit column buffers to ``count`` bytes inside the ``with``, on every library."""
    before = dict(tuning.COLUMN_BYTES)
    tuning.COLUMN_BYTES.update(dict.fromkeys(before, count))
    try:
        yield
    finally:
        tuning.COLUMN_BYTES.update(before)


@contextmanager
def watched_shares():
    """Let C kernels share small work among threads inside the ``with``, and collect how many threads each call has."""
    seen, gather = [], pool.gather

    def watch(helpers, library):
        seen.append(helpers + 1)
        gather(helpers, library)

    with mock.patch.object(tuning, "WORTH_CUTTING", 1), mock.patch.object(pool, "gather", watch):
        yield seen


@contextmanager
def watched_cuts(module):
    """Collect the lists of parts that ``module`` cuts its work into."""
    seen = []

    def divide(*args, right=module.cut):
        seen.append(right(*args))
        return seen[-1]

    with mock.patch.object(module, "cut", divide):
        yield seen
