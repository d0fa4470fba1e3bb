"""Layers as pairs of functions, in the style of course assignments: ``out, cache = relu_forward(x)``, then
``dx = relu_backward(dout, cache)``.

What holds for all of them:

* Images are (N, C, H, W); filters (FN, C, FH, FW). Arrays may have any strides, and are never modified.
* Arrays of a call have one floating dtype and lie on the active device; results have that dtype, too.
* A cache belongs to the backward of its forward and is nothing to look into. It refers to arrays that forward took:
  they must still hold the same numbers then. Backward may be called more than once.
* A dictionary of parameters is read strictly: a key that is missing, unknown or out of its range is a ValueError that
  names it. Whole numbers may be floats (``(3 - 1) / 2``), since assignments compute with ``/``.
* Wrong shapes are a ValueError, wrong dtypes and mixed devices a TypeError.
"""

from __future__ import annotations

import math
from typing import Any

from backend import array_module, random
from kernels import activations, max_pooling
from kernels import batch_norm as _batch_norm
from kernels import col2im as _col2im
from kernels import convolution as _convolution
from kernels import im2col as _im2col
from kernels import softmax as _softmax
from kernels.dropout import dropout_mask
from kernels.gemm import accumulator, column_sums, matmul
from kernels.layout import images, storage
from kernels.masking import masked
from kernels.window import Window
from layers import checks
from layers.compat._options import choice, dictionary, number, whole

Cache = tuple[Any, ...]


def relu_forward(x: Any) -> tuple[Any, Cache]:
    """out = max(x, 0), any shape."""
    checks.floating("relu_forward", x=x)
    out, positive = activations.relu(x)
    return out, (positive, x.dtype)


def relu_backward(dout: Any, cache: Cache) -> Any:
    """dx = dout where x > 0, else 0."""
    positive, dtype = cache
    _check_dout("relu_backward", dout, positive.shape, dtype)
    return masked(dout, positive)


def affine_forward(x: Any, w: Any, b: Any) -> tuple[Any, Cache]:
    """out = x·w + b.

    Args:
        x: (N, …), D numbers a sample.
        w: (D, M).
        b: (M,).

    Returns:
        (N, M), and the cache.
    """
    checks.floating("affine_forward", x=x, w=w, b=b)
    if w.ndim != 2 or b.shape != w.shape[1:] or x.ndim < 2 or math.prod(x.shape[1:]) != len(w):
        raise ValueError(f"affine_forward needs x (N, …) of D numbers each, w (D, M), b (M,), got {_shapes(x, w, b)}")
    return matmul(x.reshape(len(x), len(w)), w, bias=b), (x, w)


def affine_backward(dout: Any, cache: Cache) -> tuple[Any, Any, Any]:
    """dx (N, …), dw (D, M) and db (M,), for dout (N, M)."""
    x, w = cache
    _check_dout("affine_backward", dout, (len(x), w.shape[1]), x.dtype)
    dx = matmul(dout, w.T).reshape(x.shape)
    return dx, matmul(x.reshape(len(x), len(w)).T, dout), column_sums(dout)


def dropout_forward(x: Any, dropout_param: dict[str, Any]) -> tuple[Any, Cache]:
    """Inverted dropout (Srivastava et al., JMLR 2014): in training some numbers are dropped and the others divided by
    p; in evaluation nothing happens.

    Args:
        x: any shape.
        dropout_param: ``"p"``, the probability to *keep* a number, 0 < p ≤ 1; ``"mode"``, ``"train"`` or ``"test"``;
            optionally ``"seed"``, a whole number from 0: the same numbers are then dropped in every call, and the
            process's generator stays as it is. Without it, that one is drawn from (:mod:`backend.random`).
    """
    checks.floating("dropout_forward", x=x)
    dictionary("dropout_param", dropout_param, ("p", "mode"), ("seed",))
    mode = choice("dropout_param['mode']", dropout_param["mode"], ("train", "test"))
    keep = number("dropout_param['p']", dropout_param["p"], 0, 1)
    if not keep:
        raise ValueError("dropout_param['p'] is the probability to keep a number: above 0 and at most 1, not 0")
    seed = dropout_param.get("seed")
    generator = random.default if seed is None else random.Generator(whole("dropout_param['seed']", seed, 0))
    if mode == "test":
        return x.copy(), (None, keep, x.shape, x.dtype)
    mask = dropout_mask(x.shape, 1 - keep, generator)
    return _kept(x, mask, keep), (mask, keep, x.shape, x.dtype)


def dropout_backward(dout: Any, cache: Cache) -> Any:
    """dx: what was dropped gets 0, the rest dout / p; dout itself where forward was in mode "test"."""
    mask, keep, shape, dtype = cache
    _check_dout("dropout_backward", dout, shape, dtype)
    return dout.copy() if mask is None else _kept(dout, mask, keep)


def conv_forward(x: Any, w: Any, b: Any, conv_param: dict[str, Any]) -> tuple[Any, Cache]:
    """out[n, f] = Σ_c x[n, c] ⋆ w[f, c] + b[f], cross-correlation.

    Args:
        x: (N, C, H, W).
        w: (FN, C, FH, FW).
        b: (FN,).
        conv_param: ``"stride"`` and ``"pad"`` (zeros on each side), whole numbers or pairs (rows, columns). Pixels
            at the bottom and right that no whole window reaches are left out.

    Returns:
        (N, FN, OH, OW) with OH = ⌊(H + 2·pad - FH) / stride⌋ + 1 and OW likewise, and the cache.
    """
    checks.floating("conv_forward", x=x, w=w, b=b)
    dictionary("conv_param", conv_param, ("stride", "pad"))
    if x.ndim != 4 or w.ndim != 4 or w.shape[1] != x.shape[1] or b.shape != w.shape[:1]:
        raise ValueError(f"conv_forward needs x (N, C, H, W), w (FN, C, FH, FW), b (FN,), got {_shapes(x, w, b)}")
    stride = whole("conv_param['stride']", conv_param["stride"], 1, pair=True)
    window = Window(w.shape[2:], stride, whole("conv_param['pad']", conv_param["pad"], 0, pair=True))
    out = _convolution.convolution(x, w, b, window)
    return out, (x, w, window, out.shape)


def conv_backward(dout: Any, cache: Cache) -> tuple[Any, Any, Any]:
    """dx (N, C, H, W), dw (FN, C, FH, FW) and db (FN,), for dout (N, FN, OH, OW). The padding's gradient is cut off."""
    x, w, window, shape = cache
    _check_dout("conv_backward", dout, shape, x.dtype)
    db = array_module(dout, x).empty(len(w), x.dtype)
    dw = _convolution.convolution_backward_weight(x, dout, w.shape, window, bias_out=db)
    return _convolution.convolution_backward_input(dout, w, x.shape, window), dw, db


def max_pool_forward(x: Any, pool_param: dict[str, Any]) -> tuple[Any, Cache]:
    """out: the largest pixel of every window; the first of equals, and the first NaN wins over all.

    Args:
        x: (N, C, H, W).
        pool_param: ``"pool_height"`` and ``"pool_width"``, whole numbers; ``"stride"``, one, or a pair (rows, columns).
            Windows may overlap; pixels at the bottom and right that no whole window reaches are left out.

    Returns:
        (N, C, OH, OW) with OH = ⌊(H - pool_height) / stride⌋ + 1 and OW likewise, and the cache.
    """
    checks.floating("max_pool_forward", x=x)
    dictionary("pool_param", pool_param, ("pool_height", "pool_width", "stride"))
    height, width = (whole(f"pool_param[{key!r}]", pool_param[key], 1) for key in ("pool_height", "pool_width"))
    window = Window((height, width), whole("pool_param['stride']", pool_param["stride"], 1, pair=True))
    out, winners = max_pooling.pool(x, window)
    return out, (winners, x.shape, window, out.shape, out.dtype)


def max_pool_backward(dout: Any, cache: Cache) -> Any:
    """dx (N, C, H, W): each window's gradient goes to the one pixel that won."""
    winners, input_shape, window, shape, dtype = cache
    _check_dout("max_pool_backward", dout, shape, dtype)
    return max_pooling.pool_backward(dout, winners, input_shape, window)


def batchnorm_forward(x: Any, gamma: Any, beta: Any, bn_param: dict[str, Any]) -> tuple[Any, Cache]:
    """out = γ·(x - μ) / √(σ² + ε) + β (Ioffe and Szegedy, 2015).

    Args:
        x: (N, D).
        gamma: (D,).
        beta: (D,).
        bn_param: ``"mode"``, ``"train"`` (μ and the biased σ² are the batch's) or ``"test"`` (the running ones);
            optionally ``"eps"``, by default 1e-5, and ``"momentum"``, 0.9. ``"running_mean"`` and ``"running_var"``,
            (D,): training puts momentum·running + (1 - momentum)·batch there, new arrays, beginning with zeros where
            there are none, as assignments do; mode "test" needs them. They are float32 for float16. A batch without
            samples has no statistics and leaves them.

    Returns:
        (N, D), and the cache.
    """
    checks.floating("batchnorm_forward", x=x, gamma=gamma, beta=beta)
    if x.ndim != 2 or gamma.shape != x.shape[1:] or beta.shape != gamma.shape:
        raise ValueError(f"batchnorm_forward needs x (N, D), gamma (D,), beta (D,), got {_shapes(x, gamma, beta)}")
    return _normalized(x, gamma, beta, bn_param)


def batchnorm_backward(dout: Any, cache: Cache) -> tuple[Any, Any, Any]:
    """dx (N, D), dgamma (D,) and dbeta (D,), for dout (N, D); in mode "test" μ and σ² are constants."""
    _check_dout("batchnorm_backward", dout, cache[0].shape, cache[0].dtype)
    return _normalized_backward(dout, cache)


def spatial_batchnorm_forward(x: Any, gamma: Any, beta: Any, bn_param: dict[str, Any]) -> tuple[Any, Cache]:
    """:func:`batchnorm_forward` of each channel of x (N, C, H, W), over images and pixels; gamma, beta (C,)."""
    checks.floating("spatial_batchnorm_forward", x=x, gamma=gamma, beta=beta)
    if x.ndim != 4 or gamma.shape != x.shape[1:2] or beta.shape != gamma.shape:
        given = _shapes(x, gamma, beta)
        raise ValueError(f"spatial_batchnorm_forward needs x (N, C, H, W), gamma (C,), beta (C,), got {given}")
    pixels = storage(x)
    out, cache = _normalized(pixels.reshape(-1, x.shape[1]), gamma, beta, bn_param)
    return images(out.reshape(pixels.shape)), (*cache, x.shape)


def spatial_batchnorm_backward(dout: Any, cache: Cache) -> tuple[Any, Any, Any]:
    """dx (N, C, H, W), dgamma (C,) and dbeta (C,), for dout (N, C, H, W)."""
    *cache_of_rows, shape = cache
    _check_dout("spatial_batchnorm_backward", dout, shape, cache[0].dtype)
    pixels = storage(dout)
    dx, dgamma, dbeta = _normalized_backward(pixels.reshape(-1, shape[1]), tuple(cache_of_rows))
    return images(dx.reshape(pixels.shape)), dgamma, dbeta


def softmax_loss(x: Any, y: Any) -> tuple[Any, Any]:
    """The mean cross-entropy of softmax(x) against labels, and its gradient.

    Args:
        x: scores (N, C).
        y: classes (N,), any integer dtype.

    Returns:
        loss, 0-d and on the device (float32 for float16), and dx (N, C), dtype of ``x``.
    """
    array_module(x, y)  # refuses a mix of host and device arrays
    checks.floating("softmax_loss", x=x)
    checks.more_than_one_score("softmax_loss", x.shape[-1] if x.ndim else 0)
    loss, probabilities = _softmax.softmax_cross_entropy(x.astype(accumulator(x.dtype), copy=False), y)
    return loss, _softmax.softmax_cross_entropy_backward(probabilities, y).astype(x.dtype, copy=False)


def im2col(x: Any, field_height: int, field_width: int, stride: int = 1, padding: int = 0) -> Any:
    """The windows of one image (C, H, W) as rows: (OH·OW, C·field_height·field_width), any dtype.

    Row i·OW + j is the window of output pixel (i, j), flattened in the order channel, row, column: the layout of
    per-image assignments, and that of :func:`layers.im2col` for a batch. Lecture notes that make every window a column
    have its transpose.
    """
    if getattr(x, "ndim", None) != 3:
        given = getattr(x, "shape", type(x).__name__)
        raise ValueError(f"im2col takes one image (C, H, W), got {given} (layers.im2col takes a batch)")
    return _im2col.im2col(x[None], _field(field_height, field_width, stride, padding))


def col2im(
    columns: Any, x_shape: tuple[int, int, int], field_height: int, field_width: int, stride: int = 1, padding: int = 0
) -> Any:
    """Adds rows as :func:`im2col` makes them back into an image (C, H, W) of ``x_shape``, without its padding."""
    if len(x_shape) != 3:
        raise ValueError(f"col2im makes one image (C, H, W), not {tuple(x_shape)} (layers.col2im makes a batch)")
    return _col2im.col2im(columns, (1, *x_shape), _field(field_height, field_width, stride, padding))[0]


def _field(field_height: Any, field_width: Any, stride: Any, padding: Any) -> Window:
    kernel = (whole("field_height", field_height, 1), whole("field_width", field_width, 1))
    return Window(kernel, whole("stride", stride, 1, pair=True), whole("padding", padding, 0, pair=True))


def _kept(values: Any, mask: Any, keep: float) -> Any:
    """``values`` / keep where the mask is True, 0 elsewhere."""
    kept = masked(values, mask)
    kept *= 1 / keep
    return kept


def _normalized(rows: Any, gamma: Any, beta: Any, bn_param: dict[str, Any]) -> tuple[Any, Cache]:
    dictionary("bn_param", bn_param, ("mode",), ("eps", "momentum", "running_mean", "running_var"))
    mode = choice("bn_param['mode']", bn_param["mode"], ("train", "test"))
    eps = number("bn_param['eps']", bn_param.get("eps", 1e-5), 0)
    momentum = number("bn_param['momentum']", bn_param.get("momentum", 0.9), 0, 1)
    running = [_running(name, bn_param, rows, mode) for name in ("running_mean", "running_var")]
    from_batch = mode == "train" and len(rows) > 0
    statistics = _batch_norm.batch_statistics(rows) if from_batch else running
    mean, variance = (array.astype(accumulator(rows.dtype)) for array in statistics)
    out, inverse = _batch_norm.normalize(rows, mean, variance, gamma, beta, eps)
    if from_batch:
        for name, before, batch in zip(("running_mean", "running_var"), running, (mean, variance), strict=True):
            bn_param[name] = momentum * before + (1 - momentum) * batch
    return out, (rows, mean, inverse, gamma, from_batch)


def _running(name: str, bn_param: dict[str, Any], rows: Any, mode: str) -> Any:
    """A running statistic as it stands: zeros where training has not yet begun."""
    shape, array = rows.shape[1:], bn_param.get(name)
    if array is None:
        if mode == "test":
            raise ValueError(f"bn_param of mode 'test' needs {name!r}: mode 'train' puts it there")
        return array_module(rows).zeros(shape, accumulator(rows.dtype))
    checks.floating("bn_param", **{name: array})
    if array.shape != shape:
        raise ValueError(f"bn_param[{name!r}] is of shape {shape}, one for each column of x, not {array.shape}")
    return array


def _normalized_backward(dout: Any, cache: Cache) -> tuple[Any, Any, Any]:
    rows, mean, inverse, gamma, from_batch = cache
    backward = _batch_norm.normalize_backward if from_batch else _batch_norm.normalize_backward_fixed
    dx, dgamma, dbeta = backward(dout, rows, mean, inverse, gamma)
    return dx, dgamma.astype(gamma.dtype, copy=False), dbeta.astype(gamma.dtype, copy=False)


def _check_dout(owner: str, dout: Any, shape: tuple[int, ...], dtype: Any) -> None:
    """Raises unless ``dout`` is a gradient of an output of this shape and dtype."""
    checks.floating(owner, dout=dout)
    if dout.shape != shape:
        raise ValueError(f"{owner} needs the gradient of an output {shape}, got {dout.shape}")
    if dout.dtype != dtype:
        raise TypeError(f"{owner} needs a gradient of the output's {dtype}, got {dout.dtype}")


def _shapes(*arrays: Any) -> str:
    return ", ".join(str(array.shape) for array in arrays)
