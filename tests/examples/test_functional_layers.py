"""The network of functional layers: the courses' numbers, its gradients, and that it learns."""

import math

import numpy as np
import pytest

import backend
from backend import random, xp
from examples.functional_layers import (
    corrections,
    course_checks,
    digits,
    fresh,
    gradient_errors,
    loss_and_gradients,
    main,
    train,
)
from tests.support.example_checks import error_of, output_of


def test_the_courses_numbers(device):
    """To half a unit of their eighth decimal; the logarithm of 10 to rounding."""
    conv, affine, loss = course_checks()
    for name, ours, text in (conv, affine):
        assert ours.shape == text.shape, name
        assert np.abs(ours - text).max() < 6e-9, name
    assert abs(loss[1] - math.log(10)) < 1e-15


def test_gradients_are_the_numerical_ones(device):
    """Central differences in float64 with a step of 1e-4 err by about 1e-8 of the third derivative."""
    errors = gradient_errors()
    assert list(errors) == ["gamma", "beta", "w1", "b1", "w2", "b2", "x"]
    assert max(errors.values()) < 1e-7, errors


def test_what_naive_versions_get_wrong(device):
    padded, cut, tie, wide, columns = (found for _, found in corrections())
    assert padded == cut == (6, 7)
    assert tie.tolist() == [[[[1, 0], [0, 0]]]]
    assert wide == (3, 3)
    assert columns == (9, 6)


def test_the_first_loss_is_that_of_equal_scores(device):
    """The sanity check of the courses: small weights tell no class from another."""
    x, y, _, _ = digits(10)
    params = fresh(4, x.shape[1:], 10)
    loss, grads = loss_and_gradients(params, x, y, {"mode": "train"}, {"mode": "train", "p": 0.5})
    assert abs(float(loss) - math.log(10)) < 0.05
    assert {name: grad.shape for name, grad in grads.items()} == {"x": x.shape} | {
        k: v.shape for k, v in params.items()
    }
    assert {grad.dtype.name for grad in grads.values()} == {"float32"}


def test_it_learns():
    """300 digits, 4 times: far more than the tenth that a guess gets right. Runs are the same bit for bit."""
    with backend.use("cpu"):
        x, y, test_x, test_y = digits(300)
        rows = list(train(x, y, test_x[:500], test_y[:500], epochs=4))
        again = next(train(x, y, test_x[:500], test_y[:500], epochs=1))
    assert again == rows[0]
    assert rows[-1][0] < rows[0][0] / 2
    assert rows[-1][1] > 0.8
    assert rows[-1][2] > 0.6


@pytest.mark.gpu
def test_the_device_learns_what_the_host_does():
    """One step of a small network: the same dropout, the same loss but for rounding."""
    seen = []
    for kind in ("cpu", "cuda"):
        with backend.use(kind):
            random.seed(0)
            x, y, _, _ = digits(8)
            params = fresh(2, x.shape[1:], 10)
            loss, grads = loss_and_gradients(params, x, y, {"mode": "train"}, {"mode": "train", "p": 0.5})
            seen.append([float(loss), *(float(xp.sqrt((grads[name] ** 2).sum())) for name in params)])
    assert np.allclose(*seen, rtol=1e-4)


def test_prints():
    lines = output_of(main, "--images", 50, "--epochs", 1).splitlines()
    assert lines[1].split()[-4:] == ["-0.08759809", "-0.10987781"] * 2
    assert lines[-2].startswith("50 digits: epoch")
    assert lines[-1].split()[0] == "1"
    assert len(lines[-1].split()) == 4


def test_a_device_that_is_not_there_is_an_error_in_words():
    assert error_of(main, "--device", "cuda:99").startswith("Error: cuda:99 ")
