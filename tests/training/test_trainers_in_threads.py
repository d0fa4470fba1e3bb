"""Runs in several threads of a process come to what they come to one after the other."""

import threading

import numpy as np
import pytest

import backend
from backend import asnumpy, random
from training.data import Loader
from training.loop.trainer import Trainer
from training.models import ConvNet, DeepConvNet
from training.optim.optimizers import Adam

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (24, 1, 14, 14), dtype="uint8")
LABELS = RNG.integers(0, 10, 24).astype("int32")

MODELS = {
    "ConvNet": lambda: ConvNet(input_dim=(1, 14, 14), filters=(3, 4, 5)),
    "DeepConvNet": lambda: DeepConvNet(input_dim=(1, 14, 14), hidden_size=12),
}


def trainer(model, seed):
    random.seed(seed)
    network = MODELS[model]()
    loaders = Loader(IMAGES, LABELS, 8, seed=seed), Loader(IMAGES, LABELS, 24, shuffle=False)
    return Trainer(network, *loaders, Adam(), epochs=2)


def parameters(trainer):
    return asnumpy(trainer.network.params.flat).copy()


def in_threads(*functions):
    """Calls each function in a thread of its own, all at once; returns what they returned."""
    results, barrier = [None] * len(functions), threading.Barrier(len(functions))

    def call(index):
        with backend.use(device):
            barrier.wait(timeout=60)
            results[index] = functions[index]()

    device = backend.current_device()
    running = [threading.Thread(target=call, args=(index,)) for index in range(len(functions))]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(timeout=120)
        assert not thread.is_alive()
    return results


@pytest.mark.parametrize("model", MODELS)
def test_runs_made_before_train_in_threads_as_one_after_the_other(model):
    expected = []
    for run in (trainer(model, 1), trainer(model, 2)):
        run.train()
        expected.append(parameters(run))
    assert not np.array_equal(*expected)
    runs = [trainer(model, 1), trainer(model, 2)]
    in_threads(*(run.train for run in runs))
    for run, bits in zip(runs, expected, strict=True):
        np.testing.assert_array_equal(parameters(run), bits)


def test_runs_seeded_and_made_in_their_threads_are_those_of_the_main_thread():
    def whole_run(seed):
        run = trainer("DeepConvNet", seed)
        run.train()
        return parameters(run)

    expected = [whole_run(seed) for seed in (1, 2)]
    before = random.current().state
    for _ in range(3):
        results = in_threads(lambda: whole_run(1), lambda: whole_run(2))
        for bits, right in zip(results, expected, strict=True):
            np.testing.assert_array_equal(bits, right)
    assert random.current().state == before, "a thread that seeds leaves the process's generator alone"


def test_a_run_does_not_depend_on_what_else_is_drawn(device):
    run = trainer("DeepConvNet", 3)
    run.train()
    other = trainer("DeepConvNet", 3)
    for callback in (lambda: random.uniform(5), lambda: random.seed(9)):
        callback()
    other.train()
    np.testing.assert_array_equal(parameters(other), parameters(run))
    assert other.random.state == run.random.state
