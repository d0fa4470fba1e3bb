"""Show a network in a notebook: a table of its layers."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from layers.base import walk

if TYPE_CHECKING:
    from training.models.network import Network

_HEADS = ("layer", "type", "output", "parameters")


def network_table(network: Network) -> str:
    """Return an HTML table with a network's layers, the shapes of their outputs and the numbers of their parameters.

    Frozen layers are marked. It has no styles, scripts or links, so that a notebook's own style holds.
    """
    total = network.params.flat.size
    made = network.output_dim if network.has_places else network.classes
    title = f"{network.title}: {network.input_dim} → {made}, {total:,} parameters, "
    rows, shape = [], network.input_dim
    for name, layer in network.layers.sublayers():
        shape = layer.output_shape(shape)
        count = sum(array.size for array in layer.params.values())
        leaves = [leaf for _, leaf in walk(layer) if leaf.params and not leaf.sublayers()]
        frozen = " (frozen)" if leaves and all(leaf.frozen for leaf in leaves) else ""
        kind = f"{type(layer).__name__}({'' if layer.sublayers() else layer.describe()})"
        rows.append((name + frozen, kind, " x ".join(map(str, shape)), f"{count:,}" if count else ""))
    head = "".join(f"<th>{cell}</th>" for cell in _HEADS)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    caption = f"<caption>{escape(title + repr(network.last_layer))}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
