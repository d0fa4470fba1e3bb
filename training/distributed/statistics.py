"""Batch normalization over the samples of all ranks: ``--sync-batch-norm``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backend import array_module
from backend.types import Array
from layers import BatchNormalization
from layers.base import walk

if TYPE_CHECKING:
    from training.distributed.exchange import Exchange
    from training.models.network import Network


class Together:
    """The statistics and sums of a batch normalization over all ranks; see ``BatchNormalization.across``.

    Args:
        exchange: adds up.
        network: whose loss has the weight of this rank's gradients: they are those of its own mean.
    """

    def __init__(self, exchange: Exchange, network: Network) -> None:
        self._exchange, self._network = exchange, network

    def statistics(self, count: int, mean: Array, variance: Array) -> tuple[Array, Array, Array]:
        """Return the number of rows (0-d), and mean and variance of each column, of all ranks, float64.

        The ranks' moments are added up in float64, which has the digits for it.
        """
        sums = self._summed(count, count * mean.astype("float64"), count * (variance + mean.astype("float64") ** 2))
        rows, (mean, squares) = sums[0], sums[1:].reshape(2, -1) / sums[0]
        return rows, mean, array_module(mean).maximum(squares - mean**2, 0)

    def gradients(self, dgamma: Array, dbeta: Array) -> tuple[Array, Array]:
        """Return the sums of gradients over all ranks, float64, as gradients of this rank's mean loss."""
        weight = self._network.last_layer.weight
        xp = array_module(dgamma)
        sums = self._summed(0, weight * dgamma.astype("float64"), weight * dbeta.astype("float64"))
        total = sums[1:] / xp.maximum(xp.asarray(weight, "float64"), 1e-30)
        return total[: dgamma.size], total[dgamma.size :]

    def _summed(self, count: int, *vectors: Any) -> Array:
        xp = array_module(vectors[0])
        sums = xp.empty(1 + sum(vector.size for vector in vectors), "float64")
        sums[0] = count
        xp.concatenate(vectors, out=sums[1:])
        self._exchange.sum_now(sums)
        return sums


def synchronize(network: Network, exchange: Exchange) -> None:
    """Let the batch normalizations of a network take their statistics of all ranks."""
    for _, layer in walk(network.layers):
        if isinstance(layer, BatchNormalization):
            layer.across = Together(exchange, network)
