"""The names that course code imports, by the module it imports them from; and what all functions take."""

import inspect

import numpy as np
import pytest

import backend
from backend import asnumpy, xp
from layers.compat import course
from tests.support.checks import assert_same, frozen, normal, whole

LAYERS = """affine relu batchnorm layernorm dropout conv_{}_naive max_pool_{}_naive spatial_batchnorm spatial_groupnorm
    spatial_groupnorm_quick"""
SANDWICHES = "affine_relu affine_bn_relu affine_ln_relu conv_relu conv_bn_relu conv_relu_pool conv_bn_relu_pool"
FAST = """conv_{}_fast conv_{}_im2col conv_{}_strides max_pool_{}_fast max_pool_{}_im2col max_pool_{}_reshape"""
OTHERS = {
    "layers": "batchnorm_backward_alt svm_loss softmax_loss",
    "im2col": "im2col_indices col2im_indices get_im2col_indices im2col_cython col2im_cython col2im_6d_cython",
    "optim": "sgd sgd_momentum rmsprop adam",
    "gradient_check": """eval_numerical_gradient eval_numerical_gradient_array eval_numerical_gradient_blobs
        eval_numerical_gradient_net grad_check_sparse""",
    "the notebooks": "rel_error",
}


def test_every_name_is_there():
    pairs = [name if "{}" in name else f"{name}_{{}}" for name in f"{LAYERS} {SANDWICHES} {FAST}".split()]
    names = {name.format(way) for name in pairs for way in ("forward", "backward")} | set(
        " ".join(OTHERS.values()).split()
    )
    assert names <= set(course.__all__)
    assert all(callable(getattr(course, name)) for name in course.__all__)


def test_everything_public_is_exported():
    public = {name for name, value in vars(course).items() if inspect.isfunction(value)}
    assert public == set(course.__all__)


CONV, POOL, TRAIN = {"stride": 1, "pad": 1}, {"pool_height": 2, "pool_width": 2, "stride": 2}, {"mode": "train"}
FORWARDS = [  # the name, the shapes of x and of the parameters, other arguments
    ("relu", [(2, 3)], []),
    ("affine", [(2, 3), (3, 4), (4,)], []),
    ("dropout", [(2, 3)], [{"mode": "train", "p": 0.5, "seed": 1}]),
    ("conv", [(2, 3, 4, 4), (2, 3, 3, 3), (2,)], [CONV]),
    ("max_pool", [(2, 3, 4, 4)], [POOL]),
    ("batchnorm", [(4, 3), (3,), (3,)], [TRAIN]),
    ("layernorm", [(4, 3), (3,), (3,)], [{}]),
    ("spatial_batchnorm", [(2, 3, 2, 2), (3,), (3,)], [TRAIN]),
    ("spatial_groupnorm", [(2, 4, 2, 2), (4,), (4,)], [2, {}]),
]
OF_ALL = pytest.mark.parametrize(("name", "shapes", "others"), FORWARDS, ids=[name for name, *_ in FORWARDS])
WITH_PARAMETERS = pytest.mark.parametrize(
    ("name", "shapes", "others"), [row for row in FORWARDS if len(row[1]) > 1], ids=lambda value: str(value)[:20]
)


def both_ways(name, arrays, others, dout=None):
    """out, and all gradients."""
    others = [dict(value) if isinstance(value, dict) else value for value in others]
    out, cache = getattr(course, f"{name}_forward")(*arrays, *others)
    gradients = getattr(course, f"{name}_backward")(out if dout is None else dout, cache)
    return out, *(gradients if isinstance(gradients, tuple) else (gradients,))


@OF_ALL
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_integers_and_lists_take_the_dtype_of_x(device, name, shapes, others, dtype):
    """As arrays and as lists, on any device: the same bits as the same numbers in that dtype."""
    x, *parameters = floats = [whole(shape, dtype, seed) for seed, shape in enumerate(shapes)]
    expected = both_ways(name, floats, others)
    for convert in (lambda array: array.astype("int8"), lambda array: array.astype("int64"), lambda a: a.tolist()):
        given = [x, *map(convert, parameters)]
        with frozen(x):
            seen = both_ways(name, given, others)
        for actual, right in zip(seen, expected, strict=True):
            assert_same(actual, right, dtype)


@OF_ALL
def test_without_a_floating_array_it_is_float64(device, name, shapes, others):
    floats = [whole(shape, "float64", seed) for seed, shape in enumerate(shapes)]
    expected = both_ways(name, floats, others)
    for given in ([a.astype("int64") for a in floats], [a.tolist() for a in floats]):
        for actual, right in zip(both_ways(name, given, others), expected, strict=True):
            assert_same(actual, right, "float64")


@WITH_PARAMETERS
@pytest.mark.parametrize("wide", ["x", "parameters"])
def test_the_widest_dtype_is_computed_in(device, name, shapes, others, wide):
    """As NumPy has it: float32 images and float64 weights, or the other way round, are float64."""
    given = [normal(s, "float64" if (i == 0) == (wide == "x") else "float32", i) for i, s in enumerate(shapes)]
    expected = both_ways(name, [array.astype("float64") for array in given], others)
    for actual, right in zip(both_ways(name, given, others), expected, strict=True):
        assert_same(actual, right, "float64")


@OF_ALL
def test_a_gradient_takes_the_outputs_dtype(device, name, shapes, others):
    given = [normal(shape, "float32", seed) for seed, shape in enumerate(shapes)]
    dout = whole(both_ways(name, given, others)[0].shape, "float32", 9)
    expected = both_ways(name, given, others, dout)
    for kind in (dout.astype("float64"), dout.astype("int32"), dout.tolist()):
        for actual, right in zip(both_ways(name, given, others, kind), expected, strict=True):
            assert_same(actual, right, "float32")


def test_big_endian_numbers(device):
    """Files of other machines have them; there are none on a device."""
    if device.kind == "cpu":
        x = np.array([1.5, -2], ">f4")
        assert_same(course.relu_forward(x)[0], np.array([1.5, 0], "float32"), "float32")


@OF_ALL
def test_no_samples(device, name, shapes, others):
    floats = [normal((0, *s[1:]) if i == 0 else s, "float32", i) for i, s in enumerate(shapes)]
    out, dx, *of_parameters = both_ways(name, floats, others)
    assert dx.shape == floats[0].shape
    assert out.dtype == dx.dtype == "float32"
    for gradient, parameter in zip(of_parameters, floats[1:], strict=True):
        assert_same(gradient, np.zeros(parameter.shape, "float32"))


@OF_ALL
def test_a_dictionary_may_have_the_keys_of_other_layers(name, shapes, others):
    """One for all of a network; but a mistyped key is none of them."""
    arrays = [normal(shape, "float64", seed) for seed, shape in enumerate(shapes)]
    shared = {
        "stride": 1,
        "pad": 0,
        "pool_height": 2,
        "pool_width": 1,
        "p": 0.5,
        "seed": 3,
        "eps": 1e-3,
        "mode": "train",
    }
    for index, value in enumerate(others):
        if isinstance(value, dict):
            given = {**shared, **value}
            if name == "max_pool":
                with pytest.raises(ValueError, match=r"pool_param takes .*, got 'pad'"):
                    both_ways(name, arrays, [given])
                del given["pad"]
            plain = {key: given[key] for key in (*value, *(["eps"] if "norm" in name else []))}
            seen, right = (both_ways(name, arrays, [*others[:index], p]) for p in (given, plain))
            assert all((a == b).all() for a, b in zip(seen, right, strict=True))
            with pytest.raises(ValueError, match=r"_param takes .*'epz'"):
                both_ways(name, arrays, [*others[:index], {**given, "epz": 1}])


def scalars(value):
    """One number in every shape that programs have it in."""
    kinds = [np.float64, np.float32, np.int64, np.uint8] if value == int(value) else [np.float64]
    yield from (kind(value) for kind in kinds)
    yield np.array(value)
    yield xp.asarray(value)
    yield xp.asarray(float(value))


@pytest.mark.parametrize(
    ("call", "value"),
    [
        (lambda x, v: course.conv_forward(x, [[[[1.0]]]] * 2, [0, 0], {"stride": v, "pad": v}), 2),
        (lambda x, v: course.max_pool_forward(x, {"pool_height": v, "pool_width": v, "stride": v}), 2),
        (lambda x, v: course.dropout_forward(x, {"mode": "train", "p": v, "seed": 1}), 0.25),
        (lambda x, v: course.dropout_forward(x, {"mode": "train", "p": 0.5, "seed": v}), 3),
        (lambda x, v: course.spatial_batchnorm_forward(x, [1], [0], {**TRAIN, "eps": v, "momentum": v}), 0.5),
        (lambda x, v: course.layernorm_forward(x[0, 0], [1] * 4, [0] * 4, {"eps": v}), 0.5),
        (lambda x, v: course.spatial_groupnorm_forward(x, [1], [0], v, {"eps": v}), 1),
        (lambda x, v: course.adam(x, x, dict.fromkeys(("learning_rate", "beta1", "beta2", "epsilon"), v)), 0.5),
        (lambda x, v: course.adam(x, x, {"t": v}), 4),
        (lambda x, v: course.sgd_momentum(x, x, {"learning_rate": v, "momentum": v}), 0.5),
        (lambda x, v: course.rmsprop(x, x, {"decay_rate": v}), 0.5),
        (lambda x, v: (course.im2col_indices(x, v, v, v, v),), 2),
    ],
)
def test_numbers_of_any_kind(device, call, value):
    x = normal((2, 1, 4, 4), "float32")
    expected = call(x, value)[0]
    for kind in scalars(value):
        assert_same(call(x, kind)[0], expected, "float32")
    for wrong in ("1", [value], np.array(True), None if value != 3 else "3"):
        with pytest.raises((TypeError, ValueError), match=r"must be a (whole|finite) number"):
            call(x, wrong)


def test_pairs_of_numbers(device):
    x, w = normal((1, 1, 6, 6), "float32"), xp.ones((1, 1, 2, 2), "float32")
    expected, _ = course.conv_forward(x, w, [0], {"stride": (2, 1), "pad": (1, 0)})
    for kind in (list, np.array, xp.asarray):
        out, _ = course.conv_forward(x, w, [0], {"stride": kind((2, 1)), "pad": kind((1.0, 0.0))})
        assert_same(out, asnumpy(expected))


@pytest.mark.gpu
def test_host_and_device_do_not_mix():
    with backend.use("cuda"):
        x, one, y = xp.ones((2, 3)), np.ones(3), np.array([0, 1])
        pixels = xp.ones((2, 3, 2, 2))
        for call in (
            lambda: course.layernorm_forward(x, one, one),
            lambda: course.spatial_groupnorm_forward(pixels, one, one, 3),
            lambda: course.svm_loss(x, y),
            lambda: course.sgd(x, np.ones((2, 3))),
            lambda: course.sgd_momentum(x, x, {"velocity": np.ones((2, 3))}),
            lambda: course.batchnorm_forward(x, [1] * 3, [0] * 3, {**TRAIN, "running_mean": one}),
        ):
            with pytest.raises(TypeError, match=r"host and device arrays are mixed|does not lie on the active device"):
                call()
