"""Functional batch normalization, of rows and of images."""

import numpy as np
import pytest

import backend
from backend import asnumpy, xp
from layers.compat.course import (
    batchnorm_backward,
    batchnorm_forward,
    spatial_batchnorm_backward,
    spatial_batchnorm_forward,
)
from tests.support import oracles
from tests.support.checks import (
    DTYPES,
    LAYOUTS,
    assert_close,
    assert_same,
    assert_separate,
    check_gradient,
    frozen,
    laid_out,
    normal,
)

ROWS = (batchnorm_forward, batchnorm_backward, (9, 5))
IMAGES = (spatial_batchnorm_forward, spatial_batchnorm_backward, (2, 5, 3, 4))
BOTH = pytest.mark.parametrize(("forward", "backward", "shape"), [ROWS, IMAGES], ids=["rows", "images"])


def rows_of(x):
    """The matrix whose columns are normalized, float64 on the host."""
    x = asnumpy(x).astype(np.float64)
    return x if x.ndim == 2 else x.transpose(0, 2, 3, 1).reshape(-1, x.shape[1])


def arrays(shape, dtype, layout="contiguous"):
    """x, gamma, beta, dout."""
    shapes = (shape, shape[1:2], shape[1:2], shape)
    return [laid_out(normal(s, dtype, seed), layout) for seed, s in enumerate(shapes)]


@BOTH
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_training(device, forward, backward, shape, dtype, layout):
    """Against the loops of the oracle; the running statistics move from zero by a tenth of the batch's."""
    given, bn_param = arrays(shape, dtype, layout), {"mode": "train", "eps": 1e-3}
    x, gamma, beta, dout = given
    with frozen(*given):
        out, cache = forward(x, gamma, beta, bn_param)
        seen = backward(dout, cache)
    assert_separate((out, *seen), given)
    y, mean, variance = oracles.batch_norm(rows_of(x), asnumpy(gamma), asnumpy(beta), 1e-3)
    gradients = oracles.batch_norm_backward(rows_of(dout), rows_of(x), asnumpy(gamma), 1e-3)
    bounds = {"terms": 40, "magnitude": 12, "roundings": 2}
    assert out.shape == seen[0].shape == shape
    assert_close(rows_like(out), y, dtype, **bounds)
    assert_close(rows_like(seen[0]), gradients[0], dtype, **bounds)
    for gradient, expected in zip(seen[1:], gradients[1:], strict=True):
        assert_close(gradient, expected, dtype, **bounds)
    kept = "float32" if dtype == "float16" else dtype
    assert set(bn_param) == {"mode", "eps", "running_mean", "running_var"}
    for name, batch in (("running_mean", mean), ("running_var", variance)):
        assert_close(bn_param[name], 0.1 * batch, kept, terms=40, magnitude=1)


def rows_like(x):
    """Return the result of ``rows_of`` in the array's own dtype."""
    return rows_of(x).astype(asnumpy(x).dtype)


@BOTH
def test_running_statistics(device, forward, backward, shape):
    """They converge to those of data that repeats; training makes new arrays and leaves the old alone."""
    x, gamma, beta, _ = arrays(shape, "float64")
    start = {"running_mean": xp.full(shape[1], 3.0), "running_var": xp.full(shape[1], 0.5)}
    bn_param = {"mode": "train", "momentum": 0.25, **start}
    with frozen(*start.values()):
        for _ in range(60):
            forward(x, gamma, beta, bn_param)
    _, mean, variance = oracles.batch_norm(rows_of(x), asnumpy(gamma), asnumpy(beta), 1e-5)
    assert abs(asnumpy(bn_param["running_mean"]) - mean).max() < 1e-14
    assert abs(asnumpy(bn_param["running_var"]) - variance).max() < 1e-14
    once = {"mode": "train", "momentum": 0.25, **start}
    forward(x, gamma, beta, once)
    assert abs(asnumpy(once["running_mean"]) - (0.25 * 3 + 0.75 * mean)).max() < 1e-14
    assert abs(asnumpy(once["running_var"]) - (0.25 * 0.5 + 0.75 * variance)).max() < 1e-14


@BOTH
@pytest.mark.parametrize("dtype", DTYPES)
def test_evaluation(device, forward, backward, shape, dtype):
    """The running statistics are constants: each number is scaled and shifted, and so is each gradient."""
    given = arrays(shape, dtype)
    x, gamma, beta, dout = given
    kept = "float32" if dtype == "float16" else dtype
    bn_param = {
        "mode": "test",
        "running_mean": normal(shape[1:2], kept, 8),
        "running_var": abs(normal(shape[1:2], kept, 9)) + 0.5,
    }
    before = dict(bn_param)
    with frozen(*given, bn_param["running_mean"], bn_param["running_var"]):
        out, cache = forward(x, gamma, beta, bn_param)
        dx, dgamma, dbeta = backward(dout, cache)
    assert_separate((out, dx, dgamma, dbeta), given)
    assert bn_param.keys() == before.keys()
    assert all(bn_param[name] is before[name] for name in before)
    mean, variance, g, b = (asnumpy(a).astype(np.float64) for a in (*list(before.values())[1:], gamma, beta))
    normalized = (rows_of(x) - mean) / np.sqrt(variance + 1e-5)
    bounds = {"terms": 40, "magnitude": 12, "roundings": 2}
    assert_close(rows_like(out), normalized * g + b, dtype, **bounds)
    assert_close(rows_like(dx), rows_of(dout) * g / np.sqrt(variance + 1e-5), dtype, **bounds)
    assert_close(dgamma, (rows_of(dout) * normalized).sum(0), dtype, **bounds)
    assert_close(dbeta, rows_of(dout).sum(0), dtype, **bounds)


@BOTH
@pytest.mark.parametrize("mode", ["train", "test"])
def test_gradient(device, forward, backward, shape, mode):
    x, gamma, beta, dout = arrays(shape, "float64")
    statistics = {"running_mean": xp.full(shape[1], 0.3), "running_var": xp.full(shape[1], 1.5)}

    def loss(*moved):
        return (forward(*moved, {"mode": mode, **statistics})[0] * dout).sum()

    _, cache = forward(x, gamma, beta, {"mode": mode, **statistics})
    check_gradient(loss, [x, gamma, beta], backward(dout, cache))


@BOTH
@pytest.mark.parametrize("mode", ["train", "test"])
def test_no_samples(device, forward, backward, shape, mode):
    """They have no statistics: the running ones stay as they are, or away."""
    x, gamma, beta, dout = arrays((0, *shape[1:]), "float32")
    bn_param = {"mode": mode, "running_mean": xp.zeros(5, "float32"), "running_var": xp.ones(5, "float32")}
    before = dict(bn_param)
    out, cache = forward(x, gamma, beta, bn_param)
    assert all(bn_param[name] is before[name] for name in before)
    dx, dgamma, dbeta = backward(dout, cache)
    assert out.shape == dx.shape == x.shape
    for gradient in (dgamma, dbeta):
        assert_same(gradient, np.zeros(5, "float32"))
    fresh = {"mode": "train"}
    forward(x, gamma, beta, fresh)
    assert fresh == {"mode": "train"}


def test_spatial_is_that_of_the_pixels(device):
    """(N, C, H, W) as (N·H·W, C): the same bits."""
    x, gamma, beta, _ = arrays(IMAGES[2], "float32")
    rows = backend.asarray(rows_like(x))
    expected, _ = batchnorm_forward(rows, gamma, beta, {"mode": "train"})
    out, _ = spatial_batchnorm_forward(x, gamma, beta, {"mode": "train"})
    assert_same(backend.asarray(rows_like(out)), expected)


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


@pytest.mark.parametrize(
    ("bn_param", "error", "message"),
    [
        ({}, ValueError, r"bn_param needs 'mode', got \[\]"),
        ({"mode": "eval"}, ValueError, r"bn_param\['mode'\] must be one of 'train', 'test', got 'eval'"),
        ({"mode": None}, TypeError, r"bn_param\['mode'\] must be one of 'train', 'test', got None"),
        ({"mode": "train", "epsilon": 1}, ValueError, "bn_param takes 'mode', 'eps', .*got 'epsilon'"),
        (
            {"mode": "train", "eps": -1e-5},
            ValueError,
            r"bn_param\['eps'\] must be .*at least 0, got -1e-05",
        ),
        (
            {"mode": "train", "eps": float("inf")},
            ValueError,
            r"bn_param\['eps'\] must be .*at least 0, got inf",
        ),
        (
            {"mode": "train", "momentum": 2},
            ValueError,
            r"bn_param\['momentum'\] must be .*at most 1, got 2",
        ),
        ({"mode": "test"}, ValueError, "bn_param in mode 'test' needs 'running_mean'"),
        ({"mode": "test", "running_mean": ones(3)}, ValueError, "bn_param in mode 'test' needs 'running_var'"),
        (
            {"mode": "train", "running_var": ones(2)},
            ValueError,
            r"bn_param\['running_var'\] must have shape \(3,\).*\(2,\)",
        ),
        (
            {"mode": "train", "running_mean": 0.0},
            ValueError,
            r"bn_param\['running_mean'\] must have shape \(3,\).*\(\)",
        ),
        ({"mode": "test", "running_mean": "0", "running_var": 1}, TypeError, "bn_param needs running_mean as numbers"),
        (None, TypeError, "bn_param must be a dictionary with 'mode'"),
    ],
)
def test_refuses_a_bn_param(bn_param, error, message):
    before = dict(bn_param or {})
    for forward, x in ((batchnorm_forward, normal((4, 3))), (spatial_batchnorm_forward, normal((2, 3, 2, 2)))):
        with pytest.raises(error, match=message):
            forward(x, ones(3), ones(3), bn_param)
    assert before.items() == dict(bn_param or {}).items()


@pytest.mark.parametrize(
    ("forward", "shapes", "message"),
    [
        (batchnorm_forward, ((4,), (4,), (4,)), r"needs x \(N, D\).*got \(4,\), \(4,\), \(4,\)"),
        (batchnorm_forward, ((2, 4), (3,), (3,)), r"got \(2, 4\), \(3,\), \(3,\)"),
        (batchnorm_forward, ((2, 4), (4,), (1,)), r"got \(2, 4\), \(4,\), \(1,\)"),
        (spatial_batchnorm_forward, ((2, 4), (4,), (4,)), r"needs x \(N, C, H, W\).*got \(2, 4\)"),
        (spatial_batchnorm_forward, ((2, 4, 3, 3), (3,), (3,)), r"got \(2, 4, 3, 3\), \(3,\), \(3,\)"),
    ],
)
def test_refuses_shapes(forward, shapes, message):
    with pytest.raises(ValueError, match=message):
        forward(*(ones(*shape) for shape in shapes), {"mode": "train"})


@BOTH
def test_refuses_a_gradient(forward, backward, shape):
    x, gamma, beta, _ = arrays(shape, "float32")
    out, cache = forward(x, gamma, beta, {"mode": "train"})
    with pytest.raises(ValueError, match=rf"{backward.__name__} needs the gradient of an output .*got \(2, 2\)"):
        backward(ones(2, 2), cache)
    with pytest.raises(TypeError, match=f"{backward.__name__} needs dout as numbers .*, got bool"):
        backward(out > 0, cache)
