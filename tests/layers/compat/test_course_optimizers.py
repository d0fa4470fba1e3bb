"""The course's update rules over many steps, against the formulas in Python's numbers."""

import math

import numpy as np
import pytest

from backend import asnumpy, xp
from layers.compat import course
from tests.support.checks import DTYPES, assert_same, assert_separate, frozen, laid_out, normal, variants


def sgd(w, dw, s, learning_rate=1e-2):
    return w - learning_rate * dw


def sgd_momentum(w, dw, s, learning_rate=1e-2, momentum=0.9):
    s["velocity"] = momentum * s.get("velocity", 0.0) - learning_rate * dw
    return w + s["velocity"]


def rmsprop(w, dw, s, learning_rate=1e-2, decay_rate=0.99, epsilon=1e-8):
    s["cache"] = decay_rate * s.get("cache", 0.0) + (1 - decay_rate) * dw**2
    return w - learning_rate * dw / (math.sqrt(s["cache"]) + epsilon)


def adam(w, dw, s, learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8):
    s["t"] = s.get("t", 0) + 1
    s["m"] = beta1 * s.get("m", 0.0) + (1 - beta1) * dw
    s["v"] = beta2 * s.get("v", 0.0) + (1 - beta2) * dw**2
    m, v = s["m"] / (1 - beta1 ** s["t"]), s["v"] / (1 - beta2 ** s["t"])
    return w - learning_rate * m / (math.sqrt(v) + epsilon)


RULES = {rule.__name__: rule for rule in (sgd, sgd_momentum, rmsprop, adam)}
OTHERS = {
    "sgd": {"learning_rate": 0.3},
    "sgd_momentum": {"learning_rate": 0.2, "momentum": 0.5},
    "rmsprop": {"learning_rate": 0.1, "decay_rate": 0.7, "epsilon": 1e-3},
    "adam": {"learning_rate": 0.1, "beta1": 0.6, "beta2": 0.8, "epsilon": 1e-3},
}
OF_ALL = pytest.mark.parametrize("name", list(RULES))


@OF_ALL
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("settings", [{}, OTHERS], ids=["defaults", "others"])
def test_steps(device, name, dtype, settings):
    """Five steps, each number for itself; the dictionary is the one that was given."""
    given = dict(settings.get(name, {}))
    w, config, options = normal((3, 2), dtype), given, dict(given)
    expected, states = asnumpy(w).astype(float), [{} for _ in range(6)]
    for step in range(5):
        dw = normal((3, 2), dtype, step + 1)
        before = {key: value for key, value in config.items() if hasattr(value, "shape")}
        with frozen(w, dw, *before.values()):
            next_w, config = getattr(course, name)(w, dw, config)
        assert_separate(next_w, [w, dw, *before.values()])
        assert config is given
        numbers = zip(expected.ravel(), asnumpy(dw).astype(float).ravel(), states, strict=True)
        expected = np.array([RULES[name](*three, **options) for three in numbers]).reshape(3, 2)
        w = next_w
        assert w.dtype == dtype
        eps = float(np.finfo(dtype).eps)
        assert np.abs(asnumpy(w) - expected).max() < 20 * (step + 1) * eps
    kept = "float32" if dtype == "float16" else dtype
    for key in set(states[0]) - {"t"}:
        assert config[key].dtype == kept
        found, right = asnumpy(config[key]).ravel(), [state[key] for state in states]
        assert np.allclose(found, right, rtol=1e-2 if dtype == "float16" else 1e-4, atol=1e-5)
    assert config.get("t") == states[0].get("t")


@OF_ALL
def test_strided_empty_and_single(device, name):
    rule = getattr(course, name)
    w, dw = normal((3, 4), "float32", 1), normal((3, 4), "float32", 2)
    expected, _ = rule(w, dw)
    for (layout, view), (_, gradient) in zip(variants(w), variants(dw), strict=True):
        with frozen(view, gradient):
            assert_same(rule(view, gradient)[0], expected), layout
    assert_same(rule(laid_out(w, "fortran"), dw)[0], expected)
    for shape in ((0, 3), ()):
        next_w, _ = rule(xp.ones(shape, "float32"), xp.ones(shape, "float32"))
        assert (next_w.shape, next_w.dtype) == (shape, "float32")


@OF_ALL
def test_integers_lists_and_wide_gradients(device, name):
    """The gradient takes the dtype of the weights; integer weights are float64."""
    rule = getattr(course, name)
    w, dw = xp.asarray([1.0, 2.0], "float32"), xp.asarray([3.0, -1.0], "float32")
    expected, _ = rule(w, dw)
    for gradient in (dw.astype("float64"), dw.astype("int64"), [3, -1]):
        assert_same(rule(w, gradient)[0], expected, "float32")
    wide, _ = rule(w.astype("float64"), dw)
    for weights in (w.astype("int32"), [1, 2], [1.0, 2.0]):
        assert_same(rule(weights, dw)[0], wide, "float64")


def test_what_is_remembered_may_be_given(device):
    """Lists and integers, too; None is as good as nothing."""
    w = xp.ones(2, "float32")
    expected, _ = course.sgd_momentum(w, w, {"velocity": xp.asarray([1.0, 2.0], "float32")})
    for velocity in ([1, 2], [1.0, 2.0], xp.asarray([1, 2]), xp.asarray([1.0, 2.0])):
        next_w, config = course.sgd_momentum(w, w, {"velocity": velocity})
        assert_same(next_w, expected, "float32")
        assert config["velocity"].dtype == "float32"
    for config in (None, {}, {"velocity": None}):
        assert_same(course.sgd_momentum(w, w, config)[0], course.sgd(w, w)[0])


def test_one_dictionary_for_any_rule(device):
    """As a solver has it, that looks a rule up by its name."""
    for name in RULES:
        config = {"learning_rate": 0.1, "momentum": 0.5, "decay_rate": 0.9, "beta1": 0.5, "beta2": 0.5, "epsilon": 1e-7}
        _, after = getattr(course, name)(xp.ones(2), xp.ones(2), config)
        assert after is config
        assert after["learning_rate"] == 0.1


@pytest.mark.parametrize(
    ("name", "config", "error", "message"),
    [
        ("sgd", {"lr": 0.1}, ValueError, "config takes 'learning_rate', got 'lr'"),
        ("adam", {"eps": 0.1}, ValueError, "config takes 'learning_rate', 'beta1', .*, got 'eps'"),
        ("sgd", 0.1, TypeError, "config must be a dictionary with 'learning_rate', got 0.1"),
        (
            "sgd",
            {"learning_rate": float("nan")},
            ValueError,
            r"config\['learning_rate'\] must be .*finite.*, got nan",
        ),
        ("sgd", {"learning_rate": "0.1"}, TypeError, r"config\['learning_rate'\] must be .*finite.*, got '0.1'"),
        (
            "sgd_momentum",
            {"momentum": 1.5},
            ValueError,
            r"config\['momentum'\] must be .*at most 1, got 1.5",
        ),
        (
            "rmsprop",
            {"decay_rate": -0.1},
            ValueError,
            r"config\['decay_rate'\] must be .*at most 1, got -0.1",
        ),
        ("rmsprop", {"epsilon": -1}, ValueError, r"config\['epsilon'\] must be .*at least 0, got -1"),
        ("adam", {"beta1": 1}, ValueError, r"config\['beta1'\] must be a finite number, at least 0 and below 1"),
        ("adam", {"beta2": 1.0}, ValueError, r"config\['beta2'\] must be a finite number, at least 0 and below 1"),
        ("adam", {"t": 1.5}, ValueError, r"config\['t'\] must be a whole number of at least 0, got 1.5"),
        ("adam", {"v": np.ones(3)}, ValueError, r"config\['v'\] must have the shape of w, \(2,\), got \(3,\)"),
        ("rmsprop", {"cache": 0.0}, ValueError, r"config\['cache'\] must have the shape of w, \(2,\), got \(\)"),
        ("sgd_momentum", {"velocity": "0"}, TypeError, "config needs velocity as numbers"),
    ],
)
def test_refuses_a_config(name, config, error, message):
    before = dict(config) if isinstance(config, dict) else config
    with pytest.raises(error, match=message):
        getattr(course, name)(np.ones(2), np.ones(2), config)
    if isinstance(config, dict):
        assert config.keys() == before.keys()


@OF_ALL
def test_refuses_arrays(name):
    rule = getattr(course, name)
    with pytest.raises(ValueError, match=rf"{name} needs w and dw of one shape, got \(2,\), \(2, 1\)"):
        rule(np.ones(2), np.ones((2, 1)))
    with pytest.raises(TypeError, match=f"{name} needs dw as numbers"):
        rule(np.ones(2), None)
