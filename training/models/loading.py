"""Models in files that describe themselves: what is saved with the arrays, and how a network is made of it again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backend.checks import flag
from layers import Sequential
from layers.initializers import unfilled
from training.files import clipped
from training.files.arrays import config_of, open_arrays
from training.files.printable import one_line
from training.models.architecture import rebuild, rebuild_loss
from training.models.config import check_data
from training.models.named import MODELS, build
from training.models.network import Network

_OWN = ("model", "architecture", "input_shape", "loss", "dtype")
"""The entries of a description that make the network; all others are its ``config``."""


def load_network(file: str | Path, allow_import: bool = False) -> Network:
    """Load the network of a ``.safetensors`` file onto the active device: one of xpnet's models, or any other.

    It has the file's dtype and loss. Its ``config`` has what else was saved with it: ``xpnet train`` adds ``dataset``,
    ``classes`` (names) and ``input_dim``, the shape (C, H, W) of an image.

    The description is checked before anything is built, and the network is built only as large as the file's arrays. No
    random number is drawn.

    Args:
        allow_import: import layers of your own by the path in the file. That runs their modules' code: allow it only
            for files that you trust.

    Raises:
        ValueError: the file is damaged, has no model's description in it, that of layers that may not be imported, or
            one that does not fit it.
        OSError: it cannot be read.
    """
    allow_import = flag("allow_import", allow_import)
    with open_arrays(Path(file)) as opened:
        config, shapes = config_of(opened), [header.shape for header in opened.headers.values()]
        others = getattr(opened, "metadata", {})
    _check_model(Path(file), config, others)
    try:
        with unfilled(shapes):
            network = _build(config, allow_import)
        check_data(config, network.input_dim, network.classes)
    except ValueError as error:
        raise ValueError(f"{file} describes no model that can be built: {error}") from error
    network.load_params(file)
    about = {name: value for name, value in config.items() if name not in _OWN}
    network.config = {**(network.config or {}), **about} or None
    return network


def _build(config: Mapping[str, Any], allow_import: bool) -> Network:
    loss = rebuild_loss(config["loss"], allow_import) if "loss" in config else None
    if config["model"] != "Network":
        arguments = config.get("arguments", {})
        if "dtype" in config and isinstance(arguments, Mapping):
            arguments = {"dtype": config["dtype"], **arguments}
        return build({**config, "arguments": arguments}, loss)
    layers = rebuild(config.get("architecture"), allow_import)
    if not isinstance(layers, Sequential):
        raise ValueError(f"expected a Sequential as architecture, got {type(layers).__name__}")
    shape = config.get("input_shape")
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise ValueError(f"input_shape is {clipped(shape)}, expected a list of whole numbers")
    try:
        return Network(layers, tuple(shape), loss=loss)
    except TypeError as error:
        raise ValueError(str(error)) from error


def _check_model(file: Path, config: Any, metadata: Mapping[str, str]) -> None:
    """Raise a ValueError unless a config names a model: with the reason and the remedy."""
    remedy = f"build the network and call its load_params({file.name!r})"
    if config is None or (isinstance(config, dict) and "undescribed" in config):
        if file.suffix == ".npz":
            reason = "an .npz holds arrays alone"
        elif config is not None:
            reason = one_line(str(config["undescribed"])[:300])
        elif metadata:
            said = ", ".join(f"{clipped(name)}: {clipped(text)}" for name, text in list(metadata.items())[:3])
            reason = f"its header has {said}, and no config of xpnet, as a file of another program"
        else:
            reason = "it was saved by an older xpnet from a network of one's own"
        raise ValueError(f"{file} does not say which model it is: {reason}; {remedy}")
    if not isinstance(config, dict):
        raise ValueError(f"{file} does not say which model it is: its config is {clipped(config)}, expected an object")
    if config.get("model") not in [*MODELS, "Network"]:
        named = f"is of the model {clipped(config['model'])}" if "model" in config else "has a config without a model"
        raise ValueError(f"{file} {named}, neither one of xpnet's own ({', '.join(MODELS)}) nor a Network; {remedy}")
