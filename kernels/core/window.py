"""A window that slides over images, as layers and users describe it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from backend.checks import LARGEST_SIZE, choice, instance, refusal, several, sizes, whole
from kernels.core.geometry import Geometry, Pads, Pair, describe, extent, overlap

Padding = int | Pair | tuple[int, int, int, int] | Literal["same", "valid"]

_MOST_GEOMETRIES = 256  # kept of a window: data sets of images of every size must not fill the memory


@dataclass(frozen=True)
class Window:
    """A window and how it moves: kernel size, stride, padding, dilation, each for height and width.

    Args:
        kernel: (FH, FW), or one number for both.
        stride: step between windows; (rows, columns), or one number for both.
        padding: border added to the image: one number for all sides, (rows, columns), (top, bottom, left,
            right), ``"valid"`` for none, or ``"same"`` for an output of ⌈input / stride⌉, where an odd row or
            column goes to the bottom or right.
        dilation: step between the taps inside a window; (rows, columns), or one number for both.
        rounding: ``"floor"`` drops a last window that does not fit whole; ``"ceil"`` keeps it, as long as it
            starts inside the image or its top or left padding, and what lies beyond the padding counts as
            padding too.

    Raises:
        TypeError: an argument is not an integer; the message names it.
        ValueError: a number is out of range, or there are too few or too many; the message names the argument.

    Examples:
        >>> from kernels.core.window import Window
        >>> window = Window(3, stride=2, padding=1)
        >>> print(window)
        kernel 3x3, stride 2, padding 1
        >>> window.over((28, 28)).output
        (14, 14)
    """

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pads | Literal["same"] = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    rounding: Literal["floor", "ceil"] = "floor"

    def __init__(
        self,
        kernel: int | Pair,
        stride: int | Pair = 1,
        padding: Padding = 0,
        dilation: int | Pair = 1,
        rounding: Literal["floor", "ceil"] = "floor",
    ) -> None:
        choice("rounding", rounding, ("floor", "ceil"))
        object.__setattr__(self, "kernel", pair("kernel", kernel))
        object.__setattr__(self, "stride", pair("stride", stride))
        object.__setattr__(self, "padding", _four("padding", padding))
        object.__setattr__(self, "dilation", pair("dilation", dilation))
        object.__setattr__(self, "rounding", rounding)
        object.__setattr__(self, "_geometries", {})

    @property
    def extent(self) -> Pair:
        """The pixels from the first tap to the last, dilation included: (rows, columns)."""
        return extent(self.kernel, self.dilation)

    @property
    def overlaps(self) -> bool:
        """True if two windows can share a pixel. Dilated windows interleave and count as overlapping."""
        return overlap(self.extent, self.stride)

    def over(self, image: Pair) -> Geometry:
        """Lay the window over images of (H, W): output size, padding in numbers, taps. The result is kept.

        Raises:
            ValueError: not even one window fits; the message has all the numbers.
        """
        geometries: dict[Pair, Geometry] = self._geometries  # type: ignore[attr-defined]
        size = image
        if type(image) is not tuple or len(image) != 2 or not type(image[0]) is type(image[1]) is int:
            height, width = sizes("image", image, 0, 2)
            size = height, width
        if size not in geometries:
            if len(geometries) >= _MOST_GEOMETRIES:
                geometries.clear()
            geometries[size] = Geometry(self.kernel, self.stride, self._pads(size), self.dilation, self.rounding, size)
        return geometries[size]

    def _pads(self, image: Pair) -> Pads:
        if self.padding != "same":
            return self.padding
        pads = []
        for size, span, stride in zip(image, self.extent, self.stride, strict=True):
            total = max((-(-size // stride) - 1) * stride + span - size, 0)
            pads += [total // 2, total - total // 2]
        return pads[0], pads[1], pads[2], pads[3]

    def transposed_size(self, output: Pair) -> Pair:
        """Return the size that a transposed convolution makes: (H, W) of the smallest image that the windows cover.

        Raises:
            ValueError: padding is "same", which fixes no size, or leaves nothing of the image.

        Examples:
            >>> from kernels.core.window import Window
            >>> Window(4, stride=2, padding=1).transposed_size((14, 14))
            (28, 28)
        """
        rows, columns = sizes("output", output, 0, 2)
        if self.padding == "same":
            raise ValueError("a transposed window needs padding in numbers: 'same' does not fix the image's size")
        top, bottom, left, right = self.padding
        size = (
            (rows - 1) * self.stride[0] + self.extent[0] - top - bottom,
            (columns - 1) * self.stride[1] + self.extent[1] - left - right,
        )
        if min(size) < 1:
            raise ValueError(f"{self} leaves no image for an output of {rows}x{columns}: {size}")
        return size

    def __str__(self) -> str:
        return describe(self.kernel, self.stride, self.padding, self.dilation, self.rounding)


def geometry_of(window: Window, input_shape: tuple[int, ...]) -> Geometry:
    """Return the window laid over images of the shape (N, C, H, W).

    Raises:
        TypeError: an argument is of another kind.
        ValueError: the shape is another, or no window fits.
    """
    instance("window", window, Window, "a Window")
    _, _, height, width = sizes("input_shape", input_shape, 0, 4)
    return window.over((height, width))


def pair(name: str, value: int | Pair) -> Pair:
    """Return one number for both axes, or two, as a pair of ints of at least 1; errors call it ``name``."""
    numbers = several(value)
    if numbers is None:
        number = whole(name, value, 1, LARGEST_SIZE)
        return number, number
    if len(numbers) != 2:
        raise refusal(ValueError, name, "one number or a pair (rows, columns)", value)
    return whole(f"{name}[0]", numbers[0], 1, LARGEST_SIZE), whole(f"{name}[1]", numbers[1], 1, LARGEST_SIZE)


def _four(name: str, value: Padding) -> tuple[int, int, int, int] | Literal["same"]:
    if isinstance(value, str):
        return "same" if choice(name, value, ("same", "valid")) == "same" else (0, 0, 0, 0)
    given = several(value)
    if given is None:
        number = whole(name, value, 0, LARGEST_SIZE)
        return number, number, number, number
    numbers = [whole(f"{name}[{index}]", number, 0, LARGEST_SIZE) for index, number in enumerate(given)]
    if len(numbers) == 2:
        return numbers[0], numbers[0], numbers[1], numbers[1]
    if len(numbers) == 4:
        return numbers[0], numbers[1], numbers[2], numbers[3]
    raise refusal(ValueError, name, "one number, a pair, four numbers, 'same' or 'valid'", value)
