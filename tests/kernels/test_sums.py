"""Sums of columns, along axes and of squares: exact in whole numbers, within the bound that sums.cu gives otherwise."""

import itertools

import numpy as np
import pytest
from hypothesis import strategies as st

import backend
from backend import asarray, asnumpy
from kernels.core import native
from kernels.core.dtypes import acc_dtype
from kernels.core.launch import block_size, blocks_of
from kernels.sums import axis_means, axis_sums, column_sums, square_sum, stages
from tests.support.checks import (
    DTYPES,
    assert_close,
    assert_same,
    assert_separate,
    for_all,
    frozen,
    laid_out,
    normal,
    thread_limit,
    watched_shares,
    whole,
)

COLUMNS = st.integers(0, 9) | st.sampled_from([15, 16, 17, 33, 63, 64, 65, 129])  # around and between vectors' widths
LAYOUTS = st.sampled_from(["contiguous", "strided", "reversed", "fortran"])


def test_column_sums_are_exact_in_whole_numbers(device):
    @for_all(device, st.integers(0, 70), COLUMNS, st.sampled_from(DTYPES), LAYOUTS)
    def check(rows, columns, dtype, layout):
        matrix = laid_out(whole((rows, columns), dtype), layout)
        with frozen(matrix):
            sums = column_sums(matrix)
        expected = np.zeros(columns)
        for row in asnumpy(matrix):
            expected += row
        assert_same(sums, expected, dtype)
        assert_separate(sums, [matrix])


@pytest.mark.parametrize("dtype", DTYPES)
def test_column_sums_round_as_a_sum(device, dtype):
    matrix = normal((500, 7), dtype)
    host = np.float64(asnumpy(matrix))
    assert_close(column_sums(matrix), host.sum(axis=0), dtype, terms=500, magnitude=abs(host).sum(axis=0), roundings=1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_column_sums_into_an_array(device, dtype):
    matrix, out = whole((9, 3), dtype), normal((3,), dtype)
    assert column_sums(matrix, out=out) is out
    assert_same(out, column_sums(matrix))
    slot = normal((4, 3, 2, 2), dtype)
    before = asnumpy(slot).copy()
    column_sums(matrix, out=slot[1, :, 0, 1])  # one tap of a weight gradient
    before[1, :, 0, 1] = asnumpy(out)
    assert_same(slot, before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "columns"), [(4099, 3), (4096, 1), (513, 50)])
def test_column_sums_of_many_blocks(device, dtype, rows, columns):
    matrix = whole((rows, columns), dtype, most=1)
    sums = column_sums(matrix)
    assert_same(sums, asnumpy(matrix).astype(np.float64).sum(axis=0), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_change_no_bit(device, dtype):
    for shape in ((24000, 1), (5003, 3), (700, 65)):
        x = normal(shape, dtype)
        expected = column_sums(x), axis_means(x, 0), axis_sums(x.reshape(1, *shape), 1)
        for count in (2, 3, 5):
            with thread_limit(count), watched_shares() as shares:
                results = column_sums(x), axis_means(x, 0), axis_sums(x.reshape(1, *shape), 1)
            assert shares or not native.available() or device.kind == "cuda"
            for one, two in zip(results, expected, strict=True):
                assert_same(one, two)


@pytest.mark.parametrize("shape", [(100_003, 1), (20_001, 3), (9000, 33), (3000, 65)], ids=str)
def test_the_error_does_not_grow_with_the_rows(device, shape):
    """A chain of a hundred thousand terms would have a bound of as many."""
    x = normal(shape) + 1
    host = asnumpy(x).astype("float64")
    bound = 1024 * np.finfo("float32").eps / 2  # rows of a block, at most
    assert (abs(asnumpy(column_sums(x)) - host.sum(axis=0)) <= bound * abs(host).sum(axis=0)).all()


def test_float16_columns_are_summed_in_float32(device):
    ones = whole((5000, 1), "float16", most=0) + 1
    assert asnumpy(column_sums(ones)).item() == 5000  # in float16 the sum would stay at 2048


# -- along axes ----------------------------------------------------------------------------------------------------

SHAPES = [
    (1,), (7,), (257,), (70_001,), (1, 1), (128, 50), (3000, 3), (2, 4097), (40, 33), (5, 64, 9), (300, 2, 40),
    (2, 3, 5, 7), (3, 1030, 2, 2),
]  # fmt: skip


def axes_of(shape):
    """Return every choice of axes."""
    places = range(len(shape))
    return [axes for count in range(1, len(shape) + 1) for axes in itertools.combinations(places, count)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_and_means_along_any_axes(device, shape, dtype):
    x = whole(shape, dtype, most=1)
    host = asnumpy(x).astype("float64")
    for axes in axes_of(shape):
        terms = np.prod([shape[axis] for axis in axes])
        for keepdims in (False, True):
            with frozen(x):
                sums, means = axis_sums(x, axes, keepdims), axis_means(x, axes, keepdims)
            assert_same(sums, host.sum(axis=axes, keepdims=keepdims), acc_dtype(dtype))
            assert_close(
                means, host.mean(axis=axes, keepdims=keepdims), acc_dtype(dtype), terms=1, magnitude=0, roundings=2
            )
            assert sums.shape == means.shape == host.sum(axis=axes, keepdims=keepdims).shape
        rounded = axis_means(x, axes, dtype=dtype)
        assert_close(rounded, host.sum(axis=axes) / terms, dtype, terms=1, magnitude=0, roundings=2)


@pytest.mark.parametrize("layout", ["strided", "reversed", "fortran", "channels_last"])
def test_arrays_of_any_strides(device, layout):
    x = laid_out(whole((3, 4, 5, 6)), layout)
    for axes in ((0,), (3,), (1, 2), (0, 3)):
        assert_same(axis_sums(x, axes), asnumpy(x).astype("float64").sum(axis=axes), "float32")
    assert float(square_sum(x)) == (asnumpy(x).astype("float64") ** 2).sum()


def test_negative_axes_count_from_the_last(device):
    x = whole((3, 4, 5))
    for axes in (-1, -3, (-1, 0), (2, -2), ()):
        expected = asnumpy(x).astype("float64")
        assert_same(axis_sums(x, axes, keepdims=True), expected.sum(axis=axes, keepdims=True), "float32")
        assert_close(axis_means(x, axes), expected.mean(axis=axes), "float32", terms=61, magnitude=3)


@pytest.mark.parametrize("axes", [2, -3, (0, 0), (0, -2), (0, 2)], ids=str)
def test_axes_that_the_array_does_not_have_are_refused(device, axes):
    for function in (axis_sums, axis_means):
        with pytest.raises(ValueError, match=r"axes must be different ones from -2 to 1, got"):
            function(whole((3, 3)), axes)


def test_columns_of_what_is_no_matrix_are_refused(device):
    for shape in ((4,), (2, 3, 4), ()):
        with pytest.raises(ValueError, match=r"those of a matrix \(M, N\), got shape"):
            column_sums(whole(shape))
    for shape in ((1,), (1, 3), (3, 1)):
        with pytest.raises(ValueError, match=r"out must have shape \(3,\), got \("):
            column_sums(whole((5, 3)), out=whole(shape))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,), (2, 0, 4)], ids=str)
def test_empty(device, shape):
    x = whole(shape)
    for axes in axes_of(shape):
        sums = axis_sums(x, axes)
        assert sums.dtype == "float32"
        assert_same(sums, np.zeros(shape).sum(axis=axes), "float32")
    assert float(square_sum(x)) == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1234, 4999])
def test_one_bad_number_reaches_its_sum_and_no_other(device, dtype, bad, place):
    x = np.ones((5000, 3), dtype)
    x[place, 1] = bad
    x = asarray(x)
    for sums in (column_sums(x), axis_sums(x, 0), axis_means(x, 0)):
        found = asnumpy(sums)
        assert np.array_equal(found[1], bad, equal_nan=True)
        assert np.isfinite(found[[0, 2]]).all()
    assert np.array_equal(asnumpy(square_sum(x)), abs(bad), equal_nan=True)


def test_both_infinities_make_nan(device):
    x = np.zeros((600, 2), "float32")
    x[3, 0], x[500, 0] = np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        assert np.isnan(asnumpy(axis_sums(asarray(x), 0))).tolist() == [True, False]


def test_squares_neither_overflow_nor_vanish(device):
    assert float(square_sum(asarray(np.full(3, 1e30, "float32")))) == pytest.approx(3e60)
    assert float(square_sum(asarray(np.full(3, 60000, "float16")))) == pytest.approx(3 * 59968.0**2, rel=1e-2)
    total = square_sum(asarray(np.full(1000, 1e-30, "float32")))
    assert (total.dtype, total.shape) == ("float64", ())
    assert float(total) == pytest.approx(1e-57)


@pytest.mark.parametrize("dtype", DTYPES)
def test_squares_of_every_size(device, dtype):
    for size in (*range(1, 35), 63, 64, 65, 1000):
        x = whole((size,), dtype)
        assert float(square_sum(x)) == (asnumpy(x).astype("float64") ** 2).sum()


def test_threads_change_no_bit_of_squares(device, monkeypatch):
    monkeypatch.setattr("backend.tuning.WORTH_CUTTING", 1 << 12)
    x = normal((100_003,))
    exact = (asnumpy(x).astype("longdouble") ** 2).sum()
    expected = float(square_sum(x))
    assert abs(expected - exact) <= 1e-14 * exact  # each of some 200 additions in float64 loses at most 1.1e-16
    for count in (2, 3, 5):
        with thread_limit(count):
            assert float(square_sum(x)) == expected


# -- the kernels ---------------------------------------------------------------------------------------------------


def additions(outer, length, inner):
    """Return how many additions a number passes at most: what sums.cu says of the error."""
    cuts = stages(outer, length, inner, block_size())
    return sum(-(-cut.range_rows // cut.lanes) + cut.lanes.bit_length() - 1 for cut in cuts)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(100_003, 1), (50_001, 3), (300, 40), (2, 2), (9000, 33)], ids=str)
def test_the_error_is_within_the_bound(shape, dtype):
    with backend.use("cuda"):
        x = normal(shape, dtype) + 1
        host = asnumpy(x).astype("longdouble")
        error = abs(asnumpy(column_sums(x)) - host.sum(axis=0))
        unit = np.finfo(dtype).eps / 2
        assert (error <= (additions(1, *shape) + 1) * unit * abs(host).sum(axis=0)).all()
        assert additions(1, *shape) < 200, "a chain of a hundred thousand terms would have a bound of as many"


@pytest.mark.gpu
@pytest.mark.parametrize("threads", [32, 64, 1024])
def test_blocks_of_any_size_give_the_sums(threads):
    with backend.use("cuda"), blocks_of(threads):
        for shape in ((1000, 5), (3, 4000), (64, 64), (5, 2)):
            x = whole(shape)
            host = asnumpy(x).astype("float64")
            for axis in (0, 1):
                assert_same(axis_sums(x, axis), host.sum(axis=axis), "float32")


@pytest.mark.gpu
def test_sums_repeat_their_bits_and_take_no_more_launches_than_stages():
    cuda_on_cpu = pytest.importorskip("cuda_on_cpu", reason="launches are counted on the emulated device only")
    with backend.use("cuda"):
        for shape, dtype, launches in (
            ((128, 50), "float32", 1), ((128, 50), "float16", 2), ((9000, 33), "float32", 2), ((200, 10), "float64", 1),
        ):  # fmt: skip
            x, out = normal(shape, dtype), normal(shape[1:], dtype)
            first = asnumpy(column_sums(x, out)).tobytes()
            cuda_on_cpu.reset()
            column_sums(x, out)
            assert sum(kernel["launches"] for kernel in cuda_on_cpu.kernels().values()) == launches
            assert asnumpy(out).tobytes() == first


@pytest.mark.gpu
def test_what_is_not_floating_is_refused():
    with backend.use("cuda"), pytest.raises(TypeError, match="sum_ranges: needs float16, float32, float64, got int32"):
        axis_sums(asarray(np.ones((3, 3), "int32")), 0)
