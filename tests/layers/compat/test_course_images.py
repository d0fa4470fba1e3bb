"""The functional layers that slide a window: convolution, max pooling, im2col of one image."""

import numpy as np
import pytest
from hypothesis import strategies as st

import backend
import layers
from backend import asnumpy, xp
from layers.compat import course
from layers.compat.course import col2im, conv_backward, conv_forward, im2col, max_pool_backward, max_pool_forward
from tests.support import oracles
from tests.support.checks import (
    DTYPES,
    assert_same,
    assert_separate,
    check_gradient,
    for_all,
    frozen,
    laid_out,
    normal,
    whole,
)
from tests.support.geometries import NUMBERS, cases

WINDOWS = cases(dilations=(1,), paddings=NUMBERS)
UNPADDED = cases(dilations=(1,), paddings=st.just(0))


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def spread(shape, first, last):
    """Numbers from ``first`` to ``last`` at equal steps, float64."""
    return backend.asarray(np.linspace(first, last, int(np.prod(shape))).reshape(shape))


# -- convolution ---------------------------------------------------------------------------------------------------


def test_conv_of_every_geometry(device):
    """Over whole numbers, whose sums no order changes: equal to the loops, however the arrays lie in memory."""

    @for_all(device, WINDOWS, st.integers(1, 3))
    def check(case, filters):
        c, kernel = case.shape[1], case.geometry.kernel
        shapes = (case.shape, (filters, c, *kernel), (filters,), (case.shape[0], filters, *case.output))
        arrays = [laid_out(whole(shape, case.dtype, case.seed + i), case.layout) for i, shape in enumerate(shapes)]
        x, w, b, dout = arrays
        conv_param = {"stride": case.arguments["stride"], "pad": case.arguments["padding"]}
        with frozen(*arrays):
            out, cache = conv_forward(x, w, b, conv_param)
            dx, dw, db = conv_backward(dout, cache)
        assert_separate((out, dx, dw, db), arrays)
        x, w, b, dout = (asnumpy(array) for array in arrays)
        assert_same(out, oracles.convolution(x, w, b, case.geometry), case.dtype)
        assert_same(dx, oracles.convolution_backward_input(dout, w, x.shape, case.geometry), case.dtype)
        assert_same(dw, oracles.convolution_backward_weight(x, dout, w.shape, case.geometry), case.dtype)
        assert_same(db, np.float64(dout).sum((0, 2, 3)), case.dtype)


def test_conv_of_the_assignments_numbers(device):
    """The check that course assignments give with their convolution, to their eight decimals."""
    x, w, b = spread((2, 3, 4, 4), -0.1, 0.5), spread((3, 3, 4, 4), -0.2, 0.3), spread((3,), -0.1, 0.2)
    out, _ = conv_forward(x, w, b, {"stride": 2, "pad": 1})
    expected = [
        [
            [[-0.08759809, -0.10987781], [-0.18387192, -0.2109216]],
            [[0.21027089, 0.21661097], [0.22847626, 0.23004637]],
            [[0.50813986, 0.54309974], [0.64082444, 0.67101435]],
        ],
        [
            [[-0.98053589, -1.03143541], [-1.19128892, -1.24695841]],
            [[0.69108355, 0.66880383], [0.59480972, 0.56776003]],
            [[2.36270298, 2.36904306], [2.38090835, 2.38247847]],
        ],
    ]
    assert abs(asnumpy(out) - expected).max() < 6e-9


def test_conv_gradient(device):
    x, w, b = (normal(shape, "float64", i) for i, shape in enumerate([(2, 3, 5, 6), (4, 3, 3, 2), (4,)]))
    conv_param = {"stride": (2, 1), "pad": (1, 2)}
    out, cache = conv_forward(x, w, b, conv_param)
    dout = normal(out.shape, "float64", 7)
    check_gradient(
        lambda *arrays: (conv_forward(*arrays, conv_param)[0] * dout).sum(), [x, w, b], conv_backward(dout, cache)
    )


def test_numbers_that_came_out_of_a_division(device):
    """``(field - 1) / 2`` is a float; so is an output's size by ``/``, which must not become an index."""
    x, w, b = whole((2, 1, 7, 6), seed=1), whole((2, 1, 3, 3), seed=2), whole(2, seed=3)
    out, cache = conv_forward(x, w, b, {"stride": np.float64(2.0), "pad": (3 - 1) / 2})
    expected, kept = conv_forward(x, w, b, {"stride": 2, "pad": 1})
    assert_same(out, expected)
    for one, other in zip(conv_backward(out, cache), conv_backward(out, kept), strict=True):
        assert_same(one, other)
    pooled, _ = max_pool_forward(x, {"pool_height": 4 / 2, "pool_width": 3.0, "stride": (2.0, 1)})
    assert_same(pooled, max_pool_forward(x, {"pool_height": 2, "pool_width": 3, "stride": (2, 1)})[0])


def test_what_no_window_reaches(device):
    """7 pixels under windows of 3 at stride 3: the last is left out, and its gradient is 0."""
    x, w, b = whole((1, 1, 7, 7)), xp.ones((1, 1, 3, 3), "float32"), xp.zeros(1, "float32")
    out, cache = conv_forward(x, w, b, {"stride": 3, "pad": 0})
    dx = asnumpy(conv_backward(xp.ones_like(out), cache)[0])[0, 0]
    assert (dx[:6, :6] == 1).all()
    assert (dx[6] == 0).all()
    assert (dx[:, 6] == 0).all()


# -- max pooling ---------------------------------------------------------------------------------------------------


def test_max_pool_of_every_geometry(device):
    """Small whole numbers, so that most windows hold ties; some pixels are NaN or infinite."""

    @for_all(device, UNPADDED, st.booleans())
    def check(case, special):
        x = asnumpy(whole(case.shape, case.dtype, case.seed, most=2)).copy()
        if special:
            rng = np.random.default_rng(case.seed)
            for value in (np.nan, np.inf, -np.inf):
                x[rng.random(x.shape) < 0.1] = value
        y, argmax = oracles.max_pool(x, case.geometry)
        given = [
            laid_out(backend.asarray(x), case.layout),
            laid_out(whole(y.shape, case.dtype, case.seed + 1), case.layout),
        ]
        height, width = case.geometry.kernel
        pool_param = {"pool_height": height, "pool_width": width, "stride": case.arguments["stride"]}
        with frozen(*given):
            out, cache = max_pool_forward(given[0], pool_param)
            dx = max_pool_backward(given[1], cache)
        assert_separate((out, dx), given)
        assert_same(out, y, case.dtype)
        assert_same(dx, oracles.max_pool_backward(asnumpy(given[1]), argmax, x.shape), case.dtype)


def test_a_tie_counts_once(device):
    """A mask of the pixels that equal the maximum would give a gradient to each of them."""
    out, cache = max_pool_forward(xp.zeros((1, 1, 4, 4), "float32"), {"pool_height": 2, "pool_width": 2, "stride": 2})
    dx = max_pool_backward(xp.ones_like(out), cache)
    expected = np.zeros((1, 1, 4, 4), "float32")
    expected[..., ::2, ::2] = 1
    assert_same(dx, expected)


def test_max_pool_gradient(device):
    x = backend.asarray(np.random.default_rng(0).permutation(120).reshape(2, 2, 5, 6) / 10.0)
    pool_param = {"pool_height": 3, "pool_width": 2, "stride": (1, 2)}
    out, cache = max_pool_forward(x, pool_param)
    dout = normal(out.shape, "float64", 7)
    check_gradient(
        lambda x: (max_pool_forward(x, pool_param)[0] * dout).sum(), [x], [max_pool_backward(dout, cache)], step=1e-4
    )


# -- one image -----------------------------------------------------------------------------------------------------


def test_im2col_and_back_of_every_geometry(device):
    @for_all(device, cases(dilations=(1,), paddings=NUMBERS).filter(lambda case: case.shape[0]))
    def check(case):
        shape, options = case.shape[1:], [case.arguments["stride"], case.arguments["padding"]]
        x = laid_out(whole(case.shape, case.dtype, case.seed), case.layout)[0]
        with frozen(x):
            columns = im2col(x, *case.geometry.kernel, *options)
        expected = oracles.im2col(asnumpy(x)[None], case.geometry)
        assert_separate(columns, [x])
        assert_same(columns, expected, case.dtype)
        with frozen(columns):
            back = col2im(columns, shape, *case.geometry.kernel, *options)
        assert_separate(back, [columns])
        assert_same(back, oracles.col2im(expected, (1, *shape), case.geometry)[0], case.dtype)


def test_im2col_is_a_batch_of_one(device):
    """The layout is that of ``layers.im2col``; a convolution is then rows times filters."""
    x, w = whole((3, 5, 4), seed=1), whole((2, 3, 3, 2), seed=2)
    rows = im2col(x, 3, 2, stride=2, padding=1)
    assert_same(rows, layers.im2col(x[None], 3, 2, stride=2, pad=1))
    out = (rows @ w.reshape(2, -1).T).T.reshape(1, 2, 3, 3)
    assert_same(out, conv_forward(x[None], w, xp.zeros(2, "float32"), {"stride": 2, "pad": 1})[0])


def test_im2col_copies_any_dtype(device):
    assert_same(im2col(xp.arange(4).reshape(1, 2, 2), 1, 2), np.arange(4).reshape(2, 2))


# -- what is refused -----------------------------------------------------------------------------------------------


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


CONV = {"stride": 1, "pad": 0}
POOL = {"pool_height": 2, "pool_width": 2, "stride": 2}


@pytest.mark.parametrize(
    ("conv_param", "error", "message"),
    [
        ({"pad": 1}, ValueError, r"conv_param needs 'stride', got \['pad'\]"),
        ({"stride": 1}, ValueError, "conv_param needs 'pad'"),
        (CONV | {"padding": 1}, ValueError, "conv_param takes 'stride', 'pad', got 'padding'"),
        (CONV | {"stride": 0}, ValueError, r"conv_param\['stride'\] must be a whole number of at least 1, got 0"),
        (CONV | {"stride": True}, TypeError, r"conv_param\['stride'\].*got True"),
        (CONV | {"stride": (1, 2, 3)}, ValueError, r"conv_param\['stride'\].*pair of them, got \(1, 2, 3\)"),
        (CONV | {"pad": 0.5}, ValueError, r"conv_param\['pad'\] must be a whole number of at least 0, got 0.5"),
        (CONV | {"pad": float("nan")}, ValueError, r"conv_param\['pad'\].*got nan"),
        (CONV | {"pad": "same"}, TypeError, r"conv_param\['pad'\].*got 'same'"),
        (CONV | {"pad": (1, -1)}, ValueError, r"conv_param\['pad'\]\[1\] must be .*at least 0, got -1"),
        (2, TypeError, "conv_param must be a dictionary with 'stride', 'pad', got 2"),
    ],
)
def test_refuses_a_conv_param(conv_param, error, message):
    with pytest.raises(error, match=message):
        conv_forward(ones(1, 1, 4, 4), ones(1, 1, 2, 2), ones(1), conv_param)


@pytest.mark.parametrize(
    ("pool_param", "message"),
    [
        ({"pool_height": 2, "stride": 2}, "pool_param needs 'pool_width'"),
        (POOL | {"pad": 1}, "pool_param takes 'pool_height', 'pool_width', 'stride', got 'pad'"),
        (POOL | {"pool_height": 1.5}, r"pool_param\['pool_height'\] must be a whole number of at least 1, got 1.5"),
        (
            POOL | {"pool_width": (2, 2)},
            r"pool_param\['pool_width'\] must be .*, got \(2, 2\)",
        ),
        (POOL | {"stride": -1}, r"pool_param\['stride'\].*got -1"),
    ],
)
def test_refuses_a_pool_param(pool_param, message):
    with pytest.raises((TypeError, ValueError), match=message):
        max_pool_forward(ones(1, 1, 4, 4), pool_param)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: conv_forward(ones(4, 4), ones(1, 1, 2, 2), ones(1), CONV),
            ValueError,
            r"got \(4, 4\), \(1, 1, 2, 2\)",
        ),
        (lambda: conv_forward(ones(1, 3, 4, 4), ones(1, 1, 2, 2), ones(1), CONV), ValueError, r"got \(1, 3, 4, 4\)"),
        (lambda: conv_forward(ones(1, 1, 4, 4), ones(2, 1, 2, 2), ones(1), CONV), ValueError, r"b \(FN,\), got"),
        (
            lambda: conv_forward(ones(1, 1, 1, 4), ones(1, 1, 2, 2), ones(1), CONV),
            ValueError,
            "does not fit the image's",
        ),
        (
            lambda: conv_forward(ones(1, 1, 4, 4), ones(1, 1, 2, 2, dtype=bool), ones(1), CONV),
            TypeError,
            "conv_forward needs w as numbers .*, got bool",
        ),
        (lambda: max_pool_forward(ones(3, 4), POOL), ValueError, r"\(N, C, H, W\), got shape \(3, 4\)"),
        (
            lambda: max_pool_forward(ones(1, 1, 4, 4, dtype=bool), POOL),
            TypeError,
            "max_pool_forward needs x as numbers",
        ),
        (lambda: im2col(ones(1, 1, 4, 4), 2, 2), ValueError, r"one image \(C, H, W\), got \(1, 1, 4, 4\)"),
        (lambda: im2col(ones(1, 4, 4), 0, 2), ValueError, r"field_height must be .*, got 0"),
        (
            lambda: im2col(ones(1, 4, 4), 2, 2, 1, -1),
            ValueError,
            r"padding must be .*, got -1",
        ),
        (
            lambda: im2col(ones(1, 4, 4), 2, 2, 0.5),
            ValueError,
            r"stride must be .*, got 0.5",
        ),
        (lambda: col2im(ones(9, 4), (1, 1, 4, 4), 2, 2), ValueError, r"one image \(C, H, W\), not \(1, 1, 4, 4\)"),
        (lambda: col2im(ones(8, 4), (1, 4, 4), 2, 2), ValueError, r"columns of \(8, 4\) .* need \(9, 4\)"),
    ],
)
def test_refuses_arrays(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("name", ["conv", "max_pool"])
def test_refuses_a_gradient(name):
    x = ones(1, 1, 4, 4)
    arguments = (x, ones(1, 1, 2, 2), ones(1), CONV) if name == "conv" else (x, POOL)
    out, cache = getattr(course, f"{name}_forward")(*arguments)
    backward = getattr(course, f"{name}_backward")
    with pytest.raises(ValueError, match=rf"{name}_backward needs the gradient of an output .*got \(1, 1, 4, 4\)"):
        backward(x, cache)
    with pytest.raises(TypeError, match=f"{name}_backward needs dout as numbers .*, got bool"):
        backward(out > 0, cache)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_device_makes_what_the_host_makes(dtype):
    seen = []
    for kind in ("cpu", "cuda"):
        with backend.use(kind):
            x, w, b = whole((2, 3, 6, 5), dtype, 1), whole((4, 3, 3, 2), dtype, 2), whole(4, dtype, 3)
            out, cache = conv_forward(x, w, b, {"stride": 1, "pad": 1})
            pooled, winners = max_pool_forward(out, POOL)
            dout = max_pool_backward(xp.ones_like(pooled), winners)
            seen.append([asnumpy(array) for array in (pooled, dout, *conv_backward(dout, cache))])
    for host, on_device in zip(*seen, strict=True):
        assert_same(on_device, host)
