"""The book's optimizers: its formulas, written out for single numbers, on numbers and on arrays."""

import math

import numpy as np
import pytest

from backend import asarray, asnumpy, xp
from tests.support.checks import frozen, normal
from training.compat.book.optimizer import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop
from training.optim import optimizers as core

GRADIENTS = [3.0, -1e-6, 0.5, 2e-8, -2.0]


def sgd(x, gradients, lr):
    for g in gradients:
        x = x - lr * g
        yield x


def momentum(x, gradients, lr, m):
    v = 0.0
    for g in gradients:
        v = m * v - lr * g
        x = x + v
        yield x


def nesterov(x, gradients, lr, m):
    v = 0.0
    for g in gradients:
        x = x + m * m * v - (1 + m) * lr * g
        v = m * v - lr * g
        yield x


def adagrad(x, gradients, lr):
    h = 0.0
    for g in gradients:
        h += g * g
        x = x - lr * g / (math.sqrt(h) + 1e-7)
        yield x


def rmsprop(x, gradients, lr, decay):
    h = 0.0
    for g in gradients:
        h = decay * h + (1 - decay) * g * g
        x = x - lr * g / (math.sqrt(h) + 1e-7)
        yield x


def adam(x, gradients, lr, beta1, beta2):
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        x = x - lr * math.sqrt(1 - beta2**t) / (1 - beta1**t) * m / (math.sqrt(v) + 1e-7)
        yield x


CASES = [
    (SGD, sgd, {"lr": 0.01}),
    (Momentum, momentum, {"lr": 0.01, "momentum": 0.9}),
    (Nesterov, nesterov, {"lr": 0.01, "momentum": 0.9}),
    (AdaGrad, adagrad, {"lr": 0.01}),
    (RMSprop, rmsprop, {"lr": 0.01, "decay_rate": 0.99}),
    (Adam, adam, {"lr": 0.001, "beta1": 0.9, "beta2": 0.999}),
]


@pytest.mark.parametrize(("optimizer", "formula", "defaults"), CASES, ids=[case[0].__name__ for case in CASES])
class TestEach:
    def test_numbers(self, optimizer, formula, defaults):
        """``params = {"x": -7.0}``, with the book's defaults, and integers."""
        for start in (-7.0, 5, np.float64(2), np.float32(2)):
            params, method = {"x": start, "y": 1.0}, optimizer()
            for g, expected in zip(GRADIENTS, formula(float(start), GRADIENTS, *defaults.values()), strict=True):
                method.update(params, {"x": g, "y": 0})
                assert abs(float(params["x"]) - expected) < 1e-6 if isinstance(start, np.float32) else 1e-14
            assert params["y"] == 1.0

    def test_arrays(self, device, optimizer, formula, defaults):
        """In place, every element by itself; other gradients are left alone."""
        other = {name: value / 2 for name, value in defaults.items()}
        gradients = [normal((2, 3), "float64", seed) for seed in range(4)]
        array = normal((2, 3), "float64", 9)
        start, params, method = asnumpy(array).copy(), {"W": array}, optimizer(**other)
        for g in gradients:
            with frozen(g):
                method.update(params, {"W": g, "unknown": None})
        assert params["W"] is array
        for index in np.ndindex(2, 3):
            column = [float(g[index]) for g in gradients]
            *_, expected = formula(start[index], column, *other.values())
            assert abs(float(array[index]) - expected) < 1e-14

    def test_defaults(self, optimizer, formula, defaults):
        assert {name: getattr(optimizer(), name) for name in defaults} == defaults

    def test_float32_stays(self, device, optimizer, formula, defaults):
        params = {"W": normal(4)}
        optimizer().update(params, {"W": normal(4, "float64", 1)})
        assert params["W"].dtype == "float32"

    def test_nothing_changes_on_an_error(self, device, optimizer, formula, defaults):
        good, method = xp.ones(2), optimizer()
        cases = [
            ({"a": good}, {}, KeyError, "grads lacks the parameter 'a'; it has none"),
            ({"a": good, "b": xp.ones(2)}, {"a": xp.ones(2)}, KeyError, "grads lacks the parameter 'b'"),
            ({"a": good, "b": xp.ones(2)}, {"a": xp.ones(2), "b": xp.ones(1)}, ValueError, r"shape \(2,\), got \(1,\)"),
            (
                {"a": good, "b": xp.ones(2, int)},
                {"a": xp.ones(2), "b": xp.ones(2)},
                TypeError,
                "floating array, got int64",
            ),
        ]
        for params, grads, error, message in cases:
            with pytest.raises(error, match=message):
                method.update(params, grads)
            assert asnumpy(good).tolist() == [1, 1]

    def test_state_belongs_to_its_parameters(self, optimizer, formula, defaults):
        method = optimizer()
        method.update({"a": np.ones(2)}, {"a": np.ones(2)})
        for params in ({"b": np.ones(2)}, {"a": np.ones(3)}):
            if optimizer is SGD:  # which has none: the book shares one among networks
                method.update(params, dict(params))
                continue
            with pytest.raises(ValueError, match="trained other parameters"):
                method.update(params, dict(params))
            assert (next(iter(params.values())) == 1).all()


def test_adams_first_step_at_small_gradients(device):
    """1e-7 stands beside the uncorrected second moment, which the core corrects first."""
    expected = 0.001 * math.sqrt(0.001) / 0.1 * 1e-7 / (math.sqrt(1e-15) + 1e-7)
    ours, cores = xp.zeros(1), xp.zeros(1)
    Adam().update({"W": ours}, {"W": asarray([1e-6])})
    core.Adam().update({"W": cores}, {"W": asarray([1e-6])})
    assert abs(-float(ours[0]) / expected - 1) < 1e-12
    assert abs(expected - 0.00024) < 1e-6
    assert abs(-float(cores[0]) - 0.00099) < 1e-6


def test_the_ways_down_of_chapter_6(device):
    """x²/20 + y² from (-7, 2), 30 steps: where the four of the book's figure end."""
    ends = {}
    for method in (SGD(lr=0.95), Momentum(lr=0.1), AdaGrad(lr=1.5), Adam(lr=0.3)):
        params = {"x": -7.0, "y": 2.0}
        for _ in range(30):
            method.update(params, {"x": params["x"] / 10.0, "y": 2.0 * params["y"]})
        ends[type(method).__name__] = params["x"], params["y"]
    assert abs(ends["SGD"][0] + 7 * 0.905**30) < 1e-13
    assert abs(ends["SGD"][1] - 2 * 0.9**30) < 1e-13
    for x, y in ends.values():
        assert x * x / 20 + y * y < 0.2
