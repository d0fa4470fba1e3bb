"""Weights from Keras 3, without Keras or TensorFlow: the file ``.weights.h5`` that ``save_weights`` writes.

Keras keeps images with their channels last and xpnet with their channels first. Filters are transposed, and so are the
rows of what comes after a ``Flatten``. A network computes what Keras's does where the layers have the same arguments;
these differ by name:

=======================  ==============================================================================================
``Affine``               is ``Dense`` without an activation, behind a ``Flatten`` where its input is not a row
``PositionwiseAffine``   is ``Dense`` without an activation, over sequences (N, T, D)
``Convolution``          is ``Conv2D``; with as many groups as channels it is ``DepthwiseConv2D``, if the file has such
``pad="same"``           is ``padding="same"``
``RNN, LSTM, GRU``       are ``SimpleRNN``, ``LSTM`` and ``GRU`` with ``return_sequences=True``, a GRU with
                         ``reset_after=True``; where Keras has one bias it becomes ``bx``, and ``bh`` is 0
``MultiHeadAttention``   is ``MultiHeadAttention(heads, size // heads)`` of x and x; ``causal`` is ``use_causal_mask``
``PositionalEmbedding``  adds an ``Embedding`` of the positions 0, 1, … to its input
``Reshape, Permute``     in turn, which make a sequence of images (C, H, W) or images of a sequence, are one ``Reshape``
``BatchNormalization``   ``momentum`` is Keras's, whose default is 0.99, and ``eps`` its epsilon, by default 0.001
``Dropout``              ``inverted=True`` is Keras's
``Gelu``                 is ``gelu(approximate=True)``
``LeakyRelu``            Keras's slope is by default 0.3, as a layer, or 0.2, as an activation
=======================  ==============================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy

from backend import asarray
from backend.checks import instance, real
from layers import BatchNormalization, Dropout, LayerNormalization
from layers.base import walk
from training.interop.conversion import converted
from training.interop.keras_file import Group, open_weights, read
from training.interop.keras_layers import variables_of
from training.interop.keras_names import matched, with_wholes
from training.interop.keras_orders import Leaf, leaves
from training.models.network import Network

N = TypeVar("N", bound=Network)


def from_keras(network: N, file: str | Path, names: Mapping[str, str] | None = None, eps: float | None = 1e-3) -> N:
    """Load the weights and running statistics of Keras's twin of a network. Return the network.

    Its dropouts become ``inverted``, as Keras's are. A bias that the file does not have is set to 0, and so are scales
    and shifts of a normalization to 1 and 0 where the file has neither.

    Args:
        network: of any ``Sequential`` of xpnet's layers with the shapes of Keras's layers, one of the zoo among them.
        file: ``*.weights.h5``, from ``model.save_weights`` of Keras 3. It is read by the package ``h5py``, which the
            extra ``keras`` installs.
        names: the group in the file by the place of each layer with parameters, as in
            ``{"Convolution1": "layers/conv2d"}``. By default the layers of each kind are taken in their order, which
            needs a model whose layers lie side by side: a ``Sequential`` or a functional model without models inside.
            Positions are of the kind of an ``Embedding``.
        eps: ε of all batch and layer normalizations, which the file does not have; None leaves them as they are.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: layers or shapes do not fit, or the file is damaged or of Keras 2; nothing is changed.
        ModuleNotFoundError: ``h5py`` is not installed.
        OSError: the file cannot be read.
    """
    instance("network", network, Network, "a Network")
    instance("file", file, (str, Path), "the name of a .weights.h5 file")
    eps = None if eps is None else real("eps", eps, least=0)
    own = leaves(network.layers, network.input_dim)
    changes = []
    with open_weights(Path(file)) as opened:
        groups = with_wholes(opened)
        found = matched([(leaf.place, leaf.layer) for leaf in own], groups, names)
        for leaf in own:
            changes += _arrays(leaf, found[leaf.place], groups[found[leaf.place]])
    for kept, array in changes:
        kept[...] = asarray(array)
    for _, layer in walk(network.layers):
        if isinstance(layer, Dropout):
            layer.inverted = True
        elif isinstance(layer, (BatchNormalization, LayerNormalization)) and eps is not None:
            layer.eps = eps
    return network


def _arrays(leaf: Leaf, name: str, group: Group) -> list[tuple[Any, numpy.ndarray]]:
    """Return a layer's arrays, each with the numbers that it gets.

    Raises:
        ValueError: the file has more or fewer, or of another shape; the message names the layer.
    """
    arrays = {**leaf.layer.params, **leaf.layer.state}
    filled = {own: numpy.full(array.shape, own == "gamma", array.dtype) for own, array in arrays.items()}
    titles, shapes = list(group), [dataset.shape for dataset in group.values()]
    for variable in variables_of(leaf, name, shapes):
        title, given = titles[variable.number], shapes[variable.number]
        if given not in variable.shapes:
            expected = " or ".join(map(str, variable.shapes))
            raise ValueError(f"{leaf}: expected {title!r} ({variable.title}) of {expected}, got {given}")
        array = variable.turned(read(title, group[title]))
        filled[variable.own][..., variable.columns] = converted(title, array, arrays[variable.own].dtype)
    return [(arrays[own], array) for own, array in filled.items()]
