"""Check the samples that a loader is given."""

from __future__ import annotations

from typing import Any

import numpy

from backend import asnumpy, checks
from backend.foreign import opened
from kernels import labels as label_checks
from kernels import targets as target_checks
from training.data.inputs import Inputs, as_inputs, is_mapped

MOST_CLASSES = 1 << 31
"""Labels are int32: from minus this number to below it."""


def checked_samples(images: Any, labels: Any) -> tuple[Inputs, numpy.ndarray]:
    """Return images as inputs, and labels or other targets as an array on the host.

    Raises:
        TypeError: one is not an array, or of no dtype that can be trained on.
        ValueError: shapes do not match, there are no samples, or a label does not fit into int32.
    """
    if not isinstance(images, Inputs) and not is_mapped(images):
        images = _on_host("images", images)
    labels = _on_host("labels", labels)
    if images.dtype != numpy.uint8 and not numpy.issubdtype(images.dtype, numpy.floating):
        raise TypeError(f"images must be uint8 or floating point, got {images.dtype}")
    if images.ndim < 2 or labels.ndim not in (1, 2) or labels.shape[:1] != images.shape[:1]:
        raise ValueError(f"images must be (N, ...) and labels (N,) or (N, ...), got {images.shape} and {labels.shape}")
    if not len(images):
        raise ValueError("Loader needs at least one sample, got none")
    if labels.dtype.kind == "f" or labels.ndim == 2:
        target_checks.check(labels, labels.shape)
    else:
        label_checks.check_dtype(labels)
        # A negative one may be what a loss ignores; the loss checks the labels again.
        ignored = (labels < 0) & (labels >= -MOST_CLASSES) if labels.dtype.kind == "i" else False
        label_checks.check_range(numpy.where(ignored, 0, labels).astype(labels.dtype), MOST_CLASSES)
    return as_inputs(images), labels


def _on_host(name: str, given: Any) -> numpy.ndarray:
    try:
        return asnumpy(opened(given, name))
    except ValueError as error:  # lists of different lengths
        raise checks.refusal(TypeError, name, "an array", given) from error
