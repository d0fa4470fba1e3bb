"""Softmax and cross-entropy against the definitions, where exp overflows as well."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import strategies as st

import backend
from backend import asnumpy, xp
from kernels.core import launch
from kernels.cross_entropy import cross_entropy
from kernels.softmax import (
    softmax,
    softmax_backward,
    softmax_cross_entropy,
    softmax_cross_entropy_backward,
)
from tests.support import oracles
from tests.support.checks import (
    DTYPES,
    assert_close,
    assert_same,
    assert_separate,
    check_gradient,
    for_all,
    frozen,
    laid_out,
    normal,
    thread_limit,
    variants,
    whole,
)

LAYOUTS = st.sampled_from(["contiguous", "strided", "reversed", "fortran"])
SCORES = (
    st.integers(1, 8),
    st.integers(1, 7),
    st.sampled_from(DTYPES),
    st.sampled_from([1, 8, 60]),
    st.integers(0, 1000),
    LAYOUTS,
)


def wide(dtype):
    return "float32" if dtype == "float16" else dtype


def scores(n, k, dtype, scale, seed, layout):
    return laid_out((normal((n, k), "float64", seed) * scale).astype(dtype), layout)


def labels(kind, n, k, seed, dtype):
    rng = np.random.default_rng(seed)
    t = rng.integers(0, k, n)
    if kind == "index":
        return backend.asarray(t.astype(rng.choice(["int64", "int32", "uint8"])))
    if kind == "one-hot":
        return backend.asarray(np.eye(k)[t].astype(rng.choice([dtype, "int64", "bool"])))
    return backend.asarray((rng.integers(0, 9, (n, k)) / 8).astype(dtype))  # sums to anything


KINDS = st.sampled_from(["index", "one-hot", "distribution"])


def spread(x):
    """Return the range of a row's scores, which the rounding of x - max is relative to."""
    return np.float64(x.max(axis=1, keepdims=True)) - np.float64(x.min(axis=1, keepdims=True))


def test_softmax(device):
    @for_all(device, *SCORES)
    def check(n, k, dtype, scale, seed, layout):
        x = scores(n, k, dtype, scale, seed, layout)
        with frozen(x):
            y = softmax(x)
        host = asnumpy(x)
        expected = oracles.softmax(host)
        # exp(d) has the relative error of d's rounding, |d|·eps, and exp's own, below 4 ulps
        assert_close(y, expected, dtype, terms=k + 8, magnitude=expected * (1 + spread(host)))
        assert_separate(y, [x])
        assert y.flags.c_contiguous


@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 3, 5), (2, 3, 2, 5)])
def test_softmax_goes_along_the_last_axis(device, shape):
    x = normal(shape, "float64")
    y = asnumpy(softmax(x))
    expected = oracles.softmax(asnumpy(x).reshape(-1, 5)).reshape(shape)
    np.testing.assert_allclose(y, expected, rtol=1e-14)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0,), (0, 0)])
def test_softmax_of_nothing(device, shape):
    assert softmax(whole(shape)).shape == shape


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_of_numbers_whose_exp_overflows(device, dtype):
    x = backend.asarray(np.array([[60000, 60000, -60000], [-60000, -np.inf, -60000], [0, -1000, -np.inf]], dtype))
    np.testing.assert_array_equal(asnumpy(softmax(x)), [[0.5, 0.5, 0], [0.5, 0, 0.5], [1, 0, 0]])


def test_softmax_keeps_the_layouts_values(device):
    x = normal((4, 6))
    for name, view in variants(x):
        np.testing.assert_allclose(asnumpy(softmax(view)), asnumpy(softmax(x)), rtol=1e-6, err_msg=name)


def test_cross_entropy_of_scores(device):
    @for_all(device, *SCORES, KINDS)
    def check(n, k, dtype, scale, seed, layout, kind):
        x, t = scores(n, k, dtype, scale, seed, layout), labels(kind, n, k, seed, dtype)
        with frozen(x, t):
            loss, y = softmax_cross_entropy(x, t)
        host, shares = asnumpy(x), asnumpy(t)
        expected = oracles.softmax_cross_entropy(host, shares)
        weight = 1.0 if kind == "index" else np.float64(shares).sum(axis=1).max()
        largest = float(spread(host).max()) + math.log(k) + 1
        assert loss.shape == ()
        assert_close(loss, expected, wide(dtype), terms=n + 2 * k + 8, magnitude=weight * largest)
        probabilities = oracles.softmax(host)
        assert_close(y, probabilities, dtype, terms=k + 8, magnitude=probabilities * (1 + spread(host)))
        assert_separate(y, [x, t])
        assert y.flags.c_contiguous


def test_backward(device):
    @for_all(device, *SCORES, KINDS, st.sampled_from([1, 1.0, 0.5, -2.0]))
    def check(n, k, dtype, scale, seed, layout, kind, factor):
        x, t = scores(n, k, dtype, scale, seed, layout), labels(kind, n, k, seed, dtype)
        _, y = softmax_cross_entropy(x, t)
        with frozen(y, t):
            dx = softmax_cross_entropy_backward(y, t, factor)
        host, shares = asnumpy(x), asnumpy(t)
        expected = oracles.softmax_cross_entropy_backward(host, shares) * factor
        sizes = abs(factor) * (1 if kind == "index" else np.float64(shares).sum(axis=1, keepdims=True) + 1) / n
        # y was rounded to dtype, and so are products and differences of numbers up to their sizes
        assert_close(
            dx, expected, dtype, terms=k + 8, magnitude=sizes * (1 + spread(host)), roundings=4, intermediate=sizes
        )
        assert_separate(dx, [y, t])


@pytest.mark.parametrize("kind", ["index", "one-hot", "distribution"])
def test_gradient_is_that_of_the_loss(device, kind):
    x, t = normal((5, 4), "float64"), labels(kind, 5, 4, 1, "float64")
    _, y = softmax_cross_entropy(x, t)
    dx = softmax_cross_entropy_backward(y, t, 3.0)
    check_gradient(lambda x: 3.0 * softmax_cross_entropy(x, t)[0], [x], [dx])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_scale_may_lie_on_the_device(device, dtype):
    x, t = normal((4, 3), dtype), labels("index", 4, 3, 0, dtype)
    _, y = softmax_cross_entropy(x, t)
    expected = softmax_cross_entropy_backward(y, t, 0.5)
    for scale in (backend.asarray(np.array(0.5, dtype)), backend.asarray(np.array(0.5, wide(dtype)))):
        assert_same(softmax_cross_entropy_backward(y, t, scale), expected)
    assert_same(softmax_cross_entropy_backward(y, t, np.float64(0.5)), expected)
    assert_same(softmax_cross_entropy_backward(y, t), 2 * expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_index_and_one_hot_are_one_label(device, dtype):
    x = normal((6, 5), dtype)
    t = np.array([0, 4, 2, 2, 1, 3])
    by_index, by_row = backend.asarray(t), backend.asarray(np.eye(5, dtype=dtype)[t])
    (loss, y), (loss_of_rows, y_of_rows) = softmax_cross_entropy(x, by_index), softmax_cross_entropy(x, by_row)
    assert float(loss) == pytest.approx(float(loss_of_rows), rel=1e-6)
    assert_same(y_of_rows, y)
    dx, dx_of_rows = softmax_cross_entropy_backward(y, by_index), softmax_cross_entropy_backward(y, by_row)
    np.testing.assert_allclose(asnumpy(dx), asnumpy(dx_of_rows), atol=float(np.finfo(dtype).eps))


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_loss_of_scores_that_are_far_apart_is_exact(device, dtype, one_hot):
    """log softmax of the least score is the difference of the scores, which float16 itself cannot hold."""
    x = backend.asarray(np.array([[-60000, 60000], [60000, -60000]], dtype))
    t = np.eye(2, dtype=dtype)[[0, 0]] if one_hot else np.array([0, 0])
    loss, _ = softmax_cross_entropy(x, backend.asarray(t))
    difference = 2 * float(np.array(60000, dtype))
    assert float(loss) == difference / 2


@pytest.mark.parametrize("one_hot", [False, True])
def test_a_class_ruled_out_by_minus_infinity_costs_nothing(device, one_hot):
    x = backend.asarray(np.array([[0.0, 0.0, -np.inf], [-np.inf, 5.0, -np.inf]], "float32"))
    t = np.eye(3, dtype="float32")[[0, 1]] if one_hot else np.array([0, 1])
    loss, y = softmax_cross_entropy(x, backend.asarray(t))
    assert float(loss) == pytest.approx(math.log(2) / 2, rel=1e-6)
    np.testing.assert_array_equal(asnumpy(y), [[0.5, 0.5, 0], [0, 1, 0]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "k"), [(300, 1), (300, 2), (70, 17), (9, 33), (3, 1024), (3, 1025), (2, 2600)])
def test_rows_of_any_length(device, dtype, n, k):
    """A GPU has a few threads, a warp or a block for a row."""
    x = scores(n, k, dtype, 4, 0, "contiguous")
    host = asnumpy(x)
    probabilities, sizes = oracles.softmax(host), 1 + spread(host)
    assert_close(softmax(x), probabilities, dtype, terms=k + 8, magnitude=probabilities * sizes)
    for kind in ("index", "distribution"):
        t = labels(kind, n, k, 1, dtype)
        loss, y = softmax_cross_entropy(x, t)
        weight = 1.0 if kind == "index" else np.float64(asnumpy(t)).sum(axis=1).max()
        most = weight * (float(spread(host).max()) + math.log(k) + 1)
        expected = oracles.softmax_cross_entropy(host, asnumpy(t))
        assert_close(loss, expected, wide(dtype), terms=n + 2 * k + 8, magnitude=most)
        assert_same(y, softmax(x))
        dx = softmax_cross_entropy_backward(y, t)
        expected = oracles.softmax_cross_entropy_backward(host, asnumpy(t))
        assert_close(dx, expected, dtype, terms=k + 8, magnitude=weight * sizes / n, intermediate=weight / n)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_indices_of_any_integer_dtype(device, dtype):
    x = normal((4, 5))
    t = np.array([4, 0, 3, 1])
    expected = softmax_cross_entropy(x, backend.asarray(t))[0]
    for index in (backend.asarray(t.astype(dtype)), laid_out(backend.asarray(t.astype(dtype)), "strided")):
        loss, y = softmax_cross_entropy(x, index)
        assert_same(loss, expected)
        assert_same(softmax_cross_entropy_backward(y, index), softmax_cross_entropy_backward(y, backend.asarray(t)))


@pytest.mark.parametrize("one_hot", [False, True])
def test_a_nan_stays_in_its_row(device, one_hot):
    x = np.zeros((3, 40), "float32")
    x[1, 37] = np.nan
    t = np.array([0, 1, 2])
    loss, y = softmax_cross_entropy(
        backend.asarray(x), backend.asarray(np.eye(40, dtype="float32")[t] if one_hot else t)
    )
    assert math.isnan(float(loss))
    np.testing.assert_array_equal(np.isnan(asnumpy(y)).all(axis=1), [False, True, False])
    np.testing.assert_array_equal(np.isnan(asnumpy(y)).any(axis=1), [False, True, False])


def test_scores_without_classes_are_refused(device):
    for t in (whole((2,), "int64"), whole((2, 0))):
        with pytest.raises(ValueError, match=r"label|scores of \(2, 0\) have no classes"):
            softmax_cross_entropy(whole((2, 0)), t)


def test_no_samples_have_no_loss(device):
    for dtype in DTYPES:
        for t in (whole((0,), "int64"), whole((0, 3), dtype)):
            loss, y = softmax_cross_entropy(whole((0, 3), dtype), t)
            assert (loss.shape, loss.dtype, float(loss)) == ((), np.dtype(wide(dtype)), 0.0)
            assert y.shape == softmax_cross_entropy_backward(y, t).shape == (0, 3)


def test_cross_entropy_of_probabilities(device):
    """The book's function: of a batch and of one sample, for indices and for one-hot rows."""
    y = backend.asarray(np.array([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]]))
    expected = -(math.log(0.25) + math.log(0.75)) / 2
    t = backend.asarray(np.array([1, 2]))
    assert float(cross_entropy(y, t)) == pytest.approx(expected, rel=1e-15)
    assert float(cross_entropy(y, backend.asarray(np.eye(3)[[1, 2]]))) == pytest.approx(expected, rel=1e-15)
    assert float(cross_entropy(y[0], backend.asarray(np.array([0, 1, 0])))) == pytest.approx(math.log(4), rel=1e-15)
    assert float(cross_entropy(y[0], backend.asarray(np.array(1)))) == pytest.approx(math.log(4), rel=1e-15)
    assert float(cross_entropy(y[0], 1)) == pytest.approx(math.log(4), rel=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_entropy_of_an_impossible_class_is_finite(device, dtype):
    y, t = backend.asarray(np.array([[0.0, 1.0]], dtype)), backend.asarray(np.array([0]))
    loss = cross_entropy(y, t)
    assert loss.dtype == wide(dtype)
    assert float(loss) == pytest.approx(-math.log(np.finfo(wide(dtype)).tiny), rel=1e-6)
    assert float(cross_entropy(y, t + 1)) == 0


def test_cross_entropy_leaves_its_inputs_alone(device):
    for t in (np.array([0, 1]), np.eye(2)):
        y, t = softmax(normal((2, 2), "float64")), backend.asarray(t)
        with frozen(y, t):
            cross_entropy(y, t)
    assert float(cross_entropy(whole((0, 3)), whole((0,), "int64"))) == 0


@pytest.mark.parametrize("function", [softmax_cross_entropy, cross_entropy])
@pytest.mark.parametrize(
    ("shape", "t", "message"),
    [
        ((2, 3, 4), np.zeros(2, int), r"scores are \(N, classes\), got shape \(2, 3, 4\)"),
        ((2, 3), np.zeros(3, int), r"\(2, 3\) are \(2,\) or \(2, 3\), got \(3,\)"),
        ((2, 3), np.zeros((2, 4)), r"got \(2, 4\)"),
        ((2, 3), np.zeros((2, 1), int), r"got \(2, 1\)"),
    ],
)
def test_refusals(device, function, shape, t, message):
    with pytest.raises(ValueError, match=message):
        function(whole(shape), backend.asarray(t))


@pytest.mark.parametrize("function", [softmax_cross_entropy, softmax_cross_entropy_backward, cross_entropy])
@pytest.mark.parametrize("dtype", ["float64", "bool", "complex64"])
def test_labels_of_another_dtype_are_refused(device, function, dtype):
    with pytest.raises(TypeError, match=f"labels are class indices, of an integer dtype, got {dtype}"):
        function(whole((2, 3)), backend.asarray(np.zeros(2, dtype)))


@pytest.mark.parametrize("function", [softmax_cross_entropy, softmax_cross_entropy_backward, cross_entropy])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_of_a_distribution_that_is_not_finite_is_named_on_the_host(function, bad):
    t = np.eye(3, dtype="float32")
    t[1, 2] = bad
    with backend.use("cpu"), pytest.raises(ValueError, match=f"finite; {bad} was given for class 2 at index 1"):
        function(whole((3, 3)), t)


@pytest.mark.parametrize("function", [softmax_cross_entropy, cross_entropy])
@pytest.mark.parametrize(("t", "message"), [([0, 3, 9], "label 3 at index 1"), ([2, 1, -1], "label -1 at index 2")])
def test_an_index_that_is_no_class_is_named_on_the_host(function, t, message):
    with backend.use("cpu"), pytest.raises(ValueError, match=message + " is out of range: expected 0 to 2"):
        function(whole((3, 3)), np.array(t))


@pytest.mark.parametrize("dtype", ["int8", "int16", ">i2"])
def test_minus_1_is_no_class_where_there_are_more_than_its_dtype_counts(dtype):
    classes = 1 << 8 * np.dtype(dtype).itemsize
    x, t = np.zeros((2, classes), "float32"), np.array([5, -1], dtype)
    with backend.use("cpu"):
        _, y = softmax_cross_entropy(x, t.astype("int64") % 7)
        for function in (softmax_cross_entropy, softmax_cross_entropy_backward, cross_entropy):
            with pytest.raises(ValueError, match=f"label -1 at index 1 is out of range: .* to {classes - 1}$"):
                function(y, t)


@pytest.mark.gpu
@pytest.mark.parametrize("function", [lambda x, t: softmax_cross_entropy(x, t)[0], cross_entropy])
@pytest.mark.parametrize("bad", [3, 100, -1])
def test_an_index_that_is_no_class_makes_the_loss_nan_on_a_gpu(function, bad):
    with backend.use("cuda"):
        y = softmax(normal((3, 3)))
        assert math.isnan(float(function(y, xp.asarray([0, bad, 1]))))
        assert math.isfinite(float(function(y, xp.asarray([0, 2, 1]))))


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("bad", "dtype"),
    [(3, "uint8"), (-1, "int8"), (-(2**31), "int32"), (2**32 - 1, "uint32"), (2**32, "int64"), (-(2**32), "int64"),
     (2**63 + 1, "uint64")],
)  # fmt: skip
def test_an_index_far_out_is_neither_read_nor_taken_for_another(bad, dtype):
    with backend.use("cuda"):
        x, t = normal((3, 3)), backend.asarray(np.array([0, bad, 1], dtype))
        loss, y = softmax_cross_entropy(x, t)
        assert math.isnan(float(loss))
        assert_same(y, softmax(x))
        dx = softmax_cross_entropy_backward(y, t)
        assert_same(dx[1], asnumpy(y)[1] * np.float32(1 / 3))


@pytest.mark.gpu
def test_host_and_device_arrays_do_not_mix():
    with backend.use("cuda"):
        x, t = normal((3, 3)), np.zeros(3, int)
        for function in (softmax_cross_entropy, softmax_cross_entropy_backward, cross_entropy):
            with pytest.raises(TypeError, match=r"numpy.*cupy"):
                function(x, t)


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "value"), [("_NARROW", 0), ("_MOST_BLOCKS", 2)])
def test_wide_indices_and_a_small_grid_change_no_bit(monkeypatch, name, value):
    def results():
        found = []
        for (n, k), kind in itertools.product([(100, 10), (5, 1100)], ["index", "distribution"]):
            x, t = normal((n, k)), labels(kind, n, k, 0, "float32")
            loss, y = softmax_cross_entropy(x, t)
            found += [loss, y, softmax_cross_entropy_backward(y, t), softmax(x)]
        return found

    with backend.use("cuda"):
        expected = results()
        monkeypatch.setattr(launch, name, value)
        for one, two in zip(expected, results(), strict=True):
            assert_same(two, one)


def test_the_gradient_of_softmax_itself(device):
    for shape in ((4,), (5, 3), (2, 3, 4)):
        x, dy = normal(shape, "float64", 1), normal(shape, "float64", 2)
        with frozen(x, dy):
            dx = softmax_backward(dy, softmax(x))
        check_gradient(lambda x, dy=dy: (softmax(x) * dy).sum(), [x], [dx])
    with pytest.raises(ValueError, match=r"dy must have the shape of y, \(5, 3\), got \(3,\)"):
        softmax_backward(normal((3,)), normal((5, 3)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [1, 2, 10, 31, 32, 33, 47, 48, 49, 100])
@pytest.mark.parametrize("kind", ["index", "distribution"])
def test_threads_change_no_bit(device, dtype, classes, kind, monkeypatch):
    """C kernels compute several rows at once, and reach into the next row, which may be another thread's."""
    monkeypatch.setattr("backend.tuning.WORTH_CUTTING", 64)
    for rows in (1, 2, 15, 37):
        x, t, results = normal((rows, classes), dtype), labels(kind, rows, classes, 1, dtype), []
        for count in (1, 2, 3, 5):
            with thread_limit(count):
                loss, y = softmax_cross_entropy(x, t)
                dx = softmax_cross_entropy_backward(y, t)
                results.append((loss, y, dx, softmax(x), softmax_backward(dx, y)))
        for result in results[1:]:
            for one, other in zip(result, results[0], strict=True):
                assert_same(one, other)
