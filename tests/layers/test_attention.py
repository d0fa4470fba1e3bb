"""Self-attention with several heads, and the fully connected layer over positions."""

import numpy as np
import pytest

from backend import asnumpy, xp
from layers import Affine, MultiHeadAttention, PositionwiseAffine
from tests.support.checks import assert_same, normal
from tests.support.layer_checks import Contract, Expected, LayerCase, Oracle, products


def turned(array):
    return array.swapaxes(-1, -2)


def split(packed, heads):
    n, length, size = packed.shape
    return packed.reshape(n, length, 3, heads, size // 3 // heads).transpose(2, 0, 3, 1, 4)


def merged(y):
    n, heads, length, depth = y.shape
    return y.transpose(0, 2, 1, 3).reshape(n, length, heads * depth)


def total(array):
    return array.reshape(-1, array.shape[-1]).sum(0)


def product(a, b):
    return np.tensordot(a, b, ([0, 1], [0, 1]))


class SelfAttention:
    """The formulas, over the numbers and over their absolute values: ``size`` bounds what is rounded on the way."""

    def __init__(self, p, x, heads, causal):
        self.p, self.x, self.depth = p, x, x.shape[2] // heads
        self.size_of = {name: np.abs(array) for name, array in p.items()}
        self.parts = split(x @ p["W_in"] + p["b_in"], heads)
        self.sizes = split(np.abs(x) @ self.size_of["W_in"] + self.size_of["b_in"], heads)
        q, k, v = self.parts
        scores = q @ turned(k) / np.sqrt(self.depth)
        if causal:
            scores = np.where(np.tri(x.shape[1], dtype=bool), scores, -np.inf)
        self.weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        reach = (self.sizes[0] @ turned(self.sizes[1])).max(-1, keepdims=True) / np.sqrt(self.depth)
        self.size_of_weights = self.weights * (1 + 2 * reach)
        self.y, self.size_of_y = merged(self.weights @ v), merged(self.size_of_weights @ self.sizes[2])

    def forward(self):
        out = self.y @ self.p["W_out"] + self.p["b_out"]
        size = self.size_of_y @ self.size_of["W_out"] + self.size_of["b_out"]
        return Expected(out, size, 60, 4)

    def backward(self, dout):
        dy, dp, _ = self._slopes(dout, self.p, self.parts)
        size_of_dy, size_of_dp, _ = self._slopes(np.abs(dout), self.size_of, self.sizes)
        ds = self.weights * (dp - (dp * self.weights).sum(-1, keepdims=True)) / np.sqrt(self.depth)
        mean = (size_of_dp * self.size_of_weights).sum(-1, keepdims=True)
        size_of_ds = self.size_of_weights * (size_of_dp + mean) / np.sqrt(self.depth)
        packed = self._packed(ds, self.parts, self.weights, dy)
        size = self._packed(size_of_ds, self.sizes, self.size_of_weights, size_of_dy)
        x, d = np.abs(self.x), np.abs(dout)
        return {
            "x": Expected(packed @ self.p["W_in"].T, size @ self.size_of["W_in"].T, 60, 6),
            "W_in": Expected(product(self.x, packed), product(x, size), 60, 6),
            "b_in": Expected(total(packed), total(size), 60, 6),
            "W_out": Expected(product(self.y, dout), product(self.size_of_y, d), 60, 4),
            "b_out": Expected(total(dout), total(d), 60, 1),
        }

    def _slopes(self, dout, p, parts):
        heads = parts[2].shape[1]
        dy = dout @ p["W_out"].T
        dy = dy.reshape(*dy.shape[:2], heads, self.depth).transpose(0, 2, 1, 3)
        return dy, dy @ turned(parts[2]), heads

    @staticmethod
    def _packed(ds, parts, weights, dy):
        return np.concatenate([merged(ds @ parts[1]), merged(turned(ds) @ parts[0]), merged(turned(weights) @ dy)], -1)


def of_heads(heads, causal):
    return Oracle(
        lambda p, x: SelfAttention(p, x, heads, causal).forward(),
        lambda p, dout, x: SelfAttention(p, x, heads, causal).backward(dout),
    )


def attention(size, heads, causal=False):
    def make(draw):
        return MultiHeadAttention(
            draw(size, 3 * size) / 4, draw(3 * size) / 4, draw(size, size), draw(size), heads, causal
        )

    return make


def rows(x):
    return x.reshape(-1, x.shape[-1])


def affine_forward(p, x):
    return products(lambda x, W, b=0: x @ W + b, len(p["W"]) + 1, x, *p.values())


def affine_backward(p, dout, x):
    gradients = {
        "x": products(lambda dout, W: dout @ W.T, p["W"].shape[1], dout, p["W"]),
        "W": products(lambda x, dout: rows(x).T @ rows(dout), len(rows(x)), x, dout),
        "b": products(total, len(rows(x)), dout),
    }
    return {name: value for name, value in gradients.items() if name == "x" or name in p}


AFFINE = Oracle(affine_forward, affine_backward)

CASES = [
    LayerCase("MultiHeadAttention", attention(6, 2), (2, 5, 6), of_heads(2, False)),
    LayerCase("MultiHeadAttention, causal", attention(4, 1, True), (3, 4, 4), of_heads(1, True)),
    LayerCase("MultiHeadAttention of one position", attention(3, 3), (2, 1, 3), of_heads(3, False)),
    LayerCase(
        "PositionwiseAffine", lambda draw: PositionwiseAffine(draw(3, 4), draw(4)), (2, 5, 3), AFFINE
    ),
    LayerCase("PositionwiseAffine without a bias", lambda draw: PositionwiseAffine(draw(3, 2)), (2, 4, 3), AFFINE),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
class TestContract(Contract):
    pass


@pytest.mark.parametrize("causal", [False, True])
def test_pytorch(causal):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: attention is not compared with it")
    size, length = 12, 7
    layer = MultiHeadAttention.of(size, 3, causal, "float64")
    layer.b_in, layer.b_out = normal((3 * size,), "float64", 1), normal((size,), "float64", 2)
    twin = torch.nn.MultiheadAttention(size, 3, batch_first=True, dtype=torch.float64)
    state = {"in_proj_weight": layer.W_in.T, "in_proj_bias": layer.b_in}
    state |= {"out_proj.weight": layer.W_out.T, "out_proj.bias": layer.b_out}
    twin.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in state.items()})
    given = torch.from_numpy(normal((2, length, size), "float64", 3)).requires_grad_()
    dout = normal((2, length, size), "float64", 4)
    mask = torch.triu(torch.ones(length, length, dtype=bool), 1) if causal else None
    y, _ = twin(given, given, given, need_weights=False, attn_mask=mask)
    y.backward(torch.from_numpy(dout))
    np.testing.assert_allclose(layer.forward(given.detach().numpy()), y.detach().numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(layer.backward(dout), given.grad.numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(layer.dW_in, twin.in_proj_weight.grad.numpy().T, rtol=0, atol=1e-12)
    np.testing.assert_allclose(layer.db_in, twin.in_proj_bias.grad.numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(layer.dW_out, twin.out_proj.weight.grad.numpy().T, rtol=0, atol=1e-12)
    np.testing.assert_allclose(layer.db_out, twin.out_proj.bias.grad.numpy(), rtol=0, atol=1e-12)


def test_a_causal_layer_sees_no_later_position(device):
    layer, x = MultiHeadAttention.of(8, 2, causal=True), normal((2, 6, 8))
    y = asnumpy(layer.forward(x))
    x[:, 4:] += 1
    moved = asnumpy(layer.forward(x))
    assert_same(moved[:, :4], y[:, :4])
    assert (moved[:, 4:] != y[:, 4:]).any(axis=2).all()


def test_each_position_has_the_weights_of_one_affine_layer(device):
    layer, x = PositionwiseAffine.of(4, 3), normal((2, 5, 4))
    assert_same(layer.forward(x).reshape(10, 3), Affine(layer.W, layer.b).forward(x.reshape(10, 4)))


@pytest.mark.parametrize("make", [lambda: MultiHeadAttention.of(4, 2), lambda: PositionwiseAffine.of(4, 3)])
def test_frozen_and_first(device, make):
    """Without what is not asked for: gradients of parameters, or of the input."""
    layer, x = make(), normal((2, 3, 4))
    dx = layer.backward(layer.forward(x))
    layer = make()
    layer.frozen = True
    assert layer.backward(layer.forward(x)).shape == dx.shape
    assert layer.grads == {}
    layer = make()
    layer.input_gradient = False
    assert layer.backward(layer.forward(x)) is None
    assert set(layer.grads) == set(layer.params)


def test_what_does_not_fit_is_refused(device):
    W_in, b_in, W_out, b_out = (xp.ones(shape, "float32") for shape in ((4, 12), (12,), (4, 4), (4,)))
    with pytest.raises(ValueError, match="heads must divide size 4, got 3"):
        MultiHeadAttention(W_in, b_in, W_out, b_out, 3)
    with pytest.raises(ValueError, match="heads must divide features 4, got 3"):
        MultiHeadAttention.of(4, 3)
    with pytest.raises(ValueError, match=r"needs W_in \(size, 3·size\).*, got \(4, 8\), \(12,\)"):
        MultiHeadAttention(W_in[:, :8], b_in, W_out, b_out)
    for layer in (MultiHeadAttention(W_in, b_in, W_out, b_out, 2), PositionwiseAffine(W_in)):
        for shape in ((5, 3), (4,), (2, 5, 4)):
            with pytest.raises(ValueError, match=r"takes sequences \(T, 4\), got"):
                layer.forward(xp.ones((2, *shape), "float32"))
