"""Compute several of the course's layers in a row with one forward and one backward.

The course gives affine_relu, conv_relu, conv_bn_relu and conv_relu_pool; its solutions add affine_bn_relu,
affine_ln_relu and conv_bn_relu_pool. A backward returns the gradients in the order dx, dw, db, dgamma, dbeta.
"""

from __future__ import annotations

from typing import Any

from backend.types import Array
from layers.compat._course_arguments import Cache
from layers.compat._course_images import conv_backward, conv_forward, max_pool_backward, max_pool_forward
from layers.compat._course_layers import affine_backward, affine_forward, relu_backward, relu_forward
from layers.compat._course_normalization import (
    batchnorm_backward,
    batchnorm_forward,
    layernorm_backward,
    layernorm_forward,
    spatial_batchnorm_backward,
    spatial_batchnorm_forward,
)

Param = dict[str, Any]
Three = tuple[Array, Array, Array]
Five = tuple[Array, Array, Array, Array, Array]


def affine_relu_forward(x: Array, w: Array, b: Array) -> tuple[Array, Cache]:
    """Compute relu(x·w + b)."""
    out, affine = affine_forward(x, w, b)
    out, relu = relu_forward(out)
    return out, (affine, relu)


def affine_relu_backward(dout: Array, cache: Cache) -> Three:
    """Return dx, dw and db of ``affine_relu_forward``."""
    affine, relu = cache
    return affine_backward(relu_backward(dout, relu), affine)


def affine_bn_relu_forward(
    x: Array, w: Array, b: Array, gamma: Array, beta: Array, bn_param: Param
) -> tuple[Array, Cache]:
    """Compute relu(batchnorm(x·w + b))."""
    out, affine = affine_forward(x, w, b)
    out, norm = batchnorm_forward(out, gamma, beta, bn_param)
    out, relu = relu_forward(out)
    return out, (affine, norm, relu)


def affine_bn_relu_backward(dout: Array, cache: Cache) -> Five:
    """Return dx, dw, db, dgamma and dbeta of ``affine_bn_relu_forward``."""
    affine, norm, relu = cache
    dout, dgamma, dbeta = batchnorm_backward(relu_backward(dout, relu), norm)
    return *affine_backward(dout, affine), dgamma, dbeta


def affine_ln_relu_forward(
    x: Array, w: Array, b: Array, gamma: Array, beta: Array, ln_param: Param | None = None
) -> tuple[Array, Cache]:
    """Compute relu(layernorm(x·w + b))."""
    out, affine = affine_forward(x, w, b)
    out, norm = layernorm_forward(out, gamma, beta, ln_param)
    out, relu = relu_forward(out)
    return out, (affine, norm, relu)


def affine_ln_relu_backward(dout: Array, cache: Cache) -> Five:
    """Return dx, dw, db, dgamma and dbeta of ``affine_ln_relu_forward``."""
    affine, norm, relu = cache
    dout, dgamma, dbeta = layernorm_backward(relu_backward(dout, relu), norm)
    return *affine_backward(dout, affine), dgamma, dbeta


def conv_relu_forward(x: Array, w: Array, b: Array, conv_param: Param) -> tuple[Array, Cache]:
    """Compute relu(conv(x))."""
    out, conv = conv_forward(x, w, b, conv_param)
    out, relu = relu_forward(out)
    return out, (conv, relu)


def conv_relu_backward(dout: Array, cache: Cache) -> Three:
    """Return dx, dw and db of ``conv_relu_forward``."""
    conv, relu = cache
    return conv_backward(relu_backward(dout, relu), conv)


def conv_bn_relu_forward(
    x: Array, w: Array, b: Array, gamma: Array, beta: Array, conv_param: Param, bn_param: Param
) -> tuple[Array, Cache]:
    """Compute relu(spatial_batchnorm(conv(x)))."""
    out, conv = conv_forward(x, w, b, conv_param)
    out, norm = spatial_batchnorm_forward(out, gamma, beta, bn_param)
    out, relu = relu_forward(out)
    return out, (conv, norm, relu)


def conv_bn_relu_backward(dout: Array, cache: Cache) -> Five:
    """Return dx, dw, db, dgamma and dbeta of ``conv_bn_relu_forward``."""
    conv, norm, relu = cache
    dout, dgamma, dbeta = spatial_batchnorm_backward(relu_backward(dout, relu), norm)
    return *conv_backward(dout, conv), dgamma, dbeta


def conv_relu_pool_forward(x: Array, w: Array, b: Array, conv_param: Param, pool_param: Param) -> tuple[Array, Cache]:
    """Compute max_pool(relu(conv(x)))."""
    out, front = conv_relu_forward(x, w, b, conv_param)
    out, pool = max_pool_forward(out, pool_param)
    return out, (front, pool)


def conv_relu_pool_backward(dout: Array, cache: Cache) -> Three:
    """Return dx, dw and db of ``conv_relu_pool_forward``."""
    front, pool = cache
    return conv_relu_backward(max_pool_backward(dout, pool), front)


def conv_bn_relu_pool_forward(
    x: Array, w: Array, b: Array, gamma: Array, beta: Array, conv_param: Param, bn_param: Param, pool_param: Param
) -> tuple[Array, Cache]:
    """Compute max_pool(relu(spatial_batchnorm(conv(x))))."""
    out, front = conv_bn_relu_forward(x, w, b, gamma, beta, conv_param, bn_param)
    out, pool = max_pool_forward(out, pool_param)
    return out, (front, pool)


def conv_bn_relu_pool_backward(dout: Array, cache: Cache) -> Five:
    """Return dx, dw, db, dgamma and dbeta of ``conv_bn_relu_pool_forward``."""
    front, pool = cache
    return conv_bn_relu_backward(max_pool_backward(dout, pool), front)
