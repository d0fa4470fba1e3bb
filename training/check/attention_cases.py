"""The layers of transformers that ``xpnet check`` runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import layers
from training.check.inputs import numbers


def attention_layers() -> Iterator[tuple[str, Callable[[str], Any], tuple[int, ...]]]:
    """Yield layers of transformers: (operation, function that makes the layer in a dtype, input shape)."""
    yield "affine, positionwise", _positionwise, (6, 11, 20)
    for causal in (False, True):
        yield "attention", partial(_attention, causal), (3, 50, 12)
    yield "positions", lambda dtype: layers.PositionalEncoding(30, 21), (6, 30, 21)
    yield "positions", lambda dtype: layers.PositionalEmbedding(numbers((30, 21), dtype, 1)), (6, 25, 21)


def _positionwise(dtype: str) -> Any:
    return layers.PositionwiseAffine(numbers((20, 9), dtype, 1), numbers((9,), dtype, 2))


def _attention(causal: bool, dtype: str) -> Any:
    shapes = (12, 36), (36,), (12, 12), (12,)
    W_in, b_in, W_out, b_out = (numbers(shape, dtype, seed) / 4 for seed, shape in enumerate(shapes, 1))
    return layers.MultiHeadAttention(W_in, b_in, W_out, b_out, heads=3, causal=causal)
