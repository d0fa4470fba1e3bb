"""The course's numerical gradients and relative errors."""

import math
import random
import re
from types import SimpleNamespace

import numpy as np
import pytest

import backend
from backend import asnumpy, xp
from layers.compat import course
from layers.compat.course import eval_numerical_gradient, eval_numerical_gradient_array, rel_error
from tests.support.checks import assert_same, laid_out, normal


def cube(x):
    return (x**3).sum()


@pytest.mark.parametrize("layout", ["contiguous", "strided", "reversed", "fortran"])
def test_of_one_number(device, layout):
    """Central differences of a cube err by the step squared; the array is as it was."""
    x = laid_out(normal((3, 2), "float64"), layout)
    before = asnumpy(x).tobytes()
    gradient = eval_numerical_gradient(cube, x, verbose=False)
    assert asnumpy(x).tobytes() == before
    assert np.abs(asnumpy(gradient) - 3 * asnumpy(x) ** 2).max() < 1e-9
    ignoring = eval_numerical_gradient(lambda _: cube(x), x, verbose=False)
    assert_same(ignoring, gradient)


@pytest.mark.parametrize(("dtype", "most"), [("float16", 0.1), ("float32", 2e-3), ("float64", 1e-9)])
def test_the_step_is_one_for_the_dtype(device, dtype, most):
    x = xp.asarray([0.5, -1.0], dtype)
    gradient = eval_numerical_gradient(cube, x, verbose=False)
    assert gradient.dtype == dtype
    assert np.abs(asnumpy(gradient) - 3 * asnumpy(x) ** 2).max() < most


def test_functions_may_return_any_kind_of_number(device):
    x = xp.asarray([1.0, 2.0])
    for convert in (float, lambda value: value, lambda value: value.reshape(1), lambda value: value.reshape(1, 1)):
        gradient = eval_numerical_gradient(lambda x, c=convert: c(cube(x)), x, verbose=False, h=1e-4)
        assert np.abs(asnumpy(gradient) - [3, 12]).max() < 1e-7


def test_functions_may_return_one_buffer(device):
    x, buffer = xp.asarray([1.0, 2.0]), xp.zeros(2)

    def doubled(x):
        buffer[...] = 2 * x
        return buffer

    assert np.allclose(asnumpy(eval_numerical_gradient_array(doubled, x, xp.asarray([1.0, 10.0]))), [2, 20])


def test_prints_each_number(capsys):
    eval_numerical_gradient(cube, np.array([[1.0, 2.0]]))
    first, second = capsys.readouterr().out.splitlines()
    assert re.match(r"\(0, 0\) 3\.0", first)
    assert re.match(r"\(0, 1\) 1[12]\.", second)


def test_of_an_array(device):
    x, w, df = normal((3, 4), "float64", 1), normal((4, 2), "float64", 2), normal((3, 2), "float64", 3)
    gradient = eval_numerical_gradient_array(lambda x: x @ w, x, df)
    assert np.abs(asnumpy(gradient) - asnumpy(df) @ asnumpy(w).T).max() < 1e-9


@pytest.mark.parametrize("shape", [(0,), (2, 0), ()])
def test_of_few_numbers(device, shape):
    x = xp.ones(shape)
    assert np.allclose(asnumpy(eval_numerical_gradient(cube, x, verbose=False)), np.full(shape, 3.0))


def test_the_array_is_restored_when_the_function_fails():
    x = np.array([1.0, 2.0])

    def fails(x):
        if x[1] != 2:
            raise ArithmeticError("no")
        return x.sum()

    for call in (eval_numerical_gradient, lambda f, x, _: eval_numerical_gradient_array(f, x, np.ones(()))):
        with pytest.raises(ArithmeticError):
            call(fails, x, False)
        assert x.tolist() == [1, 2]


def test_blobs(device):
    """Of a network with inputs and an output that it writes to."""
    x, w = (SimpleNamespace(vals=normal(s, "float64", i), diffs=None) for i, s in enumerate([(3, 4), (4, 2)]))
    out = SimpleNamespace(vals=xp.zeros((3, 2)), diffs=normal((3, 2), "float64", 5))

    def multiply(x, w, out):
        out.vals[...] = x.vals @ w.vals

    net = SimpleNamespace(forward=lambda: multiply(x, w, out))
    right = asnumpy(out.diffs) @ asnumpy(w.vals).T, asnumpy(x.vals).T @ asnumpy(out.diffs)
    for found in (
        course.eval_numerical_gradient_blobs(multiply, (x, w), out),
        course.eval_numerical_gradient_net(net, (x, w), out),
    ):
        for gradient, expected in zip(found, right, strict=True):
            assert np.abs(asnumpy(gradient) - expected).max() < 1e-9


def test_a_few_numbers_at_random(device, capsys):
    x = normal((4, 5), "float64")
    random.seed(3)
    course.grad_check_sparse(cube, x, 3 * x**2, num_checks=4)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    for line in lines:
        assert float(re.fullmatch(r"numerical: \S+ analytic: \S+, relative error: (\S+)", line)[1]) < 1e-7
    course.grad_check_sparse(lambda x: 0.0, x, xp.zeros_like(x), 1)
    assert capsys.readouterr().out == "numerical: 0.000000 analytic: 0.000000, relative error: 0.000000e+00\n"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: eval_numerical_gradient(cube, np.array([1, 2])), TypeError, "needs x as a floating array, got int64"),
        (lambda: eval_numerical_gradient(cube, [1.0]), TypeError, "needs x as a floating array, got list"),
        (
            lambda: eval_numerical_gradient(lambda x: x, np.ones(2)),
            ValueError,
            r"returns one number, got \(2,\) .*_array",
        ),
        (lambda: eval_numerical_gradient(lambda x: (1.0, {}), np.ones(2)), ValueError, "returns one number, got tuple"),
        (
            lambda: eval_numerical_gradient_array(lambda x: x, np.ones(2), np.ones((2, 1))),
            ValueError,
            r"df of the shape of f\(x\), \(2,\), got \(2, 1\)",
        ),
        (
            lambda: eval_numerical_gradient(cube, np.ones(2), h=0),
            ValueError,
            r"h must be .*above 0, got 0",
        ),
        (
            lambda: eval_numerical_gradient(cube, np.full(2, 1e9, "float32"), h=1e-5),
            ValueError,
            "step h of 1e-05 leaves",
        ),
        (
            lambda: eval_numerical_gradient(cube, np.ones(2), h=-1),
            ValueError,
            r"h must be .*above 0, got -1",
        ),
        (lambda: rel_error(np.ones(2), np.ones((2, 1))), ValueError, r"arrays of one shape, got \(2,\) and \(2, 1\)"),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_relative_error(device):
    x, y = xp.asarray([1.0, -2.0, 0.0]), xp.asarray([1.0, 2.0, 0.0])
    assert rel_error(x, y) == 1
    assert rel_error(x, x) == 0
    assert rel_error(x, asnumpy(1.5 * x)) == pytest.approx(0.2)
    assert rel_error(3, 1) == rel_error(xp.asarray(3.0), 1) == 0.5
    assert rel_error(xp.zeros(2), xp.full(2, 5e-9)) == pytest.approx(0.5)
    assert rel_error(x, 0.0) == 1
    assert rel_error(xp.zeros((0, 2)), xp.zeros((0, 2))) == 0
    assert math.isnan(rel_error(xp.asarray([1.0, math.nan]), y[:2]))
    assert math.isnan(rel_error(xp.asarray([math.inf]), xp.asarray([math.inf])))
    assert isinstance(rel_error(x, y), float)


@pytest.mark.gpu
def test_relative_error_between_devices():
    with backend.use("cuda"):
        assert rel_error(xp.asarray([1.0, 2.0]), np.array([1.0, 2.5])) == pytest.approx(1 / 9)
