"""Search hyper-parameters at random, from "Deep Learning from Scratch", chapter 6.

Learning rate and weight decay are drawn log-uniformly, 10⁻⁶ … 10⁻² and 10⁻⁸ … 10⁻⁴; with each pair seven affine layers
(784 - 6 × 100 - 10, relu) learn 400 digits by SGD for 50 epochs, and the accuracy on 100 others ranks the trials. As in
the text, learning rates from 0.001 to 0.01 are the best.

    python -m examples.hyperparameters
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy

from backend import asnumpy, random
from examples.common import Data, count, load_digits, option, out_option, prepare, save_plot, tidy, train_epochs
from training.cli.common import device_option
from training.loop.figures import TEST_COLOUR, TRAIN_COLOUR, blank
from training.models import MultiLayerNet
from training.optim.optimizers import SGD

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 20
"""Number of trials in the plot, the best ones."""


@dataclass(frozen=True)
class Trial:
    """A pair of hyper-parameters and the accuracies (1 + epochs, 2) on training and validation data."""

    lr: float
    weight_decay: float
    accuracies: numpy.ndarray

    @property
    def score(self) -> float:
        """The validation accuracy at the end."""
        return float(self.accuracies[-1, 1])


def split(data: Data, validation_rate: float = 0.2) -> tuple[Data, Data]:
    """Return training and validation data, after a shuffle."""
    x, t = data
    order = random.permutation(len(x))
    validation = round(len(x) * validation_rate)
    return (x[order[validation:]], t[order[validation:]]), (x[order[:validation]], t[order[:validation]])


def log_uniform(generator: random.Generator, low: float, high: float) -> float:
    """Return a number between 10^low and 10^high whose logarithm is uniform."""
    return float(10 ** (low + (high - low) * asnumpy(generator.uniform(dtype="float64"))))


def search(data: Data, trials: int = 60, epochs: int = 50) -> list[Trial]:
    """Return all trials, the best first."""
    random.seed(0)
    train, validation = split(data)
    generator = random.Generator(0, stream=1)  # not the generator that every trial seeds again
    found = []
    for _ in range(trials):
        lr, weight_decay = log_uniform(generator, -6, -2), log_uniform(generator, -8, -4)
        random.seed(0)
        network = MultiLayerNet(784, [100] * 6, 10)
        rows = train_epochs(network, SGD(lr, weight_decay=weight_decay), train, [train, validation], epochs)
        found.append(Trial(lr, weight_decay, numpy.array(list(rows))))
    return sorted(found, key=lambda trial: -trial.score)


def plot(trials: list[Trial]) -> Figure:
    """Return a figure with the curves of the best trials, one plot for each."""
    best = trials[:SHOWN]
    columns = 5
    figure = blank(13, 2.4 * -(-len(best) // columns) + 0.4)
    panels = figure.subplots(-(-len(best) // columns), columns, sharex=True, sharey=True, squeeze=False)
    for number, (axes, trial) in enumerate(zip(panels.ravel(), best, strict=False), 1):
        axes.plot(100 * trial.accuracies[:, 0], "--", color=TRAIN_COLOUR, label="training")
        axes.plot(100 * trial.accuracies[:, 1], color=TEST_COLOUR, label="validation")
        axes.set_title(f"{number}: lr {trial.lr:.2g}, decay {trial.weight_decay:.1g}", fontsize=9)
        axes.set_ylim(0, 102)
        tidy(axes, "epoch", "accuracy in %")
        axes.label_outer()
    for axes in panels.ravel()[len(best) :]:
        axes.set_visible(False)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return figure


@click.command()
@option("--trials", type=count, default=60)
@option("--epochs", type=count, default=50)
@out_option("hyperparameters")
@device_option
def main(trials: int, epochs: int, out: Path, device: str) -> None:
    """Search learning rate and weight decay at random."""
    prepare(device, out)
    (x, t), _ = load_digits()
    found = search((x[:500], t[:500]), trials, epochs)
    click.echo(f"the best of {trials}   validation   learning rate   weight decay")
    for number, trial in enumerate(found[:SHOWN], 1):
        click.echo(f"{number:>15}{trial.score:13.2f}{trial.lr:16.2e}{trial.weight_decay:15.2e}")
    save_plot(plot(found), out)


if __name__ == "__main__":
    main()
