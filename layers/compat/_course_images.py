"""Compute the course's layers over images: convolution and max pooling.

The course has several versions of each, which differ in speed; here all names stand for one function.
"""

from __future__ import annotations

from typing import Any

from backend import array_module
from backend.checks import whole
from backend.types import Array
from kernels import convolution, max_pooling
from kernels.core.window import Window
from layers.compat._course_arguments import Cache, gradient, operands, parameters, shapes
from layers.compat._options import whole_or_pair


def conv_forward(x: Array, w: Array, b: Array, conv_param: dict[str, Any]) -> tuple[Array, Cache]:
    """Compute out[n, f] = Σ_c x[n, c] ⋆ w[f, c] + b[f], cross-correlation.

    Args:
        x: (N, C, H, W).
        w: (FN, C, FH, FW).
        b: (FN,).
        conv_param: ``"stride"`` and ``"pad"`` (zeros on each side), whole numbers or pairs (rows, columns). Pixels
            at the bottom and right that no whole window reaches are left out.

    Returns:
        (N, FN, OH, OW) with OH = ⌊(H + 2·pad - FH) / stride⌋ + 1 and OW likewise, and the cache.
    """
    x, w, b = operands("conv_forward", x=x, w=w, b=b)
    parameters("conv_param", conv_param, ("stride", "pad"))
    if x.ndim != 4 or w.ndim != 4 or w.shape[1] != x.shape[1] or b.shape != w.shape[:1]:
        raise ValueError(f"conv_forward needs x (N, C, H, W), w (FN, C, FH, FW), b (FN,), got {shapes(x, w, b)}")
    stride = whole_or_pair("conv_param['stride']", conv_param["stride"], 1)
    window = Window(w.shape[2:], stride, whole_or_pair("conv_param['pad']", conv_param["pad"], 0))
    out = convolution.convolution(x, w, b, window)
    return out, (x, w, window, out.shape)


def conv_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return dx (N, C, H, W), dw (FN, C, FH, FW) and db (FN,), for dout (N, FN, OH, OW).

    The gradient of the padding is dropped.
    """
    x, w, window, shape = cache
    dout = gradient("conv_backward", dout, shape, x.dtype)
    db = array_module(dout, x).empty(len(w), x.dtype)
    dw = convolution.convolution_backward_weight(x, dout, w.shape, window, bias_out=db)
    return convolution.convolution_backward_input(dout, w, x.shape, window), dw, db


def max_pool_forward(x: Array, pool_param: dict[str, Any]) -> tuple[Array, Cache]:
    """Return the largest pixel of every window. Of equal pixels the first wins; NaN wins over numbers.

    Args:
        x: (N, C, H, W).
        pool_param: ``"pool_height"`` and ``"pool_width"``, whole numbers; ``"stride"``, one, or a pair (rows, columns).
            Windows may overlap; pixels at the bottom and right that no whole window reaches are left out.

    Returns:
        (N, C, OH, OW) with OH = ⌊(H - pool_height) / stride⌋ + 1 and OW likewise, and the cache.
    """
    (x,) = operands("max_pool_forward", x=x)
    parameters("pool_param", pool_param, ("pool_height", "pool_width", "stride"), refused=("pad",))
    height, width = (
        whole(f"pool_param[{key!r}]", pool_param[key], 1, floats=True) for key in ("pool_height", "pool_width")
    )
    window = Window((height, width), whole_or_pair("pool_param['stride']", pool_param["stride"], 1))
    out, winners = max_pooling.pool(x, window)
    return out, (winners, x.shape, window, out.shape, out.dtype)


def max_pool_backward(dout: Array, cache: Cache) -> Array:
    """Return dx (N, C, H, W): each window's gradient goes to the pixel that forward took."""
    winners, input_shape, window, shape, dtype = cache
    dout = gradient("max_pool_backward", dout, shape, dtype)
    return max_pooling.pool_backward(dout, winners, input_shape, window)


conv_forward_naive = conv_forward_im2col = conv_forward_strides = conv_forward_fast = conv_forward
conv_backward_naive = conv_backward_im2col = conv_backward_strides = conv_backward_fast = conv_backward
max_pool_forward_naive = max_pool_forward_im2col = max_pool_forward_reshape = max_pool_forward_fast = max_pool_forward
max_pool_backward_naive = max_pool_backward_im2col = max_pool_backward_reshape = max_pool_backward_fast = (
    max_pool_backward
)
