"""The course's layers in a row: their gradients against numerical ones, and in which order they come."""

import pytest

from layers.compat import course
from tests.support.checks import DTYPES, assert_separate, check_gradient, frozen, normal

CONV, POOL, TRAIN = {"stride": 1, "pad": 1}, {"pool_height": 2, "pool_width": 2, "stride": 2}, {"mode": "train"}
AFFINE = [(4, 2, 3), (6, 5), (5,)]
IMAGES = [(2, 3, 4, 4), (4, 3, 3, 3), (4,)]
ROWS = [  # the name, the shapes of x, w, b, gamma, beta, the dictionaries
    ("affine_relu", AFFINE, []),
    ("affine_bn_relu", [*AFFINE, (5,), (5,)], [TRAIN]),
    ("affine_ln_relu", [*AFFINE, (5,), (5,)], [{}]),
    ("affine_ln_relu", [*AFFINE, (5,), (5,)], []),
    ("conv_relu", IMAGES, [CONV]),
    ("conv_bn_relu", [*IMAGES, (4,), (4,)], [CONV, TRAIN]),
    ("conv_relu_pool", IMAGES, [CONV, POOL]),
    ("conv_bn_relu_pool", [*IMAGES, (4,), (4,)], [CONV, TRAIN, POOL]),
]
OF_ALL = pytest.mark.parametrize(("name", "shapes", "params"), ROWS, ids=[f"{name}-{len(p)}" for name, _, p in ROWS])


@OF_ALL
def test_gradients(device, name, shapes, params):
    forward, backward = (getattr(course, f"{name}_{way}") for way in ("forward", "backward"))
    arrays = [normal(shape, "float64", seed) for seed, shape in enumerate(shapes, 1)]

    def given():
        return [dict(param) for param in params]

    with frozen(*arrays):
        out, cache = forward(*arrays, *given())
        dout = normal(out.shape, "float64", 9)
        gradients = backward(dout, cache)
    assert_separate((out, *gradients), [*arrays, dout])
    assert float(out.min()) == 0
    check_gradient(lambda *moved: (forward(*moved, *given())[0] * dout).sum(), arrays, gradients)


@OF_ALL
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_is_kept(device, name, shapes, params, dtype):
    arrays = [normal(shape, dtype, seed) for seed, shape in enumerate(shapes)]
    out, cache = getattr(course, f"{name}_forward")(*arrays, *(dict(param) for param in params))
    gradients = getattr(course, f"{name}_backward")(out, cache)
    assert {array.dtype.name for array in (out, *gradients)} == {dtype}
    assert [gradient.shape for gradient in gradients] == shapes
