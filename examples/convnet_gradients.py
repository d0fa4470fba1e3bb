"""The gradient check of a convnet, from "Deep Learning from Scratch", chapter 7.

A SimpleConvNet for a random 10×10 image, small enough to ask for each of its 1,820 parameters how the loss changes with
it, is checked element by element. A few of the first layer's differences stand out by far: where a step of 1e-4 leads
over the kink of a relu, or makes another element the maximum, the difference quotient mixes two slopes. A network of
real size can be asked whether its gradient is right along random directions: so is a DeepConvNet, with
``training.check.gradients.gradient_check``.

    python -m examples.convnet_gradients
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy

from backend import asarray, random
from examples.common import both_gradients, out_option, prepare, save_plot, tidy
from training.check.gradients import GradientError, gradient_check
from training.cli.common import device_option
from training.loop.figures import blank
from training.models import DeepConvNet, SimpleConvNet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def problem(filters: int = 10, hidden_size: int = 10, size: int = 10) -> tuple[SimpleConvNet, Any, Any]:
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
    """By parameter of a DeepConvNet: its gradient along a random direction, and the difference quotient.

    Raises:
        AssertionError: one of them is off by more than a millionth.
    """
    random.seed(0)
    network = DeepConvNet()
    x = random.uniform((images, *network.input_dim), "float64")
    return gradient_check(network, x, asarray(numpy.arange(images)))


def plot(found: dict[str, tuple[numpy.ndarray, numpy.ndarray]]) -> Figure:
    """How far the backpropagated and the numerical gradient of each parameter lie apart, over its size."""
    figure = blank(7.5, 5)
    axes = figure.subplots()
    for name, (backward, numerical) in found.items():
        difference = numpy.maximum(abs(backward - numerical), 1e-16)  # equal ones would be nowhere on a log scale
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
