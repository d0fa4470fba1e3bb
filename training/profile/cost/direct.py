"""What a convolution by columns and matrix products takes on a GPU, as ``kernels.convolution`` does it.

Launches are exact for two channels and filters or more: with one, CuPy finds a copy or a product to be something else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy

from kernels.core.dtypes import acc_dtype
from kernels.core.tiling import Part, channel_strips, cut_on_gpu, lanes
from kernels.core.window import Window
from layers.base import Shape
from training.profile.cost.work import Work, moves


@dataclass(frozen=True)
class Direct:
    """A convolution of images (samples, channels, \\*image), and the work of its three parts: without the bias, and
    without least bytes, which are a matter of the layer."""

    samples: int
    channels: int
    image: Shape
    filters: int
    window: Window
    groups: int
    dtype: numpy.dtype

    @property
    def output(self) -> tuple[int, int]:
        """(OH, OW)."""
        return self.window.over((self.image[0], self.image[1])).output

    @property
    def weight(self) -> Shape:
        """(groups, FN / groups, C / groups, FH, FW)."""
        return self.groups, self.filters // self.groups, self.channels // self.groups, *self.window.kernel

    @property
    def weight_bytes(self) -> int:
        """Of the filters."""
        return math.prod(self.weight) * self.dtype.itemsize

    @property
    def sums(self) -> numpy.dtype:
        """The dtype of sums."""
        return acc_dtype(self.dtype)

    @property
    def flops(self) -> int:
        """Of each of the three products: the output, the gradient of the filters, and that of the input."""
        return 2 * self.samples * math.prod(self.output) * math.prod(self.weight)

    @property
    def parts(self) -> list[Part]:
        """Images and rows of the output whose columns there are at a time."""
        return cut_on_gpu(self.samples, self.output[0], self._row_bytes)

    @property
    def relu_parts(self) -> int:
        """In how many parts a Relu behind it is done."""
        return len(self.parts)

    def bias(self) -> int:
        """Launches that add it: it is made as long as a row of the output, and added to each part."""
        return 1 + len(self.parts)

    @property
    def _row_bytes(self) -> int:
        return self.output[1] * math.prod(self.weight[2:]) * self.dtype.itemsize

    @property
    def _pixels_are_columns(self) -> bool:
        return self.window.over((self.image[0], self.image[1])).is_pixelwise and self.groups == 1

    @property
    def column_bytes(self) -> int:
        """The columns of the largest part."""
        return 0 if self._pixels_are_columns else largest(self.parts) * self._row_bytes

    def orders_filters(self, widened: bool = False) -> int:
        """The copies that make the filters of a group the right operand of a product, of a wider dtype perhaps."""
        _, _, channels, *kernel = self.weight
        merged = channels > 1 and math.prod(kernel) > 1  # taps and channels as one axis, which is no view
        return merged + widened if merged else int(widened or moves(self.weight, (0, 3, 4, 2, 1)))

    def forward(self) -> Work:
        """Columns and products. Those of a group are a strided part of the output, which CuPy copies to."""
        each = 2 - self._pixels_are_columns + (self.groups > 1)
        launches = self.orders_filters() + len(self.parts) * self.groups * each
        return Work(self.flops, launches=launches, workspace=self.weight_bytes + self.column_bytes)

    def weight_gradient(self) -> Work:
        """Columns, products, and their sums; a group's part of the output's gradient is copied."""
        total, half = math.prod(self.weight) * self.sums.itemsize, self.dtype != self.sums
        count = len(lanes(self.parts, total))  # each adds up parts; then they are added
        each = 3 - self._pixels_are_columns + (self.groups > 1)
        launches = len(self.parts) * self.groups * each + count - 1
        ordered = moves((self.groups, *self.window.kernel, *self.weight[2:0:-1]), (0, 4, 3, 1, 2))
        launches += ordered + half if self.groups > 1 else ordered or half
        return Work(self.flops, launches=launches, workspace=count * total + self.column_bytes)

    def input_gradient(self) -> Work:
        """A convolution with the flipped filters, or products and col2im."""
        turned_round = mirrored(self.window, self.image)
        if turned_round is not None:
            back = replace(self, channels=self.filters, image=self.output, filters=self.channels, window=turned_round)
            taps = math.prod(self.window.kernel)
            ordered = 2 if self.groups > 1 else taps > 1 or moves(self.weight, (0, 3, 4, 1, 2))
            work = back.forward()
            return work._replace(launches=work.launches - back.orders_filters() + ordered)
        half, grouped, channels = self.dtype != self.sums, self.groups > 1, self.weight[2]
        channel_bytes = math.prod(self.output) * math.prod(self.window.kernel) * self.sums.itemsize
        strips = channel_strips(channels, channel_bytes, "cupy")
        image_bytes = channel_bytes * max(last - first for first, last in strips)
        parts = cut_on_gpu(self.samples, 1, image_bytes)
        stripped, several_taps = len(strips) > 1, math.prod(self.window.kernel) > 1
        narrow = several_taps * stripped * sum(last - first == 1 for first, last in strips)
        each = 2 + grouped + (half or grouped or stripped)  # a group's rows, and what is no place for sums, are copied
        launches = self.orders_filters(half) + len(parts) * (half + self.groups * len(strips) * each)
        # A strip's filters are copied: once, but those of one channel in each product.
        launches += self.groups * (several_taps * stripped * len(strips) + narrow * (len(parts) - 1))
        workspace = math.prod(self.weight) * self.sums.itemsize + largest(parts) * image_bytes
        additions = self.samples * math.prod(self.output) * math.prod(self.weight[2:]) * self.groups
        return Work(self.flops, additions, launches=launches, workspace=workspace)


def mirrored(window: Window, image: Shape) -> Window | None:
    """The window of the convolution that is the input gradient of one with ``window``; None where there is none."""
    back = window.over((image[0], image[1])).mirrored
    return None if back is None else Window(back.kernel, back.stride, back.pads, back.dilation)


def largest(parts: list[Part]) -> int:
    """The rows of images in the largest part."""
    return max((p.last_image - p.first_image) * (p.last_row - p.first_row) for p in parts)
