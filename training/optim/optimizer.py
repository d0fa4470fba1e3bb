"""Base class of the optimizers: checks, state, weight decay, and the two ways to run a formula."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy

from backend import array_module, asnumpy, profiling, require_arrays
from backend.checks import Hyperparameter, instance, whole
from backend.graph_numbers import numbers, repeat
from backend.types import Array
from kernels.core.dtypes import acc_dtype
from kernels.loss_scale import FINITE, MULTIPLIER
from training.models.parameters import ParameterDict
from training.optim.checks import (
    Arrays,
    Layout,
    check_parameters,
    check_same_layout,
    check_state,
    describe_names,
    layout_of,
)
from training.optim.fused import Scaled, update_on_device
from training.optim.pieces import pieces


class Optimizer:
    """Base of the optimizers.

    ``update(params, grads)`` works on any two dicts of floating-point arrays with the same names, shapes and
    dtypes, on the library that the arrays belong to. Where both have ``.flat`` buffers of one layout
    (``ParameterDict``), it runs on the buffers; the result is the same to the last bit. Nothing waits for the
    device.

    A subclass has ``slots``, ``formula``, ``_step``, and a ``Hyperparameter`` for each of its own numbers. One whose
    numbers are not the hyperparameters themselves overrides ``_numbers``; one whose numbers depend on the count of
    steps has a ``correction`` too.

    Attributes:
        lr: the learning rate η; a schedule sets it between updates.
        weight_decay: adds weight_decay·θ to each gradient (L2), unless the class says otherwise.
        t: how many updates were made, including those that a loss scale skipped. On a GPU the device alone knows which
            were skipped; it counts them in an array of the optimizer's.
        state: per slot (``"m"``, ``"v"``, …) and parameter name, an array of the parameter's shape and dtype;
            made by the first update. For float16 parameters the state is float32, and so is the arithmetic; a further
            slot ``"master"`` keeps the parameters themselves in float32, so that steps too small for float16 add up.
    """

    slots: ClassVar[tuple[str, ...]] = ()
    """Names of the arrays that are kept for each parameter; zeros before the first update."""
    formula: ClassVar[str]
    """The update of one element in C, as ``training.optim.fused.update_on_device`` takes it."""
    correction: ClassVar[str] = ""
    """C statements before the formula under a loss scale: the numbers that depend on ``t``, the count of steps made."""
    coupled_decay: ClassVar[bool] = True
    """Add the weight decay to the gradient. False where the formula itself has the decay."""
    lr = Hyperparameter(least=0)
    weight_decay = Hyperparameter(least=0)

    def __init__(self, **hyperparameters: float) -> None:
        for name, value in hyperparameters.items():
            setattr(self, name, value)
        self._hyperparameters = tuple(hyperparameters)
        self.t = 0
        self.skipped: Any = 0  # under a loss scale on a GPU an int32 (1,) there
        self.state: dict[str, dict[str, Array]] = {slot: {} for slot in self.slots}
        self._layout: Layout | None = None
        self._library: Any = None
        self._flat_size: int | None = None

    def update(self, params: Arrays, grads: Arrays, control: Array | None = None) -> None:
        """Make one step: change the arrays in ``params`` in place, and leave ``grads`` as they are.

        Nothing is changed when it raises. Nothing waits for the device, except the first update without ``control``
        after one with it on a GPU.

        Args:
            params: floating-point arrays by name.
            grads: their gradients, by the same names.
            control: of a ``training.optim.LossScaler``: the factor for the gradients, and whether to skip this step.

        Raises:
            ValueError: names, shapes or dtypes of the two differ, or are not those of the optimizer's state.
            TypeError: a value is not an array, not of floating point, or host and device arrays are mixed.
        """
        for name, arrays_by_name in (("params", params), ("grads", grads)):
            if not isinstance(arrays_by_name, dict):
                instance(name, arrays_by_name, Mapping, "a dictionary of arrays")
        flat_params: Any = getattr(params, "flat", None)
        flat_grads: Any = getattr(grads, "flat", None)
        is_flat = flat_params is not None and flat_grads is not None
        arrays = (flat_params, flat_grads) if is_flat else (*params.values(), *grads.values())
        xp = array_module(*arrays, *([] if control is None else [control]))
        layout = layout_of("params", params)
        grads_layout = layout_of("grads", grads)
        if layout != grads_layout:
            check_same_layout(layout, grads_layout)
            is_flat = False  # the names have another order in grads
        is_new = layout != self._layout or xp is not self._library
        if is_new or not is_flat:
            check_parameters(xp, params)
        if is_new:
            self._bind(xp, layout)
        on_device = control is not None and xp is not numpy
        self._move_count(xp, on_device)
        if control is not None and xp is numpy and not control[FINITE]:
            self.skipped += 1
            self.t += 1
            return

        def current() -> dict[str, float]:
            return self._numbers(None if on_device else self.t + 1 - self.skipped)

        if is_flat and flat_params.size == flat_grads.size == self._flat_size:
            buffers = {slot: arrays.flat for slot, arrays in self.state.items()}  # type: ignore[attr-defined]
            self._update_array(xp, flat_params, flat_grads, buffers, current, control, counts=True)
        else:
            counting = next((name for name, p in params.items() if p.size), None)
            for name, p in params.items():
                state = {slot: arrays[name] for slot, arrays in self.state.items()}
                self._update_array(xp, p, grads[name], state, current, control, name == counting)
        repeat(self._count)

    def _count(self) -> None:
        self.t += 1

    def _move_count(self, xp: Any, to_device: bool) -> None:
        """Move the count of skipped steps to where this update needs it."""
        if to_device and isinstance(self.skipped, int):
            self.skipped = xp.full(1, self.skipped, "int32")
        elif not to_device and not isinstance(self.skipped, int):
            self.skipped = int(self.skipped[0])

    @profiling.operation
    def _update_array(
        self,
        xp: Any,
        params: Array,
        grads: Array,
        state: dict[str, Array],
        current: Callable[[], dict[str, float]],
        control: Array | None,
        counts: bool,
    ) -> None:
        """Make the step of one array or buffer; one of them ``counts`` a step that the device skips."""
        decay = self.weight_decay if self.coupled_decay else 0.0
        if xp is numpy:
            self._update_on_host(params, grads, state, current(), decay, control)
            return
        formula = f"g = p * decay + g; {self.formula}" if decay else self.formula
        scaled = None if control is None else Scaled(control, self.skipped, counts)
        corrects = scaled is not None and bool(self.correction)
        if corrects:
            formula = f"const auto t = calls - skipped[0]; {self.correction} {formula}"

        def named() -> dict[str, float]:
            found = {**current(), "decay": self.weight_decay} if decay else current()
            return {**found, "calls": self.t + 1} if corrects else found

        values = numbers(lambda: list(named().values()), acc_dtype(params.dtype))
        by_name = dict(zip(named(), values, strict=True))
        update_on_device(type(self).__name__, formula, by_name, params, grads, state, scaled)

    def _update_on_host(
        self,
        params: Array,
        grads: Array,
        state: dict[str, Array],
        numbers: dict[str, float],
        decay: float,
        control: Array | None,
    ) -> None:
        dtype = acc_dtype(params.dtype)  # in float16 Adam's eps and small squares are 0
        has_master = "master" in state
        needs_copy = decay != 0.0 or grads.dtype != dtype or control is not None
        arrays = (params, grads, state.get("master", params), *(state[slot] for slot in self.slots))
        for (p, g, wide, *slots), (step, spare, gradient) in pieces(arrays, dtype, scratch=3):
            if has_master:  # a parameter that is not its master rounded was set by someone else: it counts
                numpy.copyto(wide, p, where=wide.astype(p.dtype) != p)
            if needs_copy:
                if control is not None:
                    g = numpy.multiply(g, control[MULTIPLIER], out=gradient, dtype=dtype)
                if decay:
                    numpy.multiply(wide, decay, out=step)
                    numpy.add(step, g, out=gradient)
                elif control is None:
                    numpy.copyto(gradient, g)
                g = gradient
            self._step(wide, g, step, spare, *slots, **numbers)
            if has_master:
                numpy.copyto(p, wide, casting="same_kind")

    def _numbers(self, t: int | None) -> dict[str, float]:
        """Return the plain numbers in ``formula`` and ``_step`` by name: unless overridden, the hyperparameters.

        Args:
            t: steps made, this one included; None under a loss scale on a GPU: the device computes what depends on it,
                by ``correction``, whose numbers are wanted then.
        """
        return {name: getattr(self, name) for name in self._hyperparameters if name != "weight_decay"}

    def _step(self, *arrays: Any, **numbers: Any) -> None:
        """Compute the formula with NumPy, elementwise: change p and the slots, and leave g.

        Args:
            arrays: p, g, two scratch arrays, and one array for each of ``slots``: all of one shape and of the dtype to
                compute in.
            numbers: those of ``_numbers``.
        """
        raise NotImplementedError(f"{type(self).__name__} has no update formula")

    def _bind(self, xp: Any, layout: Layout) -> None:
        """Make state for parameters of this layout, with the values of the present state."""
        dtypes = {name: acc_dtype(dtype) for name, _, dtype in layout}
        for slot, arrays in self.state.items():
            if self.t or arrays:
                check_state(slot, arrays, [(name, shape, dtypes[name]) for name, shape, _ in layout])
        shapes = {name: shape for name, shape, _ in layout}
        one_dtype = len(set(dtypes.values())) == 1
        # A master starts at 0, which differs from the parameters: the first update takes their values.
        needs_master = any(dtype != dtypes[name] for name, _, dtype in layout)
        state: dict[str, dict[str, Array]] = {}
        for slot in (*self.slots, *(["master"] if needs_master else [])):
            if one_dtype:
                state[slot] = ParameterDict(shapes, next(iter(dtypes.values())), xp)
            else:
                state[slot] = {name: xp.zeros(shape, dtypes[name]) for name, shape in shapes.items()}
        for slot in state.keys() & self.state.keys():
            for name, saved in self.state[slot].items():
                state[slot][name][...] = saved if array_module(saved) is xp else xp.asarray(asnumpy(saved))
        self.state, self._layout, self._library = state, layout, xp
        self._flat_size = sum(map(math.prod, shapes.values())) if one_dtype else None

    def state_dict(self) -> dict[str, Any]:
        """Return all that a bitwise resume needs, as one flat dict of plain numbers and arrays.

        Holds ``"t"`` and ``"skipped"`` (how many of the updates a loss scale skipped; ints, the second an array where
        the device counts), the hyperparameters by name (floats) and ``"<slot>.<parameter>"``, say ``"m.W1"`` (copies of
        the state arrays, on the device where they are).
        """
        skipped = self.skipped if isinstance(self.skipped, int) else self.skipped[0].copy()
        saved: dict[str, Any] = {"t": self.t, "skipped": skipped}
        saved.update((name, getattr(self, name)) for name in self._hyperparameters)
        for slot, arrays in self.state.items():
            saved.update((f"{slot}.{name}", array.copy()) for name, array in arrays.items())
        return saved

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Load a copy of what ``state_dict`` of an optimizer of this class returned.

        Numbers may have become 0-d arrays. State arrays may lie on any device, and move to that of the
        parameters at the next update, which also checks their names, shapes and dtypes.

        Raises:
            ValueError: an entry is missing, unknown or out of its range; nothing is changed.
        """
        instance("saved", saved, Mapping, "a dictionary, as of state_dict")
        numbers = ("t", "skipped", *self._hyperparameters)
        has_master = any(key.startswith("master.") for key in saved)
        state: dict[str, dict[str, Any]] = {slot: {} for slot in (*self.slots, *(["master"] if has_master else []))}
        unknown = []
        for key, value in saved.items():
            slot, dot, name = key.partition(".")
            if dot and slot in state:
                state[slot][name] = value
            elif key not in numbers:
                unknown.append(key)
        per_slot = [arrays.keys() for arrays in state.values()]
        missing = [key for key in numbers if key not in saved]
        missing += [
            f"{slot}.{name}" for names in per_slot for slot in state for name in names if name not in state[slot]
        ]
        if missing or unknown:
            raise ValueError(f"not a state of {type(self).__name__}: {describe_names(missing, unknown)}")
        for slot, arrays in state.items():
            require_arrays(**{f"{slot}.{name}": array for name, array in arrays.items()})
        t = whole(f"not a state of {type(self).__name__}: t", saved["t"], 0)
        skipped = whole(f"not a state of {type(self).__name__}: skipped", saved["skipped"], 0, t)
        checked = type(self)(**{name: saved[name] for name in self._hyperparameters})
        checked.t, checked.skipped = t, skipped
        checked.state = {slot: {name: array.copy() for name, array in arrays.items()} for slot, arrays in state.items()}
        vars(self).update(vars(checked))

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles go by the state dict: the views of the flat buffers would come apart from them.
        return self.state_dict()

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        self.load_state_dict(saved)

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name}={getattr(self, name):g}" for name in self._hyperparameters)
        return f"{type(self).__name__}({numbers})"
