"""The data and models that commands are given by name: their options' types, and how they are found."""

from __future__ import annotations

from pathlib import Path

import click

from training.cli.common import user_errors
from training.data import NAMES, Dataset, load
from training.files.opening import not_a_link
from training.loop.run_folder import RunFolder
from training.models import MODELS, Network

DATASET = click.Choice(NAMES, case_sensitive=False)

MODEL = click.Choice([name for name in MODELS if name != "MultiLayerNet"], case_sensitive=False)
"""The models whose sizes follow from the data."""


def load_data(name: str, data_dir: Path | None, show_progress: bool) -> Dataset:
    """Load a data set by name; files that are found nowhere are downloaded.

    Raises:
        UserError: it is neither found nor can it be downloaded.
    """
    with user_errors():
        return load(name, data_dir, download=True, progress=show_progress)


def find_model(run: Path | None) -> Path:
    """Return the file of the model that ``run`` names: itself, that of the run in this folder, or of the newest run.

    Raises:
        UserError: there is no such file.
    """
    with user_errors():
        if run is None:
            return RunFolder.newest().model
        model = not_a_link(RunFolder(run).model) if run.is_dir() else run
        if not model.is_file():
            raise FileNotFoundError(f"there is no model in {run}" if run.is_dir() else f"there is no file {run}")
        return model


def check_fit(network: Network, data: Dataset) -> None:
    """Check that a network takes the images of a data set and has its number of classes.

    Raises:
        UserError: images or number of classes do not fit.
    """
    with user_errors():
        try:
            network.layers.output_shape(data.input_dim)
        except ValueError as error:
            raise ValueError(f"the model does not take the images of {data.name}, {data.input_dim}: {error}") from error
        if network.classes != len(data.classes):
            raise ValueError(f"the model has {network.classes} classes; {data.name} has {len(data.classes)}")
