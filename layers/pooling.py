"""Pooling layers."""

from __future__ import annotations

from typing import Any, Literal

from backend.checks import LARGEST_SIZE, flag, whole
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

    def output_shape(self, shape: Shape) -> Shape:
        channels, *image = checks.image_shape(shape)
        return (channels, *self.window.over((image[0], image[1])).output)

    def describe(self) -> str:
        return str(self.window)


class Pooling(_Pooling):
    """Max pooling: the largest pixel of every window. The first of equals wins, NaN wins over all, padding never.

    Args:
        pool_h, pool_w: the window.
        stride: one number or (rows, columns). The default is that of the book's text; its code, and
            ``layers.compat.book.Pooling``, have 2.
        pad: a number, (rows, columns), (top, bottom, left, right), "same" or "valid".
        dilation: step between the window's pixels.
        rounding: what happens to a last window that does not fit whole: "floor" drops it, "ceil" keeps it.

    Raises:
        TypeError: an argument is no whole number.
        ValueError: a number is out of its range.

    ``forward`` takes (N, C, H, W) and returns (N, C, OH, OW).
    """

    def forward(self, x: Any) -> Any:
        checks.floating("Pooling", x=x)
        y, winners = max_pooling.pool(x, self.window)
        return self.save(y, winners, x.shape)

    def backward(self, dout: Any) -> Any:
        winners, shape = self.saved(dout)
        return max_pooling.pool_backward(dout, winners, shape, self.window)


class AveragePooling(_Pooling):
    """Average pooling: the mean of every window.

    Args:
        pool_h, pool_w, stride, pad, dilation, rounding: as for ``Pooling``.
        count_padding: whether padding counts as zeros in the mean, or only the pixels that exist do.
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

    def forward(self, x: Any) -> Any:
        checks.floating("AveragePooling", x=x)
        return self.save(kernel.average_pool(x, self.window, self.count_padding), x.shape)

    def backward(self, dout: Any) -> Any:
        (shape,) = self.saved(dout)
        return kernel.average_pool_backward(dout, shape, self.window, self.count_padding)


class GlobalAveragePooling(Layer):
    """The mean of each channel's plane: (N, C, H, W) → (N, C) (Lin, Chen and Yan, "Network in network", 2014)."""

    def forward(self, x: Any) -> Any:
        checks.floating("GlobalAveragePooling", x=x)
        self.output_shape(x.shape[1:])
        return self.save(kernel.global_average_pool(x), x.shape)

    def backward(self, dout: Any) -> Any:
        (shape,) = self.saved(dout)
        return kernel.global_average_pool_backward(dout, shape)

    def output_shape(self, shape: Shape) -> Shape:
        channels, *image = checks.image_shape(shape)
        if 0 in image:
            raise ValueError(f"takes images (C, H, W) of at least one pixel, got {shape}")
        return (channels,)
