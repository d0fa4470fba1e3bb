"""What all optimizers have in common: checks, state, weight decay, and how arrays are walked through."""

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, ClassVar

import numpy

from backend import array_module, asnumpy
from kernels.gemm import accumulator
from kernels.updates import update_on_device
from training.parameters import ParameterDict
from training.pieces import pieces

Arrays = Mapping[str, Any]
_Layout = list[tuple[str, tuple[int, ...], Any]]


class Hyperparameter:
    """A number of an optimizer: a Python float, finite, in [0, below) (in (0, below) if ``positive``).

    Checked when set, so that ``update`` need not. NumPy scalars become Python floats, which leave an array's
    dtype as it is.
    """

    def __init__(self, below: float = math.inf, positive: bool = False) -> None:
        self.below = below
        self.positive = positive

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, optimizer: Any, owner: type) -> float:
        if optimizer is None:
            raise AttributeError(f"{self.name} belongs to an optimizer, not to its class {owner.__name__}")
        return optimizer.__dict__[self.name]

    def __set__(self, optimizer: Any, value: float) -> None:
        what = f"{type(optimizer).__name__}: {self.name}"
        if not isinstance(value, Real):
            raise TypeError(f"{what} must be a number, got {type(value).__name__} {value!r}")
        low_enough = math.isfinite(value) and value < self.below
        if not low_enough or value < 0 or (self.positive and value == 0):
            interval = f"{'(' if self.positive else '['}0, {self.below:g})"
            raise ValueError(f"{what} must be finite and in {interval}, got {value!r}")
        optimizer.__dict__[self.name] = float(value)


class Optimizer:
    """Base of the optimizers.

    ``update(params, grads)`` works on any two dicts of floating-point arrays with the same names, shapes and
    dtypes, on the library that the arrays belong to. Where both have ``.flat`` buffers of one layout
    (``ParameterDict``), it runs on the buffers; the result is the same to the last bit. Nothing waits for the
    device.

    Attributes:
        lr: the learning rate η; a schedule sets it between updates.
        weight_decay: adds weight_decay·θ to each gradient (L2), unless the class says otherwise.
        t: how many updates were made.
        state: per slot (``"m"``, ``"v"``, …) and parameter name, an array of the parameter's shape and dtype;
            made by the first update. For float16 parameters the state is float32, and so is the arithmetic;
            only the parameter is rounded to float16.
    """

    slots: ClassVar[tuple[str, ...]] = ()
    scratch: ClassVar[int] = 1
    coupled_decay: ClassVar[bool] = True
    device_formula: ClassVar[str]
    """The formula of :meth:`_step` as :func:`kernels.updates.update_on_device` takes it."""
    lr = Hyperparameter()
    weight_decay = Hyperparameter()

    def __init__(self, **hyperparameters: float) -> None:
        for name, value in hyperparameters.items():
            setattr(self, name, value)
        self._hyperparameters = tuple(hyperparameters)
        self.t = 0
        self.state: dict[str, dict[str, Any]] = {slot: {} for slot in self.slots}
        self._layout: _Layout | None = None
        self._library: Any = None
        self._flat_size: int | None = None

    def update(self, params: Arrays, grads: Arrays) -> None:
        """Makes one step: changes the arrays in ``params`` in place, and leaves ``grads`` as they are.

        Nothing is changed when it raises.

        Raises:
            ValueError: names, shapes or dtypes of the two differ, or are not those of the optimizer's state.
            TypeError: a value is not an array, not of floating point, or host and device arrays are mixed.
        """
        flat_params: Any = getattr(params, "flat", None)
        flat_grads: Any = getattr(grads, "flat", None)
        is_flat = flat_params is not None and flat_grads is not None
        arrays = (flat_params, flat_grads) if is_flat else (*params.values(), *grads.values())
        xp = array_module(*arrays)
        layout = _layout("params", params)
        grads_layout = _layout("grads", grads)
        if layout != grads_layout:
            _refuse_difference(layout, grads_layout)
            is_flat = False  # one order of names, another of grads
        is_new = layout != self._layout or xp is not self._library
        if is_new or not is_flat:
            _refuse_unfit(xp, params)
        if is_new:
            self._bind(xp, layout)
        self.t += 1
        if is_flat and flat_params.size == flat_grads.size == self._flat_size:
            buffers = [self.state[slot].flat for slot in self.slots]  # type: ignore[attr-defined]
            self._update_array(xp, flat_params, flat_grads, buffers)
        else:
            for name, p in params.items():
                self._update_array(xp, p, grads[name], [self.state[slot][name] for slot in self.slots])

    def _update_array(self, xp: Any, params: Any, grads: Any, state: list[Any]) -> None:
        dtype = accumulator(params.dtype)  # in float16 Adam's eps and small squares are 0
        decay = self.weight_decay if self.coupled_decay else 0.0
        if xp is not numpy:
            formula = f"g = p * decay + g; {self.device_formula}" if decay else self.device_formula
            scalars = self._step_scalars() | ({"decay": decay} if decay else {})
            named = dict(zip(self.slots, state, strict=True))
            update_on_device(type(self).__name__, formula, scalars, params, grads, named)
            return
        own_gradient = decay != 0.0 or grads.dtype != dtype
        arrays = (params, grads, *state)
        for (p, g, *slots), scratch in pieces(arrays, dtype, self.scratch + own_gradient):
            if own_gradient:
                gradient = scratch.pop()
                if decay:
                    xp.multiply(p, decay, out=gradient, dtype=dtype)
                    xp.add(gradient, g, out=gradient)
                else:
                    xp.copyto(gradient, g)
                g = gradient
            self._step(xp, p, g, slots, scratch)

    def _step_scalars(self) -> dict[str, float]:
        """The plain numbers in :attr:`device_formula`, by name."""
        return {"lr": self.lr}

    def _step(self, xp: Any, p: Any, g: Any, state: list[Any], scratch: list[Any]) -> None:
        """The formula, elementwise: changes ``p`` and ``state`` (one array a slot), leaves ``g``.

        All arrays have one shape. ``g``, ``state`` and ``scratch`` (as many as the class says) are of the
        dtype to compute in; ``p`` may be float16 beside float32.
        """
        raise NotImplementedError(f"{type(self).__name__} has no update formula")

    def _bind(self, xp: Any, layout: _Layout) -> None:
        """Makes state for parameters of this layout, with the values of what state there is so far."""
        dtypes = {name: accumulator(dtype) for name, _, dtype in layout}
        for slot, arrays in self.state.items():
            if self.t or arrays:
                _refuse_other_state(slot, arrays, [(name, shape, dtypes[name]) for name, shape, _ in layout])
        shapes = {name: shape for name, shape, _ in layout}
        one_dtype = len(set(dtypes.values())) == 1
        state: dict[str, dict[str, Any]] = {}
        for slot in self.slots:
            if one_dtype:
                state[slot] = ParameterDict(shapes, next(iter(dtypes.values())), xp)
            else:
                state[slot] = {name: xp.zeros(shape, dtypes[name]) for name, shape in shapes.items()}
        for slot, arrays in self.state.items():
            for name, saved in arrays.items():
                state[slot][name][...] = saved if array_module(saved) is xp else xp.asarray(asnumpy(saved))
        self.state, self._layout, self._library = state, layout, xp
        self._flat_size = sum(map(math.prod, shapes.values())) if one_dtype else None

    def state_dict(self) -> dict[str, Any]:
        """All that a bitwise resume needs, as one flat dict of plain numbers and arrays.

        Holds ``"t"`` (int), the hyperparameters by name (floats) and ``"<slot>.<parameter>"``, say ``"m.W1"``
        (copies of the state arrays, on the device where they are).
        """
        saved: dict[str, Any] = {"t": self.t}
        saved.update((name, getattr(self, name)) for name in self._hyperparameters)
        for slot, arrays in self.state.items():
            saved.update((f"{slot}.{name}", array.copy()) for name, array in arrays.items())
        return saved

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Takes over what :meth:`state_dict` of an optimizer of this class gave; ``saved`` is copied.

        Numbers may have become 0-d arrays. State arrays may lie on any device, and move to that of the
        parameters at the next update, which also checks their names, shapes and dtypes.

        Raises:
            ValueError: an entry is missing, unknown or out of its range; nothing is changed.
        """
        numbers = ("t", *self._hyperparameters)
        state: dict[str, dict[str, Any]] = {slot: {} for slot in self.slots}
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
            raise ValueError(f"not a state of {type(self).__name__}: {_names(missing, unknown)}")
        t = int(saved["t"])
        if t < 0:
            raise ValueError(f"not a state of {type(self).__name__}: t must be 0 or more, got {t}")
        checked = type(self)(**{name: float(saved[name]) for name in self._hyperparameters})
        checked.t = t
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


def _layout(what: str, arrays: Arrays) -> _Layout:
    try:
        return [(name, array.shape, array.dtype) for name, array in arrays.items()]
    except AttributeError:
        name, value = next((n, v) for n, v in arrays.items() if not hasattr(v, "dtype"))
        raise TypeError(f"{what}[{name!r}] is {type(value).__name__}, not an array") from None


def _names(missing: list[str], extra: list[str]) -> str:
    """Says which names are missing and which are not wanted."""
    said = [f"{word} {', '.join(map(repr, names))}" for word, names in (("lacks", missing), ("has unknown", extra))]
    return " and ".join(text for text, names in zip(said, (missing, extra), strict=True) if names)


def _refuse_unfit(xp: Any, params: Arrays) -> None:
    """Raises unless every parameter can be updated in place."""
    for name, p in params.items():
        if not isinstance(p, xp.ndarray) or p.dtype.kind != "f":
            kind = f"of dtype {p.dtype}" if isinstance(p, xp.ndarray) else type(p).__name__
            raise TypeError(f"params[{name!r}] is {kind}; an optimizer needs floating-point arrays")
        if not getattr(p.flags, "writeable", True):
            raise ValueError(f"params[{name!r}] is read-only; an optimizer changes it in place")


def _refuse_difference(params: _Layout, grads: _Layout) -> None:
    """Raises unless ``grads`` has the arrays of ``params``, in whatever order."""
    given = {name: (shape, dtype) for name, shape, dtype in grads}
    wanted = {name: (shape, dtype) for name, shape, dtype in params}
    if given.keys() != wanted.keys():
        missing = [name for name in wanted if name not in given]
        extra = [name for name in given if name not in wanted]
        raise ValueError(f"grads and params differ: grads {_names(missing, extra)}")
    for name, (shape, dtype) in wanted.items():
        if given[name] != (shape, dtype):
            raise ValueError(
                f"grads[{name!r}] is {given[name][1]}{list(given[name][0])}, "
                f"but params[{name!r}] is {dtype}{list(shape)}"
            )


def _refuse_other_state(slot: str, state: Arrays, layout: _Layout) -> None:
    """Raises unless the state has one array for each parameter, of the shape and dtype in ``layout``."""
    missing = [name for name, _, _ in layout if name not in state]
    extra = [name for name in state if name not in {name for name, _, _ in layout}]
    if missing or extra:
        raise ValueError(f"the optimizer's state {slot!r} is of other parameters: it {_names(missing, extra)}")
    for name, shape, dtype in layout:
        held = state[name]
        if held.shape != shape or held.dtype != dtype:
            raise ValueError(
                f"the optimizer's state {slot!r} of {name!r} is {held.dtype}{list(held.shape)}, "
                f"but the parameter needs {dtype}{list(shape)}"
            )
