"""Compare initial weights by how fast a network learns, from "Deep Learning from Scratch", chapter 6.

Five affine layers with relu (784 - 4 × 100 - 10) take 2,000 steps of SGD with batches of 128: from initial weights of
standard deviation 0.01, from Xavier's √(1/n) and from He's √(2/n). As in the text, with the first the network does not
learn, since the signal vanishes, and with He's it learns fastest.

    python -m examples.weight_init
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
from layers.initializers import Init
from training.cli.common import device_option
from training.models import MultiLayerNet
from training.optim.optimizers import SGD

INITS: dict[str, Init] = {"std 0.01": 0.01, "Xavier": "xavier", "He": "he"}


def losses(train: Data, steps: int = 2000, batch_size: int = 128) -> dict[str, numpy.ndarray]:
    """Return the loss of every step, by initialization."""
    found = {}
    for name, init in INITS.items():
        random.seed(0)
        network = MultiLayerNet(784, [100] * 4, 10, weight_init_std=init)
        found[name] = train_steps(network, SGD(lr=0.01), train, mini_batches(len(train[0]), batch_size, steps))
    return found


@click.command()
@option("--steps", type=count, default=2000)
@out_option("weight_init")
@device_option
def main(steps: int, out: Path, device: str) -> None:
    """Train from three kinds of initial weights and compare the losses."""
    prepare(device, out)
    train, _ = load_digits()
    show_losses(losses(train, steps), out, top=2.5)


if __name__ == "__main__":
    main()
