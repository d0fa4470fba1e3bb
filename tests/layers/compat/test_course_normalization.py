"""The course's normalizations over a sample, and over groups of an image's channels."""

import numpy as np
import pytest

from backend import asnumpy, xp
from layers import LayerNormalization
from layers.compat.course import (
    batchnorm_backward,
    batchnorm_forward,
    layernorm_backward,
    layernorm_forward,
    spatial_groupnorm_backward,
    spatial_groupnorm_forward,
)
from tests.support.checks import DTYPES, LAYOUTS, assert_same, assert_separate, check_gradient, frozen, laid_out, normal

IMAGES = (2, 6, 3, 5)


def arrays(shape, of_parameters, dtype, layout="contiguous"):
    """x, gamma, beta, dout."""
    shapes = (shape, of_parameters, of_parameters, shape)
    return [laid_out(normal(s, dtype, seed), layout) for seed, s in enumerate(shapes)]


def tolerance(dtype):
    return 40 * float(np.finfo(dtype).eps)


DTYPES_OR_LAYOUTS = [(dtype, "contiguous") for dtype in DTYPES] + [("float32", layout) for layout in LAYOUTS[1:]]


@pytest.mark.parametrize(("dtype", "layout"), DTYPES_OR_LAYOUTS[:-1])
def test_rows_are_those_of_the_layer(device, dtype, layout):
    given = x, gamma, beta, dout = arrays((4, 7), (7,), dtype, layout)
    with frozen(*given):
        out, cache = layernorm_forward(x, gamma, beta, {"eps": 1e-3})
        seen = layernorm_backward(dout, cache)
        again = layernorm_backward(dout, cache)
    assert_separate((out, *seen), given)
    layer = LayerNormalization(gamma, beta, eps=1e-3)
    expected = [layer.forward(x), layer.backward(dout), layer.dgamma, layer.dbeta]
    for actual, right in zip((out, *seen), expected, strict=True):
        assert_same(actual, right, dtype)
    for first, second in zip(seen, again, strict=True):
        assert_same(first, second)


def test_rows_are_the_columns_of_a_batch_normalization(device):
    """The same formula over the other axis."""
    x, _, _, dout = arrays((4, 7), (7,), "float64")
    out, cache = layernorm_forward(x, [1] * 7, [0] * 7)
    columns, of_columns = batchnorm_forward(x.T, [1] * 4, [0] * 4, {"mode": "train"})
    assert np.allclose(asnumpy(out), asnumpy(columns).T, atol=1e-14)
    dx, of_x = layernorm_backward(dout, cache)[0], batchnorm_backward(dout.T, of_columns)[0]
    assert np.allclose(asnumpy(dx), asnumpy(of_x).T, atol=1e-13)


@pytest.mark.parametrize(("dtype", "layout"), DTYPES_OR_LAYOUTS)
@pytest.mark.parametrize("of_parameters", [(6,), (1, 6, 1, 1)], ids=str)
def test_groups_are_rows(device, dtype, layout, of_parameters):
    """An image's group as a row of a layer normalization, in double precision."""
    given = x, gamma, beta, dout = arrays(IMAGES, of_parameters, dtype, layout)
    with frozen(*given):
        out, cache = spatial_groupnorm_forward(x, gamma, beta, 3, {"eps": 1e-3})
        dx, dgamma, dbeta = spatial_groupnorm_backward(dout, cache)
    assert_separate((out, dx, dgamma, dbeta), given)
    assert dgamma.shape == dbeta.shape == of_parameters
    assert {array.dtype.name for array in (out, dx, dgamma, dbeta)} == {dtype}
    wide = [array.astype("float64") for array in given]
    scale = xp.broadcast_to(wide[1].reshape(1, 6, 1, 1), IMAGES)
    rows, gradients = (array.reshape(6, 30) for array in (wide[0], wide[3] * scale))
    unit, of_rows = layernorm_forward(rows, [1] * 30, [0] * 30, {"eps": 1e-3})
    of_x = layernorm_backward(gradients, of_rows)[0].reshape(IMAGES)
    unit = unit.reshape(IMAGES)
    for actual, expected, size in (
        (out, unit * scale + wide[2].reshape(1, 6, 1, 1), 8),
        (dx, of_x, 20),
        (dgamma, (wide[3] * unit).sum((0, 2, 3)).reshape(of_parameters), 30),
        (dbeta, wide[3].sum((0, 2, 3)).reshape(of_parameters), 30),
    ):
        assert np.abs(asnumpy(actual).astype(float) - asnumpy(expected)).max() < size * tolerance(dtype)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_gradient_of_groups(device, groups):
    x, gamma, beta, dout = arrays((2, 6, 3, 2), (1, 6, 1, 1), "float64")
    gradients = spatial_groupnorm_backward(dout, spatial_groupnorm_forward(x, gamma, beta, groups, {})[1])
    check_gradient(
        lambda *moved: (spatial_groupnorm_forward(*moved, groups, {})[0] * dout).sum(), [x, gamma, beta], gradients
    )


def test_gradient_of_rows(device):
    x, gamma, beta, dout = arrays((3, 5), (5,), "float64")
    gradients = layernorm_backward(dout, layernorm_forward(x, gamma, beta)[1])
    check_gradient(lambda *moved: (layernorm_forward(*moved)[0] * dout).sum(), [x, gamma, beta], gradients)


def test_gamma_and_beta_may_differ_in_shape(device):
    x, gamma, beta, dout = arrays(IMAGES, (6,), "float32")
    expected, cache = spatial_groupnorm_forward(x, gamma, beta, 2)
    out, other = spatial_groupnorm_forward(x, gamma.reshape(1, 6, 1, 1), beta, 2)
    assert_same(out, expected)
    _, dgamma, dbeta = spatial_groupnorm_backward(dout, other)
    assert (dgamma.shape, dbeta.shape) == ((1, 6, 1, 1), (6,))
    assert_same(dgamma.reshape(6), spatial_groupnorm_backward(dout, cache)[1])


def ones(*shape):
    return np.ones(shape, "float32")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: layernorm_forward(ones(4), ones(4), ones(4)), ValueError, r"x \(N, D\).*got \(4,\), \(4,\), \(4,\)"),
        (lambda: layernorm_forward(ones(2, 4), ones(2), ones(2)), ValueError, r"got \(2, 4\), \(2,\), \(2,\)"),
        (lambda: layernorm_forward(ones(2, 4), ones(4), ones(1)), ValueError, r"got \(2, 4\), \(4,\), \(1,\)"),
        (
            lambda: layernorm_forward(ones(2, 4), ones(4), ones(4), 1e-5),
            TypeError,
            "ln_param must be a dictionary with 'eps'",
        ),
        (
            lambda: layernorm_forward(ones(2, 4), ones(4), ones(4), {"eps": -1}),
            ValueError,
            r"ln_param\['eps'\].*got -1",
        ),
        (
            lambda: spatial_groupnorm_forward(ones(1, 6, 2, 2), ones(6), ones(6), 4),
            ValueError,
            "G must divide the 6 channels",
        ),
        (lambda: spatial_groupnorm_forward(ones(1, 6, 2, 2), ones(6), ones(6), 0), ValueError, "G must be a whole"),
        (lambda: spatial_groupnorm_forward(ones(1, 6, 2, 2), ones(6), ones(6), 1.5), ValueError, "G must be a whole"),
        (lambda: spatial_groupnorm_forward(ones(1, 6, 2), ones(6), ones(6), 2), ValueError, r"got \(1, 6, 2\), \(6,\)"),
        (
            lambda: spatial_groupnorm_forward(ones(1, 6, 2, 2), ones(6, 1, 1), ones(6), 2),
            ValueError,
            r"got .*\(6, 1, 1\)",
        ),
        (
            lambda: spatial_groupnorm_forward(ones(1, 6, 2, 2), ones(6), ones(6), 2, {"epsilon": 1}),
            ValueError,
            "gn_param takes 'eps', got 'epsilon'",
        ),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_refuses_a_gradient():
    _, cache = layernorm_forward(ones(2, 4), ones(4), ones(4))
    with pytest.raises(ValueError, match=r"layernorm_backward needs the gradient of an output \(2, 4\), got \(4,\)"):
        layernorm_backward(ones(4), cache)
    _, cache = spatial_groupnorm_forward(ones(1, 6, 2, 2), ones(6), ones(6), 2)
    with pytest.raises(ValueError, match=r"spatial_groupnorm_backward .* \(1, 6, 2, 2\), got \(1, 6, 2\)"):
        spatial_groupnorm_backward(ones(1, 6, 2), cache)
