"""Networks whose inputs are indices, as those of words or characters are, and others that commands have no data for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layers import Embedding, Layer, Sequential
from layers.base import walk

if TYPE_CHECKING:
    from training.models.network import Network


_REMEDY = "such a network is trained and used in a program, by training.Trainer"

NO_DATA = f"and the data of commands have one target for each sample: {_REMEDY}"
"""Why commands do not take a network with scores of steps or pixels."""


def index_count(layer: Layer) -> int | None:
    """Return how many indices an embedding takes that a network's layers begin with; None if they begin otherwise."""
    while isinstance(layer, Sequential) and len(layer):
        layer = layer.sublayers()[0][1]
    return len(layer.W) if isinstance(layer, Embedding) else None


def check_for_commands(network: Network) -> None:
    """Check that the data of commands, numbers or pictures with one target each, are what a network takes.

    Raises:
        ValueError: there is an embedding, wherever it stands (the message names it), or the network makes scores of
            steps or pixels.
    """
    for place, layer in walk(network.layers):
        if isinstance(layer, Embedding):
            raise ValueError(
                f"{network.title} takes indices, by layer {place}, and commands give numbers or pictures: {_REMEDY}"
            )
    if network.has_places:
        raise ValueError(f"{network.title} makes scores {network.output_dim} of a sample, {NO_DATA}")


def check_examples(network: Network) -> None:
    """Check that ``training.profile.meter.example_batch`` has samples that a network takes.

    Raises:
        ValueError: there is an embedding behind other layers; the message names it.
    """
    embeddings = [place for place, layer in walk(network.layers) if isinstance(layer, Embedding)]
    if others := embeddings[network.takes_indices :]:
        raise ValueError(f"{network.title} takes indices, by layer {others[0]}, which is not its first: {_REMEDY}")
