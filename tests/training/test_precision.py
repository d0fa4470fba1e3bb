"""Training in float16: master parameters, the scale of the loss, and steps that overflow."""

import json
import math

import numpy as np
import pytest
from command_line import QUICK, xpnet

import backend
from backend import asarray, asnumpy, xp
from kernels import loss_scale
from layers import Affine, Relu, Sequential
from training import optimizers
from training.data import Loader, load
from training.models import ConvNet, TwoLayerNet
from training.network import Network
from training.optimizers import SGD, Adam
from training.precision import LossScaler
from training.trainer import NonFiniteError, Trainer


def half(width=16, seed=0):
    backend.random.seed(seed)
    layers = Sequential(Affine.of(12, width), Relu(), Affine.of(width, 4))
    return Network(layers, (12,)).astype("float16")


def batch(seed=0, n=8):
    rng = np.random.default_rng(seed)
    return asarray(rng.standard_normal((n, 12)).astype("float16")), asarray(rng.integers(0, 4, n).astype("int32"))


def arrays(params, optimizer):
    """All that an update changes, as bytes."""
    kept = [params.flat, *(array for slot in optimizer.state.values() for array in slot.values())]
    return [asnumpy(array).tobytes() for array in kept]


def test_gradients_that_float16_cannot_hold_are_kept_by_the_scale(device):
    """With inputs of 2⁻²⁴, the smallest number of float16, a gradient is half of that."""
    network = Network(Sequential(Affine(xp.zeros((1, 2), "float16"), xp.zeros(2, "float16"))), (1,))
    x, t = asarray(np.full((4, 1), 2.0**-24, "float16")), asarray(np.zeros(4, "int32"))
    network.step_gradients(x, t)
    assert not asnumpy(network.grads["W1"]).any()
    scaler = LossScaler(2.0**16)
    network.step_gradients(x, t, scaler.scale)
    assert asnumpy(network.grads["W1"]).tolist() == [[-(2.0**-9), 2.0**-9]]


def test_running_statistics_stay_float32(device):
    network = ConvNet(input_dim=(1, 12, 12)).astype("float16")
    assert {array.dtype.name for array in network.state.values()} == {"float32"}
    assert network.params.flat.dtype == "float16"


def test_the_loss_itself_is_not_scaled(device):
    network, (x, t) = half(), batch()
    plain = float(network.step_gradients(x, t))
    gradient = asnumpy(network.grads.flat).astype("float64")
    assert float(network.step_gradients(x, t, LossScaler(2.0**8).scale)) == plain
    np.testing.assert_allclose(asnumpy(network.grads.flat) / 2.0**8, gradient, rtol=0.01, atol=1e-5)


@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_the_master_is_moved_in_float32_and_the_parameter_is_the_master_rounded(device, clip_norm):
    network, scaler, sgd = half(), LossScaler(2.0**10), SGD(0.125)
    master = asnumpy(network.params.flat).astype("float32")
    for step in range(5):
        network.step_gradients(*batch(step), scaler.scale)
        gradient = asnumpy(network.grads.flat)
        scaler.update(sgd, network.params, network.grads, clip_norm)
        np.testing.assert_array_equal(asnumpy(network.grads.flat), gradient)
        g = gradient.astype("float64") / 2.0**10
        norm = math.sqrt((g * g).sum())
        g *= 1.0 if clip_norm is None else min(1.0, clip_norm / norm)
        master = master - np.float32(0.125) * g.astype("float32")
        np.testing.assert_allclose(asnumpy(sgd.state["master"].flat), master, rtol=3e-7, atol=1e-9)
        np.testing.assert_array_equal(asnumpy(network.params.flat), asnumpy(sgd.state["master"].flat).astype("float16"))
    assert clip_norm is None or norm > clip_norm


def test_steps_too_small_for_float16_add_up(device):
    """Float16 has nothing between 1 and 1 - 2⁻¹¹: a step of 2⁻¹⁴ alone would never move it."""
    params, grads = {"w": xp.ones(3, "float16")}, {"w": xp.ones(3, "float16")}
    sgd = SGD(2.0**-14)
    for _ in range(64):
        sgd.update(params, grads)
    assert asnumpy(params["w"]).tolist() == [1 - 64 * 2.0**-14] * 3


@pytest.mark.parametrize("name", optimizers.NAMES)
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_step_that_overflows_changes_nothing_but_the_scale(device, name, bad):
    network, scaler, optimizer = half(), LossScaler(2.0**10), optimizers.by_name(name)
    network.step_gradients(*batch(), scaler.scale)
    scaler.update(optimizer, network.params, network.grads)
    before = arrays(network.params, optimizer)
    network.grads.flat[7] = bad
    scaler.update(optimizer, network.params, network.grads)
    assert arrays(network.params, optimizer) == before
    assert scaler.read() == (2.0**9, 1)
    network.step_gradients(*batch(), scaler.scale)
    scaler.update(optimizer, network.params, network.grads)
    assert arrays(network.params, optimizer) != before


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_skipped_steps_do_not_count(device, name):
    """Adam corrects for the number of steps: with steps skipped in between, the others are what they would be."""
    networks, ours = [half(), half()], [optimizers.by_name(name, lr=0.01) for _ in range(2)]
    scalers = [LossScaler(2.0**10), LossScaler(2.0**10)]
    for step in range(6):
        for i in range(2):
            if i and step in (0, 3, 4):
                scalers[i].update(ours[i], networks[i].params, broken(networks[i].grads))
            # The same gradients on both, without the scale, that has moved apart.
            networks[i].step_gradients(*batch(step))
            networks[i].grads.flat[...] *= 16
            scalers[i].control[[loss_scale.SCALE, loss_scale.MULTIPLIER]] = asarray(np.float32([16, 1 / 16]))
            scalers[i].update(ours[i], networks[i].params, networks[i].grads)
    assert scalers[1].read()[1] == 3
    np.testing.assert_array_equal(*(asnumpy(network.params.flat) for network in networks))


def broken(grads):
    copy = grads.copy()
    copy.flat[0] = np.inf
    return copy


def test_the_scale_grows_after_enough_good_steps(device):
    network, scaler, sgd = half(), LossScaler(2.0**4, growth_interval=3), SGD(0.01)
    scales = []
    for step in range(7):
        network.step_gradients(*batch(step), scaler.scale)
        scaler.update(sgd, network.params, network.grads)
        scales.append(scaler.read()[0])
    assert scales == [16, 16, 32, 32, 32, 64, 64]


def test_parameters_set_from_outside_are_where_it_goes_on(device, tmp_path):
    network, sgd = half(), SGD(0.125)
    network.save_params(tmp_path / "start.npz")
    start = asnumpy(network.params.flat).copy()
    for step in range(4):
        network.step_gradients(*batch(step))
        sgd.update(network.params, network.grads)
    network.load_params(tmp_path / "start.npz")
    network.step_gradients(*batch(9))
    expected = start.astype("float32") - 0.125 * asnumpy(network.grads.flat).astype("float32")
    sgd.update(network.params, network.grads)
    found, taken = asnumpy(sgd.state["master"].flat), start != 0
    np.testing.assert_array_equal(found[taken], expected[taken])


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_a_run_goes_on_from_its_state_bit_for_bit(device, name):
    network, scaler, optimizer = half(), LossScaler(2.0**6, growth_interval=2), optimizers.by_name(name)

    def steps(network, scaler, optimizer, numbers):
        for step in numbers:
            network.step_gradients(*batch(step), scaler.scale)
            scaler.update(optimizer, network.params, network.grads)
        return arrays(network.params, optimizer), scaler.read()

    steps(network, scaler, optimizer, range(3))
    again, other, third = half(seed=5), LossScaler(growth_interval=2), optimizers.by_name(name)
    again.params.flat[...] = network.params.flat
    other.load_state_dict(scaler.state_dict())
    third.load_state_dict(optimizer.state_dict())
    assert steps(again, other, third, range(3, 6)) == steps(network, scaler, optimizer, range(3, 6))


def run(precision, epochs=3, n=4000, **options):
    digits = load("mnist10k")
    backend.random.seed(0)
    dtype = {"fp16": "float16", "fp32": "float32"}[precision]
    network = TwoLayerNet(784, 32, 10, weight_init_std="he").astype(dtype)
    loaders = [
        Loader(x[:n].reshape(-1, 784), t[:n], size, dtype=dtype, shuffle=shuffle)
        for x, t, size, shuffle in (
            (digits.train_images, digits.train_labels, 50, True),
            (digits.test_images, digits.test_labels, 1000, False),
        )
    ]
    scaler = LossScaler() if precision == "fp16" else None
    return Trainer(network, *loaders, Adam(0.002), epochs=epochs, scaler=scaler, **options)


def test_float16_learns_what_float32_learns(device):
    results = [run(precision).train()[-1] for precision in ("fp16", "fp32")]
    assert results[0].test_accuracy > 0.85
    assert abs(results[0].test_accuracy - results[1].test_accuracy) < 0.01
    assert abs(results[0].loss - results[1].loss) < 0.01
    assert results[0].loss_scale == 2.0**16


def test_overflows_are_counted_by_epoch(device):
    """A scale of 2²⁴ overflows: the training finds a smaller one by itself."""
    trainer = run("fp16", epochs=2)
    trainer.scaler = LossScaler(2.0**24)
    first, second = trainer.train()
    assert first.skipped_steps > 0
    assert first.loss_scale == 2.0 ** (24 - first.skipped_steps)
    assert second.skipped_steps == 0
    assert second.test_accuracy > 0.85


def test_gradients_that_overflow_at_every_scale_end_the_training(device):
    trainer = run("fp16")
    original = trainer.network.step_gradients

    def spoilt(x, t, scale):
        loss = original(x, t, scale)
        trainer.network.grads.flat[3] = np.nan
        return loss

    trainer.network.step_gradients = spoilt
    before = asnumpy(trainer.network.params.flat).copy()
    with pytest.raises(NonFiniteError, match=r"not finite at any loss scale down to 5\.96.*e-08: 80 steps of epoch 1"):
        trainer.train()
    np.testing.assert_array_equal(asnumpy(trainer.network.params.flat), before)


@pytest.mark.gpu
def test_both_devices_train_alike():
    results = []
    for place in ("cpu", "cuda"):
        with backend.use(place):
            results.append(run("fp16", epochs=1, n=1000, clip_norm=1.0).train()[0])
    assert abs(results[0].loss - results[1].loss) < 1e-3
    assert abs(results[0].test_loss - results[1].test_loss) < 1e-3


@pytest.mark.gpu
def test_a_convolutional_network_in_float16_takes_the_same_steps_on_both():
    losses = []
    for place in ("cpu", "cuda"):
        with backend.use(place):
            backend.random.seed(0)
            network, scaler, adam = ConvNet(input_dim=(1, 12, 12)).astype("float16"), LossScaler(), Adam()
            x = backend.random.uniform((6, 1, 12, 12)).astype("float16")
            t = asarray(np.arange(6, dtype="int32"))
            losses.append([])
            for _ in range(5):
                losses[-1].append(float(network.step_gradients(x, t, scaler.scale)))
                scaler.update(adam, network.params, network.grads)
            assert network.state["running_var1"].dtype == "float32"
            assert scaler.read() == (2.0**16, 0)
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.02)
    assert losses[0][-1] < 0.8 * losses[0][0]


@pytest.mark.parametrize("scale", [0.0, 3.0, 2.0**25, 2.0**-25, math.nan, math.inf, -2.0])
def test_a_scale_that_is_no_power_of_two_is_refused(scale):
    with pytest.raises(ValueError, match="power of two"):
        LossScaler(scale)


def test_an_interval_of_no_steps_is_refused():
    with pytest.raises(ValueError, match="at least 1 step, not 0"):
        LossScaler(growth_interval=0)


def test_the_command_trains_in_float16(tmp_path):
    out = tmp_path / "run"
    done = xpnet("train", *QUICK, "--epochs", 1, "--precision", "fp16", "--out", out)
    assert (done.code, done.err) == (0, "")
    metrics = json.loads((out / "metrics.jsonl").read_text())
    assert metrics["loss_scale"] == 2.0**16
    assert metrics["test_accuracy"] > 0.85
    assert json.loads((out / "config.json").read_text())["settings"]["precision"] == "fp16"
    evaluated = json.loads(xpnet("evaluate", out, "--json").out)
    assert abs(evaluated["accuracy"] - metrics["test_accuracy"]) < 0.005


def test_tf32_on_a_cpu_is_refused_in_one_line(tmp_path):
    done = xpnet("train", "--precision", "tf32", "--device", "cpu", "--out", tmp_path / "run")
    assert done.code == 2
    assert "TF32 needs a CUDA GPU" in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()
