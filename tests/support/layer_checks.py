"""The contract of every layer as tests, and the cases that describe a layer to them.

A test module lists its layers as cases and runs the contract over them:

    @pytest.mark.parametrize("case", CASES, ids=str)
    class TestContract(Contract):
        pass
"""

import contextlib
import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

import backend
from backend import asnumpy
from kernels.core.layout import is_channels_last
from layers import Layer
from tests.support.checks import (
    DTYPES,
    LAYOUTS,
    assert_close,
    assert_same,
    assert_separate,
    check_gradient,
    frozen,
    laid_out,
    normal,
    whole,
)
from tests.support.checks import assert_channels_last as assert_strides

# -- expected results ----------------------------------------------------------------------------------------


class Expected(NamedTuple):
    """A result in float64 and the error that rounding may cause.

    Attributes:
        value: the exact result.
        magnitude: a bound on every intermediate number that is rounded.
        terms: the number of terms or roundings in the dtype of sums.
        roundings: the number of roundings to the layer's dtype.
    """

    value: Any
    magnitude: Any = 0.0
    terms: int = 0
    roundings: int = 0


class Oracle(NamedTuple):
    """The reference of a layer: ``forward(p, x)``, and ``backward(p, dout, x)``, which returns gradients by the arrays'
    names ("x", "W", …). ``p`` holds the layer's parameters and state; all arrays are float64 on the host.
    """

    forward: Callable[..., Expected]
    backward: Callable[..., dict[str, Expected]]


def products(function, terms, *arrays, roundings=2):
    """Return a sum of products of the arrays, whose magnitude is the same sum over absolute values."""
    return Expected(function(*arrays), function(*map(np.abs, arrays)), terms, roundings)


def assert_expected(actual, expected, dtype, what):
    """Assert value, shape and dtype; exactly if nothing is rounded."""
    value, magnitude, terms, roundings = expected
    try:
        if not terms and not roundings:
            assert_same(actual, np.asarray(value), dtype)
        else:
            tolerance = {"terms": terms, "magnitude": magnitude, "roundings": roundings, "intermediate": magnitude}
            assert_close(actual, value, dtype, **tolerance)
    except AssertionError as error:
        raise AssertionError(f"{what}: {error}") from None


# -- inputs ------------------------------------------------------------------------------------------------


class Draw:
    """Source of a layer's parameters: each call returns other numbers."""

    def __init__(self, numbers: Callable, dtype: str) -> None:
        self.numbers, self.dtype, self.seed = numbers, dtype, 100

    def __call__(self, *shape: int) -> Any:
        self.seed += 1
        return self.numbers(shape, self.dtype, self.seed)


def apart(shape, dtype, seed):
    """Return numbers from -2 to 2, apart from each other and from 0: a small step crosses no kink and changes no
    maximum."""
    size = int(np.prod(shape))
    values = (np.random.default_rng(seed).permutation(size) - size / 2 + 0.25) * 4 / max(size, 1)
    return backend.asarray(values.reshape(shape).astype(dtype))


class Outcome(NamedTuple):
    """The results of forward and backward, and the gradients by name."""

    y: Any
    dx: tuple
    grads: dict[str, Any]

    @property
    def arrays(self) -> tuple:
        return (self.y, *self.dx, *self.grads.values())


@dataclass(frozen=True)
class LayerCase:
    """One layer and its inputs.

    Args:
        make: makes the layer on the active device, from a source of parameters.
        shape: of the inputs, batch included; there are ``inputs`` of them. A layer of indices, which have no gradient,
            has 0: the indices are its ``args``, of this shape.
        args: forward's further arguments, made on the active device.
        exact: compare exact values, over integers, whose sums are not rounded.
        widens: the output is float32 for float16.

    """

    name: str
    make: Callable[[Draw], Layer]
    shape: tuple[int, ...]
    oracle: Oracle
    inputs: int = 1
    args: Callable[[], tuple] = tuple
    exact: bool = False
    widens: bool = False

    def __str__(self) -> str:
        return self.name

    def layer(self, dtype="float32", exact=False):
        return self.make(Draw(whole if exact else normal, dtype))

    def xs(self, dtype="float32", exact=False):
        return [(whole if exact else apart)(self.shape, dtype, seed) for seed in range(self.inputs)]

    def dout(self, y, exact=False):
        return (whole if exact else normal)(y.shape, y.dtype, 7)

    def run(self, layer, xs, dout=None, args=None):
        """Run forward and backward from one random state; ``dout`` is drawn if not given."""
        backend.random.seed(0)
        y = layer.forward(*xs, *(self.args() if args is None else args))
        dx = layer.backward(self.dout(y) if dout is None else dout)
        return Outcome(y, gradients_of(dx), dict(layer.grads))


def gradients_of(dx):
    """Return what a backward returned as a tuple: of no arrays, one or several."""
    return dx if isinstance(dx, tuple) else () if dx is None else (dx,)


def host(value):
    """Return floating arrays as float64 and labels, both on the host; other values unchanged."""
    if not hasattr(value, "dtype"):
        return value
    array = asnumpy(value)
    return np.float64(array) if array.dtype.kind == "f" else array


def learned(layer):
    """Return parameters and state as float64 host arrays."""
    return {name: host(array).copy() for name, array in {**layer.params, **layer.state}.items()}


def place(layer, name, array):
    """Set a parameter by its name in ``layer.params``."""
    *path, last = name.split(".")
    for part in path:
        layer = dict(layer.sublayers())[part]
    setattr(layer, last, array)


def layouts_of(x):
    return LAYOUTS if x.ndim else ("contiguous",)


def _pickled(layer):
    return pickle.loads(pickle.dumps(layer))


# -- the contract ---------------------------------------------------------------------------------------------


class Contract:
    def assert_layout(self, array):
        """Assert that images have the memory layout that the layer promises."""
        assert_strides(array)
        assert is_channels_last(array), f"strides {array.strides} of {array.shape}"

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_values(self, case, device, dtype):
        """Forward and backward compute what the oracle does, in the dtype they were given, from any strides."""
        xs, args = case.xs(dtype, case.exact), case.args()
        p, plain = learned(case.layer(dtype, case.exact)), [host(value) for value in (*xs, *args)]
        y = case.oracle.forward(p, *plain)
        out = "float32" if case.widens and dtype == "float16" else dtype
        dout = (whole if case.exact else normal)(np.shape(y.value), out, 7)
        gradients = case.oracle.backward(p, host(dout), *plain)
        for layout in layouts_of((*xs, dout)[0]) if dtype == "float32" else ("contiguous", "channels_last"):
            layer = case.layer(dtype, case.exact)
            laid = laid_out(dout, layout) if dout.ndim else dout
            seen = case.run(layer, [laid_out(x, layout) for x in xs], laid, args)
            assert_expected(seen.y, y, out, f"{layout}, y")
            for name, dx in zip("xy", seen.dx, strict=False):
                assert_expected(dx, gradients[name], dtype, f"{layout}, d{name}")
            assert set(gradients) == {*"xy"[: case.inputs], *seen.grads}
            for name, gradient in seen.grads.items():
                assert_expected(gradient, gradients[name], dtype, f"{layout}, gradient of {name}")

    def test_gradient(self, case, device):
        """Backward returns the derivative of the output, in float64."""
        layer, xs, args = case.layer("float64"), case.xs("float64"), case.args()
        arrays = [*xs, *(array.copy() for array in layer.params.values())]
        names = list(layer.params)

        def forward(*moved):
            for name, array in zip(names, moved[case.inputs :], strict=True):
                place(layer, name, array)
            backend.random.seed(0)
            return layer.forward(*moved[: case.inputs], *args)

        dout = case.dout(forward(*arrays))
        seen = case.run(layer, xs, dout, args)
        gradients = [*seen.dx, *(seen.grads[name] for name in names)]
        check_gradient(lambda *moved: float((forward(*moved) * dout).sum()), arrays, gradients)

    @pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
    @pytest.mark.parametrize("dtype", ["float16", "float32"])
    def test_memory(self, case, device, dtype, layout):
        """Inputs do not change and share no memory with results; images have the promised layout."""
        layer, args = case.layer(dtype), case.args()
        xs = [laid_out(x, layout) for x in case.xs(dtype)]
        y = case.layer(dtype).forward(*xs, *args)
        dout = laid_out(case.dout(y), layout) if y.ndim else case.dout(y)
        given = [*xs, dout, *layer.params.values(), *(arg for arg in args if hasattr(arg, "dtype"))]
        with frozen(*given):
            seen = case.run(layer, xs, dout, args)
        # at least one axis: cupy.shares_memory is True for any two 0-d arrays
        assert_separate(*(tuple(a if a.ndim else a.reshape(1) for a in arrays) for arrays in (seen.arrays, given)))
        assert [dx.shape for dx in seen.dx] == [x.shape for x in xs]
        for array in seen.arrays:
            assert not isinstance(array, np.ndarray) or array.flags.writeable, "a result is read-only"
        for array in (seen.y, *seen.dx):
            if array.ndim == 4:
                self.assert_layout(array)

    def test_empty_batch(self, case, device):
        """No samples give no samples, no input gradient, and parameter gradients of 0."""
        layer, full = case.layer(), case.run(case.layer(), case.xs())
        xs = [x[:0] for x in case.xs()]
        args = tuple(arg[:0] if hasattr(arg, "dtype") else arg for arg in case.args())
        before = learned(layer)
        seen = case.run(layer, xs, args=args)
        assert seen.y.shape == ((0, *full.y.shape[1:]) if full.y.ndim else ())
        assert seen.y.dtype == full.y.dtype
        assert [(dx.shape, dx.dtype) for dx in seen.dx] == [(x.shape, x.dtype) for x in xs]
        for name, gradient in full.grads.items():
            assert_same(seen.grads[name], np.zeros(gradient.shape, gradient.dtype))
        assert all((before[name] == array).all() for name, array in learned(layer).items())

    def test_repeats(self, case, device):
        """The same bits from the same numbers: from another layer, from a second forward, a second backward."""
        layer = case.layer()
        first = case.run(layer, case.xs())
        kept = [array.copy() for array in first.arrays]
        again, other = case.run(layer, case.xs()), case.run(case.layer(), case.xs())
        dx = layer.backward(case.dout(first.y))
        second = Outcome(first.y, gradients_of(dx), layer.grads)
        for outcome in (first, again, other, second):
            for result, array in zip(outcome.arrays, kept, strict=True):
                assert_same(result, array)

    def test_output_shape(self, case):
        layer = case.layer()
        y = layer.forward(*case.xs(), *case.args())
        assert not y.ndim or layer.output_shape(case.shape[1:]) == y.shape[1:]

    def test_names(self, case):
        """Gradients have the names, the order and the shapes of the parameters; there are none before backward."""
        layer = case.layer()
        assert layer.grads == {}
        seen = case.run(layer, case.xs())
        assert list(seen.grads) == list(layer.params)
        assert [g.shape for g in seen.grads.values()] == [p.shape for p in layer.params.values()]
        for name in layer.params:
            *path, last = name.split(".")
            owner = layer
            for part in path:
                owner = dict(owner.sublayers())[part]
            assert getattr(owner, last) is layer.params[name]
            assert getattr(owner, f"d{last}") is layer.grads[name]

    def test_backward_needs_a_forward(self, case):
        """A layer without a forward says so; a copy has not seen the forward of the original."""
        layer = case.layer()
        y = case.run(case.layer(), case.xs()).y
        case.run(layer, case.xs())
        for fresh in (case.layer(), copy.deepcopy(layer), case.layer().astype("float32")):
            with pytest.raises(RuntimeError, match=r"\w+\.backward needs a forward"):
                fresh.backward(case.dout(y))

    def test_wrong_gradient_shape(self, case):
        """A dout that is not the output's shape is refused with both shapes, and no gradient is touched."""
        layer = case.layer()
        y = layer.forward(*case.xs(), *case.args())
        for shape in ((len(y) + 1, *y.shape[1:]), y.shape[1:]) if y.ndim else ():
            with pytest.raises(ValueError) as caught:
                layer.backward(normal(shape))
            assert str(shape) in str(caught.value)
            assert str(y.shape) in str(caught.value)
            assert layer.grads == {}

    def test_no_silent_float64(self, case):
        """A float64 dout is refused, before any change, or its results are float32: never a float64 network."""
        layer = case.layer()
        y = layer.forward(*case.xs(), *case.args())
        made: tuple = ()
        with contextlib.suppress(TypeError, ValueError):
            dx = layer.backward(case.dout(y).astype("float64"))
            made = (*gradients_of(dx), *layer.grads.values())
        assert {array.dtype.name for array in made} <= {"float32"}
        assert made or layer.grads == {}

    @pytest.mark.parametrize("duplicate", [copy.deepcopy, _pickled], ids=["deepcopy", "pickle"])
    def test_copies(self, case, device, duplicate):
        """A copy computes the same and shares no array."""
        layer = case.layer()
        case.run(layer, case.xs())
        twin = duplicate(layer)
        assert repr(twin) == repr(layer)
        assert twin.grads == {}
        before = learned(layer)
        assert list(learned(twin)) == list(before)
        for one, other in zip(case.run(twin, case.xs()).arrays, case.run(layer, case.xs()).arrays, strict=True):
            assert_same(one, other)
        before = learned(layer)
        for array in {**twin.params, **twin.state}.values():
            array += 1
        for name, array in learned(layer).items():
            assert (array == before[name]).all(), f"{name} is shared"
            assert not (array == learned(twin)[name]).any(), f"{name} of the copy does not change"

    def test_astype(self, case, device):
        """Parameters and state are converted, and the layer then keeps the other dtype."""
        layer = case.layer()
        case.run(layer, case.xs())
        before = learned(layer)
        assert layer.astype("float64") is layer
        assert layer.grads == {}
        for name, array in {**layer.params, **layer.state}.items():
            assert_same(array, before[name], "float64")
        assert {array.dtype.name for array in case.run(layer, case.xs("float64")).arrays} == {"float64"}

    def test_to_the_host(self, case, device):
        """A layer that moved to the CPU computes like one that was made there."""
        layer = case.layer()
        assert layer.to("cpu") is layer
        assert backend.current_device() == device
        with backend.use("cpu"):
            made = case.layer()
            assert all(isinstance(array, np.ndarray) for array in {**layer.params, **layer.state}.values())
            for one, other in zip(case.run(layer, case.xs()).arrays, case.run(made, case.xs()).arrays, strict=True):
                assert_same(one, other)

    @pytest.mark.parametrize("dtype", ["bool", "int64", "uint8", "complex64", "float16"])
    def test_other_dtypes_are_named_or_computed(self, case, device, dtype):
        """Numbers that are not floating are refused, with their dtype; or the result is right."""
        numbers = np.random.default_rng(3).integers(0, 2, case.shape)
        layer, twin, args = case.layer(), case.layer(), case.args()
        try:
            y = case.run(layer, [backend.asarray(numbers, dtype)] * case.inputs, args=args).y
        except TypeError as error:
            assert dtype in str(error)  # noqa: PT017  (either is right)
            assert dtype != "float16"
            assert layer.grads == {}
        else:
            expected = case.run(twin, [backend.asarray(numbers, "float32")] * case.inputs, args=args).y
            assert np.allclose(asnumpy(y), asnumpy(expected), rtol=2e-3, atol=2e-3)

    @pytest.mark.gpu
    @pytest.mark.parametrize(("active", "other"), [("cuda", "cpu"), ("cpu", "cuda")])
    def test_host_and_device_do_not_mix(self, case, active, other):
        """A mix of host and device arrays is refused; so are arrays that are all on the inactive device."""
        with backend.use(other):
            host_layer, host_xs, host_args = case.layer(), case.xs(), case.args()
        with backend.use(active):
            layer, xs, args = case.layer(), case.xs(), case.args()
            if not xs or xs[0].ndim:
                with pytest.raises(TypeError, match="does not lie on the active device"):
                    host_layer.forward(*host_xs, *host_args)
            if layer.params or case.inputs > 1 or any(hasattr(arg, "dtype") for arg in args):
                with pytest.raises(TypeError, match="host and device arrays are mixed"):
                    layer.forward(*(host_xs[:1] or host_args), *xs[1:], *(args if xs else ()))
            y = layer.forward(*xs, *args)
            if y.ndim:
                dout = asnumpy(case.dout(y))
                with backend.use(other):
                    dout = backend.asarray(dout)
                with pytest.raises(TypeError, match="host and device arrays are mixed"):
                    layer.backward(dout)
