"""The ranges of a real training step as a profiler shows them, and the command with stand-ins for nsys and ncu.

On an emulated device the stand-ins run ``xpnet profile --tool none`` really; what they export is recorded.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from backend.recording import Recorder
from layers import Affine, Flatten, Relu, Residual, Sequential
from tests.support.command_line import xpnet
from training.models import Network
from training.optim.optimizers import Adam
from training.profile.nsight import report_file
from training.profile.nsight.rows import place

RECORDED = Path(__file__).parent / "nsight"


def shown(event):
    """A range's name in NVTX: that of an operation has the shapes of its arrays."""
    shapes = ["x".join(map(str, shape)) for shape in event.shapes if shape]
    return " ".join([event.name, *shapes]) if event.kind == "operation" else event.name


def with_those_around(event):
    return [*with_those_around(event.parent), event] if event else []


def test_every_range_of_a_step_is_placed_in_its_phase_and_layer():
    block = Residual(Sequential(Affine.of(12, 12), Relu()), Affine.of(12, 12))
    network, optimizer = Network(Sequential(Flatten(), block, Affine.of(12, 3)), (3, 2, 2)), Adam()
    with Recorder() as recorder:
        network.step_gradients(np.zeros((2, 3, 2, 2), "float32"), np.zeros(2, "int64"))
        optimizer.update(network.params, network.grads)
    placed = set()
    for event in recorder.events:
        stack = with_those_around(event)
        phase = next((each.name for each in stack if each.kind == "phase"), "")
        layer = ".".join(each.name for each in stack if each.kind == "layer")
        assert place([shown(each) for each in stack]) == (phase, layer)
        placed.add((phase, layer))
    assert {("forward", "Residual1.body.Affine1"), ("backward", "Residual1.shortcut"), ("forward", "loss")} <= placed


@pytest.mark.gpu
@pytest.mark.parametrize(("tool", "total"), [("nsys", "13"), ("ncu", "3")])
def test_the_command_runs_itself_under_a_tool(tmp_path, monkeypatch, tool, total):
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / tool
    program.write_text(f"#!{sys.executable}\n{(RECORDED / f'stand_in_{tool}.py').read_text()}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("RECORDED", str(RECORDED))
    options = ["--model", "TwoLayerNet", "--device", "cuda", "--steps", "2", "--warmup", "1"]
    done = xpnet("profile", *options, "--tool", tool, "--report", tmp_path / "out")
    assert done.code == 0, done.err
    *rows, kept = done.out.splitlines()
    if tool == "nsys":
        assert rows.pop() == "nsys counts no bytes: MB are the least that must move, as xpnet summary has them"
    assert rows[-1].split()[:2] == ["total", total]
    assert kept == f"{tool}'s report: {report_file(tool, tmp_path / 'out')}"
    ran = json.loads(report_file(tool, tmp_path / "out").read_text())["application"]
    assert ran[1:4] == ["-m", "training.cli", "profile"]
    assert ran[-2:] == ["--tool", "none"]
