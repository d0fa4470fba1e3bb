"""What a trainer or an evaluation is given for its data, as a loader for a network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from backend import checks
from training.data.batches import Batches
from training.data.loader import Loader
from training.data.one_epoch import OneEpoch

if TYPE_CHECKING:
    from training.models.network import Network


def as_loader(name: str, given: Any, network: Network, epochs: int | None = None) -> Loader:
    """Return a loader as it is, another collection of batches as ``Batches``, and an iterator as ``OneEpoch``.

    Args:
        name: of the argument, such as "train" or "test".
        network: for which the targets are checked.
        epochs: how often it will be gone through; None for any number.

    Raises:
        TypeError: it is none of these, or gives numbers to a network that takes indices.
        ValueError: an iterator is to be gone through more than once, or a target is not one of the network's.
    """
    loader = _as_loader(name, given, network.params.flat.dtype, epochs)
    try:
        loader = loader.for_network(network)
        loader.check_targets(network.last_layer, network.outputs_of)
    except (TypeError, ValueError) as error:
        data = {"train": "training data: ", "test": "test data: "}.get(name, "")
        raise type(error)(f"{data}{error}") from None
    return loader


def _as_loader(name: str, given: Any, dtype: Any, epochs: int | None) -> Loader:
    if isinstance(given, Loader):
        return given
    is_whole = isinstance(given, Iterable) and not isinstance(given, (str, bytes))
    if not is_whole or (isinstance(given, Iterator) and epochs is None):
        raise checks.refusal(TypeError, name, "a Loader, or (x, t) batches that can be gone through again", given)
    try:
        if not isinstance(given, Iterator):
            return Batches(given, dtype)
        if epochs is not None and epochs > 1:
            raise ValueError(
                f"{name} is an iterator ({type(given).__name__}), whose batches come once, and epochs is {epochs}: "
                "give epochs=1, or a collection that can be gone through again, such as a list"
            )
        return OneEpoch(given, dtype)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from error
