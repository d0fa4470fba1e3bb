"""Networks whose inputs are indices, as those of words or characters are."""

from __future__ import annotations

from layers import Embedding, Layer, Sequential
from layers.base import walk
from training.models.network import Network


def takes_indices(layer: Layer) -> bool:
    """Return whether a network's layers begin with an embedding, whose inputs are whole numbers."""
    while isinstance(layer, Sequential) and len(layer):
        layer = layer.sublayers()[0][1]
    return isinstance(layer, Embedding)


def check_takes_numbers(network: Network) -> None:
    """Check that no layer of a network takes indices: the batches of a ``Loader`` are floating numbers.

    Raises:
        ValueError: there is an embedding, wherever it stands; the message names it.
    """
    for place, layer in walk(network.layers):
        if isinstance(layer, Embedding):
            raise ValueError(
                f"{network.title} takes indices, by layer {place}, and commands give numbers or pictures: such a "
                "network is trained and used in a program"
            )
