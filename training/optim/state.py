"""State of an optimizer: arrays by slot ("m", "v", …) and by the name of their parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backend import array_module, asnumpy, require_arrays
from backend.types import Array
from training.models.parameters import ParameterDict
from training.optim.checks import Layout, describe_names

State = dict[str, dict[str, Array]]


def make_state(slots: tuple[str, ...], old: State, xp: Any, layout: Layout, dtypes: Mapping[str, Any]) -> State:
    """Return state for parameters of this layout: the values of ``old``, or zeros.

    Where all have one dtype, a slot is a ``ParameterDict`` with a flat buffer. Where a parameter has a narrower dtype
    than its state, there is a slot "master".

    Args:
        dtypes: of the state, by the parameters' names.
    """
    shapes = {name: shape for name, shape, _ in layout}
    one_dtype = len(set(dtypes.values())) == 1
    # A master starts at 0, which differs from the parameters: the first update takes their values.
    needs_master = any(dtype != dtypes[name] for name, _, dtype in layout)
    state: State = {}
    for slot in (*slots, *(["master"] if needs_master else [])):
        if one_dtype:
            state[slot] = ParameterDict(shapes, next(iter(dtypes.values())), xp)
        else:
            state[slot] = {name: xp.zeros(shape, dtypes[name]) for name, shape in shapes.items()}
    for slot in state.keys() & old.keys():
        for name, saved in old[slot].items():
            state[slot][name][...] = saved if array_module(saved) is xp else xp.asarray(asnumpy(saved))
    return state


def split_state(kind: str, saved: Mapping[str, Any], numbers: tuple[str, ...], slots: tuple[str, ...]) -> State:
    """Return the arrays of a flat dictionary, whose names are "<slot>.<parameter>", by slot and parameter.

    Args:
        kind: the class of the optimizer, for the errors.
        numbers: the names of the other entries.

    Raises:
        ValueError: an entry is missing or unknown.
        TypeError: an entry of a slot is not an array.
    """
    has_master = any(key.startswith("master.") for key in saved)
    state: State = {slot: {} for slot in (*slots, *(["master"] if has_master else []))}
    unknown = []
    for key, value in saved.items():
        slot, dot, name = key.partition(".")
        if dot and slot in state:
            state[slot][name] = value
        elif key not in numbers:
            unknown.append(key)
    missing = [key for key in numbers if key not in saved]
    missing += [
        f"{slot}.{name}" for arrays in state.values() for slot in state for name in arrays if name not in state[slot]
    ]
    if missing or unknown:
        raise ValueError(f"not a state of {kind}: {describe_names(missing, unknown)}")
    for slot, arrays in state.items():
        require_arrays(**{f"{slot}.{name}": array for name, array in arrays.items()})
    return state
