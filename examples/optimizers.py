"""Compare four optimizers on MNIST, from "Deep Learning from Scratch", chapter 6: SGD, Momentum, AdaGrad and Adam.

A network of five affine layers (784 - 4 × 100 - 10, relu, He's initial weights) takes 2,000 steps with batches of 128
and each optimizer's own learning rate; all four start at the same weights and get the same batches. As in the text the
three others learn faster than SGD.

    python -m examples.optimizers
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy

from backend import random
from examples.common import (
    Data,
    count,
    load_digits,
    mini_batches,
    option,
    out_option,
    prepare,
    show_losses,
    train_steps,
)
from training.cli.common import device_option
from training.models import MultiLayerNet
from training.optim.optimizers import SGD, AdaGrad, Adam, Momentum

OPTIMIZERS = {
    "SGD": lambda: SGD(lr=0.01),
    "Momentum": lambda: Momentum(lr=0.01),
    "AdaGrad": lambda: AdaGrad(lr=0.01),
    "Adam": lambda: Adam(lr=0.001),
}


def losses(train: Data, steps: int = 2000, batch_size: int = 128) -> dict[str, numpy.ndarray]:
    """Return the loss of every step, by optimizer."""
    found = {}
    for name, make in OPTIMIZERS.items():
        random.seed(0)
        network = MultiLayerNet(784, [100] * 4, 10)
        found[name] = train_steps(network, make(), train, mini_batches(len(train[0]), batch_size, steps))
    return found


@click.command()
@option("--steps", type=count, default=2000)
@out_option("optimizers")
@device_option
def main(steps: int, out: Path, device: str) -> None:
    """Train with four optimizers and compare their losses."""
    prepare(device, out)
    train, _ = load_digits()
    show_losses(losses(train, steps), out, top=1.0)


if __name__ == "__main__":
    main()
