"""Steps whose gradients are computed in parts of the batch: those of the whole batch, within rounding."""

import numpy as np
import pytest

import backend
from backend import asnumpy
from layers import SoftmaxWithLoss
from tests.training.loop.small_runs import Every, numbers, small_trainer
from training import SGD, Checkpoints, LossScaler, Trainer
from training.data.rows import Rows
from training.loop.recipe import build_trainer
from training.loop.settings import Settings
from training.loop.step import gradients_in_parts

LOSSES = {
    "plain": lambda: None,
    "weighted": lambda: SoftmaxWithLoss(class_weights=[0.1, 5.0, 1.0]),
    "ignoring": lambda: SoftmaxWithLoss(ignore_index=1),
}


def gradients(parts, **options):
    """Return the gradients of each step of a run whose parameters stay the same."""
    run = small_trainer(normalized=False, dropout=0.0, optimizer=SGD(0.0), parts=parts, **options)
    seen = []
    run.callbacks.append(Every(lambda run, step: seen.append(asnumpy(run.network.grads.flat).astype("float64"))))
    run.train()
    return np.array(seen), run


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("parts", [2, 3, 16, 99])
def test_gradients_are_those_of_the_whole_batch(device, kind, parts):
    """Also of the last batch, of two samples, and where the parts are not of one size or weight."""
    whole, run = gradients(1, loss=LOSSES[kind]())
    found, in_parts = gradients(parts, loss=LOSSES[kind]())
    np.testing.assert_allclose(found, whole, rtol=0, atol=4 * 16 * np.finfo("float32").eps)
    for result, expected in zip(in_parts.history, run.history, strict=True):
        assert result.loss == pytest.approx(expected.loss, rel=1e-5)
        assert result.accuracy == expected.accuracy
        assert result.test_loss == expected.test_loss
    assert in_parts.step == run.step


def test_dropout_draws_the_masks_of_the_whole_batch(device):
    """Also where the rows of a part begin inside a block of four random words."""
    seen, positions = [], []
    for parts in (1, 2, 3, 5):
        run = small_trainer(normalized=False, optimizer=SGD(0.0), parts=parts, batch=15)
        run.callbacks.append(Every(lambda run, step: seen.append(asnumpy(run.network.grads.flat))))
        run.train()
        positions.append(run.random.state["position"])
    assert len(set(positions)) == 1
    whole, *in_parts = np.array(seen).reshape(4, -1, seen[0].size)
    for found in in_parts:
        np.testing.assert_allclose(found, whole, rtol=0, atol=4 * 15 * np.finfo("float32").eps)


def test_float16_adds_up_in_float32(device):
    options = {"dtype": "float16", "scaler": LossScaler(1.0)}
    whole, _ = gradients(1, **options)
    found, _ = gradients(16, **{**options, "scaler": LossScaler(1.0)})
    np.testing.assert_allclose(found, whole, rtol=0, atol=16 * np.finfo("float16").eps)


def test_only_a_part_is_computed_at_a_time(monkeypatch):
    run, seen = small_trainer(parts=3), []
    original = run.network.step_gradients
    monkeypatch.setattr(run.network, "step_gradients", lambda x, *rest: (seen.append(len(x)), original(x, *rest))[1])
    run.train()
    assert seen == [5, 5, 6, 5, 5, 6, 5, 5, 6, 1, 1] * 2


def test_a_batch_without_a_sample_that_counts_changes_nothing():
    run = small_trainer(normalized=False, loss=SoftmaxWithLoss(ignore_index=1), parts=4)
    x, t = next(run.train_loader.epoch(0))
    loss, figures = gradients_in_parts(run.network, x, t * 0 + 1, 1.0, Rows(0, 16, 16).parts(2))
    assert float(loss) == 0
    assert [float(figure) for figure in figures] == [0, 0, 0]
    assert not asnumpy(run.network.grads.flat).any()


@pytest.mark.gpu
def test_graphs_give_the_bits_of_eager_steps():
    with backend.use("cuda"):
        runs = [small_trainer(parts=2, batch=8, graph=graph) for graph in (False, True)]
        for run in runs:
            run.train()
        assert runs[1]._graphs.shapes
        results = [asnumpy(run.network.params.flat).tobytes() for run in runs]
        assert results[0] == results[1]


def test_a_run_in_parts_goes_on_to_the_same_bits(tmp_path):
    undisturbed = small_trainer(parts=3)
    undisturbed.train()
    small_trainer(parts=3, callbacks=[Checkpoints(tmp_path, every=3, keep=9)]).train()
    again = small_trainer(parts=3)
    again.resume(tmp_path / "step-00000003.safetensors")
    again.train()
    assert asnumpy(again.network.params.flat).tobytes() == asnumpy(undisturbed.network.params.flat).tobytes()
    assert [numbers(result) for result in again.history] == [numbers(result) for result in undisturbed.history]


def test_the_command_makes_steps_of_several_batches():
    from training.data import load

    trainer = build_trainer(Settings(model="TwoLayerNet", batch_size=25, accumulate=4), load().as_data())
    assert (trainer.train_loader.batch_size, trainer.parts) == (100, 4)


def test_parts_are_checked():
    with pytest.raises(ValueError, match=r"parts must be a whole number .*, got 0"):
        small_trainer(parts=0)
    assert Trainer.__init__.__kwdefaults__["parts"] == 1
