"""Attention as graphs of other programs write it, compared with onnxruntime."""

import importlib.util

import numpy as np
import pytest

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
pytestmark = pytest.mark.skipif(not HAS_ONNX, reason="onnx and onnxruntime, which it is compared with, are missing")
if HAS_ONNX:
    import onnx
    import onnxruntime
    from onnx import helper, numpy_helper

    from layers import LayerNormalization, MultiHeadAttention, PositionwiseAffine, Residual, Sequential
    from training.interop.onnx_import import layers_from_onnx

N, T, HEADS, SIZE = 3, 5, 2, 4
FEATURES = HEADS * SIZE
RNG = np.random.default_rng(0)
LATER = ~np.tri(T, dtype=bool)


def numbers(*shape):
    return RNG.standard_normal(shape).astype("float32")


class Graph:
    """Nodes over an input x (N, T, FEATURES)."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, array):
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, kind, *inputs, outputs=1, **attributes):
        given = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        names = [f"{kind}{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, given, names, **attributes))
        return names[0] if outputs == 1 else names

    def affine(self, x, inputs, outputs):
        return self.node("Add", self.node("MatMul", x, numbers(inputs, outputs)), numbers(outputs))

    def heads(self, x, perm=(0, 2, 1, 3)):
        return self.node("Transpose", self.node("Reshape", x, np.array([0, T, HEADS, SIZE])), perm=perm)

    def joined(self, y):
        return self.node("Reshape", self.node("Transpose", y, perm=(0, 2, 1, 3)), np.array([-1, T, FEATURES]))

    def model(self, y, shape=("N", T, FEATURES)):
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes, "g", [value("x", 1, ["N", T, FEATURES])], [value(y, 1, shape)], self.constants
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def separate(graph, x, hide=lambda graph, scores: scores, axis=-1):
    """Products for queries, keys and values, each with its own weights, as most programs write them."""
    q, k, v = (graph.affine(x, FEATURES, FEATURES) for _ in range(3))
    scores = graph.node("MatMul", graph.heads(q), graph.heads(k, (0, 2, 3, 1)))
    scores = hide(graph, graph.node("Div", scores, np.float32(2)))
    y = graph.node("MatMul", graph.node("Softmax", scores, axis=axis), graph.heads(v))
    return graph.affine(graph.joined(y), FEATURES, FEATURES)


def split(graph, x):
    """One product, split; queries are scaled, keys turned on their way."""
    parts = graph.node("Split", graph.affine(x, FEATURES, 3 * FEATURES), np.array([FEATURES] * 3), outputs=3, axis=2)
    q, k, v = (graph.heads(part) for part in parts)
    q = graph.node("Mul", q, np.float32(0.5))
    scores = graph.node("MatMul", q, graph.node("Transpose", k, perm=(0, 1, 3, 2)))
    y = graph.node("MatMul", graph.node("Softmax", scores, axis=3), v)
    return graph.node("MatMul", graph.joined(y), numbers(FEATURES, FEATURES))


def added(graph, scores):
    return graph.node("Add", scores, np.where(LATER, -1e9, 0).astype("float32")[None, None])


def chosen(graph, scores):
    return graph.node("Where", LATER, np.float32(-np.inf), scores)


def run(model, x):
    (y,) = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    ).run(None, {"x": x})  # fmt: skip
    return y


@pytest.mark.parametrize(("write", "causal"), [
    (separate, False), (split, False),
    (lambda graph, x: separate(graph, x, added), True), (lambda graph, x: separate(graph, x, chosen), True),
], ids=["separate", "split", "added mask", "chosen mask"])  # fmt: skip
def test_attention_is_one_layer(write, causal):
    graph = Graph()
    model = graph.model(write(graph, "x"))
    layers, x = layers_from_onnx(model), numbers(N, T, FEATURES)
    (layer,) = layers.layers.values()
    assert (type(layer), layer.heads, layer.causal) == (MultiHeadAttention, HEADS, causal)
    np.testing.assert_allclose(layers.forward(x), run(model, x), rtol=0, atol=1e-5)


def test_attention_in_a_block():
    graph = Graph()
    normal = graph.node("LayerNormalization", "x", numbers(FEATURES), numbers(FEATURES), axis=-1)
    y = graph.node("Add", separate(graph, normal, added), "x")
    model = graph.model(graph.affine(y, FEATURES, 3), ("N", T, 3))
    layers, x = layers_from_onnx(model), numbers(N, T, FEATURES)
    residual, last = layers.layers.values()
    assert (type(residual), type(last)) == (Residual, PositionwiseAffine)
    assert isinstance(residual.body, Sequential)
    assert [type(layer) for layer in residual.body.layers.values()] == [LayerNormalization, MultiHeadAttention]
    np.testing.assert_allclose(layers.forward(x), run(model, x), rtol=1e-5, atol=1e-5)  # of numbers up to 100


def test_values_without_a_product_of_their_own():
    """x itself, in heads, is looked up: softmax(x·xᵀ)·x."""
    graph = Graph()
    scores = graph.node("MatMul", graph.heads("x"), graph.heads("x", (0, 2, 3, 1)))
    y = graph.joined(graph.node("MatMul", graph.node("Softmax", scores, axis=-1), graph.heads("x")))
    model = graph.model(y)
    layers, x = layers_from_onnx(model), numbers(N, T, FEATURES)
    assert [type(layer) for layer in layers.layers.values()] == [MultiHeadAttention]
    np.testing.assert_allclose(layers.forward(x), run(model, x), rtol=0, atol=1e-5)


def hidden_column(graph, scores):
    return graph.node("Where", np.arange(T) == 1, np.float32(-np.inf), scores)


def biased(graph, scores):
    return graph.node("Add", scores, numbers(T, T))


def positions_mixed(graph, x):
    return separate(graph, graph.node("MatMul", numbers(T, T), x))


def reversed_queries(graph, x):
    q, k, v = (graph.affine(x, FEATURES, FEATURES) for _ in range(3))
    q = graph.node("Gather", graph.heads(q), np.arange(T)[::-1].copy(), axis=2)
    scores = graph.node("MatMul", q, graph.heads(k, (0, 2, 3, 1)))
    return graph.joined(graph.node("MatMul", graph.node("Softmax", scores, axis=-1), graph.heads(v)))


@pytest.mark.parametrize("write", [
    lambda graph, x: separate(graph, x, hidden_column), lambda graph, x: separate(graph, x, biased),
    lambda graph, x: separate(graph, x, axis=2), positions_mixed, reversed_queries,
], ids=["another mask", "biased scores", "another axis", "mixed positions", "reversed queries"])  # fmt: skip
def test_what_the_layer_does_not_compute_is_refused_by_its_node(write):
    graph = Graph()
    model = graph.model(write(graph, "x"))
    onnx.checker.check_model(model)
    run(model, numbers(N, T, FEATURES))  # it is a model
    with pytest.raises(ValueError, match="the node '"):
        layers_from_onnx(model)
