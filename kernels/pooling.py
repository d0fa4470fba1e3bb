"""Max and average pooling over channels-last memory.

Max pooling: the first maximum of a window wins, the first NaN wins over all (as ``np.argmax``), and padding never
wins: it is not looked at.
"""

from __future__ import annotations

from typing import Any

from backend import array_module, workspace
from kernels.col2im import Tap, window_taps
from kernels.gemm import accumulator
from kernels.im2col import check_images
from kernels.layout import images, storage
from kernels.parts import Part, cut, run
from kernels.window import Window


def max_pool(x: Any, window: Window) -> tuple[Any, Any]:
    """The largest pixel of every window, and where it lies.

    Args:
        x: (N, C, H, W).
        window: kernel, stride, padding, dilation, rounding.

    Returns:
        y (N, C, OH, OW), dtype of ``x``, and argmax (N, C, OH, OW), int32: the winner's index row·W + column in
        its plane. Both have channels-last memory.

    Raises:
        ValueError: ``x`` is not 4-D, or a window holds nothing but padding.

    """
    check_images("max pooling", x)
    taps = _taps(x.shape, window)
    library = array_module(x)
    source = storage(x)
    n, h, w, c = source.shape
    oh, ow = window.output_size((h, w))
    y = workspace.empty((n, oh, ow, c), x.dtype)
    argmax = workspace.empty((n, oh, ow, c), "int32")
    index = library.arange(h * w, dtype="int32").reshape(h, w, 1)

    def pool(part: Part) -> None:
        pixels, best, where = source[part.images], y[part.images], argmax[part.images]
        best.fill(-library.inf)
        for tap in taps:
            out = best[:, tap.out_rows, tap.out_columns]
            library.maximum(out, pixels[:, tap.in_rows, tap.in_columns], out=out)  # NaN passes on
        where.fill(0)
        open_ = library.ones(best.shape, bool)
        for tap in taps:
            pixel, out = pixels[:, tap.in_rows, tap.in_columns], best[:, tap.out_rows, tap.out_columns]
            still = open_[:, tap.out_rows, tap.out_columns]
            # Equal to the maximum, or NaN: then the maximum is NaN too. Only the first such tap counts.
            wins = ((pixel == out) | (pixel != pixel)) & still
            where[:, tap.out_rows, tap.out_columns] += wins * index[tap.in_rows, tap.in_columns]
            still ^= wins

    run(pool, cut(n, 1, oh * ow * c * x.dtype.itemsize, library), x)
    return images(y), images(argmax)


def max_pool_backward(dy: Any, argmax: Any, input_shape: tuple[int, int, int, int], window: Window) -> Any:
    """The gradient of :func:`max_pool`: each window's goes to its winner; windows are added in tap order.

    Args:
        dy: (N, C, OH, OW).
        argmax: as :func:`max_pool` returned it.
        input_shape: (N, C, H, W) of ``x``.

    Returns:
        (N, C, H, W), channels-last memory, dtype of ``dy``.

    Raises:
        ValueError: the shape of ``dy`` is not that of the output.

    """
    taps = _taps(input_shape, window)
    _check_gradient(dy, input_shape, window)
    library = array_module(dy, argmax)
    n, c, h, w = input_shape
    gradient, winners = storage(dy), storage(argmax)
    dx = workspace.empty((n, h, w, c), dy.dtype)
    index = library.arange(h * w, dtype="int32").reshape(h, w, 1)

    def spread(part: Part) -> None:
        out, total = gradient[part.images], dx[part.images]
        total.fill(0)
        for tap in taps:
            won = winners[part.images, tap.out_rows, tap.out_columns] == index[tap.in_rows, tap.in_columns]
            total[:, tap.in_rows, tap.in_columns] += out[:, tap.out_rows, tap.out_columns] * won

    run(spread, cut(n, 1, h * w * c * dy.dtype.itemsize, library), dy)
    return images(dx)


def average_pool(x: Any, window: Window, count_padding: bool = False) -> Any:
    """The mean of every window.

    Args:
        x: (N, C, H, W).
        window: kernel, stride, padding, dilation, rounding.
        count_padding: whether padding counts as zeros in the mean, or only the pixels that exist do. What
            ``rounding="ceil"`` adds beyond the padding never counts.

    Returns:
        (N, C, OH, OW), channels-last memory, dtype of ``x`` (float16 is summed in float32).

    Raises:
        ValueError: ``x`` is not 4-D, or a window holds nothing but padding.

    """
    check_images("average pooling", x)
    taps = _taps(x.shape, window)
    library = array_module(x)
    source, dtype = storage(x), accumulator(x.dtype)
    n, h, w, c = source.shape
    shares = _shares((h, w), window, count_padding, dtype, library)
    y = workspace.empty((n, *window.output_size((h, w)), c), x.dtype)

    def pool(part: Part) -> None:
        pixels = source[part.images]
        total = workspace.zeros(y[part.images].shape, dtype)
        for tap in taps:
            total[:, tap.out_rows, tap.out_columns] += pixels[:, tap.in_rows, tap.in_columns]
        total *= shares
        y[part.images] = total

    run(pool, cut(n, 1, y[:1].size * dtype.itemsize, library), x)
    return images(y)


def average_pool_backward(
    dy: Any, input_shape: tuple[int, int, int, int], window: Window, count_padding: bool = False
) -> Any:
    """The gradient of :func:`average_pool`: each window's is shared evenly by the pixels that count.

    Args:
        dy: (N, C, OH, OW).
        input_shape: (N, C, H, W) of ``x``.

    Returns:
        (N, C, H, W), channels-last memory, dtype of ``dy``.

    Raises:
        ValueError: the shape of ``dy`` is not that of the output.

    """
    taps = _taps(input_shape, window)
    _check_gradient(dy, input_shape, window)
    library = array_module(dy)
    n, c, h, w = input_shape
    gradient, dtype = storage(dy), accumulator(dy.dtype)
    shares = _shares((h, w), window, count_padding, dtype, library)
    dx = workspace.empty((n, h, w, c), dy.dtype)

    def spread(part: Part) -> None:
        out = gradient[part.images] * shares
        total = workspace.zeros(dx[part.images].shape, dtype)
        for tap in taps:
            total[:, tap.in_rows, tap.in_columns] += out[:, tap.out_rows, tap.out_columns]
        dx[part.images] = total

    run(spread, cut(n, 1, h * w * c * dtype.itemsize, library), dy)
    return images(dx)


def _taps(shape: tuple, window: Window) -> list[Tap]:
    """The window's taps, after making sure that every window has a pixel of its own."""
    image, outputs = (shape[2], shape[3]), window.output_size((shape[2], shape[3]))
    taps = list(window_taps(window, image))
    spans = (("row", [tap.out_rows for tap in taps]), ("column", [tap.out_columns for tap in taps]))
    for count, (name, met) in zip(outputs, spans, strict=True):
        seen = {output for span in met for output in range(span.start, span.stop)}
        empty = sorted(set(range(count)) - seen)
        if empty:
            raise ValueError(
                f"pooling with {window} over images of {image[0]}x{image[1]}: the windows of output {name} "
                f"{empty[0]} hold nothing but padding"
            )
    return taps


def _shares(image: tuple[int, int], window: Window, count_padding: bool, dtype: Any, library: Any) -> Any:
    """1 / (pixels that count) for each window: (OH, OW, 1)."""
    counts = []
    top, bottom, left, right = window.pads(image)
    before, after = (top, left), (bottom, right)
    for axis, outputs in enumerate(window.output_size(image)):
        begin, end = (-before[axis], image[axis] + after[axis]) if count_padding else (0, image[axis])
        firsts = [o * window.stride[axis] - before[axis] for o in range(outputs)]
        offsets = [tap * window.dilation[axis] for tap in range(window.kernel[axis])]
        counts.append([sum(begin <= first + offset < end for offset in offsets) for first in firsts])
    rows, columns = (library.asarray(count, dtype) for count in counts)
    return 1 / (rows[:, None, None] * columns[None, :, None])


def _check_gradient(dy: Any, input_shape: tuple, window: Window) -> None:
    expected = (*input_shape[:2], *window.output_size(input_shape[2:]))
    if dy.shape != expected:
        raise ValueError(f"the gradient has shape {dy.shape}, the output {expected}")
