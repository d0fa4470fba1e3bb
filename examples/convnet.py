"""Train convolutional networks on MNIST and show their first filters, from "Deep Learning from Scratch", 7 and 8.

A SimpleConvNet (30 filters of 5×5, hidden layer of 100), or with ``--model DeepConvNet`` the text's deep one of six
convolutions, is trained with Adam, a learning rate of 0.001 and batches of 100. The plot shows the first layer's
filters before and after: of SimpleConvNet's, noise turns into edges and blobs. By default it learns from the 10,000
digits of the package.

    python -m examples.convnet
    python -m examples.convnet --model DeepConvNet
    python -m examples.convnet --dataset mnist --data-dir DIR --epochs 20     # the text's own training
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy

from backend import asnumpy, random
from examples.common import Data, count, load_digits, option, out_option, prepare, save_plot, tidy, train_epochs
from training.cli.common import data_dir_option, device_option
from training.loop.figures import TEST_COLOUR, TRAIN_COLOUR, blank, filter_images, mosaic
from training.models import DeepConvNet, Network, SimpleConvNet
from training.optim.optimizers import Adam

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODELS: dict[str, Callable[[], Network]] = {"SimpleConvNet": SimpleConvNet, "DeepConvNet": DeepConvNet}
EPOCHS = {"SimpleConvNet": 10, "DeepConvNet": 3}
MEASURED = 1000
"""Number of training images for the accuracy of an epoch, as in the text."""


def train(network: Network, data: Data, test: Data, epochs: int, batch_size: int = 100) -> Iterator[list[float]]:
    """Train; yield [training, test] accuracy at the start and after each epoch."""
    x, t = data
    measured = [(x[:MEASURED], t[:MEASURED]), test]
    return train_epochs(network, Adam(lr=0.001), data, measured, epochs, batch_size)


def plot(before: numpy.ndarray, after: numpy.ndarray, rows: list[list[float]]) -> Figure:
    """Return a figure of the filters (FN, C, FH, FW) before and after, each scaled by itself, and the accuracies over
    the epochs."""
    figure = blank(13, 4.2)
    *pictures, curves = figure.subplots(1, 3)
    for axes, weights, name in zip(pictures, (before, after), ("before training", "after training"), strict=True):
        tiles = filter_images(weights, ())
        zoom = 24 // tiles.shape[1]
        sheet = mosaic(tiles.repeat(zoom, axis=1).repeat(zoom, axis=2), columns=6 if len(tiles) > 16 else 4)
        limit = float(abs(tiles).max())
        picture = axes.imshow(sheet, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        axes.set_title(f"first filters {name}", fontsize=10)
        axes.set_axis_off()
        figure.colorbar(picture, ax=axes, fraction=0.045, pad=0.02, label="weight").outline.set_visible(False)
    training, test = 100 * numpy.array(rows).T
    curves.plot(training, "o--", color=TRAIN_COLOUR, markersize=4, label=f"{MEASURED:,} training images")
    curves.plot(test, "o-", color=TEST_COLOUR, markersize=4, label="test images")
    curves.set_ylim(min(80, training[1:].min() - 2, test[1:].min() - 2), 100.5)  # the start, near 10, is below
    curves.xaxis.get_major_locator().set_params(integer=True)
    curves.set_title(f"at the end {test[-1]:.2f} % of the test images right", fontsize=10)
    tidy(curves, "epoch", "accuracy in %")
    curves.legend(loc="lower right", frameon=False)
    return figure


@click.command()
@option("--model", type=click.Choice(list(MODELS)), default="SimpleConvNet")
@option("--dataset", type=click.Choice(["mnist10k", "mnist"]), default="mnist10k")
@data_dir_option
@click.option("--epochs", type=count, help="[default: 10, or 3 for DeepConvNet]")
@out_option("convnet")
@device_option
def main(model: str, dataset: str, data_dir: Path | None, epochs: int | None, out: Path, device: str) -> None:
    """Train a convolutional network and draw its first filters before and after."""
    prepare(device, out)
    data, test = load_digits(dataset, data_dir, flatten=False)
    random.seed(0)
    network = MODELS[model]()
    before = asnumpy(network.params["W1"]).copy()
    click.echo("epoch   training    test")
    rows: list[list[float]] = []
    for row in train(network, data, test, epochs or EPOCHS[model]):
        click.echo("{:5}   {:8.4f}{:8.4f}".format(len(rows), *row))
        rows.append(row)
    save_plot(plot(before, asnumpy(network.params["W1"]), rows), out)


if __name__ == "__main__":
    main()
