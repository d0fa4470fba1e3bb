"""Check what an NVTX tool sees: a small one, built here, that the nvtx package loads like Nsight's."""

import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest

from kernels.core import native

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or shutil.which("cc") is None,
    reason="no C compiler cc, or not Linux: the tool that listens to NVTX is not built (apt install gcc)",
)


class Push(NamedTuple):
    """A range that was entered, and those around it on the same thread, the outermost first."""

    inside: tuple
    category: str
    payload: int | None
    message: str

    @property
    def path(self):
        return (*(around.message for around in self.inside), self.message)


def parse(lines):
    """The ranges of each thread; every one is left."""
    stacks, threads = defaultdict(list), defaultdict(list)
    for line in lines:
        what, thread, domain, *rest = line.split("\t")
        assert domain == "xpnet"
        if what == "pop":
            stacks[thread].pop()
        else:
            category, payload, message = rest
            push = Push(tuple(stacks[thread]), category, None if payload == "-" else int(payload), message)
            stacks[thread].append(push)
            threads[thread].append(push)
    assert not any(stacks.values())
    return list(threads.values())


@pytest.fixture(scope="module")
def listen(tmp_path_factory):
    """Runs a program with the tool attached; the ranges of each thread, the first the main one."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler: the tool that listens is not built (apt install gcc)")
    folder = tmp_path_factory.mktemp("listener")
    tool, log = folder / "listener.so", folder / "log"
    source = Path(__file__).with_name("nvtx_listener.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tool, source], check=True)

    def run(program):
        environment = {"NVTX_INJECTION64_PATH": str(tool), "LISTENER_LOG": str(log), "XPNET_DEVICE": "cpu"}
        subprocess.run([sys.executable, "-c", program], env=os.environ | environment, check=True, timeout=120)
        return parse(log.read_text().splitlines())

    return run


def test_a_training_step_as_a_tool_sees_it(listen):
    program = """
import numpy as np
from training.data import Loader
from training.models import TwoLayerNet
from training.optim.optimizers import SGD
from training.loop.trainer import Trainer
images, labels = np.zeros((4, 6), np.uint8), np.arange(4) % 3
train, test = (Loader(images, labels, 4, shuffle=False, prefetch=n) for n in (1, 0))
Trainer(TwoLayerNet(6, 5, 3), train, test, SGD(), epochs=1).train()
"""
    main, loader = listen(program)
    step = ("run", "epoch", "step")
    in_step = [push for push in main if push.path[:3] == step and len(push.path) > 3]
    first, second = ("forward", "forward", "Affine1"), ("forward", "forward", "Affine2")
    back = ("backward", "backward", "Affine1")
    if native.available():
        product = "affine.affine_native"
        with_relu, masked = [(*first, f"{product} 4x6 6x5 5")], ["affine.bias_gradient_native 4x5 4x5 5"]
    else:
        product = "gemm.matmul"
        with_relu = [(*first, f"{product} 4x6 6x5 5"), (*first, "activations.relu_in_place 4x5")]
        masked = ["masking.masked 4x5 4x5", "sums.column_sums 4x5 5"]
    assert [(push.category, *push.path[3:]) for push in in_step] == [
        ("data", "data"),
        ("forward", "forward"),
        first,
        *with_relu,
        second,
        (*second, f"{product} 4x5 5x3 3"),
        ("forward", "forward", "loss"),
        ("forward", "forward", "loss", "softmax.softmax_cross_entropy 4x3 4"),
        ("backward", "backward"),
        ("backward", "backward", "loss"),
        ("backward", "backward", "loss", "softmax.softmax_cross_entropy_backward 4x3 4"),
        ("backward", "backward", "Affine2"),
        ("backward", "backward", "Affine2", "sums.column_sums 4x3 3"),
        ("backward", "backward", "Affine2", "gemm.matmul 5x4 4x3 5x3"),
        ("backward", "backward", "Affine2", "gemm.matmul 4x3 3x5"),
        back,  # with the Relu that follows it
        *((*back, name) for name in masked),
        (*back, "gemm.matmul 6x4 4x5 6x5"),
        ("update", "update"),
        ("update", "update", "optimizer.update_array 53 53"),
    ]
    payloads = {push.path[-1]: push.payload for push in in_step}
    assert payloads[f"{product} 4x6 6x5 5"] == 4 * (4 * 6 + 6 * 5 + 5)
    assert payloads[masked[0]] == 4 * 5 * (4 + 1) + 4 * 5 * native.available()
    assert payloads["data"] is None
    assert [(push.category, push.path) for push in main[:3]] == [(step[i], step[: i + 1]) for i in range(3)]
    assert main[0].category == "run"
    assert {push.path[2] for push in main if len(push.path) == 3} == {"step", "evaluate"}
    assert [(push.category, push.message, push.payload) for push in loader] == [
        ("data", "load", None),
        ("data", "blocks.gather 4 4x6 4", 8 * 4 + 4 * 6 + 4 * 4),
        ("data", "blocks.divide_by_255 4x6", 4 * 6),
    ]


def test_ranges_are_left_when_something_fails(listen):
    program = """
import numpy as np
from backend import profiling
from layers import Affine, Relu, Sequential
for _ in range(2):
    try:
        with profiling.range("outer", "step").of(np.ones(2, "float32")):
            Sequential(Relu(), Affine.of(3, 2)).forward(np.ones((1, 2), "float32"))
    except ValueError:
        pass
"""
    (main,) = listen(program)
    once = [("outer",), ("outer", "Relu1"), ("outer", "Relu1", "activations.relu 1x2"), ("outer", "Affine1")]
    assert [push.path for push in main] == once * 2
    assert [push.payload for push in main[:4]] == [8, 8, 8, 8]
