"""Find where a loss became non-finite: a sample, a parameter, or a layer's forward or backward, corrupted by the
test."""

import warnings

import numpy as np
import pytest

import backend
from backend import asarray, asnumpy, xp
from layers import (
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    Layer,
    Pooling,
    Relu,
    Residual,
    Sequential,
)
from tests.support.command_line import QUICK, xpnet
from training.data import Loader
from training.loop.evaluation import predict
from training.loop.non_finite import NonFiniteError, find_non_finite
from training.loop.trainer import Trainer
from training.models import Network, SimpleConvNet, TwoLayerNet
from training.optim.loss_scaling import LossScaler
from training.optim.optimizers import SGD, Adam
from training.optim.update import Update

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow is the point

N, CLASSES, SHAPE = 300, 3, (1, 5, 6)
FIRST = "the first number that is not finite is in"
BAD = pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])


class Spoil(Layer):
    """Passes x and its gradient on, and spoils one number where it is told to."""

    def __init__(self, in_forward=False, in_backward=False, value=np.nan):
        self.in_forward, self.in_backward, self.value = in_forward, in_backward, value

    def forward(self, x):
        return self._spoilt(x, self.in_forward)

    def backward(self, dout):
        return self._spoilt(dout, self.in_backward)

    def _spoilt(self, x, wanted):
        y = x.copy()
        if wanted:
            y[1, 2] = self.value
        return y


def deep(dtype="float32"):
    """Convolutions, batch normalisations, a residual block and dropout."""
    body = Sequential(
        Convolution.of(2, 2, 3, pad=1, dtype=dtype), BatchNormalization.of(2, dtype=dtype), Relu(), Dropout(0.25)
    )
    return Network(
        Sequential(
            Convolution.of(1, 2, 3, pad=1, dtype=dtype),
            BatchNormalization.of(2, dtype=dtype),
            Residual(body, Convolution.of(2, 2, 1, dtype=dtype)),
            Pooling(2, 2, stride=2),
            Affine.of(2 * 2 * 3, 4, "he", dtype),
            BatchNormalization.of(4, dtype=dtype),
            Dropout(0.25),
            Affine.of(4, 3, "he", dtype),
        ),
        SHAPE,
    )


def flat(*between, features=6, dtype="float32"):
    """Two affine layers with others between them."""
    layers = Affine.of(features, 8, "he", dtype), *between, Affine.of(8, CLASSES, "he", dtype)
    return Network(Sequential(*layers), (features,))


def data(shape=(6,), n=N, dtype="float32"):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, *shape)).astype(dtype), rng.integers(0, CLASSES, n).astype("int32")


def run(network=None, train=None, test=None, optimizer=None, dtype="float32", epochs=2, **options):
    """A trainer with shuffled batches of 32, tested in batches of 100."""
    (x, t), (test_x, test_t) = (data() if given is None else given for given in (train, test))
    return Trainer(
        flat(dtype=dtype) if network is None else network,
        Loader(x, t, 32, seed=4, dtype=dtype),
        Loader(test_x, test_t, 100, shuffle=False, dtype=dtype),
        Update(SGD(0.01) if optimizer is None else optimizer, **options),
        epochs=epochs,
    )


def message_of(function, *arguments):
    with pytest.raises(NonFiniteError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


# -- one batch -------------------------------------------------------------------------------------------------------


def spoil_input(network, x, t):
    x[1, 0, 2, 3] = xp.nan
    return "the input: sample 1 of the batch has nan at (0, 2, 3)"


def spoil_weight(network, x, t):
    network.params["W3"][0, 0, 0, 0] = xp.inf
    return "parameter W3 of layer Residual1.shortcut: inf at (0, 0, 0, 0)"


def spoil_state(network, x, t):
    network.state["running_var2"][1] = xp.nan
    return "parameter running_var2 of layer Residual1.body.BatchNormalization1: nan at (1,)"


def spoil_nested_weight(network, x, t):
    network.params["gamma2"][0] = -xp.inf
    return "parameter gamma2 of layer Residual1.body.BatchNormalization1: -inf at (0,)"


def overflow_first(network, x, t):
    network.params["W1"][...] = 3e38
    x[...] = 10
    return "the output of layer Convolution1, Convolution(1 → 2"


def overflow_nested(network, x, t):
    network.params["gamma2"][...] = 3e38
    network.params["beta2"][...] = 3e38
    return "the output of layer Residual1.body.BatchNormalization1, BatchNormalization(2, "


def overflow_affine(network, x, t):
    network.params["W4"][...] = 3e38
    return "the output of layer Affine1, Affine(12 → 4), for sample "


def overflow_last(network, x, t):
    network.params["b5"][...] = 3e38
    network.params["gamma3"][...] = 1e38
    return "the output of layer Affine2, Affine(4 → 3), for sample "


def overflow_loss(network, x, t):
    network.params["W5"][...] = 0
    network.params["b5"][...] = asarray(np.array([3e38, -3e38, 0], "float32"))
    t[...] = 1
    return "the softmax loss itself: inf for scores from -3e+38 to 3e+38"


def label_too_high(network, x, t):
    t[...] = asarray(np.array([0, 3, 1], "int32"))
    return "the labels: sample 1 of the batch has 3, expected 0 to 2"


def label_too_low(network, x, t):
    t[...] = asarray(np.array([2, 1, -1], "int32"))
    return "the labels: sample 2 of the batch has -1, expected 0 to 2"


SPOILS = [spoil_input, spoil_weight, spoil_state, spoil_nested_weight, label_too_high, label_too_low]
SPOILS += [overflow_first, overflow_nested, overflow_affine, overflow_last, overflow_loss]


@pytest.mark.parametrize("spoil", SPOILS, ids=[spoil.__name__ for spoil in SPOILS])
def test_the_place_is_named_and_nothing_is_disturbed(device, spoil):
    network = deep()
    x, t = map(asarray, data(SHAPE, 3))
    assert find_non_finite(network, x, t) is None
    words = spoil(network, x, t)
    states, start = {name: asnumpy(array).copy() for name, array in network.state.items()}, backend.random.default.state
    assert str(find_non_finite(network, x, t)).startswith(f"{FIRST} {words}")
    for name, array in network.state.items():
        np.testing.assert_array_equal(asnumpy(array), states[name])
    assert backend.random.default.state == start
    for layer in network.layers.layers.values():
        assert not {"forward", "forward_relu", "backward"} & vars(layer).keys()


def test_a_distribution_that_is_not_finite(device):
    x, t = data(n=4)
    t = np.eye(CLASSES, dtype="float32")[t]
    t[2, 1] = np.nan
    assert "the labels: sample 2 of the batch has nan at (1,)" in str(find_non_finite(flat(), asarray(x), asarray(t)))


def test_a_layer_that_was_replaced_in_the_network_keeps_its_own_method():
    """Somebody's hook on a layer object is there again afterwards."""
    network = flat(Relu())
    hook = network.layers["Relu1"].forward
    network.layers["Relu1"].forward = hook
    with backend.use("cpu"):
        find_non_finite(network, *data(n=4))
    assert vars(network.layers["Relu1"])["forward"] is hook
    assert "forward_relu" not in vars(network.layers["Affine1"])


# -- a sample, by its index in the data set --------------------------------------------------------------------------


@BAD
def test_a_training_sample(device, bad):
    x, t = data()
    x[217, 4] = bad
    message = message_of(run(train=(x, t)).train)
    assert f"the input: sample 217 of the training data has {bad} at (4,); mend the sample or leave it out" in message
    assert message.startswith("the loss is nan at step ")
    assert "learning rate" not in message


@BAD
def test_a_test_sample_in_a_later_batch(device, bad):
    x, t = data()
    x[250, 3] = bad
    message = message_of(run(test=(x, t)).train)
    assert message == (
        "the test loss is nan after step 10 (epoch 1); the first number that is not finite is in the input: sample 250 "
        f"of the test data has {bad} at (3,); mend the sample or leave it out"
    )


def test_a_pixel_is_told_by_channel_row_and_column(device):
    x, t = data((2, 5, 6), 50)
    x[31, 1, 4, 2] = np.nan
    for given in ({"train": (x, t), "test": data((2, 5, 6), 9)}, {"train": data((2, 5, 6), 9), "test": (x, t)}):
        # Anew each time: a GPU that runs ahead of the host has taken steps after the one that is found.
        network = SimpleConvNet((2, 5, 6), {"filter_num": 2, "filter_size": 3, "stride": 1, "pad": 1}, 4, CLASSES)
        assert f"sample 31 of the {'training' if given['train'][0] is x else 'test'} data has nan at (1, 4, 2)" in (
            message_of(run(network, **given).train)
        )


@pytest.mark.parametrize(("given", "dtype", "number"), [("float64", "float32", 1e39), ("float32", "float16", 7e4)])
def test_a_number_too_large_for_the_batches(device, given, dtype, number):
    x, t = data(dtype=given)
    x[123, 5] = number
    message = message_of(run(train=(x, t), dtype=dtype).train)
    assert f"sample 123 of the training data has inf at (5,), {number:g} in the data set" in message
    assert message.endswith(f"; {dtype} holds no such number: scale the data")


def test_evaluation_and_prediction(device):
    x, t = data()
    x[250, 3] = np.nan
    message = message_of(predict, flat(), Loader(x, t, 100, shuffle=False))
    assert message.startswith(f"the loss is nan; {FIRST} the input: sample 250 of the data has nan at (3,)")
    with pytest.warns(RuntimeWarning, match=r"1 of 300 samples have scores that are not finite.*find_non_finite"):
        flat().accuracy(asarray(x), asarray(t), batch_size=100)
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error")
        flat().accuracy(asarray(x), asarray(t))


# -- a parameter -----------------------------------------------------------------------------------------------------


@BAD
@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_parameter_of_a_file(device, tmp_path, bad, suffix):
    """Before the first step: it is neither the data nor the learning rate."""
    network = flat()
    network.params["W2"][5, 1] = bad
    network.save_params(tmp_path / f"model.{suffix}")
    loaded = flat()
    loaded.load_params(tmp_path / f"model.{suffix}")
    trainer = run(loaded)
    message = message_of(trainer.train)
    assert message == (
        f"{FIRST} parameter W2 of layer Affine2: {bad} at (5, 1); no step has made it so: look at the file or the "
        "initializer that it comes from"
    )
    assert trainer.step == 0
    assert message_of(predict, loaded, Loader(*data(), 100)).endswith(message)


def test_a_running_statistic_of_a_file(device):
    network = flat(BatchNormalization.of(8))
    network.state["running_mean1"][3] = np.nan
    assert "parameter running_mean1 of layer BatchNormalization1: nan at (3,); no step" in message_of(
        run(network).train
    )


@BAD
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_backward(device, bad, clip_norm):
    """Named in its very step on the CPU, and parameters are whole; a GPU is not waited for, and says so."""
    spoil = Spoil(value=bad)

    def begin(step):  # asked for in the update of a step, after its backward
        spoil.in_backward = step + 1 >= 5
        return 0.01

    network = flat(Relu(), Affine.of(8, 8), spoil, Affine.of(8, 8), Relu())
    message = message_of(run(network, schedule=begin, clip_norm=clip_norm).train)
    if device.kind == "cpu":
        assert message.startswith("a gradient is not finite at step 6 (epoch 1, batch 6 of 10); ")
        assert f"{FIRST} dx of layer Spoil1, Spoil(): {bad} at (1, 2); a smaller learning rate" in message
        assert np.isfinite(network.params.flat).all()
    else:
        assert f"{FIRST} parameter " in message
        assert "or of one after it, and perhaps from another layer; " in message
        assert message.endswith("on the CPU (XPNET_DEVICE=cpu) the very step is caught")


def test_a_parameter_s_own_gradient():
    """No other is spoilt by it: the next step finds the parameter, which names the layer."""

    class Odd(Affine):
        def backward(self, dout):
            dx = super().backward(dout)
            self.dW[3, 1] = np.nan
            return dx

    with backend.use("cpu"):
        odd = Odd(np.eye(8, dtype="float32"), np.zeros(8, "float32"))
        message = message_of(run(flat(Relu(), odd, Relu(), Affine.of(8, 8))).train)
    assert message.startswith("the loss is nan at step 2 ")
    assert f"{FIRST} parameter W2 of layer Odd1: nan at (3, 1), since the backward or the update of step 1; " in message


def test_an_update_that_overflows(device):
    message = message_of(run(schedule=lambda step: 1e38 if step == 5 else 0.01).train)
    if device.kind == "cpu":
        assert message.startswith("the loss is nan at step 7 ")
        assert message.endswith("a smaller learning rate or clipped gradients may help")
    assert "is in parameter " in message or "is in the output of layer Affine" in message
    assert "a smaller learning rate or clipped gradients may help" in message


def test_the_last_update_is_seen_by_the_evaluation():
    with backend.use("cpu"):
        network, steps = flat(), SGD(0.01)

        def spoilt(params, grads):
            SGD.update(steps, params, grads)
            params["b1"][2] = np.inf if run_under_way.step == 9 else params["b1"][2]

        steps.update = spoilt
        run_under_way = run(network, optimizer=steps)
        message = message_of(run_under_way.train)
    assert message.startswith("the test loss is nan after step 10 (epoch 1)")
    assert "parameter b1 of layer Affine1: inf at (2,), since the backward or the update of step 10" in message


# -- a layer ---------------------------------------------------------------------------------------------------------


@BAD
def test_a_forward_is_named_with_the_sample(device, bad):
    """Also where statistics of a later batch normalisation were spoilt by it."""
    trainer = run(flat(Spoil(True, value=bad), BatchNormalization.of(8), Relu()))
    second = trainer.train_loader.indices(0, 0)[1]
    message = message_of(trainer.train)
    if device.kind == "cpu":
        assert (
            f"is in the output of layer Spoil1, Spoil(), for sample {second} of the training data: {bad} at (2,)"
            in message
        )
    assert message.startswith("the loss is nan at step 1 ")


def test_a_forward_of_the_evaluation_alone(device):
    class OnlyThere(Spoil):
        def forward(self, x):
            return self._spoilt(x, not self.training)

    message = message_of(run(flat(Residual(Sequential(OnlyThere())))).train)
    assert (
        "is in the output of layer Residual1.body.OnlyThere1, OnlyThere(), for sample 1 of the test data: nan"
        in message
    )


@pytest.mark.parametrize(("dtype", "value"), [("float32", 3e38), ("float32", -1e30), ("float16", 6e4)])
def test_data_of_a_scale_that_no_layer_can_take(device, dtype, value):
    """No learning rate mends it: the sample is named, and what to do."""
    large = data()
    large[0][133, 2] = value
    network = flat(dtype=dtype)
    network.params["W1"][...] = 1e10 if dtype == "float32" else 100
    message = message_of(run(network, test=large, dtype=dtype, schedule=lambda step: 0.0).train)
    given = f"{float(np.dtype(dtype).type(value)):g}"
    assert f"the input is large, {given} at (2,) of sample 133 of the test data: scale the data" in message
    assert "learning rate" not in message


def test_a_first_step_was_not_too_large(device):
    network = flat()
    network.params["W2"][...] = 1e38
    message = message_of(run(network).train)
    assert message.startswith("the loss is")
    if device.kind == "cpu":
        assert message.endswith("no step was taken yet: smaller first weights, or scaled data, may help")


def test_a_sum_of_a_composite_layer(device):
    network = flat(Residual(Sequential(Affine.of(8, 8))))
    for name in ("W1", "W2", "b1"):
        network.params[name][...] = 0
    network.params["b1"][...] = network.params["b2"][...] = 2e38
    message = str(find_non_finite(network, *map(asarray, data(n=4))))
    assert "is in the output of layer Residual1, Residual, for sample 0 of the batch: inf at (0,)" in message


def test_a_backward_at_every_loss_scale(device):
    """Under a scale such steps are skipped, so parameters are whole and the layer itself can be named."""
    spoil = Spoil(in_backward=True)
    network = flat(Relu(), spoil, Affine.of(8, 8, dtype="float16"), dtype="float16")
    trainer = run(network, dtype="float16", scaler=LossScaler(2.0**-20), optimizer=Adam())
    before = asnumpy(network.params.flat).copy()
    message = message_of(trainer.train)
    assert message.startswith("gradients are not finite at any loss scale down to ")
    assert (
        "in the last of them the first number that is not finite is in dx of layer Spoil1, Spoil(): nan at (1, 2)"
        in message
    )
    assert message.endswith("a smaller learning rate, other first weights or float32 may help")
    np.testing.assert_array_equal(asnumpy(network.params.flat), before)


# -- the command line ------------------------------------------------------------------------------------------------


def test_commands_on_a_model_that_is_not_finite(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = TwoLayerNet(784, 5, 10)
    network.config["input_dim"] = [1, 28, 28]
    network.params["W2"][1, 2] = np.nan
    network.save_params("model.safetensors")
    from PIL import Image

    Image.new("L", (28, 28)).save("digit.png")
    words = "parameter W2 of layer Affine2: nan at (1, 2); no step has made it so"
    for options in ([], ["--json"]):
        evaluated = xpnet("evaluate", "model.safetensors", *options)
        assert (evaluated.code, evaluated.out) == (1, "")
        assert evaluated.err.startswith("Error: model.safetensors: the loss is nan; ")
        predicted = xpnet("predict", "digit.png", "--run", "model.safetensors", *options)
        assert (predicted.code, predicted.out) == (2, "")
        for result in (evaluated, predicted):
            assert words in result.err
            assert result.err.count("\n") == 1


def test_the_training_command_names_the_update(tmp_path):
    result = xpnet("train", *QUICK, "--model", "TwoLayerNet", "--lr", "1e30", "--quiet", "--out", tmp_path / "run")
    assert result.code == 1
    assert result.err.startswith("Error: the loss is ")
    assert "the first number that is not finite is in " in result.err
