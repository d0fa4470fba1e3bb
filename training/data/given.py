"""Check the samples that a loader is given."""

from __future__ import annotations

import math
from typing import Any

import numpy

from backend import asnumpy, checks
from backend.foreign import opened
from kernels import labels as label_checks
from kernels import targets as target_checks
from training.data.inputs import BLOCK_BYTES, Inputs, as_inputs, is_mapped

MOST_CLASSES = 1 << 31
"""Labels are int32: from minus this number to below it."""


def checked_samples(images: Any, labels: Any) -> tuple[Inputs, numpy.ndarray]:
    """Return images as inputs, and labels or other targets as an array on the host.

    Raises:
        TypeError: one is not an array, or of no dtype that can be trained on.
        ValueError: shapes do not match, there are no samples, or a class index does not fit into int32.
    """
    if not isinstance(images, Inputs) and not is_mapped(images):
        images = _on_host("images", images)
    labels = _on_host("labels", labels)
    if not are_indices(images) and images.dtype != numpy.uint8 and not numpy.issubdtype(images.dtype, numpy.floating):
        raise TypeError(f"images must be uint8, floating point or indices up to int64, got {images.dtype}")
    if images.ndim < 2 or not labels.ndim or labels.shape[:1] != images.shape[:1]:
        raise ValueError(f"images must be (N, ...) and labels (N,) or (N, ...), got {images.shape} and {labels.shape}")
    if not len(images):
        raise ValueError("Loader needs at least one sample, got none")
    if labels.dtype.kind == "f" or labels.ndim == 2:
        target_checks.check(labels, labels.shape)
    else:
        check_indices(labels)
    return as_inputs(images), labels


def are_indices(images: Any) -> bool:
    """Return whether inputs are whole numbers that an ``Embedding`` takes; bytes are pixels."""
    return images.dtype != numpy.uint8 and images.dtype.kind in "iu" and numpy.can_cast(images.dtype, "int64")


def check_indices(labels: numpy.ndarray) -> None:
    """Raise unless labels, of any number of axes, are integers that fit into int32; the first that does not is named.

    A negative one may be what a loss ignores; the loss checks the labels again.
    """
    label_checks.check_dtype(labels)
    ignored = (labels < 0) & (labels >= -MOST_CLASSES) if labels.dtype.kind == "i" else False
    label_checks.check_range(numpy.where(ignored, 0, labels).astype(labels.dtype), MOST_CLASSES)


def fit_int32(labels: numpy.ndarray) -> bool:
    """Return whether whole numbers are int32."""
    return not labels.size or (labels.min() >= -MOST_CLASSES and labels.max() < MOST_CLASSES)


def check_inputs(inputs: Inputs, count: int) -> None:
    """Raise a ValueError that names the first index, and its sample, that is not one of ``count`` rows."""
    step = max(1, BLOCK_BYTES // max(1, math.prod(inputs.shape[1:]) * inputs.dtype.itemsize))
    for first in range(0, len(inputs), step):
        block = inputs[first : first + step]
        bad = label_checks.find_out_of_range(block.reshape(-1), count)
        if bad is not None:
            sample, *within = map(int, numpy.unravel_index(bad, block.shape))
            place = f"{first + sample}{f' at {tuple(within)}' if within else ''}"
            raise ValueError(f"sample {place} has index {block.reshape(-1)[bad]}, expected 0 to {count - 1}")


def _on_host(name: str, given: Any) -> numpy.ndarray:
    try:
        return asnumpy(opened(given, name))
    except ValueError as error:  # lists of different lengths
        raise checks.refusal(TypeError, name, "an array", given) from error
