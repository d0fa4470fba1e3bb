"""Average the weights of a training over its steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from backend import asarray, checks
from backend.types import Array
from kernels.core.dtypes import acc_dtype
from kernels.optimizers import move_towards
from training.loop.callbacks import Callback

if TYPE_CHECKING:
    from training.loop.trainer import Trainer
    from training.models.network import Network


class WeightAverage(Callback):
    """Callback that keeps an exponential moving average of parameters and running statistics, and evaluates with it.

    After step n the average is d·average + (1 - d)·weights, with d = min(decay, (1 + n) / (10 + n)), so that the first
    weights are soon forgotten. It is in the network's place during each evaluation and until the end of the epoch: test
    results, ``BestModel`` and early stopping are those of the average. The training itself is as without it. Sums are
    float32 for float16.

    Args:
        decay: from 0 (the latest weights) up to but not including 1; near 1 - 1 / (steps to average over).

    Raises:
        TypeError: ``decay`` is not a number.
        ValueError: it is out of its range.

    Examples:
        >>> import numpy as np
        >>> from training import SGD, Loader, Trainer, TwoLayerNet, WeightAverage
        >>> data = Loader(np.eye(4, dtype="float32"), np.arange(4), batch_size=2)
        >>> network, average = TwoLayerNet(4, 3, 4), WeightAverage(0.9)
        >>> history = Trainer(network, data, data, SGD(), epochs=2, callbacks=[average]).train()
        >>> average.apply(network)
    """

    def __init__(self, decay: float = 0.999) -> None:
        self.decay = checks.real("decay", decay, least=0, below=1)
        self.steps = 0
        self._average: dict[str, Array] = {}
        self._own: dict[str, Array] = {}  # what the average has replaced; empty during steps

    def apply(self, network: Network) -> None:
        """Copy the average into the network that was trained.

        Raises:
            RuntimeError: no step was made.
        """
        if not self._average:
            raise RuntimeError("no step was made yet: there is no average")
        for name, array in _arrays(network).items():
            array[...] = self._average[name]

    def on_step_end(self, trainer: Trainer, step: int) -> None:
        arrays = _arrays(trainer.network)
        if not self._average:
            self._average = {name: array.astype(acc_dtype(array.dtype)) for name, array in arrays.items()}
        self.steps += 1
        share = 1.0 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, average in self._average.items():
            move_towards(average, arrays[name], share)

    def on_epoch_trained(self, trainer: Trainer) -> None:
        if self._average and not self._own:
            self._own = {name: array.copy() for name, array in _arrays(trainer.network).items()}
            self.apply(trainer.network)

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        self._put_back(trainer)

    def on_run_end(self, trainer: Trainer) -> None:
        self._put_back(trainer)

    def state_dict(self) -> dict[str, Any]:
        saved: dict[str, Any] = {"steps": self.steps}
        for kind, arrays in (("average", self._average), ("own", self._own)):
            saved.update((f"{kind}.{name}", array) for name, array in arrays.items())
        return saved

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        arrays: dict[str, dict[str, Array]] = {"average": {}, "own": {}}
        for key, array in saved.items():
            kind, _, name = key.partition(".")
            if kind in arrays:
                arrays[kind][name] = asarray(array)
        self.steps, self._average, self._own = saved["steps"], arrays["average"], arrays["own"]

    def _put_back(self, trainer: Trainer) -> None:
        for name, array in self._own.items():
            _arrays(trainer.network)[name][...] = array
        self._own = {}


def _arrays(network: Network) -> dict[str, Array]:
    return {"params": network.params.flat, **network.state}
