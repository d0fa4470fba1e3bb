"""Compute the course's layers over arrays of any shape: ReLU, affine, dropout."""

from __future__ import annotations

import math
from typing import Any

from backend import random
from backend.checks import choice, real, whole
from backend.types import Array
from kernels import activations
from kernels.dropout import dropout_mask
from kernels.gemm import matmul
from kernels.masking import masked
from kernels.sums import column_sums
from layers.compat._course_arguments import Cache, gradient, operands, parameters, shapes


def relu_forward(x: Array) -> tuple[Array, Cache]:
    """Compute out = max(x, 0), any shape."""
    (x,) = operands("relu_forward", x=x)
    out, positive = activations.relu(x)
    return out, (positive, x.dtype)


def relu_backward(dout: Array, cache: Cache) -> Array:
    """Return dx = dout where x > 0, else 0."""
    positive, dtype = cache
    return masked(gradient("relu_backward", dout, positive.shape, dtype), positive)


def affine_forward(x: Array, w: Array, b: Array) -> tuple[Array, Cache]:
    """Compute out = x·w + b.

    Args:
        x: (N, …), with D numbers in each sample.
        w: (D, M).
        b: (M,).

    Returns:
        (N, M), and the cache.

    Examples:
        >>> from backend import xp
        >>> from layers.compat.course import affine_backward, affine_forward
        >>> out, cache = affine_forward(xp.ones((2, 3)), xp.ones((3, 4)), xp.zeros(4))
        >>> dx, dw, db = affine_backward(xp.ones((2, 4)), cache)
        >>> out[0], dx.shape, dw.shape, db
        (array([3., 3., 3., 3.]), (2, 3), (3, 4), array([2., 2., 2., 2.]))
    """
    x, w, b = operands("affine_forward", x=x, w=w, b=b)
    if w.ndim != 2 or b.shape != w.shape[1:] or x.ndim < 2 or math.prod(x.shape[1:]) != len(w):
        raise ValueError(f"affine_forward needs x (N, …) of D numbers each, w (D, M), b (M,), got {shapes(x, w, b)}")
    return matmul(x.reshape(len(x), len(w)), w, bias=b), (x, w)


def affine_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return dx (N, …), dw (D, M) and db (M,), for dout (N, M)."""
    x, w = cache
    dout = gradient("affine_backward", dout, (len(x), w.shape[1]), x.dtype)
    dx = matmul(dout, w.T).reshape(x.shape)
    return dx, matmul(x.reshape(len(x), len(w)).T, dout), column_sums(dout)


def dropout_forward(x: Array, dropout_param: dict[str, Any]) -> tuple[Array, Cache]:
    """Drop elements at random in training and divide the others by p; return x in evaluation.

    This is inverted dropout (Srivastava et al., JMLR 2014).

    Args:
        x: any shape.
        dropout_param: ``"p"``, the probability to *keep* an element, 0 < p ≤ 1, as in the course since 2018 (the
            probability to drop it before); ``"mode"``, ``"train"`` or ``"test"``; optionally ``"seed"``, an integer
            from 0: then every call drops the same elements, and ``backend.random`` is not used. Without it, or with
            None, masks are drawn from ``backend.random``.
    """
    (x,) = operands("dropout_forward", x=x)
    parameters("dropout_param", dropout_param, ("p", "mode"), ("seed",))
    mode = choice("dropout_param['mode']", dropout_param["mode"], ("train", "test"))
    keep = real("dropout_param['p'], the probability to keep a number,", dropout_param["p"], above=0, most=1)
    seed = dropout_param.get("seed")
    seeded = seed is not None
    generator = random.Generator(whole("dropout_param['seed']", seed, 0, floats=True)) if seeded else random.current()
    if mode == "test":
        return x.copy(), (None, keep, x.shape, x.dtype)
    mask = dropout_mask(x.shape, 1 - keep, generator)
    return _kept(x, mask, keep), (mask, keep, x.shape, x.dtype)


def dropout_backward(dout: Array, cache: Cache) -> Array:
    """Return dx: 0 for dropped elements, dout / p for others; dout itself after a forward in mode "test"."""
    mask, keep, shape, dtype = cache
    dout = gradient("dropout_backward", dout, shape, dtype)
    return dout.copy() if mask is None else _kept(dout, mask, keep)


def _kept(values: Array, mask: Array, keep: float) -> Array:
    """Return ``values`` / keep where the mask is True, 0 elsewhere."""
    kept = masked(values, mask)
    kept *= 1 / keep
    return kept
