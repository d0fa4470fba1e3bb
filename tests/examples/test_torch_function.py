"""Layers of xpnet inside PyTorch: one memory, right gradients, and a training as PyTorch's own layers make it."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import backend
from backend import random, tuning
from layers import Affine, BatchNormalization, Convolution, Gelu, Relu, Sequential
from tests.support.example_checks import output_of

ROOT = Path(__file__).parents[2]
HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed; the extra `bench` has it")
if HAS_TORCH:
    import torch

    from examples.torch_function import LayersFunction, LayersModule, main, model, train

    torch.set_num_threads(1)  # its threads and xpnet's would wait for each other


@pytest.fixture(autouse=True)
def on_the_cpu():
    with backend.use("cpu"):
        random.seed(0)
        yield


CASES = {
    "convolution, relu": lambda: (
        Sequential(Convolution.of(2, 3, 3, pad=1, stride=2, dtype="float64"), Relu()),
        (2, 2, 5, 6),
    ),
    "convolution, normalization, gelu": lambda: (
        Sequential(Convolution.of(1, 2, 2, dtype="float64"), BatchNormalization.of(2, dtype="float64"), Gelu()),
        (3, 1, 4, 4),
    ),
    "affine": lambda: (Sequential(Affine.of(5, 3, dtype="float64")), (4, 5)),
    "no parameters": lambda: (Sequential(Gelu()), (4, 5)),
}


@needs_torch
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_difference_quotients(case):
    layers, shape = CASES[case]()
    module = LayersModule(layers)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=shape)).requires_grad_()

    def function(x, *weights):
        return LayersFunction.apply(layers, x, *weights)

    assert torch.autograd.gradcheck(function, (x, *module.weights))


@needs_torch
def test_parameters_outputs_and_gradients_are_one_memory():
    layers = Sequential(Convolution.of(2, 3, 3), Relu())
    module = LayersModule(layers)
    images = torch.rand(2, 2, 6, 6, requires_grad=True)
    assert [w.data_ptr() for w in module.weights] == [array.ctypes.data for array in layers.params.values()]
    module(images).sum().backward()  # a gradient with steps of 0 bytes
    for weight, array in zip(module.weights, layers.grads.values(), strict=True):
        assert weight.grad.data_ptr() == array.ctypes.data
    first = [weight.grad.clone() for weight in module.weights]
    module(images).sum().backward()
    for weight, grad in zip(module.weights, first, strict=True):
        torch.testing.assert_close(weight.grad, 2 * grad)  # PyTorch adds them up; the layer has overwritten none


@needs_torch
def test_memory_that_pytorch_holds_is_not_handed_out_again():
    layers = Sequential(Affine.of(64, 4096))
    with torch.no_grad():
        kept = LayersModule(layers)(torch.ones(64, 64))
        expected = kept.clone()
        for _ in range(3):
            LayersModule(layers)(torch.zeros(64, 64))
    assert kept.numel() * 4 >= tuning.SMALL_BYTES
    torch.testing.assert_close(kept, expected, rtol=0, atol=0)


@needs_torch
def test_a_training_is_that_of_pytorchs_own_layers():
    random.seed(1)
    torch.manual_seed(1)
    network = model("float64")
    conv = torch.nn.Conv2d(1, 8, 5, stride=2, dtype=torch.float64)
    twin = torch.nn.Sequential(conv, torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(1152, 10).double())
    with torch.no_grad():
        for own, theirs in zip(network.parameters(), twin.parameters(), strict=True):
            theirs.copy_(own)
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(50, 1, 28, 28, dtype=torch.float64, generator=generator)
    labels = torch.randint(10, (50,), generator=generator)
    losses, expected = (train(each, images, labels, 5, 10) for each in (network, twin))
    np.testing.assert_allclose(losses, expected, rtol=1e-10)
    for own, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-9, atol=1e-11)


@needs_torch
def test_the_example_learns():
    printed = output_of(main, "--device", "cpu", "--steps", "30")
    first, last = (float(word) for word in printed.split() if word[:1].isdigit() and "." in word and "%" not in word)
    assert first > 2
    assert last < 0.7
    assert "30 steps" in printed


@pytest.mark.skipif(HAS_TORCH, reason="torch is installed")
def test_without_torch_it_says_what_to_install():
    command = [sys.executable, "-m", "examples.torch_function"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == "this example needs PyTorch; remedy: pip install torch"
