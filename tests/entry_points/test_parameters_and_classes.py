"""Errors for assigned parameters, declared parameters, functions to differentiate, hidden packages, and forks."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import backend
from backend import asnumpy, xp
from layers import Affine, Layer, numerical_gradient, parameter
from layers.compat import book
from tests.support.checks import assert_same, normal
from tests.support.fresh import fresh
from training.models import TwoLayerNet
from training.models.parameters import ParameterDict


def flat(layer):
    return {name: asnumpy(array).copy() for name, array in layer.params.items()}


@pytest.mark.parametrize("value", [None, 3.0, "W", [[1.0] * 3] * 4, np.ones((4, 3), bool), np.array("x")], ids=repr)
@pytest.mark.parametrize("bound", [False, True])
def test_what_is_no_array_of_numbers_is_no_parameter(value, bound):
    network = TwoLayerNet(4, 3, 2)
    layer = network.layers["Affine1"] if bound else Affine.of(4, 3)
    before = flat(layer)
    with pytest.raises(TypeError, match=r"Affine.W must be an array of numbers, got"):
        layer.W = value
    for name, array in before.items():
        assert_same(layer.params[name], array)


@pytest.mark.gpu
@pytest.mark.parametrize("bound", [False, True])
def test_host_arrays_are_no_parameters_of_the_device(bound):
    with backend.use("cuda"):
        network = TwoLayerNet(4, 3, 2)
        layer = network.layers["Affine1"] if bound else Affine.of(4, 3)
        before = flat(layer)
        with pytest.raises(TypeError, match=r"numpy.ndarray float32\[4, 3\] and cupy.ndarray"):
            layer.W = np.ones((4, 3), "float32")
        layer.W = xp.asarray(before["W"])
        assert_same(layer.W, before["W"])


@pytest.mark.gpu
def test_host_arrays_do_not_update_parameters_of_the_device():
    """Neither one by one nor several, of which none is taken."""
    with backend.use("cuda"):
        params = ParameterDict({"W": (2, 3), "b": (3,)}, "float32", xp)
        with pytest.raises(TypeError, match=r"mixed: numpy.ndarray float32\[3\] and cupy.ndarray"):
            params["b"] = np.ones(3, "float32")
        with pytest.raises(TypeError, match="host and device arrays are mixed"):
            params.update(W=xp.ones((2, 3), "float32"), b=np.ones(3, "float32"))
        assert_same(params.flat, np.zeros(9, "float32"))


@pytest.mark.parametrize(
    "value", [None, 1.0, "b", [1.0, 2.0, 3.0], np.array(["a", "b", "c"]), np.ones(3, complex)], ids=repr
)
def test_an_update_with_what_is_no_array_changes_nothing(value):
    params = ParameterDict({"W": (2, 3), "b": (3,)}, "float32", np)
    with pytest.raises(TypeError, match="b must be an array of numbers"):
        params.update({"W": np.ones((2, 3), "float32"), "b": value})
    assert_same(params.flat, np.zeros(9, "float32"))


# -- declarations --------------------------------------------------------------------------------------------------


def declared(**attributes):
    return type("Mine", (Layer,), attributes)


def test_a_gradient_is_called_by_its_parameters_name():
    k, gradient = parameter()
    for name in ("k_grad", "grad_k", "dK", "d", "_", "dk_"):
        with pytest.raises(TypeError, match=rf"Mine .*'k'.* 'dk', got '{name}'.*k, dk = parameter\(\)"):
            declared(k=k, **{name: gradient})
    kind = declared(**dict(zip(("k", "dk"), parameter(), strict=True)))
    assert (kind.k.name, kind.dk.name) == ("k", "k")


def test_a_gradient_without_a_parameter_and_a_pair_are_refused():
    with pytest.raises(
        TypeError, match=r"Mine.dk is a gradient without its parameter: expected a parameter 'k', got none"
    ):
        declared(dk=parameter()[1])
    with pytest.raises(TypeError, match="whose gradient must be called 'dk', got none"):
        declared(k=parameter()[0])
    with pytest.raises(TypeError, match=r"Mine.k = parameter\(\) makes two attributes: write k, dk"):
        declared(k=parameter())


@pytest.mark.parametrize(("name", "spelling"), [("w", "dW"), ("W", "dw"), ("gamma", "dGamma"), ("k", "d_k")])
def test_a_gradient_in_another_spelling_is_refused(name, spelling):
    layer = declared(**dict(zip((name, f"d{name}"), parameter(), strict=True)))()
    with pytest.raises(
        AttributeError, match=f"Mine.{spelling} is not a gradient: that of '{name}' is called 'd{name}'"
    ):
        setattr(layer, spelling, np.ones(3))
    assert not hasattr(layer, spelling)
    both = declared(**dict(zip(("w", "dw"), parameter(), strict=True)), W=(pair := parameter())[0], dW=pair[1])
    both().dW, both().dw


def test_a_layer_derived_from_another_needs_no_parameters_of_its_own():
    class Mine(Affine):
        pass

    assert set(Mine(np.ones((2, 3)), np.ones(3)).params) == {"W", "b"}


# -- numerical gradients -------------------------------------------------------------------------------------------

NOT_ONE_NUMBER = {
    "an array": lambda x: x * 2,
    "an array of one": lambda x: x.sum().reshape(1),
    "nothing": lambda x: None,
    "a string": lambda x: "1.0",
    "a truth value": lambda x: True,
    "a complex number": lambda x: 1j,
}


@pytest.mark.parametrize("gradient", [numerical_gradient, book.numerical_gradient])
@pytest.mark.parametrize("what", NOT_ONE_NUMBER)
def test_a_function_to_differentiate_returns_one_number(device, gradient, what):
    x = normal((2, 3), "float64")
    before = x.copy()
    with pytest.raises(TypeError, match="f must be a function that returns one number"):
        gradient(NOT_ONE_NUMBER[what], x)
    assert_same(x, before)


@pytest.mark.parametrize("gradient", [numerical_gradient, book.numerical_gradient])
def test_numbers_of_every_kind_are_differentiated(device, gradient):
    x = xp.asarray([1.0, 2.0])
    for function in (
        lambda x: (x * x).sum(),
        lambda x: float((x * x).sum()),
        lambda x: np.float64((x * x).sum().item()),
    ):
        np.testing.assert_allclose(asnumpy(gradient(function, x)), [2, 4], rtol=1e-6)
    with pytest.raises(TypeError, match="f must be a function"):
        gradient(3, x)


# -- files in front of ours ------------------------------------------------------------------------------------------


def run(folder, *arguments):
    path = os.pathsep.join([str(folder), str(Path(backend.__file__).parent.parent)])
    environment = {**os.environ, "PYTHONPATH": path, "XPNET_DEVICE": "cpu"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", ["layers", "kernels", "backend"])
@pytest.mark.parametrize("as_package", [False, True])
def test_a_file_that_hides_a_package_is_named(tmp_path, name, as_package):
    file = tmp_path / name / "__init__.py" if as_package else tmp_path / f"{name}.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text("x = 1\n")
    modules = ("training.models.named",) if name == "layers" else ("training.models.named", "layers")
    for module in modules:
        done = run(tmp_path, "-c", f"import {module}")
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith(f"ImportError: {file} hides the package {name!r} of xpnet in "), last
        assert "rename" in last
    command = run(tmp_path, "-m", "training.cli", "devices")
    assert command.returncode == 2
    assert command.stderr.startswith(f"Error: {file} hides the package {name!r}")
    assert command.stderr.count("\n") == 1


def test_other_files_of_ones_own_are_no_matter(tmp_path):
    """A program called training.py that uses the layers, and a folder of data called layers."""
    (tmp_path / "training.py").write_text("from layers import Relu\nprint(Relu())\n")
    (tmp_path / "layers").mkdir()
    done = run(tmp_path, "training.py")
    assert (done.stdout, done.stderr) == ("Relu()\n", "")


# -- forks ---------------------------------------------------------------------------------------------------------

FORK = """
import os, sys, numpy, backend, layers
from backend import DeviceError, use, xp

with use("cuda"):
    layer = layers.Affine.of(3, 2)
    x = xp.ones((2, 3), "float32")
    y = layer.forward(x)
    child = os.fork()
    if not child:
        tried = (lambda: layer.forward(x), lambda: xp.zeros(3), lambda: use("cuda"), lambda: backend.asnumpy(y),
                 lambda: backend.asarray(numpy.ones(3)), lambda: backend.random.normal(3), backend.synchronize)
        for call in tried:
            try:
                call()
                print("no error", flush=True)
            except DeviceError as error:
                print("forked" in str(error) and "spawn" in str(error), flush=True)
        use("cpu")
        print(layers.Affine.of(3, 2).forward(numpy.ones((2, 3), "float32")).shape, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print(layer.forward(x).shape, flush=True)
"""


@pytest.mark.gpu
def test_the_device_in_a_forked_process_is_one_clear_error():
    lines = fresh(FORK, XPNET_DEVICE="cpu").splitlines()
    assert lines == ["True"] * 7 + ["(2, 2)"] * 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_computes_on_the_cpu():
    code = """
import os, numpy, layers
layer, x = layers.Affine.of(3, 2), numpy.ones((2, 3), "float32")
y = layer.forward(x)
child = os.fork()
if not child:
    print((layer.forward(x) == y).all(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
    assert fresh(code, XPNET_DEVICE="cpu") == "True"
