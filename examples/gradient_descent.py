"""Numerical gradients and gradient descent: *Deep Learning from Scratch*, chapter 4.

The gradient of f(x0, x1) = x0² + x1² by central differences; 100 steps of descent from (-3, 4); and dW of a one-layer
net. The dW that the text prints is not the gradient at the W that it prints, but, to the last digit, at a W whose
first element is larger by 1e-4, the step of the differences: a routine that fails at its first evaluation leaves that
W behind. ``layers.numerical_gradient`` always restores W. The text's loss adds 1e-7 inside its logarithm.

    python -m examples.gradient_descent
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import ArrayLike

from backend import asarray, asnumpy, xp
from backend.types import Array
from examples.common import out_option, prepare, save_plot
from layers import cross_entropy_error, numerical_gradient, softmax
from training.cli.common import device_option
from training.loop.figures import QUIET_COLOUR, TEST_COLOUR, blank

if TYPE_CHECKING:
    from matplotlib.figure import Figure

X = (0.6, 0.9)
W = ((0.23210343, 0.80529943, 0.33053336), (1.15018482, 0.39713218, -1.69789563))
TARGET = 2
TEXT_END = (-6.11110793e-10, 8.14814391e-10)
TEXT_SCORES = (1.1744284, 0.84059862, -1.32978605)
TEXT_LOSS = 3.0908402
DW = ((0.33371908, 0.23900149, -0.57272057), (0.50057862, 0.35850223, -0.85908085))
"""The gradient at W of the loss with 1e-7 in its logarithm."""
TEXT_DW = ((0.33372796, 0.23899351, -0.57272147), (0.50059194, 0.35849026, -0.8590822))


def bowl(x: Array) -> Array:
    """Return x0² + x1²."""
    return (x**2).sum()


def descend(f: Callable[[Array], Array], start: tuple[float, ...], rate: float, steps: int) -> np.ndarray:
    """Return the points of gradient descent, x ← x - rate·∇f(x): (steps + 1, numbers), float64 on the host."""
    x = xp.asarray(start, "float64")
    way = [asnumpy(x).copy()]
    for _ in range(steps):
        x -= rate * numerical_gradient(f, x)
        way.append(asnumpy(x).copy())
    return np.array(way)


def scores(W: Array) -> Array:
    """Return the scores of the one-layer net: X·W, one number for each class."""
    return xp.asarray(X) @ W


def loss(W: Array) -> Array:
    """Return the cross-entropy of the net's softmax against ``TARGET``."""
    return cross_entropy_error(softmax(scores(W)), TARGET)


def text_loss(W: Array) -> Array:
    """Return the same with 1e-7 added inside the logarithm, with which the text avoids log 0."""
    return -xp.log(softmax(scores(W))[TARGET] + 1e-7)


def text_gradient(f: Callable[[Array], Array], x: Array, step: float = 1e-4) -> Array:
    """Return central differences as texts write them: an element is restored only after both evaluations."""
    gradient = xp.zeros_like(x)
    for index in np.ndindex(x.shape):
        original = x[index].copy()
        x[index] = original + step
        above = f(x)
        x[index] = original - step
        below = f(x)
        gradient[index] = (above - below) / (2 * step)
        x[index] = original
    return gradient


def after_an_accident(routine: Callable[..., Any], f: Callable[[Array], Array]) -> tuple[Array, Array]:
    """Call a gradient routine twice on one W: with a function that fails at once, then with ``f``.

    Returns:
        The change of W by the first call, and the gradient of the second one.
    """
    weights = asarray(np.array(W))
    try:
        routine(_fails, weights)
    except ArithmeticError:
        moved = weights - asarray(np.array(W))
    return moved, routine(f, weights)


def _fails(_: Array) -> Array:
    raise ArithmeticError("this function cannot be evaluated")


def plot(way: np.ndarray) -> Figure:
    """Return a plot of a descent over the contours of ``bowl``."""
    figure = blank(6, 5.4)
    axes = figure.subplots()
    x0, x1 = np.meshgrid(*[np.linspace(-5, 5, 101)] * 2)
    levels = [1, 4, 9, 16, 25, 36]
    axes.contour(x0, x1, x0**2 + x1**2, levels=levels, colors=QUIET_COLOUR, linestyles="--", linewidths=0.8)
    axes.plot(*way.T, "o-", color=TEST_COLOUR, markersize=4, linewidth=0.8)
    axes.set(xlabel="x0", ylabel="x1", title="100 steps down x0² + x1² from (-3, 4), rate 0.1")
    axes.set_aspect("equal")
    return figure


@click.command()
@out_option("gradient_descent")
@device_option
def main(out: Path, device: str) -> None:
    """Compute gradients by central differences and descend along them."""
    prepare(device, out)
    gradient = numerical_gradient(bowl, xp.asarray([3.0, 4.0]))
    way = descend(bowl, (-3.0, 4.0), rate=0.1, steps=100)
    weights = asarray(np.array(W))
    dW = numerical_gradient(loss, weights)
    restored = asnumpy(weights).tobytes() == np.array(W).tobytes()
    moved, accident_dW = after_an_accident(text_gradient, text_loss)
    kept, own_dW = after_an_accident(numerical_gradient, loss)

    click.echo(f"{'':34}{'ours':>48}{'text':>49}")
    _row("gradient of x0² + x1² at (3, 4)", gradient, (6, 8))
    _row("100 steps from (-3, 4), rate 0.1", way[-1], TEXT_END)
    _row("one-layer net: scores", scores(weights), TEXT_SCORES)
    _row("loss", loss(weights), TEXT_LOSS)
    _row("loss with the text's log(y + 1e-7)", text_loss(weights), TEXT_LOSS)
    _row("dW, beside the gradient at W", dW, DW)
    _row("dW, beside what the text prints", dW, TEXT_DW)
    click.echo(f"W is restored to the bit: {restored}")
    click.echo("the same after a call whose function failed at its first evaluation:")
    _row("a routine as texts write it: dW", accident_dW, TEXT_DW)
    _row("what it had left in W, less W", moved, None)
    _row("layers.numerical_gradient: dW", own_dW, TEXT_DW)
    _row("what it had left in W, less W", kept, None)
    save_plot(plot(way), out)


def _row(name: str, ours: Array, text: ArrayLike | None) -> None:
    """Print a line for each row of an array."""
    values = np.atleast_2d(asnumpy(ours))
    references = [""] * len(values) if text is None else [_shown(row) for row in np.atleast_2d(text)]
    for number, (row, reference) in enumerate(zip(values, references, strict=True)):
        click.echo(f"{name if number == 0 else '':34}{_shown(row):>48}{reference:>49}".rstrip())


def _shown(row: Array) -> str:
    return " ".join(f"{value:.9g}" for value in row)


if __name__ == "__main__":
    main()
