"""Momentum, AdaGrad and Adam learn faster than SGD."""

import numpy as np

from examples.common import loss_curves, smooth
from examples.optimizers import losses, main
from tests.support.example_checks import check_plot, check_png, output_of, some_digits


def test_the_three_others_are_ahead_of_sgd(tmp_path):
    train, _ = some_digits(2000)
    found = losses(train, steps=150)
    assert list(found) == ["SGD", "Momentum", "AdaGrad", "Adam"]
    assert {len(values) for values in found.values()} == {150}
    assert len({float(values[0]) for values in found.values()}) == 1  # the same weights, the same batch
    late = {name: values[-50:].mean() for name, values in found.items()}
    assert max(late["Momentum"], late["AdaGrad"], late["Adam"]) < 0.5 * late["SGD"]
    assert late["SGD"] < found["SGD"][:10].mean()
    figure = loss_curves(found, top=1.0)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == list(found)
    check_plot(figure, tmp_path, "step", "cross-entropy loss (smoothed)")


def test_smoothing_keeps_a_line_s_length_and_a_constant_s_value():
    values = np.random.default_rng(0).normal(size=40) + 3
    smoothed = smooth(values)
    weights = np.kaiser(11, 2)
    assert smoothed.shape == values.shape
    assert np.isclose(smoothed[20], (weights * values[15:26]).sum() / weights.sum())
    np.testing.assert_allclose(smooth(np.full(12, 2.5)), 2.5)


def test_command(tmp_path):
    out = output_of(main, "--steps", 12, "--out", tmp_path / "a.png")
    assert "last 12 steps" in out
    check_png(tmp_path / "a.png")
