"""The pooling layers."""

from __future__ import annotations

from typing import Literal

from backend.checks import LARGEST_SIZE, flag, whole
from backend.types import Array
from kernels import max_pooling
from kernels import pooling as kernel
from kernels.core.geometry import single
from kernels.core.window import Padding, Pair, Window
from layers import checks
from layers.base import Layer, Shape


class _Pooling(Layer):
    def __init__(
        self,
        pool_h: int,
        pool_w: int,
        stride: int | Pair = 1,
        pad: Padding = 0,
        dilation: int | Pair = 1,
        rounding: Literal["floor", "ceil"] = "floor",
    ) -> None:
        self.pool_h = whole("pool_h", pool_h, 1, LARGEST_SIZE)
        self.pool_w = whole("pool_w", pool_w, 1, LARGEST_SIZE)
        self.window = Window((self.pool_h, self.pool_w), stride, pad, dilation, rounding)
        self.stride = single(self.window.stride)
        self.pad = single(self.window.padding)
        self.dilation = single(self.window.dilation)
        self.rounding = self.window.rounding

    def output_shape(self, shape: Shape) -> Shape:
        channels, *image = checks.image_shape(shape)
        return (channels, *self.window.over((image[0], image[1])).output)

    def describe(self) -> str:
        return str(self.window)


class Pooling(_Pooling):
    """Max pooling: the largest pixel of each window.

    ``forward`` takes (N, C, H, W) and returns (N, C, OH, OW). The first of equal pixels wins, NaN wins over numbers;
    padding never wins.

    Args:
        pool_h, pool_w: height and width of the window.
        stride: one number or (rows, columns). The default is that of the book's text; its code, and
            ``layers.compat.book.Pooling``, have 2.
        pad: a number, (rows, columns), (top, bottom, left, right), "same" or "valid".
        dilation: step between the pixels of the window.
        rounding: "floor" drops a last window that fits only in part, "ceil" keeps it.

    Raises:
        TypeError: an argument is not a whole number.
        ValueError: a number is out of its range.

    Examples:
        >>> from backend import xp
        >>> from layers import Pooling
        >>> Pooling(2, 2, stride=2).forward(xp.arange(16.0).reshape(1, 1, 4, 4))[0, 0]
        array([[ 5.,  7.],
               [13., 15.]])
    """

    def forward(self, x: Array) -> Array:
        checks.floating("Pooling", x=x)
        y, winners = max_pooling.pool(x, self.window)
        return self.save(y, winners, x.shape)

    def backward(self, dout: Array) -> Array:
        winners, shape = self.saved(dout)
        return max_pooling.pool_backward(dout, winners, shape, self.window)


class AveragePooling(_Pooling):
    """Average pooling: the mean of each window.

    Args:
        pool_h, pool_w, stride, pad, dilation, rounding: as for ``Pooling``.
        count_padding: True to count padding as zeros in the mean, False for the mean of the image's own pixels.

    Examples:
        >>> from backend import xp
        >>> from layers import AveragePooling
        >>> AveragePooling(2, 2, stride=2).forward(xp.arange(16.0).reshape(1, 1, 4, 4))[0, 0]
        array([[ 2.5,  4.5],
               [10.5, 12.5]])
    """

    def __init__(
        self,
        pool_h: int,
        pool_w: int,
        stride: int | Pair = 1,
        pad: Padding = 0,
        dilation: int | Pair = 1,
        rounding: Literal["floor", "ceil"] = "floor",
        count_padding: bool = False,
    ) -> None:
        super().__init__(pool_h, pool_w, stride, pad, dilation, rounding)
        self.count_padding = flag("count_padding", count_padding)

    def forward(self, x: Array) -> Array:
        checks.floating("AveragePooling", x=x)
        return self.save(kernel.average_pool(x, self.window, self.count_padding), x.shape)

    def backward(self, dout: Array) -> Array:
        (shape,) = self.saved(dout)
        return kernel.average_pool_backward(dout, shape, self.window, self.count_padding)


class GlobalAveragePooling(Layer):
    """Global average pooling (Lin, Chen and Yan, "Network in network", 2014): (N, C, H, W) → (N, C), channel means."""

    def forward(self, x: Array) -> Array:
        checks.floating("GlobalAveragePooling", x=x)
        self.output_shape(x.shape[1:])
        return self.save(kernel.global_average_pool(x), x.shape)

    def backward(self, dout: Array) -> Array:
        (shape,) = self.saved(dout)
        return kernel.global_average_pool_backward(dout, shape)

    def output_shape(self, shape: Shape) -> Shape:
        channels, *image = checks.image_shape(shape)
        if 0 in image:
            raise ValueError(f"takes images (C, H, W) of at least one pixel, got {shape}")
        return (channels,)
