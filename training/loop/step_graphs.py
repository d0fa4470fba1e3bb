"""Run training steps as CUDA graphs: one launch in the place of hundreds."""

from __future__ import annotations

import functools
import logging
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from backend import array_module, profiling, tf32
from backend.checks import Hyperparameter
from backend.graphs import CaptureError, Graph, Recorder
from backend.types import Array
from layers import Layer
from layers.base import walk

if TYPE_CHECKING:
    from training.loop.trainer import Trainer

_log = logging.getLogger("xpnet")

EAGER_STEPS = 2
"""Steps of a batch's shape that run eagerly: they compile kernels, allocate memory and make the optimizer's state."""

_OTHER_SETTINGS = (
    "clip_norm", "weight_decay", "growth_interval", "tf32", "frozen", "groups", "ignore_index", "class_weights",
    "parts",
)  # fmt: skip
_PLAIN = (bool, int, float, str, type(None))
_OF_FORWARD = ("training", "_kept")  # what a forward sets, or leaves for its backward, is no setting


class StepGraphs:
    """Run a trainer's steps eagerly at first, then as a graph for each shape of batches that comes again.

    The first replay of a graph is compared with an eager step of the same batch, bit for bit. Where they differ, or a
    step cannot be captured, a warning says why, and all steps run eagerly from then on.

    A graph is dropped, and the step is captured anew, where the network, the optimizer or the scaler have other arrays
    than at the capture, or a setting has another value: a number of a layer or of the loss, the clipping, TF32. The
    optimizer's numbers and random positions are computed for every replay (``backend.graph_numbers``).

    Args:
        trainer: has the network, the update and the generator.
        step: computes a step of the trainer from a batch, changes arrays on the device in place, returns the loss.
        totals: array that the step adds to.
    """

    def __init__(self, trainer: Trainer, step: Callable[[Array, Array], Array], totals: Array) -> None:
        self._trainer, self._step, self._totals = trainer, step, totals
        self._recorder: Recorder | None = None
        self._seen: dict[Any, int] = {}
        self._graphs: dict[Any, _Captured] = {}
        self._made_of: tuple[Any, ...] = ()
        self._made_with: list[Any] = []
        self.refusal = ""
        """Why steps run eagerly; empty as long as they need not."""

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the batches that there are graphs for."""
        return [key[0] for key in self._graphs]

    def run(self, x: Array, t: Array) -> Array:
        """Make a step. Return the loss, which the next step may overwrite."""
        if self.refusal or profiling.is_listened_to():
            return self._step(x, t)
        try:
            return self._run(x, t)
        except MemoryError:
            self.forget()
            raise

    def forget(self) -> None:
        """Drop all graphs and their memory. Later steps begin anew."""
        self._graphs.clear()
        self._seen.clear()
        self._recorder = None

    def _run(self, x: Array, t: Array) -> Array:
        parts, settings = self._parts(), self._settings()
        if settings != self._made_with or not all(map(operator.is_, parts, self._made_of)):
            self._graphs.clear()
            self._seen.clear()
            self._made_of, self._made_with = parts, settings
        key = x.shape, x.strides, x.dtype.char, t.shape, t.dtype.char, self._trainer.rows
        captured = self._graphs.get(key)
        if captured is not None:
            return captured.replay(x, t)
        recorder = self._recorder = self._recorder or Recorder()
        self._seen[key] = self._seen.get(key, 0) + 1
        if self._seen[key] > EAGER_STEPS:
            return self._capture(recorder, key, x, t)
        with recorder.active():
            loss = self._step(x, t)
        self._made_of, self._made_with = self._parts(), self._settings()  # what a step itself sets is kept by the next
        return loss

    def _capture(self, recorder: Recorder, key: Any, x: Array, t: Array) -> Array:
        """Make the step eagerly and by a new graph; keep the graph if both gave the same bits."""
        arrays, settings = self._arrays(), self._settings()
        before, put_back = _copies(arrays), self._counters()
        with recorder.active():
            loss = self._step(x, t)
        eager = _copies({**arrays, "the loss": loss})
        put_forward = self._counters()
        if changed := self._names_of_changed(settings):
            self._refuse(f"a step changes {', '.join(changed[:5])}")
            return loss
        _restore(arrays, before)
        del before
        put_back()
        try:
            captured = _Captured(recorder, self._step, x, t)
            replayed = captured.replay(x, t)
        except CaptureError as error:
            self._refuse(str(error))
        else:
            found = [name for name, array in {**arrays, "the loss": replayed}.items() if not _equal(array, eager[name])]
            if not found:
                self._graphs[key] = captured
                return replayed
            self._refuse(f"a replay differs from an eager step in {', '.join(found[:5])}")
        _restore(arrays, eager)
        put_forward()
        return eager["the loss"]

    def _refuse(self, reason: str) -> None:
        self.refusal = reason
        self.forget()
        _log.warning("training steps are not run as CUDA graphs: %s", reason)

    def _parts(self) -> tuple[Any, ...]:
        """Return the objects that hold the arrays of a step."""
        network, update = self._trainer.network, self._trainer.update
        optimizer, scaler = update.optimizer, update.scaler
        control = None if scaler is None else scaler.control
        arrays = (network.params.flat, network.grads.flat, network.last_layer)
        return (*arrays, optimizer, optimizer.state, optimizer.skipped, scaler, control)

    def _settings(self) -> list[Any]:
        """Return what else a step depends on and a graph would not notice, in a fixed order.

        The last are dictionaries of the plain attributes of the user's own layers.
        """
        update, loss = self._trainer.update, self._trainer.network.last_layer
        found = [values[name] for _, values, name in self._layer_numbers]
        found += [
            update.clip_norm,
            update.optimizer.weight_decay != 0,
            None if update.scaler is None else update.scaler.growth_interval,
            tf32.is_allowed(),
            self._trainer.network.params.frozen,
            getattr(update.optimizer, "groups", ()),
            getattr(loss, "ignore_index", None),
            getattr(loss, "class_weights", None),
            self._trainer.parts,
        ]
        for _, values in self._own_layers:
            plain = ((name, value) for name, value in values.items() if isinstance(value, _PLAIN))
            found.append({name: value for name, value in plain if name not in _OF_FORWARD})
        return found

    def _names_of_changed(self, before: list[Any]) -> list[str]:
        """Return the names of the settings that differ from those of before."""
        of_layers, own = self._layer_numbers, self._own_layers
        names = [*(place for place, _, _ in of_layers), *_OTHER_SETTINGS, *(place for place, _ in own)]
        changed = []
        for name, old, new in zip(names, before, self._settings(), strict=True):
            if isinstance(new, dict):
                changed += [f"{name}.{key}" for key in new if old.get(key, self) != new[key]]
            elif old != new:
                changed.append(name)
        return changed

    @functools.cached_property
    def _layer_numbers(self) -> list[tuple[str, dict[str, Any], str]]:
        """Place and name, attributes of the layer, and name, for every hyperparameter of the layers."""
        network = self._trainer.network
        layers = [*walk(network.layers), ("the loss", network.last_layer)]
        return [(f"{place}.{name}", vars(layer), name) for place, layer in layers for name in _hyperparameters(layer)]

    @functools.cached_property
    def _own_layers(self) -> list[tuple[str, dict[str, Any]]]:
        """Place and attributes of the layers of the user's own classes, of which nothing is known."""
        layers = walk(self._trainer.network.layers)
        return [(place, vars(layer)) for place, layer in layers if not type(layer).__module__.startswith("layers.")]

    def _arrays(self) -> dict[str, Array]:
        """Return all arrays that a step changes, by name."""
        network, update = self._trainer.network, self._trainer.update
        optimizer, scaler = update.optimizer, update.scaler
        arrays = {"parameters": network.params.flat, "gradients": network.grads.flat, "totals": self._totals}
        arrays.update(network.state)
        for slot, state in optimizer.state.items():
            arrays.update({f"{slot}.{name}": array for name, array in state.items()})
        if scaler is not None:
            arrays.update(control=scaler.control, skipped=optimizer.skipped)
        return arrays

    def _counters(self) -> Callable[[], None]:
        """Return a function that puts back what steps count on the host."""
        trainer = self._trainer
        counted = [(trainer.random, "state"), (trainer.update, "t"), (trainer.update.optimizer, "t")]
        values = [getattr(owner, name) for owner, name in counted]

        def put_back() -> None:
            for (owner, name), value in zip(counted, values, strict=True):
                setattr(owner, name, value)

        return put_back


def _hyperparameters(layer: Layer) -> list[str]:
    found = ((name, value) for base in type(layer).__mro__ for name, value in vars(base).items())
    return [name for name, value in found if isinstance(value, Hyperparameter)]


class _Captured:
    """A step as a graph, with the arrays that its batches are copied into."""

    def __init__(self, recorder: Recorder, step: Callable[[Array, Array], Array], x: Array, t: Array) -> None:
        with recorder.active():
            self._batch = tuple(_Buffer(array) for array in (x, t))
            x, t = (buffer.array for buffer in self._batch)
            self._graph: Graph[Array] = recorder.capture(lambda: step(x, t))

    def replay(self, *batch: Array) -> Array:
        for buffer, array in zip(self._batch, batch, strict=True):  # in the current stream, which the graph waits for
            buffer.fill(array)
        return self._graph.launch()


class _Buffer:
    """An array into which others of the same shape, dtype and strides are copied."""

    def __init__(self, like: Any) -> None:
        cupy = array_module(like)
        # Without gaps, in any order of axes: one copy of bytes, at a tenth of the host's time for an assignment.
        self._is_dense = like.nbytes == _span(like)
        if self._is_dense:
            memory = cupy.empty(like.size, like.dtype)
            self.array: Any = cupy.ndarray(like.shape, like.dtype, memory.data, like.strides)
        else:
            self.array = cupy.empty_like(like)

    def fill(self, array: Any) -> None:
        if self._is_dense:
            self.array.data.copy_from_device_async(array.data, self.array.nbytes)
        else:
            self.array[...] = array


def _span(array: Any) -> int:
    """Return the bytes from the first element to the end of the last."""
    steps = zip(array.shape, array.strides, strict=True)
    return int(sum((length - 1) * stride for length, stride in steps) + array.itemsize)


def _copies(arrays: dict[str, Array]) -> dict[str, Array]:
    return {name: array.copy() for name, array in arrays.items()}


def _restore(arrays: dict[str, Array], values: dict[str, Array]) -> None:
    for name, array in arrays.items():
        array[...] = values[name]


def _equal(a: Any, b: Any) -> bool:
    """Return whether two arrays have the same bits; waits for the device."""
    return bool(a.get().tobytes() == b.get().tobytes())
