"""Compute the course's layers over arrays of any shape: ReLU, affine, dropout."""

from __future__ import annotations

import math
from typing import Any

from backend import random
from backend.checks import choice, real, whole
from kernels import activations
from kernels.dropout import dropout_mask
from kernels.gemm import column_sums, matmul
from kernels.masking import masked
from layers.compat._course_arguments import Cache, gradient, operands, parameters, shapes


def relu_forward(x: Any) -> tuple[Any, Cache]:
    """Compute out = max(x, 0), any shape."""
    (x,) = operands("relu_forward", x=x)
    out, positive = activations.relu(x)
    return out, (positive, x.dtype)


def relu_backward(dout: Any, cache: Cache) -> Any:
    """Return dx = dout where x > 0, else 0."""
    positive, dtype = cache
    return masked(gradient("relu_backward", dout, positive.shape, dtype), positive)


def affine_forward(x: Any, w: Any, b: Any) -> tuple[Any, Cache]:
    """Compute out = x·w + b.

    Args:
        x: (N, …), D numbers a sample.
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


def affine_backward(dout: Any, cache: Cache) -> tuple[Any, Any, Any]:
    """Return dx (N, …), dw (D, M) and db (M,), for dout (N, M)."""
    x, w = cache
    dout = gradient("affine_backward", dout, (len(x), w.shape[1]), x.dtype)
    dx = matmul(dout, w.T).reshape(x.shape)
    return dx, matmul(x.reshape(len(x), len(w)).T, dout), column_sums(dout)


def dropout_forward(x: Any, dropout_param: dict[str, Any]) -> tuple[Any, Cache]:
    """Drop some numbers in training and divide the others by p; do nothing in evaluation.

    This is inverted dropout (Srivastava et al., JMLR 2014).

    Args:
        x: any shape.
        dropout_param: ``"p"``, the probability to *keep* a number, 0 < p ≤ 1, as in the course since 2018 (before, it
            was the one to drop it); ``"mode"``, ``"train"`` or ``"test"``; optionally ``"seed"``, a whole number from
            0: the same numbers are then dropped in every call, and the process's generator stays as it is. Without it,
            or with None, that one is drawn from (``backend.random``).
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


def dropout_backward(dout: Any, cache: Cache) -> Any:
    """Return dx: what was dropped gets 0, the rest dout / p; dout itself where forward was in mode "test"."""
    mask, keep, shape, dtype = cache
    dout = gradient("dropout_backward", dout, shape, dtype)
    return dout.copy() if mask is None else _kept(dout, mask, keep)


def _kept(values: Any, mask: Any, keep: float) -> Any:
    """Return ``values`` / keep where the mask is True, 0 elsewhere."""
    kept = masked(values, mask)
    kept *= 1 / keep
    return kept
