"""Overfit, and use weight decay and dropout against it, from "Deep Learning from Scratch", chapter 6.

Seven affine layers (784 - 6 × 100 - 10, relu) learn 300 digits by SGD for 300 epochs: unchanged, with a weight decay
of 0.1, and with a dropout of 0.2 after each relu. As in the text both reduce the gap between training and test
accuracy. (The text's decay excludes biases; that of ``training.optim`` applies to all parameters.)

    python -m examples.overfitting
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy

from backend import random
from examples.common import Data, count, load_digits, option, out_option, prepare, save_plot, tidy, train_epochs
from layers import Affine, Dropout, Layer, Relu, Sequential
from training.cli.common import device_option
from training.loop.figures import TEST_COLOUR, TRAIN_COLOUR, blank
from training.models import Network
from training.optim.optimizers import SGD

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CASES = {"as it is": (0.0, 0.0), "weight decay 0.1": (0.1, 0.0), "dropout 0.2": (0.0, 0.2)}
"""The cases: (weight decay, dropout ratio) by name."""


def build(dropout_ratio: float) -> Network:
    """Return a network 784 - 6 × 100 - 10 with He's initial weights; without dropout if the ratio is 0."""
    layers: list[Layer] = []
    for inputs in (784, 100, 100, 100, 100, 100):
        layers += [Affine.of(inputs, 100, "he"), Relu()]
        layers += [Dropout(dropout_ratio)] if dropout_ratio else []
    layers += [Affine.of(100, 10, "he")]
    return Network(Sequential(*layers), (784,))


def accuracies(train: Data, test: Data, epochs: int = 300) -> dict[str, numpy.ndarray]:
    """Return the [training, test] accuracy at the start and after each epoch, (1 + epochs, 2), by case."""
    found = {}
    for name, (weight_decay, dropout_ratio) in CASES.items():
        random.seed(0)
        optimizer = SGD(lr=0.01, weight_decay=weight_decay)
        found[name] = numpy.array(list(train_epochs(build(dropout_ratio), optimizer, train, [train, test], epochs)))
    return found


def plot(found: dict[str, numpy.ndarray]) -> Figure:
    """Return a figure of training and test accuracy over the epochs, with a panel for each case."""
    figure = blank(4 * len(found), 4)
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, (name, rows) in zip(panels, found.items(), strict=True):
        axes.plot(100 * rows[:, 0], color=TRAIN_COLOUR, label="training")
        axes.plot(100 * rows[:, 1], color=TEST_COLOUR, label="test")
        gap = 100 * (rows[-1, 0] - rows[-1, 1])
        axes.set_title(f"{name}: {gap:.1f} points apart at the end", fontsize=10)
        axes.set_ylim(0, 102)
        tidy(axes, "epoch", "accuracy in %")
        axes.label_outer()
    panels[0].legend(loc="lower right", frameon=False)
    return figure


@click.command()
@option("--images", type=click.IntRange(100, 8000), default=300, help="Training images.")
@option("--epochs", type=count, default=300)
@out_option("overfitting")
@device_option
def main(images: int, epochs: int, out: Path, device: str) -> None:
    """Overfit on few images: as it is, with weight decay, with dropout."""
    prepare(device, out)
    (x, t), test = load_digits()
    found = accuracies((x[:images], t[:images]), test, epochs)
    click.echo(f"after {epochs} epochs   training      test       gap")
    for name, rows in found.items():
        training, tested = rows[-1]
        click.echo(f"{name:<18}{training:10.3f}{tested:10.3f}{training - tested:10.3f}")
    save_plot(plot(found), out)


if __name__ == "__main__":
    main()
