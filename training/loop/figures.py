"""Draw the figures of a run with matplotlib's objects: without global state, window or display."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from training.files.durable import write_atomically
from training.files.printable import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from training.data.inputs import AnyInputs
    from training.loop.callbacks import EpochResult
    from training.loop.evaluation import Predictions
    from training.loop.rate_search import RateSearch

TRAIN_COLOUR, TEST_COLOUR, WRONG_COLOUR, QUIET_COLOUR = "#8a8f98", "#1f5fa8", "#b3261e", "#5f6368"
DOTS_PER_INCH = 120


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, atomically.

    Raises:
        OSError: it cannot be written.
    """
    write_atomically(path, as_png(figure))


def as_png(figure: Figure) -> bytes:
    """Return a figure as the content of a PNG file."""
    drawn = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # it is drawn as a box
        figure.savefig(drawn, format="png", dpi=DOTS_PER_INCH)
    return drawn.getvalue()


def learning_curves(history: Sequence[EpochResult], part: str = "test") -> Figure:
    """Draw loss and accuracy over the epochs, in training and on the evaluated part; mark the best epoch.

    Of a network that predicts numbers, which has no accuracy, draw the loss alone.
    """
    epochs = [result.epoch for result in history]
    best = max(history, key=lambda result: result.rank)
    has_accuracy = any(math.isfinite(result.test_accuracy) for result in history)
    figure = blank(10 if has_accuracy else 5.6, 4.2)
    axes = figure.subplots(1, 1 + has_accuracy, squeeze=False)[0]
    losses = [result.loss for result in history], [result.test_loss for result in history]
    _curves(axes[0], epochs, *losses, part)
    axes[0].set_ylabel("loss")
    axes[0].set_ylim(bottom=0)
    value, said = best.test_loss, f"{best.test_loss:.4g}"
    if has_accuracy:
        shares = [[100 * share for share in (result.accuracy, result.test_accuracy)] for result in history]
        train, shown = map(list, zip(*shares, strict=True))
        _curves(axes[1], epochs, train, shown, part)
        axes[1].set_ylabel("accuracy in %")
        value, said = 100 * best.test_accuracy, f"{100 * best.test_accuracy:.2f} %"
    axes[-1].plot([best.epoch], [value], "o", color=TEST_COLOUR, markersize=10, fillstyle="none")
    axes[-1].set_title(f"best: {said} in epoch {best.epoch}", fontsize=10, color=TEST_COLOUR)
    axes[-1].legend(loc="lower right" if has_accuracy else "upper right", frameon=False)
    return figure


def confusion_matrix(predictions: Predictions, classes: Sequence[str]) -> Figure:
    """Draw the number of samples of each class (rows) by predicted class (columns), and the accuracy of each class."""
    from matplotlib.colors import PowerNorm

    matrix, classes = predictions.confusion(), [*map(_plain, classes)]
    samples = matrix.sum(axis=1)
    shares = matrix / numpy.maximum(samples, 1)[:, None]
    figure = blank(8.2, 7.4)
    axes = figure.subplots()
    # A steep start makes an error rate of one in a hundred visible.
    axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.35, 0, 1))
    for (row, column), count in numpy.ndenumerate(matrix):
        if count:
            colour = "white" if shares[row, column] > 0.3 else "black"
            axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=9, color=colour)
    slanted = max(map(len, classes)) > 2
    axes.set_xticks(
        range(len(classes)), classes, rotation=45 if slanted else 0, ha="right" if slanted else "center", fontsize=10
    )
    axes.set_yticks(range(len(classes)), classes, fontsize=10)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for row, (share, count) in enumerate(zip(shares.diagonal(), samples, strict=True)):
        text = f"{100 * share:.1f} %" if count else "none"
        axes.text(len(classes) - 0.3, row, text, ha="left", va="center", fontsize=9, color=QUIET_COLOUR)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(
        f"{predictions.correct:,} of {len(predictions.labels):,} right: {100 * predictions.accuracy:.2f} %", fontsize=11
    )
    return figure


def worst_mistakes(
    images: AnyInputs, predictions: Predictions, classes: Sequence[str], rows: int = 4, columns: int = 7
) -> Figure:
    """Draw the misclassified images with the least probability of the true class, worst first.

    Args:
        images: (N, C, H, W) with C of 1 or 3, uint8 or floating in 0 … 1, in the order of the predictions.
        classes: the names of the labels.
    """
    worst, classes = predictions.worst_mistakes(rows * columns), [*map(_plain, classes)]
    rows = max(1, math.ceil(len(worst) / columns))
    figure = blank(1.45 * columns, 1.8 * rows + 0.5)
    wrong = len(predictions.labels) - predictions.correct
    if not len(worst):
        figure.text(0.5, 0.5, f"all {len(predictions.labels):,} right", ha="center", va="center", fontsize=14)
        return figure
    which = f"all {wrong}" if len(worst) == wrong else f"the worst {len(worst)} of {wrong:,}"
    figure.suptitle(f"{which} mistakes: predicted (how sure), and what it is", fontsize=11)
    figure.subplots(rows, columns)
    for axes, index in zip(figure.axes, worst, strict=False):  # the last row may have empty places
        predicted, label = predictions.predicted[index], predictions.labels[index]
        _image(axes, images[index])
        share = 100 * float(predictions.probabilities[index, predicted])
        axes.set_title(f"{classes[predicted]} ({share:.0f} %)", fontsize=9, color=WRONG_COLOUR, pad=3)
        axes.set_xlabel(f"is {classes[label]}", fontsize=9, labelpad=2)
    for axes in figure.axes[len(worst) :]:
        axes.set_visible(False)
    return figure


def filters(weights: numpy.ndarray, input_dim: tuple[int, ...]) -> Figure:
    """Draw the weights of the first layer as images on one scale: red is positive, blue negative.

    Args:
        weights: of a convolution (FN, C, FH, FW), or of an affine layer (inputs, units).
        input_dim: (C, H, W) of the images, for an affine layer.
    """
    tiles = filter_images(weights, input_dim)
    columns = min(_columns(len(tiles)), len(tiles))
    rows = math.ceil(len(tiles) / columns)
    limit = float(numpy.abs(tiles).max()) or 1.0
    figure = blank(9, max(9 * 0.88 * rows / columns + 0.6, 2))
    axes = figure.subplots()
    height, width = tiles.shape[1:]
    zoom = math.ceil(24 / height)  # a gap of one weight would be wide next to a 3x3 filter
    sheet = mosaic(tiles.repeat(zoom, axis=1).repeat(zoom, axis=2), columns)
    picture = axes.imshow(sheet, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(f"first layer: {len(tiles)} filters of {height}x{width}", fontsize=11)
    figure.colorbar(picture, ax=axes, fraction=0.03, pad=0.02).outline.set_visible(False)
    return figure


def learning_rates(search: RateSearch) -> Figure:
    """Draw the losses of a search for a learning rate; mark the suggestion."""
    figure = blank(7, 4.2)
    axes = figure.subplots()
    axes.plot(search.rates, search.losses, ".", color=TRAIN_COLOUR, markersize=4, label="loss of a step")
    axes.plot(search.rates, search.smoothed, color=TEST_COLOUR, label="smoothed")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    # A loss that has diverged would leave the rest flat.
    top = max(search.losses[0], *search.smoothed[: len(search.smoothed) // 2 + 1])
    low = min(min(search.losses), min(search.smoothed))
    axes.set_ylim(low - 0.05 * (top - low) - 1e-12, top + 0.25 * (top - low) + 1e-12)
    if search.suggestion is not None:
        axes.axvline(search.suggestion, color=WRONG_COLOUR, linewidth=1)
        axes.set_title(f"suggested: {search.suggestion:.2g}", fontsize=10, color=WRONG_COLOUR)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def filter_images(weights: numpy.ndarray, input_dim: tuple[int, ...]) -> numpy.ndarray:
    """Return the weights of a first layer, as for ``filters``, as (number, H, W): each filter's channels in turn."""
    if weights.ndim == 2:
        weights = weights.T.reshape(-1, *input_dim)
    return weights.reshape(-1, *weights.shape[2:])


def mosaic(tiles: numpy.ndarray, columns: int) -> numpy.ndarray:
    """Arrange images (number, H, W) row by row in one array, with gaps of NaN (drawn blank) between them."""
    count, height, width = tiles.shape
    gap = max(1, height // 12)
    rows = math.ceil(count / columns)
    sheet = numpy.full((rows * (height + gap) - gap, columns * (width + gap) - gap), numpy.nan, tiles.dtype)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        top, left = row * (height + gap), column * (width + gap)
        sheet[top : top + height, left : left + width] = tile
    return sheet


def _columns(count: int) -> int:
    """Return the number of columns with the fewest empty places, in a sheet about 2.5 times as wide as high."""
    wide = math.sqrt(2.5 * count)
    return min(range(math.ceil(0.75 * wide), math.ceil(1.5 * wide) + 1), key=lambda n: (-count % n, abs(n - wide)))


def blank(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches."""
    from training.loop.shown_figure import ShownFigure

    return ShownFigure(figsize=(width, height), layout="constrained", facecolor="white")


def _plain(name: str) -> str:
    """Return a class's name as a text that matplotlib draws as it is, and takes for no formula."""
    return printable(name).replace("$", r"\$")


def _curves(axes: Axes, epochs: list[int], train: list[float], test: list[float], part: str) -> None:
    from matplotlib.ticker import MaxNLocator

    marker = "o" if len(epochs) < 30 else ""
    axes.plot(epochs, train, marker=marker, markersize=4, color=TRAIN_COLOUR, label="training")
    axes.plot(
        epochs, test, marker=marker, markersize=4, color=TEST_COLOUR, label="validation" if part == "val" else part
    )
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _image(axes: Axes, image: numpy.ndarray) -> None:
    picture: Any = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255 if image.dtype == numpy.uint8 else 1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
