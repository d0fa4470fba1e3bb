"""At every entry point an invalid argument raises one TypeError or ValueError that names it, and changes nothing."""

from fractions import Fraction

import numpy as np
import pytest

import backend
import layers
from backend import asnumpy, is_array
from layers import Layer
from tests.support.entry_points import ARRAYS, FIRST, entry_points, numbers
from tests.support.outcomes import observed
from training.models import Network

NO_NUMBER = {
    "a string": "2",
    "bytes": b"2",
    "a complex number": 1j,
    "an object": object(),
    "a class": float,
    "a function": len,
    "a dictionary": {"a": 1},
    "a list of strings": ["2"],
    "three numbers": [1, 2, 3],
    "an array of three": np.ones(3),
    "a string in an array": np.array("2"),
    "None in an array": np.array(None),
    "an array of two axes": np.ones((2, 2)),
    "a bool": True,
    "a NumPy bool": np.bool_(True),
}
NOT_FINITE = {
    "NaN": float("nan"),
    "infinity": float("inf"),
    "-infinity": np.float32("-inf"),
    "NaN in an array": np.array(np.nan),
}
NOT_WHOLE = {"a fraction": 0.5, "a ratio": Fraction(1, 2), "more than an index": 2**70, "less than an index": -(2**70)}
NO_FLAG = {key: value for key, value in NO_NUMBER.items() if "bool" not in key} | {"2": 2, "NaN": float("nan")}
NO_DTYPE = {
    "integers": "int32",
    "bool": bool,
    "complex": "complex64",
    "nonsense": "float33",
    "None": None,
    "2": 2,
    "a list": [1],
}
RANGE = {"zero": 0, "minus one": -1, "a negative fraction": -0.5, "a huge number": 1e300, "a long number": 10**40}

ALIASES = {"pad": "padding", "t": "label", "groups": "group", "dout": "gradient"}
"""Other names of arguments in errors."""


def wrong_values(entry, name):
    """Return invalid values of the parameter."""
    kind = entry.kind(name)
    wrong = {"flag": NO_FLAG, "dtype": NO_DTYPE}.get(kind)
    if wrong is None:
        wrong = NO_NUMBER | NOT_FINITE | (NOT_WHOLE if "whole" in kind else {}) | {"None": None}
    annotation = str(entry.parameters[name].annotation)
    if "Pair" in annotation or "Padding" in annotation:
        wrong = {key: value for key, value in wrong.items() if key != "three numbers"}
    if entry.takes_none(name):
        wrong = {key: value for key, value in wrong.items() if key != "None"}
    return wrong


def held(value):
    """The bits of the arrays that a value holds: those of an argument must stay as they are."""
    if is_array(value):
        return observed(value)
    if isinstance(value, dict):
        return {name: held(item) for name, item in value.items()}
    if isinstance(value, Layer):
        return observed([dict(value.params), value.state])
    return observed(dict(value.params)) if isinstance(value, Network) else type(value)


def named(name, error):
    """Return whether an error names the wrong argument; an index that does not exist is named by its number."""
    return isinstance(error, IndexError) or any(word in str(error) for word in (name, ALIASES.get(name, name)))


def refusal(entry, name, value):
    """The error with which an entry point refuses a value by name, with nothing changed; None where it takes it."""
    arguments, function = entry.arguments(), entry.function_of()
    before, random = held(arguments), backend.random.default.state
    try:
        function(**{**arguments, name: value})
    except (TypeError, ValueError, IndexError) as error:
        refused = error
    else:
        return None
    assert named(name, refused), f"{type(refused).__name__}: {refused}"
    assert held(arguments) == before
    assert backend.random.default.state == random
    return refused


CASES = [(entry, name) for entry in entry_points() for name in entry.parameters if entry.kind(name)]
TAKES_ANY = {  # and why
    ("backend.arrays.asarray", "dtype"): "arrays of any dtype",
    ("kernels.convolution.convolution", "relu"): "for layers' own use",
    ("kernels.winograd.convolution", "relu"): "for layers' own use",
    ("training.data.loader.Loader.expect", "mark"): "three numbers, of checkpoints",
    ("training.models.parameters.ParameterDict", "dtype"): "for networks' own use",
}


@pytest.mark.parametrize(("entry", "name"), CASES, ids=lambda value: str(value))
def test_no_entry_point_takes_what_its_argument_cannot_be(device, entry, name):
    if (str(entry), name) in TAKES_ANY:
        assert TAKES_ANY[str(entry), name]
        return
    wrong = wrong_values(entry, name)
    if device.kind == "cuda":  # what is checked is the same; that it is, three values show
        wrong = dict(list(wrong.items())[::7])
    for what, value in wrong.items():
        try:
            taken = refusal(entry, name, value) is None
        except Exception as error:  # of another class, or one that does not name the argument
            raise AssertionError(f"{entry}({name}={what}): {type(error).__name__}: {error}") from error
        assert not taken, f"{entry} took {name}={what}"


@pytest.mark.parametrize(("entry", "name"), [case for case in CASES if "number" in case[0].kind(case[1])], ids=str)
def test_numbers_out_of_range_are_refused_by_name_or_good(entry, name):
    """Zero, negative and huge numbers: where one is none, the error names it; where it is one, all works."""
    for value in RANGE.values():
        refusal(entry, name, value)  # which asserts that an error is a good one


# -- arrays --------------------------------------------------------------------------------------------------------

NO_ARRAY = {
    "None": None,
    "a string": "abc",
    "an object": object(),
    "a list": [[1.0, 2.0]],
    "objects": np.array([[None, 1]]),
    "strings": np.array([["a", "b"]]),
    "bool": np.ones((2, 2), bool),
    "complex": np.ones((2, 2), complex),
    "integers": np.ones((2, 2), "int64"),
    "extended": np.ones((2, 2), np.longdouble),
}
LAYERS = {
    "Affine": lambda: layers.Affine.of(4, 3),
    "Convolution": lambda: layers.Convolution.of(4, 6, 3),
    "ConvolutionTranspose": lambda: layers.ConvolutionTranspose.of(4, 6, 3),
    "BatchNormalization": lambda: layers.BatchNormalization.of(4),
    "Embedding": lambda: layers.Embedding.of(5, 4),
    "LayerNormalization": lambda: layers.LayerNormalization.of(4),
    "RNN": lambda: layers.RNN.of(4, 3),
    "LSTM": lambda: layers.LSTM.of(4, 3),
    "GRU": lambda: layers.GRU.of(4, 3),
    "MultiHeadAttention": lambda: layers.MultiHeadAttention.of(4, 2),
    "PositionwiseAffine": lambda: layers.PositionwiseAffine.of(4, 3),
    "PositionalEncoding": lambda: layers.PositionalEncoding(5, 4),
    "PositionalEmbedding": lambda: layers.PositionalEmbedding.of(5, 4),
    "Pooling": lambda: layers.Pooling(2, 2),
    "AveragePooling": lambda: layers.AveragePooling(2, 2),
    "Permute": lambda: layers.Permute((2, 1, 3)),
    "Reshape": lambda: layers.Reshape((4, 36, 1)),
    "Residual": lambda: layers.Residual(layers.Relu()),
    "Skip": lambda: layers.Skip(layers.Relu()),
    "Sequential": lambda: layers.Sequential(layers.Relu()),
}
SEQUENCES = ("MultiHeadAttention", "PositionwiseAffine", "PositionalEncoding", "PositionalEmbedding")
INPUTS = {"Affine": (2, 4), "BatchNormalization": (2, 4), "LayerNormalization": (2, 4)}
INPUTS |= dict.fromkeys(("RNN", "LSTM", "GRU"), (2, 5, 4))
INPUTS |= dict.fromkeys(SEQUENCES, (2, 3, 4))
KINDS = sorted(
    name
    for name in layers.__all__
    if isinstance(getattr(layers, name), type) and issubclass(getattr(layers, name), Layer)
)


LOSSES = {name: kind.target_kind for name in KINDS if hasattr(kind := getattr(layers, name), "target_kind")}


def made(name):
    return LAYERS.get(name, getattr(layers, name))()


def inputs(name):
    """Valid arguments of ``forward``."""
    x = numbers(*INPUTS.get(name, (2, 4, 6, 6)))
    if name in LOSSES:
        t = np.array([1, 3]) if LOSSES[name] == "classes" else np.array([[1, 0, 0, 1], [0, 1, 0, 1]])
        return {"x": numbers(2, 4), "t": backend.asarray(t)}
    if name == "Embedding":
        return {"x": backend.asarray(np.arange(6).reshape(2, 3) % 5)}
    return {"x": x, "y": x * 2} if name in ("AddLayer", "MulLayer") else {"x": x}


def misuse(function, arguments, name, value):
    """The error, which must name the argument, or None where the value was taken."""
    try:
        function(**{**arguments, name: value})
    except (TypeError, ValueError) as error:
        shown = str(error)
        assert name in shown or ALIASES.get(name, name) in shown or any(word in shown for word in ("shape", "takes")), (
            shown
        )
        return error
    return None


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("Layer", "Loss")])
def test_no_layer_takes_what_is_no_input(device, name):
    """Forward and backward: values of no kind and arrays of other dtypes, libraries and shapes."""
    for argument in inputs(name):
        for what, value in NO_ARRAY.items():
            layer = made(name)
            before = observed([dict(layer.params), layer.state])
            if (
                is_array(value)
                and what in ("integers", "extended")
                and (argument != "x" or name in ("AddLayer", "MulLayer"))
            ):
                continue  # what labels are, and what sums take
            if name == "Embedding" and what == "integers":
                continue
            moved = backend.asarray(value) if is_array(value) and value.dtype.kind in "bic" else value
            assert misuse(layer.forward, inputs(name), argument, moved) is not None, f"{argument} is {what}"
            assert observed([dict(layer.params), layer.state]) == before
    layer = made(name)
    y = layer.forward(**inputs(name))
    for what, value in NO_ARRAY.items():
        before = observed([dict(layer.params), dict(layer.grads)])
        if name in LOSSES and is_array(value) and value.ndim == 0:
            continue
        assert misuse(layer.backward, {}, "dout", value) is not None, f"dout is {what}"
        assert observed([dict(layer.params), dict(layer.grads)]) == before
    if y.ndim:
        for value in (y[None], y[:1], y.astype("float64")):
            assert misuse(layer.backward, {}, "dout", value) is not None


@pytest.mark.parametrize(
    "name", [name for name in KINDS if name not in ("Layer", "AddLayer", "MulLayer", "Loss", *LOSSES)]
)
def test_no_layer_takes_what_is_no_shape(name):
    for value in ("abc", None, 2.5, (1.5, 2), (-1,), ("a",), (True,), object(), [[1], [2]]):
        assert misuse(made(name).output_shape, {}, "shape", value) is not None, value


PARAMETERS = {
    "Affine": {"W": (4, 3), "b": (3,)},
    "Convolution": {"W": (6, 4, 3, 3), "b": (6,)},
    "ConvolutionTranspose": {"W": (4, 6, 3, 3), "b": (6,)},
    "BatchNormalization": {"gamma": (4,), "beta": (4,), "running_mean": (4,), "running_var": (4,)},
    "LayerNormalization": {"gamma": (4,), "beta": (4,)},
    "MultiHeadAttention": {"W_in": (4, 12), "b_in": (12,), "W_out": (4, 4), "b_out": (4,)},
    "PositionwiseAffine": {"W": (4, 3), "b": (3,)},
    "PositionalEmbedding": {"W": (5, 4)},
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_no_layer_takes_what_is_no_parameter(device, name):
    kind, arrays = getattr(layers, name), {key: numbers(*shape) for key, shape in PARAMETERS[name].items()}
    kind(**arrays)
    for key, array in arrays.items():
        wrong = dict(NO_ARRAY) | {"another axis": array[None], "empty": array[:0], "0-d": array.sum()}
        wrong |= {"one short": array[:-1]} if array.ndim == 1 else {}
        if not key.startswith("running") and len(arrays) > 1:
            wrong["float64"] = array.astype("float64")
        if key.startswith("running") or key == "b":
            del wrong["None"]
        for what, value in wrong.items():
            error = misuse(kind, arrays, key, value)
            assert error is not None, f"{key} is {what}"
            assert key in str(error), str(error)


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(set(PARAMETERS) | {"Relu", "Dropout", "Pooling", "Softmax"}))
def test_no_layer_takes_host_arrays_on_the_device(name):
    with backend.use("cuda"):
        layer = made(name)
        x = asnumpy(inputs(name)["x"])
        with pytest.raises(TypeError, match="numpy"):
            layer.forward(x)
        y = layer.forward(backend.asarray(x))
        with pytest.raises(TypeError, match="numpy"):
            layer.backward(asnumpy(y))
        for key, shape in PARAMETERS.get(name, {}).items():
            arrays = {other: numbers(*size) for other, size in PARAMETERS[name].items()}
            with pytest.raises(TypeError, match="numpy"):
                getattr(layers, name)(**{**arrays, key: np.ones(shape, "float32")})


def test_the_tables_hold_nothing_but_what_is_there():
    names = {str(entry) for entry in entry_points()}
    assert {entry for entry, _ in TAKES_ANY} <= names
    assert set(PARAMETERS) <= set(KINDS)
    assert set(FIRST) & set(ARRAYS) == set()
