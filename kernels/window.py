"""A window that slides over images, as layers and users describe it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kernels.geometry import Geometry, Pads, Pair, describe, extent, overlap

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
        ValueError: a number is out of its range or of the wrong kind; the message names it.
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
        if rounding not in ("floor", "ceil"):
            raise ValueError(f"rounding is 'floor' or 'ceil', not {rounding!r}")
        object.__setattr__(self, "kernel", _pair("kernel", kernel))
        object.__setattr__(self, "stride", _pair("stride", stride))
        object.__setattr__(self, "padding", _four(padding))
        object.__setattr__(self, "dilation", _pair("dilation", dilation))
        object.__setattr__(self, "rounding", rounding)
        object.__setattr__(self, "_geometries", {})

    @property
    def extent(self) -> Pair:
        """Pixels from the first tap to the last, dilation included: (rows, columns)."""
        return extent(self.kernel, self.dilation)

    @property
    def overlaps(self) -> bool:
        """Whether two windows can share a pixel. Dilated windows interleave: they count as overlapping."""
        return overlap(self.extent, self.stride)

    def over(self, image: Pair) -> Geometry:
        """Lay the window over images of (H, W): output size, padding in numbers, taps. The result is kept.

        Raises:
            ValueError: not even one window fits; the message has all the numbers.
        """
        geometries: dict[Pair, Geometry] = self._geometries  # type: ignore[attr-defined]
        size = image[0], image[1]
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
        """(H, W) of the smallest image that (OH, OW) windows cover whole: the size a transposed convolution makes.

        Raises:
            ValueError: padding is "same", which fixes no size, or leaves nothing of the image.
        """
        if self.padding == "same":
            raise ValueError("a transposed window needs padding in numbers: 'same' does not fix the image's size")
        top, bottom, left, right = self.padding
        size = (
            (output[0] - 1) * self.stride[0] + self.extent[0] - top - bottom,
            (output[1] - 1) * self.stride[1] + self.extent[1] - left - right,
        )
        if min(size) < 1:
            raise ValueError(f"{self} leaves no image for an output of {output[0]}x{output[1]}: {size}")
        return size

    def __str__(self) -> str:
        return describe(self.kernel, self.stride, self.padding, self.dilation, self.rounding)


def _whole(name: str, value: object, least: int) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = value.__index__()  # type: ignore[attr-defined]
    except (AttributeError, TypeError):
        raise ValueError(f"{name} takes whole numbers, not {value!r}") from None
    if number < least:
        raise ValueError(f"{name} is at least {least}, not {number}")
    return number


def _pair(name: str, value: int | Pair) -> Pair:
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{name} is one number or a pair (rows, columns), not {value!r}")
        return _whole(name, value[0], 1), _whole(name, value[1], 1)
    number = _whole(name, value, 1)
    return number, number


def _four(value: Padding) -> tuple[int, int, int, int] | Literal["same"]:
    if isinstance(value, str):
        if value == "same":
            return "same"
        if value == "valid":
            return (0, 0, 0, 0)
        raise ValueError(f"padding by name is 'same' or 'valid', not {value!r}")
    if isinstance(value, (tuple, list)):
        numbers = tuple(_whole("padding", number, 0) for number in value)
        if len(numbers) == 2:
            return numbers[0], numbers[0], numbers[1], numbers[1]
        if len(numbers) == 4:
            return numbers[0], numbers[1], numbers[2], numbers[3]
        raise ValueError(f"padding is one number, a pair, four numbers, 'same' or 'valid', not {value!r}")
    number = _whole("padding", value, 0)
    return number, number, number, number
