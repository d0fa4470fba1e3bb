"""Keep the best model of a training in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.types import Array
from training.loop.callbacks import Callback, EpochResult

if TYPE_CHECKING:
    from training.loop.trainer import Trainer
    from training.models.network import Network


class BestModel(Callback):
    """Callback that copies parameters and state at the end of each epoch with the highest test accuracy so far.

    Examples:
        >>> import numpy as np
        >>> from training import SGD, BestModel, Loader, Trainer, TwoLayerNet
        >>> network = TwoLayerNet(4, 3, 2)
        >>> data = Loader(np.zeros((10, 4), "uint8"), np.arange(10) % 2, batch_size=5)
        >>> best = BestModel()
        >>> history = Trainer(network, data, data, SGD(), epochs=2, callbacks=[best]).train()
        >>> best.restore(network)
        >>> best.result.epoch
        1
    """

    def __init__(self) -> None:
        # One tuple, so that an interrupt never leaves a result with the arrays of another.
        self._kept: tuple[EpochResult, dict[str, Array]] | None = None

    @property
    def result(self) -> EpochResult | None:
        """The result of the epoch whose model is kept; None before an epoch has ended."""
        return None if self._kept is None else self._kept[0]

    def on_epoch_end(self, trainer: Trainer, result: EpochResult) -> None:
        if self.result is None or result.test_accuracy > self.result.test_accuracy:
            arrays = {"params": trainer.network.params.flat, **trainer.network.state}
            self._kept = result, {name: array.copy() for name, array in arrays.items()}

    def restore(self, network: Network) -> None:
        """Copy the kept parameters and state into the network that was trained.

        Raises:
            RuntimeError: no epoch has ended.
        """
        if self._kept is None:
            raise RuntimeError("no epoch has ended yet: there is no best model")
        arrays = self._kept[1]
        network.params.flat[...] = arrays["params"]
        for name, array in network.state.items():
            array[...] = arrays[name]
