"""Train with and without batch normalization, from "Deep Learning from Scratch", chapter 6.

Six affine layers with relu learn 1,000 digits by SGD for 20 epochs, with and without a batch normalization before each
relu, from initial weights of 16 standard deviations between 1 and 0.0001. As in the text, the network with
normalization learns faster at nearly every scale, and at most scales only that network learns at all.

    python -m examples.batch_norm
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy

from backend import random
from examples.common import Data, count, load_digits, option, out_option, prepare, save_plot, tidy, train_epochs
from layers import Affine, BatchNormalization, Layer, Relu, Sequential
from training.cli.common import device_option
from training.loop.figures import TEST_COLOUR, TRAIN_COLOUR, blank
from training.models import Network
from training.optim.optimizers import SGD

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCALES = tuple(float(scale) for scale in numpy.logspace(0, -4, 16))


def build(scale: float, normalized: bool) -> Network:
    """Return a network 784 - 5 × 100 - 10 with initial weights of standard deviation ``scale``."""
    layers: list[Layer] = []
    for inputs in (784, 100, 100, 100, 100):
        layers += [Affine.of(inputs, 100, scale)]
        layers += [BatchNormalization.of(100)] if normalized else []
        layers += [Relu()]
    layers += [Affine.of(100, 10, scale)]
    return Network(Sequential(*layers), (784,))


Curves = dict[float, tuple[list[float], list[float]]]


def accuracies(train: Data, scales: Iterable[float] = SCALES, epochs: int = 20) -> Curves:
    """Return the training accuracies with and without normalization, by scale: at the start, then after each epoch."""
    found = {}
    for scale in scales:
        curves = []
        for normalized in (True, False):
            random.seed(0)
            network = build(scale, normalized)
            with numpy.errstate(all="ignore"):  # large weights without normalization diverge, as the example shows
                rows = list(train_epochs(network, SGD(lr=0.01), train, [train], epochs))
            curves.append([accuracy for (accuracy,) in rows])
        found[scale] = (curves[0], curves[1])
    return found


def plot(found: Curves) -> Figure:
    """Return a small plot for each scale."""
    figure = blank(11, 9)
    columns = 4
    panels = figure.subplots(-(-len(found) // columns), columns, sharex=True, sharey=True, squeeze=False)
    for axes, (scale, (with_it, without)) in zip(panels.ravel(), found.items(), strict=False):
        axes.plot([100 * each for each in with_it], color=TEST_COLOUR, label="batch normalization")
        axes.plot([100 * each for each in without], "--", color=TRAIN_COLOUR, label="without")
        axes.set_title(f"std {scale:.2g}", fontsize=10)
        axes.set_ylim(0, 102)
        tidy(axes, "epoch", "training accuracy in %")
        axes.label_outer()
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return figure


@click.command()
@option("--images", type=click.IntRange(100, 8000), default=1000, help="Training images.")
@option("--epochs", type=count, default=20)
@out_option("batch_norm")
@device_option
def main(images: int, epochs: int, out: Path, device: str) -> None:
    """Train with and without batch normalization from initial weights of 16 scales."""
    prepare(device, out)
    (x, t), _ = load_digits()
    found = accuracies((x[:images], t[:images]), epochs=epochs)
    click.echo(f"training accuracy after {epochs} epochs\nstd       normalized   without")
    for scale, (with_it, without) in found.items():
        click.echo(f"{scale:<10.2g}{with_it[-1]:10.3f}{without[-1]:10.3f}")
    save_plot(plot(found), out)


if __name__ == "__main__":
    main()
