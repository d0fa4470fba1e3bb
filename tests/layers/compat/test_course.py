"""The functional layers of any shape: ReLU, affine, dropout, softmax with loss."""

import math

import numpy as np
import pytest

import backend
from backend import asnumpy, random, xp
from layers.compat import course
from layers.compat.course import (
    affine_backward,
    affine_forward,
    dropout_backward,
    dropout_forward,
    relu_backward,
    relu_forward,
    softmax_loss,
)
from tests.support import oracles
from tests.support.checks import (
    DTYPES,
    assert_close,
    assert_same,
    assert_separate,
    check_gradient,
    frozen,
    laid_out,
    normal,
    variants,
    whole,
)

SHAPES = [(7,), (3, 4), (2, 3, 4), (2, 3, 4, 5), (0, 3), (2, 0, 4, 5)]


def spread(shape, first, last):
    """Numbers from ``first`` to ``last`` at equal steps, float64."""
    return backend.asarray(np.linspace(first, last, math.prod(shape)).reshape(shape))


# -- relu ----------------------------------------------------------------------------------------------------------


def test_relu_of_the_assignments_numbers(device):
    out, _ = relu_forward(spread((3, 4), -0.5, 0.5))
    expected = [[0, 0, 0, 0], [0, 0, 0.04545455, 0.13636364], [0.22727273, 0.31818182, 0.40909091, 0.5]]
    assert abs(asnumpy(out) - expected).max() < 6e-9


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_relu(device, dtype, shape):
    """Zeros among the numbers: their gradient is 0. NaN stays."""
    base, dout = whole(shape, dtype, 1), whole(shape, dtype, 2)
    for (_, x), (_, gradient) in zip(variants(base), variants(dout), strict=True):
        with frozen(x, gradient):
            out, cache = relu_forward(x)
            dx = relu_backward(gradient, cache)
        assert_separate((out, dx), [x, gradient])
        assert_same(out, np.maximum(asnumpy(x), 0), dtype)
        assert_same(dx, asnumpy(dout) * (asnumpy(base) > 0), dtype)
    out, _ = relu_forward(xp.asarray([np.nan, -np.inf, np.inf], dtype))
    assert_same(out, np.asarray([np.nan, 0, np.inf], dtype))


# -- affine --------------------------------------------------------------------------------------------------------


def test_affine_of_the_assignments_numbers(device):
    """Images of (4, 5, 6) are flattened."""
    out, _ = affine_forward(spread((2, 4, 5, 6), -0.1, 0.5), spread((120, 3), -0.2, 0.3), spread((3,), -0.3, 0.1))
    expected = [[1.49834967, 1.70660132, 1.91485297], [3.25553199, 3.5141327, 3.77273342]]
    assert abs(asnumpy(out) - expected).max() < 6e-9


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4, 6), (4, 3, 2), (3, 2, 1, 3), (0, 6), (0, 2, 1, 3)])
@pytest.mark.parametrize("layout", ["contiguous", "strided", "reversed", "channels_last"])
def test_affine(device, dtype, shape, layout):
    """Whole numbers, so that the sums are exact in any order."""
    shapes = [shape, (6, 5), (5,), (len(np.empty(shape)), 5)]
    arrays = [laid_out(whole(shape, dtype, seed), layout) for seed, shape in enumerate(shapes)]
    with frozen(*arrays):
        out, cache = affine_forward(*arrays[:3])
        seen = affine_backward(arrays[3], cache)
    assert_separate((out, *seen), arrays)
    x, w, b, dout = (asnumpy(array).astype(np.float64) for array in arrays)
    rows = x.reshape(len(x), 6)
    assert_same(out, rows @ w + b, dtype)
    for gradient, expected in zip(seen, ((dout @ w.T).reshape(shape), rows.T @ dout, dout.sum(0)), strict=True):
        assert_same(gradient, expected, dtype)


def test_affine_gradient(device):
    x, w, b = normal((3, 2, 4), "float64", 1), normal((8, 5), "float64", 2), normal((5,), "float64", 3)
    dout = normal((3, 5), "float64", 4)
    gradients = affine_backward(dout, affine_forward(x, w, b)[1])
    check_gradient(lambda *arrays: (affine_forward(*arrays)[0] * dout).sum(), [x, w, b], gradients)


# -- dropout -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("p", [0.25, 0.5, 1])
def test_dropout_in_training(device, dtype, shape, p):
    """What is kept is divided by p, exactly where that is a power of two; backward drops the same numbers."""
    for _, x in variants(whole(shape, dtype, 1) + 10):
        with frozen(x):
            out, cache = dropout_forward(x, {"p": p, "mode": "train", "seed": 3})
        kept = asnumpy(out) != 0
        assert_separate(out, [x])
        assert_same(out, np.where(kept, asnumpy(x) / p, 0), dtype)
        assert kept.all() or p < 1
        dout = whole(shape, dtype, 2)
        with frozen(dout):
            dx = dropout_backward(dout, cache)
        assert_same(dx, np.where(kept, asnumpy(dout) / p, 0), dtype)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_p_is_the_probability_to_keep(device, p):
    """Within four standard deviations; and the mean stays, so that evaluation needs no factor."""
    out, _ = dropout_forward(xp.ones(20000, "float64"), {"p": p, "mode": "train"})
    share = asnumpy(out != 0).mean()
    assert abs(share - p) <= 4 * math.sqrt(p * (1 - p) / 20000)
    assert abs(float(out.mean()) - share / p) < 1e-12


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.3, 1])
def test_dropout_in_evaluation_does_nothing(device, dtype, p):
    x, state = normal((3, 4), dtype), random.default.state
    with frozen(x):
        out, cache = dropout_forward(x, {"p": p, "mode": "test", "seed": 1})
        dx = dropout_backward(x, cache)
    assert random.default.state == state
    assert_separate((out, dx), [x])
    assert_same(out, x)
    assert_same(dx, x)


@pytest.mark.parametrize("seed", [0, 3])
def test_a_seed_holds_the_mask(device, seed):
    """The same in every call and on every device, while the process's generator is not drawn from."""
    x, state = xp.ones((2, 3, 4, 5), "float32"), random.default.state
    first, second = (dropout_forward(x, {"p": 0.5, "mode": "train", "seed": seed})[0] for _ in range(2))
    other, _ = dropout_forward(x, {"p": 0.5, "mode": "train", "seed": 4.0})
    assert random.default.state == state
    assert_same(first, second)
    assert not (asnumpy(first) == asnumpy(other)).all()
    with backend.use("cpu"):
        host, _ = dropout_forward(np.ones((2, 3, 4, 5), "float32"), {"p": 0.5, "mode": "train", "seed": seed})
    assert_same(first, host)


def test_without_a_seed_masks_differ_and_the_process_is_seeded(device):
    x, param = xp.ones(100, "float32"), {"p": 0.5, "mode": "train"}
    random.seed(1)
    first, second = (asnumpy(dropout_forward(x, param)[0]) for _ in range(2))
    random.seed(1)
    assert_same(dropout_forward(x, param)[0], first)
    assert not (first == second).all()


def test_dropout_gradient(device):
    x, dout, param = normal((4, 5), "float64", 1), normal((4, 5), "float64", 2), {"p": 0.7, "mode": "train", "seed": 5}
    dx = dropout_backward(dout, dropout_forward(x, param)[1])
    check_gradient(lambda x: (dropout_forward(x, param)[0] * dout).sum(), [x], [dx])


# -- softmax and its loss ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["int64", "uint8"])
def test_softmax_loss(device, dtype, kind):
    base, y = normal((6, 4), dtype, 1), backend.asarray(np.array([3, 0, 1, 1, 2, 3], kind))
    for _, x in variants(base):
        with frozen(x, y):
            loss, dx = softmax_loss(x, y)
        assert_separate(dx, [x])
        wide = asnumpy(x).astype(np.float64)
        assert loss.shape == ()
        out = "float32" if dtype == "float16" else dtype
        assert_close(loss, oracles.softmax_cross_entropy(wide, asnumpy(y)), out, terms=20, magnitude=4)
        assert_close(dx, oracles.softmax_cross_entropy_backward(wide, asnumpy(y)), dtype, terms=12, magnitude=1)


def test_the_loss_of_equal_scores_is_the_logarithm_of_the_classes(device):
    """The first check of every assignment. Huge scores do not overflow."""
    y = xp.asarray([1, 2])
    assert abs(float(softmax_loss(xp.zeros((2, 10)), y)[0]) - math.log(10)) < 1e-15
    assert abs(float(softmax_loss(xp.full((2, 10), 1e4, "float32"), y)[0]) - math.log(10)) < 1e-6


def test_the_softmax_gradient_of_float16_is_rounded_once(device):
    """A probability this near 1 is 1 in float16, and its difference from 1 would be 0."""
    _, dx = softmax_loss(backend.asarray(np.array([[9.5, 0]], "float16")), xp.zeros(1, "int64"))
    rest = 1 / (1 + math.exp(9.5))
    np.testing.assert_allclose(asnumpy(dx), [[-rest, rest]], rtol=1e-2)


def test_softmax_loss_gradient(device):
    x, y = normal((5, 3), "float64"), xp.asarray([0, 2, 1, 1, 0])
    check_gradient(lambda x: softmax_loss(x, y)[0], [x], [softmax_loss(x, y)[1]])


def test_the_loss_of_no_samples_is_zero(device):
    loss, dx = softmax_loss(xp.zeros((0, 3), "float32"), xp.zeros(0, int))
    assert float(loss) == 0
    assert dx.shape == (0, 3)


# -- what is refused -----------------------------------------------------------------------------------------------


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


DROPOUT = {"p": 0.5, "mode": "train"}


@pytest.mark.parametrize(
    ("dropout_param", "error", "message"),
    [
        ({"mode": "train"}, ValueError, r"dropout_param needs 'p', got \['mode'\]"),
        ({"p": 0.5}, ValueError, "dropout_param needs 'mode'"),
        (DROPOUT | {"ratio": 1}, ValueError, "dropout_param takes 'p', 'mode', 'seed', got 'ratio'"),
        (DROPOUT | {"mode": "eval"}, ValueError, r"dropout_param\['mode'\] must be one of 'train', 'test', got 'eval'"),
        (
            DROPOUT | {"p": 0},
            ValueError,
            r"dropout_param\['p'\], the prob.*, must be .*above 0 .* 1, got 0",
        ),
        (
            DROPOUT | {"p": 1.5},
            ValueError,
            r"dropout_param\['p'\].* must be .*at most 1, got 1.5",
        ),
        (
            DROPOUT | {"p": "0.5"},
            TypeError,
            r"dropout_param\['p'\].* must be .*at most 1, got '0.5'",
        ),
        (DROPOUT | {"p": float("nan")}, ValueError, r"dropout_param\['p'\].*got nan"),
        (DROPOUT | {"seed": -1}, ValueError, r"dropout_param\['seed'\] must be a whole number of at least 0, got -1"),
        (DROPOUT | {"seed": 1 << 64}, ValueError, "seed must be a whole number from 0 to"),
        ([0.5], TypeError, r"dropout_param must be a dictionary with 'p', 'mode', 'seed', got \[0.5\]"),
    ],
)
@pytest.mark.parametrize("mode", ["train", "test"])
def test_refuses_a_dropout_param(dropout_param, error, message, mode):
    if isinstance(dropout_param, dict) and dropout_param.get("mode") == "train":
        dropout_param = dropout_param | {"mode": mode}
    with pytest.raises(error, match=message):
        dropout_forward(ones(2, 3), dropout_param)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: affine_forward(ones(2, 3), ones(4, 5), ones(5)), ValueError, r"got \(2, 3\), \(4, 5\), \(5,\)"),
        (lambda: affine_forward(ones(2, 4), ones(4, 5), ones(4)), ValueError, r"b \(M,\), got"),
        (lambda: affine_forward(ones(4), ones(1, 5), ones(5)), ValueError, r"x \(N, …\) of D numbers each"),
        (lambda: affine_forward(ones(2, 4), ones(4), ones(5)), ValueError, r"w \(D, M\)"),
        (lambda: relu_forward(ones(3, dtype=bool)), TypeError, "relu_forward needs x as numbers .*, got bool"),
        (lambda: relu_forward(ones(3, dtype="complex64")), TypeError, "relu_forward needs x as numbers .* complex64"),
        (lambda: relu_forward("one"), TypeError, "relu_forward needs x as numbers .*, got <U3"),
        (lambda: relu_forward(None), TypeError, "relu_forward needs x as numbers .*, got object"),
        (
            lambda: relu_forward([[1, 2], [3]]),
            TypeError,
            r"needs x as an array of numbers, got list \[\[1, 2\], \[3\]\]",
        ),
        (lambda: affine_forward(ones(2, 4), ones(4, 5), [True] * 5), TypeError, "affine_forward needs b .* got bool"),
        (lambda: softmax_loss(ones(3), np.array([1])), ValueError, r"scores are \(N, classes\)"),
        (lambda: softmax_loss(ones(2, 3), np.array([1, 3])), ValueError, "label 3 at index 1 is out of range"),
        (lambda: softmax_loss(ones(2, 1), np.array([0, 0])), ValueError, "softmax_loss: .* got one score per sample"),
        (lambda: softmax_loss(ones(2, 3), [0, 3]), ValueError, "label 3 at index 1 is out of range"),
        (lambda: softmax_loss(ones(2, 3), [0.0, 1.0]), TypeError, "labels are class indices, .*, got float64"),
    ],
)
def test_refuses_arrays(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("mode", ["train", "test"])
@pytest.mark.parametrize("name", ["relu", "affine", "dropout"])
def test_refuses_a_gradient(name, mode):
    x = ones(2, 3)
    arguments = {"relu": (x,), "affine": (x, ones(3, 4), ones(4)), "dropout": (x, DROPOUT | {"mode": mode})}[name]
    out, cache = getattr(course, f"{name}_forward")(*arguments)
    backward = getattr(course, f"{name}_backward")
    with pytest.raises(ValueError, match=rf"{name}_backward needs the gradient of an output \(2, .\), got \(2, 5\)"):
        backward(ones(2, 5), cache)
    with pytest.raises(ValueError, match=rf"{name}_backward needs the gradient of an output \(2, .\), got \(\)"):
        backward(1, cache)
    with pytest.raises(TypeError, match=f"{name}_backward needs dout as numbers .*, got bool"):
        backward(out > 0, cache)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["relu", "affine", "dropout", "conv", "max_pool", "batchnorm", "spatial_batchnorm"])
def test_host_and_device_do_not_mix(name):
    """Nor is anything computed of arrays that all lie on the other device."""
    made = {}
    for kind in ("cpu", "cuda"):
        with backend.use(kind):
            x, rows, pixels, one = xp.ones((2, 3)), xp.ones((3, 4)), xp.ones((2, 3, 4, 4)), xp.ones(3)
            made[kind] = {
                "relu": (x,),
                "affine": (x, rows, xp.ones(4)),
                "dropout": (x, DROPOUT),
                "conv": (pixels, xp.ones((3, 3, 2, 2)), one, {"stride": 1, "pad": 0}),
                "max_pool": (pixels, {"pool_height": 2, "pool_width": 2, "stride": 2}),
                "batchnorm": (x, one, one, {"mode": "train"}),
                "spatial_batchnorm": (pixels, one, one, {"mode": "train"}),
            }[name]
    forward, backward = (getattr(course, f"{name}_{way}") for way in ("forward", "backward"))
    for active, other in (("cuda", "cpu"), ("cpu", "cuda")):
        with backend.use(active):
            with pytest.raises(TypeError, match="does not lie on the active device"):
                forward(*made[other])
            if len(made[active]) > 2:
                with pytest.raises(TypeError, match="host and device arrays are mixed"):
                    forward(made[active][0], *made[other][1:])
            out, cache = forward(*made[active])
            with backend.use(other):
                dout = backend.asarray(asnumpy(out))
            with pytest.raises(TypeError, match="does not lie on the active device"):
                backward(dout, cache)
