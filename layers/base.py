"""The base of all layers: forward, backward, parameters and gradients by name, and the output shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from backend import asarray, is_array, require_arrays, require_plain, require_same_device, use, workspace
from backend.checks import choice, flag, floating_dtype, sizes
from backend.types import Array
from kernels.core.dtypes import acc_dtype
from layers.parameters import check_declared, guard_spellings

Shape = tuple[int, ...]
_NOT_GIVEN: Any = object()


class Layer:
    """Base class of all layers.

    A subclass declares its parameters (``W, dW = parameter()``) and other arrays that are saved with them
    (``state_names``), and defines ``forward``, ``backward`` and, if it changes the shape, ``output_shape``. ``save``
    keeps what backward needs; ``saved`` returns it and checks the gradient. ``backward`` belongs to the latest
    ``forward``, whose input and output must be unchanged.

    Examples:
        >>> from backend import xp
        >>> from layers import Layer, parameter
        >>> class Scale(Layer):
        ...     k, dk = parameter()
        ...
        ...     def __init__(self, k):
        ...         self.k = k
        ...
        ...     def forward(self, x):
        ...         return self.save(x * self.k, x)
        ...
        ...     def backward(self, dout):
        ...         (x,) = self.saved(dout)
        ...         self.gradient("k")[...] = (dout * x).sum(axis=0)
        ...         return dout * self.k
        >>> layer = Scale(xp.asarray([2.0, 3.0]))
        >>> layer.forward(xp.asarray([[1.0, 10.0]]))
        array([[ 2., 30.]])
        >>> layer.backward(xp.ones((1, 2))), layer.dk
        (array([[2., 3.]]), array([ 1., 10.]))
    """

    state_names: tuple[str, ...] = ()
    """Names of attributes that are saved with the parameters but not learned, such as running means."""

    training = True
    """The mode: True in training, False in evaluation; ``train`` and ``eval`` set it."""

    frozen = False
    """True if ``backward`` leaves the gradients of the parameters out, and running statistics stay as they are."""

    input_gradient = True
    """True if ``backward`` must return the gradient of the input; False for the first layer of a network."""

    _bound = False
    _kept: tuple[Any, ...] | None = None
    _output: tuple[Any, Any, Any] = ((), None, object)

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
        """Return the output for ``x``."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def backward(self, dout: Any) -> Any:
        """Return the gradient of the latest input, given that of the output; set the gradients of the parameters."""
        raise NotImplementedError(f"{type(self).__name__} defines no backward")

    forward_relu: Callable[[Any], tuple[Any, Any]] | None = None
    """``forward`` fused with a ``layers.Relu`` behind it, for layers that can do both at once; None for others.

    Takes what ``forward`` takes; returns the Relu's output, bit for bit, and a bool array: where it is above 0; or, of
    a layer with a ``backward_relu`` that needs no such array, a function that computes it. A ``Sequential`` uses it
    where the class that defines it defines ``forward``, too.
    """

    forward_measured: Callable[[Any], tuple[Any, Any]] | None = None
    """``forward`` with the statistics for a ``layers.BatchNormalization`` behind it; None for layers without.

    Takes what ``forward`` takes; returns the output, bit for bit, and its ``kernels.batch_statistics.Moments``, or None
    where they were not taken. A ``Sequential`` uses it where the class that defines it defines ``forward``, too.
    """

    backward_relu: Callable[[Any, Any], Any] | None = None
    """``backward`` fused with that of the Relu behind the layer; None for layers that have none.

    Takes the gradient of the Relu's output, and what ``forward_relu`` returned second, or the Relu's own such array;
    returns what ``backward`` does, bit for bit.
    """

    def __call__(self, *args: Any) -> Any:
        return self.forward(*args)

    def output_shape(self, shape: Shape) -> Shape:
        """Return the output's shape for an input of ``shape``, both without the batch axis.

        Raises:
            TypeError: ``shape`` is not a tuple of whole numbers.
            ValueError: the layer cannot take such an input.
        """
        return sizes("shape", shape)

    @property
    def params(self) -> dict[str, Array]:
        """The learned arrays by name."""
        return self._params

    @property
    def grads(self) -> dict[str, Array]:
        """The gradients by the names of their parameters, as of the latest backward."""
        return self._grads

    @property
    def state(self) -> dict[str, Array]:
        """The arrays that are saved but not learned, by name."""
        return {name: getattr(self, name) for name in self.state_names}

    def sublayers(self) -> list[tuple[str, Layer]]:
        """Return the layers inside this one, with their names; empty for a plain layer."""
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

    def bind(self, name: str, value: Array, gradient: Array) -> None:
        """Keep a parameter in ``value`` and its gradient in ``gradient``: views of a network's flat buffers.

        The parameter's numbers are copied to ``value``. From now on assignments copy into these arrays.

        Raises:
            TypeError: an argument is not an array, or host and device arrays are mixed; nothing was changed.
            ValueError: a shape is not the parameter's, or there is no such parameter; nothing was changed.
        """
        choice("name", name, tuple(self._params))
        require_arrays(value=value, gradient=gradient)
        require_same_device(value, gradient, self._params[name])
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
        """Keep ``values`` for backward, with the shape and dtype that the gradient must have. Return ``output``."""
        self._kept = values
        self._output = getattr(output, "shape", ()), getattr(output, "dtype", None), type(output)
        return output

    def forget(self) -> Layer:
        """Free what the latest forward kept for a backward, here and in sublayers. Return the layer.

        That is most of the memory of a network, and is otherwise kept until the next forward.
        """
        self._kept = None
        for _, layer in self.sublayers():
            layer.forget()
        return self

    def saved(self, dout: Any = _NOT_GIVEN) -> Any:
        """Check the gradient that backward was given, and return what ``save`` kept.

        Args:
            dout: the gradient; not checked if left out. A plain number will do where the output was one number.

        Raises:
            RuntimeError: there was no forward.
            ValueError: ``dout`` does not have the shape of the output.
            TypeError: ``dout`` is not an array, does not have the output's dtype, or lies on another device.
        """
        if self._kept is None:
            raise RuntimeError(f"{type(self).__name__}.backward needs a forward before it")
        shape, dtype, kind = self._output
        if type(dout) is not kind or getattr(dout, "shape", None) != shape or dout.dtype != dtype:
            self._check_gradient(dout, self._output)
        return self._kept

    def _check_gradient(self, dout: Any, output: tuple[Any, Any, type]) -> None:
        """Check ``dout`` against the shape, dtype and type of the output; see ``saved``."""
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
        # A copy or a pickle is not bound to a network or to other processes, and keeps nothing of a forward.
        own = {name: value for name, value in self.__dict__.items() if name not in ("_kept", "_expected", "across")}
        return own | {"_bound": False, "_params": dict(self._params), "_grads": {}}

    def describe(self) -> str:
        """Return what ``repr`` shows between the parentheses: sizes in the field's order."""
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
