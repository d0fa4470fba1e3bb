"""Show the backward of pooling: which pixels get the gradient of each window.

It uses the (2, 2, 4, 4) example with which a text checks its pooling, with windows of 2×2 at stride 2. Max pooling
records the position of each window's largest pixel, which gets the whole gradient in backward; average pooling divides
it evenly.

    python -m examples.pooling_backward
"""

from __future__ import annotations

import click
import numpy as np

from backend import asarray, asnumpy
from backend.types import Array
from kernels.max_pooling import max_pool, max_pool_backward
from layers import AveragePooling, Layer, Pooling
from training.cli.common import choose_compute, device_option

X = np.array(
    [
        [
            [[0.79, 0.36, 0.41, 0.16], [0.94, 0.56, 0.26, 0.89], [0.82, 0.5, 0.81, 0.47], [0.95, 0.99, 0.38, 0.94]],
            [[0.46, 0.74, 0.32, 0.22], [0.18, 0.05, 0.98, 0.39], [0.81, 0.9, 0.5, 0.57], [0.16, 0.18, 0.73, 0.06]],
        ],
        [
            [[0.51, 0.48, 0.8, 0.57], [0.64, 0.05, 0.64, 0.28], [0.01, 0.65, 0.03, 0.21], [0.24, 0.3, 0.72, 0.89]],
            [[0.14, 0.43, 0.98, 0.6], [0.79, 0.42, 0.42, 0.39], [0.04, 0.29, 0.55, 0.32], [0.38, 0.26, 0.39, 0.97]],
        ],
    ],
    "float32",
)
DOUT = np.array(
    [
        [[[0.41, 0.71], [0.28, 0.74]], [[0.39, 0.43], [0.58, 0.25]]],
        [[[0.07, 0.55], [0.4, 0.15]], [[0.42, 0.83], [0.59, 0.38]]],
    ],
    "float32",
)
TEXT_DX = np.array(
    [
        [
            [[0, 0, 0, 0], [0.41, 0, 0, 0.71], [0, 0, 0, 0], [0, 0.28, 0, 0.74]],
            [[0, 0.39, 0, 0], [0, 0, 0.43, 0], [0, 0.58, 0, 0], [0, 0, 0.25, 0]],
        ],
        [
            [[0, 0, 0.55, 0], [0.07, 0, 0, 0], [0, 0.4, 0, 0], [0, 0, 0, 0.15]],
            [[0, 0, 0.83, 0], [0.42, 0, 0, 0], [0, 0, 0, 0], [0.59, 0, 0, 0.38]],
        ],
    ],
    "float32",
)


def max_pooling(x: Array, dout: Array) -> tuple[Array, Array, Array]:
    """Run max pooling of 2×2 at stride 2, forward and backward, with the recorded argmax.

    Args:
        x: (N, C, H, W).
        dout: (N, C, H/2, W/2), of the dtype of ``x``.

    Returns:
        y and argmax (N, C, H/2, W/2), the index row·W + column of each maximum in its plane; and dx, as ``x``.
    """
    window = Pooling(2, 2, stride=2).window
    y, argmax = max_pool(x, window)
    return y, argmax, max_pool_backward(dout, argmax, x.shape, window)


def by_layer(layer: Layer, x: Array, dout: Array) -> tuple[Array, Array]:
    """Return the output and the input gradient of a layer."""
    return layer.forward(x), layer.backward(dout)


def side_by_side(*planes: np.ndarray) -> str:
    """Return planes (H, W) of numbers or words next to each other as text, row by row."""
    columns = []
    for plane in planes:
        rows = [" ".join(str(v) if plane.dtype.kind == "U" else f"{v:.2f}" for v in row) for row in plane]
        width = max(map(len, rows))
        columns.append([f"{row:<{width}}" for row in rows] + [" " * width] * (len(planes[0]) - len(rows)))
    return "\n".join(("  " + "   ".join(cells)).rstrip() for cells in zip(*columns, strict=True))


@click.command()
@device_option
def main(device: str) -> None:
    """Show both poolings' gradients plane by plane, and compare them with the text's."""
    choose_compute(device, None)
    x, dout = asarray(X), asarray(DOUT)
    y, argmax, dx = (asnumpy(array) for array in max_pooling(x, dout))
    layer_y, layer_dx = (asnumpy(array) for array in by_layer(Pooling(2, 2, stride=2), x, dout))
    mean_dx = asnumpy(by_layer(AveragePooling(2, 2, stride=2), x, dout)[1])
    places = np.vectorize(lambda index: f"({index // X.shape[3]},{index % X.shape[3]})")(argmax)
    for n, c in np.ndindex(X.shape[:2]):
        click.echo(f"image {n}, channel {c}: x; largest; at (row,column); dout; dx")
        click.echo(side_by_side(*(array[n, c] for array in (X, y, places, DOUT, dx))))
    click.echo(f"max pooling: dx differs from the text's by {np.abs(dx - TEXT_DX).max():g} at most")
    click.echo(f"layers.Pooling computes the same bits: {np.array_equal(dx, layer_dx) and np.array_equal(y, layer_y)}")
    click.echo("average pooling, image 0, channel 0: dx, to each pixel a quarter of dout; dout")
    quarter = np.vectorize(lambda value: f"{value:.4f}")(mean_dx[0, 0])
    click.echo(side_by_side(quarter, DOUT[0, 0]))


if __name__ == "__main__":
    main()
