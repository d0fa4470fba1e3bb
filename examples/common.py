"""Shared code of the examples: options, digits, mini-batches, epochs, and files of plots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy

from backend import asarray, asnumpy, random, xp
from backend.types import Array
from training.cli.common import choose_compute, count_from, user_errors
from training.data import load_mnist
from training.loop import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from training.models import Network
    from training.optim.optimizer import Optimizer

Data = tuple[Array, Array]
"""Images and labels, arrays on one device."""

option = partial(click.option, show_default=True)
count = count_from(1)


def out_option(name: str) -> Callable:
    """Return the option ``--out``, the plot's file; by default in a folder that git ignores."""
    default = Path("runs", "examples", f"{name}.png")
    return option("--out", type=click.Path(path_type=Path, dir_okay=False), default=default, help="The plot, a PNG.")


def prepare(device: str, out: Path | None = None) -> None:
    """Activate ``device`` and make the folder of the plot ``out``, so that errors come before the work.

    Raises:
        UserError: the device cannot be used, or the folder cannot be made.
    """
    choose_compute(device, None)
    if out is not None:
        with user_errors():
            out.parent.mkdir(parents=True, exist_ok=True)


def load_digits(dataset: str = "mnist10k", data_dir: Path | None = None, flatten: bool = True) -> tuple[Data, Data]:
    """Return training and test digits in the book's form, on the active device; see ``load_mnist``.

    Raises:
        UserError: the data set cannot be loaded.
    """
    with user_errors():
        return load_mnist(flatten=flatten, data_dir=data_dir, dataset=dataset)


def mini_batches(samples: int, batch_size: int, steps: int | None = None, replace: bool = True) -> Array:
    """Return indices of the samples of each mini-batch: int64 (steps, batch_size), the same on every device.

    Args:
        steps: number of mini-batches; by default those of an epoch, samples // batch_size.
        replace: True draws each index from all samples, as the book does; False returns one shuffled epoch.
    """
    if replace:
        drawn = random.uniform((steps or samples // batch_size, batch_size), "float64")
        return (drawn * samples).astype("int64")
    steps = samples // batch_size
    return asarray(random.permutation(samples)[: steps * batch_size].reshape(steps, batch_size))


def train_steps(network: Network, optimizer: Optimizer, data: Data, batches: Iterable[Array]) -> numpy.ndarray:
    """Make a training step for each row of indices; return the losses (steps,) on the host."""
    x, t = data
    losses = []
    for batch in batches:
        losses.append(network.step_gradients(x[batch], t[batch]))  # stays on the device, so that no step waits
        optimizer.update(network.params, network.grads)
    return asnumpy(xp.stack(losses))


def train_epochs(
    network: Network,
    optimizer: Optimizer,
    data: Data,
    measured: Sequence[Data],
    epochs: int,
    batch_size: int = 100,
    replace: bool = True,
) -> Iterator[list[float]]:
    """Train, and yield the accuracy on each of the ``measured`` data: at the start, then after each epoch."""
    yield [network.accuracy(*each) for each in measured]
    for _ in range(epochs):
        train_steps(network, optimizer, data, mini_batches(len(data[0]), batch_size, replace=replace))
        yield [network.accuracy(*each) for each in measured]


def both_gradients(network: Network, x: Array, t: Array) -> dict[str, tuple[numpy.ndarray, numpy.ndarray]]:
    """Return the gradient of the loss by backpropagation and by central differences for each parameter, on the host."""
    backward, numerical = network.gradient(x, t), network.numerical_gradient(x, t)
    return {name: (asnumpy(backward[name]), asnumpy(numerical[name])) for name in backward}


def smooth(values: numpy.ndarray, window: int = 11) -> numpy.ndarray:
    """Return a running mean of the same length, weighted by a Kaiser window with β = 2; the ends are mirrored."""
    weights = numpy.kaiser(window, 2)
    padded = numpy.pad(values, window // 2, mode="reflect")
    return numpy.convolve(padded, weights / weights.sum(), mode="valid")


def tidy(axes: Axes, x_label: str, y_label: str) -> None:
    """Label the axes, and give them a light grid and no frame."""
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def loss_curves(losses: dict[str, numpy.ndarray], top: float) -> Figure:
    """Return the losses of several trainings by name, smoothed over eleven steps, in one plot that ends at ``top``."""
    figure = figures.blank(7.5, 4.5)
    axes = figure.subplots()
    for name, values in losses.items():
        axes.plot(smooth(values), label=name, linewidth=1)
    axes.set_ylim(0, top)
    tidy(axes, "step", "cross-entropy loss (smoothed)")
    axes.legend(frameon=False)
    return figure


def show_losses(losses: dict[str, numpy.ndarray], out: Path, top: float) -> None:
    """Print the final losses of several trainings, and draw all losses, see ``loss_curves``."""
    last = min(100, *map(len, losses.values()))
    click.echo(f"{'':<10}mean loss of the last {last} steps")
    for name, values in losses.items():
        click.echo(f"{name:<10}{values[-last:].mean():.4f}")
    save_plot(loss_curves(losses, top), out)


def save_plot(figure: Figure, out: Path) -> None:
    """Write a plot and say where.

    Raises:
        UserError: it cannot be written.
    """
    with user_errors():
        figures.save(figure, out)
    click.echo(f"plot: {out}")
