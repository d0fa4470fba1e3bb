"""What a training step asks of the device: no wait for it, no copy but its batch and one loss, and so many launches.

Counted on the emulated CUDA device; a real one does not count. The figures in ``launches_per_step.json`` are held
exactly: a launch more is a change to be looked at. To write them anew, run this file as a program on that device.
"""

import json
from pathlib import Path

import numpy as np
import pytest

import backend
from backend import asarray, random
from training.models import ConvNet, DeepConvNet, SimpleConvNet, TwoLayerNet
from training.optimizers import SGD, Adam

FIGURES = Path(__file__).with_name("launches_per_step.json")
MODELS = {
    "TwoLayerNet": lambda: (TwoLayerNet(784, 50, 10), SGD(0.1)),
    "SimpleConvNet": lambda: (SimpleConvNet(), Adam()),
    "DeepConvNet": lambda: (DeepConvNet(), Adam()),
    "ConvNet": lambda: (ConvNet(), Adam()),
}


def counted(name):
    """The counters of the third step: by then everything is compiled and cached."""
    import cuda_on_cpu

    with backend.use("cuda"):
        network, optimizer = MODELS[name]()
        x = random.uniform((8, *network.input_dim))
        t = asarray(np.arange(8, dtype="int32"))

        def step():
            network.step_gradients(x, t)
            optimizer.update(network.params, network.grads)

        for _ in range(2):
            step()
        cuda_on_cpu.reset()
        step()
        return cuda_on_cpu.counters()


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
def test_a_step_waits_for_nothing_and_launches_what_is_written_down(name):
    pytest.importorskip("cuda_on_cpu", reason="launches are counted on the emulated device only")
    counters = counted(name)
    assert counters["synchronizations"] == 0
    assert counters["d2h_calls"] == 0
    assert counters["h2d_calls"] == 0
    assert counters["kernel_launches"] == json.loads(FIGURES.read_text())[name]


if __name__ == "__main__":
    FIGURES.write_text(json.dumps({name: counted(name)["kernel_launches"] for name in MODELS}, indent=2) + "\n")
