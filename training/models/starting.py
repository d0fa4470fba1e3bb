"""Start a network from the parameters of another one's file."""

from __future__ import annotations

from pathlib import Path

from backend import asarray
from training.files import clipped
from training.files.arrays import config_of, open_arrays
from training.models.network import Network
from training.models.saving import load_fitting


def start_from(network: Network, file: str | Path) -> list[str]:
    """Load the parameters and running statistics that have the same names and shapes in a file, and leave the others.

    Returns:
        The layers that are left as they are, such as the last one where the numbers of classes differ.

    Raises:
        ValueError: the file is damaged, of another model, or has no array of such a name and shape; nothing is changed.
        OSError: it cannot be read.
    """
    own = {**network.params, **network.state}
    with open_arrays(Path(file)) as opened:
        config = config_of(opened)
        shapes = {name: tuple(header.shape) for name, header in opened.headers.items()}
    model, given = type(network).__name__, config.get("model") if isinstance(config, dict) else None
    if given not in (None, model):
        raise ValueError(f"{file} is a {clipped(given)}, and a {model} is to start from it")
    fitting = {name: array for name, array in own.items() if shapes.get(name) == tuple(array.shape)}
    if not fitting:
        raise ValueError(f"{file} has no parameters of the names and shapes that this {model} has")
    for name, array in load_fitting(file, fitting, partly=True).items():
        own[name][...] = asarray(array)
    return [
        place
        for place, number, leaf in network.leaves()
        if any(f"{key}{number}" not in fitting for key in {**leaf.params, **leaf.state})
    ]
