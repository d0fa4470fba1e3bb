"""Base class of the optimizers: checks, state, weight decay, and the two ways to run a formula."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy

from backend import array_module, profiling
from backend.checks import Hyperparameter, instance, whole
from backend.graph_numbers import numbers, repeat
from backend.types import Array
from kernels import optimizers as compiled
from kernels.core.dtypes import acc_dtype
from kernels.core.native import Function
from kernels.loss_scale import FINITE, MULTIPLIER
from training.optim.checks import Arrays, Layout, check_parameters, check_same_layout, check_state, layout_of
from training.optim.formulas import Scaled, update_on_device, update_on_host
from training.optim.groups import EVERYTHING, Group, checked_group, groups_of, runs_of
from training.optim.state import State, make_state, split_state


class Optimizer:
    """Base of the optimizers.

    ``update(params, grads)`` works on any two dicts of floating-point arrays with the same names, shapes and
    dtypes, on the library that the arrays belong to. Where both have ``.flat`` buffers of one layout
    (``ParameterDict``), it runs on the buffers; the result is the same to the last bit. Nothing waits for the
    device.

    A subclass has ``slots``, ``formula``, and a ``Hyperparameter`` for each of its own numbers. One whose
    numbers are not the hyperparameters themselves overrides ``_numbers``; one whose numbers depend on the count of
    steps has a ``correction`` too.

    Attributes:
        lr: the learning rate η; a schedule sets it between updates.
        weight_decay: adds weight_decay·θ to each gradient (L2), unless the class says otherwise.
        t: how many updates were made, including those that a loss scale skipped. On a GPU the device alone knows which
            were skipped; it counts them in an array of the optimizer's.
        groups: ``Group`` objects, of parameters with their own rate and decay; ``group`` adds one.
        state: per slot (``"m"``, ``"v"``, …) and parameter name, an array of the parameter's shape and dtype;
            made by the first update. For float16 parameters the state is float32, and so is the arithmetic; a further
            slot ``"master"`` keeps the parameters themselves in float32, so that steps too small for float16 add up.
    """

    slots: ClassVar[tuple[str, ...]] = ()
    """Names of the arrays that are kept for each parameter; zeros before the first update."""
    formula: ClassVar[str]
    """The update of one element, in what is both Python and C, as ``training.optim.formulas`` takes it."""
    kernel: ClassVar[Function | None] = None
    """The same in a C kernel for the host, of this very class: where a subclass has none, NumPy runs the formula."""
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
        self.groups: tuple[Group, ...] = ()
        self.t = 0
        self.skipped: Any = 0  # under a loss scale on a GPU an int32 (1,) there
        self.state: State = {slot: {} for slot in self.slots}
        self._layout: Layout | None = None
        self._library: Any = None
        self._flat_size: int | None = None

    def group(self, pattern: str, *, lr: float | None = None, weight_decay: float | None = None) -> Optimizer:
        """Give parameters a learning rate or weight decay of their own. Return the optimizer.

        A schedule scales their rate as it does the optimizer's. Of several groups that a parameter fits, the first
        counts.

        Args:
            pattern: of their names: "W1", "*.b", "Convolution1.W", or "Convolution*" for all of these layers.
            lr: their learning rate, where the optimizer's is what it is now; None for the same.
            weight_decay: None for the optimizer's.

        Raises:
            TypeError: the pattern is not a string, or another argument not a number.
            ValueError: a number is out of range, or ``lr`` is given where the optimizer's is 0. A pattern that matches
                nothing is refused by the first update.

        Examples:
            >>> from training import Adam
            >>> Adam(lr=0.001).group("Convolution*", lr=0.0001).group("*.b", weight_decay=0).groups[1].weight_decay
            0.0
        """
        self.groups = (*self.groups, checked_group(pattern, lr, weight_decay, self.lr))
        return self

    def update(self, params: Arrays, grads: Arrays, control: Array | None = None) -> None:
        """Make one step: change the arrays in ``params`` in place, and leave ``grads`` as they are.

        Frozen parameters of a network (``Network.freeze``) are left out.

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
        group_of = groups_of(params, self.groups) if self.groups or getattr(params, "frozen", ()) else None
        if is_new:
            self._bind(xp, layout)
        on_device = control is not None and xp is not numpy
        self._move_count(xp, on_device)
        if control is not None and xp is numpy and not control[FINITE]:
            self.skipped += 1
            self.t += 1
            return

        if is_flat and flat_params.size == flat_grads.size == self._flat_size:
            buffers = {slot: arrays.flat for slot, arrays in self.state.items()}  # type: ignore[attr-defined]
            if group_of is None:
                self._update_array(xp, flat_params, flat_grads, buffers, EVERYTHING, control, counts=True)
            for place, (start, stop, group) in enumerate([] if group_of is None else runs_of(params, group_of)):
                cut = slice(start, stop)
                state = {slot: buffer[cut] for slot, buffer in buffers.items()}
                self._update_array(xp, flat_params[cut], flat_grads[cut], state, group, control, place == 0)
        else:
            learned = dict.fromkeys(params, EVERYTHING) if group_of is None else group_of
            counting = next((name for name in learned if params[name].size), None)
            for name, group in learned.items():
                state = {slot: arrays[name] for slot, arrays in self.state.items()}
                self._update_array(xp, params[name], grads[name], state, group, control, name == counting)
        repeat(self._count)

    def _current(self, group: Group, on_device: bool) -> dict[str, float]:
        """Return the plain numbers of a group's update, as they are now."""
        lr = self.lr if group.factor == 1 else self.lr * group.factor
        return self._numbers(None if on_device else self.t + 1 - self.skipped, lr, self._decay(group))

    def _decay(self, group: Group) -> float:
        return self.weight_decay if group.weight_decay is None else group.weight_decay

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
        group: Group,
        control: Array | None,
        counts: bool,
    ) -> None:
        """Make the step of one array or buffer; one of them ``counts`` a step that the device skips."""
        decay = self._decay(group) if self.coupled_decay else 0.0
        formula = f"g = p * decay + g; {self.formula}" if decay else self.formula
        if xp is numpy:
            numbers_now = {**self._current(group, on_device=False), "decay": decay}
            multiplier = None if control is None else control[MULTIPLIER]
            kernel = vars(type(self)).get("kernel")
            if kernel is not None and compiled.can_update(params, grads, *state.values()):
                compiled.update(kernel, params, grads, state, numbers_now, multiplier)
            else:
                update_on_host(formula, numbers_now, params, grads, state, multiplier)
            return
        scaled = None if control is None else Scaled(control, self.skipped, counts)
        corrects = scaled is not None and bool(self.correction)
        if corrects:
            formula = f"const auto t = calls - skipped[0]; {self.correction} {formula}"

        def named() -> dict[str, float]:
            found = self._current(group, on_device=control is not None)
            if decay:
                found = {**found, "decay": self._decay(group)}
            return {**found, "calls": self.t + 1} if corrects else found

        values = numbers(lambda: list(named().values()), acc_dtype(params.dtype))
        by_name = dict(zip(named(), values, strict=True))
        update_on_device(type(self).__name__, formula, by_name, params, grads, state, scaled)

    def _numbers(self, t: int | None, lr: float, weight_decay: float) -> dict[str, float]:
        """Return the plain numbers in ``formula`` by name: unless overridden, the hyperparameters.

        Args:
            t: steps made, this one included; None under a loss scale on a GPU: the device computes what depends on it,
                by ``correction``, whose numbers are wanted then.
            lr, weight_decay: of the group of parameters.
        """
        return {name: getattr(self, name) for name in self._hyperparameters if name != "weight_decay"} | {"lr": lr}

    def _bind(self, xp: Any, layout: Layout) -> None:
        """Make state for parameters of this layout, with the values of the present state."""
        dtypes = {name: acc_dtype(dtype) for name, _, dtype in layout}
        for slot, arrays in self.state.items():
            if self.t or arrays:
                check_state(slot, arrays, [(name, shape, dtypes[name]) for name, shape, _ in layout])
        state = make_state(self.slots, self.state, xp, layout, dtypes)
        self.state, self._layout, self._library = state, layout, xp
        one_dtype = len(set(dtypes.values())) == 1
        self._flat_size = sum(math.prod(shape) for _, shape, _ in layout) if one_dtype else None

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
        state = split_state(type(self).__name__, saved, ("t", "skipped", *self._hyperparameters), self.slots)
        t = whole(f"not a state of {type(self).__name__}: t", saved["t"], 0)
        skipped = whole(f"not a state of {type(self).__name__}: skipped", saved["skipped"], 0, t)
        checked = type(self)(**{name: saved[name] for name in self._hyperparameters})
        checked.t, checked.skipped = t, skipped
        checked.state = {slot: {name: array.copy() for name, array in arrays.items()} for slot, arrays in state.items()}
        checked.groups = self.groups
        vars(self).update(vars(checked))

    def __getstate__(self) -> tuple[dict[str, Any], tuple[Group, ...]]:
        # Copies and pickles go by the state dict: the views of the flat buffers would come apart from them.
        return self.state_dict(), self.groups

    def __setstate__(self, saved: tuple[dict[str, Any], tuple[Group, ...]]) -> None:
        self.__init__()  # type: ignore[misc]
        self.load_state_dict(saved[0])
        self.groups = saved[1]

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name}={getattr(self, name):g}" for name in self._hyperparameters)
        return f"{type(self).__name__}({numbers})"
