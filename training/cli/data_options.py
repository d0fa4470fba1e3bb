"""The options that say what a model is trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from training.cli.common import Choice, Real, data_dir_option
from training.data.augment import CHANGES
from training.data.collection import KINDS
from training.data.sources import SOURCES
from training.loop.settings import DEFAULTS, PARTS

DATASET = Choice(tuple(SOURCES), case_sensitive=False)


class Size(click.ParamType):
    """The type of an option that takes the size of a picture, as a text: 64, or 48x64 for height and width."""

    name = "HxW"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text in its longer form, or fail with what is wrong."""
        sides = str(value).lower().split("x")
        if len(sides) > 2 or not all(side.isascii() and side.isdigit() and 0 < int(side) <= 4096 for side in sides):
            self.fail(f"expected a size such as 64, or 48x64 for height and width, got {value}", param, ctx)
        return f"{int(sides[0])}x{int(sides[-1])}"


PATH_OPTIONS = (
    click.option(
        "--data",
        type=click.Path(path_type=Path),
        help="Data of your own, in the place of --dataset: a folder with a folder of pictures for each class, or with "
        "a labels.csv, CIFAR's .bin or IDX files, an .npz, a pair of .npy files, or a .csv.",
    ),
    click.option("--size", type=Size(), help="Size to which pictures in files are resized, as in 64 or 48x64."),
    click.option(
        "--target",
        help="A table's target column, or several with commas.  [default: target, label, class, y or t, or the last]",
    ),
    click.option(
        "--target-kind",
        type=Choice(KINDS),
        help="One class, any labels, or numbers to predict.  [default: classification for texts and whole numbers, "
        "multi-label for rows of 0 and 1]",
    ),
)
"""Options that say how data at a path are read."""


def path_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say how data at a path are read to a command."""
    return _added(PATH_OPTIONS, command)


def part_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say in which parts the data are used to a command."""
    return _added(PART_OPTIONS, command)


def _added(options: Sequence[Callable], command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(options):
        command = option(command)
    return command


DATA_OPTIONS = (
    click.option("--dataset", type=DATASET, default=DEFAULTS.dataset, help="mnist10k is part of the package."),
    data_dir_option,
    *PATH_OPTIONS,
)
"""Options that say what a model is trained on."""

PART_OPTIONS = (
    click.option(
        "--augment",
        metavar="NAMES",
        help="Random changes of the training images: standard (flip,crop in color; crop,turn in gray), or names with "
        f"commas: {', '.join(CHANGES)}.",
    ),
    click.option(
        "--val",
        type=Real(0, 0.9),
        default=DEFAULTS.val,
        help="Share of the training data to validate on, where they have no validation part; all classes give as much.",
    ),
    click.option(
        "--test",
        type=Real(0, 0.9),
        default=DEFAULTS.test,
        help="Share of --data to test on, where they have no test part.",
    ),
    click.option(
        "--best-on",
        type=Choice(PARTS),
        default=DEFAULTS.best_on,
        help="The part by which the best epoch is chosen: val, so that the test images are used once, at the end; or "
        "test, as in the book, with all training images.",
    ),
)
"""Options that say in which parts, and with which changes, the data are used."""
