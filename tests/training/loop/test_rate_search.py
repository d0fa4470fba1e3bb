"""The search for a learning rate: its rates, its losses, its suggestion, and that it leaves everything as it is."""

import json
import math
import re

import numpy as np
import pytest
from PIL import Image

import backend
from backend import asnumpy, random
from layers import Affine, Sequential
from tests.support.command_line import QUICK, xpnet
from tests.training.loop.small_runs import numbers, small_trainer
from training import SGD, Loader, LossScaler, Network, NonFiniteError, Trainer, TwoLayerNet, find_learning_rate
from training.loop.rate_search import RateSearch, _smoothed, _steepest


def everything(trainer):
    arrays = {**trainer.network.params, **trainer.network.state, **trainer.optimizer.state_dict()}
    if trainer.update.scaler is not None:
        arrays["control"] = trainer.update.scaler.control
    drawn = np.random.get_state()
    return (
        {name: asnumpy(array).tobytes() for name, array in arrays.items()},
        trainer.random.state,
        random.current().state,
        (drawn[1].tobytes(), *drawn[2:]),
        (trainer.step, trainer.samples, trainer.update.t, trainer.position),
    )


@pytest.mark.parametrize("kind", ["single", "half"])
def test_the_trainer_goes_on_as_if_there_had_been_no_search(device, kind):
    half = {"dtype": "float16", "clip_norm": 1.0} if kind == "half" else {}

    def trainer():
        return small_trainer(**half, **({"scaler": LossScaler(2.0**24, growth_interval=2)} if half else {}))

    undisturbed, searched = trainer(), trainer()
    undisturbed.train()
    before = everything(searched)
    found = find_learning_rate(searched, steps=12)
    assert everything(searched) == before
    assert len(found.losses) == len(found.rates) == len(found.smoothed)
    with_search = searched.epochs()
    next(with_search)
    with_search.close()
    before = everything(searched)
    find_learning_rate(searched, steps=10)  # between two epochs, the optimizer has a state
    assert everything(searched) == before
    searched.train()
    assert [numbers(result) for result in searched.history] == [numbers(result) for result in undisturbed.history]
    assert everything(searched)[0] == everything(undisturbed)[0]


def line(n=64):
    """A line through 0 to fit, one number from one: SGD on its mean squared error diverges above a known rate."""
    x = np.random.default_rng(0).choice([-2.0, 2.0], (n, 1)).astype("float32")
    network = Network(
        Sequential(Affine(np.zeros((1, 1), "float32"), np.zeros(1, "float32"))), (1,), loss="mean-squared"
    )
    loader = Loader(x, 3 * x[:, 0], 8)
    return Trainer(network, loader, loader, SGD())


def test_losses_are_those_of_descent_by_hand():
    trainer = line()
    found = find_learning_rate(trainer, 1e-3, 1e-1, steps=20)
    w = b = 0.0
    batches = [batch for epoch in range(3) for batch in trainer.train_loader.epoch(epoch)]
    for step, (x, t) in enumerate(batches[:20]):
        rate = 1e-3 * 100 ** (step / 19)
        error = w * x.astype("float64").ravel() + b - t.ravel()
        loss = (error**2).mean()
        assert found.rates[step] == pytest.approx(rate)
        assert found.losses[step] == pytest.approx(loss, rel=1e-4)
        w -= rate * 2 * (error * x.ravel()).mean()
        b -= rate * 2 * error.mean()


def test_the_suggestion_is_below_the_rate_where_descent_diverges():
    found = find_learning_rate(line())
    limit = 2 / (2 * 4)  # 2 over the curvature of (w x - t)², where x² is 4
    assert found.diverged
    assert limit / 1000 < found.suggestion < limit
    assert found.rates[-1] > limit


def test_no_rate_is_suggested_where_the_loss_does_not_fall():
    trainer = line()
    trainer.network.params["W1"][...] = 3  # it is perfect
    found = find_learning_rate(trainer, 1e-3, 1e-2)
    assert found.suggestion is None
    assert not found.diverged
    assert len(found.losses) == 100


def test_noise_is_no_fall():
    """A network whose gradients are nearly 0 does not learn at rates up to 10, and its loss jumps at high ones."""
    random.seed(0)
    x = np.eye(4, dtype="float32").repeat(25, axis=0)
    loader = Loader(x, np.arange(4).repeat(25), batch_size=10)
    found = find_learning_rate(Trainer(TwoLayerNet(4, 16, 4), loader, loader, SGD()))
    assert found.suggestion is None
    rates = [10 ** (step / 10 - 7) for step in range(100)]
    taken = 0
    for seed in range(200):
        noise = 1 + 0.1 * np.random.default_rng(seed).standard_normal(100)
        taken += _steepest(rates, noise.tolist(), _smoothed(noise.tolist(), 10)) is not None
    assert taken <= 4  # one in fifty, at most


def test_smoothing_does_not_lag_and_keeps_a_constant():
    assert _smoothed([2.0] * 7, 3) == pytest.approx([2.0] * 7)
    step = _smoothed([0.0] * 10 + [1.0] * 10, 5)
    assert step == pytest.approx([1 - value for value in reversed(step)])
    assert _smoothed([1.0, 2.0, 4.0], 1) == [1.0, 2.0, 4.0]
    assert _smoothed([1.0, 2.0, 4.0], 2) == pytest.approx([4 / 3, 9 / 4, 10 / 3])


def test_the_steepest_place_is_by_the_logarithm_of_the_rate():
    rates = [10.0**power for power in np.arange(-5, 1.01, 0.1)]
    losses = [1 - 1 / (1 + math.exp(-3 * (math.log10(rate) + 2.5))) for rate in rates]
    assert _steepest(rates, losses, losses) == pytest.approx(10**-2.5, rel=0.01)
    assert _steepest(rates, sorted(losses), sorted(losses)) is None


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ((1.0, 0.1), ValueError, "lowest must be less than highest, 0.1, got 1.0"),
        ((0.0, 0.1), ValueError, "lowest"),
        ((0.1, math.inf), ValueError, "highest"),
        ((0.1, 1.0, 9), ValueError, "steps"),
        (("a",), TypeError, "lowest"),
    ],
)
def test_arguments_are_checked(arguments, error, said):
    with pytest.raises(error, match=said):
        find_learning_rate(line(), *arguments)
    with pytest.raises(TypeError, match="a Trainer"):
        find_learning_rate(line().network)


def test_a_first_loss_that_is_not_finite_is_an_error():
    trainer = line()
    trainer.network.params["W1"][...] = math.nan
    with pytest.raises(NonFiniteError, match="the loss is nan at the first step"):
        find_learning_rate(trainer)


@pytest.mark.parametrize("suggestion", [None, 0.01])
def test_the_figure_has_the_losses_and_the_suggestion(suggestion):
    found = RateSearch([0.001, 0.01, 0.1], [2.0, 1.0, 50.0], [2.0, 1.5, 20.0], suggestion, True)
    (axes,) = found.figure().axes
    raw, smoothed, *marked = axes.lines
    assert (list(raw.get_xdata()), list(raw.get_ydata())) == ([0.001, 0.01, 0.1], [2.0, 1.0, 50.0])
    assert list(smoothed.get_ydata()) == [2.0, 1.5, 20.0]
    assert [line.get_xdata()[0] for line in marked] == ([] if suggestion is None else [suggestion])
    assert axes.get_xscale() == "log"
    assert found._repr_png_().startswith(b"\x89PNG")


def test_the_command_prints_and_keeps_what_it_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = xpnet("train", *QUICK, "--device", "cpu", "--find-lr", "--out", "found")
    assert (result.code, result.err) == (0, "")
    said = re.fullmatch(
        r"suggested learning rate: (\S+), where the loss falls fastest; plot: found/learning_rates.png; "
        r"train with: xpnet train --config found --lr \1",
        result.out.splitlines()[-1],
    )
    assert 1e-5 < float(said[1]) < 1
    with Image.open("found/learning_rates.png") as image:
        assert image.format == "PNG"
    saved = json.loads((tmp_path / "found/learning_rates.json").read_text())
    assert float(f"{saved['suggestion']:.2g}") == float(said[1])
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == [
        "config.json", "config.toml", "learning_rates.json", "learning_rates.png",
    ]  # fmt: skip
    done = xpnet("train", "--resume", "found")
    assert done.out == "found has ended: nothing is left to do\n"
    done = xpnet("report", "found", "--device", "cpu")
    assert (done.code, done.out, done.err) == (0, "report found/report.html\n", "")
    assert "Search for a learning rate" in (tmp_path / "found/report.html").read_text()
    result = xpnet("train", "--config", "found", "--device", "cpu", "--find-lr", "--json", "--out", "again")
    assert json.loads(result.out)["losses"] == saved["losses"]  # the same settings, the same bits
    monkeypatch.setattr("training.cli.run.draw_figures", lambda *_: {})
    result = xpnet("train", "--config", "found", "--lr", said[1], "--epochs", 1, "--out", "run")
    assert result.code == 0, result.err
    result = xpnet("train", "--resume", "run", "--find-lr")
    assert "nothing is left" in result.out


def test_a_search_that_is_interrupted_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def interrupted(trainer):
        raise KeyboardInterrupt

    monkeypatch.setattr("training.cli.find_rate.find_learning_rate", interrupted)
    assert xpnet("train", *QUICK, "--device", "cpu", "--find-lr", "--out", "found").code == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
def test_a_search_by_graph_has_the_losses_of_one_without():
    with backend.use("cuda"):
        graph, eager = (find_learning_rate(small_trainer(graph=graph, batch=8), steps=12) for graph in (True, False))
    assert graph == eager
