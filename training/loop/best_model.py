"""Keep the best model of a training in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy

from backend import asarray, asnumpy
from backend.types import Array
from training.loop.callbacks import Callback, EpochResult

if TYPE_CHECKING:
    from training.loop.trainer import Trainer
    from training.models.network import Network


class BestModel(Callback):
    """Callback that copies parameters and state at the end of each epoch that is the best so far: by the test
    accuracy, or where that is equal by the test loss.

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
        self._kept: tuple[EpochResult, dict[str, Array], dict[str, Array]] | None = None

    @property
    def result(self) -> EpochResult | None:
        """The result of the epoch whose model is kept; None before an epoch has ended."""
        return None if self._kept is None else self._kept[0]

    @staticmethod
    def is_better(result: EpochResult, best: EpochResult | None) -> bool:
        """Return True if an epoch's result is better than the best before it."""
        return best is None or result.rank > best.rank

    def on_epoch_end(self, trainer: Trainer, result: EpochResult) -> None:
        if self.is_better(result, self.result):
            state = {name: array.copy() for name, array in trainer.network.state.items()}
            self._kept = result, trainer.network.params.copy(), state

    def arrays(self) -> dict[str, numpy.ndarray]:
        """Return the kept parameters and state by name, on the host; none before an epoch has ended."""
        return (
            {} if self._kept is None else {name: asnumpy(a) for name, a in {**self._kept[1], **self._kept[2]}.items()}
        )

    def state_dict(self) -> dict[str, Any]:
        if self._kept is None:
            return {}
        result, params, state = self._kept
        arrays = {
            f"{kind}.{name}": a for kind, some in (("params", params), ("state", state)) for name, a in some.items()
        }
        return {"result": result.as_dict(), **arrays}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        arrays: dict[str, dict[str, Array]] = {"params": {}, "state": {}}
        for key, array in saved.items():
            kind, _, name = key.partition(".")
            if kind in arrays:
                arrays[kind][name] = asarray(array)
        self._kept = EpochResult(**saved["result"]), arrays["params"], arrays["state"]

    def restore(self, network: Network) -> None:
        """Copy the kept parameters and state into the network that was trained.

        Raises:
            RuntimeError: no epoch has ended.
        """
        if self._kept is None:
            raise RuntimeError("no epoch has ended yet: there is no best model")
        _, params, state = self._kept
        network.params.update(params)
        for name, array in network.state.items():
            array[...] = state[name]
