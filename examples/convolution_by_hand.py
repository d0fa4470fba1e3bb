"""Work a convolution by hand: as one matrix product, first with all its numbers, then at full size.

A 3×3 input under a 2×2 filter, step by step, forward and backward: the numbers of *Dive into Deep Learning*, figure
7.2.1, which prints the four windows' sums. Then the first layer of a well-known network, as lecture notes on
convolutional networks work it: 96 filters of 11×11×3 over an image of 227×227×3 at stride 4, whose windows as
columns form a 363×3025 matrix. As in the notes each window is a column; in ``layers.im2col`` it is a row.

    python -m examples.convolution_by_hand
"""

from __future__ import annotations

import click
import numpy as np

from backend import asarray, asnumpy, random, xp
from backend.types import Array
from layers import Convolution, col2im, im2col
from training.cli.common import choose_compute, device_option

INPUT = np.arange(9, dtype="float32").reshape(3, 3)
FILTER = np.arange(4, dtype="float32").reshape(2, 2)
TEXT_OUTPUT = ((19, 25), (37, 43))
TEXT_LARGE = {
    "columns": (363, 3025),
    "filters as rows": (96, 363),
    "their product": (96, 3025),
    "output": (55, 55, 96),
}


def walk_through() -> str:
    """Return every step of a small convolution, forward and backward, as text."""
    x, w = asarray(INPUT)[None, None], asarray(FILTER)[None, None]
    columns = im2col(x, 2, 2).T
    product = w.reshape(1, 4) @ columns
    dout = xp.ones((1, 1, 2, 2), "float32")
    dw = dout.reshape(1, 4) @ columns.T
    dcolumns = w.reshape(1, 4).T @ dout.reshape(1, 4)
    dx = col2im(dcolumns.T, x.shape, 2, 2)
    return "\n".join(
        [
            "input x, 3x3:",
            _lines(INPUT),
            "filter w, 2x2:",
            _lines(FILTER),
            "output: (3 - 2) / 1 + 1 = 2 rows and columns, of one window each:",
            *(_window(row, column) for row, column in np.ndindex(2, 2)),
            "the windows as columns (im2col), 4x4:",
            _lines(columns),
            "the filter as a row, times the columns:",
            _lines(product),
            "the output, 2x2:",
            _lines(product.reshape(2, 2)),
            "backward, from a gradient of ones; dw is its row times the turned columns, 2x2:",
            _lines(dw.reshape(2, 2)),
            "the gradient of the columns is the filter as a column times that row, 4x4:",
            _lines(dcolumns),
            "added up where windows overlap (col2im) it is dx, 3x3:",
            _lines(dx[0, 0]),
        ]
    )


def by_layer() -> tuple[Array, Array, Array]:
    """Return output, dw and dx of ``layers.Convolution`` for the small example, as matrices on the host."""
    layer = Convolution(asarray(FILTER)[None, None], xp.zeros(1, "float32"))
    y = layer.forward(asarray(INPUT)[None, None])
    dx = layer.backward(xp.ones_like(y))
    return asnumpy(y)[0, 0], asnumpy(layer.dW)[0, 0], asnumpy(dx)[0, 0]


def large() -> tuple[dict[str, tuple[int, ...]], float]:
    """Convolve random numbers of 227×227×3 with 96 filters of 11×11×3, stride 4, no padding.

    Returns:
        The shape of each step's result, and the largest difference from the output of ``layers.Convolution``, as a
        share of the largest output.
    """
    x, w = random.normal((1, 3, 227, 227)), random.normal((96, 3, 11, 11))
    columns = im2col(x, 11, 11, stride=4).T
    rows = w.reshape(96, -1)
    product = rows @ columns
    output = product.reshape(96, 55, 55).transpose(1, 2, 0)
    layer = Convolution(w, xp.zeros(96, "float32"), stride=4).forward(x)
    error = float(abs(layer[0].transpose(1, 2, 0) - output).max() / abs(output).max())
    found = {"columns": columns, "filters as rows": rows, "their product": product, "output": output}
    return {name: array.shape for name, array in found.items()}, error


def _window(row: int, column: int) -> str:
    pixels = INPUT[row : row + 2, column : column + 2]
    terms = " + ".join(f"{x:g}*{w:g}" for x, w in zip(pixels.flat, FILTER.flat, strict=True))
    return f"  window ({row}, {column}): {terms} = {(pixels * FILTER).sum():g}   text {TEXT_OUTPUT[row][column]}"


def _lines(matrix: Array) -> str:
    return "\n".join("  " + " ".join(f"{value:3g}" for value in row) for row in asnumpy(matrix))


@click.command()
@device_option
def main(device: str) -> None:
    """Work a small convolution step by step, and show the shapes of a large one."""
    choose_compute(device, None)
    click.echo(walk_through())
    shapes, error = large()
    click.echo(f"\n227x227x3 with 96 filters 11x11x3, stride 4:\n  {'':16}{'ours':>14}{'text':>14}")
    for name, shape in shapes.items():
        ours, text = ("x".join(map(str, sizes)) for sizes in (shape, TEXT_LARGE[name]))
        click.echo(f"  {name:16}{ours:>14}{text:>14}")
    click.echo(f"  layers.Convolution differs by {error:.1e} of the largest output")


if __name__ == "__main__":
    main()
