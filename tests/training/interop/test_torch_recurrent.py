"""PyTorch's recurrent layers and embeddings: weights in and out, the same forward, and the same gradients."""

import importlib.util

import numpy as np
import pytest

from layers import GRU, LSTM, RNN, Affine, Embedding, Flatten, Sequential
from training.interop import from_torch, to_torch
from training.models import Network

HAS_TORCH = importlib.util.find_spec("torch") is not None
if HAS_TORCH:
    import torch
    from torch import nn

    torch.set_num_threads(1)  # its threads and xpnet's would wait for each other

KINDS = {"RNN": RNN, "LSTM": LSTM, "GRU": GRU}
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed; the extra `bench` has it")


def pair(kind, vocabulary=11, size=6, hidden=9, steps=7, classes=4, dtype="float32"):
    """Return a network of indices and PyTorch's twin of it, with the twin's weights."""

    class Twin(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(vocabulary, size)
            self.cell = getattr(nn, kind)(size, hidden, batch_first=True)
            self.head = nn.Linear(steps * hidden, classes)

        def forward(self, x):
            return self.head(self.cell(self.embedding(x))[0].flatten(1))

    torch.manual_seed(3)
    twin = Twin().to(getattr(torch, dtype))
    layers = Embedding.of(vocabulary, size), KINDS[kind].of(size, hidden), Flatten(), Affine.of(steps * hidden, classes)
    network = Network(Sequential(*layers), (steps,)).astype(dtype)
    names = {"Embedding1": "embedding", f"{kind}1": "cell", "Affine1": "head"}
    return from_torch(network, twin.state_dict(), names), twin, names


@needs_torch
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
def test_forward_and_gradients_are_pytorchs(kind, dtype, tolerance):
    network, twin, names = pair(kind, dtype=dtype)
    rng = np.random.default_rng(0)
    x, t = rng.integers(0, 11, (5, 7)), rng.integers(0, 4, 5)
    scores = twin(torch.from_numpy(x))
    nn.functional.cross_entropy(scores, torch.from_numpy(t)).backward()
    np.testing.assert_allclose(network.predict(x), scores.detach().numpy(), rtol=0, atol=tolerance)
    network.step_gradients(x, t)
    gradients = {
        name: {"Wx": "weight_ih_l0", "Wh": "weight_hh_l0", "bx": "bias_ih_l0", "bh": "bias_hh_l0"} for name in KINDS
    }
    for place, layer in network.layers.layers.items():
        keys = gradients.get(type(layer).__name__, {"W": "weight", "b": "bias"})
        for name, gradient in layer.grads.items():
            expected = getattr(getattr(twin, names[place]), keys[name]).grad.numpy()
            found = gradient.T if name in ("Wx", "Wh") or (place == "Affine1" and name == "W") else gradient
            np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, err_msg=f"{place}.{name}")


@needs_torch
@pytest.mark.parametrize("kind", KINDS)
def test_weights_go_back_to_pytorch(kind):
    network, twin, names = pair(kind)
    found = to_torch(network, names)
    assert list(found) == list(twin.state_dict())
    for name, tensor in twin.state_dict().items():
        np.testing.assert_array_equal(found[name], tensor.numpy())


def test_biases_that_are_missing_are_zero():
    network = Network(Sequential(LSTM.of(3, 2), Flatten(), Affine.of(8, 2)), (4, 3))
    state = to_torch(network)
    kept = {name: array for name, array in state.items() if "bias" not in name}
    network.layers["LSTM1"].bh[...] = 5
    from_torch(network, kept)
    assert not network.layers["LSTM1"].bh.any()
    assert state["0.weight_ih_l0"].shape == (8, 3)
    assert state["0.weight_hh_l0"].shape == (8, 2)


@pytest.mark.parametrize(("change", "words"), [
    ({"0.weight_ih_l0": np.zeros((3, 8))}, r"expected '?0.weight_ih_l0'? of \(8, 3\), got \(3, 8\)"),
    ({"0.weight_ih_l1": np.zeros((8, 2))}, "has no '?0.weight_ih_l1"),
])  # fmt: skip
def test_other_shapes_and_more_layers_are_refused(change, words):
    network = Network(Sequential(LSTM.of(3, 2), Flatten(), Affine.of(8, 2)), (4, 3))
    with pytest.raises(ValueError, match=words):
        from_torch(network, to_torch(network) | change)
