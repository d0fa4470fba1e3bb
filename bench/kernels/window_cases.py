"""The cases that slide a window over images: im2col, col2im, convolution and pooling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from backend.types import Array
from bench.kernels.case import Call, KernelCase, by, centered, nbytes
from kernels.col2im import col2im
from kernels.convolution import convolution
from kernels.core.layout import as_nchw
from kernels.core.window import Window
from kernels.gemm import matmul
from kernels.im2col import im2col
from kernels.max_pooling import max_pool, max_pool_backward
from kernels.pooling import average_pool, average_pool_backward

Method = Literal["gather", "scatter"]


class Images(NamedTuple):
    """Images (N, C, H, W) and a window over them; for a convolution also the number of ``filters``."""

    shape: tuple[int, int, int, int]
    window: Window
    filters: int = 0

    @property
    def outputs(self) -> tuple[int, int, int, int]:
        """Shape of the output: (N, C, OH, OW)."""
        return (*self.shape[:2], *self.window.over(self.shape[2:]).output)

    @property
    def columns(self) -> tuple[int, int]:
        """Shape of the columns: (N·OH·OW, C·FH·FW)."""
        n, c, oh, ow = self.outputs
        return n * oh * ow, c * self.window.kernel[0] * self.window.kernel[1]

    def __str__(self) -> str:
        return f"{by(*self.shape)}, {self.window}"


CONVOLUTIONS = (
    Images((32, 64, 32, 32), Window(3, 1, 1), 64),
    Images((128, 16, 28, 28), Window(3, 1, 1), 32),  # the second convolution of DeepConvNet
    Images((64, 3, 224, 224), Window(7, 2, 3), 64),  # the first of a ResNet
)
TINY_CONVOLUTIONS = (Images((2, 3, 5, 4), Window(3, 1, 1), 5),)

POOLINGS = (
    Images((32, 64, 32, 32), Window(2, 2)),
    Images((128, 16, 28, 28), Window(2, 2)),
    Images((64, 64, 112, 112), Window(3, 2, 1)),
)
TINY_POOLINGS = (Images((2, 3, 4, 6), Window(2, 2)), Images((2, 3, 5, 4), Window(3, 2, 1)))


def cases(dtype: str, tiny: bool) -> Iterator[KernelCase]:
    """Yield all cases for one dtype, on realistic or tiny shapes."""
    poolings = TINY_POOLINGS if tiny else POOLINGS
    convolutions = TINY_CONVOLUTIONS if tiny else CONVOLUTIONS
    for size in convolutions:
        for order in ("HWC", "CHW"):
            yield _im2col(size, dtype, order)
        yield _gemm(size, dtype)
        yield _convolution(size, dtype)
    for size in (*convolutions, poolings[0]):
        for order in ("HWC", "CHW"):
            for method in ("gather", "scatter"):
                yield _col2im(size, dtype, order, method)
    for size in poolings:
        yield _max_pool(size, dtype)
        yield _max_pool_backward(size, dtype)
        yield _average_pool(size, dtype)
        yield _average_pool_backward(size, dtype)


def pixels(shape: tuple[int, int, int, int], dtype: str) -> Any:
    """Return random images (N, C, H, W) with channels-last memory."""
    n, c, h, w = shape
    return as_nchw(centered((n, h, w, c), dtype))


def _im2col(size: Images, dtype: str, order: str) -> KernelCase:
    def bind(x: Array) -> Call:
        return lambda: im2col(x, size.window, order)

    return KernelCase(
        f"im2col {order}", str(size), dtype, (f"im2col_{order.lower()}",),
        {"x": nbytes(size.shape, dtype), "columns": nbytes(size.columns, dtype)},
        lambda: (pixels(size.shape, dtype),), bind,
    )  # fmt: skip


def _col2im(size: Images, dtype: str, order: str, method: Method) -> KernelCase:
    kernel = f"col2im_{method}"
    if method == "scatter" and not size.window.overlaps:
        kernel += "_plain"

    def bind(columns: Array) -> Call:
        return lambda: col2im(columns, size.shape, size.window, order, method)

    return KernelCase(
        f"col2im {method} {order}", str(size), dtype, (kernel,),
        {"columns": nbytes(size.columns, dtype), "images": nbytes(size.shape, dtype)},
        lambda: (centered(size.columns, dtype),), bind,
        tolerance=0 if method == "gather" else 2.0 * size.window.kernel[0] * size.window.kernel[1],
    )  # fmt: skip


def _gemm(size: Images, dtype: str) -> KernelCase:
    (rows, terms), filters = size.columns, size.filters

    def bind(columns: Array, weights: Any) -> Call:
        return lambda: matmul(columns, weights)

    return KernelCase(
        "GEMM", str(size), dtype, (),
        {
            "columns": nbytes((rows, terms), dtype),
            "weights": nbytes((terms, filters), dtype),
            "y": nbytes((rows, filters), dtype),
        },
        lambda: (centered((rows, terms), dtype), centered((terms, filters), dtype)), bind,
        tolerance=_of_products(size), flops=2 * rows * terms * filters, detail=f"{filters} filters",
    )  # fmt: skip


def _convolution(size: Images, dtype: str) -> KernelCase:
    (rows, terms), filters = size.columns, size.filters
    weight = (filters, size.shape[1], *size.window.kernel)

    def bind(x: Array, weights: Any) -> Call:
        return lambda: convolution(x, weights, None, size.window)

    return KernelCase(
        "convolution", str(size), dtype, (),
        {
            "x": nbytes(size.shape, dtype),
            "weights": nbytes(weight, dtype),
            "y": nbytes((rows, filters), dtype),
        },
        lambda: (pixels(size.shape, dtype), centered(weight, dtype)), bind,
        tolerance=_of_products(size), flops=2 * rows * terms * filters, detail=f"{filters} filters",
    )  # fmt: skip


def _of_products(size: Images) -> float:
    return 2 * size.columns[1] ** 0.5 + 8


def _max_pool(size: Images, dtype: str) -> KernelCase:
    def bind(x: Array) -> Call:
        return lambda: max_pool(x, size.window)

    return KernelCase(
        "max pooling", str(size), dtype, ("max_pool",),
        {
            "x": nbytes(size.shape, dtype),
            "y": nbytes(size.outputs, dtype),
            "argmax": nbytes(size.outputs, "int32"),
        },
        lambda: (pixels(size.shape, dtype),), bind,
    )  # fmt: skip


def _max_pool_backward(size: Images, dtype: str) -> KernelCase:
    def bind(x: Array, dy: Array) -> Call:
        argmax = max_pool(x, size.window)[1]
        return lambda: max_pool_backward(dy, argmax, size.shape, size.window)

    method = "gather" if size.window.overlaps else "scatter"
    return KernelCase(
        "max pooling backward", str(size), dtype, (f"max_pool_backward_{method}",),
        {
            "dy": nbytes(size.outputs, dtype),
            "argmax": nbytes(size.outputs, "int32"),
            "dx": nbytes(size.shape, dtype),
        },
        lambda: (pixels(size.shape, dtype), pixels(size.outputs, dtype)), bind,
    )  # fmt: skip


def _average_pool(size: Images, dtype: str) -> KernelCase:
    def bind(x: Array) -> Call:
        return lambda: average_pool(x, size.window)

    return KernelCase(
        "average pooling", str(size), dtype, ("average_pool",),
        {"x": nbytes(size.shape, dtype), "y": nbytes(size.outputs, dtype)},
        lambda: (pixels(size.shape, dtype),), bind, tolerance=8,
    )  # fmt: skip


def _average_pool_backward(size: Images, dtype: str) -> KernelCase:
    def bind(dy: Array) -> Call:
        return lambda: average_pool_backward(dy, size.shape, size.window)

    return KernelCase(
        "average pooling backward", str(size), dtype, ("average_pool_backward",),
        {"dy": nbytes(size.outputs, dtype), "dx": nbytes(size.shape, dtype)},
        lambda: (pixels(size.outputs, dtype),), bind, tolerance=8,
    )  # fmt: skip
