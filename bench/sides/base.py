"""The interface of a side of the comparison."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.types import Array

Values = dict[str, np.ndarray]

_PLAIN = {"Affine", "Convolution", "Relu", "Pooling", "Dropout"}


def is_plain(network: Any) -> bool:
    """Return whether a network is a chain of the first chapters' layers, without batch normalization or branches."""
    return {type(layer).__name__ for layer in network.layers.layers.values()} <= _PLAIN


@dataclass(frozen=True)
class Case:
    """Work that can be repeated.

    Attributes:
        step: does the work once; this is timed.
        values: the results of the latest step, as NumPy arrays in one form for all sides: images (N, C, H, W), weights
        in
            xpnet's layout, columns (N·OH·OW, C·FH·FW).
        inside: the context in which a series of steps runs.
    """

    step: Callable[[], Any]
    values: Callable[[], Values]
    inside: Callable[[], AbstractContextManager[Any]] = nullcontext


class Side:
    """A library, or a way to use it. A method returns None if the side cannot do that work.

    All arrays that a method takes are NumPy's, C-contiguous and float32 (labels int32). Their conversion to a side's
    preferred form is not timed: in a training loop, activations come from its own layers.
    """

    name: str

    def set_threads(self, count: int) -> None:
        """Limit the side to ``count`` threads; the caller limits NumPy's BLAS and xpnet's own threads."""

    def ways(self, operation: str, images: bool) -> tuple[str, ...]:
        """Return the ways in which the side can do an operation, on images or on rows; the fastest is compared."""
        return ("",)

    def training(self, network: Any, x: Array, t: Array, optimizer: str, way: str = "") -> Case | None:
        """Return a training step: forward, loss, backward, update.

        Args:
            network: the ``training.Network`` whose layers and initial weights the side copies.
            x: samples (N, *network.input_dim).
            t: labels (N,).
            optimizer: "sgd", "momentum" or "adam", with xpnet's defaults.

        Values: the loss, and the gradient and update of the first layer's weights.
        """

    def convolution_block(
        self,
        x: Array,
        W: Array,
        b: Array,
        gamma: Array,
        beta: Array,
        dout: Array,
        winograd: bool = False,
        way: str = "",
    ) -> Case | None:
        """Return convolution 3×3 pad 1, batch normalization, ReLU; forward and backward. Values: y, dx, dW.

        Only xpnet uses ``winograd``.
        """

    def im2col(self, x: Array, size: int, pad: int, order: str, way: str = "") -> Case | None:
        """Return im2col of images. ``order`` is that of xpnet's columns; other sides have one order."""

    def col2im(self, columns: Array, shape: Any, size: int, pad: int, order: str, way: str = "") -> Case | None:
        """Return col2im of columns (N·OH·OW, C·FH·FW) into images of ``shape``."""

    def max_pooling(self, x: Array, dout: Array, size: int, stride: int, way: str = "") -> Case | None:
        """Return max pooling, forward and backward. Values: y, dx."""

    def batch_norm_relu(self, x: Array, gamma: Array, beta: Array, dout: Array, way: str = "") -> Case | None:
        """Return batch normalization in training and ReLU, forward and backward. Values: y, dx, dgamma."""

    def softmax_cross_entropy(self, x: Array, t: Array, way: str = "") -> Case | None:
        """Return the mean cross-entropy of scores and labels, and its gradient. Values: loss, dx."""
