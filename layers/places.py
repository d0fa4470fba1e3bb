"""The scores and labels of steps of sequences, and of pixels, as those of samples."""

from __future__ import annotations

import math

from backend import require_arrays
from backend.types import Array
from kernels.core.layout import as_nchw, to_nhwc


def as_rows(x: Array, t: Array) -> tuple[Array, Array]:
    """Return scores of steps (N, T, classes) or pixels (N, classes, H, W), and their labels, as those of samples.

    Raises:
        ValueError: the labels are of another shape.
    """
    t = label_rows(t, x.shape)
    if x.ndim == 4:
        x = to_nhwc(x)
    return x.reshape(len(t), x.shape[-1]), t


def label_rows(t: Array, scores: tuple[int, ...], *, distributions: bool = True) -> Array:
    """Return labels of scores (N, T, classes) or (N, classes, H, W) as those of samples, (rows,) or (rows, classes).

    Raises:
        ValueError: they are of another shape than (N, T) or (N, H, W) or, if distributions will do, that of the scores.
    """
    require_arrays(t=t)
    is_pixels = len(scores) == 4
    places = (scores[0], *scores[2:]) if is_pixels else scores[:2]
    if t.shape != places and not (distributions and t.shape == scores):
        forms = f"{places} or {scores}" if distributions else f"{places}"
        raise ValueError(f"labels for scores of {scores} are {forms}, got {t.shape}")
    rows = math.prod(places)
    if t.ndim < len(scores):
        return t.reshape(rows)
    # Not `to_nhwc`: labels are checked on the host, too, where a GPU is active.
    return (t.transpose(0, 2, 3, 1) if is_pixels else t).reshape(rows, scores[1 if is_pixels else -1])


def as_scores(rows: Array, shape: tuple[int, ...]) -> Array:
    """Return rows of numbers, one for each sample, step or pixel, in the shape of the scores."""
    if len(shape) != 4:
        return rows.reshape(shape)
    n, classes, h, w = shape
    return as_nchw(rows.reshape(n, h, w, classes))
