"""The layers of the book's ``common.layers``: its arguments, defaults and formulas, on the core's kernels.

Parameters and inputs may be integers, numbers or arrays of several dtypes; computation is in the dtype that NumPy would
choose. Parameters stay the given array objects, so that an optimizer's change of ``params["W1"]`` in place reaches the
layer. Gradients are None before the first ``backward``.
"""

from __future__ import annotations

import math
from typing import Any

from backend import array_module
from backend.checks import LARGEST_SIZE, Hyperparameter, whole
from backend.types import Array
from kernels import softmax as _softmax
from kernels.core.dtypes import acc_dtype
from kernels.core.geometry import single
from kernels.core.window import Padding, Pair, Window
from layers import affine, checks, convolution, normalization, pooling
from layers.base import Layer, Shape
from layers.compat.book import functions, np  # noqa: F401  (np for star imports)
from layers.compat.book._arrays import as_array, as_floating, as_vector, in_common_dtype
from layers.compat.book.elementwise import Dropout, Relu, Sigmoid, _in_training
from layers.compat.book.functions import *  # noqa: F403  (the book's module exports them, too)
from layers.compat.book.functions import class_indices, cross_entropy_error, softmax
from layers.parameters import parameter

__all__ = [
    *functions.__all__,
    "Affine",
    "BatchNormalization",
    "Convolution",
    "Dropout",
    "Pooling",
    "Relu",
    "Sigmoid",
    "SoftmaxWithLoss",
]

EPSILON = 10e-7
"""The number that the book adds to a variance: 10e-7, which is 1e-6."""


class _Converting(Layer):
    """A layer that converts its arguments and passes them to a layer of ``layers``.

    The inner layer is made again in each forward, which takes microseconds: parameters may have been replaced.
    """

    def _core(self, *parameters: Any) -> Layer:
        """Return the inner layer with these parameters, floating arrays of one dtype."""
        raise NotImplementedError

    def forward(self, x: Any) -> Array:
        x, *parameters = in_common_dtype(x, *self._params.values())
        return self._run(self._core(*parameters), x)

    def _run(self, core: Layer, x: Any) -> Array:
        core.input_gradient = self.input_gradient
        matrix = x.reshape(-1, 1) if x.ndim == 1 else x  # each number is a sample of one feature
        return self.save(core.forward(matrix), core, x)

    def backward(self, dout: Any) -> Array:
        core, x = self.saved()
        dout = as_array(dout).astype(self._output[1], copy=False)
        dx = core.backward(dout)
        for name, gradient in core.grads.items():
            setattr(self, f"d{name}", gradient)
        return dx if dx is None or dx.shape == x.shape else dx.reshape(x.shape)

    def output_shape(self, shape: Shape) -> Shape:
        values = self._params.values()
        return self._core(*(in_common_dtype(*values) if values else ())).output_shape(shape)

    @property
    def x(self) -> Array | None:
        """The input of the latest forward; None before it."""
        return None if self._kept is None else self._kept[1]


class Affine(_Converting):
    """y = x·W + b.

    Args:
        W: (inputs, outputs).
        b: (outputs,), or one number for all.

    ``forward`` takes (N, inputs), or any (N, …) with that many numbers in a sample. Errors are those of
    ``layers.Affine``.
    """

    W, dW = parameter()
    b, db = parameter()

    def __init__(self, W: Any, b: Any) -> None:
        self.W = W
        self.b = b

    def _core(self, W: Any, b: Any) -> Layer:
        return affine.Affine(W, as_vector(b, math.prod(W.shape[1:]), "b of Affine"))


class Convolution(_Converting):
    """y[n, f] = Σ_c x[n, c] ⋆ W[f, c] + b[f].

    Args:
        W: filters (FN, C, FH, FW).
        b: (FN,), or one number for all.
        stride, pad: as for ``layers.Convolution``.

    ``forward`` takes (N, C, H, W) and returns (N, FN, OH, OW). Errors are those of ``layers.Convolution``.
    """

    W, dW = parameter()
    b, db = parameter()

    def __init__(self, W: Any, b: Any, stride: int | Pair = 1, pad: Padding = 0) -> None:
        window = Window(1, stride, pad)
        self.W = W
        self.b = b
        self.stride = single(window.stride)
        self.pad = single(window.padding)

    def _core(self, W: Any, b: Any) -> Layer:
        return convolution.Convolution(W, as_vector(b, len(W), "b of Convolution"), self.stride, self.pad)


class Pooling(_Converting):
    """Max pooling, with a default stride of 2 (1 in ``layers.Pooling``).

    Padding never wins. (In the book a layer with padding fails: the output's size ignores the padding.)
    """

    def __init__(self, pool_h: int, pool_w: int, stride: int | Pair = 2, pad: Padding = 0) -> None:
        self.pool_h, self.pool_w = (
            whole(name, size, 1, LARGEST_SIZE) for name, size in (("pool_h", pool_h), ("pool_w", pool_w))
        )
        window = Window((self.pool_h, self.pool_w), stride, pad)
        self.stride = single(window.stride)
        self.pad = single(window.padding)

    def _core(self) -> Layer:
        return pooling.Pooling(self.pool_h, self.pool_w, self.stride, self.pad)


class BatchNormalization(_Converting):
    """y = γ·(x - μ) / √(σ² + 10e-7) + β, with statistics over the batch for each feature.

    In training μ and σ² are those of the batch, and running = momentum·running + (1 - momentum)·batch; in
    evaluation they are the running ones. Both start at 0. (``layers.BatchNormalization`` has ε = 1e-5 and a running
    variance that starts at 1.)

    Args:
        gamma, beta: (D,) for (N, D) or for (N, C, H, W) of D = C·H·W numbers, or one number for all. With (C,) each
            channel of images is normalized, which the book does not offer.
        momentum: the share of the running statistics that is kept in a step.
        running_mean, running_var: (D,); made by the first forward if not given.
    """

    momentum = Hyperparameter(least=0, most=1)
    gamma, dgamma = parameter()
    beta, dbeta = parameter()

    def __init__(
        self, gamma: Any, beta: Any, momentum: float = 0.9, running_mean: Any = None, running_var: Any = None
    ) -> None:
        self.gamma = gamma
        self.beta = beta
        self.momentum = momentum
        self.running_mean = running_mean
        self.running_var = running_var

    @property
    def state_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names of the running statistics, once they exist."""
        return () if self.running_mean is None else ("running_mean", "running_var")

    def forward(self, x: Any, train_flg: bool | None = None) -> Array:
        x, gamma, beta = in_common_dtype(x, self.gamma, self.beta)
        per_channel = x.ndim == 4 and gamma.shape == x.shape[1:2]
        features = x.shape[1] if per_channel else math.prod(x.shape[1:])
        core = self._normalization(gamma, beta, features)
        y = self._run(core.train(_in_training(self, train_flg)), x)
        self.running_mean, self.running_var = core.running_mean, core.running_var
        return y

    def _core(self, gamma: Any, beta: Any) -> Layer:
        return self._normalization(gamma, beta, max(gamma.size, beta.size))

    def _normalization(self, gamma: Any, beta: Any, features: int) -> normalization.BatchNormalization:
        gamma = as_vector(gamma, features, "gamma of BatchNormalization")
        beta = as_vector(beta, features, "beta of BatchNormalization")
        mean, variance = (
            array_module(gamma).zeros(features, acc_dtype(gamma.dtype))
            if running is None
            else as_vector(as_floating(running), features, "a running statistic of BatchNormalization")
            for running in (self.running_mean, self.running_var)
        )
        return normalization.BatchNormalization(gamma, beta, self.momentum, mean, variance, EPSILON)


class SoftmaxWithLoss(Layer):
    """The mean cross-entropy of softmax(x) against labels, with the book's 1e-7: see ``cross_entropy_error``.

    ``forward(x, t)`` takes scores (N, classes), and labels as class indices (N,) or (N, 1) or as rows (N, classes), and
    returns the loss, 0-d. For one
    sample, x is (classes,). ``backward`` returns the gradient of that loss, (y - t) / N,
    and ignores its argument, as in the book. (With labels (N, 1), N > 1, the book uses each label for all samples.)

    Attributes:
        loss, y, t: the loss, the probabilities and the labels of the latest forward.
    """

    def __init__(self) -> None:
        self.loss: Any = None
        self.y: Any = None
        self.t: Any = None

    def forward(self, x: Any, t: Any) -> Array:  # type: ignore[override]
        x, t = as_floating(x), as_array(t)
        if x.ndim not in (1, 2):
            raise ValueError(f"SoftmaxWithLoss needs scores (N, classes) or (classes,), got {x.shape}")
        checks.more_than_one_score("SoftmaxWithLoss", x.shape[-1])
        y = softmax(x.astype(acc_dtype(x.dtype), copy=False))
        self.loss, self.y, self.t = cross_entropy_error(y, t), y, t
        return self.save(self.loss, y, t, x.dtype)

    def backward(self, dout: Any = 1) -> Array:
        y, t, dtype = self.saved()
        rows = y.reshape(-1, y.shape[-1])
        if t.size == y.size:
            dx = (rows - t.reshape(rows.shape)) / len(rows)
        else:
            dx = _softmax.softmax_cross_entropy_backward(rows, class_indices(t.reshape(len(rows), -1), rows.shape))
        return dx.reshape(y.shape).astype(dtype, copy=False)

    def forget(self) -> Layer:
        self.loss = self.y = self.t = None
        return super().forget()
