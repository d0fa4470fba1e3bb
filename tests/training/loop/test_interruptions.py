"""A training that is interrupted goes on with the next batch, and never makes a step twice."""

import os
import signal
import threading

import numpy as np
import pytest

from backend import asnumpy
from tests.training.loop.small_runs import Every, numbers, small_trainer
from training import Callback
from training.loop import stopping
from training.loop.stopping import Interrupted


@pytest.fixture(autouse=True)
def _python_handles_ctrl_c():
    """A shell disables Ctrl-C for background processes."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert stopping._handlers is None
    signal.signal(signal.SIGINT, before)


class InterruptEvaluation(Callback):
    def __init__(self):
        self.left = 1

    def on_evaluation_step(self, trainer):
        if self.left:
            self.left -= 1
            raise KeyboardInterrupt


def result_of(run):
    return [numbers(result) for result in run.history], asnumpy(run.network.params.flat).tobytes(), run.random.state


@pytest.mark.parametrize("step", [1, 3, 4, 5, 8])
def test_an_interrupted_run_goes_on_to_the_same_bits(device, step):
    undisturbed = small_trainer()
    undisturbed.train()

    def interrupt(run, now):
        steps.append(now)
        if now == step:
            raise KeyboardInterrupt

    steps = []
    run = small_trainer(callbacks=[Every(interrupt)])
    with pytest.raises(KeyboardInterrupt):
        run.train()
    assert run.step == step
    run.train()
    assert steps == list(range(1, 9))
    assert result_of(run) == result_of(undisturbed)


def test_an_interrupted_evaluation_is_begun_again_without_a_step(device):
    undisturbed, run = small_trainer(), small_trainer(callbacks=[InterruptEvaluation()])
    undisturbed.train()
    with pytest.raises(KeyboardInterrupt):
        run.train()
    assert (run.step, len(run.history)) == (4, 0)
    run.train()
    assert result_of(run) == result_of(undisturbed)


def test_a_step_that_failed_is_made_again_with_the_same_random_numbers(monkeypatch):
    """Running statistics have moved by then; dropout's numbers are drawn again."""
    undisturbed, run = small_trainer(normalized=False), small_trainer(normalized=False)
    undisturbed.train()
    backward, calls = run.network.layers.backward, iter(range(100))

    def failing(*arguments, **more):
        if next(calls) == 5:
            raise MemoryError
        return backward(*arguments, **more)

    monkeypatch.setattr(run.network.layers, "backward", failing)
    with pytest.raises(MemoryError):
        run.train()
    run.train()
    assert result_of(run) == result_of(undisturbed)


def test_ctrl_c_waits_for_the_end_of_the_step_and_the_next_train_goes_on():
    undisturbed, run = small_trainer(), small_trainer()
    undisturbed.train()
    update, seen = run.update.step, []

    def interrupted(params, grads):
        if run.step == 5 and not seen:
            signal.raise_signal(signal.SIGINT)
        update(params, grads)
        seen.extend([run.step] * (run.step == 5))

    run.update.step = interrupted
    with pytest.raises(Interrupted):
        run.train()
    assert seen == [5]  # the update was not cut off
    assert run.step == 6
    run.train()
    assert result_of(run) == result_of(undisturbed)


def test_a_second_ctrl_c_is_not_held_back():
    run, seen = small_trainer(), []

    def step(params, grads):
        signal.raise_signal(signal.SIGINT)
        seen.append("held")
        signal.raise_signal(signal.SIGINT)
        seen.append("never")

    run.update.step = step
    with pytest.raises(KeyboardInterrupt):
        run.train()
    assert seen == ["held"]
    assert run.is_in_step


def test_a_handler_of_the_program_s_own_is_left_alone():
    seen = []
    signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    run = small_trainer(callbacks=[Every(lambda run, step: signal.raise_signal(signal.SIGINT))])
    run.train()
    assert seen == [signal.SIGINT] * 8
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_training_in_another_thread_takes_no_signal():
    run, seen = small_trainer(), []

    def work():
        run.train()
        seen.append(run.step)

    with stopping.signals_interrupt(), pytest.raises(Interrupted), stopping.deferred():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(timeout=60)
    assert seen == [8]


# -- the loop over epochs, and its hooks ------------------------------------------------------------------------------


class Diary(Callback):
    """Every hook that was called, in order."""

    def __init__(self):
        self.called = []

    def __getattribute__(self, name):
        if not name.startswith("on_"):
            return super().__getattribute__(name)
        return lambda trainer, *arguments: self.called.append(name.removeprefix("on_"))


STEP = ["step_begin", "gradients", "step_end"]
EVALUATION = ["evaluation_begin", "evaluation_step", "evaluation_step", "evaluation_step", "evaluation_end"]
EPOCH = ["epoch_begin", *4 * STEP, "epoch_trained", *EVALUATION, "epoch_evaluated", "epoch_end"]


def test_hooks_in_order():
    diary = Diary()
    run = small_trainer(callbacks=[diary])
    run.train()
    assert diary.called == ["run_begin", *2 * EPOCH, "run_end"]
    hooks = {name.removeprefix("on_") for name in vars(Callback) if name.startswith("on_")}
    assert hooks - set(diary.called) == {"exception"}


def test_an_exception_is_told_and_the_run_s_end_after_it():
    diary = Diary()
    run = small_trainer(callbacks=[Every(lambda run, step: 1 / 0), diary])
    with pytest.raises(ZeroDivisionError):
        run.train()
    assert diary.called == ["run_begin", "epoch_begin", *STEP[:-1], "exception", "run_end"]


def test_epochs_are_yielded_as_they_end():
    diary, undisturbed = Diary(), small_trainer()
    run = small_trainer(callbacks=[diary])
    seen = []
    for result in run.epochs():
        seen.append((result.epoch, run.step, diary.called[-1]))
        assert result is run.history[-1]
    assert seen == [(1, 4, "epoch_end"), (2, 8, "epoch_end")]
    undisturbed.train()
    assert result_of(run) == result_of(undisturbed)


def test_a_loop_that_is_left_goes_on_later():
    diary, undisturbed = Diary(), small_trainer()
    run = small_trainer(callbacks=[diary])
    for _ in run.epochs():
        break
    assert diary.called[-1] == "run_end"
    assert "exception" not in diary.called
    assert [result.epoch for result in run.epochs()] == [2]
    undisturbed.train()
    assert result_of(run) == result_of(undisturbed)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_loader_begins_with_any_batch(device, prefetch):
    run = small_trainer(prefetch=prefetch)
    loader = run.train_loader
    whole = [(asnumpy(x), asnumpy(t)) for x, t in loader.epoch(1)]
    for first in range(len(loader) + 1):
        rest = [(asnumpy(x), asnumpy(t)) for x, t in loader.epoch(1, first)]
        assert len(rest) == len(whole) - first
        for (x, t), (y, u) in zip(rest, whole[first:], strict=True):
            np.testing.assert_array_equal(x, y)
            np.testing.assert_array_equal(t, u)
    with pytest.raises(ValueError, match="first must be a whole number"):
        loader.epoch(1, len(loader) + 1)


def test_an_epoch_that_goes_on_counts_its_time_but_not_the_pause(monkeypatch):
    now = iter(np.arange(0.0, 1000.0, 1.0))
    monkeypatch.setattr("training.loop.epoch_so_far.time.perf_counter", lambda: next(now))
    run = small_trainer(callbacks=[Every(lambda run, step: run.stop() if step < 9 else None)])
    first = run.train()[0]
    for _ in range(500):
        next(now)  # the pause
    second = run.train()[1]
    assert first.seconds == second.seconds < 10
