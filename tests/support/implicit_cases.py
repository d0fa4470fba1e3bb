"""Convolutions in the layout of ``kernels.implicit_gemm``, and their results in float64 by loops over windows."""

from typing import NamedTuple

import numpy as np

from backend import asnumpy, xp
from kernels import implicit_gemm
from kernels.core.window import Window


class Case(NamedTuple):
    """Images, filters, a window, and groups."""

    n: int
    h: int
    w: int
    c: int
    fn: int
    window: Window
    groups: int = 1

    def __str__(self):
        return f"{self.n}x{self.h}x{self.w}x{self.c}-{self.fn} {self.window} groups {self.groups}"


def numbers(shape, seed, dtype, small=True):
    """Return whole numbers from -2 to 2, or standard normal ones."""
    rng = np.random.default_rng(seed)
    return rng.integers(-2, 3, shape).astype(dtype) if small else rng.standard_normal(shape).astype(dtype)


def arrays(case, dtype, small=True):
    """Return x, filters, bias and dy in the kernels' layout, as NumPy arrays."""
    oh, ow = case.window.over((case.h, case.w)).output
    return (
        numbers((case.n, case.h, case.w, case.c), 1, dtype, small),
        numbers((*case.window.kernel, case.c // case.groups, case.fn), 2, dtype, small),
        numbers((case.fn,), 3, dtype, small),
        numbers((case.n, oh, ow, case.fn), 4, dtype, small),
    )


def truth(case, x, filters, bias, dy):
    """Return y, dx, dw and dbias in float64, by loops over taps written for this test."""
    geometry = case.window.over((case.h, case.w))
    (fh, fw), (sh, sw), (dh, dw_), (top, _, left, _) = (
        geometry.kernel, geometry.stride, geometry.dilation, geometry.pads,
    )  # fmt: skip
    x, filters, bias, dy = (array.astype("float64") for array in (x, filters, bias, dy))
    oh, ow = dy.shape[1:3]
    y, dx, dw = np.tile(bias, (*dy.shape[:3], 1)), np.zeros_like(x), np.zeros_like(filters)
    own, of_group = case.c // case.groups, case.fn // case.groups
    for a in range(fh):
        for b in range(fw):
            for i in range(oh):
                for j in range(ow):
                    h, w = i * sh - top + a * dh, j * sw - left + b * dw_
                    if not (0 <= h < case.h and 0 <= w < case.w):
                        continue
                    for g in range(case.groups):
                        ins, outs = slice(g * own, (g + 1) * own), slice(g * of_group, (g + 1) * of_group)
                        y[:, i, j, outs] += x[:, h, w, ins] @ filters[a, b, :, outs]
                        dx[:, h, w, ins] += dy[:, i, j, outs] @ filters[a, b, :, outs].T
                        dw[a, b, :, outs] += x[:, h, w, ins].T @ dy[:, i, j, outs]
    return y, dx, dw, dy.sum(axis=(0, 1, 2))


def forward(x, filters, bias, geometry, groups=1, relu=False):
    """Return y of device arrays, or with ``relu`` y and where it is positive."""
    y = xp.empty((len(x), *geometry.output, filters.shape[3]), x.dtype)
    positive = xp.empty(y.shape, bool) if relu else None
    implicit_gemm.forward(x, filters, bias, geometry, groups, y, positive)
    return (y, positive) if relu else y


def backward_input(dy, filters, geometry, groups=1):
    """Return dx of device arrays."""
    dx = xp.empty((len(dy), *geometry.image, filters.shape[2] * groups), dy.dtype)
    implicit_gemm.backward_input(dy, filters, geometry, groups, dx)
    return dx


def backward_weight(x, dy, geometry, groups=1, bias=False):
    """Return dw of device arrays, and dbias or None."""
    dw = xp.empty((*geometry.kernel, x.shape[3] // groups, dy.shape[3]), x.dtype)
    dbias = xp.empty(dy.shape[3], x.dtype) if bias else None
    implicit_gemm.backward_weight(x, dy, geometry, groups, dw, dbias)
    return dw, dbias


def run(case, x, filters, bias, dy):
    """Return y, dx, dw and dbias of the kernels on the active device, as NumPy arrays."""
    geometry = case.window.over((case.h, case.w))
    before = [asnumpy(array).copy() for array in (x, filters, bias, dy)]
    given = [xp.asarray(array) for array in (x, filters, bias, dy)]
    y = forward(given[0], given[1], given[2], geometry, case.groups)
    dx = backward_input(given[3], given[1], geometry, case.groups)
    dw, dbias = backward_weight(given[0], given[3], geometry, case.groups, bias=True)
    for old, new in zip(before, given, strict=True):
        assert old.tobytes() == asnumpy(new).tobytes(), "an input was changed"
    return [asnumpy(result) for result in (y, dx, dw, dbias)]
