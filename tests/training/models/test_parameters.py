import copy
import math
import pickle

import numpy as np
import pytest

import backend
from backend import asnumpy, xp
from training.models.parameters import ParameterDict

SHAPES = {"W1": (2, 3), "b1": (3,), "scale": (), "W2": (3, 1, 2)}
SIZE = 6 + 3 + 1 + 6


def counted(dtype="float32"):
    """0, 1, 2, … in the order of the buffer."""
    params = ParameterDict(SHAPES, dtype, xp)
    params.flat[...] = xp.arange(SIZE)
    return params


def expected():
    return {
        "W1": np.arange(6).reshape(2, 3),
        "b1": np.arange(6, 9),
        "scale": np.array(9),
        "W2": np.arange(10, 16).reshape(3, 1, 2),
    }


def assert_counted(params):
    np.testing.assert_array_equal(asnumpy(params.flat), np.arange(SIZE))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_names_see_one_buffer_in_their_order(device, dtype):
    params = ParameterDict(SHAPES, dtype, xp)
    assert params.flat.shape == (SIZE,)
    assert params.flat.dtype == dtype
    np.testing.assert_array_equal(asnumpy(params.flat), np.zeros(SIZE))
    assert list(params) == list(SHAPES)
    for name, values in expected().items():
        params[name] += backend.asarray(np.asarray(values, dtype))
    assert_counted(params)
    params.flat *= 2
    for name, values in expected().items():
        assert params[name].dtype == dtype
        assert params[name].shape == SHAPES[name]
        np.testing.assert_array_equal(asnumpy(params[name]), 2 * values)


def test_assignment_copies_into_the_view(device):
    params = counted()
    view, start = params["W1"], params.flat
    given = xp.full((2, 3), 7, "float64")
    params["W1"] = given
    given[...] = 8
    assert params["W1"] is view
    assert params.flat is start
    assert view.dtype == "float32"
    np.testing.assert_array_equal(asnumpy(params.flat), [*[7] * 6, *range(6, 16)])


def test_in_place_operators_change_the_buffer(device):
    params = counted()
    view = params["b1"]
    params["b1"] -= xp.asarray([6, 7, 8], "float32")
    params["scale"] *= 0
    assert params["b1"] is view
    np.testing.assert_array_equal(asnumpy(params.flat), [*range(6), 0, 0, 0, 0, *range(10, 16)])


def test_assignment_from_the_own_buffer():
    params = counted()
    params["W1"] = params["W1"][::-1, ::-1]
    np.testing.assert_array_equal(params["W1"], [[5, 4, 3], [2, 1, 0]])


@pytest.mark.parametrize(
    ("name", "value", "error", "words"),
    [
        ("W3", np.zeros((2, 3)), KeyError, "'W3'.*W1, b1, scale, W2"),
        ("W1", np.zeros((3, 2)), ValueError, r"W1 .*\(2, 3\).*\(3, 2\)"),
        ("W1", np.zeros(3), ValueError, r"W1 .*\(2, 3\).*\(3,\)"),
        ("b1", np.zeros(1), ValueError, r"b1 .*\(3,\).*\(1,\)"),
        ("b1", [0.0, 0.0, 0.0], TypeError, r"b1 .*numbers.*\[0.0, 0.0, 0.0\]"),
        ("b1", 0.0, TypeError, "b1 .*numbers.*0.0"),
    ],
)
def test_refuses_what_does_not_fit_and_stays_as_it_was(name, value, error, words):
    params = counted()
    with pytest.raises(error, match=words):
        params[name] = value
    with pytest.raises(error, match=words):
        params.update({name: value})
    assert_counted(params)


def test_update_refuses_before_it_changes_anything():
    params = counted()
    for wrong in ({"W3": np.zeros(2)}, {"b1": np.zeros(2)}):
        with pytest.raises((KeyError, ValueError)):
            params.update({"W1": np.ones((2, 3)), **wrong})
        assert_counted(params)


def test_update_copies_mappings_pairs_and_keywords(device):
    params = counted()
    view = params["W1"]
    params.update({"W1": xp.ones((2, 3))}, b1=xp.zeros(3))
    params.update([("scale", xp.asarray(5.0))])
    assert params["W1"] is view
    np.testing.assert_array_equal(asnumpy(params.flat), [1] * 6 + [0] * 3 + [5, *range(10, 16)])


def test_copy_has_a_buffer_of_its_own(device):
    params = counted("float64")
    clone = params.copy()
    assert type(clone) is ParameterDict
    assert list(clone) == list(params)
    assert clone.flat.dtype == "float64"
    params.flat[...] = -1
    assert_counted(clone)
    clone["scale"] = xp.asarray(-2.0)
    clone.flat[0] = -3
    assert float(clone["W1"][0, 0]) == -3
    assert float(clone.flat[9]) == -2
    np.testing.assert_array_equal(asnumpy(params.flat), -np.ones(SIZE))
    for name, values in expected().items():
        assert clone[name].shape == values.shape


def test_the_layout_is_that_of_the_arrays(device):
    for params in (counted("float64"), counted("float64").copy()):
        assert params.layout == [(name, array.shape, array.dtype) for name, array in params.items()]
        assert [name for name, _, _ in params.layout] == list(SHAPES)


@pytest.mark.parametrize(
    "change",
    [
        lambda params: params.pop("W1"),
        lambda params: params.popitem(),
        lambda params: params.clear(),
        lambda params: params.setdefault("W3", np.zeros(2)),
        lambda params: params.__delitem__("W1"),
        lambda params: params.__ior__({"W1": np.zeros((2, 3))}),
    ],
    ids=["pop", "popitem", "clear", "setdefault", "del", "|="],
)
def test_names_are_fixed(change):
    params = counted()
    with pytest.raises(TypeError, match="names are fixed"):
        change(params)
    assert list(params) == list(SHAPES)
    assert_counted(params)


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.deepcopy, copy.copy])
def test_refuses_copies_that_would_tear_views_from_the_buffer(duplicate):
    with pytest.raises(TypeError, match=r"copy\(\)"):
        duplicate(counted())


def test_nothing_to_hold(device):
    params = ParameterDict({"none": (0, 3)}, "float32", xp)
    assert params.flat.shape == (0,)
    assert params["none"].shape == (0, 3)
    assert not ParameterDict({}, "float32", xp)
    assert math.prod(ParameterDict({}, "float32", xp).copy().flat.shape) == 0


def test_filters_lie_on_a_gpu_as_convolutions_read_them(device):
    """And on a CPU in C order, in which gradients have always been summed for clipping."""
    shape = (4, 3, 2, 5)
    params = ParameterDict({"b": (3,), "W": shape}, "float32", xp)
    for each in (params, params.copy()):
        order = (2, 3, 1, 0) if device.kind == "cuda" else (0, 1, 2, 3)
        assert each["W"].shape == shape
        assert each["W"].transpose(order).flags.c_contiguous
        each["W"] = xp.arange(120, dtype="float32").reshape(shape)
        memory = asnumpy(each.flat[3:]).reshape([shape[axis] for axis in order])
        assert np.array_equal(memory, np.arange(120).reshape(shape).transpose(order))
