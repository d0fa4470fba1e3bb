"""Importing the layers loads an array library and little else."""

import json
import os
import subprocess
import sys

import pytest

HEAVY = {"cupy", "matplotlib", "click", "PIL", "requests", "rich", "tqdm", "safetensors"}
USE = """
import numpy
from layers import Affine, Convolution, Dropout, Flatten, Pooling, Relu, Sequential, SoftmaxWithLoss
network = Sequential(
    Convolution.of(1, 2, 3), Relu(), Pooling(2, 2, stride=2), Flatten(), Dropout(), Affine.of(18, 4)
)
loss = SoftmaxWithLoss()
loss.forward(network.forward(numpy.ones((2, 1, 8, 8), "float32")), numpy.array([0, 3]))
network.backward(loss.backward())
"""


@pytest.mark.parametrize(
    ("program", "device"),
    [("import layers", None), ("import layers", "cuda:99"), (USE, "cpu")],
    ids=["import", "import for a missing device", "use"],
)
def test_nothing_heavy_is_imported(program, device, tmp_path):
    """In a fresh process, in a folder where every heavy library could be imported, installed or not."""
    for name in HEAVY:
        (tmp_path / f"{name}.py").touch()
    environment = {name: value for name, value in os.environ.items() if name != "XPNET_DEVICE"}
    if device:
        environment["XPNET_DEVICE"] = device
    report = "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-c", program + report]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert result.returncode == 0, result.stderr
    loaded = {name.partition(".")[0] for name in json.loads(result.stdout)}
    assert {"numpy", "layers", "kernels", "backend"} <= loaded
    assert loaded & (HEAVY | {"training"}) == set()
