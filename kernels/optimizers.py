"""Run the updates of optimizers in C, each number read once and written once.

What they compute say ``training.optim.optimizers``, by NumPy, and ``optimizers.c``, to the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping

from backend.types import Array
from kernels.core import native
from kernels.core.dispatch import implementation
from kernels.core.dtypes import acc_dtype
from kernels.core.native import Function

SGD, MOMENTUM, NESTEROV, ADAGRAD, RMSPROP, ADAM, ADAMW = (
    Function("optimizers.c", name) for name in ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw")
)
_MOVE_TOWARDS = Function("optimizers.c", "move_towards")


def can_update(*arrays: Array) -> bool:
    """Return whether ``update`` takes these parameters, gradients and state: the C kernels compute, and all are
    C-contiguous."""
    return native.computes(arrays[0].dtype) and all(array.flags.c_contiguous for array in arrays)


def update(
    kernel: Function,
    parameters: Array,
    gradients: Array,
    state: Mapping[str, Array],
    numbers: Mapping[str, float],
    multiplier: float | None,
) -> None:
    """Change parameters and state by one step.

    Args:
        kernel: one of this module's; it names its arrays of state and its numbers.
        parameters, gradients: of one shape and dtype, as ``can_update`` wants them.
        state: arrays of that shape in the dtype of sums. One called ``"master"`` holds the parameters in that dtype.
        numbers: plain numbers; ``decay`` times a parameter is added to its gradient.
        multiplier: of the gradients; None for none.
    """
    count = parameters.size
    given = {
        "parameters": parameters,
        "gradients": gradients,
        "master": None,
        **state,
        **numbers,
        "scaled": multiplier is not None,
        "multiplier": 1.0 if multiplier is None else float(multiplier),
        "count": count,
    }
    arguments = [given[parameter.name] for parameter in kernel.parameters[:-2]]
    item_bytes = 3 * parameters.itemsize + 8 * len(state)
    kernel.share(parameters.dtype, count, item_bytes, *arguments)


def move_towards(average: Array, values: Array, rate: float) -> None:
    """Move an average in place: average += (values - average)·rate, in the dtype of sums, that of ``average``.

    Raises:
        ValueError: the shapes differ.
    """
    if average.shape != values.shape:
        raise ValueError(f"values must have the shape of the average, {average.shape}, got {values.shape}")
    implementation(values, _move_towards_with_library, _move_towards_with_library, _move_towards_native)(
        average, values, rate
    )


def _move_towards_with_library(average: Array, values: Array, rate: float) -> None:
    difference = values - average
    difference *= rate
    average += difference


def _move_towards_native(average: Array, values: Array, rate: float) -> None:
    if not (average.flags.c_contiguous and values.flags.c_contiguous and average.dtype == acc_dtype(values.dtype)):
        _move_towards_with_library(average, values, rate)
        return
    item_bytes = 2 * average.itemsize + values.itemsize
    _MOVE_TOWARDS.share(values.dtype, values.size, item_bytes, average, values, rate, values.size)
