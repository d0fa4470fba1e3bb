"""Arrays between host and device: values, dtypes and strides arrive, and nothing is copied without need."""

import numpy as np
import pytest
from hypothesis import strategies as st

import backend
from backend import array_module, asarray, asnumpy, copy_to_host, synchronize, xp
from tests.support.checks import assert_same, for_all, normal, variants

DTYPES = ["float16", "float32", "float64", "int8", "int32", "int64", "uint8", "uint32", "bool", "complex64"]


def test_a_round_trip_keeps_values_dtype_and_shape(device):
    @for_all(device, st.lists(st.integers(0, 4), max_size=4), st.sampled_from(DTYPES), cpu=40, cuda=15)
    def check(shape, dtype):
        host = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
        there = asarray(host)
        assert isinstance(there, xp.ndarray)
        back = asnumpy(there)
        assert isinstance(back, np.ndarray)
        assert_same(there, host)
        assert_same(back, host)


def test_any_layout_arrives(device):
    for name, view in variants(normal((2, 3, 4, 5))):
        np.testing.assert_array_equal(asnumpy(view), asnumpy(normal((2, 3, 4, 5))), err_msg=name)
        assert_same(asarray(asnumpy(view)), view)


def test_a_dtype_is_converted_only_where_it_is_given(device):
    assert asarray([1, 2]).dtype == "int64"
    assert asarray([1.0]).dtype == "float64"
    assert asarray(np.ones(2, "float32"), "float16").dtype == "float16"
    assert asarray(xp.ones(2, "float64"), dtype=np.float32).dtype == "float32"
    assert asarray(3.0).shape == ()


def test_what_is_there_already_is_not_copied(device):
    x = normal((3, 4))
    assert asarray(x) is x
    host = np.ones(3)
    assert asnumpy(host) is host


def test_an_array_of_no_dimensions_arrives(device):
    total = xp.ones((3,), "float32").sum()
    assert_same(asnumpy(total), np.array(3, "float32"))


def test_array_module_on_the_host():
    with backend.use("cpu"):
        assert array_module(np.ones(2), 3.0, None, [1], np.float32(1)) is np
        assert array_module() is np
        assert array_module(1.0, [2]) is np


def test_array_module_is_that_of_the_arrays_or_of_the_device(device):
    library = array_module(xp.ones(2))
    assert library.__name__ == ("numpy" if device.kind == "cpu" else "cupy")
    assert array_module() is array_module(1.0, [2], None) is library
    assert array_module(2.0, xp.ones(1), xp.zeros(3)) is library


@pytest.mark.gpu
def test_an_array_belongs_to_its_library_whichever_is_active():
    import cupy

    with backend.use("cuda"):
        on_device = xp.ones(3)
        assert array_module(np.ones(2)) is np
    with backend.use("cpu"):
        assert array_module(on_device) is cupy
        assert isinstance(asnumpy(on_device), np.ndarray)
        assert isinstance(asarray(on_device), np.ndarray)
        assert_same(copy_to_host(on_device).get(), np.ones(3))


@pytest.mark.gpu
def test_mixed_arrays_are_refused_and_both_are_named():
    with backend.use("cuda"):
        message = r"numpy.ndarray float32\[2, 3\] and cupy.ndarray float64\[4\].*backend.asarray.*backend.asnumpy"
        with pytest.raises(TypeError, match=message):
            array_module(1.0, np.ones((2, 3), "float32"), xp.ones(4))


def test_synchronize_waits_for_the_work(device):
    x = xp.ones((64, 64))
    for _ in range(3):
        x = x @ x / 64
    synchronize()
    assert float(x[0, 0]) == 1
