"""Numerical gradients in a text's numbers, and what its own routine had done to W."""

import numpy as np

import backend
from backend import asnumpy, xp
from examples.gradient_descent import (
    DW,
    TEXT_DW,
    TEXT_END,
    TEXT_LOSS,
    TEXT_SCORES,
    W,
    after_an_accident,
    bowl,
    descend,
    loss,
    main,
    plot,
    scores,
    text_gradient,
    text_loss,
)
from layers import numerical_gradient
from tests.support.example_checks import check_plot, check_png, error_of, output_of

PRINTED_DIGITS = 6e-9
"""Half a unit of the eighth decimal, and the rounding of difference quotients, eps·|loss| / 1e-4 = 7e-12."""


def weights():
    return backend.asarray(np.array(W))


def distance(found, expected):
    return np.abs(asnumpy(found) - np.array(expected)).max()


def test_gradient_of_the_bowl(device):
    """Central differences of a square are exact but for rounding: eps·25 / 1e-4."""
    assert distance(numerical_gradient(bowl, xp.asarray([3.0, 4.0])), (6, 8)) < 1e-10


def test_the_descent_ends_where_the_texts_does(device):
    way = descend(bowl, (-3.0, 4.0), rate=0.1, steps=100)
    assert way.shape == (101, 2)
    assert way[0].tolist() == [-3, 4]
    assert np.abs(way[-1]).max() < 1e-8
    assert np.abs(way[-1] - TEXT_END).max() < 1e-18  # a unit of its last digit
    assert (np.diff((way**2).sum(axis=1)) < 0).all()


def test_scores_and_loss_are_the_texts(device):
    assert distance(scores(weights()), TEXT_SCORES) < PRINTED_DIGITS
    assert distance(text_loss(weights()), TEXT_LOSS) < 6e-8  # seven decimals
    # -log y[2] is larger than -log(y[2] + 1e-7) by 1e-7 / y[2].
    assert distance(loss(weights()), TEXT_LOSS + 1e-7 / 0.0454657) < 6e-8


def test_dW_is_the_gradient_at_W_and_W_stays(device):
    """The 1e-7 makes the text's loss flatter by a factor of y[2] / (y[2] + 1e-7), 2e-6 less than 1."""
    array = weights()
    assert distance(numerical_gradient(loss, array), DW) < 2e-6
    assert distance(numerical_gradient(text_loss, array), DW) < 2e-8
    assert asnumpy(array).tobytes() == np.array(W).tobytes()


def test_the_texts_dW_is_that_of_a_W_which_a_failed_call_has_moved(device):
    moved, gradient = after_an_accident(text_gradient, text_loss)
    assert distance(moved, [[1e-4, 0, 0], [0, 0, 0]]) < 1e-15
    assert distance(gradient, TEXT_DW) < PRINTED_DIGITS
    assert distance(TEXT_DW, DW) > 1e-5


def test_ours_leaves_W_as_it_was_after_a_failed_call(device):
    moved, gradient = after_an_accident(numerical_gradient, loss)
    assert not asnumpy(moved).any()
    assert asnumpy(gradient).tobytes() == asnumpy(numerical_gradient(loss, weights())).tobytes()


def test_prints_and_draws(device, tmp_path):
    out = tmp_path / "new" / "way.png"
    output = output_of(main, "--device", device.kind, "--out", out)
    assert output.splitlines()[2].split()[-4:] == ["-6.11110793e-10", "8.14814391e-10"] * 2
    assert "W is restored to the bit: True" in output
    assert output.endswith(f"plot: {out}\n")
    check_png(out)


def test_the_plot_shows_every_step(tmp_path):
    way = np.array([[-3.0, 4.0], [-2.4, 3.2], [-1.9, 2.6]])
    figure = plot(way)
    assert [line.get_xydata().tolist() for line in figure.axes[0].get_lines()] == [way.tolist()]
    check_plot(figure, tmp_path, "x0", "x1")


def test_a_plot_that_cannot_be_written_is_an_error_in_words(tmp_path):
    (tmp_path / "file").touch()
    assert f"Error: {tmp_path / 'file'}: " in error_of(main, "--out", tmp_path / "file" / "way.png")
