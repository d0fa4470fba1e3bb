"""The bounds of ``xpnet check``: what they let through, and what not."""

import math

import numpy as np
import pytest

import layers
from training.check import Bound
from training.check.bounds import measured_bound, sum_ulps, ulps
from training.check.layer_bounds import layer_bounds
from training.check.loss_bounds import loss_bounds

F16, F32, F64 = map(np.dtype, ("float16", "float32", "float64"))
EPS = float(np.finfo("float32").eps)


def float32(*values):
    return np.array(values, "float32")


def test_errors_count_in_ulps_of_the_magnitude():
    one = np.array([1.0, -2.0])
    assert Bound(one, F32).error(float32(1, -2)) == 0
    assert Bound(one, F32).error(float32(1 + EPS, -2)) == pytest.approx(1)
    assert Bound(one, F32).error(float32(1, -2 - 2 * EPS)) == pytest.approx(1)
    assert Bound(one, F32, magnitude=np.array([4.0, 2.0])).error(float32(1 + EPS, -2)) == pytest.approx(0.25)


@pytest.mark.parametrize(
    "actual",
    [
        np.ones(3, "float32"),
        np.ones(2, "float64"),
        float32(np.nan, 1),
        float32(np.inf, 1),
        float32(1, 0.5),
    ],
)
def test_another_shape_dtype_or_number_is_infinitely_wrong(actual):
    bound = Bound(np.array([1.0, 0.5]), F32, magnitude=np.array([1.0, 0.0]))
    expected = math.inf if not np.array_equal(actual, float32(1, 0.5)) else 0
    assert bound.error(actual) == expected


def test_what_is_not_finite_has_to_be_so():
    bound = Bound(np.array([np.nan, np.inf, 1]), F32)
    assert bound.error(float32(np.nan, np.inf, 1)) == 0
    for wrong in ((0, np.inf, 1), (np.nan, -np.inf, 1), (np.nan, np.inf, np.nan)):
        assert bound.error(float32(*wrong)) == math.inf


def test_whole_numbers_are_right_or_wrong():
    bound = Bound(np.array([1, 2]), np.dtype("int64"))
    assert bound.error(np.array([1, 2])) == 0
    assert bound.error(np.array([1, 3])) == math.inf


def test_numbers_that_are_flushed_to_zero_are_no_error():
    tiny = float(np.finfo("float32").tiny)
    assert Bound(np.array([tiny / 2]), F32).error(float32(0)) == 0
    assert Bound(np.array([tiny * 3]), F32).error(float32(0)) > 0


def test_a_common_factor_shows_where_single_errors_do_not():
    rng = np.random.default_rng(0)
    exact = rng.standard_normal(8000)
    bound = Bound(exact, F32, 4, factor_ulps=1)
    assert bound.factor_error(exact.astype("float32")) == 0
    scaled = (exact * (1 + 2.0**-22)).astype("float32")
    assert bound.error(scaled) < 4
    assert bound.factor_error(scaled) > 1
    noise = exact * (1 + 3 * EPS * rng.uniform(-1, 1, 8000))  # ulps, but of either sign
    assert bound.factor_error(noise.astype("float32")) < 0.2


def test_float16_counts_its_own_roundings_and_float64_both_sides():
    assert ulps(F32, 10, 1) == 11
    assert ulps(F64, 10, 1) == 22
    assert ulps(F16, 8192, 1) == 2


def test_sums_in_any_order_are_within_their_bound():
    """Equal terms round in the same direction again and again: the worst there is, short of 64 terms."""
    for terms in (3, 30, 300, 30_000):
        for values in (np.full(terms, 0.1, "float32"), np.random.default_rng(terms).standard_normal(terms)):
            x = values.astype("float32")
            exact, size = x.astype("float64").sum(), np.abs(x.astype("float64")).sum()
            for order in (x, np.sort(x), np.sort(x)[::-1]):
                error = abs(float(np.add.accumulate(order)[-1]) - exact) / (EPS * size)
                assert error <= (terms if values[0] == np.float32(0.1) else sum_ulps(terms))


@pytest.mark.parametrize("changed", ["y", "dx", "dW", "db"])
def test_one_term_left_out_of_a_convolution_is_beyond_the_bound(changed):
    rng = np.random.default_rng(0)
    x, W = rng.standard_normal((4, 8, 12, 12)), rng.standard_normal((6, 8, 3, 3))
    layer = layers.Convolution(W.astype("float32"), np.zeros(6, "float32"), pad=1)
    dout = rng.standard_normal((4, 6, 12, 12)).astype("float32")
    bound = layer_bounds(layer, x.astype("float32"), dout)[changed]
    assert bound.error(bound.expected.astype("float32")) <= bound.ulps
    average_term = bound.magnitude / {"y": 73, "dx": 54, "dW": 4 * 144, "db": 4 * 144}[changed]
    assert bound.error((bound.expected + average_term).astype("float32")) > 10 * bound.ulps


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_normalization_and_loss_allow_for_what_cancels(offset):
    """float32 on the CPU is within its bounds, also where x is far from 0 and its differences have few digits left."""
    rng = np.random.default_rng(0)
    x, dout = (rng.standard_normal((40, 6)).astype("float32") + np.float32(offset) for _ in range(2))
    t = np.arange(40) % 6
    for kind in (layers.BatchNormalization, layers.LayerNormalization, layers.Softmax):
        gamma, beta = rng.standard_normal((2, 6)).astype("float32")
        layer = kind() if kind is layers.Softmax else kind(gamma, beta)
        bounds = layer_bounds(layer, x, dout)
        results = {"y": layer.forward(x), "dx": layer.backward(dout)}
        results |= {f"d{name}": array for name, array in layer.grads.items()} | layer.state
        assert bounds.keys() == results.keys()
        for name, bound in bounds.items():
            assert bound.error(results[name]) <= bound.ulps, (kind, name)
    loss = layers.SoftmaxWithLoss()
    results = {"loss": loss.forward(x, t), "y": loss.y, "dx": loss.backward()}
    for name, bound in loss_bounds(layers.SoftmaxWithLoss(), x, t).items():
        assert bound.error(np.asarray(results[name])) <= bound.ulps, name


class Steep(layers.Loss):
    """A loss of one's own."""

    target_kind = "values"

    def forward(self, x, t):
        self._keep(((x - t) ** 4).mean(), x, t)
        return self.save(self.loss, x - t)

    def backward(self, dout=1.0):
        (error,) = self.saved()
        return 4 * error**3 / error.size


LOSSES = [
    layers.SoftmaxWithLoss(),
    layers.SoftmaxWithLoss(0.1, [1, 2, 3, 1, 2, 3], 4),
    layers.HingeLoss(),
    layers.SigmoidWithLoss(),
    layers.MeanSquaredError(),
    layers.HuberLoss(0.7),
    Steep(),
]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("offset", [0.0, 20.0])
def test_every_loss_is_within_its_bounds_and_a_wrong_one_is_not(loss, dtype, offset):
    rng = np.random.default_rng(0)
    x = (3 * rng.standard_normal((40, 6)) + offset).astype(dtype)
    t = np.arange(40) % 6 if loss.target_kind == "classes" else rng.random((40, 6)).astype("float32")
    if loss.target_kind == "values":
        t += np.float32(offset)
    before = x.copy(), t.copy()
    bounds = loss_bounds(loss, x, t)
    assert all(np.array_equal(a, b) for a, b in zip((x, t), before, strict=True))
    results = {"loss": loss.forward(x, t), "y": loss.y, "dx": loss.backward()}
    for name, bound in bounds.items():
        right = np.asarray(results[name])
        assert bound.error(right) <= bound.ulps, name
        if dtype == "float32":  # a float16 dx has half of the digits
            assert bound.error((right * 1.001).astype(right.dtype)) > bound.ulps, name
    wrong = results["dx"].copy()
    wrong[7] = wrong[8]
    assert bounds["dx"].error(wrong) > bounds["dx"].ulps


def test_a_layer_of_one_s_own_is_held_to_the_error_of_the_cpu():
    class Cube(layers.Layer):
        def forward(self, x):
            return self.save(x * x * x, x)

        def backward(self, dout):
            (x,) = self.saved(dout)
            return 3 * x * x * dout

    x, dout = (np.random.default_rng(seed).standard_normal((40, 6)).astype("float32") for seed in (0, 1))
    bounds = layer_bounds(Cube(), x, dout)
    assert bounds["y"].error(x**3) <= bounds["y"].ulps
    assert bounds["dx"].error(dout * 3 * x**2) <= bounds["dx"].ulps
    assert bounds["y"].error(x**3 * np.float32(1.0001)) > bounds["y"].ulps
    whole = measured_bound(np.array([1.0, 2.0]), np.array([1, 2]))
    assert (whole.error(np.array([1, 2])), whole.error(np.array([1, 3]))) == (0, math.inf)
