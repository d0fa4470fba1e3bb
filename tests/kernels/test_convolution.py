"""Convolution and its gradients against loops over every product; depthwise and grouped ones are cases like any other.

Whole numbers make every sum exact in any order: results must agree to the last bit, whatever multiplied them.
"""

from typing import NamedTuple

import numpy as np
import pytest
import threadpoolctl
from hypothesis import strategies as st

import backend
from backend import asnumpy, tuning
from kernels import convolution_cuda, implicit_gemm
from kernels.convolution import convolution, convolution_backward_input, convolution_backward_weight
from kernels.core import native
from kernels.core.window import Window
from tests.support import oracles
from tests.support.checks import (
    DTYPES,
    assert_channels_last,
    assert_close,
    assert_same,
    assert_separate,
    check_gradient,
    column_bytes,
    for_all,
    frozen,
    laid_out,
    normal,
    thread_limit,
    variants,
    watched_cuts,
    whole,
)
from tests.support.geometries import WindowCase, cases, named


class Convolution(NamedTuple):
    """A geometry with groups: ``own`` channels and ``filters`` filters for each of ``groups`` groups."""

    case: WindowCase
    groups: int
    filters: int
    own: int
    bias: bool

    def arrays(self, make=whole):
        """x, weight, bias or None, dy."""
        case = self.case
        fn = self.groups * self.filters
        x = laid_out(make(case.shape, case.dtype, case.seed), case.layout)
        weight = laid_out(make((fn, self.own, *case.geometry.kernel), case.dtype, case.seed + 1), case.layout)
        bias = make((fn,), case.dtype, case.seed + 2) if self.bias else None
        dy = laid_out(make((case.shape[0], fn, *case.output), case.dtype, case.seed + 3), case.layout)
        return x, weight, bias, dy


@st.composite
def convolutions(draw, dtypes=DTYPES):
    groups, filters, own = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    case = draw(cases(channels=st.just(groups * own), ceil=True, dtypes=dtypes))
    return Convolution(case, groups, filters, own, draw(st.booleans()))


def check_exactly(given):
    """All three operations of one geometry in whole numbers."""
    x, weight, bias, dy = given.arrays()
    case, groups = given.case, given.groups
    inputs = [x, weight, dy, *([] if bias is None else [bias])]
    with frozen(*inputs):
        y = convolution(x, weight, bias, case.window, groups)
        dx = convolution_backward_input(dy, weight, case.shape, case.window, groups)
        dweight = convolution_backward_weight(x, dy, weight.shape, case.window, groups)
    x, weight, dy = asnumpy(x), asnumpy(weight), asnumpy(dy)
    bias = None if bias is None else asnumpy(bias)
    assert_same(y, oracles.convolution(x, weight, bias, case.geometry, groups), case.dtype)
    assert_same(dx, oracles.convolution_backward_input(dy, weight, case.shape, case.geometry, groups), case.dtype)
    expected = oracles.convolution_backward_weight(x, dy, weight.shape, case.geometry, groups)
    assert_same(dweight, expected, case.dtype)
    assert_channels_last(y, dx)
    assert_separate((y, dx, dweight), inputs)


@pytest.fixture
def by_columns(monkeypatch):
    """Convolutions by im2col on a GPU that could do without."""
    monkeypatch.setattr(implicit_gemm, "refusal", lambda *_: "is refused by a test")


def test_every_geometry(device):
    for_all(device, convolutions())(check_exactly)


@pytest.mark.usefixtures("by_columns")
def test_every_geometry_in_small_parts(device):
    """Of images or of their rows on a GPU; on a CPU only a depthwise convolution is cut, into images."""

    @for_all(device, convolutions(), st.integers(1, 500), cpu=80)
    def check(given, cap):
        with column_bytes(cap):
            check_exactly(given)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "filters", "window", "groups"),
    [
        ((2, 3, 5, 5), 4, Window(3, padding=1), 1),
        ((2, 3, 5, 5), 4, Window(1), 1),
        ((2, 3, 7, 7), 4, Window(1, 3), 1),
        ((2, 3, 9, 9), 2, Window(2, 4), 1),
        ((2, 3, 2, 3), 2, Window((4, 3), padding=(2, 1)), 1),
        ((2, 1, 12, 12), 2, Window(2, 2, "same"), 1),
        ((2, 4, 6, 5), 6, Window((3, 2), (1, 2), (0, 1, 2, 0), (2, 1)), 2),
        ((2, 4, 6, 6), 4, Window(3, padding=1), 4),
        ((2, 3, 6, 6), 6, Window(3, 2, 1), 3),
        ((2, 6, 6, 6), 3, Window(3, padding=1), 3),
        ((2, 3, 4, 4), 3, Window(2, padding=3), 1),
        ((2, 2, 4, 4), 2, Window(1, padding=2), 1),
        ((0, 3, 5, 5), 4, Window(3, padding=1), 1),
        ((0, 4, 5, 5), 4, Window(3, padding=1), 4),
        ((0, 4, 5, 5), 4, Window(3, 2), 2),
    ],
    ids=str,
)
def test_named_geometries(device, dtype, shape, filters, window, groups):
    case = named(shape, window, dtype)
    check_exactly(Convolution(case, groups, filters // groups, shape[1] // groups, bias=True))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("by_columns")
def test_every_geometry_by_columns_on_a_gpu(dtype):
    with backend.use("cuda"):
        for_all(backend.current_device(), convolutions(dtypes=(dtype,)))(check_exactly)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.usefixtures("by_columns")
def test_many_parts_add_up(device, groups):
    """40 images, on a GPU of 3 bands each."""
    arguments = {"kernel": 3, "stride": 1, "padding": (1, 0, 0, 2), "dilation": 1, "rounding": "floor"}
    case = WindowCase((40, 4, 4, 3), arguments, (1, 0, 0, 2), "float32", "contiguous", 0)
    with column_bytes(200), watched_cuts(convolution_cuda) as cuts:
        check_exactly(Convolution(case, groups, 4 // groups, 4 // groups, bias=True))
    assert groups == 4 or device.kind == "cpu" or max(len(parts) for parts in cuts) > 40


def test_rounding_is_that_of_a_sum(device):
    @for_all(device, convolutions(), cpu=80)
    def check(given):
        x, weight, bias, dy = given.arrays(normal)
        case, groups = given.case, given.groups
        y = convolution(x, weight, bias, case.window, groups)
        dx = convolution_backward_input(dy, weight, case.shape, case.window, groups)
        dweight = convolution_backward_weight(x, dy, weight.shape, case.window, groups)
        x, weight, dy = asnumpy(x), asnumpy(weight), asnumpy(dy)
        bias = None if bias is None else asnumpy(bias)
        taps = case.geometry.kernel[0] * case.geometry.kernel[1]

        def compare(actual, terms, operation, *operands):
            expected = operation(*operands, case.geometry, groups)
            sizes = operation(*(abs(a) if isinstance(a, np.ndarray) else a for a in operands), case.geometry, groups)
            assert_close(actual, expected, case.dtype, terms=terms, magnitude=sizes, intermediate=intermediate)

        # float16: the product is rounded before the bias is added, and may be larger than what is left then
        intermediate = 0.0 if bias is None else abs(oracles.convolution(x, weight, None, case.geometry, groups))
        compare(y, given.own * taps + 1, oracles.convolution, x, weight, bias)
        intermediate = 0.0
        compare(dx, given.filters * taps, oracles.convolution_backward_input, dy, weight, case.shape)
        pixels = case.shape[0] * case.output[0] * case.output[1]
        compare(dweight, pixels, oracles.convolution_backward_weight, x, dy, weight.shape)


@pytest.mark.parametrize(
    ("channels", "filters", "groups", "window"),
    [
        (3, 4, 1, Window(3, padding=1)),
        (2, 4, 2, Window((2, 3), (2, 1), (1, 0))),
        (3, 6, 3, Window(3, 1, 1, 2)),
        (4, 2, 2, Window(2, 2, "same")),
    ],
    ids=str,
)
def test_gradients_are_those_of_the_forward(device, channels, filters, groups, window):
    x, bias = normal((2, channels, 5, 6), "float64", 1), normal((filters,), "float64", 2)
    weight = normal((filters, channels // groups, *window.kernel), "float64", 3)
    dy = normal((2, filters, *window.over((5, 6)).output), "float64", 4)
    gradients = [
        convolution_backward_input(dy, weight, x.shape, window, groups),
        convolution_backward_weight(x, dy, weight.shape, window, groups),
        dy.sum(axis=(0, 2, 3)),
    ]
    check_gradient(
        lambda x, weight, bias: (convolution(x, weight, bias, window, groups) * dy).sum(),
        [x, weight, bias],
        gradients,
    )


@pytest.mark.parametrize(("groups", "filters"), [(1, 5), (3, 6), (6, 6), (6, 12), (6, 1)])
def test_any_layout_of_the_inputs(device, groups, filters):
    filters = filters * groups if groups == 6 and filters == 1 else filters
    window, x, weight = Window(3, 2, 1), whole((2, 6, 7, 6)), whole((filters, 6 // groups, 3, 3), seed=1)
    dy = whole((2, filters, 4, 3), seed=2)
    y = convolution(x, weight, None, window, groups)
    dx = convolution_backward_input(dy, weight, x.shape, window, groups)
    dweight = convolution_backward_weight(x, dy, weight.shape, window, groups)
    for (_, x_), (_, weight_), (_, dy_) in zip(variants(x), reversed(variants(weight)), variants(dy), strict=True):
        with frozen(x_, weight_, dy_):
            assert_same(convolution(x_, weight_, None, window, groups), y)
            assert_same(convolution_backward_input(dy_, weight_, x.shape, window, groups), dx)
            assert_same(convolution_backward_weight(x_, dy_, weight.shape, window, groups), dweight)


def all_three(x, weight, bias, dy, window, groups):
    return (
        convolution(x, weight, bias, window, groups),
        convolution_backward_input(dy, weight, x.shape, window, groups),
        convolution_backward_weight(x, dy, weight.shape, window, groups),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "filters", "window", "groups"),
    [
        ((9, 16, 14, 14), 33, Window(3, padding=1), 1),
        ((9, 1, 28, 28), 5, Window(5), 1),
        ((5, 8, 20, 20), 1, Window(3, 2, 1), 1),
        ((5, 6, 20, 20), 6, Window(3, padding=1), 3),
        ((5, 8, 20, 20), 16, Window(3, padding=1), 8),
    ],
    ids=str,
)
def test_threads_change_no_bit(monkeypatch, device, dtype, shape, filters, window, groups):
    if native.available():
        monkeypatch.setattr(tuning, "WORTH_CUTTING", 1)
    x, weight = normal(shape, dtype), normal((filters, shape[1] // groups, *window.kernel), dtype, 1)
    bias, dy = normal((filters,), dtype, 2), normal((shape[0], filters, *window.over(shape[2:]).output), dtype, 3)
    with column_bytes(1 << 16):
        results = []
        for count in (1, 2, 3, 5):
            with thread_limit(count):
                results.append(all_three(x, weight, bias, dy, window, groups))
    for one, other in zip(results[0] * 3, results[1] + results[2] + results[3], strict=True):
        assert_same(other, one)


@pytest.mark.parametrize(
    ("shape", "filters"), [((32, 16, 14, 14), 33), ((1, 16, 28, 28), 33), ((1, 32, 17, 17), 48)], ids=str
)
def test_the_threads_of_blas_change_no_bit(device, shape, filters):
    """Ours and those of BLAS in any combination; several of BLAS sum in another order than one."""
    window, x = Window(3, padding=1), normal(shape, "float64")
    weight = normal((filters, shape[1], 3, 3), "float64", 1)
    dy = normal((shape[0], filters, *shape[2:]), "float64", 2)
    results = []
    for ours, of_blas in ((1, 1), (1, 2), (2, 1), (2, 2)):
        with thread_limit(ours), threadpoolctl.threadpool_limits(of_blas, user_api="blas"):
            results.append(all_three(x, weight, None, dy, window, 1))
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert_same(two, one)


def test_the_same_twice_to_the_bit(device):
    x, weight = normal((6, 5, 17, 19)), normal((7, 5, 3, 3), seed=1)
    bias, dy, window = normal((7,), seed=2), normal((6, 7, 17, 19), seed=3), Window(3, padding=1)
    first = all_three(x, weight, bias, dy, window, 1)
    for again in [all_three(x, weight, bias, dy, window, 1) for _ in range(3)]:
        for one, other in zip(first, again, strict=True):
            assert_same(other, one)


def test_a_large_batch_in_recycled_memory(device):
    """Buffers come back full of other numbers: padding and untouched pixels must be written all the same."""
    x, weight, window = whole((16, 4, 33, 33), "float64"), whole((8, 4, 3, 3), "float64", 1), Window(3, 2, 1)
    dy = whole((16, 8, 17, 17), "float64", 2)
    expected = [asnumpy(result) for result in all_three(x, weight, None, dy, window, 1)]
    for _ in range(3):
        all_three(x + 100, weight, None, dy - 50, window, 1)
        for actual, first in zip(all_three(x, weight, None, dy, window, 1), expected, strict=True):
            assert_same(actual, first)
    y, dx, dweight = expected
    assert (y * asnumpy(dy)).sum() == (dx * asnumpy(x)).sum() == (dweight * asnumpy(weight)).sum()


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_weight_gradient_goes_into_the_array_given(device, groups):
    x, dy, window = whole((2, 4, 6, 6)), whole((2, 8, 4, 4), seed=1), Window(3)
    expected = convolution_backward_weight(x, dy, (8, 4 // groups, 3, 3), window, groups)
    flat = normal((8 * (4 // groups) * 9 + 2,))
    edge = asnumpy(flat[[0, -1]]).copy()
    out = flat[1:-1].reshape(expected.shape)
    assert convolution_backward_weight(x, dy, out.shape, window, groups, out=out) is out
    assert_same(out, expected)
    assert_same(flat[[0, -1]], edge)


def test_float16_is_multiplied_in_float32(device):
    """4096 + 1 - 4096: in float16 the 1 would be lost; and 300 · 300 would overflow."""
    x = backend.asarray(np.array([4096, 1, -4096, 300, -300], "float16").reshape(1, 5, 1, 1))
    for groups, weight in ((1, np.array([[1, 1, 1, 300, 300]])), (5, np.array([[1], [1], [1], [1], [1]]))):
        weight = backend.asarray(weight.astype("float16").reshape(-1, 5 // groups, 1, 1))
        y = asnumpy(convolution(x, weight, None, Window(1), groups))
        np.testing.assert_array_equal(y.ravel(), [1] if groups == 1 else [4096, 1, -4096, 300, -300])


def test_nan_stays_in_the_windows_that_hold_it(device):
    x = whole((1, 2, 5, 5))
    x[0, 1, 4, 4] = np.nan
    y = asnumpy(convolution(x, whole((3, 2, 3, 3), seed=1, most=1) + 2, None, Window(3), 1))
    np.testing.assert_array_equal(np.isnan(y), np.indices(y.shape)[2:].min(axis=0) == 2)
