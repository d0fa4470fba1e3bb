"""What a side of the comparison is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """Work that can be repeated.

    Attributes:
        step: does it once: what is timed.
        values: what the latest step computed, as NumPy arrays in the form that all sides share: images (N, C, H, W),
            weights as xpnet has them, columns (N·OH·OW, C·FH·FW).
        inside: the context in which steps are made one after the other.
    """

    step: Callable[[], Any]
    values: Callable[[], Values]
    inside: Callable[[], AbstractContextManager[Any]] = nullcontext


class Side:
    """A library, or a way to use it. A method that a side does not have returns None: it cannot do that work.

    All arrays that a method takes are NumPy's, C-contiguous and float32 (labels int32). What a side does to bring
    them into the form it likes best is not timed, as in a training loop, where activations come from its own layers.
    """

    name: str

    def set_threads(self, count: int) -> None:
        """Hold the side to so many threads; for NumPy's BLAS and xpnet's own threads that is seen to elsewhere."""

    def ways(self, operation: str, images: bool) -> tuple[str, ...]:
        """How the side can be told to do an operation, on images or on rows; the fastest is what is compared."""
        return ("",)

    def training(self, network: Any, x: Any, t: Any, optimizer: str, way: str = "") -> Case | None:
        """A step of training: forward, loss, backward, update.

        Args:
            network: the ``training.Network`` whose layers and first weights are to be the side's own.
            x: samples (N, *network.input_dim).
            t: labels (N,).
            optimizer: "sgd" or "adam", with xpnet's own defaults.

        Values: loss, and of the first layer's weights the gradient and the change by the update.
        """

    def convolution_block(
        self, x: Any, W: Any, b: Any, gamma: Any, beta: Any, dout: Any, winograd: bool = False, way: str = ""
    ) -> Case | None:
        """Convolution 3×3 pad 1, batch normalisation, ReLU; forward and backward. Values: y, dx, dW.

        Only xpnet looks at ``winograd``.
        """

    def im2col(self, x: Any, size: int, pad: int, order: str, way: str = "") -> Case | None:
        """The windows of images as columns. ``order`` is that of xpnet's columns; others have one order."""

    def col2im(self, columns: Any, shape: Any, size: int, pad: int, order: str, way: str = "") -> Case | None:
        """The sum of columns (N·OH·OW, C·FH·FW) as images of ``shape``."""

    def max_pooling(self, x: Any, dout: Any, size: int, stride: int, way: str = "") -> Case | None:
        """Max pooling, forward and backward. Values: y, dx."""

    def batch_norm_relu(self, x: Any, gamma: Any, beta: Any, dout: Any, way: str = "") -> Case | None:
        """Batch normalisation in training and ReLU, forward and backward. Values: y, dx, dgamma."""

    def softmax_cross_entropy(self, x: Any, t: Any, way: str = "") -> Case | None:
        """The mean cross-entropy of scores against labels, and its gradient. Values: loss, dx."""
