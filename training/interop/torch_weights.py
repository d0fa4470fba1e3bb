"""Weights from PyTorch, and to it: the ``state_dict`` of the same network, in a dictionary or a safetensors file.

PyTorch itself is not needed. A network computes what PyTorch's does where the layers have the same arguments; these
differ by name:

=======================  ========================================================================================
``Affine``               its weights are the transpose of ``nn.Linear``'s
``PositionwiseAffine``   is ``nn.Linear`` over sequences; its weights are the transpose, too
``MultiHeadAttention``   is ``nn.MultiheadAttention(batch_first=True)``; its weights are the transposes
``RNN, LSTM, GRU``       are PyTorch's with one layer, one direction, ``batch_first=True``; weights are the transposes
``PositionalEmbedding``  has the weights of an ``nn.Embedding`` of the positions
``BatchNormalization``   ``momentum`` is 1 - PyTorch's; ``unbiased=True`` moves the running variance as PyTorch does
``Dropout``              ``inverted=True`` is PyTorch's
``Gelu``                 is ``nn.GELU(approximate="tanh")``
``AveragePooling``       ``count_padding=True`` is PyTorch's default
=======================  ========================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy

from backend import asarray, asnumpy, is_array
from backend.checks import instance
from layers import (
    GRU,
    LSTM,
    RNN,
    Affine,
    BatchNormalization,
    Convolution,
    ConvolutionTranspose,
    Dropout,
    Embedding,
    Layer,
    LayerNormalization,
    MultiHeadAttention,
    PositionalEmbedding,
    PositionwiseAffine,
)
from layers.base import walk
from training.files import clipped
from training.files.arrays import open_arrays
from training.interop.conversion import converted
from training.interop.torch_names import Names, leaves_of, names_by_place, torchvision_names
from training.models.bound_layers import BoundLayers
from training.models.network import Network

N = TypeVar("N", bound=Network)

_OF_A_CELL = {"Wx": "weight_ih_l0", "Wh": "weight_hh_l0", "bx": "bias_ih_l0", "bh": "bias_hh_l0"}
_KEYS: dict[type[Layer], dict[str, str]] = {
    Affine: {"W": "weight", "b": "bias"},
    Convolution: {"W": "weight", "b": "bias"},
    ConvolutionTranspose: {"W": "weight", "b": "bias"},
    Embedding: {"W": "weight"},
    RNN: _OF_A_CELL,
    LSTM: _OF_A_CELL,
    GRU: _OF_A_CELL,
    PositionwiseAffine: {"W": "weight", "b": "bias"},
    PositionalEmbedding: {"W": "weight"},
    MultiHeadAttention: {
        "W_in": "in_proj_weight", "b_in": "in_proj_bias", "W_out": "out_proj.weight", "b_out": "out_proj.bias"
    },
    LayerNormalization: {"gamma": "weight", "beta": "bias"},
    BatchNormalization: {
        "gamma": "weight", "beta": "bias", "running_mean": "running_mean", "running_var": "running_var"
    },
}  # fmt: skip
_TRANSPOSED = {
    (Affine, "W"), (PositionwiseAffine, "W"), (MultiHeadAttention, "W_in"), (MultiHeadAttention, "W_out"),
    *((kind, name) for kind in (RNN, LSTM, GRU) for name in ("Wx", "Wh")),
}  # fmt: skip
_BIASES = ("b", "bx", "bh", "b_in", "b_out")
_COUNTER = "num_batches_tracked"


def from_torch(network: N, state: Mapping[str, Any] | str | Path, names: Mapping[str, str] | None = None) -> N:
    """Load the weights and running statistics of PyTorch's twin of a network. Return the network.

    Its batch normalizations become ``unbiased`` and its dropouts ``inverted``, as PyTorch's are. A bias that the state
    does not have is set to 0.

    Args:
        network: of any ``Sequential`` of xpnet's layers with the shapes of PyTorch's modules.
        state: a ``state_dict`` of tensors or arrays, or a ``.safetensors`` file of one.
        names: the name of PyTorch's module by the place of each layer with parameters, as in
            ``{"Convolution1": "conv1"}``. By default the names are torchvision's for a network of the zoo, or those of
            an ``nn.Sequential``; else the modules of a ``state_dict`` are taken in their order.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: modules or shapes do not fit, or a file is damaged; nothing is changed.
        OSError: the file cannot be read.

    Examples:
        >>> import numpy
        >>> from layers import Affine, Sequential
        >>> from training import Network
        >>> from training.interop import from_torch
        >>> network = Network(Sequential(Affine.of(2, 3)), (2,))
        >>> state = {"0.weight": numpy.arange(6.0).reshape(3, 2), "0.bias": numpy.zeros(3)}
        >>> from_torch(network, state).params["W1"]
        array([[0., 2., 4.],
               [1., 3., 5.]], dtype=float32)
    """
    instance("network", network, Network, "a Network")
    ordered = isinstance(state, Mapping)
    arrays = _read(state)
    modules: dict[str, dict[str, numpy.ndarray]] = {}
    for name, array in arrays.items():
        module, _, key = name.rpartition(".")
        if key != _COUNTER:
            modules.setdefault(module, {})[key] = array
    _join_projections(modules)
    leaves = leaves_of(network.layers)
    found = _matched(network, leaves, modules, names, ordered)
    changes = []
    for place, layer in leaves:
        given = dict(modules[found[place]])
        for own, key in _keys(place, layer).items():
            kept = {**layer.params, **layer.state}.get(own)
            if kept is not None:
                found_array = given.pop(key) if key in given else None
                changes.append((kept, _fitting(f"{found[place]}.{key}", layer, own, found_array, kept)))
        if given:
            raise ValueError(f"the layer {place}, {layer!r}, has no {clipped(f'{found[place]}.{next(iter(given))}')}")
    for kept, array in changes:
        kept[...] = asarray(array)
    for _, layer in walk(network.layers):
        if isinstance(layer, BatchNormalization):
            layer.unbiased = True
        elif isinstance(layer, Dropout):
            layer.inverted = True
    return network


def to_torch(network: BoundLayers, names: Mapping[str, str] | None = None) -> dict[str, numpy.ndarray]:
    """Return the weights and running statistics of a network as PyTorch's twin has them in a ``state_dict``.

    The arrays are NumPy's. ``module.load_state_dict({name: torch.from_numpy(a) for name, a in state.items()})`` loads
    them, and ``safetensors.numpy.save_file(state, file)`` writes a file.

    Args:
        names: as for ``from_torch``; by default torchvision's for a network of the zoo, else an ``nn.Sequential``'s.

    Raises:
        ValueError: a layer with parameters is not xpnet's, or has no name.

    Examples:
        >>> from layers import Affine, Relu, Sequential
        >>> from training import Network
        >>> from training.interop import to_torch
        >>> network = Network(Sequential(Affine.of(4, 3), Relu(), Affine.of(3, 2)), (4,))
        >>> {name: array.shape for name, array in to_torch(network).items()}
        {'0.weight': (3, 4), '0.bias': (3,), '2.weight': (2, 3), '2.bias': (2,)}
    """
    instance("network", network, BoundLayers, "a Network")
    title = getattr(network, "title", "")
    known = names or torchvision_names(title, network.layers) or names_by_place(network.layers)
    state: dict[str, numpy.ndarray] = {}
    for place, layer in leaves_of(network.layers):
        if place not in known:
            raise ValueError(f"names: expected one for the layer {place}, {layer!r}")
        for own, key in _keys(place, layer).items():
            array = {**layer.params, **layer.state}.get(own)
            if array is not None:
                state[f"{known[place]}.{key}"] = _turned(layer, own, asnumpy(array)).copy(order="C")
        if isinstance(layer, BatchNormalization):
            state[f"{known[place]}.{_COUNTER}"] = numpy.array(0, "int64")
    return state


def _read(state: Any) -> dict[str, numpy.ndarray]:
    """Return the arrays of a state by name, without the prefix that ``nn.DataParallel`` gives to all."""
    if isinstance(state, (str, Path)):
        file = Path(state)
        if file.suffix in (".pt", ".pth", ".bin"):
            raise ValueError(
                f"{file} is a pickle, which can run any code: give from_torch torch.load(file, weights_only=True), or "
                "a .safetensors file"
            )
        with open_arrays(file) as opened:
            arrays = {name: opened.read(name) for name in opened.headers}
    else:
        instance("state", state, Mapping, "a state_dict, or the name of a .safetensors file")
        arrays = {name: _on_host(name, value) for name, value in state.items()}
    if arrays and all(name.startswith("module.") for name in arrays):
        return {name.removeprefix("module."): array for name, array in arrays.items()}
    return arrays


def _on_host(name: Any, value: Any) -> numpy.ndarray:
    instance("state: a name", name, str, "a string")
    if hasattr(value, "detach"):  # a tensor
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    array = asnumpy(value) if is_array(value) else numpy.asarray(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"state: expected {clipped(name)} as numbers, got {array.dtype}")
    return array


def _matched(
    network: Network,
    leaves: list[tuple[str, Layer]],
    modules: Mapping[str, Any],
    names: Mapping[str, str] | None,
    ordered: bool,
) -> Names:
    """Return the module of each place.

    Raises:
        ValueError: with the modules that are missing or unexpected.
    """
    places = [place for place, _ in leaves]
    if names is not None:
        return _checked(names, places, modules)
    usual = torchvision_names(network.title, network.layers), names_by_place(network.layers)
    for known in filter(None, usual):
        if {known[place] for place in places} == set(modules):
            return known
    if ordered and len(modules) == len(places):
        return dict(zip(places, modules, strict=True))
    return _checked(next(filter(None, usual)), places, modules)


def _checked(names: Mapping[str, str], places: list[str], modules: Mapping[str, Any]) -> Names:
    unnamed = [place for place in places if place not in names]
    if unnamed:
        raise ValueError(f"names: expected one for each layer with parameters, got none for {unnamed[0]}")
    wanted = {place: names[place] for place in places}
    missing = [name for name in wanted.values() if name not in modules]
    unknown = [name for name in modules if name not in wanted.values()]
    for what, those in (("lacks", missing), ("has the unexpected", unknown)):
        if those:
            shown = ", ".join(map(clipped, those[:5]))
            raise ValueError(
                f"the state {what} modules {shown}{f', and {len(those) - 5} more' if len(those) > 5 else ''}: names= "
                "says which module belongs to which layer"
            )
    return wanted


def _keys(place: str, layer: Layer) -> dict[str, str]:
    for kind, keys in _KEYS.items():
        if isinstance(layer, kind):
            return keys
    raise ValueError(f"the layer {place}, {layer!r}, has parameters that PyTorch has no module for")


def _join_projections(modules: dict[str, dict[str, numpy.ndarray]]) -> None:
    """Give the arrays of an attention's module "out_proj" to the attention, which is one layer here."""
    for name in [name for name in modules if name.rpartition(".")[2] == "out_proj"]:
        attention = modules.get(name.rpartition(".")[0], {})
        if "in_proj_weight" in attention:
            attention.update({f"out_proj.{key}": array for key, array in modules.pop(name).items()})


def _turned(layer: Layer, own: str, array: numpy.ndarray) -> numpy.ndarray:
    return array.T if any(isinstance(layer, kind) and own == name for kind, name in _TRANSPOSED) else array


def _fitting(name: str, layer: Layer, own: str, array: numpy.ndarray | None, kept: Any) -> numpy.ndarray:
    """Return an array of a state in the shape and dtype of the layer's own; zeros for a bias that is missing."""
    if array is None:
        if own in _BIASES:
            return numpy.zeros(kept.shape, kept.dtype)
        raise ValueError(f"the state has no {clipped(name)}")
    array = _turned(layer, own, array)
    if array.shape != kept.shape:
        expected, given = (_turned(layer, own, each).shape for each in (kept, array))
        raise ValueError(f"expected {clipped(name)} of {expected}, got {given}")
    return converted(name, array, kept.dtype)
