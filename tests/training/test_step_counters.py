"""Requests of a training step to the device: no wait, no copies except its batch and one loss, a recorded number of
launches.

Counted on the emulated CUDA device; a real one does not count. The figures in ``launches_per_step.json`` are held
exactly: a launch more is a change to be looked at. To write them anew, run this file as a program on that device.
"""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

import backend
from backend import asarray, random
from training.data import Loader, blocks
from training.loop.callbacks import Callback
from training.loop.trainer import Trainer
from training.models import ConvNet, DeepConvNet, SimpleConvNet, TwoLayerNet
from training.optim.loss_scaling import LossScaler
from training.optim.optimizers import SGD, Adam
from training.optim.update import Update

FIGURES = Path(__file__).with_name("launches_per_step.json")
MODELS = {
    "TwoLayerNet": lambda: (TwoLayerNet(784, 50, 10), SGD(0.1)),
    "SimpleConvNet": lambda: (SimpleConvNet(), Adam()),
    "DeepConvNet": lambda: (DeepConvNet(), Adam()),
    "ConvNet": lambda: (ConvNet(), Adam()),
    "ConvNet in float16": lambda: (ConvNet().astype("float16"), Adam()),
}


def counted(name):
    """The counters of the third step: by then everything is compiled and cached."""
    import cuda_on_cpu

    with backend.use("cuda"):
        network, optimizer = MODELS[name]()
        x = random.uniform((8, *network.input_dim))
        t = asarray(np.arange(8, dtype="int32"))
        half = network.params.flat.dtype == "float16"
        update = Update(optimizer, **({"scaler": LossScaler(), "clip_norm": 1.0} if half else {}))

        def step():
            network.step_gradients(x, t, update.loss_scale)
            update.step(network.params, network.grads)

        for _ in range(2):
            step()
        cuda_on_cpu.reset()
        step()
        return cuda_on_cpu.counters()


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
def test_a_step_waits_for_nothing_and_launches_what_is_written_down(name):
    pytest.importorskip("cuda_on_cpu", reason="launches are counted on the emulated device only")
    counters = counted(name)
    assert counters["synchronizations"] == 0
    assert counters["d2h_calls"] == 0
    assert counters["h2d_calls"] == 0
    assert counters["kernel_launches"] == json.loads(FIGURES.read_text())[name]


class CountSteps(Callback):
    """The counters between the ends of two steps of the last epoch: what one step and its batch asked for."""

    def __init__(self):
        self.steps = []

    def on_epoch_begin(self, trainer, epoch):
        self.steps.clear()

    def on_step_end(self, trainer, step):
        import cuda_on_cpu

        self.steps.append(cuda_on_cpu.counters())

    def counted(self, name):
        values = [counters[name] for counters in self.steps]
        return [after - before for before, after in itertools.pairwise(values)]


@pytest.mark.gpu
@pytest.mark.parametrize("prefetch", [0, 2])
def test_steps_with_a_loader_copy_nothing_but_its_blocks_and_one_loss(monkeypatch, prefetch):
    pytest.importorskip("cuda_on_cpu", reason="copies are counted on the emulated device only")
    images = np.random.default_rng(0).integers(0, 256, (96, 1, 28, 28), dtype=np.uint8)
    labels = np.arange(96) % 10
    batch_bytes = 8 * 784 * 4
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 3 * batch_bytes)  # 12 batches in 4 blocks
    steps = CountSteps()
    asynchronous = []
    with backend.use("cuda") as device:
        runtime = backend.xp.cuda.runtime
        copy = runtime.memcpyAsync
        monkeypatch.setattr(runtime, "memcpyAsync", lambda *call: asynchronous.append(call) or copy(*call))
        load = Loader(images, labels, 8, prefetch=prefetch)
        test = Loader(images, labels, 96)
        Trainer(SimpleConvNet(), load, test, Adam(), epochs=2, callbacks=[steps], graph=False).train()
    assert sum(steps.counted("synchronizations")) == 0
    assert steps.counted("d2h_calls") == [1] * 11  # the loss
    assert steps.counted("d2h_bytes") == [4] * 11
    # The first block was copied before the first step ended; with prefetch, so may the two after it have been.
    copied = sum(steps.counted("h2d_calls"))
    assert copied == 6 if prefetch == 0 else copied in (2, 4, 6)
    assert sum(steps.counted("h2d_bytes")) == copied // 2 * 24 * (784 + 4)
    # Of both epochs, training and test: each of these copies ran on a stream of its own.
    assert len(asynchronous) == 2 * (4 + 1) * 2
    assert {call[-1] for call in asynchronous} == {backend.transfer._streams[device.index].ptr}


@pytest.mark.gpu
def test_steps_under_a_loss_scale_copy_no_more(monkeypatch):
    """The scale, and how many steps were skipped, are read at the end of an epoch alone."""
    pytest.importorskip("cuda_on_cpu", reason="copies are counted on the emulated device only")
    images = np.random.default_rng(0).integers(0, 256, (96, 1, 28, 28), dtype=np.uint8)
    steps = CountSteps()
    with backend.use("cuda"):
        load, test = (Loader(images, np.arange(96) % 10, size, dtype="float16", prefetch=0) for size in (8, 96))
        network = SimpleConvNet().astype("float16")
        update = Update(Adam(), clip_norm=1.0, scaler=LossScaler(2.0**24))
        first, _ = Trainer(network, load, test, update, epochs=2, callbacks=[steps]).train()
    assert first.skipped_steps > 0
    assert sum(steps.counted("synchronizations")) == 0
    assert steps.counted("d2h_calls") == [1] * 11  # the loss


if __name__ == "__main__":
    FIGURES.write_text(json.dumps({name: counted(name)["kernel_launches"] for name in MODELS}, indent=2) + "\n")
