"""Shared helpers for tests of the examples."""

import numpy as np
from click.testing import CliRunner
from PIL import Image

from examples.common import load_digits, save_plot
from training.loop.figures import DOTS_PER_INCH


def output_of(main, *arguments):
    """Run an example's command and return its output; it must end without an error."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def error_of(main, *arguments):
    """Run an example's command with a user's mistake and return its output; the exit code must be 2."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 2, result.output
    return result.output


def some_digits(training, test=0, flatten=True):
    """Return the first digits of the package, on the active device."""
    (x, t), (x_test, t_test) = load_digits(flatten=flatten)
    return (x[:training], t[:training]), (x_test[:test], t_test[:test])


def check_plot(figure, folder, x_label, y_label):
    """Assert that axes have these labels, and that the saved figure is a complete, non-blank PNG of its size."""
    labels = [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes if axes.get_visible()]
    assert x_label in {x for x, _ in labels}
    assert y_label in {y for _, y in labels}
    save_plot(figure, folder / "plot.png")
    check_png(folder / "plot.png", [round(DOTS_PER_INCH * length) for length in figure.get_size_inches()])


def check_png(file, size=None):
    """Assert that a file is a complete, non-blank PNG."""
    with Image.open(file) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("L"))  # decodes all of it
    assert size is None or list(pixels.shape[::-1]) == size
    assert len(np.unique(pixels)) > 10
