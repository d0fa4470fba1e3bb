"""``xpnet check``: what it prints, and its exit code."""

import json
import math

import pytest

from backend import Device
from layers import Affine, Sequential
from tests.support.command_line import xpnet
from tests.training.check.test_lockstep import Doubled
from training.check import CheckRow, Divergence, LockstepResult
from training.cli import check as command
from training.cli.common import Compute
from training.models import Network, TwoLayerNet


@pytest.fixture
def checked(monkeypatch):
    """Sets what the command finds, as if there was a GPU; returns the list of what trainings are asked for."""
    monkeypatch.setattr(command, "choose_compute", lambda device, threads: Compute(Device("cuda"), "", 1))
    given = []

    def train(device, steps, model, optimizer, seed):
        given.append((device, steps, seed))
        return LockstepResult(model, optimizer, steps, 2e-7, 0.25, checked.divergence)

    def checked(rows, divergence=None):
        checked.divergence = divergence
        monkeypatch.setattr(command, "compare", lambda device: iter(rows))
        monkeypatch.setattr(command, "train_in_lockstep", train)
        return given

    return checked


RIGHT = CheckRow("relu", 3, 0.0, 0.0, "y, float32")
WRONG = CheckRow("tanh", 3, math.nan, 4.0, "dx, float16")


def test_a_right_device(checked):
    given = checked([RIGHT])
    result = xpnet("check", "--seed", 7)
    assert result.code == 0
    assert given == [("cuda:0", 50, 7)] * 2
    lines = result.out.splitlines()
    assert lines[1].split() == ["relu", "3", "exact", "0", "ok"]
    assert lines[2] == "DeepConvNet with adam: 50 steps ok, errors up to 25% of what is allowed, losses within 2.0e-07"
    assert lines[-1] == "the device computes what the CPU computes"


def test_a_wrong_operation(checked):
    checked([RIGHT, WRONG])
    result = xpnet("check", "--steps", 0)
    assert result.code == 1
    assert "WRONG (dx, float16)" in result.out
    assert result.out.splitlines()[-1] == "the device is WRONG"


@pytest.mark.parametrize(
    ("divergence", "line"),
    [
        (
            Divergence(3, "Relu1", "dx", 2.0, 0.0),
            "WRONG in step 3, Relu1: dx is off by 2 ulps, 0 are allowed",
        ),
        (Divergence(2, "", "OutOfMemoryError: no", math.inf, 0.0), "WRONG, step 2 raised OutOfMemoryError: no"),
    ],
)
def test_a_wrong_training(checked, divergence, line):
    checked([RIGHT], divergence)
    result = xpnet("check", "--steps", 3)
    assert result.code == 1
    assert f"DeepConvNet with adam: {line}" in result.out.splitlines()


def test_json_has_neither_nan_nor_infinity(checked):
    checked([RIGHT, WRONG], Divergence(3, "Relu1", "dx", math.inf, 0.0))
    result = xpnet("check", "--json", "--steps", 5)
    assert result.code == 1

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    report = json.loads(result.out, parse_constant=refuse)
    assert report["passed"] is False
    assert [(row["operation"], row["passed"], row["error"]) for row in report["operations"]] == [
        ("relu", True, 0.0),
        ("tanh", False, None),
    ]
    training = report["training"][0]
    assert (training["model"], training["passed"], training["divergence"]["error"]) == ("DeepConvNet", False, None)


def test_the_network_of_a_file_is_checked(checked, monkeypatch, tmp_path):
    checked([RIGHT])
    monkeypatch.setattr(
        command,
        "train_file_in_lockstep",
        lambda device, file, steps, seed, allow_import: LockstepResult(file.name, "adam", steps, 2e-7, 0.25, None),
    )
    file = tmp_path / "model.safetensors"
    TwoLayerNet(6, 5, 3).save_params(file)
    for given in (file, tmp_path):
        result = xpnet("check", given, "--steps", 3)
        assert result.code == 0, result.err
        assert "model.safetensors with adam: 3 steps ok" in result.out
        assert "ConvNet" not in result.out


def test_a_network_that_cannot_be_checked_is_refused_at_once(checked, tmp_path):
    checked([RIGHT])
    file = tmp_path / "model.safetensors"
    Network(Sequential(Doubled(Affine.of(6, 6))), (6,)).save_params(file)
    result = xpnet("check", file, "--allow-import")
    assert (result.code, "relu" in result.out) == (2, False)
    assert result.err.startswith(f"Error: {file} cannot be checked: layer Doubled1 combines other layers")


def test_without_a_gpu_the_user_is_told():
    result = xpnet("check", "--device", "cpu")
    assert result.code == 2
    assert "cpu is not a GPU" in result.err


@pytest.mark.gpu
def test_this_gpu_is_right():
    result = xpnet("check", "--json", "--steps", 3)
    report = json.loads(result.out)
    assert [row for row in report["operations"] if not row["passed"]] == []
    assert [training["divergence"] for training in report["training"]] == [None, None]
    assert max(training["loss_difference"] for training in report["training"]) < 1e-5
    assert result.code == 0
