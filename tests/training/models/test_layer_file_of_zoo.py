"""Every network of the zoo can be written as a file of layers."""

import json

import pytest

from layers import (
    GRU,
    LSTM,
    RNN,
    Affine,
    Convolution,
    ConvolutionTranspose,
    Embedding,
    PositionalEmbedding,
    PositionalEncoding,
    PositionwiseAffine,
    Sequential,
)
from layers.base import walk
from layers.initializers import unfilled
from training.models import build_for
from training.models.architecture import describe
from training.zoo import CHARACTER_NETWORKS, NETWORKS, PLACE_NETWORKS

OF_SHAPES = {
    Affine: lambda layer: {"outputs": layer.W.shape[1], "bias": layer.b is not None},
    Convolution: lambda layer: {"filters": len(layer.W), "size": layer.W.shape[2:], "bias": layer.b is not None},
    ConvolutionTranspose: lambda layer: {
        "filters": layer.W.shape[1], "size": layer.W.shape[2:], "bias": layer.b is not None
    },
    Embedding: lambda layer: {"count": layer.W.shape[0], "size": layer.W.shape[1]},
    PositionalEmbedding: lambda layer: {"length": len(layer.W)},
    PositionwiseAffine: lambda layer: {"outputs": layer.W.shape[1], "bias": layer.b is not None},
    **dict.fromkeys((RNN, LSTM, GRU), lambda layer: {"hidden": len(layer.Wh)}),
}  # fmt: skip
"""Arguments that the shapes of a layer's parameters tell, by its type."""
OF_DEFAULTS = ("eps", "unbiased")
"""Arguments of constructors that ``of`` does not take: networks of the zoo have their defaults."""


def table(layer):
    """Return a layer as a table of a file, without what the layer before it decides."""
    kind = type(layer)
    if layer.sublayers():
        inside = {name: rows(each) for name, each in layer.sublayers()}
        return {"type": kind.__name__, **inside}
    plain = {
        name: value for name, value in describe(layer)["arguments"].items()
        if value is not None and not isinstance(value, dict) and name not in OF_DEFAULTS
    }  # fmt: skip
    if kind is PositionalEncoding:
        del plain["size"]
    return {"type": kind.__name__, **plain, **OF_SHAPES.get(kind, lambda _: {})(layer)}


def rows(layer):
    return [table(each) for each in (layer.layers.values() if isinstance(layer, Sequential) else [layer])]


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {toml(each)}" for name, each in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def leaves(layers):
    """Return the layers without others inside, by their places: a file has rows of layers as bodies and shortcuts."""
    found = {}
    for place, layer in walk(layers):
        if not layer.sublayers():
            alone = place.rpartition(".")[2] in ("body", "shortcut")
            found[f"{place}.{type(layer).__name__}1" if alone else place] = repr(layer), describe(layer)
    return found


@pytest.mark.parametrize("name", [*NETWORKS, *PLACE_NETWORKS])
def test_a_network_of_the_zoo_written_in_a_file_is_that_network(name, tmp_path):
    shape, classes = ((50,), 65) if name in CHARACTER_NETWORKS else ((3, 32, 32), 10)
    file = tmp_path / "net.toml"
    with unfilled():
        network = build_for(name, shape, classes)
        *tables, last = rows(network.layers)
        last["outputs" if "outputs" in last else "filters"] = "classes"
        file.write_text(f"layers = {toml([*tables, last])}\n", encoding="utf-8")
        again = build_for(str(file), shape, classes)
    assert leaves(again.layers) == leaves(network.layers)
    assert list(again.params) == list(network.params)
    assert (again.output_dim, again.classes) == (network.output_dim, network.classes)
