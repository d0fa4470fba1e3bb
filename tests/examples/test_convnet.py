"""A convnet learns, and its first filters with it."""

import numpy as np
import pytest

from backend import asnumpy, random
from examples import convnet
from examples.convnet import MODELS, main, plot, train
from tests.support.example_checks import check_plot, check_png, output_of, some_digits


def test_accuracy_rises_and_filters_become_smooth(tmp_path):
    data, test = some_digits(2000, 200, flatten=False)
    random.seed(0)
    network = MODELS["SimpleConvNet"]()
    before = asnumpy(network.params["W1"]).copy()
    rows = list(train(network, data, test, epochs=5))
    after = asnumpy(network.params["W1"])
    assert len(rows) == 6
    assert max(rows[0]) < 0.3
    assert min(rows[-1]) > 0.75
    # Noise has neighbors that agree in sign half of the time; an edge or a blob has more.
    assert agreement(before) == pytest.approx(0.5, abs=0.05)
    assert agreement(after) > agreement(before) + 0.1
    check_plot(plot(before, after, rows), tmp_path, "epoch", "accuracy in %")


def agreement(filters):
    """The share of neighbors in a row that have one sign."""
    return float((filters[..., 1:] * filters[..., :-1] > 0).mean())


@pytest.mark.parametrize("model", MODELS)
def test_command(model, tmp_path, monkeypatch):
    monkeypatch.setattr(convnet, "load_digits", lambda *_, flatten: some_digits(100, 50, flatten))
    out = output_of(main, "--model", model, "--epochs", 1, "--out", tmp_path / "a.png")
    header, *rows, last = out.splitlines()
    assert header.split() == ["epoch", "training", "test"]
    assert np.array([row.split() for row in rows], float).shape == (2, 3)
    assert last == f"plot: {tmp_path / 'a.png'}"
    check_png(tmp_path / "a.png")
