"""Training in float16: master parameters, the scale of the loss, and steps that overflow."""

import itertools
import json
import math
import warnings

import numpy as np
import pytest

import backend
from backend import asarray, asnumpy, xp
from kernels import loss_scale
from layers import Affine, Convolution, Relu, Sequential
from tests.support.checks import thread_limit
from tests.support.command_line import QUICK, xpnet
from training.data import Loader, load
from training.loop.non_finite import NonFiniteError
from training.loop.trainer import Trainer
from training.models import ConvNet, Network, TwoLayerNet
from training.optim import optimizers
from training.optim.loss_scaling import LossScaler
from training.optim.optimizers import SGD, Adam
from training.optim.update import Update


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
        Update(sgd, clip_norm=clip_norm, scaler=scaler).step(network.params, network.grads)
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
    Update(optimizer, scaler=scaler).step(network.params, network.grads)
    before = arrays(network.params, optimizer)
    network.grads.flat[7] = bad
    Update(optimizer, scaler=scaler).step(network.params, network.grads)
    assert arrays(network.params, optimizer) == before
    assert scaler.read() == (2.0**9, 1)
    network.step_gradients(*batch(), scaler.scale)
    Update(optimizer, scaler=scaler).step(network.params, network.grads)
    assert arrays(network.params, optimizer) != before


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_skipped_steps_do_not_count(device, name):
    """Adam corrects for the number of steps: with steps skipped in between, the others are what they would be."""
    networks, ours = [half(), half()], [optimizers.by_name(name, lr=0.01) for _ in range(2)]
    scalers = [LossScaler(2.0**10), LossScaler(2.0**10)]
    for step in range(6):
        for i in range(2):
            if i and step in (0, 3, 4):
                Update(ours[i], scaler=scalers[i]).step(networks[i].params, broken(networks[i].grads))
            # The same gradients on both, without the scale, that has moved apart.
            networks[i].step_gradients(*batch(step))
            networks[i].grads.flat[...] *= 16
            scalers[i].control[[loss_scale.SCALE, loss_scale.MULTIPLIER]] = asarray(np.float32([16, 1 / 16]))
            Update(ours[i], scaler=scalers[i]).step(networks[i].params, networks[i].grads)
    assert scalers[1].read()[1] == 3
    np.testing.assert_array_equal(*(asnumpy(network.params.flat) for network in networks))


def used(skipped):
    """A scaler whose steps with another optimizer were skipped so often; its scale is 2¹⁰ now."""
    network, scaler = half(), LossScaler(2.0 ** (10 + skipped))
    network.step_gradients(*batch())
    for _ in range(skipped):
        Update(SGD(0.1), scaler=scaler).step(network.params, broken(network.grads))
    assert scaler.read() == (2.0**10, skipped)
    return scaler


@pytest.mark.parametrize("name", optimizers.NAMES)
@pytest.mark.parametrize("flat", [True, False])
def test_a_new_optimizer_counts_its_own_steps_whatever_the_scaler_has_seen(device, name, flat):
    networks = [half(), half()]
    for network, scaler in zip(networks, (used(3), LossScaler(2.0**10)), strict=True):
        optimizer = optimizers.by_name(name, lr=0.01)
        for step in range(3):
            network.step_gradients(*batch(step), scaler.scale)
            both = (network.params, network.grads) if flat else (dict(network.params), dict(network.grads))
            Update(optimizer, scaler=scaler).step(*both)
    found, expected = (asnumpy(network.params.flat) for network in networks)
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("flat", [True, False])
def test_a_resumed_optimizer_knows_how_many_steps_were_skipped_without_its_scaler(device, flat):
    """Skipped steps are counted once, whether the parameters are one buffer or many arrays, an empty one first."""
    network, adam, scaler = half(), Adam(0.01), LossScaler(2.0**12)
    empty = {"none": xp.zeros((0, 3), "float16")}

    def step(network, scaler, adam, seed, spoilt=False):
        network.step_gradients(*batch(seed), scaler.scale)
        grads = broken(network.grads) if spoilt else network.grads
        both = (network.params, grads) if flat else ({**empty, **network.params}, {**empty, **grads})
        Update(adam, scaler=scaler).step(*both)

    for seed in range(4):
        step(network, scaler, adam, seed, spoilt=seed in (1, 2))
    saved = {key: asnumpy(value) for key, value in adam.state_dict().items()}
    assert (saved["t"], saved["skipped"]) == (4, 2)
    again, resumed = half(seed=5), Adam()
    again.params.flat[...] = network.params.flat
    resumed.load_state_dict(saved)
    step(network, scaler, adam, 4)
    step(again, LossScaler(2.0**10), resumed, 4)
    np.testing.assert_array_equal(asnumpy(again.params.flat), asnumpy(network.params.flat))


@pytest.mark.gpu
@pytest.mark.parametrize("name", optimizers.NAMES)
def test_the_count_of_skipped_steps_follows_to_another_device_and_to_steps_without_a_scaler(name):
    results = []
    for places in (("cpu", "cpu"), ("cuda", "cuda"), ("cuda", "cpu"), ("cpu", "cuda")):
        params, optimizer = {"w": np.linspace(-1, 1, 9, dtype="float32")}, optimizers.by_name(name, lr=0.01)
        for place, spoilt in ((places[0], True), (places[0], False), (places[1], True), (places[1], False)):
            with backend.use(place):
                params = {"w": asarray(asnumpy(params["w"]))}
                grads = {"w": asarray(np.full(9, np.nan if spoilt else 3.0, "float32"))}
                Update(optimizer, scaler=LossScaler(2.0**4)).step(params, grads)
        with backend.use(places[1]):
            optimizer.update(params, {"w": asarray(np.full(9, 2.0, "float32"))})
        assert int(optimizer.state_dict()["skipped"]) == 2
        results.append(asnumpy(params["w"]))
    for result in results[1:]:
        if name in ("adam", "adamw"):  # corrections for the number of steps: float64 on the host, float32 on a device
            np.testing.assert_allclose(result, results[0], rtol=0, atol=0.01 * 1e-5)
        else:
            np.testing.assert_array_equal(result, results[0])


def broken(grads):
    copy = grads.copy()
    copy.flat[0] = np.inf
    return copy


def test_the_scale_grows_after_enough_good_steps(device):
    network, scaler, sgd = half(), LossScaler(2.0**4, growth_interval=3), SGD(0.01)
    scales = []
    for step in range(7):
        network.step_gradients(*batch(step), scaler.scale)
        Update(sgd, scaler=scaler).step(network.params, network.grads)
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
            Update(optimizer, scaler=scaler).step(network.params, network.grads)
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
    return Trainer(network, *loaders, Update(Adam(0.002), scaler=scaler, **options), epochs=epochs)


def test_float16_learns_what_float32_learns(device):
    results = [run(precision).train()[-1] for precision in ("fp16", "fp32")]
    assert results[0].test_accuracy > 0.85
    assert abs(results[0].test_accuracy - results[1].test_accuracy) < 0.01
    assert abs(results[0].loss - results[1].loss) < 0.01
    assert results[0].loss_scale == 2.0**16


def test_overflows_are_counted_by_epoch(device):
    """A scale of 2²⁴ overflows: the training finds a smaller one by itself."""
    trainer = run("fp16", epochs=2)
    trainer.update.scaler = LossScaler(2.0**24)
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


def test_the_smallest_scale_alone_ends_nothing(device):
    trainer = run("fp16", epochs=1, n=200)
    trainer.update.scaler = LossScaler(2.0**-24)
    (result,) = trainer.train()
    assert (result.loss_scale, result.skipped_steps) == (2.0**-24, 0)


def test_a_skipped_step_that_others_followed_ends_nothing_at_the_smallest_scale(device):
    trainer = run("fp16", epochs=2, n=200)
    trainer.update.scaler = LossScaler(2.0**-23)
    original, calls = trainer.network.step_gradients, itertools.count()

    def spoilt_once(x, t, scale):
        loss = original(x, t, scale)
        if next(calls) == 1:
            trainer.network.grads.flat[3] = np.nan
        return loss

    trainer.network.step_gradients = spoilt_once
    assert [(result.loss_scale, result.skipped_steps) for result in trainer.train()] == [(2.0**-24, 1), (2.0**-24, 0)]


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, math.nan, math.inf])
def test_a_norm_that_cannot_be_clipped_to_is_refused_and_changes_nothing(device, clip_norm):
    network, scaler, sgd = half(), LossScaler(), SGD(0.1)
    network.step_gradients(*batch(), scaler.scale)
    before = asnumpy(network.params.flat).copy(), asnumpy(scaler.control).copy()
    with pytest.raises(ValueError, match=f"clip_norm must be a finite number, above 0, got {clip_norm}"):
        Update(sgd, clip_norm=clip_norm, scaler=scaler).step(network.params, network.grads)
    for array, kept in zip((network.params.flat, scaler.control), before, strict=True):
        np.testing.assert_array_equal(asnumpy(array), kept)
    assert sgd.t == 0


@pytest.mark.parametrize("clip_norm", [None, 1e-3])
def test_an_update_that_fails_leaves_nothing_for_the_next(device, clip_norm):
    """Neither that a gradient was not finite, nor the multiplier of a clipped norm."""
    results = []
    for fails in (True, False):
        network, scaler, sgd = half(), LossScaler(2.0**10), SGD(0.1)
        network.step_gradients(*batch(), scaler.scale)
        update = Update(sgd, clip_norm=clip_norm, scaler=scaler)
        if fails:
            for grads in (broken(network.grads), network.grads):
                with pytest.raises(ValueError, match="grads lacks"):
                    update.step({**network.params, "other": xp.ones(3, "float16")}, grads)
        Update(sgd, scaler=scaler).step(network.params, network.grads)
        results.append([asnumpy(network.params.flat), asnumpy(scaler.control)])
    for found, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({}, r"needs 'control' alone, got \[\]"),
        ({"control": np.ones(4, "float32")}, r"must be float32\[5\], got float32\[4\]"),
        ({"control": np.ones(5)}, r"must be float32\[5\], got float64\[5\]"),
        ({"control": np.array([3, 1, 1, 0, 0], "float32")}, "power of two"),
        ({"control": np.array([4, 1, 1, 0, -1], "float32")}, r"counted from 0, got \[0.0, -1.0\]"),
        ({"control": np.array([4, 1, 1, np.nan, 0], "float32")}, "counted from 0"),
    ],
)
def test_a_spoilt_state_is_refused_and_nothing_loaded(device, saved, message):
    scaler = LossScaler(2.0**5)
    with pytest.raises(ValueError, match=message):
        scaler.load_state_dict(saved)
    assert asnumpy(scaler.control).tolist() == [32, 1, 1 / 32, 0, 0]


@pytest.mark.gpu
def test_a_state_goes_to_another_device_whichever_is_the_active_one():
    for of, to, active in itertools.product(("cpu", "cuda"), repeat=3):
        with backend.use(of):
            saved = LossScaler(2.0**5).state_dict()
        with backend.use(to):
            scaler = LossScaler()
            library = backend.array_module(scaler.control)
        with backend.use(active):
            scaler.load_state_dict(saved)
        assert backend.array_module(scaler.control) is library
        assert scaler.read() == (2.0**5, 0)


def test_overflows_of_a_convolutional_network_are_no_warnings_on_any_thread(device):
    """With a batch that is cut into parts for both threads."""
    convolutions = Convolution.of(1, 16, 3, pad=1), Relu(), Convolution.of(16, 16, 3, pad=1), Relu()
    network = Network(Sequential(*convolutions, Affine.of(4096, 4)), (1, 16, 16)).astype("float16")
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((128, 1, 16, 16)).astype("float16"), rng.integers(0, 4, 128)
    loaders = [Loader(x, t, 64, dtype="float16") for _ in range(2)]
    trainer = Trainer(network, *loaders, Update(SGD(0.01), scaler=LossScaler(2.0**24)), epochs=1)
    with thread_limit(2), warnings.catch_warnings():
        warnings.simplefilter("error")
        (result,) = trainer.train()
    assert result.skipped_steps > 0


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
                Update(adam, scaler=scaler).step(network.params, network.grads)
            assert network.state["running_var1"].dtype == "float32"
            assert scaler.read() == (2.0**16, 0)
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.02)
    assert losses[0][-1] < 0.8 * losses[0][0]


@pytest.mark.parametrize("scale", [0.0, 3.0, 2.0**25, 2.0**-25, math.nan, math.inf, -2.0])
def test_a_scale_that_is_no_power_of_two_is_refused(scale):
    with pytest.raises(ValueError, match=f"scale must be .*, got {scale}"):
        LossScaler(scale)


def test_an_interval_of_no_steps_is_refused():
    with pytest.raises(ValueError, match=r"growth_interval must be .*, got 0"):
        LossScaler(growth_interval=0)


def test_the_command_trains_in_float16(tmp_path):
    out = tmp_path / "run"
    done = xpnet("train", *QUICK, "--epochs", 1, "--precision", "fp16", "--out", out)
    assert (done.code, done.err) == (0, "")
    metrics = json.loads((out / "metrics.jsonl").read_text())
    assert metrics["loss_scale"] == 2.0**16
    assert metrics["val_accuracy"] > 0.85
    assert json.loads((out / "config.json").read_text())["settings"]["precision"] == "fp16"
    evaluated = json.loads(xpnet("evaluate", out, "--json").out)
    assert abs(evaluated["accuracy"] - metrics["val_accuracy"]) < 0.05  # other images


@pytest.mark.gpu
def test_the_command_lets_a_gpu_multiply_in_tf32(tmp_path, monkeypatch):
    from cupy import _core

    from training.cli import train as command

    right, seen = command.train, []

    def train(*arguments):
        seen.append(_core.get_compute_type("float32"))
        right(*arguments)

    monkeypatch.setattr(command, "train", train)
    with backend.use("cuda") as device:
        if not backend.tf32._has(device):
            pytest.skip(f"{device} has no TF32: compute capability below 8.0")
        done = [
            xpnet("train", *QUICK, "--epochs", 1, "--device", "cuda", "--precision", name, "--out", tmp_path / name)
            for name in ("tf32", "fp32")
        ]
    assert [(each.code, each.err) for each in done] == [(0, ""), (0, "")]
    names = _core._routines_linalg
    assert seen == [names.COMPUTE_TYPE_TF32, names.COMPUTE_TYPE_DEFAULT]


def test_tf32_on_a_cpu_is_refused_in_one_line(tmp_path):
    done = xpnet("train", "--precision", "tf32", "--device", "cpu", "--out", tmp_path / "run")
    assert done.code == 2
    assert "TF32 needs a CUDA GPU" in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()
