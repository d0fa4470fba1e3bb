"""Data to train on: samples in parts for training, validation and test, and what is known about them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy

from training.data.idx import DataError
from training.data.inputs import BLOCK_BYTES, AnyInputs, Subset, chosen
from training.data.loader import Loader
from training.data.normalization import Normalization
from training.data.splits import split
from training.files.printable import printable

KINDS = ("classification", "multi-label", "regression")


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs and their targets.

    Attributes:
        inputs: (N, C, H, W), (N, features) or any other: an array, or ``Inputs`` that are read when they are needed.
        targets: class indices int64 (N,); or 0 and 1, uint8 (N, labels); or numbers to predict, float32 (N,) or
            (N, numbers).

    Raises:
        ValueError: there are not as many targets as inputs.
    """

    inputs: AnyInputs
    targets: numpy.ndarray

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise ValueError(f"expected as many targets as inputs, {len(self.inputs):,}, got {len(self.targets):,}")

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, key: Any) -> tuple[numpy.ndarray, Any]:
        """Return the inputs and the targets of one sample or of several."""
        return self.inputs[key], self.targets[key]

    def chosen(self, indices: numpy.ndarray) -> Samples:
        """Return the samples at ``indices``."""
        return Samples(chosen(self.inputs, indices), self.targets[indices])


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns: of the features in their order, and of the target, or of several with commas."""

    features: tuple[str, ...]
    target: str


@dataclass(frozen=True, eq=False)
class Data:
    """Samples to train on, to validate and to test.

    Attributes:
        name: of the file or folder, or of the data set.
        kind: "classification", "multi-label" (a sample has any number of labels) or "regression".
        classes: the names of the classes, or labels, in the order of their indices; empty for regression.
        train: the training part.
        val: the validation part, by which the best model is chosen; None if there is none.
        test: the test part, which is used once, at the end; None if there is none.
        normalized: inputs are normalized by ``normalization``.
        notes: remarks about what was found, as sentences for the user.
        columns: the names of a table's columns; None for other data.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    train: Samples
    val: Samples | None = None
    test: Samples | None = None
    normalized: bool = True
    notes: tuple[str, ...] = field(default=(), repr=False)
    columns: Columns | None = field(default=None, repr=False)

    @classmethod
    def of(cls, name: str, kind: str, classes: Sequence[str], parts: Mapping[str, Samples], **more: Any) -> Data:
        """Return the data with the parts "train" and, if there are, "val" and "test"; ``more`` are further fields."""
        return cls(name, kind, tuple(classes), parts["train"], parts.get("val"), parts.get("test"), **more)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input: (C, H, W) of an image, (features,) of a row."""
        return tuple(self.train.inputs.shape[1:])

    @property
    def dtype(self) -> numpy.dtype:
        """The inputs' dtype: uint8, or floating."""
        return self.train.inputs.dtype

    @property
    def outputs(self) -> int:
        """The number of outputs for a sample: the number of classes, or of the values to predict."""
        if self.kind != "regression":
            return len(self.classes)
        return 1 if self.train.targets.ndim == 1 else self.train.targets.shape[1]

    @cached_property
    def normalization(self) -> Normalization | None:
        """The mean and standard deviation of the training inputs; None if they are not normalized."""
        if not self.normalized:
            return None
        inputs = self.train.inputs
        if isinstance(inputs, Subset):
            known: Callable[..., Normalization] | None = getattr(inputs.inputs, "normalization", None)
            if known is not None:
                return known(inputs.indices)
        return Normalization.of(inputs)

    @cached_property
    def target_normalization(self) -> Normalization | None:
        """The mean and standard deviation of the numbers to predict, in the training part; None for classes."""
        if self.kind != "regression":
            return None
        return Normalization.of(self.train.targets.reshape(len(self.train), -1))

    @property
    def parts(self) -> dict[str, Samples]:
        """The parts that there are, by name."""
        parts = {"train": self.train, "val": self.val, "test": self.test}
        return {name: part for name, part in parts.items() if part is not None}

    def loader(self, part: str, batch_size: int, **options: Any) -> Loader:
        """Return a ``Loader`` of one part, "train", "val" or "test"; options are the ``Loader``'s.

        Inputs are normalized by ``normalization``, and numbers to predict by ``target_normalization``: a mean squared
        error of 1 is then that of always predicting the mean.

        Raises:
            ValueError: there is no such part.
        """
        if part not in self.parts:
            raise ValueError(f"{self.name} has the parts {', '.join(self.parts)}, not {part!r}")
        samples = self.parts[part]
        targets = normalized_targets(samples.targets, self.target_normalization)
        return Loader(samples.inputs, targets, batch_size, normalization=self.normalization, **options)

    def with_parts(self, val: float | None, test: float | None = None, seed: int = 0) -> Data:
        """Return the data with a validation and a test part, split from the training part where they are missing.

        Classes are split in equal shares. The same seed gives the same parts.

        Args:
            val, test: shares of the samples, between 0 and 1; None for no such part, if there is none.

        Raises:
            DataError: a share is too small, or too large, for so few samples.
        """
        data, whole = self, len(self.train)
        for name, share in (("test", test), ("val", val)):
            if share is None or name in data.parts:
                continue
            left = len(data.train)
            labels = self.train.targets if self.kind == "classification" else None
            labels = labels if data is self or labels is None else data.train.targets
            rest, taken = split(labels, left, min(share * whole / left, 0.999999), seed)
            if not len(rest) or not len(taken):
                raise DataError(
                    f"{self.name}: a share of {share:g} of {whole:,} samples leaves {len(rest):,} to train and "
                    f"{len(taken):,} to {'test' if name == 'test' else 'validate'}; expected at least one of each: "
                    f"give more samples, or another share by --{name} ({name}=)"
                )
            part = data.train.chosen(taken)
            data = replace(data, train=data.train.chosen(rest), val=part if name == "val" else data.val)
            data = replace(data, test=part) if name == "test" else data
        return data

    def with_classes(self, classes: Sequence[str]) -> Data:
        """Return the data with other classes, among them all of these, and the labels that belong to them."""
        places = numpy.array([list(classes).index(name) for name in self.classes], "int64")

        def placed(targets: numpy.ndarray) -> numpy.ndarray:
            if self.kind == "classification":
                return places[targets]
            wider = numpy.zeros((len(targets), len(classes)), targets.dtype)
            wider[:, places] = targets
            return wider

        parts = {name: Samples(part.inputs, placed(part.targets)) for name, part in self.parts.items()}
        return replace(self, classes=tuple(classes), **parts)  # type: ignore[arg-type]

    def counts(self, part: str) -> numpy.ndarray:
        """Return how many samples each class, or label, has in a part: int64 (classes,)."""
        if self.kind == "multi-label":
            return self.parts[part].targets.sum(axis=0, dtype="int64")
        return numpy.bincount(self.parts[part].targets, minlength=len(self.classes))

    def describe(self) -> dict[str, str]:
        """Return what is in the data, in words: lines of a header by their titles."""
        sizes = ", ".join(f"{len(part):,} {_TITLES[name]}" for name, part in self.parts.items())
        shape = "x".join(map(str, self.shape))
        lines = {"data": f"{printable(self.name)}: {sizes} {'images' if len(self.shape) == 3 else 'rows'} {shape}"}
        if self.kind == "regression":
            targets = self.train.targets
            lines["targets"] = (
                f"{self.outputs} a sample, {targets.min():g} to {targets.max():g}, mean {targets.mean():g}"
            )
        else:
            lines["labels" if self.kind == "multi-label" else "classes"] = self._balance()
        if self.normalization is not None and len(self.normalization.mean) <= 4:
            means, stds = (
                ", ".join(f"{n:.4g}" for n in numbers) for numbers in (self.normalization.mean, self.normalization.std)
            )
            lines["input"] = f"normalized by mean {means} and deviation {stds}"
        return lines

    def _balance(self) -> str:
        counts = self.counts("train")
        names = [f"{printable(name)} {count:,}" for name, count in zip(self.classes, counts, strict=True)]
        shown = ", ".join(names if len(names) <= 12 else [*names[:11], f"and {len(names) - 11:,} more"])
        shown += self._missing()
        if self.kind == "multi-label":
            return f"{len(self.classes)}, on average {counts.sum() / len(self.train):.3g} a sample: {shown}"
        least, most = int(counts[counts > 0].min()), int(counts.max())
        even = "balanced" if most <= 1.1 * least else f"the largest has {most / least:.3g} times the smallest"
        return f"{len(self.classes)}, labels 0 to {len(self.classes) - 1}, {even}: {shown}"

    def _missing(self) -> str:
        """Return which classes have no samples in a part."""
        said = ""
        for part in self.parts:
            missing = [printable(self.classes[label]) for label in numpy.flatnonzero(self.counts(part) == 0)]
            if missing:
                more = f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
                said += f"; the {_TITLES[part]} part has no {', '.join(missing[:3])}{more}"
        return said


_TITLES = {"train": "training", "val": "validation", "test": "test"}


def normalized_targets(targets: numpy.ndarray, known: Normalization | None) -> numpy.ndarray:
    """Return numbers to predict as a network is trained on them, float32 (N, numbers); classes as they are."""
    if known is None:
        return targets
    return known.apply(targets.reshape(len(targets), -1).astype("float64"), "float32")


def check_finite(name: str, part: str, inputs: numpy.ndarray) -> None:
    """Raise a DataError that names the first sample with NaN or infinity, if there is one; reads block by block."""
    if inputs.dtype.kind != "f":
        return
    size = max(1, BLOCK_BYTES // max(1, math.prod(inputs.shape[1:]) * inputs.dtype.itemsize))
    for first in range(0, len(inputs), size):
        finite = numpy.isfinite(inputs[first : first + size])
        if not finite.all():
            sample, *place = map(int, numpy.argwhere(~finite)[0])
            given = inputs[(first + sample, *place)]
            raise DataError(
                f"{name}: sample {first + sample} of the {part} part has {given} at {place}; expected finite numbers"
            )
