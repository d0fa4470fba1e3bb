"""Find the group of a Keras weights file that belongs to each layer of a network."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from backend.checks import instance
from layers import (
    GRU,
    LSTM,
    RNN,
    Affine,
    BatchNormalization,
    Convolution,
    ConvolutionTranspose,
    Embedding,
    Layer,
    LayerNormalization,
    MultiHeadAttention,
    PositionalEmbedding,
    PositionwiseAffine,
)
from training.files import clipped
from training.interop.keras_file import Group

_KINDS: dict[type[Layer], str] = {
    Affine: "dense",
    PositionwiseAffine: "dense",
    Convolution: "conv2d",
    ConvolutionTranspose: "conv2d_transpose",
    BatchNormalization: "batch_normalization",
    LayerNormalization: "layer_normalization",
    Embedding: "embedding",
    PositionalEmbedding: "embedding",
    RNN: "simple_rnn",
    LSTM: "lstm",
    GRU: "gru",
    MultiHeadAttention: "multi_head_attention",
}
_DEPTHWISE = "depthwise_conv2d"
_PARTS = (("cell",), ("query_dense", "key_dense", "value_dense", "output_dense"))
"""The groups in which Keras keeps all variables of a recurrent layer, and those of an attention."""


def with_wholes(groups: Mapping[str, Group]) -> dict[str, Group]:
    """Return groups and, of layers that Keras keeps in parts, their wholes: "layers/lstm" of "layers/lstm/cell"."""
    wholes: dict[str, Group] = {}
    for owner, parts in _parted(groups):
        inside = {title: dataset for part in parts for title, dataset in groups[part].items()}
        wholes[owner] = {**groups.get(owner, {}), **inside}
    return {**groups, **wholes}


def _parted(groups: Collection[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each layer of which groups are all parts, and their names."""
    known = set(groups)
    for owner, _, name in (group.rpartition("/") for group in groups):
        for names in _PARTS:
            parts = [f"{owner}/{each}" for each in names]
            if owner and name == names[0] and known.issuperset(parts):
                yield owner, parts


def _without_parts(groups: Collection[str]) -> list[str]:
    parts = {part for _, parts in _parted(groups) for part in parts}
    return [group for group in groups if group not in parts]


def matched(
    layers: list[tuple[str, Layer]], groups: Iterable[str], names: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the group of each layer, by place.

    Args:
        layers: the layers with parameters, by place, in the order of the forward.
        groups: names of the groups with variables, "layers/conv2d_1", as of ``with_wholes``.
        names: the group of each layer, where it is given.

    Raises:
        TypeError: ``names`` is not a mapping.
        ValueError: layers and groups are not as many of each kind, or the order of the groups is not known.
    """
    groups = list(groups)
    if names is not None:
        return _checked(instance("names", names, Mapping, "a mapping of places to groups"), layers, groups)
    groups = _without_parts(groups)
    containers = sorted({group.rpartition("/")[0] for group in groups})
    if len(containers) > 1:
        shown = ", ".join(map(clipped, containers[:5]))
        raise ValueError(f"the file has layers in {shown}, whose order it does not say: names= says what belongs where")
    given: dict[str, list[str]] = {}
    for group in sorted(groups, key=_number):
        given.setdefault(_kind(group), []).append(group)
    wanted: dict[str, list[str]] = {}
    for place, layer in layers:
        wanted.setdefault(_kind_of(place, layer, _DEPTHWISE in given), []).append(place)
    for kind in dict.fromkeys([*wanted, *given]):
        own, theirs = wanted.get(kind, []), given.get(kind, [])
        if len(own) != len(theirs):
            others = [group for other in given if other not in wanted for group in given[other]]
            besides = f"; of other kinds the file has {_counted(others)}" if own and others else ""
            raise ValueError(
                f"the file has {_counted(theirs)} of the kind {clipped(kind)}, and the network has {_counted(own)}"
                f"{besides}: names= says what belongs where"
            )
    return {place: group for kind, own in wanted.items() for place, group in zip(own, given[kind], strict=True)}


def _checked(names: Mapping[str, str], layers: list[tuple[str, Layer]], groups: list[str]) -> dict[str, str]:
    places = [place for place, _ in layers]
    if unknown := [place for place in names if place not in places]:
        shown = ", ".join(places[:5]) + (", …" if len(places) > 5 else "")
        raise ValueError(f"names: {clipped(unknown[0])} is no layer with parameters of the network, which has {shown}")
    for place, layer in layers:
        if place not in names:
            raise ValueError(f"names: expected one for each layer with parameters, got none for {place}")
        _kind_of(place, layer, False)
        if names[place] not in groups:
            groups = _without_parts(groups)
            shown = ", ".join(map(clipped, groups[:5])) + (", …" if len(groups) > 5 else "")
            raise ValueError(f"names[{place!r}]: expected a group of the file ({shown}), got {clipped(names[place])}")
    return {place: names[place] for place, _ in layers}


def _counted(names: list[str]) -> str:
    shown = ", ".join(map(clipped, names[:4])) + (", …" if len(names) > 4 else "")
    return f"{len(names)} layers ({shown})" if names else "none"


def _kind(group: str) -> str:
    """Return the kind of a group: "conv2d" of "layers/conv2d_1"."""
    return re.sub(r"_\d+$", "", group.rpartition("/")[2])


def _number(group: str) -> int:
    """Return the place of a group among those of its kind: the first has no number."""
    found = re.search(r"_(\d{1,9})$", group)
    return int(found[1]) if found else 0


def _kind_of(place: str, layer: Layer, has_depthwise: bool) -> str:
    if has_depthwise and isinstance(layer, Convolution) and layer.groups > 1 and layer.W.shape[1] == 1:
        return _DEPTHWISE
    for own, kind in _KINDS.items():
        if isinstance(layer, own):
            return kind
    known = ", ".join(own.__name__ for own in _KINDS)
    raise ValueError(
        f"the layer {place}, {layer!r}: from_keras knows the weights of {known}, and not those of this one"
    )
