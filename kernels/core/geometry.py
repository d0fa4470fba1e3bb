"""The geometry of a window over images of one size: the windows, and the pixels that each tap meets.

``kernels.core.window.Window.over`` makes one for each image size and caches it. NumPy code reads its properties; CUDA
kernels take it as one struct passed by value (``struct Geometry`` in ``prelude.cu``), C kernels by its address.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]
Rounding = Literal["floor", "ceil"]

_FIELDS = (
    "channels", "height", "width", "out_height", "out_width", "kernel_height", "kernel_width", "stride_height",
    "stride_width", "pad_top", "pad_left", "dilation_height", "dilation_width",
)  # fmt: skip
STRUCT = numpy.dtype([(name, "int32") for name in _FIELDS])
"""The layout of ``struct Geometry`` in ``prelude.cu``."""


@dataclass(frozen=True)
class TapRange:
    """Along one axis, the outputs ``first`` … ``last - 1`` whose window has its tap ``tap`` inside the image.

    The tap of output o meets the pixel o·stride + offset.

    Attributes:
        outputs, pixels: these outputs, and the pixels that they meet, as slices.
    """

    tap: int
    first: int
    last: int
    stride: int
    offset: int
    outputs: slice = field(init=False, compare=False)
    pixels: slice = field(init=False, compare=False)

    def __post_init__(self) -> None:
        begin = self.first * self.stride + self.offset
        end = begin + (self.last - self.first - 1) * self.stride + 1
        object.__setattr__(self, "outputs", slice(self.first, self.last))
        object.__setattr__(self, "pixels", slice(begin, end, self.stride))


class Tap(NamedTuple):
    """One position in the window, with the outputs for which it lies inside the image and the pixels it meets."""

    row: int
    column: int
    out_rows: slice
    out_columns: slice
    in_rows: slice
    in_columns: slice


class Geometry:
    """A window over images of (H, W). Made by ``kernels.core.window.Window.over``.

    Attributes:
        kernel, stride, dilation: (rows, columns).
        pads: (top, bottom, left, right), in numbers.
        rounding: ``"floor"`` or ``"ceil"``.
        image: (H, W).
        extent: pixels from the window's first tap to its last: (rows, columns).
        output: (OH, OW), the number of windows.

    Raises:
        ValueError: not even one window fits; the message has all the numbers.

    Examples:
        >>> from kernels.core.window import Window
        >>> geometry = Window(2, stride=2).over((5, 4))
        >>> print(geometry)
        kernel 2x2, stride 2, image 5x4
        >>> [(tap.row, tap.column) for tap in geometry.taps]
        [(0, 0), (0, 1), (1, 0), (1, 1)]
    """

    def __init__(self, kernel: Pair, stride: Pair, pads: Pads, dilation: Pair, rounding: Rounding, image: Pair) -> None:
        self.kernel = kernel
        self.stride = stride
        self.pads = pads
        self.dilation = dilation
        self.rounding = rounding
        self.image = image
        self.extent = extent(kernel, dilation)
        self.output = self._count_windows(0), self._count_windows(1)
        self._structs: dict[tuple[int, int, int], Any] = {}
        self._blocks: dict[int, Any] = {}
        self._reciprocal_counts: dict[tuple[bool, Any], numpy.ndarray] = {}

    def _count_windows(self, axis: int) -> int:
        size, extent, stride = self.image[axis], self.extent[axis], self.stride[axis]
        before, after = self.pads[2 * axis : 2 * axis + 2]
        room = size + before + after - extent
        if room < 0:
            name = ("height", "width")[axis]
            raise ValueError(
                f"a window of {extent} does not fit the image's {name}: {size} + padding {before} + {after} "
                f"= {size + before + after} ({self})"
            )
        count = room // stride + 1
        if self.rounding == "ceil" and room % stride and count * stride < size + before:
            count += 1
        return count

    @cached_property
    def covering_pads(self) -> tuple[int, int, int, int]:
        """As ``pads``, with bottom and right as far as the last window reaches: less than the padding where the
        stride skips the end, more where ``rounding="ceil"`` keeps a window that hangs over. A negative number is a
        border that no window touches.
        """
        (top, _, left, _), (oh, ow) = self.pads, self.output
        bottom = (oh - 1) * self.stride[0] + self.extent[0] - self.image[0] - top
        right = (ow - 1) * self.stride[1] + self.extent[1] - self.image[1] - left
        return top, bottom, left, right

    @cached_property
    def rows(self) -> tuple[TapRange, ...]:
        """The ranges of the window's rows that meet a pixel, ascending by tap.

        First and last output never increase from one tap to the next.
        """
        return self._spans(0)

    @cached_property
    def columns(self) -> tuple[TapRange, ...]:
        """As ``rows``, of the window's columns."""
        return self._spans(1)

    def _spans(self, axis: int) -> tuple[TapRange, ...]:
        size, outputs, before, stride = self.image[axis], self.output[axis], self.pads[2 * axis], self.stride[axis]
        spans = []
        for tap in range(self.kernel[axis]):
            offset = tap * self.dilation[axis] - before
            first, last = max(-(offset // stride), 0), min((size - 1 - offset) // stride + 1, outputs)
            if first < last:
                spans.append(TapRange(tap, first, last, stride, offset))
        return tuple(spans)

    @cached_property
    def taps(self) -> tuple[Tap, ...]:
        """The window's taps in ascending order, without taps that meet only padding."""
        return tuple(
            Tap(row.tap, column.tap, row.outputs, column.outputs, row.pixels, column.pixels)
            for row in self.rows
            for column in self.columns
        )

    @cached_property
    def has_gaps(self) -> bool:
        """True if windows that do not overlap leave a pixel out."""
        met = [sum(span.last - span.first for span in spans) for spans in (self.rows, self.columns)]
        return met[0] * met[1] != self.image[0] * self.image[1]

    @cached_property
    def overlaps(self) -> bool:
        """True if two windows can share a pixel. Dilated windows interleave and count as overlapping."""
        return overlap(self.extent, self.stride)

    @cached_property
    def is_pixelwise(self) -> bool:
        """True if each window is one pixel and each pixel a window: a 1×1 kernel, stride 1, no padding."""
        return self.kernel == self.stride == (1, 1) and not any(self.pads)

    @cached_property
    def mirrored(self) -> Geometry | None:
        """The geometry of the convolution over the output that gives the input gradient.

        None at strides above 1, for images without pixels, and where the padding reaches beyond the window.
        """
        (top, bottom, left, right), (eh, ew) = self.covering_pads, self.extent
        pads = (eh - 1 - top, eh - 1 - bottom, ew - 1 - left, ew - 1 - right)
        if self.stride != (1, 1) or 0 in self.image or min(pads) < 0:
            return None
        return Geometry(self.kernel, (1, 1), pads, self.dilation, "floor", self.output)

    @cached_property
    def _empty(self) -> tuple[str, int] | None:
        """The first window of padding only: the axis's name and its index."""
        for name, count, spans in zip(("row", "column"), self.output, (self.rows, self.columns), strict=True):
            seen = {output for span in spans for output in range(span.first, span.last)}
            empty = sorted(set(range(count)) - seen)
            if empty:
                return name, empty[0]
        return None

    def require_pixels(self) -> None:
        """Check that every window holds a pixel, as pooling needs.

        Raises:
            ValueError: a window holds only padding.
        """
        if self._empty is not None:
            axis, index = self._empty
            raise ValueError(
                f"pooling with {self._window_text} over images of {self.image[0]}x{self.image[1]}: the windows of "
                f"output {axis} {index} hold nothing but padding"
            )

    def counted(self, count_padding: bool) -> tuple[int, int, int, int]:
        """Return first row, end row, first column and end column of the pixels that count in a window's mean."""
        top, bottom, left, right = self.pads if count_padding else (0, 0, 0, 0)
        return -top, self.image[0] + bottom, -left, self.image[1] + right

    def reciprocal_counts(self, count_padding: bool, dtype: Any) -> numpy.ndarray:
        """Return 1 / (number of pixels that count) for each window: (OH, OW, 1), not to be changed."""
        key = count_padding, dtype
        if key not in self._reciprocal_counts:
            self._reciprocal_counts[key] = self._reciprocals(count_padding, dtype)
        return self._reciprocal_counts[key]

    def _reciprocals(self, count_padding: bool, dtype: Any) -> numpy.ndarray:
        bounds, counts = self.counted(count_padding), []
        for axis, outputs in enumerate(self.output):
            begin, end = bounds[2 * axis : 2 * axis + 2]
            firsts = numpy.arange(outputs) * self.stride[axis] - self.pads[2 * axis]
            places = firsts[:, None] + numpy.arange(self.kernel[axis]) * self.dilation[axis]
            counts.append(((places >= begin) & (places < end)).sum(axis=1).astype(dtype))
        return 1 / (counts[0][:, None, None] * counts[1][None, :, None])

    def struct(self, channels: int, first_row: int = 0, rows: int | None = None) -> Any:
        """Return the geometry as the CUDA kernels take it.

        Args:
            channels: of the images.
            first_row: first row of the output that is asked for.
            rows: how many; None for all.

        Returns:
            A NumPy scalar of ``STRUCT``.

        Raises:
            ValueError: a number does not fit int32.
        """
        rows = self.output[0] if rows is None else rows
        key = channels, first_row, rows
        if key not in self._structs:
            top, left = self.pads[0] - first_row * self.stride[0], self.pads[2]
            sizes = (channels, *self.image, rows, self.output[1], *self.kernel, *self.stride)
            padded = self.image[0] + sum(self.pads[:2]), self.image[1] + sum(self.pads[2:])
            try:
                numpy.array(padded, "int32")  # in which kernels count rows and columns
                self._structs[key] = numpy.array((*sizes, top, left, *self.dilation), STRUCT)[()]
            except OverflowError:
                raise ValueError(f"{self}: a number is too large for kernels (int32)") from None
        return self._structs[key]

    def block(self, channels: int) -> Any:
        """Return the geometry as the C kernels take it: an array of one ``STRUCT``."""
        if channels not in self._blocks:
            self._blocks[channels] = numpy.array([self.struct(channels)], STRUCT)
        return self._blocks[channels]

    def __str__(self) -> str:
        return f"{self._window_text}, image {self.image[0]}x{self.image[1]}"

    @property
    def _window_text(self) -> str:
        return describe(self.kernel, self.stride, self.pads, self.dilation, self.rounding)

    def __repr__(self) -> str:
        return f"Geometry({self})"


def extent(kernel: Pair, dilation: Pair) -> Pair:
    """Return the pixels from a window's first tap to its last, dilation included: (rows, columns)."""
    return (kernel[0] - 1) * dilation[0] + 1, (kernel[1] - 1) * dilation[1] + 1


def overlap(extent: Pair, stride: Pair) -> bool:
    """Return whether two windows can share a pixel. Dilated windows interleave: they count as overlapping."""
    return extent[0] > stride[0] or extent[1] > stride[1]


def describe(kernel: Pair, stride: Pair, padding: Pads | str, dilation: Pair, rounding: Rounding) -> str:
    """Describe a window in words, leaving out what has its default."""
    text = f"kernel {kernel[0]}x{kernel[1]}"
    if stride != (1, 1):
        text += f", stride {single(stride)}"
    if padding != (0, 0, 0, 0):
        text += f", padding {single(padding)}"
    if dilation != (1, 1):
        text += f", dilation {single(dilation)}"
    return text + (", rounding ceil" if rounding == "ceil" else "")


def single(numbers: Any) -> Any:
    """Return one number for several equal ones; others, and "same", as they are."""
    return numbers if isinstance(numbers, str) or len(set(numbers)) > 1 else numbers[0]
