"""The base of the losses, the softmax layer, and the loss of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from backend import array_module, asarray, current_device, is_array, require_same_device
from backend.checks import LARGEST_SIZE, Hyperparameter, real, refusal, several, whole
from backend.types import Array
from kernels import cross_entropy, labels
from kernels import softmax as kernel
from kernels.core.dtypes import acc_dtype
from kernels.core.layout import as_nchw, to_nhwc
from kernels.soft_targets import soft_targets, which_count
from layers import checks
from layers.base import Layer
from layers.places import as_rows, as_scores, label_rows


def cross_entropy_error(y: Array, t: Any) -> Array:
    """Return the mean of -log y[label].

    The book's function of this name, ``layers.compat.book.cross_entropy_error``, adds 1e-7 to y.

    Args:
        y: probabilities (N, classes) or (classes,), floating. A probability of 0 counts as the smallest normal number.
        t: labels as class indices (N,) or one-hot rows; for one sample (classes,) its index.

    Raises:
        ValueError: shapes do not fit, or, on the CPU, a label is out of range.

    Examples:
        >>> from backend import xp
        >>> from layers import cross_entropy_error
        >>> round(float(cross_entropy_error(xp.asarray([[0.5, 0.5], [0.1, 0.9]]), xp.asarray([0, 1]))), 4)
        0.3993
    """
    return cross_entropy.cross_entropy(y, t)


class Loss(Layer):
    """Base class of the losses, the last layer of a network.

    ``forward(x, t)`` takes what the network computes, one row for each sample, and targets, and returns the mean loss,
    0-d and on the device. ``backward(dout)`` returns the gradient of ``x``, multiplied by ``dout``: a number or a 0-d
    array on the device.

    Attributes:
        loss, y, t: loss, predictions and targets of the latest forward. Predictions are probabilities where the loss
            has such, else ``x`` itself.
        weight: what the mean of the latest forward divides by: the number of samples, or the sum of their weights, 0-d
            on the device.
    """

    target_kind: ClassVar[Literal["classes", "labels", "values"]]
    """The predictions of a network with this loss: one of several classes, any of several labels, or numbers."""

    takes_places: ClassVar[bool] = False
    """Whether it takes scores of steps (N, T, classes) and of pixels (N, classes, H, W), too."""

    def __init__(self) -> None:
        self.loss: Any = None
        self.y: Any = None
        self.t: Any = None
        self.weight: Any = None

    def forward(self, x: Array, t: Array) -> Array:  # type: ignore[override]
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def backward(self, dout: Any = 1.0) -> Array:
        raise NotImplementedError(f"{type(self).__name__} defines no backward")

    def predictions(self, x: Array) -> Array:
        """Return what ``x`` predicts: probabilities, or the numbers as they are."""
        return x

    def check_outputs(self, owner: str, outputs: int) -> None:
        """Raise a ValueError that names ``owner`` unless the loss takes that many numbers per sample."""

    def check_targets(self, t: Any, outputs: tuple[int, ...]) -> None:
        """Check the targets of a whole data set on the host, before a training.

        Args:
            outputs: the shape (N, numbers) of what the network computes; with ``takes_places`` also that of scores of
                steps or pixels.

        Raises:
            TypeError: they are not of a right dtype.
            ValueError: their shape does not fit, or one is out of range; the first such is named.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no check_targets")

    def counted(self, t: Array) -> Array | None:
        """Return which samples of a batch count: bool (N,), or None for all; steps and pixels are given as samples."""
        return None

    def samples(self, t: Array) -> int | Array:
        """Return how many samples of a batch count: a number, or 0-d on the device; of what ``counted`` is given."""
        return len(t)

    def forget(self) -> Layer:
        self.loss = self.y = self.t = self.weight = None
        return super().forget()

    def _keep(self, loss: Array, y: Array, t: Array, weight: Any = None) -> None:
        self.loss, self.y, self.t = loss, y, t
        self.weight = len(t) if weight is None else weight

    def _factor(self, dout: Any) -> Any:
        """Return ``dout`` as a number, or the 0-d array that it is on the device."""
        if getattr(dout, "ndim", 1) or not is_array(dout):  # to read a number on the device would wait for it
            return real(f"{type(self).__name__}.backward: dout", dout)
        return dout

    def _scaled(self, dx: Array, dout: Any, dtype: Any) -> Array:
        """Multiply ``dx``, a new array, by ``dout`` in its place; return it as ``dtype``."""
        factor = self._factor(dout)
        dx *= factor.astype(dx.dtype) if is_array(factor) else factor
        return dx.astype(dtype, copy=False)


class Softmax(Layer):
    """Softmax: y = exp(x) / Σ exp(x) over the last axis, or for images (N, C, H, W) over the channels of each pixel."""

    def forward(self, x: Array) -> Array:
        checks.floating("Softmax", x=x)
        y = kernel.softmax(to_nhwc(x) if x.ndim == 4 else x)
        return self.save(as_nchw(y) if x.ndim == 4 else y, y)

    def backward(self, dout: Array) -> Array:
        (y,) = self.saved(dout)
        dx = kernel.softmax_backward(to_nhwc(dout) if y.ndim == 4 else dout, y)
        return as_nchw(dx) if y.ndim == 4 else dx


class SoftmaxWithLoss(Loss):
    """Softmax cross-entropy loss: the mean of -log softmax(x)[label].

    ``forward(x, t)`` takes scores (N, classes) and labels, as class indices (N,) or as distributions (N, classes), such
    as one-hot rows or soft targets; or those of sequences, scores (N, T, classes) and labels (N, T) or (N, T, classes),
    or those of pixels, scores (N, classes, H, W) and labels (N, H, W) or (N, classes, H, W), where the mean is that
    over all steps or pixels. The loss and the probabilities of float16 scores are float32: float16 is coarse near 1,
    where probabilities end up. (``layers.compat.book.SoftmaxWithLoss`` adds 1e-7 to a probability and ignores ``dout``,
    as the book does.)

    Args:
        label_smoothing: share of each label that is spread evenly over all classes, from 0 to below 1 (Szegedy et al.,
            2016, section 7).
        class_weights: the cost of each class, positive or 0; the mean is then weighted by the samples' classes. None
            for equal costs.
        ignore_index: label of samples, steps or pixels that do not count, out of the classes' range or in it. A batch
            without others has the loss 0. Labels are class indices then.

    Attributes:
        loss, y, t: loss, probabilities, of the shape of the scores, and labels of the latest forward.

    Raises:
        TypeError: scores are not floating, labels are neither integers nor distributions, or host and device arrays are
            mixed.
        ValueError: shapes do not fit; there is one score per sample, whose softmax is always 1; or, on the CPU, a label
            is out of range (on a GPU the loss is NaN then, since raising would wait for the device).

    Examples:
        >>> from backend import xp
        >>> from layers import SoftmaxWithLoss
        >>> layer = SoftmaxWithLoss()
        >>> round(float(layer.forward(xp.asarray([[0.0, 0.0]]), xp.asarray([1]))), 4)
        0.6931
        >>> layer.backward()
        array([[ 0.5, -0.5]])
        >>> SoftmaxWithLoss(label_smoothing=0.1, class_weights=[1, 3])
        SoftmaxWithLoss(label_smoothing 0.1, class_weights [1, 3])
    """

    target_kind, takes_places = "classes", True
    label_smoothing = Hyperparameter(least=0, below=1)

    def __init__(
        self,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | Array | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.class_weights = None if class_weights is None else _weights(class_weights)
        if ignore_index is not None:
            ignore_index = whole("SoftmaxWithLoss: ignore_index", ignore_index, -(1 << 31), LARGEST_SIZE)
        self.ignore_index = ignore_index
        self._weight_arrays: dict[Any, Array] = {}

    def forward(self, x: Array, t: Array) -> Array:  # type: ignore[override]
        require_same_device(x, t)
        checks.floating("SoftmaxWithLoss", x=x)
        checks.more_than_one_score("SoftmaxWithLoss", x.shape[1 if x.ndim == 4 else -1] if x.ndim else 0)
        shape, given, weight = x.shape, t, None
        if x.ndim in (3, 4):
            x, t = as_rows(x, t)
        wide = x.astype(acc_dtype(x.dtype), copy=False)
        if x.ndim == 2 and (self.class_weights is not None or self.ignore_index is not None or self.label_smoothing):
            t, weight = self._soft(t, wide)
        self.loss, y = kernel.softmax_cross_entropy(wide, t)
        self.y, self.t, self.weight = as_scores(y, shape), given, len(t) if weight is None else weight
        return self.save(self.loss, y, t, x.dtype, shape)

    def backward(self, dout: Any = 1.0) -> Array:
        y, t, dtype, shape = self.saved()  # any number or 0-d array scales, whatever its dtype
        dx = kernel.softmax_cross_entropy_backward(y, t, self._factor(dout))
        return as_scores(dx.astype(dtype, copy=False), shape)

    def predictions(self, x: Array) -> Array:
        y = kernel.softmax((to_nhwc(x) if x.ndim == 4 else x).astype(acc_dtype(x.dtype), copy=False))
        return as_nchw(y) if x.ndim == 4 else y

    def check_outputs(self, owner: str, outputs: int) -> None:
        checks.more_than_one_score(owner, outputs)
        if self.class_weights is not None and len(self.class_weights) != outputs:
            raise ValueError(f"{owner}: class_weights must be {outputs} numbers, got {len(self.class_weights)}")

    def check_targets(self, t: Any, outputs: tuple[int, ...]) -> None:
        rows, allowed = t, self.ignore_index is None
        if len(outputs) in (3, 4):
            rows = label_rows(t, outputs, distributions=allowed)
            outputs = len(rows), outputs[1 if len(outputs) == 4 else -1]
        labels.check_form(rows, outputs, distributions=allowed)
        if rows.ndim > 1:
            labels.check_distributions(t)
            return
        counted = which_count(t, self.ignore_index)
        labels.check_range(t if counted is None else t * counted, outputs[1])

    def counted(self, t: Array) -> Array | None:
        return None if self.ignore_index is None else which_count(t, self.ignore_index)

    def samples(self, t: Array) -> int | Array:
        counted = None if self.ignore_index is None else which_count(t, self.ignore_index)
        return len(t) if counted is None else counted.sum()

    def describe(self) -> str:
        given = []
        if self.label_smoothing:
            given.append(f"label_smoothing {self.label_smoothing:g}")
        if self.class_weights is not None:
            given.append(f"class_weights [{', '.join(f'{weight:g}' for weight in self.class_weights)}]")
        if self.ignore_index is not None:
            given.append(f"ignore_index {self.ignore_index}")
        return ", ".join(given)

    def _soft(self, t: Array, x: Array) -> tuple[Array, Array]:
        """Return labels as weighted distributions, whose mean cross-entropy is this loss, and the sum of weights."""
        self.check_outputs("SoftmaxWithLoss", x.shape[-1])
        return soft_targets(
            t,
            x.shape,
            x.dtype,
            smoothing=self.label_smoothing,
            weights=self._weights_like(x),
            ignore_index=self.ignore_index,
        )

    def _weights_like(self, x: Array) -> Array | None:
        """Return the class weights in the dtype and on the device of ``x``; copied there once."""
        if self.class_weights is None:
            return None
        key = array_module(x).__name__, current_device(), x.dtype, tuple(self.class_weights)
        if key not in self._weight_arrays:
            self._weight_arrays[key] = asarray(self.class_weights, x.dtype)
        return self._weight_arrays[key]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_weight_arrays": {}}


def _weights(given: Any) -> tuple[float, ...]:
    """Return class weights as plain numbers.

    Raises:
        TypeError: they are not a list of numbers.
        ValueError: one is negative or not finite, or all are 0.
    """
    numbers = several(given)
    if numbers is None:
        raise refusal(TypeError, "class_weights", "a list of numbers, one for each class", given)
    weights = tuple(real(f"class_weights[{place}]", number, least=0) for place, number in enumerate(numbers))
    if not any(weights):
        raise refusal(ValueError, "class_weights", "a list of numbers, not all 0", given)
    return weights
