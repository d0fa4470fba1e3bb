"""The course's gradient checks: seeded inputs, its numerical gradients against the functions' own, and the relative
errors that its notebooks say are right.
"""

import numpy as np
import pytest

import backend
from backend import asnumpy
from layers.compat import course
from layers.compat.course import eval_numerical_gradient, eval_numerical_gradient_array, rel_error
from tests.support.course_networks import FullyConnectedNet, ThreeLayerConvNet, TwoLayerNet

SAME, HALF, WIDE = {"stride": 1, "pad": 1}, {"stride": 2, "pad": 1}, {"stride": 2, "pad": 2}
POOL = {"pool_height": 2, "pool_width": 2, "stride": 2}
DROPOUT = {"mode": "train", "p": 0.2, "seed": 123}
TRAIN = {"mode": "train"}

LAYERS = [  # name, shapes of the arrays, other arguments, shape of dout, (a, b) of x = a·normal + b, the error allowed
    ("affine", [(10, 2, 3), (6, 5), (5,)], [], (10, 5), (1, 0), 1e-9),
    ("relu", [(10, 10)], [], (10, 10), (1, 0), 1e-11),
    ("affine_relu", [(2, 3, 4), (12, 10), (10,)], [], (2, 10), (1, 0), 1e-9),
    ("batchnorm", [(4, 5), (5,), (5,)], [TRAIN], (4, 5), (5, 12), 1e-8),
    ("layernorm", [(4, 5), (5,), (5,)], [{}], (4, 5), (5, 12), 1e-8),
    ("dropout", [(10, 10)], [DROPOUT], (10, 10), (1, 10), 1e-9),
    ("conv", [(4, 3, 5, 5), (2, 3, 3, 3), (2,)], [SAME], (4, 2, 5, 5), (1, 0), 1e-7),
    ("conv", [(4, 3, 7, 7), (2, 3, 3, 3), (2,)], [WIDE], (4, 2, 5, 5), (1, 0), 1e-7),
    ("max_pool", [(3, 2, 8, 8)], [POOL], (3, 2, 4, 4), (1, 0), 1e-11),
    ("conv_relu_pool", [(2, 3, 16, 16), (3, 3, 3, 3), (3,)], [SAME, POOL], (2, 3, 8, 8), (1, 0), 1e-7),
    ("conv_relu", [(2, 3, 8, 8), (3, 3, 3, 3), (3,)], [SAME], (2, 3, 8, 8), (1, 0), 1e-7),
    ("spatial_batchnorm", [(2, 3, 4, 5), (3,), (3,)], [TRAIN], (2, 3, 4, 5), (5, 12), 1e-6),
    ("spatial_groupnorm", [(2, 6, 4, 5), (1, 6, 1, 1), (1, 6, 1, 1)], [2, {}], (2, 6, 4, 5), (5, 12), 1e-6),
]
IDS = [f"{name}{i}" for i, (name, *_) in enumerate(LAYERS)]


def cell(name, shapes, others, of_dout, change):
    """A notebook's arrays, and its layer as functions of them: forward to the output, and all gradients."""
    rng = np.random.RandomState(231)
    x, *more = (rng.randn(*shape) for shape in shapes)
    arrays = [backend.asarray(array) for array in (change[0] * x + change[1], *more)]
    dout = backend.asarray(rng.randn(*of_dout))
    forward, backward = (getattr(course, f"{name}_{way}") for way in ("forward", "backward"))

    def given():
        return [dict(value) if isinstance(value, dict) else value for value in others]

    def gradients():
        found = backward(dout, forward(*arrays, *given())[1])
        return found if isinstance(found, tuple) else (found,)

    return arrays, dout, lambda _=None: forward(*arrays, *given())[0], gradients


@pytest.mark.parametrize(("name", "shapes", "others", "of_dout", "change", "most"), LAYERS, ids=IDS)
def test_layers(name, shapes, others, of_dout, change, most):
    """The numerical gradient moves the arrays where they lie."""
    with backend.use("cpu"):
        arrays, dout, output, gradients = cell(name, shapes, others, of_dout, change)
        for array, gradient in zip(arrays, gradients(), strict=True):
            assert rel_error(eval_numerical_gradient_array(output, array, dout), gradient) < most


@pytest.mark.parametrize("index", [0, 3, 4])
def test_layers_of_few_numbers(device, index):
    """On the device, too, one number at a time: affine, batch and layer normalization."""
    *arguments, most = LAYERS[index]
    arrays, dout, output, gradients = cell(*arguments)
    for array, gradient in zip(arrays, gradients(), strict=True):
        if array.size <= 20:
            assert rel_error(eval_numerical_gradient_array(output, array, dout), gradient) < most


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "shapes", "others", "of_dout", "change", "most"), LAYERS, ids=IDS)
def test_the_device_has_the_hosts_gradients(name, shapes, others, of_dout, change, most):
    seen = []
    for kind in ("cpu", "cuda"):
        with backend.use(kind):
            _, _, output, gradients = cell(name, shapes, others, of_dout, change)
            seen.append([asnumpy(array) for array in (output(), *gradients())])
    for host, on_device in zip(*seen, strict=True):
        assert np.allclose(host, on_device, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(("loss", "most"), [(course.svm_loss, 1e-8), (course.softmax_loss, 1e-7)])
def test_losses(loss, most, capsys):
    rng = np.random.RandomState(231)
    with backend.use("cpu"):
        x, y = 0.001 * rng.randn(50, 10), rng.randint(10, size=50)
        numerical = eval_numerical_gradient(lambda x: loss(x, y)[0], x, verbose=False)
        assert rel_error(numerical, loss(x, y)[1]) < most
    assert capsys.readouterr().out == ""


def test_naive_and_fast_are_one():
    """Of 100 images, windows at stride 2: the notebooks print differences of up to 1e-11, here there are none."""
    rng = np.random.RandomState(231)
    with backend.use("cpu"):
        x, w, b = rng.randn(100, 3, 31, 31), rng.randn(25, 3, 3, 3), rng.randn(25)
        dout = rng.randn(100, 25, 16, 16)
        (naive, naive_cache), (fast, fast_cache) = (
            forward(x, w, b, HALF) for forward in (course.conv_forward_naive, course.conv_forward_fast)
        )
        assert naive.shape == dout.shape
        assert rel_error(naive, fast) == 0
        both = course.conv_backward_naive(dout, naive_cache), course.conv_backward_fast(dout, fast_cache)
        assert [rel_error(*pair) for pair in zip(*both, strict=True)] == [0, 0, 0]
        out, cache = course.batchnorm_forward(5 * rng.randn(100, 500) + 120, rng.randn(500), rng.randn(500), {**TRAIN})
        both = course.batchnorm_backward(out, cache), course.batchnorm_backward_alt(out, cache)
        assert [rel_error(*pair) for pair in zip(*both, strict=True)] == [0, 0, 0]


# -- networks ------------------------------------------------------------------------------------------------------


def errors(model, X, y, h=1e-5):
    """The relative error of each parameter's gradient, over about twenty of its numbers: views of it."""
    _, grads = model.loss(X, y)
    assert grads.keys() == model.params.keys()
    found = {}
    for name, array in model.params.items():
        some = slice(None, None, -(-array.size // 20))
        moved, gradient = array.reshape(-1)[some], grads[name].reshape(-1)[some]
        assert np.shares_memory(moved, array)
        numerical = eval_numerical_gradient(lambda _: model.loss(X, y)[0], moved, verbose=False, h=h)
        found[name] = rel_error(numerical, gradient)
    return found


@pytest.mark.parametrize("reg", [0.0, 0.7])
def test_two_layers(reg):
    with backend.use("cpu"):
        model = TwoLayerNet(input_dim=5, hidden_dim=50, num_classes=7, reg=reg)
        for name, first, last in (("W1", -0.7, 0.3), ("b1", -0.1, 0.9), ("W2", -0.3, 0.4), ("b2", -0.9, 0.1)):
            shape = model.params[name].shape
            model.params[name] = np.linspace(first, last, model.params[name].size).reshape(shape)
        X = np.linspace(-5.5, 4.5, num=15).reshape(5, 3).T
        assert max(errors(model, X, np.asarray([0, 5, 1])).values()) < 1e-6


@pytest.mark.parametrize("reg", [0, 3.14])
@pytest.mark.parametrize(
    "options",
    [{}, {"normalization": "batchnorm"}, {"normalization": "layernorm"}, {"dropout": 0.75}, {"dropout": 0.5}],
    ids=str,
)
def test_three_layers(options, reg):
    """The text allows 1e-4 for weights, some of whose gradients are hardly more than nothing. So are those of biases
    before a batch normalization, which takes them out again.
    """
    rng = np.random.RandomState(231)
    with backend.use("cpu"):
        X, y = rng.randn(2, 15), rng.randint(10, size=(2,))
        common = {"input_dim": 15, "reg": reg, "weight_scale": 5e-2, "dtype": np.float64, "rng": rng}
        model = FullyConnectedNet([20, 30], seed=123, **common, **options)
        found = errors(model, X, y)
        if options.get("normalization") == "batchnorm":
            assert max(abs(model.loss(X, y)[1][name]).max() for name in ("b1", "b2")) < 1e-10
            del found["b1"], found["b2"]
    assert max(found.values()) < 1.2e-4, found


def test_a_convolutional_network():
    """The text allows 1e-2: ReLU and pooling have corners, and the step is 1e-6."""
    rng = np.random.RandomState(231)
    with backend.use("cpu"):
        X, y = rng.randn(2, 3, 16, 16), rng.randint(10, size=2)
        options = {"num_filters": 3, "filter_size": 3, "input_dim": (3, 16, 16), "hidden_dim": 7, "dtype": np.float64}
        found = errors(ThreeLayerConvNet(**options, rng=rng), X, y, h=1e-6)
    assert max(found.values()) < 3e-2, found
