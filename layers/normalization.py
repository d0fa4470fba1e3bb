"""Batch and layer normalization."""

from __future__ import annotations

import math
from typing import Any

from backend import array_module, is_array, require_same_device, workspace, xp
from backend.checks import (
    FLOATING,
    LARGEST_EPSILON,
    LARGEST_SIZE,
    Hyperparameter,
    flag,
    floating_dtype,
    refusal,
    sizes,
    whole,
)
from backend.types import Array
from kernels import batch_norm as kernel
from kernels import batch_norm_across, batch_norm_backward, layer_norm
from kernels.core.dtypes import acc_dtype
from kernels.core.layout import as_nchw, copy_channels_last, to_nhwc
from kernels.masking import masked
from layers import checks
from layers.base import Layer, Shape
from layers.parameters import as_parameter, parameter


class Running:
    """A running statistic as an attribute: a floating array of gamma's shape; float32 where gamma is float16."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        return self if layer is None else vars(layer).get(self.name)

    def __set__(self, layer: Any, value: Any) -> None:
        name, gamma = f"BatchNormalization: {self.name}", layer.gamma
        if not is_array(value) or value.dtype not in FLOATING:
            raise refusal(TypeError, name, "a floating-point array", value)
        require_same_device(value, gamma)
        if value.shape != gamma.shape:
            raise ValueError(f"{name} must be of shape {gamma.shape}, got {value.shape}")
        vars(layer)[self.name] = value.astype(acc_dtype(gamma.dtype), copy=False)


class BatchNormalization(Layer):
    """Batch normalization (Ioffe and Szegedy, 2015): y = γ·(x - μ) / √(σ² + ε) + β.

    In training μ and σ² are those of the batch and update the running statistics: running = momentum·running +
    (1 - momentum)·batch, with the biased variance, as in the book. In evaluation they are the running statistics.
    (The book's ε is 1e-6 and its running variance starts at 0: ``layers.compat.book.BatchNormalization``.)

    Args:
        gamma, beta: (D,) for (N, D) or for the channels of (N, D, H, W); for images also (C·H·W,), one for each pixel.
        momentum: weight of the old running statistics, from 0 to 1.
        running_mean, running_var: (D,); 0 and 1 if not given. Kept in float32 for float16.
        eps: ε.
        unbiased: move the running variance towards the batch's unbiased one, Σ (x - μ)² / (n - 1), as PyTorch does; the
            batch itself is normalized by the biased one all the same.

    Raises:
        TypeError: an array is not floating, or not of the others' dtype or library; momentum or eps is not a number.
        ValueError: shapes are not one (D,); momentum is not from 0 to 1, eps negative or not finite.

    Examples:
        >>> from backend import xp
        >>> from layers import BatchNormalization
        >>> layer = BatchNormalization.of(1, dtype="float64")
        >>> layer.forward(xp.asarray([[1.0], [3.0]])).round(3)
        array([[-1.],
               [ 1.]])
        >>> layer.running_mean
        array([0.2])
    """

    state_names = ("running_mean", "running_var")
    gamma, dgamma = parameter()
    beta, dbeta = parameter()
    running_mean, running_var = Running(), Running()
    momentum = Hyperparameter(least=0, most=1)
    eps = Hyperparameter(least=0, most=LARGEST_EPSILON)

    _expected: tuple[Any, Any] = (None, None)

    across: Any = None
    """What takes statistics over the samples of several processes (``training.distributed.statistics``), or None."""

    def __init__(
        self,
        gamma: Array,
        beta: Array,
        momentum: float = 0.9,
        running_mean: Any = None,
        running_var: Any = None,
        eps: float = 1e-5,
        unbiased: bool = False,
    ) -> None:
        checks.floating("BatchNormalization", gamma=gamma, beta=beta)
        if gamma.ndim != 1 or gamma.shape != beta.shape or not gamma.size:
            raise ValueError(f"BatchNormalization needs gamma and beta (D,), got {gamma.shape} and {beta.shape}")
        library, dtype = array_module(gamma), acc_dtype(gamma.dtype)
        self.momentum = momentum
        self.eps = eps
        self.unbiased = flag("unbiased", unbiased)
        self.gamma = gamma
        self.beta = beta
        given = library.zeros(gamma.shape, dtype) if running_mean is None else running_mean
        self.running_mean = given.copy() if is_array(given) else given  # the layer changes its own copy
        given = library.ones(gamma.shape, dtype) if running_var is None else running_var
        self.running_var = given.copy() if is_array(given) else given

    @classmethod
    def of(cls, channels: int, momentum: float = 0.9, dtype: Any = "float32") -> BatchNormalization:
        """Return a layer for that many channels (or features), with γ = 1 and β = 0; errors as of the class."""
        channels, dtype = whole("channels", channels, 1, LARGEST_SIZE), floating_dtype("dtype", dtype)
        return cls(xp.ones(channels, dtype), xp.zeros(channels, dtype), momentum)

    @property
    def takes_moments(self) -> bool:
        """Whether the next forward needs statistics of this process's batch, which the layer before may take."""
        return self.training and not self.frozen and self.across is None

    def expect(self, x: Array, moments: Any) -> None:
        """Take the moments of ``x``, which the next forward is given, from the layer that has made it; or None."""
        self._expected = (x, moments)

    def forward(self, x: Array) -> Array:
        return self._forward(x, relu=False)[0]

    def forward_relu(self, x: Array) -> tuple[Array, Array]:
        return self._forward(x, relu=True)

    def forward_added_relu(self, x: Array, bypass: Array) -> tuple[Array, Array]:
        return self._forward(x, relu=True, bypass=bypass)

    def _forward(self, x: Array, relu: bool, bypass: Array | None = None) -> tuple[Array, Any]:
        (expected, moments), self._expected = self._expected, (None, None)
        measured = moments if moments is not None and x is expected and x.shape[1] == len(self.gamma) else None
        x = as_parameter("BatchNormalization", x, self.gamma)
        rows = self._rows(x)
        together = self.training and not self.frozen and self.across is not None
        from_batch = self.training and not self.frozen and len(rows) > 0  # an empty batch has no statistics
        added = None if bypass is None else self._rows(bypass)
        count: Any = None
        if together or from_batch:
            from_batch, moved = True, xp.zeros_like(self.running_var) if self.unbiased else self.running_var
            own = (self.gamma, self.beta, self.running_mean, moved, self.eps, self.momentum)
            if together:
                y, mean, inverse, positive, count = batch_norm_across.batch_norm(rows, *own, relu, added, self.across)
            else:
                y, mean, inverse, positive = kernel.batch_norm(rows, *own, relu, added, measured)
            if self.unbiased:
                self._move_unbiased(moved, len(rows) if count is None else count)
        else:
            mean = self.running_mean.copy()  # it changes later
            positive = workspace.empty(rows.shape, bool) if relu else None
            variance, gamma, beta = self.running_var, self.gamma, self.beta
            y, inverse = kernel.normalize(rows, mean, variance, gamma, beta, self.eps, positive, added)
        y = self.save(self._shaped(y, x.shape), rows, x.shape, mean, inverse, from_batch, count)
        if positive is None and relu:
            gamma, beta = self.gamma, self.beta
            return y, lambda: self._shaped(batch_norm_backward.positive(rows, mean, inverse, gamma, beta), x.shape)
        return y, None if positive is None else self._shaped(positive, x.shape)

    def _move_unbiased(self, moved: Array, count: Any) -> None:
        """Move the running variance, given (1 - momentum) times the biased one of ``count`` rows."""
        running, others = self.running_var, xp.maximum(count - 1, 1) if is_array(count) else max(count - 1, 1)
        running *= self.momentum
        running += moved * (count / others)

    def backward(self, dout: Array) -> Array:
        return self._backward(dout)

    def backward_relu(self, dout: Array, positive: Any) -> Array:
        return self._backward(dout, self.beta) if callable(positive) else self._backward(masked(dout, positive))

    def _backward(self, dout: Array, beta: Array | None = None) -> Array:
        rows, shape, mean, inverse, from_batch, count = self.saved(dout)
        given = self._rows(dout), rows, mean, inverse, self.gamma
        if self.frozen and not from_batch:
            return self._shaped(batch_norm_backward.input_gradient_fixed(given[0], inverse, self.gamma), shape)
        gradients = [*map(self.gradient, ("gamma", "beta"))]
        if count is not None:
            dx, gradients[0][...], gradients[1][...] = batch_norm_across.backward(*given, beta, count, self.across)
        elif from_batch:
            dx, _, _ = batch_norm_backward.normalize_backward(*given, beta, (gradients[0], gradients[1]))
        else:
            dx, gradients[0][...], gradients[1][...] = batch_norm_backward.normalize_backward_fixed(*given)
        return self._shaped(dx, shape)

    def output_shape(self, shape: Shape) -> Shape:
        shape = sizes("shape", shape)
        if len(shape) not in (1, 3) or len(self.gamma) not in (shape[0], math.prod(shape)):
            raise ValueError(f"takes ({len(self.gamma)},) or ({len(self.gamma)}, H, W), got {shape}")
        return shape

    def _rows(self, x: Array) -> Array:
        """Return ``x`` as the matrix whose columns are normalized."""
        checks.input_shape(self, x)
        if x.ndim == 4 and x.shape[1] == len(self.gamma):
            return to_nhwc(x).reshape(-1, x.shape[1])
        return x.reshape(len(x), len(self.gamma))

    def _shaped(self, rows: Array, shape: tuple[int, ...]) -> Array:
        if len(shape) != 4:
            return rows
        n, c, h, w = shape
        if c == len(self.gamma):
            return as_nchw(rows.reshape(n, h, w, c))
        return copy_channels_last(rows.reshape(shape))

    def describe(self) -> str:
        return f"{len(self.gamma)}, momentum {self.momentum:g}{', unbiased' if self.unbiased else ''}"


class LayerNormalization(Layer):
    """Layer normalization over the features of each sample (Ba, Kiros and Hinton, 2016): y = γ·(x - μ) / √(σ² + ε) + β.

    Args:
        gamma, beta: (D,) for the last axis of (N, …, D), and for images for the channels of each pixel; or
            (C, H, W) for a whole image.
        eps: ε.

    Raises:
        TypeError: gamma and beta are not floating arrays of one dtype and library, or eps is not a number.
        ValueError: their shapes differ, or are neither of the above; eps is negative or not finite.

    Examples:
        >>> from backend import xp
        >>> from layers import LayerNormalization
        >>> LayerNormalization.of(2, dtype="float64").forward(xp.asarray([[1.0, 3.0]])).round(3)
        array([[-1.,  1.]])
    """

    gamma, dgamma = parameter()
    beta, dbeta = parameter()
    eps = Hyperparameter(least=0, most=LARGEST_EPSILON)

    def __init__(self, gamma: Array, beta: Array, eps: float = 1e-5) -> None:
        checks.floating("LayerNormalization", gamma=gamma, beta=beta)
        if gamma.ndim not in (1, 3) or gamma.shape != beta.shape or not gamma.size:
            raise ValueError(
                f"LayerNormalization needs gamma and beta (D,) or (C, H, W), got {gamma.shape} and {beta.shape}"
            )
        self.gamma = gamma
        self.beta = beta
        self.eps = eps

    @classmethod
    def of(cls, features: int | tuple[int, int, int], dtype: Any = "float32") -> LayerNormalization:
        """Return a layer for that many features, or for whole images (C, H, W), with γ = 1 and β = 0."""
        shape, dtype = sizes("features", features, 1), floating_dtype("dtype", dtype)
        if len(shape) not in (1, 3):
            raise refusal(ValueError, "features", "one number or (C, H, W)", features)
        return cls(xp.ones(shape, dtype), xp.zeros(shape, dtype))

    def forward(self, x: Array) -> Array:
        x = as_parameter("LayerNormalization", x, self.gamma)
        checks.input_shape(self, x)
        gamma, beta = self._flat(self.gamma), self._flat(self.beta)
        y, normalized, inverse = layer_norm.layer_norm(self._rows(x), gamma, beta, self.eps)
        return self.save(self._shaped(y, x.shape), normalized, inverse, x.shape)

    def backward(self, dout: Array) -> Array:
        normalized, inverse, shape = self.saved(dout)
        gamma = self._flat(self.gamma)
        dx, dgamma, dbeta = layer_norm.layer_norm_backward(self._rows(dout), normalized, inverse, gamma)
        if not self.frozen:
            self._fill("gamma", dgamma)
            self._fill("beta", dbeta)
        return self._shaped(dx, shape)

    def output_shape(self, shape: Shape) -> Shape:
        features, shape = self.gamma.shape, sizes("shape", shape)
        fits = shape == features if len(features) == 3 else len(shape) > 0 and features[0] == _features(shape)
        if not fits:
            raise ValueError(f"takes features of shape {features}, got {shape}")
        return shape

    def _rows(self, x: Array) -> Array:
        """Return (rows, features): each row is normalized. Features of an image are in memory order."""
        matrix = to_nhwc(x) if x.ndim == 4 else x
        return matrix.reshape(-1, self.gamma.size)

    def _shaped(self, rows: Array, shape: tuple[int, ...]) -> Array:
        if len(shape) != 4:
            return rows.reshape(shape)
        n, c, h, w = shape
        return as_nchw(rows.reshape(n, h, w, c))

    def _flat(self, parameter: Array) -> Array:
        return parameter.transpose(1, 2, 0).reshape(-1) if parameter.ndim == 3 else parameter

    def _fill(self, name: str, flat: Array) -> None:
        gradient = self.gradient(name)
        pixels = gradient.transpose(1, 2, 0) if gradient.ndim == 3 else gradient
        pixels[...] = flat.reshape(pixels.shape)

    def describe(self) -> str:
        return " x ".join(map(str, self.gamma.shape))


def _features(shape: Shape) -> int:
    return shape[0] if len(shape) == 3 else shape[-1]
