"""The loop: what it visits, what it reports, what it keeps, and how it stops."""

import itertools
import math
import threading

import numpy as np
import pytest

import backend
from backend import asnumpy
from layers import Affine, BatchNormalization, Dropout, Relu, Sequential
from tests.support import oracles
from training.data import Loader
from training.loop.best_model import BestModel
from training.loop.callbacks import Callback, EpochResult
from training.loop.early_stopping import EarlyStopping
from training.loop.evaluation import Evaluation
from training.loop.non_finite import NonFiniteError
from training.loop.trainer import Trainer
from training.models import ConvNet, Network, TwoLayerNet
from training.optim.optimizers import SGD, Adam, Momentum
from training.optim.update import Update

N, FEATURES, CLASSES = 50, 6, 3


def data(n=N, seed=0):
    """Samples whose class is the largest of their first three numbers."""
    x = np.random.default_rng(seed).standard_normal((n, FEATURES)).astype("float32")
    return x, x[:, :CLASSES].argmax(axis=1)


def normalised():
    return Network(
        Sequential(Affine.of(FEATURES, 8), BatchNormalization.of(8), Relu(), Dropout(0.2), Affine.of(8, CLASSES)),
        (FEATURES,),
    )


def plain():
    return TwoLayerNet(FEATURES, 8, CLASSES, weight_init_std="he")


def trainer(network=None, optimizer=None, *, batch_size=16, n=N, x=None, seed=0, epochs=2, callbacks=(), **options):
    """Batches of 16, 16, 16 and 2, unless told otherwise."""
    train, (test_x, test_t) = data(n), data(20, seed=1)
    return Trainer(
        plain() if network is None else network,
        Loader(train[0] if x is None else x, train[1], batch_size, seed=seed),
        Loader(test_x, test_t, 8, shuffle=False),
        Update(SGD(0.1) if optimizer is None else optimizer, **options),
        epochs=epochs,
        callbacks=callbacks,
    )


def snapshot(network):
    arrays = {"params": network.params.flat, **network.state}
    return {name: asnumpy(array).copy() for name, array in arrays.items()}


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], name)


def numbers(result):
    """All of a result but its times."""
    timed = ("seconds", "images_per_second")
    return {name: value for name, value in result.as_dict().items() if name not in timed}


def watch(network):
    """Collects the samples and labels of every step."""
    seen, original = [], network.step_gradients

    def step_gradients(x, t, scale):
        seen.append((asnumpy(x).copy(), asnumpy(t).copy()))
        return original(x, t, scale)

    network.step_gradients = step_gradients
    return seen


class Every(Callback):
    """Calls a function after each step."""

    def __init__(self, function):
        self.function = function

    def on_step_end(self, trainer, step):
        self.function(trainer, step)


# -- epochs ------------------------------------------------------------------------------------------------------


def test_every_epoch_visits_every_sample_once_in_another_order(device):
    run = trainer(epochs=3)
    seen = watch(run.network)
    run.train()
    x, t = data()
    assert [len(labels) for _, labels in seen] == [16, 16, 16, 2] * 3
    assert run.step == 12
    assert run.samples == 3 * N
    orders = []
    for epoch in range(3):
        samples = np.concatenate([s for s, _ in seen[4 * epoch : 4 * epoch + 4]])
        labels = np.concatenate([s for _, s in seen[4 * epoch : 4 * epoch + 4]])
        order = [int(np.flatnonzero((x == sample).all(axis=1))[0]) for sample in samples]
        assert sorted(order) == list(range(N))
        np.testing.assert_array_equal(labels, t[order])
        orders.append(order)
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_a_small_problem_is_learned():
    run = trainer(optimizer=Momentum(0.1), epochs=40, n=200)
    history = run.train()
    assert [result.epoch for result in history] == list(range(1, 41))
    assert history[0].accuracy < 0.8
    assert history[-1].accuracy > 0.95
    assert history[-1].test_accuracy >= 0.9
    assert history[-1].loss < history[0].loss / 4


def test_images_through_convolutions():
    rng = np.random.default_rng(0)
    t = rng.integers(0, 2, 40)
    x = rng.integers(0, 80, (40, 1, 12, 12)).astype("uint8")
    x[t == 1, :, 3:8, 4:9] += 150
    network = ConvNet((1, 12, 12), (4, 4, 4), output_size=2)
    run = Trainer(network, Loader(x, t, 8), Loader(x, t, 16, shuffle=False), Adam(0.01), epochs=6)
    assert run.train()[-1].test_accuracy == 1


@pytest.mark.parametrize("make", [plain, normalised])
def test_same_seed_same_bits(device, make):
    results = []
    for seed in (5, 5, 6):
        backend.random.seed(seed)
        run = trainer(make(), Adam(0.01), seed=seed, clip_norm=1.0)
        results.append(([numbers(result) for result in run.train()], snapshot(run.network)))
    assert results[0][0] == results[1][0]
    assert_equal(results[0][1], results[1][1])
    assert results[0][0] != results[2][0]


def test_a_network_may_read_its_epochs_in_two_runs():
    run = trainer(epochs=1)
    seen = watch(run.network)
    run.train()
    run.total_epochs = 3
    assert [result.epoch for result in run.train()] == [1, 2, 3]
    straight = trainer(epochs=3)
    other = watch(straight.network)
    straight.train()
    for (x, t), (y, u) in zip(seen, other, strict=True):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(t, u)


# -- what a step does --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip_norm", [None, 0.95])
def test_history_and_parameters_against_a_plain_loop(device, clip_norm):
    """Each step's rate is its own: a rate one step off would show in the parameters."""
    rates = [0.5, 0.1, 0.3, 0.05, 0.2, 0.4, 0.01, 0.25]
    backend.random.seed(4)
    run = trainer(schedule=lambda step: rates[step], clip_norm=clip_norm)
    backend.random.seed(4)
    network = plain()
    history = run.train()
    norms = []
    for epoch in range(2):
        losses, right = [], 0
        for index in range(4):
            x, t = run.train_loader.batch(epoch, index)
            scores = asnumpy(network.predict(x)).astype("float64")
            losses += [oracles.softmax_cross_entropy(s[None], [k]) for s, k in zip(scores, asnumpy(t), strict=True)]
            right += int((scores.argmax(axis=1) == asnumpy(t)).sum())
            g = network.gradient(x, t).flat
            norms.append(math.sqrt(math.fsum(float(v) ** 2 for v in asnumpy(g))))
            scale = 1.0 if clip_norm is None else min(1.0, clip_norm / norms[-1])
            network.params.flat -= (g * scale).astype("float32") * rates[4 * epoch + index]
        scores = asnumpy(network.predict(backend.asarray(data(20, seed=1)[0]))).astype("float64")
        result = history[epoch]
        assert result.loss == pytest.approx(math.fsum(losses) / N, rel=1e-5)
        assert result.accuracy == right / N
        assert result.test_loss == pytest.approx(oracles.softmax_cross_entropy(scores, data(20, seed=1)[1]), rel=1e-5)
        assert result.test_accuracy == (scores.argmax(axis=1) == data(20, seed=1)[1]).mean()
        assert result.lr == rates[4 * epoch + 3]
        assert result.seconds > 0
        assert result.images_per_second >= N / result.seconds
    np.testing.assert_allclose(asnumpy(run.network.params.flat), asnumpy(network.params.flat), rtol=1e-5, atol=1e-6)
    if clip_norm is not None:
        assert min(norms) < clip_norm < max(norms)  # some are clipped, some are not


def test_without_a_schedule_the_rate_is_the_optimizer_s():
    run = trainer(optimizer=SGD(0.125), epochs=1)
    assert run.train()[0].lr == 0.125


def test_evaluation_changes_nothing(device):
    network = normalised()
    run = trainer(network)
    before, start = snapshot(network), backend.random.default.state
    result = run.evaluate(run.test_loader)
    loss, accuracy = result.loss, result.accuracy
    assert_equal(snapshot(network), before)
    assert backend.random.default.state == start
    x, t = data(20, seed=1)
    scores = asnumpy(network.predict(backend.asarray(x))).astype("float64")
    assert type(loss) is type(accuracy) is float
    assert loss == pytest.approx(oracles.softmax_cross_entropy(scores, t), rel=1e-5)
    assert accuracy == (scores.argmax(axis=1) == t).mean()
    shuffled = Loader(x, t, 7, seed=3)
    again = run.evaluate(shuffled)
    assert (again.loss, again.accuracy) == pytest.approx((loss, accuracy), rel=1e-5)


def test_training_moves_running_statistics_and_drops(device):
    network = normalised()
    before, start = snapshot(network), backend.random.default.state
    trainer(network, epochs=1).train()
    after = snapshot(network)
    assert all((after[name] != before[name]).any() for name in before)
    assert backend.random.default.state != start


def test_running_totals_of_the_epoch_so_far(device):
    totals = []
    run = trainer(epochs=2, callbacks=[Every(lambda run, step: totals.append(run.running_totals().get().tolist()))])
    history = run.train()
    assert [samples for _, _, samples in totals] == [16, 32, 48, 50] * 2
    for result, (loss, correct, samples) in zip(history, totals[3::4], strict=True):
        assert (result.loss, result.accuracy) == (loss / samples, correct / samples)


# -- callbacks -----------------------------------------------------------------------------------------------------


class Diary(Callback):
    def __init__(self, events, name=""):
        self.events, self.name = events, name

    def on_epoch_begin(self, trainer, epoch):
        self.events.append((f"{self.name}begin", epoch, trainer.step, len(trainer.history)))

    def on_step_end(self, trainer, step):
        self.events.append((f"{self.name}step", step, trainer.step, len(trainer.history)))

    def on_epoch_end(self, trainer, result):
        assert trainer.history[-1] is result
        assert trainer.best in trainer.history
        self.events.append((f"{self.name}end", result.epoch, trainer.step, len(trainer.history)))


def test_callbacks_are_called_in_order():
    events = []
    trainer(n=20, callbacks=[Diary(events, "a "), Diary(events, "b "), Callback()]).train()
    expected = [
        ("begin", 1, 0, 0),
        ("step", 1, 1, 0),
        ("step", 2, 2, 0),
        ("end", 1, 2, 1),
        ("begin", 2, 2, 1),
        ("step", 3, 3, 1),
        ("step", 4, 4, 1),
        ("end", 2, 4, 2),
    ]
    assert events == [(f"{who}{kind}", *rest) for kind, *rest in expected for who in ("a ", "b ")]


def test_stop_from_a_callback_ends_after_the_epoch():
    run = trainer(epochs=5, callbacks=[Every(lambda run, step: run.stop() if step == 6 else None)])
    assert [result.epoch for result in run.train()] == [1, 2]
    assert run.step == 8


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("xpnet-loader")]


def test_an_exception_in_a_callback_passes_and_leaves_no_thread():
    seen = []

    def fail(run, step):
        seen.append(len(loader_threads()))
        if step == 2:
            raise KeyboardInterrupt

    before = len(loader_threads())
    run = trainer(callbacks=[Every(fail)])
    with pytest.raises(KeyboardInterrupt) as caught:  # holds the frames of the loop, and so its generator
        run.train()
    assert caught.value is not None
    assert len(loader_threads()) == before
    assert seen == [before + 1] * 2
    assert run.history == []
    assert run.best is None


def test_an_exception_in_the_evaluation_leaves_no_thread(monkeypatch):
    run, before = trainer(), len(loader_threads())
    monkeypatch.setattr(run.network, "predict", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        run.evaluate(run.test_loader)
    assert caught.value is not None
    assert len(loader_threads()) == before


# -- the best model, and when to stop --------------------------------------------------------------------------


def scripted(run, accuracies):
    """Lets evaluations find these accuracies, whatever the network."""
    script = iter(accuracies)
    run.evaluate = lambda loader: Evaluation(1.0, next(script))
    return run


def test_patience_counts_epochs_without_a_better_accuracy():
    run = scripted(trainer(n=4, epochs=9, callbacks=[EarlyStopping(2)]), [0.5, 0.75, 0.5, 0.75, 1.0])
    assert [result.test_accuracy for result in run.train()] == [0.5, 0.75, 0.5, 0.75]
    assert run.best is run.history[1]
    run = scripted(trainer(n=4, epochs=4, callbacks=[EarlyStopping(2)]), [0.5, 0.25, 0.75, 0.5])
    assert len(run.train()) == 4
    assert run.best is run.history[2]
    run = scripted(trainer(n=4, epochs=5), [0.5, 0.4, 0.3, 0.2, 0.1])
    assert len(run.train()) == 5
    assert run.best is run.history[0]


@pytest.mark.parametrize("accuracies", [[0.2, 0.6, 0.6, 0.4], [0.9, 0.6, 0.7, 0.4], [0.1, 0.2, 0.3, 0.4]])
def test_restore_best_is_exact(device, accuracies):
    kept = []

    class Keep(Callback):
        def on_epoch_end(self, trainer, result):
            kept.append(snapshot(trainer.network))

    network = normalised()
    places = {**network.params, **network.state}
    kept_best = BestModel()
    run = scripted(trainer(network, epochs=4, callbacks=[Keep(), kept_best]), accuracies)
    run.train()
    best = accuracies.index(max(accuracies))
    assert run.best is kept_best.result is run.history[best]
    assert_equal(snapshot(network), kept[-1])
    kept_best.restore(network)
    assert_equal(snapshot(network), kept[best])
    assert all({**network.params, **network.state}[name] is array for name, array in places.items())
    network.params.flat[...] = 0
    kept_best.restore(network)
    assert_equal(snapshot(network), kept[best])


def test_best_needs_an_epoch():
    assert trainer().best is None
    with pytest.raises(RuntimeError, match="no epoch has ended"):
        BestModel().restore(plain())


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"epochs": 0}, "epochs must be .*, got 0"),
        ({"clip_norm": 0.0}, "clip_norm must be a finite number, above 0, got 0.0"),
        ({"clip_norm": -1.0}, "clip_norm must be a finite number, above 0, got -1.0"),
        ({"clip_norm": math.nan}, "clip_norm must be a finite number, above 0, got nan"),
        ({"clip_norm": math.inf}, "clip_norm .*inf"),
    ],
)
def test_numbers_out_of_range_are_refused(option, words):
    with pytest.raises(ValueError, match=words):
        trainer(**option)


def test_patience_is_checked():
    with pytest.raises(ValueError, match=r"patience must be a whole number .*, got 0"):
        EarlyStopping(0)


def test_results_as_a_dict():
    result = EpochResult(1, 0.5, 0.25, 0.75, 0.125, 0.1, 2.0, 25.0)
    assert result.as_dict() == {
        "epoch": 1,
        "loss": 0.5,
        "accuracy": 0.25,
        "test_loss": 0.75,
        "test_accuracy": 0.125,
        "lr": 0.1,
        "seconds": 2.0,
        "images_per_second": 25.0,
        "loss_scale": 1.0,
        "skipped_steps": 0,
        "metrics": {},
    }


# -- numbers that are not finite -----------------------------------------------------------------------------------


class Keeper(Callback):
    """The network as it was after every step, and before the first."""

    def __init__(self, network):
        self.after = {0: snapshot(network)}

    def on_step_end(self, trainer, step):
        self.after[step] = snapshot(trainer.network)


def stopped(run):
    """The message of the NonFiniteError that ends the run; no thread is left."""
    before = len(loader_threads())
    with pytest.raises(NonFiniteError) as caught:
        run.train()
    assert len(loader_threads()) == before
    return str(caught.value)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_nan_in_the_data_is_found(device):
    x = data()[0].copy()
    x[17, 2] = np.nan
    network = plain()
    keeper = Keeper(network)
    run = trainer(network, x=x, callbacks=[keeper])
    place = int(np.flatnonzero(run.train_loader.order(0) == 17)[0])
    step = place // 16 + 1
    message = stopped(run)
    assert "the loss is nan" in message
    assert f"at step {step} (epoch 1, batch {step} of 4)" in message
    assert "is in the input" in message
    if device.kind == "cpu":
        np.testing.assert_array_equal(network.params.flat, keeper.after[step - 1]["params"])
        assert run.step == step - 1


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("bad", [2, 4, 6, 7])
def test_an_exploding_rate_stops_at_the_next_step(bad):
    """A rate of 1e30 at one step makes scores overflow in the next, also across the end of an epoch."""
    network = plain()
    keeper = Keeper(network)
    run = trainer(network, schedule=lambda step: 1e30 if step == bad - 1 else 0.1, epochs=3, callbacks=[keeper])
    run.evaluate = lambda loader: Evaluation(1.0, 0.5)
    message = stopped(run)
    epoch, batch = divmod(bad, 4)
    assert f"at step {bad + 1} (epoch {epoch + 1}, batch {batch + 1} of 4)" in message
    assert "layer Affine" in message
    np.testing.assert_array_equal(network.params.flat, keeper.after[bad]["params"])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_weight_that_is_nan_is_named(device):
    def spoil(run, step):
        if step == 5:
            run.network.params["W2"][0, 1] = np.nan

    message = stopped(trainer(epochs=3, callbacks=[Every(spoil)]))
    assert "at step 6 (epoch 2, batch 2 of 4)" in message
    # By the time that a GPU's loss is read, the NaN may have reached the parameters before it.
    assert f"is in parameter {'W2 of layer Affine2' if device.kind == 'cpu' else ''}" in message


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_epoch_that_was_interrupted_and_begun_again_names_the_right_batch():
    x = data()[0].copy()
    run = trainer(x=x)
    last = run.train_loader.order(0)[-1]

    def interrupt(run, step):
        if step == 2:
            raise KeyboardInterrupt

    run.callbacks.append(Every(interrupt))
    with pytest.raises(KeyboardInterrupt):
        run.train()
    run.callbacks.pop()
    x[last] = np.nan
    run.train_loader = Loader(x, data()[1], 16)
    message = stopped(run)
    assert "(epoch 1, batch 4 of 4)" in message
    assert "is in the input" in message


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_last_step_that_explodes_is_no_result():
    """No step follows that could see it; the evaluation does."""
    best = BestModel()
    run = trainer(schedule=lambda step: 1e38 if step == 7 else 0.1, epochs=2, callbacks=[best])
    message = stopped(run)
    assert "step 8" in message
    assert "layer Affine" in message
    assert run.best is best.result is run.history[0]
    best.restore(run.network)
    assert np.isfinite(run.network.params.flat).all()


# -- what a GPU must not wait for ----------------------------------------------------------------------------------


def small_conv_net():
    return ConvNet((1, 12, 12), (2, 3, 2), output_size=CLASSES)


@pytest.mark.gpu
@pytest.mark.parametrize("make", [plain, normalised, small_conv_net])
def test_a_step_waits_for_nothing(make):
    """Between two steps of an epoch nothing comes from the device but the loss, as an asynchronous copy."""
    cuda_on_cpu = pytest.importorskip("cuda_on_cpu", reason="counts on the emulated device only")
    counts = []
    count = Every(lambda run, step: counts.append(cuda_on_cpu.counters()))
    with backend.use("cuda"):
        network = make()
        x = np.random.default_rng(0).standard_normal((N, *network.input_dim)).astype("float32")
        train, test = Loader(x, data()[1], 16), Loader(x[:4], data()[1][:4], 4)
        schedule = [0.01, 0.02, 0.03, 0.04].__getitem__
        update = Update(Adam(), schedule, clip_norm=1.0)
        Trainer(network, train, test, update, epochs=1, callbacks=[count], graph=False).train()
    assert len(counts) == 4
    for before, after in itertools.pairwise(counts):
        assert after["kernel_launches"] > before["kernel_launches"]
        assert after["d2h_calls"] == before["d2h_calls"] + 1
        assert after["d2h_bytes"] == before["d2h_bytes"] + 4
        assert after["synchronizations"] == before["synchronizations"]
