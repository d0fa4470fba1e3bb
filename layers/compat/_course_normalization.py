"""Normalize as the course does: over a batch, over a sample, over groups of an image's channels."""

from __future__ import annotations

import math
from typing import Any

from backend import array_module
from backend.checks import choice, real, whole
from backend.types import Array
from kernels import batch_norm, batch_norm_backward, batch_statistics, layer_norm
from kernels.core.dtypes import acc_dtype
from kernels.core.layout import as_nchw, to_nhwc
from layers.compat._course_arguments import Cache, gradient, operands, parameters, shapes


def batchnorm_forward(x: Array, gamma: Array, beta: Array, bn_param: dict[str, Any]) -> tuple[Array, Cache]:
    """Compute out = γ·(x - μ) / √(σ² + ε) + β (Ioffe and Szegedy, 2015).

    Args:
        x: (N, D).
        gamma: (D,).
        beta: (D,).
        bn_param: ``"mode"``, ``"train"`` (μ and the biased σ² are the batch's) or ``"test"`` (the running ones);
            optionally ``"eps"``, by default 1e-5, and ``"momentum"``, 0.9. ``"running_mean"`` and ``"running_var"``,
            (D,): training replaces them by momentum·running + (1 - momentum)·batch, starting from zeros, as assignments
            do; mode "test" needs them. They are float32 for float16. A batch without samples does not change them.

    Returns:
        (N, D), and the cache.
    """
    x, gamma, beta = operands("batchnorm_forward", x=x, gamma=gamma, beta=beta)
    if x.ndim != 2 or gamma.shape != x.shape[1:] or beta.shape != gamma.shape:
        raise ValueError(f"batchnorm_forward needs x (N, D), gamma (D,), beta (D,), got {shapes(x, gamma, beta)}")
    return _normalized(x, gamma, beta, bn_param)


def batchnorm_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return dx (N, D), dgamma (D,) and dbeta (D,), for dout (N, D); in mode "test" μ and σ² are constants."""
    return _normalized_backward(gradient("batchnorm_backward", dout, cache[0].shape, cache[0].dtype), cache)


batchnorm_backward_alt = batchnorm_backward


def spatial_batchnorm_forward(x: Array, gamma: Array, beta: Array, bn_param: dict[str, Any]) -> tuple[Array, Cache]:
    """Normalize each channel of x (N, C, H, W) over images and pixels, see ``batchnorm_forward``; gamma and beta are
    (C,)."""
    x, gamma, beta = operands("spatial_batchnorm_forward", x=x, gamma=gamma, beta=beta)
    if x.ndim != 4 or gamma.shape != x.shape[1:2] or beta.shape != gamma.shape:
        given = shapes(x, gamma, beta)
        raise ValueError(f"spatial_batchnorm_forward needs x (N, C, H, W), gamma (C,), beta (C,), got {given}")
    pixels = to_nhwc(x)
    out, cache = _normalized(_rows(pixels), gamma, beta, bn_param)
    return as_nchw(out.reshape(pixels.shape)), (*cache, x.shape)


def spatial_batchnorm_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return dx (N, C, H, W), dgamma (C,) and dbeta (C,), for dout (N, C, H, W)."""
    *cache_of_rows, shape = cache
    pixels = to_nhwc(gradient("spatial_batchnorm_backward", dout, shape, cache[0].dtype))
    dx, dgamma, dbeta = _normalized_backward(_rows(pixels), tuple(cache_of_rows))
    return as_nchw(dx.reshape(pixels.shape)), dgamma, dbeta


def layernorm_forward(
    x: Array, gamma: Array, beta: Array, ln_param: dict[str, Any] | None = None
) -> tuple[Array, Cache]:
    """Compute out = γ·(x - μ) / √(σ² + ε) + β with μ and the biased σ² of each sample (Ba, Kiros and Hinton, 2016).

    Args:
        x: (N, D).
        gamma: (D,).
        beta: (D,).
        ln_param: optionally ``"eps"``, by default 1e-5. Training and evaluation are the same.

    Returns:
        (N, D), and the cache.
    """
    x, gamma, beta = operands("layernorm_forward", x=x, gamma=gamma, beta=beta)
    eps = _eps("ln_param", ln_param)
    if x.ndim != 2 or gamma.shape != x.shape[1:] or beta.shape != gamma.shape:
        raise ValueError(f"layernorm_forward needs x (N, D), gamma (D,), beta (D,), got {shapes(x, gamma, beta)}")
    out, normalized, inverse = layer_norm.layer_norm(x, gamma, beta, eps)
    return out, (normalized, inverse, gamma)


def layernorm_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return dx (N, D), dgamma (D,) and dbeta (D,), for dout (N, D)."""
    normalized, inverse, gamma = cache
    dout = gradient("layernorm_backward", dout, normalized.shape, gamma.dtype)
    dx, dgamma, dbeta = layer_norm.layer_norm_backward(dout, normalized, inverse, gamma)
    return dx, dgamma.astype(gamma.dtype, copy=False), dbeta.astype(gamma.dtype, copy=False)


def spatial_groupnorm_forward(
    x: Array, gamma: Array, beta: Array, G: int, gn_param: dict[str, Any] | None = None
) -> tuple[Array, Cache]:
    """Compute out = γ·(x - μ) / √(σ² + ε) + β with μ and the biased σ² of each image's G groups of channels.

    They are taken over all pixels of a group (Wu and He, 2018).

    Args:
        x: (N, C, H, W).
        gamma: C numbers: (C,) or, as in the assignments, (1, C, 1, 1).
        beta: as gamma.
        G: the number of groups of neighboring channels; divides C.
        gn_param: optionally ``"eps"``, by default 1e-5. Training and evaluation are the same.

    Returns:
        (N, C, H, W), and the cache.
    """
    x, gamma, beta = operands("spatial_groupnorm_forward", x=x, gamma=gamma, beta=beta)
    eps, groups = _eps("gn_param", gn_param), whole("G", G, 1, floats=True)
    if x.ndim != 4 or any(p.shape not in ((x.shape[1],), (1, x.shape[1], 1, 1)) for p in (gamma, beta)):
        given = shapes(x, gamma, beta)
        raise ValueError(
            f"spatial_groupnorm_forward needs x (N, C, H, W), gamma and beta (C,) or (1, C, 1, 1), got {given}"
        )
    if x.shape[1] % groups:
        raise ValueError(f"G must divide the {x.shape[1]} channels of x, got {groups}")
    scale, shift = gamma.reshape(-1), beta.reshape(-1)
    out, normalized, inverse = layer_norm.group_norm(x, scale, shift, groups, eps)
    return out, (normalized, inverse, scale, x.shape, gamma.shape, beta.shape)


def spatial_groupnorm_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return dx (N, C, H, W), dgamma and dbeta in the shapes of gamma and beta, for dout (N, C, H, W)."""
    normalized, inverse, scale, shape, *of_parameters = cache
    dout = gradient("spatial_groupnorm_backward", dout, shape, scale.dtype)
    dx, *sums = layer_norm.group_norm_backward(dout, normalized, inverse, scale)
    dgamma, dbeta = (
        array.astype(scale.dtype, copy=False).reshape(like) for array, like in zip(sums, of_parameters, strict=True)
    )
    return dx, dgamma, dbeta


spatial_groupnorm_quick_forward = spatial_groupnorm_forward
spatial_groupnorm_quick_backward = spatial_groupnorm_backward


def _eps(name: str, given: dict[str, Any] | None) -> float:
    if given is None:
        return 1e-5
    parameters(name, given, optional=("eps",))
    return real(f"{name}['eps']", given.get("eps", 1e-5), least=0)


def _rows(pixels: Array) -> Array:
    """Return (N, H, W, C) as (N·H·W, C)."""
    return pixels.reshape(math.prod(pixels.shape[:3]), pixels.shape[3])


def _normalized(rows: Array, gamma: Array, beta: Array, bn_param: dict[str, Any]) -> tuple[Array, Cache]:
    parameters("bn_param", bn_param, ("mode",), ("eps", "momentum", "running_mean", "running_var"))
    mode = choice("bn_param['mode']", bn_param["mode"], ("train", "test"))
    eps = real("bn_param['eps']", bn_param.get("eps", 1e-5), least=0)
    momentum = real("bn_param['momentum']", bn_param.get("momentum", 0.9), least=0, most=1)
    running = [_running(name, bn_param, rows, mode) for name in ("running_mean", "running_var")]
    from_batch = mode == "train" and len(rows) > 0
    mean, variance = batch_statistics.batch_statistics(rows) if from_batch else running
    out, inverse = batch_norm.normalize(rows, mean, variance, gamma, beta, eps)
    if from_batch:
        for name, before, batch in zip(("running_mean", "running_var"), running, (mean, variance), strict=True):
            bn_param[name] = momentum * before + (1 - momentum) * batch
    return out, (rows, mean, inverse, gamma, from_batch)


def _running(name: str, bn_param: dict[str, Any], rows: Array, mode: str) -> Array:
    """Return a copy of a running statistic: zeros before the first training step."""
    shape, dtype, given = rows.shape[1:], acc_dtype(rows.dtype), bn_param.get(name)
    if given is None:
        if mode == "test":
            raise ValueError(f"bn_param in mode 'test' needs {name!r}, which mode 'train' computes")
        return array_module(rows).zeros(shape, dtype)
    (array,) = operands("bn_param", **{name: given})
    if array.shape != shape:
        raise ValueError(
            f"bn_param[{name!r}] must have shape {shape}, one number for each column of x, got {array.shape}"
        )
    return array.astype(dtype)


def _normalized_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    rows, mean, inverse, gamma, from_batch = cache
    backward = batch_norm_backward.normalize_backward if from_batch else batch_norm_backward.normalize_backward_fixed
    dx, dgamma, dbeta = backward(dout, rows, mean, inverse, gamma)
    return dx, dgamma.astype(gamma.dtype, copy=False), dbeta.astype(gamma.dtype, copy=False)
