"""Train a two-layer network on MNIST, from "Deep Learning from Scratch", chapters 4 and 5: 784 - 50 - 10, relu.

First the gradient by backpropagation is compared with the numerical one on three images. Then SGD with batches of 100
and a learning rate of 0.1 trains for 17 epochs on the 60,000 images. The accuracies at the start and after each epoch
are printed next to the text's: its 10,000 steps end within epoch 17, for whose end it has none.

    python -m examples.two_layer_net --data-dir DIR
    python -m examples.two_layer_net --sampling permutation     # every image once an epoch
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from backend import random
from examples.common import Data, both_gradients, count, load_digits, option, prepare, train_epochs
from training.cli.common import data_dir_option, device_option
from training.models import TwoLayerNet
from training.optim.optimizers import SGD

TEXT = (
    (0.1022, 0.1010),
    (0.8995, 0.9024),
    (0.9169, 0.9193),
    (0.9315, 0.9317),
    (0.9431, 0.9423),
    (0.9494, 0.9483),
    (0.9548, 0.9526),
    (0.9569, 0.9552),
    (0.9597, 0.9562),
    (0.9644, 0.9600),
    (0.9676, 0.9616),
    (0.9701, 0.9633),
    (0.9707, 0.9648),
    (0.9724, 0.9654),
    (0.9749, 0.9670),
    (0.9757, 0.9660),
    (0.9764, 0.9677),
)
"""The text's accuracies (training, test) on the full MNIST: at the start, then epoch by epoch."""


def differences(train: Data, hidden_size: int = 50) -> dict[str, float]:
    """Return the mean difference of the two gradients on three images, in float64, by parameter."""
    x, t = train
    random.seed(0)
    network = TwoLayerNet(784, hidden_size, 10, weight_init_std=0.01, dtype="float64")
    gradients = both_gradients(network, x[:3].astype("float64"), t[:3])
    return {name: float(abs(backward - numerical).mean()) for name, (backward, numerical) in gradients.items()}


def accuracies(train: Data, test: Data, epochs: int = 17, replace: bool = True) -> Iterator[list[float]]:
    """Train; yield [training accuracy, test accuracy] at the start and after each epoch."""
    random.seed(0)
    network = TwoLayerNet(784, 50, 10, weight_init_std=0.01)
    return train_epochs(network, SGD(lr=0.1), train, (train, test), epochs, batch_size=100, replace=replace)


@click.command()
@option("--dataset", type=click.Choice(["mnist", "mnist10k"]), default="mnist", help="The text's table is of mnist.")
@data_dir_option
@option("--epochs", type=count, default=17)
@option(
    "--sampling",
    type=click.Choice(["replacement", "permutation"]),
    default="replacement",
    help="Each batch drawn anew from all images, or every image once an epoch.",
)
@device_option
def main(dataset: str, data_dir: Path | None, epochs: int, sampling: str, device: str) -> None:
    """Check the gradient of a two-layer network, train it, and print its accuracies next to the text's."""
    prepare(device)
    train, test = load_digits(dataset, data_dir)
    click.echo("mean |backpropagated - numerical gradient|")
    for name, difference in differences(train).items():
        click.echo(f"  {name}: {difference:.1e}")
    text = TEXT if dataset == "mnist" else ()
    click.echo("epoch   training    test" + "     text: training    test" * bool(text))
    for epoch, row in enumerate(accuracies(train, test, epochs, sampling == "replacement")):
        beside = "           {:8.4f}{:8.4f}".format(*text[epoch]) if epoch < len(text) else ""
        click.echo("{:5}   {:8.4f}{:8.4f}".format(epoch, *row) + beside)


if __name__ == "__main__":
    main()
