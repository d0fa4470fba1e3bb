"""The moving average of the weights: its formula in float64, what is evaluated with it, and what it leaves alone."""

import numpy as np
import pytest

from backend import asnumpy
from tests.training.loop.small_runs import Every, numbers, small_trainer
from training import BestModel, Checkpoints, LossScaler, WeightAverage
from training.loop import checkpoint


def arrays_of(run):
    return {
        "params": asnumpy(run.network.params.flat).copy(),
        **{n: asnumpy(a).copy() for n, a in run.network.state.items()},
    }


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_the_formula(device, decay):
    seen = []
    average = WeightAverage(decay)
    run = small_trainer(callbacks=[average, Every(lambda run, step: seen.append(arrays_of(run)))])
    run.train()
    average.apply(run.network)
    for name, found in arrays_of(run).items():
        expected = seen[0][name].astype("float64")
        for step, arrays in enumerate(seen, 1):
            d = min(decay, (1 + step) / (10 + step))
            expected = d * expected + (1 - d) * arrays[name]
        largest = max(abs(arrays[name]).max() for arrays in seen)
        np.testing.assert_allclose(found, expected, rtol=0, atol=3 * len(seen) * np.finfo("float32").eps * largest)


def test_the_training_is_as_without_it_and_the_evaluation_is_of_the_average(device):
    plain, average, best = small_trainer(), WeightAverage(0.9), BestModel()
    plain.train()
    run = small_trainer(callbacks=[average, best])
    run.train()
    assert arrays_of(run)["params"].tobytes() == arrays_of(plain)["params"].tobytes()
    assert [result.loss for result in run.history] == [result.loss for result in plain.history]
    assert run.history[-1].test_loss != plain.history[-1].test_loss
    average.apply(run.network)
    assert run.evaluate(run.test_loader).loss == run.history[-1].test_loss
    run.history[-1] = run.history[0]
    best.restore(run.network)
    assert run.evaluate(run.test_loader).loss == best.result.test_loss


@pytest.mark.parametrize("options", [{}, {"dtype": "float16", "scaler": LossScaler(2.0**10)}], ids=["single", "half"])
def test_a_run_goes_on_to_the_same_bits(tmp_path, options):
    """From the end of an epoch, too, where the average is in the network's place."""

    def made(*callbacks):
        scaler = {"scaler": LossScaler(2.0**10)} if options else {}
        return small_trainer(callbacks=[WeightAverage(0.9), *callbacks], **{**options, **scaler})

    def result_of(run):
        run.callbacks[1].apply(run.network)
        return [numbers(result) for result in run.history], {n: a.tobytes() for n, a in arrays_of(run).items()}

    undisturbed = made()
    undisturbed.train()
    made(Checkpoints(tmp_path, every=1, keep=99), Checkpoints(tmp_path / "epochs", every="1e")).train()
    expected = result_of(undisturbed)
    for file in (*checkpoint.list_files(tmp_path), *checkpoint.list_files(tmp_path / "epochs")):
        again = made()
        again.resume(file)
        again.train()
        assert result_of(again) == expected, file


def test_an_interrupted_evaluation_leaves_the_weights(device):
    plain = small_trainer()
    plain.train()
    run = small_trainer(callbacks=[WeightAverage(0.9)])
    original = run.network.predict
    calls = iter(range(99))

    def interrupted(x, *rest):
        if next(calls) == 5:
            raise KeyboardInterrupt
        return original(x, *rest)

    run.network.predict = interrupted
    with pytest.raises(KeyboardInterrupt):
        run.train()
    run.train()
    assert arrays_of(run)["params"].tobytes() == arrays_of(plain)["params"].tobytes()


def test_mistakes():
    with pytest.raises(RuntimeError, match="no step was made yet"):
        WeightAverage().apply(small_trainer().network)
    for decay in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="decay must be"):
            WeightAverage(decay)
