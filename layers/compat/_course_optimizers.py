"""Update weights by the course's rules: ``next_w, config = rule(w, dw, config)``.

What holds for all of them:

* ``w`` and ``dw`` have one shape and are not changed; ``next_w`` is a new array with the dtype of ``w``.
* ``config`` is a dictionary of hyper-parameters and of the rule's state. It is updated in place and returned: with
  defaults, and with new arrays for the state, in the dtype of ``w`` (float32 for float16). None makes a new dictionary.
* Keys of the other rules are ignored. An unknown key, a number out of range or an array of another shape raises a
  ValueError before anything is changed.
"""

from __future__ import annotations

from typing import Any

from backend import array_module, require_same_device
from backend.checks import real, whole
from backend.types import Array
from kernels.core.dtypes import acc_dtype
from layers.compat._course_arguments import operands, shapes
from layers.compat._options import dictionary

Config = dict[str, Any]

_KEYS = {
    "sgd": ("learning_rate",),
    "sgd_momentum": ("learning_rate", "momentum", "velocity"),
    "rmsprop": ("learning_rate", "decay_rate", "epsilon", "cache"),
    "adam": ("learning_rate", "beta1", "beta2", "epsilon", "m", "v", "t"),
}
_ANY_KEY = tuple(key for keys in _KEYS.values() for key in keys)
_RANGES: dict[str, dict[str, float]] = {
    "learning_rate": {},
    "epsilon": {"least": 0},
    "momentum": {"least": 0, "most": 1},
    "decay_rate": {"least": 0, "most": 1},
    "beta1": {"least": 0, "below": 1},
    "beta2": {"least": 0, "below": 1},
}


def sgd(w: Array, dw: Array, config: Config | None = None) -> tuple[Array, Config]:
    """Do a step of stochastic gradient descent: w - learning_rate·dw.

    Args:
        w: any shape.
        dw: the shape of ``w``.
        config: ``"learning_rate"``, by default 1e-2.
    """
    w, dw, config, settings = _read("sgd", w, dw, config, learning_rate=1e-2)
    config.update(settings)
    return _moved(w, -settings["learning_rate"] * dw), config


def sgd_momentum(w: Array, dw: Array, config: Config | None = None) -> tuple[Array, Config]:
    """Do a step of gradient descent with momentum: v ← momentum·v - learning_rate·dw, then w + v.

    Args:
        w: any shape.
        dw: the shape of ``w``.
        config: ``"learning_rate"``, by default 1e-2; ``"momentum"``, 0.9; v as ``"velocity"``, at first zeros.
    """
    w, dw, config, settings = _read("sgd_momentum", w, dw, config, learning_rate=1e-2, momentum=0.9)
    velocity = settings["momentum"] * _remembered(config, "velocity", w) - settings["learning_rate"] * dw
    config.update(settings, velocity=velocity)
    return _moved(w, velocity), config


def rmsprop(w: Array, dw: Array, config: Config | None = None) -> tuple[Array, Config]:
    """Do a step of RMSProp: c ← decay_rate·c + (1 - decay_rate)·dw², then w - learning_rate·dw / (√c + epsilon).

    Args:
        w: any shape.
        dw: the shape of ``w``.
        config: ``"learning_rate"``, by default 1e-2; ``"decay_rate"``, 0.99; ``"epsilon"``, 1e-8; c as ``"cache"``,
            at first zeros.
    """
    defaults = {"learning_rate": 1e-2, "decay_rate": 0.99, "epsilon": 1e-8}
    w, dw, config, settings = _read("rmsprop", w, dw, config, **defaults)
    rate, decay, epsilon = settings.values()
    cache = decay * _remembered(config, "cache", w) + (1 - decay) * dw * dw
    config.update(settings, cache=cache)
    return _moved(w, -rate * dw / (array_module(w).sqrt(cache) + epsilon)), config


def adam(w: Array, dw: Array, config: Config | None = None) -> tuple[Array, Config]:
    """Do a step of Adam (Kingma and Ba, 2015): w - learning_rate·m̂ / (√v̂ + epsilon).

    With t ← t + 1, m ← beta1·m + (1 - beta1)·dw and v ← beta2·v + (1 - beta2)·dw², m̂ = m / (1 - beta1ᵗ) and
    v̂ = v / (1 - beta2ᵗ).

    Args:
        w: any shape.
        dw: the shape of ``w``.
        config: ``"learning_rate"``, by default 1e-3; ``"beta1"``, 0.9, and ``"beta2"``, 0.999, both below 1;
            ``"epsilon"``, 1e-8; ``"m"`` and ``"v"``, at first zeros; ``"t"``, the number of steps so far, at first 0.
    """
    defaults = {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
    w, dw, config, settings = _read("adam", w, dw, config, **defaults)
    rate, beta1, beta2, epsilon = settings.values()
    t = whole("config['t']", config.get("t", 0), 0, floats=True) + 1
    m = beta1 * _remembered(config, "m", w) + (1 - beta1) * dw
    v = beta2 * _remembered(config, "v", w) + (1 - beta2) * dw * dw
    config.update(settings, m=m, v=v, t=t)
    root = array_module(w).sqrt(v / (1 - beta2**t))
    return _moved(w, -rate * (m / (1 - beta1**t)) / (root + epsilon)), config


def _read(
    rule: str, w: Array, dw: Array, config: Config | None, **defaults: float
) -> tuple[Array, Array, Config, Config]:
    """Return ``w``, ``dw`` in the dtype of sums, the dictionary to update, and the hyper-parameters as numbers."""
    (w,), (dw,) = operands(rule, w=w), operands(rule, dw=dw)
    require_same_device(w, dw)
    if w.shape != dw.shape:
        raise ValueError(f"{rule} needs w and dw of one shape, got {shapes(w, dw)}")
    config = {} if config is None else config
    dictionary("config", config, (), _KEYS[rule], _ANY_KEY)
    settings = {
        name: real(f"config[{name!r}]", config.get(name, default), **_RANGES[name])
        for name, default in defaults.items()
    }
    return w, dw.astype(acc_dtype(w.dtype), copy=False), config, settings


def _remembered(config: Config, name: str, w: Array) -> Array:
    """Return the state under a name, in the dtype of sums: zeros at first."""
    dtype = acc_dtype(w.dtype)
    if config.get(name) is None:
        return array_module(w).zeros(w.shape, dtype)
    (array,) = operands("config", **{name: config[name]})
    require_same_device(w, array)
    if array.shape != w.shape:
        raise ValueError(f"config[{name!r}] must have the shape of w, {w.shape}, got {array.shape}")
    return array.astype(dtype, copy=False)


def _moved(w: Array, step: Array) -> Array:
    return (w + step).astype(w.dtype, copy=False)
