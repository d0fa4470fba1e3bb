"""Keras's weights of sequences without Keras: files that Keras wrote, and what is refused by name."""

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from layers import (
    GRU,
    LSTM,
    RNN,
    Affine,
    Embedding,
    Flatten,
    MultiHeadAttention,
    Permute,
    PositionalEmbedding,
    PositionwiseAffine,
    Reshape,
    Sequential,
)
from layers.initializers import unfilled
from tests.support.networks import KERAS_EXAMPLES
from training.interop import from_keras
from training.interop.keras_names import matched
from training.interop.keras_orders import leaves
from training.models import Network
from training.zoo import CHARACTER_NETWORKS, NETWORKS, PLACE_NETWORKS, layers_of, usual_size

FOLDER = Path(__file__).parent / "keras"
HAS_H5PY = importlib.util.find_spec("h5py") is not None
if HAS_H5PY:
    import h5py

needs_h5py = pytest.mark.skipif(not HAS_H5PY, reason="h5py is not installed; the extra `keras` has it")


def written(tmp_path, **groups):
    """Write float64 variables of these shapes as Keras does, with numbers of their own; return the file and them.

    A group's name has "__" for "/".
    """
    rng, file, arrays = np.random.default_rng(0), tmp_path / "model.weights.h5", {}
    with h5py.File(file, "w") as opened:
        for group, shapes in groups.items():
            arrays[group] = [rng.standard_normal(shape) for shape in shapes]
            for number, array in enumerate(arrays[group]):
                opened[f"layers/{group.replace('__', '/')}/vars/{number}"] = array
    return file, arrays


def network_of(layer, shape):
    return Network(Sequential(layer), shape)


@needs_h5py
@pytest.mark.parametrize("name", ["recurrent", "attention"])
def test_a_file_of_keras_gives_what_keras_computes(name, tmp_path):
    """Keras 3.15.1 with JAX wrote files and outputs by ``python -m tests.support.keras_twins recurrent attention``."""
    file = tmp_path / "model.weights.h5"
    file.write_bytes(gzip.decompress((FOLDER / f"{name}.weights.h5.gz").read_bytes()))
    network = from_keras(KERAS_EXAMPLES[name](), file)
    with np.load(FOLDER / f"{name}.npz") as known:
        found = network.predict(known["x"])
        assert found.shape == known["y"].shape
        assert float(abs(found - known["y"]).max()) <= 1e-5 * float(abs(known["y"]).max())


@pytest.mark.parametrize("name", [*NETWORKS, *PLACE_NETWORKS])
def test_every_network_of_the_zoo_has_kinds_and_orders_of_keras(name):
    _, classes = usual_size(name)
    shape = (7,) if name in CHARACTER_NETWORKS else (3, 32, 32)
    with unfilled():
        layers = layers_of(name, shape, classes)
        found = [(leaf.place, leaf.layer) for leaf in leaves(layers, shape)]
        with pytest.raises(ValueError, match=r"^the file has none of the kind '[a-z_0-9]+', and the network has "):
            matched(found, [])


@needs_h5py
def test_the_bias_that_keras_has_once_is_that_of_the_inputs(tmp_path):
    for kind, group in ((RNN, "simple_rnn"), (LSTM, "lstm")):
        columns = kind.gates * 2
        file, arrays = written(tmp_path, **{f"{group}__cell": [(3, columns), (2, columns), (columns,)]})
        layer = kind.of(3, 2, dtype="float64")
        layer.bx[...] = layer.bh[...] = 5
        from_keras(network_of(layer, (4, 3)), file)
        for own, given in zip((layer.Wx, layer.Wh, layer.bx), arrays[f"{group}__cell"], strict=True):
            np.testing.assert_array_equal(own, given)
        assert not layer.bh.any()


@needs_h5py
def test_the_gates_of_a_gru_change_places_and_its_two_biases_too(tmp_path):
    file, arrays = written(tmp_path, gru__cell=[(3, 6), (2, 6), (2, 6)])
    layer = GRU.of(3, 2, dtype="float64")
    from_keras(network_of(layer, (4, 3)), file)
    kernel, recurrent, (of_inputs, of_states) = arrays["gru__cell"]
    for own, given in ((layer.Wx, kernel), (layer.Wh, recurrent), (layer.bx, of_inputs), (layer.bh, of_states)):
        z, r, h = (given[..., 2 * gate : 2 * gate + 2] for gate in range(3))
        np.testing.assert_array_equal(own, np.concatenate((r, z, h), -1))


@needs_h5py
def test_the_heads_of_an_attention_lie_side_by_side(tmp_path):
    shapes = {f"multi_head_attention__{part}_dense": [(6, 2, 3), (2, 3)] for part in ("key", "query", "value")}
    shapes["multi_head_attention__output_dense"] = [(2, 3, 6), (6,)]
    file, arrays = written(tmp_path, **shapes)
    layer = MultiHeadAttention.of(6, 2, dtype="float64")
    from_keras(network_of(layer, (4, 6)), file)
    for place, part in enumerate(("query", "key", "value")):
        kernel, bias = arrays[f"multi_head_attention__{part}_dense"]
        for head, number in np.ndindex(2, 3):
            column = 6 * place + 3 * head + number
            np.testing.assert_array_equal(layer.W_in[:, column], kernel[:, head, number])
            assert layer.b_in[column] == bias[head, number]
    kernel, bias = arrays["multi_head_attention__output_dense"]
    for head, number in np.ndindex(2, 3):
        np.testing.assert_array_equal(layer.W_out[3 * head + number], kernel[head, number])
    np.testing.assert_array_equal(layer.b_out, bias)


@needs_h5py
def test_positions_are_an_embedding_behind_that_of_the_indices(tmp_path):
    file, arrays = written(tmp_path, embedding=[(9, 2)], embedding_1=[(4, 2)])
    layers = Sequential(Embedding.of(9, 2, dtype="float64"), PositionalEmbedding.of(4, 2, dtype="float64"))
    network = from_keras(Network(layers, (4,)), file)
    indices = np.array([[3, 0, 8, 3]])
    expected = arrays["embedding"][0][indices] + arrays["embedding_1"][0]
    np.testing.assert_array_equal(network.predict(indices), expected)


@needs_h5py
def test_a_sequence_of_images_and_images_of_a_sequence(tmp_path):
    """Keras has ``Reshape`` alone for both, since its channels are last."""
    file, arrays = written(tmp_path, dense=[(4, 5)], dense_1=[(30, 3)])
    layers = [
        *(Reshape((4, 6)), Permute((2, 1)), PositionwiseAffine.of(4, 5, dtype="float64", bias=False)),
        *(Permute((2, 1)), Reshape((5, 2, 3)), Flatten(), Affine.of(30, 3, dtype="float64", bias=False)),
    ]
    network = from_keras(Network(Sequential(*layers), (4, 2, 3)), file)
    x = np.random.default_rng(1).random((7, 4, 2, 3))
    expected = (x.transpose(0, 2, 3, 1).reshape(7, 6, 4) @ arrays["dense"][0]).reshape(7, 30) @ arrays["dense_1"][0]
    np.testing.assert_allclose(network.predict(x), expected, rtol=1e-12)


@needs_h5py
def test_names_take_a_whole_layer_and_the_parts_of_ones_own(tmp_path):
    """Keras has ``RNN(LSTMCell(2))`` in layers/rnn/cell, and the parts of a layer of one's own by its attributes."""
    file, arrays = written(
        tmp_path,
        rnn__cell=[(3, 8), (2, 8), (8,)],
        **{f"block__{part}_dense": [(2, 2)] for part in ("key", "query", "value", "output")},
    )
    lstm, affine = LSTM.of(3, 2, dtype="float64"), PositionwiseAffine.of(2, 2, dtype="float64")
    network = Network(Sequential(lstm, affine), (4, 3))
    with pytest.raises(
        ValueError, match=r"the file has none of the kind 'lstm', .*; of other kinds the file has 2 layers"
    ):
        from_keras(network, file)
    from_keras(network, file, {"LSTM1": "layers/rnn", "PositionwiseAffine1": "layers/block/key_dense"})
    np.testing.assert_array_equal(lstm.Wx, arrays["rnn__cell"][0])
    np.testing.assert_array_equal(affine.W, arrays["block__key_dense"][0])
    with pytest.raises(ValueError, match=r"a group of the file \('layers/block', 'layers/rnn'\), got 'layers/lstm'"):
        from_keras(network, file, {"LSTM1": "layers/lstm", "PositionwiseAffine1": "layers/block/key_dense"})


def attention(size=(6, 2, 3), **changed):
    """Return the groups of an attention, by default of 6 numbers and 2 heads."""
    parts = {part: [size, size[1:]] for part in ("query", "key", "value")} | {
        "output": [(*size[1:], size[0]), size[:1]]
    }
    return {f"multi_head_attention__{part}_dense": shapes for part, shapes in (parts | changed).items()}


REFUSED = {
    "reset before the product": (
        lambda: network_of(GRU.of(3, 2), (4, 3)),
        {"gru__cell": [(3, 6), (2, 6), (6,)]},
        r"GRU1, .*expected the bias of \(2, 6\) of a GRU with reset_after=True, got one of \(6,\) in 'layers/gru'",
    ),
    "fewer units": (
        lambda: network_of(LSTM.of(3, 2), (4, 3)),
        {"lstm__cell": [(3, 4), (1, 4), (4,)]},
        r"LSTM1, .*'layers/lstm/cell/vars/0' \(kernel\) of \(3, 8\), got \(3, 4\)",
    ),
    "a cell with more": (
        lambda: network_of(RNN.of(3, 2), (4, 3)),
        {"simple_rnn__cell": [(3, 2), (2, 2), (2,), (2,)]},
        r"RNN1, .*expected 2 or 3 variables in 'layers/simple_rnn', got 4",
    ),
    "another number of heads": (
        lambda: network_of(MultiHeadAttention.of(6, 3), (4, 6)),
        attention(),
        r"'layers/multi_head_attention/query_dense/vars/0' \(kernel of the query\) of \(6, 3, 2\), got \(6, 2, 3\)",
    ),
    "heads wider than the numbers": (
        lambda: network_of(MultiHeadAttention.of(6, 2), (4, 6)),
        attention((6, 2, 4)),
        r"\(kernel of the query\) of \(6, 2, 3\), got \(6, 2, 4\)",
    ),
    "an output without a bias": (
        lambda: network_of(MultiHeadAttention.of(6, 2), (4, 6)),
        attention(output=[(2, 3, 6)]),
        r"MultiHeadAttention1, .*expected 4 or 8 variables in 'layers/multi_head_attention', got 7",
    ),
    "an embedding with more indices": (
        lambda: network_of(Embedding.of(5, 2), (4,)),
        {"embedding": [(6, 2)]},
        r"Embedding1, .*'layers/embedding/vars/0' \(embeddings\) of \(5, 2\), got \(6, 2\)",
    ),
    "two directions": (
        lambda: network_of(LSTM.of(3, 2), (4, 3)),
        {f"bidirectional__{way}_layer__cell": [(3, 8), (2, 8), (8,)] for way in ("forward", "backward")},
        r"none of the kind 'lstm', .*; of other kinds the file has 2 layers \('layers/bidirectional/backward_layer', ",
    ),
}


@needs_h5py
@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_and_nothing_changes(case, tmp_path):
    build, groups, message = REFUSED[case]
    network = build()
    before = network.params.flat.copy()
    with pytest.raises(ValueError, match=message):
        from_keras(network, written(tmp_path, **groups)[0])
    np.testing.assert_array_equal(network.params.flat, before)


def test_indices_of_images_are_refused(tmp_path):
    network = Network(Sequential(Embedding.of(5, 2), Flatten(), Affine.of(24, 3)), (4, 3))
    with pytest.raises(ValueError, match=r"Embedding1, .*: expected indices \(T,\) of a sequence .*, got \(4, 3\)"):
        from_keras(network, tmp_path / "a.weights.h5")


@pytest.mark.parametrize("layers", [[Reshape((4, 6))], [Reshape((8, 3)), Permute((2, 1))]])
def test_a_sequence_in_an_order_that_keras_does_not_have_is_refused(layers, tmp_path):
    _, features = Sequential(*layers).output_shape((4, 2, 3))
    network = Network(Sequential(*layers, PositionwiseAffine.of(features, 2)), (4, 2, 3))
    with pytest.raises(ValueError, match=r"the layer Reshape1, .* orders numbers by channels, and Keras's by pixels"):
        from_keras(network, tmp_path / "a.weights.h5")
