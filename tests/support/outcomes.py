"""Describe the outcome of a call so that two can be compared bit for bit; objects are called, not inspected."""

import dataclasses
from types import GeneratorType
from typing import Any

import numpy as np

import backend
from backend import asnumpy, is_array
from kernels.core.window import Window
from layers import Layer
from tests.support.entry_points import numbers
from training.data import Loader
from training.loop.checkpoints import Checkpoints
from training.loop.early_stopping import EarlyStopping
from training.loop.trainer import Trainer
from training.loop.weight_average import WeightAverage
from training.models import Network
from training.optim.loss_scaling import LossScaler
from training.optim.optimizer import Optimizer
from training.optim.update import Update

SHAPES = ((2, 4, 6, 6), (2, 4), (2, 16), (2, 3), (2, 6, 6, 4), (2, 6, 6, 2), (2, 2), (2, 5))


def outcome(call):
    """Return the description of the result of ``call``, or the class of the error that it raises."""
    backend.random.seed(0)
    np.random.seed(0)  # the book's dropout draws from it
    try:
        return observed(call())
    except (ValueError, TypeError, IndexError) as error:
        return type(error)


def observed(value: Any) -> Any:
    """Return plain data that describes a value: numbers with their types, arrays with their bits."""
    if is_array(value):
        return type(value).__module__.partition(".")[0], str(value.dtype), value.shape, asnumpy(value).tobytes()
    if isinstance(value, dict):
        return {name: observed(item) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [observed(item) for item in value]
    if isinstance(value, GeneratorType):
        return observed(list(value))
    tried = next((try_out for kind, try_out in _TRIED if isinstance(value, kind)), None)
    if tried is not None:
        return type(value).__name__, observed(tried(value))
    if dataclasses.is_dataclass(value):
        return observed([getattr(value, field.name) for field in dataclasses.fields(value)] + _called(value))
    return type(value).__name__, repr(value)


def _called(value):
    return [value(step) for step in range(6)] if callable(value) else []


def _layer(layer):
    seen = [repr(layer), dict(layer.params), layer.state]
    for shape in SHAPES:
        x = numbers(*shape, dtype=next((str(array.dtype) for array in layer.params.values()), "float32"))
        try:
            y = layer.forward(x)
        except ValueError:
            continue
        return [*seen, y, layer.backward(numbers(*y.shape, dtype=str(y.dtype))), dict(layer.grads), layer.state]
    return seen


def _optimizer(optimizer):
    params, grads = {"W": numbers(3, 2)}, {"W": numbers(3, 2) * 2}
    for _ in range(2):
        optimizer.update(params, grads)
    return [params, {key: value for key, value in optimizer.state_dict().items() if "." not in key}]


def _network(network):
    x = numbers(2, *network.input_dim, dtype=str(network.params.flat.dtype))
    return [network.config, dict(network.params), network.predict(x), network.predict(x, train_flg=True)]


_TRIED = (
    (Layer, _layer),
    (Optimizer, _optimizer),
    (Network, _network),
    (Loader, lambda loader: [repr(loader), loader.prefetch, *loader.epoch(1)]),
    (LossScaler, lambda scaler: [scaler.control, scaler.growth_interval]),
    (backend.random.Generator, lambda generator: [generator.state, generator.bits(5)]),
    (Trainer, lambda trainer: [trainer.total_epochs]),
    (Update, lambda update: [update.clip_norm, update.t]),
    (Checkpoints, lambda checkpoints: [str(checkpoints.every), checkpoints.keep]),
    (WeightAverage, lambda average: average.decay),
    (EarlyStopping, lambda stopping: stopping.patience),
    (Window, lambda window: [*(getattr(window, field.name) for field in dataclasses.fields(window)), str(window)]),
    (np.dtype, str),
)
