"""Convolution and pooling of images (N, H, W, C), in the style of NumPy model zoos: ``Conv2D`` and ``Pool2D``.

It shows padding by name, several inputs at once, backward without parameter gradients, and a layer rebuilt from the
dictionary of its hyper-parameters.

    python -m examples.channels_last
"""

from __future__ import annotations

import json
from typing import Any

import click
import numpy as np

from backend import asarray, asnumpy, random, xp
from layers.compat.nhwc import Conv2D, Pool2D
from training.cli.common import choose_compute, device_option

PADS: tuple[Any, ...] = ("valid", "same", 1, (0, 1), (0, 1, 2, 0))
ROW = (1.0, 4.0, 4.0, 2.0)
"""One row of pixels, with a tie."""


def output_sizes(image: tuple[int, int] = (8, 7)) -> list[tuple[Any, tuple[int, ...], tuple[int, ...]]]:
    """Return the output for each padding of 3x3 windows at stride 2: (pad, its four sides, output (OH, OW, FN))."""
    rows: list[tuple[Any, tuple[int, ...], tuple[int, ...]]] = []
    for pad in PADS:
        layer = Conv2D(in_ch=3, out_ch=4, kernel_shape=(3, 3), stride=2, pad=pad)
        rows.append((pad, layer.window.over(image).pads, layer.output_shape((*image, 3))))
    return rows


def poolings() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pool ``ROW`` with 1x2 windows at stride 1, "same"; return the outputs and the gradient of their sum by mode.

    There is one zero of padding, after the last pixel. The tie's gradient goes to the first of the two pixels.
    """
    x = asarray(np.array(ROW, "float32")).reshape(1, 1, 4, 1)
    found = {}
    for name, options in (
        ("max", {"mode": "max"}),
        ("average", {"mode": "average"}),
        ("average, padding counted", {"mode": "average", "count_padding": True}),
    ):
        layer = Pool2D(kernel_shape=(1, 2), stride=1, pad="same", **options)
        y = layer.forward(x)
        found[name] = asnumpy(y).ravel(), asnumpy(layer.backward(xp.ones_like(y))).ravel()
    return found


def several_inputs() -> tuple[list[tuple[int, ...]], float]:
    """Pass a list of batches of different sizes through one layer.

    Returns:
        The outputs' shapes, and the relative error of the parameters' gradients compared with the sum over the batches.
    """
    random.seed(0)
    layer = Conv2D(in_ch=3, out_ch=4, kernel_shape=(3, 2), pad="same", dtype="float64")
    xs = [random.normal(shape, dtype="float64") for shape in ((2, 8, 7, 3), (1, 5, 9, 3))]
    douts = [random.normal((*x.shape[:3], 4), dtype="float64") for x in xs]
    total: Any = 0
    for x, dout in zip(xs, douts, strict=True):
        layer.forward(x)
        layer.backward(dout)
        total = total + layer.dW
    ys = layer.forward(xs)
    layer.backward(douts)
    return [y.shape for y in ys], float(abs(layer.dW - total).max() / abs(total).max())


def without_gradients() -> list[str]:
    """Return the names of the gradients after a backward that does not retain them, and after one that does."""
    layer = Conv2D(in_ch=1, out_ch=2, kernel_shape=(3, 3))
    y = layer.forward(xp.ones((1, 5, 5, 1), "float32"))
    seen = []
    for retain_grads in (False, True):
        layer.backward(y, retain_grads=retain_grads)
        seen.append(", ".join(layer.grads) or "none")
    return seen


def rebuilt() -> tuple[str, float]:
    """Return a layer's hyper-parameters as JSON, and the largest difference between its output and that of a layer
    rebuilt from it with the same weights."""
    random.seed(0)
    layer = Conv2D(in_ch=3, out_ch=4, kernel_shape=(3, 3), stride=2, pad="same", init="xavier")
    text = json.dumps(layer.hyperparameters)
    twin = Conv2D.from_hyperparameters(json.loads(text))
    twin.W, twin.b = layer.W.copy(), layer.b.copy()
    x = random.normal((2, 8, 7, 3))
    return text, float(abs(twin.forward(x) - layer.forward(x)).max())


@click.command()
@device_option
def main(device: str) -> None:
    """Show layers over images (N, H, W, C)."""
    choose_compute(device, None)
    click.echo("8x7x3 under 3x3 windows at stride 2")
    for pad, sides, shape in output_sizes():
        click.echo(f"  pad {pad!s:13} top, bottom, left, right {sides}   output {shape}")
    click.echo(f'\n1x2 windows at stride 1, pad "same", over {ROW}')
    for name, (y, dx) in poolings().items():
        click.echo(f"  {name:25} {_shown(y)}   gradient of the sum {_shown(dx)}")
    shapes, error = several_inputs()
    click.echo(f"\na list of inputs: outputs {', '.join(map(str, shapes))}")
    click.echo(f"  dW is the sum over the list, within {error:.0e} of it")
    click.echo("retain_grads=False: {}; True: {}".format(*without_gradients()))
    text, difference = rebuilt()
    click.echo(f"\n{text}\n  rebuilt from this, with the same weights: outputs differ by {difference:g}")


def _shown(values: np.ndarray) -> str:
    return " ".join(f"{value:g}" for value in values)


if __name__ == "__main__":
    main()
