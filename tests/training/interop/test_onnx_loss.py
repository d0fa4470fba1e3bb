"""Models from ONNX that end in the function of a loss: it is computed once, by the loss."""

import importlib.util

import numpy as np
import pytest

from layers import HuberLoss, Sigmoid, SigmoidWithLoss, Softmax, SoftmaxWithLoss
from tests.support.command_line import xpnet
from training.interop.onnx_import import from_onnx

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
if HAS_ONNX:
    from tests.training.interop.test_onnx_graphs import model, of, vector

pytestmark = pytest.mark.skipif(
    not HAS_ONNX, reason="onnx and onnxruntime, which it is compared with, are not installed"
)


def ending_in(*nodes, outputs=3, opset=17):
    constants = {"W": 5 * of(4, outputs), "row": vector(0, -1), "image": vector(0, outputs, 1, 1)}
    return model((4,), [("Gemm", ["x", "W"], {}), *nodes], constants, opset)


ENDS = {
    "softmax": (("Softmax", ["."], {}),),
    "softmax of one pixel": (
        ("Reshape", [".", "image"], {}),
        ("Softmax", ["."], {"axis": 1}),
        ("Reshape", [".", "row"], {}),
    ),
    "softmax, no other number": (("Softmax", ["."], {"axis": 1}), ("Flatten", ["."], {})),
}


@pytest.mark.parametrize("loss", [None, "softmax", SoftmaxWithLoss(label_smoothing=0.1) if HAS_ONNX else None])
@pytest.mark.parametrize("end", ENDS)
def test_a_softmax_is_the_losss(end, loss):
    """Losses and gradients are those of cross-entropy of one softmax, here in plain NumPy."""
    network = from_onnx(ending_in(*ENDS[end]), loss)
    x, t, W = of(6, 4, seed=1), np.arange(6) % 3, 5 * of(4, 3)
    np.testing.assert_allclose(network.predict(x), x @ W, rtol=1e-5, atol=1e-6)
    assert not any(isinstance(layer, Softmax) for layer in network.layers.layers.values())
    assert isinstance(network.last_layer, SoftmaxWithLoss)
    if isinstance(loss, SoftmaxWithLoss):
        assert network.last_layer is loss
        return
    p = np.exp(x.astype("float64") @ W)
    p /= p.sum(1, keepdims=True)
    np.testing.assert_allclose(network.loss(x, t), -np.log(p[range(6), t]).mean(), rtol=1e-5)
    np.testing.assert_allclose(network.gradient(x, t)["W1"], x.T @ (p - np.eye(3)[t]) / 6, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_sigmoid_is_the_losss(outputs):
    network = from_onnx(ending_in(("Sigmoid", ["."], {}), outputs=outputs))
    x, t, W = of(6, 4, seed=1), (of(6, outputs, seed=2) > 0).astype("float32"), 5 * of(4, outputs)
    assert isinstance(network.last_layer, SigmoidWithLoss)
    np.testing.assert_allclose(network.predict(x), x @ W, rtol=1e-5, atol=1e-6)
    p = 1 / (1 + np.exp(-(x.astype("float64") @ W)))
    np.testing.assert_allclose(network.gradient(x, t)["W1"] * t.size, x.T @ (p - t), rtol=1e-4, atol=1e-5)


def test_for_another_loss_it_stays():
    x = of(6, 4, seed=1)
    network = from_onnx(ending_in(("Sigmoid", ["."], {}), outputs=1), "mean-squared")
    assert isinstance(network.layers["Sigmoid1"], Sigmoid)
    np.testing.assert_allclose(network.predict(x), 1 / (1 + np.exp(-x @ (5 * of(4, 1)))), rtol=1e-5)
    network = from_onnx(ending_in(("Sigmoid", ["."], {})), "softmax")
    assert list(network.layers.layers) == ["Affine1", "Sigmoid1"]
    network = from_onnx(ending_in(*ENDS["softmax"]), HuberLoss())
    np.testing.assert_allclose(network.predict(x).sum(1), np.ones(6), rtol=1e-5)


def test_a_softmax_of_parts_stays():
    """Twice two numbers whose sum is 1 are no classes of one softmax."""
    given = model(
        (4,),
        [("Reshape", ["x", "s"], {}), ("Softmax", ["."], {"axis": 2}), ("Reshape", [".", "row"], {})],
        {"s": vector(0, 2, 2), "row": vector(0, -1)},
    )
    np.testing.assert_allclose(from_onnx(given).predict(of(6, 4)).sum(1), 2 * np.ones(6), rtol=1e-5)


def test_a_model_of_nothing_else_is_refused():
    with pytest.raises(ValueError, match=r"the model is a Softmax.* alone, which the loss computes"):
        from_onnx(model((4,), [("Softmax", ["x"], {})]))
    assert len(from_onnx(model((4,), [("Softmax", ["x"], {})]), "mean-squared").layers) == 1


def test_the_command_predicts_one_softmax(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("a,b,c,d\n1,-2,3,0.5\n0.1,0.2,-0.3,4\n")
    said = []
    for name, nodes in (("scores", ()), ("softmax", ENDS["softmax"])):
        (tmp_path / f"{name}.onnx").write_bytes(ending_in(*nodes).SerializeToString())
        said.append(xpnet("predict", "rows.csv", "--run", f"{name}.onnx"))
    assert [each.code for each in said] == [0, 0]
    assert said[0].out == said[1].out
