"""Tell what targets are: classes, whose names are found, or numbers to predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy

from training.data.collection import KINDS
from training.data.idx import DataError
from training.files import clipped

_MOST_CLASSES = 10_000


def classify(
    name: str, parts: Mapping[str, numpy.ndarray], kind: str | None, names: Sequence[str] | None = None
) -> tuple[str, tuple[str, ...], dict[str, numpy.ndarray]]:
    """Return the kind of the data, the names of the classes, and the targets of each part as they are trained on.

    Targets are classes if they are texts or whole numbers of an integer dtype, unless more than 100, and half of all,
    are different; or rows with a single 1 (one-hot). Other rows of 0 and 1 are labels, any number of which are right.
    Texts get their indices in the order of the alphabet, numbers by their size.

    Args:
        name: of the data, for errors.
        parts: the targets of the parts as they were found: (N,) or (N, K).
        kind: one of ``KINDS``, or None to tell by the targets.
        names: names of the classes or labels 0, 1, …, where they are known.

    Raises:
        DataError: a part has a class that the training part has not, there is only one class, or targets are not
            finite, all equal, or not of the kind.
    """
    if kind not in (None, *KINDS):
        raise DataError(f"{name}: target kind must be one of {', '.join(KINDS)}, got {clipped(kind)}")
    for targets in parts.values():
        if targets.dtype.kind not in "biufUS" or targets.ndim not in (1, 2):
            raise DataError(
                f"{name}: expected targets (N,) or (N, K), numbers or texts, got {targets.dtype}{list(targets.shape)}"
            )
    rows = [targets for targets in parts.values() if targets.ndim == 2 and targets.shape[1] > 1]
    has_labels = len(rows) == len(parts) and all(map(_is_zero_or_one, rows))
    if kind == "multi-label" or (kind is None and has_labels and not all(map(_is_one_hot, rows))):
        return _labels(name, parts, names)
    parts = {part: _flat(targets) for part, targets in parts.items()}
    train = parts["train"]
    is_text = train.dtype.kind in "US"
    is_found = kind is None
    if kind is None:
        kind = "classification" if is_text or (train.ndim == 1 and train.dtype.kind in "iub") else "regression"
    if kind == "regression":
        numbers = {part: _numbers(name, part, targets) for part, targets in parts.items()}
        if (numbers["train"] == numbers["train"][:1]).all():
            only = clipped(numbers["train"][0].tolist())
            raise DataError(f"{name}: expected targets that differ, got {only} for all {len(train):,} samples")
        return kind, (), numbers
    if train.ndim > 1:
        raise DataError(f"{name}: expected one class a sample, (N,), or one-hot rows, got targets {train.shape}")
    if train.dtype.kind == "f":
        parts = {part: _whole(name, part, targets) for part, targets in parts.items()}
        train = parts["train"]
    if names is not None:
        return kind, tuple(names), {part: _in_range(name, part, targets, len(names)) for part, targets in parts.items()}
    values = numpy.unique(train)
    if len(values) < 2:
        raise DataError(f"{name}: expected two classes or more, got {clipped(values.tolist())} alone")
    if len(values) > max(100, len(train) // 2) or len(values) > _MOST_CLASSES:
        if is_found and not is_text:
            return classify(name, parts, "regression")
        raise DataError(
            f"{name}: {len(values):,} different targets in {len(train):,} samples are too many classes; numbers are "
            "predicted with --target-kind regression (target_kind='regression')"
        )
    found = {}
    for part, targets in parts.items():
        places = numpy.searchsorted(values, targets).clip(0, len(values) - 1)
        wrong = numpy.flatnonzero(values[places] != targets)
        if len(wrong):
            raise DataError(
                f"{name}: class {clipped(targets[wrong[0]].item())} of sample {wrong[0]} of the {part} part is not "
                f"among the training classes ({', '.join(clipped(value) for value in values[:10].tolist())})"
            )
        found[part] = places.astype("int64")
    return kind, tuple(str(value) for value in values.tolist()), found


def _labels(
    name: str, parts: Mapping[str, numpy.ndarray], names: Sequence[str] | None
) -> tuple[str, tuple[str, ...], dict[str, numpy.ndarray]]:
    """Return what ``classify`` does, of labels of which a sample has any number: 0 or 1 for each."""
    found = {}
    for part, targets in parts.items():
        rows = targets.reshape(len(targets), -1)
        wrong = numpy.argwhere((rows != 0) & (rows != 1)) if rows.dtype.kind in "biuf" else [(0, 0)]
        if len(wrong):
            given = clipped(rows[tuple(wrong[0])].item())
            raise DataError(
                f"{name}: a label of sample {wrong[0][0]} of the {part} part is {given}; expected 0 or 1 for each label"
            )
        found[part] = rows.astype("uint8")
    count = found["train"].shape[1]
    names = list(map(str, range(count))) if names is None else names
    for part, rows in found.items():
        if rows.shape[1] != count or len(names) != count:
            raise DataError(f"{name}: expected {len(names)} labels a sample, got {rows.shape[1]} in the {part} part")
    return "multi-label", tuple(names), found


def _flat(targets: numpy.ndarray) -> numpy.ndarray:
    """Return targets (N, 1) as (N,), and one-hot rows as the places of their ones."""
    if targets.ndim == 2 and targets.shape[1] == 1:
        return targets[:, 0]
    if targets.ndim == 2 and targets.dtype.kind in "biuf" and _is_one_hot(targets):
        return targets.argmax(axis=1)
    return targets


def _is_zero_or_one(targets: numpy.ndarray) -> bool:
    return bool(targets.dtype.kind in "biuf" and ((targets == 0) | (targets == 1)).all())


def _is_one_hot(targets: numpy.ndarray) -> bool:
    return _is_zero_or_one(targets) and bool((targets.sum(axis=1) == 1).all())


def _numbers(name: str, part: str, targets: numpy.ndarray) -> numpy.ndarray:
    if targets.dtype.kind in "US":
        raise DataError(f"{name}: expected numbers to predict, got the text {clipped(str(targets.reshape(-1)[0]))}")
    numbers = targets.astype("float32")
    wrong = numpy.argwhere(~numpy.isfinite(numbers))
    if len(wrong):
        given = targets[tuple(wrong[0])]
        raise DataError(
            f"{name}: the target of sample {wrong[0][0]} of the {part} part is {given}; expected a finite number"
        )
    return numbers


def _whole(name: str, part: str, targets: numpy.ndarray) -> numpy.ndarray:
    wrong = numpy.flatnonzero(~(numpy.abs(targets) < 2**53) | (targets != numpy.rint(targets)))
    if len(wrong):
        raise DataError(
            f"{name}: the target of sample {wrong[0]} of the {part} part is {targets[wrong[0]]}; expected a class, a "
            "whole number"
        )
    return targets.astype("int64")


def _in_range(name: str, part: str, targets: numpy.ndarray, classes: int) -> numpy.ndarray:
    if targets.dtype.kind not in "biu":
        raise DataError(f"{name}: expected labels 0 to {classes - 1}, got {targets.dtype}")
    wrong = numpy.flatnonzero((targets < 0) | (targets.astype("int64") >= classes))
    if len(wrong):
        raise DataError(
            f"{name}: label {targets[wrong[0]]} of sample {wrong[0]} of the {part} part is out of range: expected 0 to "
            f"{classes - 1}"
        )
    return targets.astype("int64")
