"""A random search: what is drawn, how it is ranked, and that large learning rates win."""

import numpy as np
import pytest

from backend import random
from examples.hyperparameters import log_uniform, main, plot, search, split
from tests.support.example_checks import check_plot, check_png, output_of, some_digits


def test_the_best_trials_have_the_largest_learning_rates(tmp_path):
    data, _ = some_digits(500)
    trials = search(data, trials=8, epochs=10)
    scores = [trial.score for trial in trials]
    assert scores == sorted(scores, reverse=True)
    assert all(trial.accuracies.shape == (11, 2) for trial in trials)
    assert trials[0].lr == max(trial.lr for trial in trials)
    assert trials[0].lr > 1e-3
    assert trials[0].score > np.median(scores) + 0.1
    figure = plot(trials)
    assert sum(axes.get_visible() for axes in figure.axes) == 8
    check_plot(figure, tmp_path, "epoch", "accuracy in %")


def test_logarithms_are_uniform_between_the_two_ends():
    generator = random.Generator(1)
    drawn = np.log10([log_uniform(generator, -6, -2) for _ in range(400)])
    assert -6 <= drawn.min() < -5.9 < -2.1 < drawn.max() < -2
    # 100 in each quarter, with a standard deviation of 9.
    assert np.histogram(drawn, bins=4, range=(-6, -2))[0] == pytest.approx([100] * 4, abs=40)


def test_split_parts_all_samples_in_two():
    x = np.arange(50).reshape(50, 1)
    (x_train, t_train), (x_validation, t_validation) = split((x, x[:, 0] * 2))
    assert (len(x_train), len(x_validation)) == (40, 10)
    assert sorted(np.concatenate([x_train, x_validation])[:, 0]) == list(range(50))
    assert np.array_equal(t_train, 2 * x_train[:, 0])
    assert np.array_equal(t_validation, 2 * x_validation[:, 0])


def test_command(tmp_path):
    out = output_of(main, "--trials", 3, "--epochs", 1, "--out", tmp_path / "a.png")
    assert len(out.splitlines()) == 1 + 3 + 1
    check_png(tmp_path / "a.png")
