"""What tests of the examples share."""

from pathlib import Path

import numpy as np
from click.testing import CliRunner
from PIL import Image

from training.figures import DOTS_PER_INCH


def output_of(main, *arguments):
    """What an example's command prints; it must end without an error."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def error_of(main, *arguments):
    """What an example's command says of a user's mistake: one line, exit code 2, no traceback."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 2, result.output
    return result.output


def check_plot(figure, file: Path):
    """The file is a PNG of the figure's size, with something on it; every axis that is seen has a label."""
    size = tuple(round(DOTS_PER_INCH * length) for length in figure.get_size_inches())
    check_png(file, size)
    for axes in figure.axes:
        if axes.axison and axes.get_visible():
            assert axes.get_xlabel() or not axes.get_subplotspec().is_last_row(), axes


def check_png(file: Path, size=None):
    """The file is a whole PNG with something on it."""
    with Image.open(file) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("L"))  # decodes all of it
    if size is not None:
        assert pixels.shape[::-1] == size
    assert len(np.unique(pixels)) > 10
