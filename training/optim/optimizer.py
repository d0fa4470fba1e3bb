"""What all optimizers have in common: checks, state, weight decay, and how arrays are walked through."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy

from backend import array_module, asnumpy, profiling, require_arrays
from backend.checks import Hyperparameter, instance, whole
from kernels.core.dtypes import acc_dtype
from kernels.loss_scale import FINITE, MULTIPLIER
from kernels.updates import master_of, update_on_device
from training.models.parameters import ParameterDict
from training.optim.checks import (
    Arrays,
    Layout,
    layout_of,
    names,
    refuse_difference,
    refuse_other_state,
    refuse_unfit,
)
from training.optim.pieces import pieces


class Optimizer:
    """Base of the optimizers.

    ``update(params, grads)`` works on any two dicts of floating-point arrays with the same names, shapes and
    dtypes, on the library that the arrays belong to. Where both have ``.flat`` buffers of one layout
    (``ParameterDict``), it runs on the buffers; the result is the same to the last bit. Nothing waits for the
    device.

    Attributes:
        lr: the learning rate η; a schedule sets it between updates.
        weight_decay: adds weight_decay·θ to each gradient (L2), unless the class says otherwise.
        t: how many updates were made, those included that a loss scale made skip. Which of them were skipped the
            device knows; how many is counted there, too, in the optimizer's own array.
        state: per slot (``"m"``, ``"v"``, …) and parameter name, an array of the parameter's shape and dtype;
            made by the first update. For float16 parameters the state is float32, and so is the arithmetic; a further
            slot ``"master"`` keeps the parameters themselves in float32, so that steps too small for float16 add up.
    """

    slots: ClassVar[tuple[str, ...]] = ()
    scratch: ClassVar[int] = 1
    coupled_decay: ClassVar[bool] = True
    device_formula: ClassVar[str]
    """The formula of ``_step`` as ``kernels.updates.update_on_device`` takes it."""
    device_correction: ClassVar[str] = ""
    """What stands before it under a loss scale, where the device alone knows how many steps were ``skipped[0]``."""
    lr = Hyperparameter(least=0)
    weight_decay = Hyperparameter(least=0)

    def __init__(self, **hyperparameters: float) -> None:
        for name, value in hyperparameters.items():
            setattr(self, name, value)
        self._hyperparameters = tuple(hyperparameters)
        self.t = 0
        self._steps = 0  # of the update under way, where the host knows it: how many were made, it included
        self._skipped: Any = 0  # under a loss scale on a GPU an int32 (1,) there
        self.state: dict[str, dict[str, Any]] = {slot: {} for slot in self.slots}
        self._layout: Layout | None = None
        self._library: Any = None
        self._flat_size: int | None = None

    def update(self, params: Arrays, grads: Arrays, control: Any = None) -> None:
        """Makes one step: changes the arrays in ``params`` in place, and leaves ``grads`` as they are.

        Nothing is changed when it raises. Nothing waits for the device, but the first update without ``control`` after
        one with it on a GPU.

        Args:
            params: floating-point arrays by name.
            grads: their gradients, by the same names.
            control: of a ``training.optim.LossScaler``: what the gradients are multiplied by, and whether
                this step is to be skipped.

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
            refuse_difference(layout, grads_layout)
            is_flat = False  # one order of names, another of grads
        is_new = layout != self._layout or xp is not self._library
        if is_new or not is_flat:
            refuse_unfit(xp, params)
        if is_new:
            self._bind(xp, layout)
        self._keep_count(xp, on_device=control is not None and xp is not numpy)
        if control is not None and xp is numpy and not control[FINITE]:
            self._skipped += 1
            self.t += 1
            return
        if is_flat and flat_params.size == flat_grads.size == self._flat_size:
            buffers = {slot: arrays.flat for slot, arrays in self.state.items()}  # type: ignore[attr-defined]
            self._update_array(xp, flat_params, flat_grads, buffers, control, counts=True)
        else:
            counting = next((name for name, p in params.items() if p.size), None)
            for name, p in params.items():
                state = {slot: arrays[name] for slot, arrays in self.state.items()}
                self._update_array(xp, p, grads[name], state, control, name == counting)
        self.t += 1

    def _keep_count(self, xp: Any, on_device: bool) -> None:
        """Puts the count of skipped steps where this update needs it."""
        if not on_device:
            self._skipped = self._skipped if isinstance(self._skipped, int) else int(self._skipped[0])
            self._steps = self.t + 1 - self._skipped
        elif isinstance(self._skipped, int):
            self._skipped = xp.full(1, self._skipped, "int32")

    @profiling.operation
    def _update_array(
        self, xp: Any, params: Any, grads: Any, state: dict[str, Any], control: Any, counts: bool
    ) -> None:
        """The step of one array or buffer; that which ``counts`` notes on a device that it was skipped."""
        dtype = acc_dtype(params.dtype)  # in float16 Adam's eps and small squares are 0
        decay = self.weight_decay if self.coupled_decay else 0.0
        master = state.get("master")
        if xp is not numpy:
            scalars = self._step_scalars() if control is None else self._scaled_scalars()
            scalars |= {"decay": decay} if decay else {}
            parts = (self.device_correction if control is not None else "", "g = p * decay + g;" if decay else "")
            formula = " ".join([*parts, self.device_formula])
            own = {slot: state[slot] for slot in self.slots}
            scaled = {} if control is None else {"control": control, "skipped": self._skipped, "counts": counts}
            update_on_device(type(self).__name__, formula, scalars, params, grads, own, master, **scaled)
            return
        own_gradient = decay != 0.0 or grads.dtype != dtype or control is not None
        arrays = (params, params if master is None else master, grads, *(state[slot] for slot in self.slots))
        for (p, wide, g, *slots), scratch in pieces(arrays, dtype, self.scratch + own_gradient):
            if master is not None:
                xp.copyto(wide, master_of(p, wide))
            if own_gradient:
                gradient = scratch.pop()
                if control is not None:
                    g = xp.multiply(g, control[MULTIPLIER], out=gradient, dtype=dtype)
                if decay:
                    xp.multiply(wide, decay, out=scratch[0])
                    xp.add(scratch[0], g, out=gradient)
                elif control is None:
                    xp.copyto(gradient, g)
                g = gradient
            self._step(xp, wide, g, slots, scratch)
            if master is not None:
                xp.copyto(p, wide, casting="same_kind")

    def _step_scalars(self) -> dict[str, float]:
        """The plain numbers in ``device_formula``, by name."""
        return {"lr": self.lr}

    def _scaled_scalars(self) -> dict[str, float]:
        """Those in ``device_correction`` and ``device_formula``, where the number of steps is not known."""
        return self._step_scalars()

    def _step(self, xp: Any, p: Any, g: Any, state: list[Any], scratch: list[Any]) -> None:
        """The formula, elementwise: changes ``p`` and ``state`` (one array a slot), leaves ``g``.

        All arrays have one shape and the dtype to compute in; of ``scratch`` there are as many as the class says.
        """
        raise NotImplementedError(f"{type(self).__name__} has no update formula")

    def _bind(self, xp: Any, layout: Layout) -> None:
        """Makes state for parameters of this layout, with the values of what state there is so far."""
        dtypes = {name: acc_dtype(dtype) for name, _, dtype in layout}
        for slot, arrays in self.state.items():
            if self.t or arrays:
                refuse_other_state(slot, arrays, [(name, shape, dtypes[name]) for name, shape, _ in layout])
        shapes = {name: shape for name, shape, _ in layout}
        one_dtype = len(set(dtypes.values())) == 1
        # A master starts at 0, which is not what the parameters are: they are taken over by the first update.
        needs_master = any(dtype != dtypes[name] for name, _, dtype in layout)
        state: dict[str, dict[str, Any]] = {}
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
        """All that a bitwise resume needs, as one flat dict of plain numbers and arrays.

        Holds ``"t"`` and ``"skipped"`` (how many of the updates a loss scale made skip; ints, the second an array where
        the device counts), the hyperparameters by name (floats) and ``"<slot>.<parameter>"``, say ``"m.W1"`` (copies of
        the state arrays, on the device where they are).
        """
        skipped = self._skipped if isinstance(self._skipped, int) else self._skipped[0].copy()
        saved: dict[str, Any] = {"t": self.t, "skipped": skipped}
        saved.update((name, getattr(self, name)) for name in self._hyperparameters)
        for slot, arrays in self.state.items():
            saved.update((f"{slot}.{name}", array.copy()) for name, array in arrays.items())
        return saved

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Takes over what ``state_dict`` of an optimizer of this class gave; ``saved`` is copied.

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
            raise ValueError(f"not a state of {type(self).__name__}: {names(missing, unknown)}")
        for slot, arrays in state.items():
            require_arrays(**{f"{slot}.{name}": array for name, array in arrays.items()})
        t = whole(f"not a state of {type(self).__name__}: t", saved["t"], 0)
        skipped = whole(f"not a state of {type(self).__name__}: skipped", saved["skipped"], 0, t)
        checked = type(self)(**{name: saved[name] for name in self._hyperparameters})
        checked.t, checked._skipped = t, skipped
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
