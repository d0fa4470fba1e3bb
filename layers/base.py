"""What every layer is: a forward, a backward, named parameters and gradients, and the shape it makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from backend import array_module, asarray, is_array, require_arrays, require_plain, use, workspace
from backend.checks import choice, flag, floating_dtype, sizes
from backend.types import Array
from kernels.core.dtypes import acc_dtype
from layers.parameters import check_declared, guard_spellings

Shape = tuple[int, ...]
_NOT_GIVEN: Any = object()


class Layer:
    """The base of all layers.

    A layer of one's own derives from this, declares what it learns (``W, dW = parameter()``) and what else it must
    remember between runs (``state_names``), and defines ``forward``, ``backward`` and, if it changes the shape,
    ``output_shape``. ``save`` and ``saved`` carry what backward needs, and check the
    gradient it is given. ``backward`` belongs to the latest ``forward``, and must find the arrays that this one took
    and returned as they were.
    """

    state_names: tuple[str, ...] = ()
    """Attributes that are saved with the parameters but not learned, such as running means."""

    training = True
    """The mode: True in training, False in evaluation; ``train`` and ``eval`` set it."""

    input_gradient = True
    """True if ``backward`` must return the gradient of the input; False for the first layer of a network."""

    _bound = False
    _kept: tuple[Any, ...] | None = None
    _output: tuple[Any, Any, type] = ((), None, object)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_declared(cls)
        guard_spellings(cls)

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        layer = super().__new__(cls)
        layer._params = {}
        layer._grads = {}
        return layer

    _params: dict[str, Any]
    _grads: dict[str, Any]

    def forward(self, x: Any) -> Any:
        """The layer's output for ``x``."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def backward(self, dout: Any) -> Any:
        """The gradient of the latest input, given that of its output; sets the parameters' gradients."""
        raise NotImplementedError(f"{type(self).__name__} defines no backward")

    forward_relu: Callable[[Any], tuple[Any, Any]] | None = None
    """``forward`` fused with a ``layers.Relu`` behind it, for layers that can do both at once; None for others.

    Takes what ``forward`` takes; returns the Relu's output, bit for bit, and a bool array: where it is above 0. A
    ``Sequential`` uses it where the class that defines it defines ``forward``, too.
    """

    def __call__(self, *args: Any) -> Any:
        return self.forward(*args)

    def output_shape(self, shape: Shape) -> Shape:
        """The output's shape for an input of ``shape``, both without the batch axis.

        Raises:
            TypeError: ``shape`` is no tuple of whole numbers.
            ValueError: the layer cannot take such an input.
        """
        return sizes("shape", shape)

    @property
    def params(self) -> dict[str, Any]:
        """The learned arrays by name."""
        return self._params

    @property
    def grads(self) -> dict[str, Any]:
        """Their gradients by the same names, as of the latest backward."""
        return self._grads

    @property
    def state(self) -> dict[str, Any]:
        """The arrays that are saved but not learned, by name."""
        return {name: getattr(self, name) for name in self.state_names}

    def sublayers(self) -> list[tuple[str, Layer]]:
        """The layers this one is made of, with their names in it; none for a plain layer."""
        return []

    def train(self, mode: bool = True) -> Layer:
        """Set the mode of this layer and its sublayers to training, or with False to evaluation. Return the layer.

        Raises:
            TypeError: ``mode`` is neither True nor False.
        """
        self.training = mode if mode is True or mode is False else flag("mode", mode)
        for _, layer in self.sublayers():
            layer.train(mode)
        return self

    def eval(self) -> Layer:
        """Set the mode of this layer and its sublayers to evaluation. Return the layer."""
        return self.train(False)

    def astype(self, dtype: Any) -> Layer:
        """Convert parameters and state to a floating dtype. Return the layer; nothing is copied if it has that dtype.

        State, which accumulates over many steps, stays float32 where parameters become float16.

        Raises:
            TypeError: ``dtype`` is not float16, float32 or float64.
        """
        dtype = floating_dtype("dtype", dtype)
        state_dtype = acc_dtype(dtype)
        return self._replace_arrays(
            lambda array: array.astype(dtype, copy=False), lambda array: array.astype(state_dtype, copy=False)
        )

    def to(self, device: Any) -> Layer:
        """Move parameters and state to a device (as ``backend.use`` takes it). Return the layer."""
        with use(device):
            return self._replace_arrays(asarray, asarray)

    def bind(self, name: str, value: Any, gradient: Any) -> None:
        """Makes the parameter live in ``value`` and its gradient in ``gradient``: views of a model's flat buffers.

        ``value`` takes over what the parameter holds. From now on assignments copy into these arrays.

        Raises:
            TypeError: an argument is no array, or host and device are mixed; nothing was changed.
            ValueError: an array has not the parameter's shape, or there is no such parameter; nothing was changed.
        """
        choice("name", name, tuple(self._params))
        require_arrays(value=value, gradient=gradient)
        array_module(value, gradient, self._params[name])  # refuses a mix of host and device arrays
        shape = self._params[name].shape
        if value.shape != shape or gradient.shape != shape:
            given = value.shape if value.shape != shape else gradient.shape
            raise ValueError(f"{type(self).__name__}.{name} of {shape} cannot live in an array of {given}")
        value[...] = self._params[name]
        self._params[name], self._grads[name] = value, gradient
        self._bound = set(self._params) == set(self._grads)

    def gradient(self, name: str) -> Array:
        """Return the array that ``backward`` fills with the gradient of a parameter.

        It is ``grads[name]`` from now on: the network's own memory in a network, elsewhere a new array. Its numbers are
        undefined until they are written.

        Raises:
            ValueError: the layer has no such parameter.
        """
        if name not in self._params:
            choice("name", name, tuple(self._params))  # raises
        if not self._bound:
            kept = self._params[name]
            self._grads[name] = workspace.empty(kept.shape, kept.dtype)
        return self._grads[name]

    def _replace_arrays(self, of_parameters: Callable[[Array], Array], of_state: Callable[[Array], Array]) -> Layer:
        replaced = {name: of_parameters(array) for name, array in self._params.items()}
        if any(array is not self._params[name] for name, array in replaced.items()):
            self._bound = False
            self._params.update(replaced)
            self._grads.clear()
        self._kept = None
        for name in self.state_names:
            setattr(self, name, of_state(getattr(self, name)))
        for _, layer in self.sublayers():
            layer._replace_arrays(of_parameters, of_state)
        return self

    def save(self, output: Any, *values: Any) -> Any:
        """Keeps what backward needs, and what a gradient of ``output`` must be like. Returns the output."""
        self._kept = values
        self._output = getattr(output, "shape", ()), getattr(output, "dtype", None), type(output)
        return output

    def forget(self) -> Layer:
        """Drops what the latest forward kept for a backward, here and in sublayers. Returns the layer.

        Of all that a network holds this is the most, by far, and it is kept until the next forward.
        """
        self._kept = None
        for _, layer in self.sublayers():
            layer.forget()
        return self

    def saved(self, dout: Any = _NOT_GIVEN) -> Any:
        """What ``save`` kept, after a look at the gradient that backward was given.

        Args:
            dout: the gradient; left out, it is not looked at. A plain number will do where the output was one number.

        Raises:
            RuntimeError: there was no forward.
            ValueError: ``dout`` has not the shape of the output.
            TypeError: ``dout`` is no array, has not the output's dtype, or lies on another device.
        """
        if self._kept is None:
            raise RuntimeError(f"{type(self).__name__}.backward needs a forward before it")
        self._check_gradient(dout, self._output)
        return self._kept

    def _check_gradient(self, dout: Any, output: tuple[Any, Any, type]) -> None:
        """Raises unless ``dout`` is like ``output`` (shape, dtype, type); see ``saved``."""
        if dout is _NOT_GIVEN:
            return
        name = type(self).__name__
        shape, dtype, kind = output
        if not is_array(dout):
            if shape == () and isinstance(dout, (int, float)):
                return
            raise TypeError(f"{name}.backward needs dout as a floating-point array, got {type(dout).__name__}")
        if dout.shape != shape:
            raise ValueError(f"{name}.backward needs the gradient of an output {shape}, got {dout.shape}")
        if dtype is not None and dout.dtype != dtype:
            raise TypeError(f"{name}.backward needs a gradient of the output's {dtype}, got {dout.dtype}")
        if type(dout) is not kind:
            require_plain(dout)
        if type(dout).__module__.partition(".")[0] != kind.__module__.partition(".")[0]:
            raise TypeError(
                f"{name}.backward: host and device arrays are mixed: the output was a {kind.__module__} array, the "
                f"gradient is a {type(dout).__module__} array"
            )

    def __getstate__(self) -> dict[str, Any]:
        # A copy or a pickle has arrays of its own and nothing of a forward that it did not see.
        own = {name: value for name, value in self.__dict__.items() if name != "_kept"}
        return own | {"_bound": False, "_params": dict(self._params), "_grads": {}}

    def describe(self) -> str:
        """What ``repr`` shows between the parentheses: sizes in the field's order."""
        return ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.describe()})"


def walk(layer: Layer, place: str = "") -> Iterator[tuple[str, Layer]]:
    """Yield each layer inside ``layer``, then ``layer``, with the names of their places: "Residual1.body.Affine1"."""
    for name, sublayer in layer.sublayers():
        yield from walk(sublayer, joined(place, name))
    yield place, layer


def joined(place: str, name: str) -> str:
    """Return the place of the sublayer ``name`` of the layer at ``place``."""
    return f"{place}.{name}" if place else name
