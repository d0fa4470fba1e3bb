"""Count the samples that a classifier gets right."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy

from backend import array_module, asarray, asnumpy, is_array, require_arrays, require_same_device
from backend.checks import LARGEST_SIZE, whole
from backend.types import Array
from kernels import targets
from layers import Loss
from layers.base import Shape
from training.models.metric import rows_of


def accuracy(
    predict: Callable[[Array], Array], x: Array, t: Array, outputs: Shape, batch_size: int, loss: Loss
) -> float:
    """Return the share of samples ``x`` whose highest score is at their label ``t``; with labels, the share of them.

    ``outputs`` is the shape of a sample's scores; other arguments, errors and warnings are those of
    ``training.Network.accuracy``.
    """
    if loss.target_kind == "values":
        raise ValueError(f"a network with {type(loss).__name__} predicts numbers, which have no accuracy")
    if not len(x):
        raise ValueError("accuracy needs at least one sample x")
    batch_size = whole("batch_size", batch_size, 1, LARGEST_SIZE)
    # This waits for the device, as the result does.
    loss.check_targets(asnumpy(t) if is_array(t) else t, (len(x), *outputs))
    correct: Any = 0
    counted: Any = 0
    unclear: Any = 0
    for start in range(0, len(x), batch_size):
        part = slice(start, start + batch_size)
        scores = predict(x[part])
        own = t[part]
        if isinstance(own, numpy.ndarray) and not isinstance(scores, numpy.ndarray):
            own = asarray(own)
        require_same_device(scores, own)
        finite = array_module(scores).isfinite(scores).all(axis=tuple(range(1, scores.ndim)))
        unclear = unclear + (~finite).sum()
        scores, own = rows_of(loss, scores, own)
        correct = correct + right_count(loss, scores, own)
        counted = counted + loss.samples(own)
    if numpy.geterr()["invalid"] != "ignore" and unclear:
        warnings.warn(
            f"{int(unclear)} of {len(x)} samples have scores that are not finite; where they come from, "
            "training.loop.non_finite.find_non_finite(network, x, t) tells",
            RuntimeWarning,
            stacklevel=3,  # the line that calls Network.accuracy
        )
    return float(asnumpy(correct)) / float(asnumpy(counted)) if counted else math.nan


def right_count(loss: Loss, scores: Array, t: Array, threshold: float = 0.0) -> Array | float:
    """Return how many samples are decided right, 0-d on the device; with labels, the sum of the shares decided right.

    NaN for a loss of numbers, which are neither right nor wrong.

    Args:
        loss: says what the network predicts, and which samples count.
        scores: (N, outputs); or probabilities, with the ``threshold`` 0.5 of labels.
        t: the targets that the loss takes, of as many samples.
    """
    if loss.target_kind == "values":
        return math.nan
    if loss.target_kind == "labels":
        return ((scores > threshold) == (targets.as_outputs(t, scores) > 0.5)).mean(axis=1).sum()
    counted = loss.counted(t)
    if counted is None:
        return correct_count(scores, t)
    return ((scores.argmax(axis=1) == t) & counted).sum()


def correct_count(scores: Array, t: Array) -> Array:
    """Return how many samples have their highest score at their label: 0-d, on the device.

    Args:
        scores: (N, classes).
        t: labels (N,), or rows (N, classes) whose largest number marks the class.

    Examples:
        >>> from backend import xp
        >>> from training.models.accuracy import correct_count
        >>> int(correct_count(xp.asarray([[0.1, 0.9], [0.8, 0.2]]), xp.asarray([1, 1])))
        1
    """
    require_arrays(scores=scores, t=t)
    require_same_device(scores, t)
    classes = t if t.ndim == 1 else t.argmax(axis=1)
    return (scores.argmax(axis=1) == classes).sum()
