"""What core/vectors.h gives to the C kernels: each function for every level of processor and dtype."""

from pathlib import Path

import numpy as np
import pytest

from kernels.core import native
from kernels.core.geometry import STRUCT
from kernels.core.native import Function
from kernels.core.window import Window
from tests.support import c_kernels
from tests.support.checks import DTYPES, assert_same

SOURCE = Path(__file__).with_name("vectors.c")
WIDE = {"float16": "float32", "float32": "float32", "float64": "float64"}
VECTOR_BYTES = {"v3": 32, "v4": 64, "arm64": 16}


@pytest.fixture(params=["v3", "v4", "arm64"])
def level(request, tmp_path_factory):
    """Inside a test, functions of vectors.c can be called, for one level of processor."""
    c_kernels.require_compiler()
    if request.param not in c_kernels.own_levels():
        pytest.skip(f"this processor cannot run {request.param}")
    folder = tmp_path_factory.getbasetemp()
    with c_kernels.as_library(c_kernels.compiled(str(SOURCE), str(folder)), request.param):
        yield request.param


def call(name, dtype, *arguments):
    Function(str(SOURCE), name)(np.dtype(dtype), *arguments)


def mixed(count, dtype, seed=0):
    """Normal numbers, zeros of both signs, infinities, NaN, and the smallest and largest numbers."""
    info = np.finfo(dtype)
    special = [0, -0.0, np.inf, -np.inf, np.nan, info.tiny, info.smallest_subnormal, -info.smallest_subnormal, info.max]
    rng = np.random.default_rng(seed)
    numbers = rng.standard_normal(count).astype(dtype)
    where = rng.permutation(count)[: count // 2]
    numbers[where] = rng.choice(np.array(special, dtype), len(where))
    return numbers


def assert_same_bits(actual, expected):
    """Assert equal bits; a NaN is as good as another."""
    assert_same(actual, expected)
    assert np.array_equal(np.signbit(actual)[actual == actual], np.signbit(expected)[expected == expected])


@pytest.mark.parametrize("dtype", DTYPES)
def test_sizes(level, dtype):
    out = np.zeros(4, "int32")
    call("sizes", dtype, out)
    itemsize = np.dtype(WIDE[dtype]).itemsize
    assert out.tolist() == [VECTOR_BYTES[level] // itemsize, VECTOR_BYTES[level], itemsize, STRUCT.itemsize]


def test_the_geometry_in_c_is_that_of_python(level):
    """By its members' names in the test's source, in another image and window along each axis."""
    geometry = Window((2, 3), stride=(4, 5), padding=(0, 1, 2, 0), dilation=(2, 3)).over((50, 70))
    block, out = geometry.block(7), np.zeros(len(STRUCT.names), "int32")
    call("fields", "float32", block, out)
    assert dict(zip(STRUCT.names, out.tolist(), strict=True)) == {name: int(block[0][name]) for name in STRUCT.names}
    assert len(set(out.tolist())) >= 9  # most differ, so that an exchange is seen


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_is_loaded_and_stored_as_it_is(level, dtype):
    """In ranges of every length up to two vectors, at places of every alignment; nothing else is written."""
    x = np.arange(1 << 16, dtype="uint16").view("float16") if dtype == "float16" else mixed(1 << 12, dtype)
    y = np.empty_like(x)
    call("through", dtype, x, y, x.size, 0, x.size)
    assert_same_bits(y, x)
    x = mixed(80, dtype)
    for first in range(9):
        for length in range(2 * 16 + 2):
            y = np.full_like(x, 7)
            call("through", dtype, x, y, x.size, first, first + length)
            expected = np.full_like(x, 7)
            expected[first : first + length] = x[first : first + length]
            assert_same_bits(y, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_product_rounds_before_it_is_added_except_in_fma(level, dtype):
    wide = WIDE[dtype]
    a, b, c = (mixed(64, dtype, seed) for seed in range(3))
    if dtype != "float16":  # whose products are exact in float32
        tiny = np.array(2.0 ** {"float32": -12, "float64": -27}[dtype], dtype)
        a[:32] = b[:32] = 1 + tiny
        c[:32] = -(1 + 2 * tiny)
    twice, once = (np.empty(64, wide) for _ in range(2))
    call("products", dtype, a, b, c, twice, once, 64)
    with np.errstate(all="ignore"):
        product = a.astype(wide) * b.astype(wide)
        assert_same_bits(twice, product + c.astype(wide))
    if dtype == "float16":
        assert_same_bits(once, twice)
    else:
        assert (twice[:32] == 0).all()
        assert (once[:32] == tiny * tiny).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_masks_choose_numbers_and_are_numpys_booleans(level, dtype):
    a, b = mixed(64, dtype, 1), mixed(64, dtype, 2)
    less, smaller, again = np.empty(64, bool), np.empty(64, dtype), np.empty(64, dtype)
    call("compared", dtype, a, b, less, smaller, again, 64)
    assert_same(less.view("uint8"), (a < b).view("uint8"))
    assert_same_bits(smaller, np.where(a < b, a, b))
    assert_same_bits(again, smaller)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0.0, -0.0, 1.5, np.inf, -np.inf, np.nan])
def test_all_lanes_hold_one_number(level, dtype, value):
    y = np.empty(64, dtype)
    call("same", dtype, y, value, 64)
    assert_same_bits(y, np.full(64, value, dtype))


@pytest.mark.parametrize(("a", "b"), [(1, 2), (2, 1), (-3, -3), (-1 << 40, 1 << 40)])
def test_least_and_most(level, a, b):
    out = np.zeros(2, "int64")
    call("bounds", "float32", a, b, out)
    assert out.tolist() == [min(a, b), max(a, b)]


def test_a_type_without_functions_is_refused(level):
    for dtype in ("int32", "longdouble", ">f4", "bool"):
        with pytest.raises(TypeError, match=r"sizes in .*vectors\.c must compute in float16, float32, float64, got"):
            call("sizes", dtype, np.zeros(4, "int32"))
    assert not native.computes(np.dtype(">f8"))
