"""The ranges of a training run: run › epoch › step › phase › layer › operation, left whatever fails inside."""

import threading

import numpy as np
import pytest

from backend import profiling
from backend.recording import Recorder
from layers import Affine, Layer, Relu, Residual, Sequential
from tests.support import networks
from training.data import Loader
from training.loop.callbacks import Callback
from training.loop.trainer import Trainer
from training.models import Network
from training.optim.loss_scaling import LossScaler
from training.optim.optimizers import SGD, Adam
from training.optim.update import Update
from training.profile.meter import example_batch

PHASES = ("data", "forward", "backward", "update")


class Failing(Layer):
    """Passes its input on, and fails where it is told to, in the second step."""

    def __init__(self, where=""):
        self.where = where
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        self.fail("forward")
        return x.copy()

    def backward(self, dout):
        self.fail("backward")
        return dout.copy()

    def fail(self, where):
        if self.where == where and self.calls == 2:
            raise KeyError(where)


def trainer(where="", callbacks=(), **options):
    layers = Sequential(Affine.of(6, 5), Residual(Relu()), Failing(where), Affine.of(5, 3))
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (8, 6), "uint8"), np.arange(8) % 3
    train, test = Loader(images, labels, 4), Loader(images, labels, 8, shuffle=False)
    update = Update(**{"optimizer": SGD(0.1), **options})
    return Trainer(Network(layers, (6,)), train, test, update, epochs=1, callbacks=callbacks)


def path(event):
    return () if event is None else (*path(event.parent), event.name)


def on_main(recorder):
    return [event for event in recorder.events if event.thread == threading.current_thread().name]


def test_a_run_is_epochs_of_steps_of_phases():
    with Recorder() as recorder:
        trainer().train()
    outer = [path(event) for event in on_main(recorder) if event.kind in ("loop", "phase")]
    step = ("run", "epoch", "step")
    steps = [step, *((*step, phase) for phase in PHASES)] * 2
    assert outer == [("run",), ("run", "epoch"), *steps, ("run", "epoch", "evaluate")]
    by_name = {event.name: event.category for event in on_main(recorder) if event.kind in ("loop", "phase")}
    assert all(name == category for name, category in by_name.items())


def test_layers_and_operations_lie_in_their_phase_and_have_its_category():
    with Recorder() as recorder:
        trainer().train()
    steps = [event for event in on_main(recorder) if path(event)[:3] == ("run", "epoch", "step")]
    for event in steps:
        if event.kind in ("layer", "operation"):
            assert event.category == path(event)[3]
    layers = [path(event)[3:] for event in steps if event.kind == "layer"][: len(steps) // 2]
    names = [".".join(names) for phase, *names in layers[:12]]
    assert names == [
        *("Affine1", "Residual1", "Residual1.body", "Failing1", "Affine2", "loss"),
        *("loss", "Affine2", "Failing1", "Residual1", "Residual1.body", "Affine1"),
    ]
    assert [phase for phase, *_ in layers[:12]] == ["forward"] * 6 + ["backward"] * 6
    for event in steps:
        if event.kind == "operation":
            assert event.bytes > 0
            assert event.shapes


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_every_layer_does_its_work_in_operations(name):
    """So that a profiler sees what it is about: arrays, by shape and bytes."""
    network = networks.NETWORKS[name]()
    with Recorder() as recorder:
        network.step_gradients(*example_batch(network, 2))
    around = {event.parent for event in recorder.events}
    bare = [event for event in recorder.events if event.kind == "layer" and event not in around]
    assert all(event.name.startswith("Flatten") for event in bare)  # another view of the same memory


def test_the_loader_loads_on_its_own_thread():
    with Recorder() as recorder:
        trainer().train()
    loaded = [event for event in recorder.events if event.thread.startswith("xpnet-loader")]
    assert {path(event) for event in loaded} == {("load",), ("load", "blocks.gather"), ("load", "blocks.divide_by_255")}
    assert {event.category for event in loaded} == {"data"}


@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}, {"optimizer": Adam()}, {"scaler": LossScaler()}])
def test_the_update_is_an_operation_about_all_parameters(options):
    with Recorder() as recorder:
        trained = trainer(**options)
        trained.train()
    size = trained.network.params.flat.nbytes
    updates = [event for event in recorder.events if event.name == "update"]
    assert [event.bytes for event in updates] == [2 * size] * 2
    operations = [event for event in recorder.events if event.name == "optimizer.update_array"]
    arrays = 2 + len(trained.optimizer.slots)
    assert [event.parent for event in operations] == updates
    assert all(arrays * size <= event.bytes <= arrays * size + 20 for event in operations)  # a loss scale's control


class FailingCallback(Callback):
    def __init__(self, where):
        self.where = where

    def on_step_end(self, trainer, step):
        if self.where == "step end" and step == 2:
            raise KeyError(self.where)

    def on_epoch_end(self, trainer, result):
        if self.where == "epoch end":
            raise KeyError(self.where)


@pytest.mark.parametrize("where", ["forward", "backward", "update", "data", "loss", "step end", "epoch end"])
def test_an_exception_leaves_every_range(where, monkeypatch):
    training = trainer(where, [FailingCallback(where)])

    def fail(*arguments, **numbers):
        raise KeyError(where)

    if where == "update":
        monkeypatch.setattr(training.optimizer, "_update_array", fail)
    elif where == "loss":
        monkeypatch.setattr(training.network.last_layer, "forward", fail)
    elif where == "data":
        monkeypatch.setattr(training.train_loader._blocks, "_gather", fail)
    with Recorder() as recorder:
        with pytest.raises(KeyError, match=where):
            training.train()
        with profiling.Range("after"):
            pass
    assert path(on_main(recorder)[-1]) == ("after",)
    for event in recorder.events:
        assert event.begin <= event.end
        if event.parent is not None:
            assert event.parent.begin <= event.begin
            assert event.end <= event.parent.end
