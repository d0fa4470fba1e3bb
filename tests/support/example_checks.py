"""What tests of the examples share."""

import numpy as np
from click.testing import CliRunner
from PIL import Image

from examples.common import load_digits, save_plot
from training.loop.figures import DOTS_PER_INCH


def output_of(main, *arguments):
    """What an example's command prints; it must end without an error."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def error_of(main, *arguments):
    """What an example's command says of a user's mistake; exit code 2, no traceback."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 2, result.output
    return result.output


def some_digits(training, test=0, flatten=True):
    """Return the first digits of the package's, on the active device."""
    (x, t), (x_test, t_test) = load_digits(flatten=flatten)
    return (x[:training], t[:training]), (x_test[:test], t_test[:test])


def check_plot(figure, folder, x_label, y_label):
    """Axes are labelled so, and what is saved is a whole PNG of the figure's size with something on it."""
    labels = [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes if axes.get_visible()]
    assert x_label in {x for x, _ in labels}
    assert y_label in {y for _, y in labels}
    save_plot(figure, folder / "plot.png")
    check_png(folder / "plot.png", [round(DOTS_PER_INCH * length) for length in figure.get_size_inches()])


def check_png(file, size=None):
    """The file is a whole PNG with something on it."""
    with Image.open(file) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("L"))  # decodes all of it
    assert size is None or list(pixels.shape[::-1]) == size
    assert len(np.unique(pixels)) > 10
