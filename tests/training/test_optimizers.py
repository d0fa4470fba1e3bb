"""Every optimizer against its formula, written out per element in Python floats; then what all have in common."""

import copy
import itertools
import math
import pickle

import numpy as np
import pytest

import backend
from backend import xp
from training.models.parameters import ParameterDict
from training.optim import optimizers
from training.optim.optimizers import SGD, AdaGrad, Adam, AdamW, Momentum, Nesterov, RMSprop


@pytest.fixture
def device(way):
    """Every way to compute an update: NumPy, C kernels, CUDA kernels."""
    return way


SHAPES = {"W1": (3, 4), "b1": (4,), "scale": (), "none": (0, 3), "W2": (2, 3, 2, 2)}
DTYPES = ["float16", "float32", "float64"]


def flat_dict(arrays):
    """The arrays as a ParameterDict: copied into one buffer."""
    first = next(iter(arrays.values()))
    params = ParameterDict({name: array.shape for name, array in arrays.items()}, first.dtype, xp)
    params.update(arrays)
    return params


def draw(seed, dtype, shapes=SHAPES):
    """Arrays of magnitudes 0.5 to 1.5 and either sign: far from the zeros of a denominator."""
    rng = np.random.default_rng(seed)
    drawn = {}
    for name, shape in shapes.items():
        values = rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)
        drawn[name] = backend.asarray(np.asarray(values, dtype))
    return drawn


def to_host(arrays):
    return {name: backend.asnumpy(array).copy() for name, array in arrays.items()}


def assert_same_bits(actual, expected):
    assert list(actual) == list(expected)
    for name in expected:
        assert actual[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(backend.asnumpy(actual[name]), backend.asnumpy(expected[name]), name)


# The formulas of the papers and of the book, one element at a time: yield the parameter after each step.


def sgd(p, gradients, lr, weight_decay):
    for g in gradients:
        p = p - lr * (g + weight_decay * p)
        yield p


def momentum(p, gradients, lr, weight_decay, momentum=0.9):
    v = 0.0
    for g in gradients:
        v = momentum * v - lr * (g + weight_decay * p)
        p = p + v
        yield p


def nesterov(p, gradients, lr, weight_decay, momentum=0.9):
    v = 0.0
    for g in gradients:
        g = g + weight_decay * p
        p = p + momentum * momentum * v - (1 + momentum) * lr * g
        v = momentum * v - lr * g
        yield p


def adagrad(p, gradients, lr, weight_decay, eps=1e-7):
    h = 0.0
    for g in gradients:
        g = g + weight_decay * p
        h = h + g * g
        p = p - lr * g / (math.sqrt(h) + eps)
        yield p


def rmsprop(p, gradients, lr, weight_decay, decay_rate=0.99, eps=1e-7):
    h = 0.0
    for g in gradients:
        g = g + weight_decay * p
        h = decay_rate * h + (1 - decay_rate) * g * g
        p = p - lr * g / (math.sqrt(h) + eps)
        yield p


def adam(p, gradients, lr, weight_decay, beta1=0.9, beta2=0.999, eps=1e-8, decoupled=0.0):
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        g = g + weight_decay * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        p = p - lr * (m_hat / (math.sqrt(v_hat) + eps) + decoupled * p)
        yield p


def adamw(p, gradients, lr, weight_decay):
    return adam(p, gradients, lr, 0.0, decoupled=weight_decay)


FORMULAS = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adamw,
}
every_optimizer = pytest.mark.parametrize("name", optimizers.NAMES)


def test_every_optimizer_has_a_formula_here():
    assert tuple(FORMULAS) == optimizers.NAMES


@every_optimizer
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_follows_the_formula(device, name, dtype, weight_decay):
    lr, steps = 0.05, 6
    params = draw(0, dtype)
    gradients = [draw(1 + step, dtype) for step in range(steps)]
    start, hosted = to_host(params), [to_host(grads) for grads in gradients]
    optimizer = optimizers.by_name(name, lr=lr, weight_decay=weight_decay)
    computing = np.float32 if dtype == "float16" else np.dtype(dtype)
    for step, grads in enumerate(gradients):
        optimizer.update(params, grads)
        for key, p in to_host(params).items():
            assert p.dtype == dtype
            assert p.shape == SHAPES[key]
            for index in np.ndindex(p.shape):
                path = [float(start[key][index])]
                path += FORMULAS[name](path[0], [float(h[key][index]) for h in hosted[: step + 1]], lr, weight_decay)
                moves = [abs(b - a) for a, b in itertools.pairwise(path)]
                # Each step rounds the parameter once in its own dtype, and its move some 30 times in the dtype of
                # the computation, where no term is more than 30 times the largest move (1 / (1 - momentum) = 10).
                largest = max(map(abs, path))
                tolerance = np.finfo(dtype).eps * largest + 30 * 30 * np.finfo(computing).eps * max(lr, *moves)
                assert abs(float(p[index]) - path[-1]) <= (step + 1) * tolerance, (key, index, step)


def test_sgd_by_hand(device):
    params = {"w": xp.asarray([1.0, -2.0], dtype="float32")}
    SGD(lr=0.5).update(params, {"w": xp.asarray([4.0, 8.0], dtype="float32")})
    assert backend.asnumpy(params["w"]).tolist() == [-1.0, -6.0]


def test_first_adam_step_is_lr_whatever_the_gradient(device):
    gradient = xp.asarray([1e-3, -1.0, 1e3], dtype="float64")
    params = {"w": xp.zeros(3, "float64")}
    Adam(lr=0.1).update(params, {"w": gradient})
    # g / (|g| + eps), and eps = 1e-8 is 1e-5 of the smallest gradient.
    np.testing.assert_allclose(backend.asnumpy(params["w"]), [-0.1, 0.1, -0.1], rtol=1.1e-5)
    np.testing.assert_allclose(backend.asnumpy(params["w"])[0], -0.1 * 1e-3 / (1e-3 + 1e-8), rtol=1e-14)


def test_decay_is_decoupled_in_adamw_and_coupled_in_adam(device):
    decayed = {}
    for optimizer in (AdamW(lr=0.1, weight_decay=0.5), Adam(lr=0.1, weight_decay=0.5)):
        params = {"w": xp.asarray([1.0, 8.0], dtype="float64")}
        optimizer.update(params, {"w": xp.zeros(2, "float64")})
        decayed[type(optimizer)] = backend.asnumpy(params["w"])
    np.testing.assert_allclose(decayed[AdamW], [0.95, 7.6], rtol=1e-15)  # θ (1 - lr·weight_decay)
    np.testing.assert_allclose(decayed[Adam], [0.9, 7.9], rtol=1e-6)  # a step of lr along the sign of θ


@every_optimizer
@pytest.mark.parametrize("dtype", DTYPES)
def test_without_gradient_nothing_moves(device, name, dtype):
    params = draw(0, dtype)
    before = to_host(params)
    optimizer = optimizers.by_name(name, weight_decay=0.0)
    for _ in range(3):
        optimizer.update(params, {key: xp.zeros_like(p) for key, p in params.items()})
    assert_same_bits(params, before)


@pytest.mark.parametrize(("name", "move"), [("adam", -0.1), ("adamw", -0.1), ("adagrad", -0.1), ("rmsprop", -1.0)])
def test_squares_of_small_float16_gradients_are_not_lost(device, name, move):
    params = {"w": xp.zeros(4, "float16")}
    optimizers.by_name(name, lr=0.1, weight_decay=0.0).update(params, {"w": xp.full(4, 1e-4, "float16")})
    # The first step of each, lr or lr / √(1 - 0.99); eps is up to 1e-7 / 1e-5 of the denominator.
    np.testing.assert_allclose(backend.asnumpy(params["w"]), np.full(4, move, "float16"), rtol=0.012)


@every_optimizer
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_flat_buffers_and_separate_arrays_give_the_same_bits(device, name, dtype, weight_decay):
    shapes = {"W1": (41, 31), "b1": (31,), "scale": (), "none": (0, 3), "W2": (30, 3, 3, 5)}
    separate, turned = draw(0, dtype, shapes), draw(0, dtype, shapes)
    turned["W1"] = xp.asarray(turned["W1"].T.copy()).T  # strides of a transposed array
    flat = flat_dict(separate)
    by_array, by_buffer, by_strides = (optimizers.by_name(name, 0.05, weight_decay) for _ in range(3))
    for step in range(4):
        grads = draw(1 + step, dtype, shapes)
        by_array.update(separate, grads)
        by_buffer.update(flat, flat_dict(grads))
        by_strides.update(turned, grads)
    assert_same_bits(flat, separate)
    assert_same_bits(turned, separate)
    assert_same_bits(flat_dict(separate), flat)  # the views still show the buffer
    assert_same_bits({"flat": flat_dict(separate).flat}, {"flat": flat.flat})


@every_optimizer
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", [dict, flat_dict])
def test_updates_in_place_and_leaves_the_gradients(device, name, dtype, make):
    params, grads = make(draw(0, dtype)), make(draw(1, dtype))
    arrays, before, grads_before = dict(params), to_host(params), to_host(grads)
    optimizer = optimizers.by_name(name, weight_decay=0.01)
    assert optimizer.update(params, grads) is None
    assert all(params[key] is array for key, array in arrays.items())
    assert all(array.dtype == dtype for array in params.values())
    assert_same_bits(grads, grads_before)
    for key, p in to_host(params).items():
        assert (p != before[key]).all(), key


def test_numpy_scalars_as_hyperparameters_promote_nothing(device):
    params, grads = draw(0, "float32"), draw(1, "float32")
    same = {key: p.copy() for key, p in params.items()}
    adam = Adam(np.float64(0.1), np.float64(0.9), np.float64(0.999))
    adam.update(params, grads)
    adam.lr = np.float32(0.25)
    assert type(adam.lr) is float
    adam.update(params, grads)
    other = Adam(0.1)
    other.update(same, grads)
    other.lr = 0.25
    other.update(same, grads)
    assert_same_bits(params, same)
    assert all(m.dtype == "float32" for m in adam.state["m"].values())


def test_the_loop_of_the_book(device):
    class Network:
        """A line through points, as plain as the book's networks."""

        def __init__(self):
            self.params = {"W": xp.zeros((1, 1), "float32"), "b": xp.zeros(1, "float32")}

        def gradient(self, x, t):
            error = (x @ self.params["W"] + self.params["b"] - t) / len(x)
            return {"W": x.T @ error, "b": error.sum(axis=0)}

    network, optimizer = Network(), Momentum(0.1, 0.9)
    x = xp.linspace(-1, 1, 20, dtype="float32").reshape(-1, 1)
    t = 3 * x - 2
    for _ in range(200):
        grads = network.gradient(x, t)
        optimizer.update(network.params, grads)
    assert float(network.params["W"][0, 0]) == pytest.approx(3, abs=1e-3)
    assert float(network.params["b"][0]) == pytest.approx(-2, abs=1e-3)


LEARNING_RATES = {
    "sgd": 0.1,
    "momentum": 0.02,
    "nesterov": 0.02,
    "adagrad": 1.0,
    "rmsprop": 0.02,
    "adam": 0.1,
    "adamw": 0.1,
}


@every_optimizer
@pytest.mark.parametrize("make", [dict, flat_dict])
def test_finds_the_bottom_of_a_quadratic(device, name, make):
    curvature = {"W": xp.asarray([[1.0, 4.0], [2.0, 0.5]]), "b": xp.asarray([3.0])}
    bottom = {"W": xp.asarray([[1.0, -1.0], [0.5, 2.0]]), "b": xp.asarray([-0.5])}
    params = make({"W": xp.zeros((2, 2)), "b": xp.zeros(1)})
    optimizer = optimizers.by_name(name, LEARNING_RATES[name], weight_decay=0.0)
    for _ in range(400):
        optimizer.update(params, make({key: curvature[key] * (params[key] - bottom[key]) for key in params}))
    for key, p in params.items():
        # RMSprop with a constant rate ends up to and fro within a few lr of the bottom.
        np.testing.assert_allclose(backend.asnumpy(p), backend.asnumpy(bottom[key]), atol=0.03)


def train(optimizer, params, steps, make):
    for step in steps:
        optimizer.lr = 0.05 / (1 + step)
        optimizer.update(params, make(draw(100 + step, "float32")))


@every_optimizer
@pytest.mark.parametrize(
    ("make", "make_after"), [(dict, dict), (flat_dict, flat_dict), (flat_dict, dict), (dict, flat_dict)]
)
def test_resumes_bit_for_bit_from_the_state_dict(device, name, make, make_after):
    straight = make(draw(0, "float32"))
    train(optimizers.by_name(name), straight, range(6), make)

    optimizer, params = optimizers.by_name(name), make(draw(0, "float32"))
    train(optimizer, params, range(3), make)
    saved = optimizer.state_dict()
    # As from a file: on the host, every number a 0-d array.
    from_file = {key: backend.asnumpy(value) for key, value in saved.items()}
    train(optimizer, params, range(3, 5), make)  # what was saved is a copy: this must not show in it
    for key, value in from_file.items():
        np.testing.assert_array_equal(backend.asnumpy(saved[key]), value)

    resumed, params = optimizers.by_name(name, lr=7.0), make(draw(0, "float32"))
    train(optimizers.by_name(name), params, range(3), make)
    params = make_after(dict(params))
    resumed.load_state_dict(from_file)
    assert resumed.t == 3
    assert resumed.lr == saved["lr"]
    np.testing.assert_equal(to_host_state(resumed.state_dict()), from_file)  # before the first update, too
    for value in from_file.values():
        value.fill(0)  # what was loaded is a copy as well
    train(resumed, params, range(3, 6), make_after)
    assert_same_bits(params, straight)


def to_host_state(saved):
    return {key: backend.asnumpy(value) for key, value in saved.items()}


def test_state_dict_is_flat_and_named():
    with backend.use("cpu"):
        optimizer = Adam(0.01, eps=1e-6, weight_decay=0.5)
        optimizer.update({"W1": np.ones((2, 3))}, {"W1": np.ones((2, 3))})
        saved = optimizer.state_dict()
    assert {key: value for key, value in saved.items() if key not in ("m.W1", "v.W1")} == {
        "t": 1,
        "skipped": 0,
        "lr": 0.01,
        "beta1": 0.9,
        "beta2": 0.999,
        "eps": 1e-6,
        "weight_decay": 0.5,
    }
    assert saved["m.W1"].shape == saved["v.W1"].shape == (2, 3)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copy_goes_on_by_itself(device, duplicate):
    optimizer, params = Adam(), flat_dict(draw(0, "float32"))
    train(optimizer, params, range(2), flat_dict)
    other, other_params = duplicate(optimizer), flat_dict(params)
    train(optimizer, params, range(2, 4), flat_dict)
    train(other, other_params, range(2, 4), flat_dict)
    assert_same_bits(other_params, params)
    np.testing.assert_equal(to_host_state(other.state_dict()), to_host_state(optimizer.state_dict()))


def test_the_order_of_the_names_does_not_matter(device):
    grads, params, same = draw(1, "float32"), flat_dict(draw(0, "float32")), flat_dict(draw(0, "float32"))
    turned = dict(reversed(grads.items()))
    one, other = Adam(), Adam()
    one.update(params, flat_dict(grads))
    other.update(same, flat_dict(turned))
    assert_same_bits(same, params)
    one.update(params, flat_dict(grads))
    other.update(dict(reversed(same.items())), turned)  # the state is found by name
    assert_same_bits(same, params)


def test_parameters_of_several_dtypes(device):
    params = {"half": xp.ones(3, "float16"), "single": xp.ones(3, "float32"), "double": xp.ones(3, "float64")}
    adam = Adam(lr=0.125)
    adam.update(params, {key: xp.ones_like(p) for key, p in params.items()})
    assert {key: str(p.dtype) for key, p in params.items()} == {
        "half": "float16",
        "single": "float32",
        "double": "float64",
    }
    assert {key: str(m.dtype) for key, m in adam.state["m"].items()} == {
        "half": "float32",
        "single": "float32",
        "double": "float64",
    }
    for p in params.values():
        np.testing.assert_allclose(backend.asnumpy(p), 0.875, rtol=1e-6)


@every_optimizer
def test_no_parameters_is_no_error(device, name):
    optimizers.by_name(name).update({}, {})


def spoil(params, grads, key, array):
    return params, {**grads, key: array}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda p, g: (p, {"W1": g["W1"]}), ValueError, "grads lacks 'b1', 'scale', 'none', 'W2'"),
        (lambda p, g: (p, {**g, "W9": g["W1"]}), ValueError, "grads has unknown 'W9'"),
        (lambda p, g: ({**p, "W9": g["W1"]}, {**g, "V": g["W1"]}), ValueError, "lacks 'W9' and has unknown 'V'"),
        (
            lambda p, g: (p, {**g, "W2": g["W2"].reshape(12, 2)}),
            ValueError,
            r"grads\['W2'\] is float32\[12, 2\], but params\['W2'\] is float32\[2, 3, 2, 2\]",
        ),
        (
            lambda p, g: (p, {**g, "b1": g["b1"].astype("float64")}),
            ValueError,
            r"grads\['b1'\] is float64\[4\], but params\['b1'\] is float32\[4\]",
        ),
        (lambda p, g: (p, {**g, "b1": [1, 2]}), TypeError, r"grads\['b1'\] is list"),
        (lambda p, g: ({**p, "b1": 1.0}, g), TypeError, r"params\['b1'\] is float"),
        (
            lambda p, g: ({**p, "b1": p["b1"].astype("int64")}, {**g, "b1": g["b1"].astype("int64")}),
            TypeError,
            r"params\['b1'\] is of dtype int64",
        ),
        (
            lambda p, g: ({**p, "scale": np.float32(1)}, {**g, "scale": np.float32(1)}),
            TypeError,
            r"params\['scale'\] is float32",
        ),
    ],
)
@pytest.mark.parametrize("seen_before", [False, True])
def test_bad_arguments_are_named_and_change_nothing(device, change, error, message, seen_before):
    params, grads = draw(0, "float32"), draw(1, "float32")
    optimizer = Momentum()
    if seen_before:
        optimizer.update(params, grads)
    before, state_before = to_host(params), to_host_state(optimizer.state_dict())
    with pytest.raises(error, match=message):
        optimizer.update(*change(params, grads))
    assert_same_bits(params, before)
    np.testing.assert_equal(to_host_state(optimizer.state_dict()), state_before)


def test_read_only_parameters_are_refused_before_anything_changes():
    params = {"a": np.ones(2), "b": np.ones(2)}
    params["b"].flags.writeable = False
    with pytest.raises(ValueError, match=r"params\['b'\] is read-only"):
        SGD().update(params, {"a": np.ones(2), "b": np.ones(2)})
    assert params["a"].tolist() == [1, 1]


@pytest.mark.parametrize("make", [dict, flat_dict])
def test_an_update_that_fails_is_not_counted(device, make, monkeypatch):
    params, grads, adam = make(draw(0, "float32")), make(draw(1, "float32")), Adam()

    def fail(*arguments, **options):
        raise MemoryError("no room for scratch")

    with monkeypatch.context() as patched:
        for name in ("update_on_host", "update_on_device", "compiled.update"):
            patched.setattr(f"training.optim.optimizer.{name}", fail)
        with pytest.raises(MemoryError, match="no room for scratch"):
            adam.update(params, grads)
    assert adam.t == 0
    adam.update(params, grads)
    straight = make(draw(0, "float32"))
    Adam().update(straight, grads)
    assert_same_bits(params, straight)


def test_state_of_other_parameters_is_refused(device):
    adam = Adam()
    adam.update({"W": xp.ones((2, 3), "float32")}, {"W": xp.ones((2, 3), "float32")})
    with pytest.raises(ValueError, match="state 'm' is of other parameters: it lacks 'V' and has unknown 'W'"):
        adam.update({"V": xp.ones((2, 3), "float32")}, {"V": xp.ones((2, 3), "float32")})
    with pytest.raises(ValueError, match=r"'m' of 'W' is float32\[2, 3\], but the parameter needs float32\[3, 2\]"):
        adam.update({"W": xp.ones((3, 2), "float32")}, {"W": xp.ones((3, 2), "float32")})
    with pytest.raises(ValueError, match=r"'m' of 'W' is float32\[2, 3\], but the parameter needs float64\[2, 3\]"):
        adam.update({"W": xp.ones((2, 3), "float64")}, {"W": xp.ones((2, 3), "float64")})
    assert adam.t == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saved: saved.pop("t"), "lacks 't'"),
        (lambda saved: saved.pop("beta1"), "lacks 'beta1'"),
        (lambda saved: saved.pop("v.W"), "lacks 'v.W'"),
        (lambda saved: saved.update(h=1), "has unknown 'h'"),
        (lambda saved: saved.update({"h.W": np.ones(2)}), "has unknown 'h.W'"),
        (lambda saved: saved.update(beta1=1.0), r"beta1 must be a finite number, at least 0 and below 1, got 1.0"),
        (lambda saved: saved.update(t=-1), "t must be a whole number of at least 0, got -1"),
        (lambda saved: saved.pop("skipped"), "lacks 'skipped'"),
        (lambda saved: saved.update(skipped=10), "skipped must be a whole number from 0 to 9, got 10"),
    ],
)
def test_a_spoilt_state_dict_is_refused_and_nothing_loaded(change, message):
    adam = Adam()
    adam.update({"W": np.ones(2)}, {"W": np.ones(2)})
    before = adam.state_dict()
    spoilt = Adam(lr=0.5).state_dict() | {"t": 9, "m.W": np.zeros(2), "v.W": np.zeros(2)}
    change(spoilt)
    with pytest.raises(ValueError, match=message):
        adam.load_state_dict(spoilt)
    np.testing.assert_equal(adam.state_dict(), before)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SGD(-0.1), ValueError, r"SGD: lr must be a finite number, at least 0, got -0.1"),
        (lambda: SGD(float("nan")), ValueError, "lr .* nan"),
        (lambda: SGD(float("inf")), ValueError, "lr .* inf"),
        (lambda: SGD("0.1"), TypeError, "lr must be a finite number, .*got '0.1'"),
        (lambda: SGD(weight_decay=-1), ValueError, "weight_decay .* -1"),
        (
            lambda: Momentum(momentum=1.0),
            ValueError,
            "Momentum: momentum .* below 1, got 1.0",
        ),
        (lambda: Nesterov(momentum=-0.1), ValueError, "momentum .* -0.1"),
        (lambda: RMSprop(decay_rate=1.5), ValueError, "decay_rate .* 1.5"),
        (lambda: AdaGrad(eps=0.0), ValueError, r"eps must be a finite number, above 0, got 0.0"),
        (lambda: Adam(beta1=1.0), ValueError, "beta1 .* 1.0"),
        (lambda: AdamW(beta2=-0.5), ValueError, "beta2 .* -0.5"),
        (lambda: setattr(Adam(), "lr", float("nan")), ValueError, "lr .* nan"),
        (lambda: optimizers.by_name("sgd", lr=-1.0), ValueError, "lr .* -1.0"),
        (lambda: optimizers.by_name("lbfgs"), ValueError, "'sgd', 'momentum', 'nesterov', 'adagrad', .* got 'lbfgs'"),
    ],
)
def test_bad_hyperparameters_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_by_name_keeps_the_defaults_unless_told():
    assert [repr(optimizers.by_name(name)) for name in optimizers.NAMES] == [
        "SGD(lr=0.01, weight_decay=0)",
        "Momentum(lr=0.01, momentum=0.9, weight_decay=0)",
        "Nesterov(lr=0.01, momentum=0.9, weight_decay=0)",
        "AdaGrad(lr=0.01, eps=1e-07, weight_decay=0)",
        "RMSprop(lr=0.01, decay_rate=0.99, eps=1e-07, weight_decay=0)",
        "Adam(lr=0.001, beta1=0.9, beta2=0.999, eps=1e-08, weight_decay=0)",
        "AdamW(lr=0.001, beta1=0.9, beta2=0.999, eps=1e-08, weight_decay=0.01)",
    ]
    assert repr(optimizers.by_name("adamw", 0.5, 0.0)) == repr(AdamW(0.5, weight_decay=0.0))


@pytest.mark.gpu
@every_optimizer
def test_state_follows_the_parameters_to_another_device(name):
    with backend.use("cpu"):
        params, straight = draw(0, "float32"), draw(0, "float32")
        optimizer, other = optimizers.by_name(name), optimizers.by_name(name)
        train(optimizer, params, range(2), dict)
        train(other, straight, range(4), dict)
    with backend.use("cuda"):
        params = {key: backend.asarray(p) for key, p in params.items()}
        train(optimizer, params, range(2, 4), dict)
    # Every operation is rounded correctly on both devices, so not a bit may differ.
    assert_same_bits(params, straight)


@pytest.mark.gpu
def test_host_and_device_arrays_do_not_mix():
    with backend.use("cuda"):
        params = {"W": xp.ones(3, "float32")}
        with pytest.raises(TypeError, match="host and device arrays are mixed"):
            SGD().update(params, {"W": np.ones(3, "float32")})


@pytest.mark.gpu
@every_optimizer
def test_an_update_waits_for_nothing(name):
    emulator = pytest.importorskip("cuda_on_cpu", reason="counts need the emulated device")
    with backend.use("cuda"):
        optimizer = optimizers.by_name(name, weight_decay=0.01)
        params, grads = flat_dict(draw(0, "float32")), flat_dict(draw(1, "float32"))
        optimizer.update(params, grads)
        emulator.reset()
        optimizer.update(params, grads)
        counted = emulator.counters()
    assert counted["synchronizations"] == counted["d2h_calls"] == counted["h2d_calls"] == 0
    assert counted["kernel_launches"] > 0
