"""Run inference in half precision, from "Deep Learning from Scratch", chapter 8.

A DeepConvNet classifies the test images in float32 and again with weights, images and activations in float16. As in
the text the accuracy does not change. The plot shows why: rounding changes an image's scores by far less than the gap
between its two highest ones. Without ``--weights`` a network is trained first, for 100 steps.

    python -m examples.half_precision
    python -m examples.half_precision --weights deep_convnet.npz --dataset mnist --data-dir DIR
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy

from backend import asnumpy, random
from backend.types import Array
from examples.common import Data, load_digits, mini_batches, option, out_option, prepare, save_plot, tidy, train_steps
from training.cli.common import data_dir_option, device_option, user_errors
from training.loop.figures import TEST_COLOUR, WRONG_COLOUR, blank
from training.models import DeepConvNet, Network
from training.optim.optimizers import Adam

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Inference:
    """The scores (N, classes) of a network in some precision, as float32, and the number of bytes of its parameters."""

    scores: numpy.ndarray
    parameter_bytes: int

    def accuracy(self, labels: Array) -> float:
        """Return the share of samples whose highest score is their label's."""
        return float((self.scores.argmax(axis=1) == asnumpy(labels)).mean())


def train(data: Data, steps: int, batch_size: int = 100) -> Network:
    """Return a DeepConvNet after ``steps`` steps of Adam."""
    random.seed(0)
    network = DeepConvNet()
    train_steps(network, Adam(lr=0.001), data, mini_batches(len(data[0]), batch_size, steps))
    return network


def infer(network: Network, x: Array, dtype: str, batch_size: int = 500) -> Inference:
    """Convert the network to ``dtype`` and classify images in it."""
    network.astype(dtype)
    parts = [network.predict(x[i : i + batch_size].astype(dtype)) for i in range(0, len(x), batch_size)]
    scores = numpy.concatenate([asnumpy(part) for part in parts]).astype("float32")
    return Inference(scores, network.params.flat.nbytes)


def margins(scores: numpy.ndarray) -> numpy.ndarray:
    """Return the gap between each sample's highest and second score: (N,)."""
    second, first = numpy.sort(scores, axis=1)[:, -2:].T
    return first - second


def plot(single: Inference, half: Inference) -> Figure:
    """Return a plot of each image's margin and the change of its scores by float16: only above the line can its class
    change."""
    moved = abs(half.scores - single.scores).max(axis=1)
    margin = margins(single.scores)
    changed = half.scores.argmax(axis=1) != single.scores.argmax(axis=1)
    figure = blank(7.5, 5)
    axes = figure.subplots()
    axes.loglog(margin[~changed], moved[~changed], ".", color=TEST_COLOUR, markersize=3, label="same class")
    axes.loglog(margin[changed], moved[changed], "o", color=WRONG_COLOUR, label=f"another class: {changed.sum()}")
    ends = numpy.array([min(margin.min(), 2 * moved.min()), margin.max()])
    axes.plot(ends, ends / 2, color="black", linewidth=1, label="half the margin")
    tidy(axes, "highest score less the second, in float32", "largest change of a score, float16")
    axes.legend(frameon=False)
    return figure


@click.command()
@click.option("--weights", type=click.Path(path_type=Path), help="Trained weights, .npz or .safetensors.")
@option("--dataset", type=click.Choice(["mnist10k", "mnist"]), default="mnist10k")
@data_dir_option
@out_option("half_precision")
@device_option
def main(weights: Path | None, dataset: str, data_dir: Path | None, out: Path, device: str) -> None:
    """Classify the test images in float32 and in float16."""
    prepare(device, out)
    data, (x, t) = load_digits(dataset, data_dir, flatten=False)
    if weights is None:
        click.echo("training for 100 steps; --weights takes a trained network")
        network = train(data, steps=100)
    else:
        network = DeepConvNet()
        with user_errors():
            network.load_params(weights)
    single, half = infer(network, x, "float32"), infer(network, x, "float16")
    click.echo(f"{'':<10}accuracy   right   parameters")
    for name, each in (("float32", single), ("float16", half)):
        accuracy = each.accuracy(t)
        click.echo(f"{name:<10}{accuracy:8.4f}{round(accuracy * len(x)):8,}{each.parameter_bytes:13,} bytes")
    changed = int((single.scores.argmax(axis=1) != half.scores.argmax(axis=1)).sum())
    click.echo(f"{changed:,} of {len(x):,} images change class")
    save_plot(plot(single, half), out)


if __name__ == "__main__":
    main()
