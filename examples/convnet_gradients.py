"""Check the gradients of a convnet, from "Deep Learning from Scratch", chapter 7.

A SimpleConvNet for a random 10×10 image, small enough for a difference quotient for each of its 1,820 parameters, is
checked element by element. A few differences of the first layer are much larger than the others: where a step of 1e-4
crosses the kink of a relu, or changes the position of a maximum, the difference quotient mixes two slopes. A network of
real size can be checked along random directions: the example does so for a DeepConvNet, with
``training.check.gradients.gradient_check``.

    python -m examples.convnet_gradients
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy

from backend import asarray, random
from backend.types import Array
from examples.common import both_gradients, out_option, prepare, save_plot, tidy
from training.check.gradients import GradientError, gradient_check
from training.cli.common import device_option
from training.loop.figures import blank
from training.models import DeepConvNet, SimpleConvNet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def problem(filters: int = 10, hidden_size: int = 10, size: int = 10) -> tuple[SimpleConvNet, Array, Array]:
    """Return a small network in float64, a random image (1, 1, size, size), and its label."""
    random.seed(0)
    network = SimpleConvNet(
        (1, size, size),
        {"filter_num": filters, "filter_size": 3, "pad": 0, "stride": 1},
        hidden_size,
        weight_init_std=0.01,
        dtype="float64",
    )
    return network, random.uniform((1, 1, size, size), "float64"), asarray(numpy.array([1]))


def directions(images: int = 2) -> list[GradientError]:
    """Return the gradient of a DeepConvNet along random directions and the difference quotients, for each parameter.

    Raises:
        AssertionError: a relative error is more than one millionth.
    """
    random.seed(0)
    network = DeepConvNet()
    x = random.uniform((images, *network.input_dim), "float64")
    return gradient_check(network, x, asarray(numpy.arange(images)))


def plot(found: dict[str, tuple[numpy.ndarray, numpy.ndarray]]) -> Figure:
    """Return a plot of the difference between backpropagated and numerical gradient over the gradient's size."""
    figure = blank(7.5, 5)
    axes = figure.subplots()
    for name, (backward, numerical) in found.items():
        difference = numpy.maximum(abs(backward - numerical), 1e-16)  # 0 has no place on a log scale
        axes.loglog(abs(backward).ravel(), difference.ravel(), ".", markersize=4, label=name)
    axes.set_title("far up: a relu or a maximum switches within the step of 1e-4", fontsize=10)
    tidy(axes, "|gradient|, backpropagated", "|backpropagated - numerical|")
    axes.legend(frameon=False, ncols=2)
    return figure


@click.command()
@out_option("convnet_gradients")
@device_option
def main(out: Path, device: str) -> None:
    """Check the gradients of two convnets against difference quotients."""
    prepare(device, out)
    found = both_gradients(*problem())
    click.echo("SimpleConvNet, element by element: |backpropagated - numerical gradient|")
    click.echo("          mean   median   over 1e-8")
    for name, (backward, numerical) in found.items():
        difference = abs(backward - numerical)
        over = f"{(difference > 1e-8).sum()} of {difference.size}"
        click.echo(f"  {name}: {difference.mean():.1e}  {numpy.median(difference):.1e}   {over}")
    click.echo("DeepConvNet, along a random direction: backpropagated and numerical")
    for error in directions():
        click.echo(f"  {error.name + ':':<4}{error.backward:14.9f}{error.numerical:14.9f}")
    save_plot(plot(found), out)


if __name__ == "__main__":
    main()
