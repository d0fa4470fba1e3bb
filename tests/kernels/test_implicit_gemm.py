"""Convolution on tensor cores against float64 loops, on the GPU alone: there is no other place where it runs.

Whole numbers up to 3 are exact in TF32 and float16, and so are their sums: with them all results must agree to the last
bit, whatever the tiles. The error bounds are for standard normal numbers, relative to the largest result.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import backend
from backend import asnumpy, xp
from kernels import implicit_gemm
from kernels.core import tensor_tiles
from kernels.core.window import Window
from tests.support.implicit_cases import Case, arrays, backward_input, backward_weight, forward, run, truth

pytestmark = pytest.mark.gpu


CASES = [
    Case(2, 9, 11, 16, 16, Window(3, 1, 1)),
    Case(2, 7, 5, 3, 10, Window(3, 1, (0, 1, 2, 1))),  # single channels, uneven padding
    Case(1, 12, 12, 1, 16, Window(5, 1, 2)),
    Case(3, 8, 8, 32, 40, Window(3, 2, 1)),  # remainders of the stride that meet no tap or two
    Case(1, 10, 9, 12, 20, Window((3, 5), (2, 1), 2, (1, 2))),
    Case(2, 7, 8, 8, 72, Window(3, 3, 1, 2)),  # more columns than a tile, dilation beside stride
    Case(1, 9, 9, 6, 9, Window(2, 3)),  # pixels of no window, odd filters
    Case(1, 11, 7, 4, 6, Window(3, 2, 0, 2)),  # stride and dilation have a common factor
    Case(2, 6, 6, 48, 32, Window(1)),
    Case(2, 6, 5, 16, 24, Window(1, 2)),
    Case(1, 20, 20, 2, 8, Window(16, 1, 3)),  # as many taps as there may be
    Case(2, 8, 7, 24, 48, Window(3, 1, 1), groups=2),
    Case(1, 8, 7, 9, 6, Window(3, 2, 1), groups=3),
    Case(5, 17, 13, 4, 4, Window(3, 1, 1)),  # several blocks, several parts
    Case(1, 4, 4, 160, 8, Window(3, 1, 1)),  # deep
]
HALOS = [
    Case(2, 9, 7, 32, 48, Window(3, 1, 1)),  # blocks end within lines
    Case(3, 8, 8, 64, 64, Window(3, 1, 1)),  # channels in several steps, several images in a block
    Case(2, 11, 13, 48, 16, Window(3, 1, 2, 2)),
    Case(2, 5, 30, 16, 16, Window((1, 5), 1, (0, 2))),
    Case(2, 9, 8, 16, 32, Window((3, 2), 1, (0, 2, 1, 0))),  # uneven padding
    Case(2, 6, 6, 32, 16, Window(3)),  # none
    Case(1, 4, 3, 16, 16, Window(3, 1, 2)),  # more windows than pixels
    Case(2, 8, 7, 32, 64, Window(3, 1, 1), groups=2),
    Case(1, 3, 3, 16, 80, Window(3, 1, 1)),  # a weight gradient of too many filters
    Case(2, 6, 9, 16, 16, Window((1, 3), 1, (0, 1))),  # too few taps
]
CASES += HALOS
DTYPES = ["float16", "float32"]


@pytest.fixture(autouse=True)
def cuda():
    with backend.use("cuda"):
        if refused := implicit_gemm.refusal(np.dtype("float32"), (1, 1, 1, 1), Window(1).over((1, 1)), 1):
            pytest.skip(f"an implicit GEMM {refused}")
        yield


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_products_of_whole_numbers_are_exact(case, dtype):
    given = arrays(case, dtype)
    for name, expected, found in zip(("y", "dx", "dw", "dbias"), truth(case, *given), run(case, *given), strict=True):
        assert found.dtype == dtype
        assert np.array_equal(found, expected.astype(dtype)), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", HALOS, ids=str)
def test_pixels_of_these_stay_for_all_taps(case, dtype):
    geometry = case.window.over((case.h, case.w))
    for product in tensor_tiles.KERNELS:
        plan = tensor_tiles.plan(product, dtype, case.n, case.c, case.fn, geometry, case.groups, False, 16, 16)
        few = product != tensor_tiles.BACKWARD_WEIGHT or case.fn // case.groups <= 64
        kept = few and np.prod(case.window.kernel) > 3
        assert (plan.shared > 0) == (plan.variant.halo > 0) == kept, plan
        assert plan.shared <= 48 << 10


@pytest.fixture
def one_pass(monkeypatch):
    """Products of float32 as one of TF32."""
    backend.allow_tf32(True)
    yield
    backend.allow_tf32(False)


def errors(case, dtype):
    """Return the largest error of y, dx, dw and dbias for normal numbers, relative to the largest result."""
    given = arrays(case, dtype, small=False)
    pairs = zip(truth(case, *given), run(case, *given), strict=True)
    return [float(abs(found - expected).max() / abs(expected).max()) for expected, found in pairs]


@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[3], CASES[-2], CASES[-1]], ids=str)
def test_float32_is_as_exact_as_float32_products(case):
    assert max(errors(case, "float32")) < 4e-7


def test_tf32_where_it_is_allowed(one_pass):
    *products, dbias = errors(CASES[0], "float32")
    assert all(1e-5 < error < 2e-3 for error in products), products
    assert dbias < 4e-7  # a sum, not a product


def test_float16_is_rounded_once():
    assert max(errors(CASES[0], "float16")) < 1e-3  # 2^-11 of each result, and of none on the way


def test_weight_gradients_of_float16_are_summed_in_float32():
    case = Case(1, 64, 64, 8, 8, Window(1))
    x, dy = np.full((1, 64, 64, 8), 1, "float16"), np.full((1, 64, 64, 8), 0.5, "float16")
    dw, dbias = backward_weight(*map(xp.asarray, (x, dy)), case.window.over((64, 64)), bias=True)
    assert np.all(asnumpy(dw) == 2048)  # sums in float16 would stop at 1024
    assert np.all(asnumpy(dbias) == 2048)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", [CASES[0], CASES[1]], ids=str)
def test_relu_with_its_mask(case, dtype):
    x, filters, bias, _ = map(xp.asarray, arrays(case, dtype))
    x[0, 2, 2, 0] = xp.nan
    geometry = case.window.over((case.h, case.w))
    plain = asnumpy(forward(x, filters, bias, geometry))
    y, positive = map(asnumpy, forward(x, filters, bias, geometry, relu=True))
    assert positive.dtype == bool
    assert np.array_equal(positive, plain > 0)
    assert np.array_equal(y, np.maximum(plain, 0), equal_nan=True)
    assert np.isnan(y).any()


def test_relu_makes_no_negative_zero():
    """A product that rounds to -0 in float16: ReLU after the convolution makes it +0."""
    x, filters = xp.full((1, 4, 4, 8), 2**-13, "float16"), xp.zeros((1, 1, 8, 8), "float16")
    filters[0, 0, 0] = -(2**-13)
    geometry = Window(1).over((4, 4))
    assert np.signbit(asnumpy(forward(x, filters, None, geometry))).all()
    y, positive = map(asnumpy, forward(x, filters, None, geometry, relu=True))
    assert not np.signbit(y).any()
    assert not positive.any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_that_begin_between_two_numbers_are_refused(dtype):
    """Two numbers are written at once."""
    case, itemsize = CASES[0], np.dtype(dtype).itemsize
    x, filters, bias, dy = map(xp.asarray, arrays(case, dtype))
    geometry = case.window.over((case.h, case.w))
    y, dx = (xp.zeros(array.size + 1, dtype)[1:].reshape(array.shape) for array in (dy, x))
    words = f"begin at a multiple of {itemsize} bytes, expected {2 * itemsize}"
    with pytest.raises(ValueError, match=f"outputs {words}"):
        implicit_gemm.forward(x, filters, bias, geometry, 1, y, None)
    with pytest.raises(ValueError, match=f"images {words}"):
        implicit_gemm.backward_input(dy, filters, geometry, 1, dx)
    assert not y.any()
    assert not dx.any()


def test_without_bias():
    case = CASES[0]
    x, filters, _, dy = map(xp.asarray, arrays(case, "float32"))
    geometry = case.window.over((case.h, case.w))
    zero = xp.zeros(case.fn, "float32")
    expected = forward(x, filters, zero, geometry)
    assert xp.array_equal(forward(x, filters, None, geometry), expected)
    dw, dbias = backward_weight(x, dy, geometry)
    assert dbias is None
    assert xp.array_equal(dw, backward_weight(x, dy, geometry, bias=True)[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3.4e38])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_stays_so_and_spreads_no_further(bad, dtype):
    case = CASES[0]
    x, filters, bias, dy = arrays(case, dtype, small=False)
    good, spoiled = run(case, x, filters, bias, dy), x.copy()
    with np.errstate(over="ignore"):
        spoiled[1, 4, 4, 3] = bad
    y, dx, dw, _ = run(case, spoiled, filters, bias, dy)
    met = np.zeros(y.shape[:3], bool)
    met[1, 3:6, 3:6] = True
    if bad != 3.4e38 or dtype == "float16":
        assert not np.isfinite(y[met]).any()
        assert not np.isfinite(dw[:, :, 3]).any()
    assert np.array_equal(y[~met], good[0][~met])
    assert np.array_equal(dx, good[1])
    others = np.arange(case.c) != 3
    assert np.array_equal(dw[:, :, others], good[2][:, :, others])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_pixel_at_the_edge_that_is_not_finite_spoils_its_channel_alone(dtype):
    case = CASES[0]
    x, *others = arrays(case, dtype, small=False)
    good, spoiled = run(case, x, *others), x.copy()
    spoiled[0, 0, 0, 3] = np.nan
    y, dx, dw, dbias = run(case, spoiled, *others)
    met = np.zeros(y.shape[:3], bool)
    met[0, :2, :2] = True
    assert np.isnan(y[met]).all()
    # The taps that meet it; others may be NaN, too: a padding of zeros is not skipped.
    assert np.isnan(dw[:2, :2, 3]).all()
    channels = np.arange(case.c) != 3
    for expected, found in ((good[0][~met], y[~met]), (good[1], dx), (good[2][:, :, channels], dw[:, :, channels])):
        assert np.array_equal(found, expected)
    assert np.array_equal(good[3], dbias)


HALO_CASES = st.builds(
    Case,
    st.integers(1, 4),  # images
    st.integers(1, 12),
    st.integers(1, 20),
    st.sampled_from([16, 48]),  # channels: all there at once, or in steps
    st.just(16),
    st.builds(
        lambda kernel, pad, dilation: Window(kernel, 1, pad, dilation),
        st.sampled_from([3, (2, 4)]),  # each is compiled
        st.tuples(*[st.integers(0, 3)] * 4),
        st.sampled_from([1, 2, (2, 1)]),
    ),
    st.just(1),  # group
)


def test_halos_of_every_geometry():
    @settings(max_examples=40)
    @given(HALO_CASES)
    def check(case):
        try:
            case.window.over((case.h, case.w))
        except ValueError:  # no window fits
            return
        values = arrays(case, "float32")
        for name, expected, found in zip(("y", "dx", "dw"), truth(case, *values), run(case, *values), strict=False):
            assert np.array_equal(found, expected.astype("float32")), name

    check()


def planned_anew():
    """Let the next launches of all shapes be planned and checked again."""
    tensor_tiles.plan.cache_clear()
    implicit_gemm._checked.cache_clear()


@pytest.mark.parametrize("dtype", DTYPES)
def test_indices_of_64_bits_give_the_same(dtype, monkeypatch):
    case = CASES[3]
    given = arrays(case, dtype, small=False)
    narrow = run(case, *given)
    monkeypatch.setattr(tensor_tiles, "_NARROW", 0)
    planned_anew()
    wide = run(case, *given)
    planned_anew()
    assert [a.tobytes() for a in narrow] == [a.tobytes() for a in wide]


def test_places_beyond_32_bits_are_counted_by_64():
    """Images of few pixels, whose padding is most of the places of a halo: no array has 2³¹ numbers."""
    geometry = Window(5).over((5, 5))
    for images, wide in ((20_000_000, False), (26_600_000, True)):
        plan = tensor_tiles.plan(tensor_tiles.BACKWARD_INPUT, "float32", images, 1, 16, geometry, 1, False, 16, 16)
        assert plan.variant.halo
        assert plan.variant.wide_index == wide


def test_an_address_that_is_no_multiple_of_16():
    case = CASES[0]
    given = arrays(case, "float32")
    shifted = []
    for array in given:
        memory = xp.empty(array.size + 1, array.dtype)
        memory[1:] = xp.asarray(array).reshape(-1)
        shifted.append(memory[1:].reshape(array.shape))
    for expected, found in zip(run(case, *given), run(case, *shifted), strict=True):
        assert np.array_equal(found, expected)


def test_no_images():
    geometry = Window(3, 1, 1).over((5, 4))
    x, dy = xp.zeros((0, 5, 4, 3), "float32"), xp.zeros((0, 5, 4, 8), "float32")
    filters = xp.ones((3, 3, 3, 8), "float32")
    y, positive = forward(x, filters, None, geometry, relu=True)
    assert y.shape == positive.shape == (0, 5, 4, 8)
    assert backward_input(dy, filters, geometry).shape == x.shape
    dw, dbias = backward_weight(x, dy, geometry, bias=True)
    assert not dw.any()
    assert not dbias.any()


def test_parts_do_not_depend_on_the_device_and_cover_all_windows():
    geometry = Window(3, 1, 1).over((32, 32))
    plan = tensor_tiles.plan(tensor_tiles.BACKWARD_WEIGHT, "float32", 128, 16, 16, geometry, 1, False, 16, 16)
    places, parts = 128 * 33 * 33, plan.grid[2]  # each line, and each image, with one of padding
    assert (parts - 1) * plan.part_pixels < places <= parts * plan.part_pixels
    assert plan.part_pixels % plan.variant.tile.BK == 0


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": lambda a: a.astype("float64")}, TypeError, "sum in float32; the arrays are float64"),
        ({"x": lambda a: a.transpose(0, 2, 1, 3)}, ValueError, "images have shape"),
        ({"x": lambda a: xp.repeat(a, 2, axis=1)[:, ::2]}, ValueError, "images are not C-contiguous"),
        ({"x": lambda a: a[:, :8].copy()}, ValueError, "expected"),
        ({"filters": lambda a: a.astype("float16")}, TypeError, "filters are float16, expected float32"),
        ({"filters": lambda a: a[..., :8, :].copy()}, ValueError, "filters have shape"),
        ({"bias": lambda a: a[:4].copy()}, ValueError, r"bias have shape \(4,\), expected \(16,\)"),
    ],
    ids=["float64", "order", "strides", "image", "dtypes", "channels", "bias"],
)
def test_what_does_not_fit_is_refused(change, error, words):
    case = CASES[0]
    given = dict(zip(("x", "filters", "bias"), map(xp.asarray, arrays(case, "float32")), strict=False))
    for name, function in change.items():
        given[name] = function(given[name])
    with pytest.raises(error, match=words):
        forward(*given.values(), case.window.over((case.h, case.w)))


def test_where_it_is_refused(monkeypatch):
    def refused(dtype="float32", weight=(4, 4, 3, 3), window=Window(3), groups=1):  # noqa: B008
        return implicit_gemm.refusal(np.dtype(dtype), weight, window.over((20, 20)), groups)

    assert refused("float16") == ""
    assert "float64" in refused("float64")
    assert "17" in refused(weight=(4, 4, 1, 17), window=Window((1, 17)))
    assert "(300, 300)" in refused(window=Window(3, 300))
    for weight, groups in (((1 << 17, 2, 3, 3), 1 << 16), ((1, (1 << 22) - 63, 3, 3), 1)):
        assert "65535 groups and blocks of channels; these are 65536" in refused(weight=weight, groups=groups)
    for weight, groups in (((2 * 65535, 2, 3, 3), 65535), ((1, (1 << 22) - 64, 3, 3), 1)):
        assert refused(weight=weight, groups=groups) == ""
    assert "these have 2,415,935,488" in refused(weight=(1 << 14, 1 << 14, 3, 3))
    monkeypatch.setattr(implicit_gemm, "_capability", lambda index: 75)
    assert refused() == "needs compute capability 8.0; the GPU has 7.5"
