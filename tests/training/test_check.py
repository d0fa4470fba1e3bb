"""``xpnet check``: that it passes what agrees, and names what does not."""

import json

import numpy as np
import pytest
from command_line import xpnet

from backend import array_module
from kernels import activations
from training import check, optimizer_base
from training.check import Row, cases, compare, ulps
from training.side_by_side import train_side_by_side


def test_ulps_count_from_the_largest_number():
    one = np.array([1.0, 0.5], "float32")
    assert ulps(one, one) == 0
    assert ulps(np.nextafter(one, 2, dtype="float32"), one) == pytest.approx(1)
    assert ulps(one + np.float32(2**-20), one) == pytest.approx(8)
    assert ulps(np.array([np.nan, 1.0]), np.array([np.nan, 1.0])) == 0


@pytest.mark.parametrize(
    "actual",
    [
        np.zeros(3, "float32"),
        np.zeros(2, "float64"),
        np.array([np.nan, 0], "float32"),
        np.array([np.inf, 0], "float32"),
    ],
)
def test_another_shape_dtype_or_a_number_that_is_none_is_infinitely_wrong(actual):
    assert ulps(actual, np.array([1, 0], "float32")) == np.inf


def test_whole_numbers_are_right_or_wrong():
    assert ulps(np.array([1, 2]), np.array([1, 2])) == 0
    assert ulps(np.array([1, 3]), np.array([1, 2])) == np.inf


def test_the_cpu_agrees_with_itself():
    """Every case runs, in every dtype, and the same numbers come twice."""
    rows = list(compare("cpu"))
    assert {row.operation for row in rows} == {case.operation for case in cases()}
    assert all(row.error == 0 and row.passed for row in rows)
    assert all(row.cases >= 3 for row in rows)


def test_a_row_is_wrong_beyond_its_tolerance():
    assert Row("x", 1, 2.0, 2.0, "y").passed
    assert not Row("x", 1, 2.1, 2.0, "y").passed
    assert not Row("x", 1, np.inf, 2.0, "y").passed


def test_without_a_gpu_the_user_is_told():
    result = xpnet("check", "--device", "cpu")
    assert result.code == 2
    assert "cpu is no GPU" in result.err


@pytest.mark.gpu
def test_this_gpu_agrees():
    result = xpnet("check", "--json", "--steps", 3)
    report = json.loads(result.out)
    assert [row for row in report["operations"] if not row["passed"]] == []
    assert report["training"]["step"] is None
    assert report["training"]["difference"] < 1e-4
    assert result.code == 0


@pytest.mark.gpu
def test_a_wrong_operation_is_found(monkeypatch):
    right = check.im2col

    def wrong(x, window, order):
        columns = right(x, window, order)
        if array_module(x) is not np:
            columns[-1:] *= 1.5
        return columns

    monkeypatch.setattr(check, "im2col", wrong)
    assert [row.operation for row in compare("cuda", ("float32",)) if not row.passed] == ["im2col"]
    result = xpnet("check", "--steps", 0)
    assert result.code == 1
    assert "WRONG (columns" in result.out
    assert "NOT every operation agrees" in result.out


@pytest.mark.gpu
def test_a_wrong_step_under_a_loss_scale_is_found(monkeypatch):
    """The device counts the step that is skipped, too."""
    right = optimizer_base.update_on_device

    def wrong(*arguments, **options):
        right(*arguments, **options | ({"counts": False} if options else {}))

    monkeypatch.setattr(optimizer_base, "update_on_device", wrong)
    failed = {row.operation for row in compare("cuda", ("float32",)) if not row.passed}
    assert failed == {"adam under a loss scale", "adamw under a loss scale"}


@pytest.mark.gpu
def test_the_layer_at_which_two_trainings_part_is_named(monkeypatch):
    """The GPU's relus behind the first pooling are off, alone or along with the layer before: Relu3 is the first."""
    relu, rectify, calls = activations.relu, activations.rectify, []

    def is_wrong(array, image):
        return array_module(array) is not np and image != (28, 28)

    def wrong_relu(x):
        y, positive = relu(x)
        if is_wrong(x, x.shape[2:]):
            y *= 1.1
        return y, positive

    def wrong_rectify(y, positive):
        rectify(y, positive)
        if is_wrong(y, y.shape[1:3]):  # pixels, channels last
            calls.append(y.shape)
            y *= 1.1

    monkeypatch.setattr(activations, "relu", wrong_relu)
    monkeypatch.setattr(activations, "rectify", wrong_rectify)
    parting = train_side_by_side("cuda", 3, batch_size=4)
    assert calls
    assert (parting.step, parting.layer) == (1, "Relu3")
