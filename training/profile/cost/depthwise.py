"""What a depthwise convolution takes on a GPU: weighted sums of shifted images, as ``kernels.depthwise`` does it."""

from __future__ import annotations

import math

from kernels.core.geometry import Tap
from kernels.core.layout import fold_of
from kernels.core.tiling import cut_on_gpu
from training.profile.cost.direct import Direct, largest
from training.profile.cost.work import Work, moves


class Depthwise(Direct):
    """A convolution with one channel a group."""

    @property
    def relu_parts(self) -> int:
        """A Relu behind it is done after all of it."""
        return 1

    def bias(self) -> int:
        return 1

    def forward(self) -> Work:
        return self._tap_by_tap(launches_a_tap=2)

    def input_gradient(self) -> Work:
        """A product, its sum over a channel's filters, and the addition."""
        return self._tap_by_tap(launches_a_tap=3)

    def weight_gradient(self) -> Work:
        launches, numbers = 0, 0
        for tap in self._taps:
            rows = self.samples * _pixels(tap)
            sum_and_assignment = 3 + (fold_of(rows, self.filters) > 1)
            launches += self._half + 1 + sum_and_assignment
            numbers += rows * self.filters
        most = self.samples * max(_pixels(tap) for tap in self._taps)
        scratch = most * (self.filters + self._half * self.channels) * self.sums.itemsize
        return Work(0, 2 * numbers, launches=launches, workspace=scratch)

    def _tap_by_tap(self, launches_a_tap: int) -> Work:
        taps, image_bytes = self._taps, math.prod(self.output) * self.filters * self.sums.itemsize
        parts = cut_on_gpu(self.samples, 1, image_bytes)
        ordered = self._half or moves((self.channels, self.filters // self.channels, *self.window.kernel), (2, 3, 0, 1))
        launches = ordered + len(parts) * (launches_a_tap * len(taps) + self._half)
        flops = 2 * self.samples * self.filters * sum(_pixels(tap) for tap in taps)
        filters = math.prod(self.weight) * self.sums.itemsize
        return Work(0, flops, launches=launches, workspace=filters + 2 * largest(parts) * image_bytes)

    @property
    def _taps(self) -> list[Tap]:
        return list(self.window.over((self.image[0], self.image[1])).taps)

    @property
    def _half(self) -> bool:
        return self.dtype != self.sums


def _pixels(tap: Tap) -> int:
    """The outputs of an image for which a tap lies inside it."""
    rows, columns = tap.out_rows, tap.out_columns
    return (rows.stop - rows.start) * (columns.stop - columns.start)
