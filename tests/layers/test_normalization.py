"""Batch and layer normalisation."""

import math

import numpy as np
import pytest

import backend
from backend import asnumpy, xp
from layers import BatchNormalization, LayerNormalization
from tests.support.checks import assert_close, assert_same, normal
from tests.support.layer_checks import Contract, Expected, LayerCase, Oracle

EPS = 1e-5


def standardized(v):
    """x̂ = (v - μ)/σ of each row of (V, n), σ, and ``reach`` = (mean|v| + |v|)/σ ≥ |x̂|: so much is rounded on the
    way to x̂, through μ, v - μ and σ alike.
    """
    mean = np.array([math.fsum(row) / len(row) for row in v])[:, None]
    variance = np.array([math.fsum((row - m) ** 2) / len(row) for row, m in zip(v, mean, strict=True)])
    sigma = np.sqrt(variance + EPS)[:, None]
    return (v - mean) / sigma, sigma, (abs(v).mean(1, keepdims=True) + abs(v)) / sigma


def normalization(vectors, back, along):
    """γ·x̂ + β over the rows of ``vectors(x)`` (V, n); γ runs along axis ``along`` of them: 0 for one γ a row."""

    def wide(parameter):
        return parameter.reshape(-1, 1) if along == 0 else parameter.reshape(1, -1)

    def forward(p, x):
        unit, _, reach = standardized(vectors(x))
        bound = 2 * abs(wide(p["gamma"])) * reach + abs(wide(p["beta"]))
        y = wide(p["gamma"]) * unit + wide(p["beta"])
        return Expected(back(y, x.shape), back(bound, x.shape), unit.shape[1] + 10, 1)

    def backward(p, dout, x):
        unit, sigma, reach = standardized(vectors(x))
        d, n, shape = vectors(dout), unit.shape[1], p["gamma"].shape
        g = d * wide(p["gamma"])
        # dμ/dv = 1/n and dσ/dv = x̂/n make the Jacobian of x̂
        jacobians = [(np.eye(n) - 1 / n - np.outer(u, u) / n) / s for u, s in zip(unit, sigma, strict=True)]
        dx = np.array([jacobian.T @ row for jacobian, row in zip(jacobians, g, strict=True)])
        mean_g, mean_product = abs(g).mean(1, keepdims=True), abs(g * reach).mean(1, keepdims=True)
        dx_bound = (abs(g) + mean_g + 6 * reach * mean_product) / sigma

        def total(a):
            return a.sum(1 - along).reshape(shape)

        terms = d.size // p["gamma"].size + n + 10
        return {
            "x": Expected(back(dx, x.shape), back(dx_bound, x.shape), n + 10, 1),
            "gamma": Expected(total(d * unit), 3 * total(abs(d) * reach), terms, 1),
            "beta": Expected(total(d), total(abs(d)), terms, 1),
        }

    return Oracle(forward, backward)


def fixed(axes):
    """γ·(x - mean)/√(variance + ε) + β with constants for mean and variance, shared along ``axes``."""

    def parts(p, x):
        wide = [
            a.reshape(1, -1, 1, 1) if axes == (0, 2, 3) else a.reshape(1, *x.shape[1:])
            for a in (p["gamma"], p["beta"], p["running_mean"], np.sqrt(p["running_var"] + EPS))
        ]
        gamma, beta, mean, sigma = wide
        return gamma, beta, sigma, (x - mean) / sigma, (abs(x) + abs(mean)) / sigma

    def forward(p, x):
        gamma, beta, _, unit, reach = parts(p, x)
        return Expected(gamma * unit + beta, abs(gamma) * reach + abs(beta), 10, 1)

    def backward(p, dout, x):
        gamma, _, sigma, unit, reach = parts(p, x)
        dx, terms = dout * gamma / sigma, dout.size // p["gamma"].size + 10
        return {
            "x": Expected(dx, abs(dx), 10, 1),
            "gamma": Expected((dout * unit).sum(axes).reshape(-1), (abs(dout) * reach).sum(axes).reshape(-1), terms, 1),
            "beta": Expected(dout.sum(axes).reshape(-1), abs(dout).sum(axes).reshape(-1), terms, 1),
        }

    return Oracle(forward, backward)


IMAGES = N, C, H, W = (3, 4, 2, 3)
COLUMNS = (lambda x: x.reshape(len(x), -1).T, lambda v, shape: v.T.reshape(shape))
CHANNELS = (
    lambda x: x.transpose(1, 0, 2, 3).reshape(C, -1),
    lambda v, shape: v.reshape(C, N, H, W).transpose(1, 0, 2, 3),
)
PIXELS = (
    lambda x: x.transpose(0, 2, 3, 1).reshape(-1, C),
    lambda v, shape: v.reshape(N, H, W, C).transpose(0, 3, 1, 2),
)
SAMPLES = (lambda x: x.reshape(len(x), -1), lambda v, shape: v.reshape(shape))
LAST_AXIS = (lambda x: x.reshape(-1, x.shape[-1]), lambda v, shape: v.reshape(shape))


def batch(size, mode):
    return lambda draw: BatchNormalization(
        draw(size), draw(size), running_mean=draw(size), running_var=draw(size) ** 2 + 0.5
    ).train(not mode)


def layer(*size):
    return lambda draw: LayerNormalization(draw(*size), draw(*size))


CASES = [
    *(
        LayerCase(f"BatchNormalization of {name}{mode}", batch(size, mode), shape, oracle)
        for name, size, shape, vectors, axes in (
            ("features", 4, (6, 4), COLUMNS, (0,)),
            ("channels", C, IMAGES, CHANNELS, (0, 2, 3)),
            ("activations", C * H * W, IMAGES, COLUMNS, (0,)),
        )
        for mode, oracle in (("", normalization(*vectors, 0)), (", eval", fixed(axes)))
    ),
    LayerCase("LayerNormalization of features", layer(5), (3, 5), normalization(*LAST_AXIS, 1)),
    LayerCase("LayerNormalization of sequences", layer(4), (2, 3, 4), normalization(*LAST_AXIS, 1)),
    LayerCase("LayerNormalization of pixels", layer(C), IMAGES, normalization(*PIXELS, 1)),
    LayerCase("LayerNormalization of images", layer(C, H, W), IMAGES, normalization(*SAMPLES, 1)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
class TestContract(Contract):
    pass


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_an_unbiased_running_variance(device, samples):
    """running = momentum·running + (1 - momentum)·Σ (x - μ)² / (n - 1), twice; of one row, where that is 0/0, by n."""
    layer = BatchNormalization(xp.ones(3, "float64"), xp.zeros(3, "float64"), 0.8, unbiased=True)
    plain, expected = BatchNormalization.of(3, 0.8, "float64"), np.ones(3)
    for seed in (1, 2):
        x = normal((samples, 3), "float64", seed)
        assert_same(layer.forward(x), plain.forward(x))
        expected = 0.8 * expected + 0.2 * asnumpy(x).var(0, ddof=min(1, samples - 1))
    assert_close(layer.running_var, expected, "float64", terms=40, magnitude=2)
    assert_same(layer.running_mean, plain.running_mean)


def test_an_unbiased_running_variance_of_several_processes_rows(device):
    """Here of one process: what ``across`` returns is its own statistics, and the count is an array."""

    class Alone:
        def statistics(self, count, mean, variance):
            return xp.asarray(float(count)), mean, variance

    layer, plain = (BatchNormalization(xp.ones(3), xp.zeros(3), 0.8, unbiased=True) for _ in range(2))
    layer.across, x = Alone(), normal((5, 3), "float64")
    layer.forward(x)
    plain.forward(x)
    assert_close(layer.running_var, asnumpy(plain.running_var), "float64", terms=2, magnitude=2)


def test_channels_become_standard(device):
    """The book's layer normalises each activation of an image on its own; the paper, each channel (section 3.2)."""
    x = normal((5, 3, 4, 4), "float64") * 7 + 3
    y = asnumpy(BatchNormalization.of(3, dtype="float64").forward(x))
    assert abs(y.mean((0, 2, 3))).max() < 1e-14
    assert abs(y.std((0, 2, 3)) - 1).max() < 1e-6  # ε = 1e-5 against a variance of 49


def test_activations_become_standard(device):
    """With γ of (C·H·W,), as in the book."""
    x = normal((50, 2, 3, 3), "float64") * 7 + 3
    y = asnumpy(BatchNormalization(xp.ones(18), xp.zeros(18)).forward(x))
    assert abs(y.mean(0)).max() < 1e-14
    assert abs(y.std(0) - 1).max() < 1e-6


@pytest.mark.parametrize(("shape", "size", "axes"), [((6, 4), 4, (0,)), (IMAGES, C, (0, 2, 3)), (IMAGES, 24, (0,))])
def test_running_statistics(device, shape, size, axes):
    """running = momentum·running + (1 - momentum)·batch, with the biased variance: the book's formula, twice."""
    layer = BatchNormalization(xp.ones(size), xp.zeros(size), momentum=0.7)
    mean, variance = np.zeros(size), np.ones(size)
    for seed in (1, 2):
        x = normal(shape, "float64", seed)
        layer.forward(x)
        host = asnumpy(x)
        mean = 0.7 * mean + 0.3 * host.mean(axes).reshape(-1)
        variance = 0.7 * variance + 0.3 * host.var(axes).reshape(-1)
    assert_close(layer.running_mean, mean, "float64", terms=40, magnitude=1)
    assert_close(layer.running_var, variance, "float64", terms=40, magnitude=2)
    assert layer.state.keys() == {"running_mean", "running_var"}


def test_evaluation_moves_nothing(device):
    layer = BatchNormalization.of(4)
    layer.eval().forward(normal((6, 4)))
    assert_same(layer.running_mean, np.zeros(4, "float32"))
    assert_same(layer.running_var, np.ones(4, "float32"))


def test_evaluation_by_mode(device):
    """γ = 1, β = 0, mean 0 and variance 1 change nothing but for ε."""
    layer, x = BatchNormalization.of(4).eval(), normal((6, 4))
    assert_close(layer.forward(x), asnumpy(x) / math.sqrt(1 + EPS), "float32", terms=4, magnitude=abs(asnumpy(x)))
    layer.train().forward(x)
    assert float(abs(layer.running_mean).max()) > 0


def test_given_statistics_are_copied(device):
    """The caller's arrays are theirs: training must not move them."""
    mean, variance = xp.zeros(4, "float32"), xp.ones(4, "float32")
    layer = BatchNormalization(xp.ones(4, "float32"), xp.zeros(4, "float32"), 0.9, mean, variance)
    layer.forward(normal((6, 4)))
    assert_same(mean, np.zeros(4, "float32"))
    assert_same(variance, np.ones(4, "float32"))


@pytest.mark.parametrize("given", [None, "float16"])
def test_statistics_of_float16_are_float32(device, given):
    """In float16 a running mean would stop to move: 0.1·δ falls below half an ulp."""
    statistics = {} if given is None else {"running_mean": xp.zeros(4, given), "running_var": xp.ones(4, given)}
    layer = BatchNormalization(xp.ones(4, "float16"), xp.zeros(4, "float16"), **statistics)
    layer.forward(normal((6, 4), "float16"))
    assert {array.dtype.name for array in layer.state.values()} == {"float32"}


def test_far_from_zero(device):
    """Deviations from the mean are squared, not E[x²] - E[x]²: of 1e4 ± 1 that would leave no digit in float32."""
    x = xp.asarray([[9999], [10001]], "float32")
    for layer in (BatchNormalization.of(1), LayerNormalization.of(2)):
        y = layer.forward(x if isinstance(layer, BatchNormalization) else x.T)
        assert abs(abs(asnumpy(y)) - 1).max() < 1e-5


def test_float16_sums_do_not_overflow(device):
    """65504 is the largest float16; the sum of squared deviations here is 4·300²."""
    x = xp.asarray([[300], [-300], [300], [-300]], "float16")
    layer = BatchNormalization.of(1, dtype="float16")
    assert_same(layer.forward(x), np.float16([[1], [-1], [1], [-1]]))


def test_of_a_size(device):
    layer = BatchNormalization.of(3, momentum=0.5)
    assert_same(layer.gamma, np.ones(3, "float32"))
    assert_same(layer.beta, np.zeros(3, "float32"))
    assert layer.momentum == 0.5
    assert LayerNormalization.of(3, "float64").gamma.dtype == "float64"
    assert LayerNormalization.of((3, 2, 4)).beta.shape == (3, 2, 4)


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: BatchNormalization(ones(3), ones(4)), ValueError, r"gamma and beta \(D,\), got \(3,\) and \(4,\)"),
        (lambda: BatchNormalization(ones(1, 3), ones(1, 3)), ValueError, r"got \(1, 3\) and \(1, 3\)"),
        (lambda: BatchNormalization(ones(3), ones(3, dtype="float64")), TypeError, "gamma float32, beta float64"),
        (
            lambda: BatchNormalization(ones(3), ones(3), running_var=ones(4)),
            ValueError,
            r"running_var must be of shape \(3,\), got \(4,\)",
        ),
        (lambda: BatchNormalization(ones(3), ones(3)).forward(ones(2, 4)), ValueError, r"\(3,\) .*got \(4,\)"),
        (lambda: BatchNormalization(ones(3), ones(3)).forward(ones(2, 3, 5)), ValueError, r"got \(3, 5\)"),
        (lambda: LayerNormalization(ones(3, 2), ones(3, 2)), ValueError, r"got \(3, 2\) and \(3, 2\)"),
        (lambda: LayerNormalization(ones(3), ones(4)), ValueError, r"\(C, H, W\), got \(3,\) and \(4,\)"),
        (lambda: LayerNormalization(ones(3), ones(3)).forward(ones(2, 4)), ValueError, r"\(3,\), got \(4,\)"),
        (
            lambda: LayerNormalization(ones(3, 2, 2), ones(3, 2, 2)).forward(ones(5, 3, 2, 4)),
            ValueError,
            r"\(3, 2, 2\), got \(3, 2, 4\)",
        ),
        (
            lambda: LayerNormalization(ones(3), ones(3)).forward(ones(2, 3, dtype=int)),
            TypeError,
            "x as a floating-point array, got int64",
        ),
    ],
)
def test_refuses(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_refused_batch_moves_nothing():
    layer = BatchNormalization(ones(3), ones(3))
    with pytest.raises(ValueError):
        layer.forward(ones(2, 4))
    assert_same(layer.running_mean, np.zeros(3, "float32"))


def test_repr():
    assert repr(BatchNormalization(ones(3), ones(3), momentum=0.8)) == "BatchNormalization(3, momentum 0.8)"
    assert repr(LayerNormalization.of(5)) == "LayerNormalization(5)"
    assert repr(LayerNormalization.of((3, 2, 4))) == "LayerNormalization(3 x 2 x 4)"


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (lambda: xp.ones(4, "float32"), ValueError, r"must be of shape \(3,\), got \(4,\)"),
        (lambda: xp.ones((3, 1), "float32"), ValueError, r"must be of shape \(3,\), got \(3, 1\)"),
        (lambda: xp.ones(3, "int32"), TypeError, "must be a floating-point array, got"),
        (lambda: None, TypeError, "must be a floating-point array, got None"),
        (lambda: [0.0, 0.0, 0.0], TypeError, "must be a floating-point array, got"),
        (lambda: 0.5, TypeError, "must be a floating-point array, got 0.5"),
    ],
)
def test_a_running_statistic_is_checked_where_it_is_assigned(device, name, value, error, message):
    layer = BatchNormalization.of(3)
    before = asnumpy(getattr(layer, name)).copy()
    with pytest.raises(error, match=f"^BatchNormalization: {name} {message}"):
        setattr(layer, name, value())
    assert_same(getattr(layer, name), before)


def test_a_running_statistic_of_another_dtype_is_converted(device):
    layer = BatchNormalization.of(3)
    layer.running_mean = xp.asarray([1, 2, 3], "float64")
    assert_same(layer.running_mean, np.array([1, 2, 3], "float32"))
    y = layer.eval().forward(xp.asarray([[1, 2, 3]], "float32"))
    assert_same(y, np.zeros((1, 3), "float32"))


@pytest.mark.gpu
def test_a_running_statistic_lies_with_its_layer():
    with backend.use("cuda"):
        layer = BatchNormalization.of(3)
        with pytest.raises(TypeError, match="host and device arrays are mixed"):
            layer.running_mean = np.ones(3, "float32")
