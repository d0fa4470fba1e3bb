"""A classifier: layers in a row, a softmax loss at the end, and all parameters in one buffer."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy

from backend import array_module, asarray, asnumpy, is_array, memory, profiling, random, require_arrays
from backend.checks import LARGEST_SIZE, flag, instance, real, sizes, whole
from kernels import labels
from kernels.core.tiling import COLUMN_BYTES
from layers import Layer, Sequential, SoftmaxWithLoss, checks, numerical_gradient
from layers.base import walk
from training.models import saving
from training.models.parameters import ParameterDict

FORWARD, BACKWARD = profiling.Range("forward", "forward"), profiling.Range("backward", "backward")
_LOSS = {phase: profiling.Range("loss", phase, "layer") for phase in ("forward", "backward")}


class Network:
    """A classifier with the book's methods, over any ``layers.Sequential`` that ends in scores.

    Args:
        layers: the layers. They are taken over: their parameters move into the network's flat buffers.
        input_dim: shape of one sample, such as (784,) or (1, 28, 28).
        config: what ``training.models.zoo.build`` needs to make this network again; saved with the parameters.

    Attributes:
        layers: the ``layers.Sequential``.
        last_layer: the ``layers.SoftmaxWithLoss``.
        params: a ``training.models.parameters.ParameterDict``: W1, b1, W2, …; gamma1, beta1, … of normalisations.
        grads: the gradients of the latest step, of the same names; the next step overwrites them.
        state: arrays that are saved but not learned, by name, such as running_mean1.

    Methods that compute with samples raise ``backend.OutOfMemoryError`` where these are too many for the memory.
    Nothing of what they computed is held then, and the parameters are as they were: fewer samples can follow.

    Raises:
        ValueError: a layer does not fit the one before it (it is named), or the last makes no row of scores, or of one
            score only.
        TypeError: parameters have different dtypes.
    """

    def __init__(self, layers: Sequential, input_dim: tuple[int, ...], config: dict[str, Any] | None = None) -> None:
        self.layers = instance("layers", layers, Sequential, "a Sequential")
        self.input_dim = sizes("input_dim", input_dim, 1)
        self.config = config
        self.last_layer = SoftmaxWithLoss()
        if not len(layers):
            raise ValueError("a network needs at least one layer")
        scores = layers.output_shape(self.input_dim)
        if len(scores) != 1:
            raise ValueError(f"a classifier ends in (classes,) scores; {layers!r} makes {scores} of {self.input_dim}")
        checks.more_than_one_score(f"{layers!r}", scores[0])
        self.classes = scores[0]
        self._bind()
        first = layers[0]
        first.input_gradient = False  # nobody asks for the gradient of the data

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("params", "grads") and not isinstance(value, ParameterDict):
            raise AttributeError(
                f"{name} are the arrays of the layers and cannot be replaced by {type(value).__name__}; "
                f"network.{name}.update(...) copies into them"
            )
        super().__setattr__(name, value)

    def predict(self, x: Any, train_flg: bool = False) -> Any:
        """Return the scores (N, classes) of samples ``x`` (N, *input_dim), before the softmax.

        Args:
            train_flg: the mode that all layers are set to: training, or by default evaluation.
        """
        self._check(x)
        with self.within_memory(len(x)):
            return self.layers.train(flag("train_flg", train_flg)).forward(x)

    def loss(self, x: Any, t: Any, train_flg: bool = True) -> Any:
        """The mean cross-entropy, 0-d, of samples against labels (indices or one-hot); as in a training step
        (dropout drops, batches are normalised by their own statistics) unless told otherwise.
        """
        self._check(x)
        with self.within_memory(len(x)):
            scores = self.predict(x, train_flg)
            with _LOSS["forward"].of((scores, t)):
                return self.last_layer.forward(scores, t)

    def accuracy(self, x: Any, t: Any, batch_size: int = 1000) -> float:
        """The share of samples whose highest score is their label's; every sample counts.

        Raises:
            TypeError: labels are no array, of another dtype, or on another device than the samples.
            ValueError: there are no samples; labels do not fit them, or one is no class (on a GPU, too: it is named).

        Warns:
            RuntimeWarning: scores are not finite, so that the highest says nothing; not under
                ``numpy.errstate(invalid="ignore")``, which silences NumPy's own.
        """
        self._check(x)
        if not len(x):
            raise ValueError("accuracy needs at least one sample x")
        batch_size = whole("batch_size", batch_size, 1, LARGEST_SIZE)
        array_module(x, t)  # refuses a mix of host and device arrays
        labels.check_form(t, (len(x), self.classes))
        labels.check(asnumpy(t), (len(x), self.classes))  # this waits for the device, as the result does
        correct: Any = 0
        unclear: Any = 0
        for start in range(0, len(x), batch_size):
            part = slice(start, start + batch_size)
            scores = self.predict(x[part])
            correct = correct + correct_count(scores, t[part])
            unclear = unclear + (~array_module(scores).isfinite(scores).all(axis=1)).sum()
        if numpy.geterr()["invalid"] != "ignore" and unclear:
            warnings.warn(
                f"{int(unclear)} of {len(x)} samples have scores that are not finite; where they come from, "
                "training.loop.non_finite.find_non_finite(network, x, t) tells",
                RuntimeWarning,
                stacklevel=2,
            )
        return float(asnumpy(correct)) / len(x)

    def gradient(self, x: Any, t: Any) -> ParameterDict:
        """The gradient of the loss with respect to every parameter, by backpropagation, in arrays of its own."""
        self.step_gradients(x, t)
        return self.grads.copy()

    def step_gradients(self, x: Any, t: Any, scale: Any = 1.0) -> Any:
        """Forward and backward of a training step: fills ``grads``, returns the loss, 0-d and on the device.

        Args:
            scale: what the gradients, not the loss, are multiplied by: a number or a 0-d array.
        """
        if not is_array(scale) or scale.ndim:  # to read a number that lies on the device would wait for it
            scale = real("scale", scale)
        with FORWARD.of((x, t)):
            loss = self.loss(x, t, train_flg=True)
        with BACKWARD, self.within_memory(len(x)):
            self.layers.backward(self._loss_gradient(scale))
        return loss

    def _loss_gradient(self, scale: Any) -> Any:
        with _LOSS["backward"]:
            return self.last_layer.backward(scale)

    def numerical_gradient(self, x: Any, t: Any) -> dict[str, Any]:
        """The same gradient by central differences: one parameter at a time, so for small networks only.

        Dropout draws one and the same mask for every evaluation: that of the ``gradient`` called next.
        """
        start = random.current().state

        def loss(_: Any) -> Any:
            random.current().state = start
            return self.loss(x, t, train_flg=True)

        with self.undisturbed():
            return {name: numerical_gradient(loss, array) for name, array in self.params.items()}

    def save_params(self, file: str | Path = "params.npz") -> None:
        """Writes parameters and state to ``.npz`` or ``.safetensors`` (with ``config``), by name, atomically.

        Raises:
            ValueError: the file's name ends otherwise.
            OSError: it cannot be written; a file that was there before is still whole.
        """
        arrays = {name: asnumpy(array) for name, array in self._saved().items()}
        saving.save_arrays(file, arrays, self.config)

    def load_params(self, file: str | Path = "params.npz") -> None:
        """Takes over parameters and state from a file of ``save_params`` or any ``.npz`` with these names.

        Values are converted to the network's dtype. Running statistics may be missing from the file.

        Raises:
            ValueError: a name, a shape or a dtype is wrong, a number is too large, or the file is damaged; nothing
                was changed.
            OSError: it cannot be read.
        """
        own = self._saved()
        arrays = saving.load_fitting(file, own, optional=set(self.state))
        for name, array in {name: asarray(array) for name, array in arrays.items()}.items():
            own[name][...] = array

    def astype(self, dtype: Any) -> Network:
        """Converts parameters and state to a floating dtype. Returns the network.

        Raises:
            TypeError: the dtype is not float16, float32 or float64.
        """
        self.layers.astype(dtype)
        self._bind()
        return self

    def to(self, device: Any) -> Network:
        """Moves parameters and state to a device, as ``backend.use`` takes it. Returns the network."""
        self.layers.to(device)
        self._bind()
        return self

    def forget(self) -> None:
        """Drops what the layers keep of the latest forward for a backward: the most of what a network holds."""
        self.layers.forget()
        self.last_layer.forget()

    def within_memory(self, samples: int) -> memory.guard:
        """For a ``with`` around computations with batches of so many samples: what exhausts memory in it raises
        ``backend.OutOfMemoryError``, which names the batch, and the network forgets. predict and all the methods
        built on it have this inside; around a loop it covers the making of batches and the optimizer too.
        """

        def lower() -> str:
            library = array_module(self.params.flat).__name__
            cap = COLUMN_BYTES[library]
            # A batch larger than the buffers fails by its activations, which are many times its size.
            matters = cap > samples * math.prod(self.input_dim) * self.params.flat.itemsize
            buffers = f", or column buffers below {cap:,} bytes (kernels.core.tiling.COLUMN_BYTES[{library!r}])"
            return f"a smaller batch (this one has {samples:,} samples){buffers if matters else ''}"

        return memory.guard(lower, release=self.forget)

    @property
    def state(self) -> dict[str, Any]:
        """Arrays that are saved but not learned, by name."""
        return {f"{key}{number}": array for number, leaf in self._leaves() for key, array in leaf.state.items()}

    def named_arrays(self) -> Iterator[tuple[str, str, Any]]:
        """(layer's name, parameter's name, array) of every parameter and state array."""
        places = {id(layer): name for name, layer in self._plain_layers()}
        for number, leaf in self._leaves():
            for key, array in {**leaf.params, **leaf.state}.items():
                yield places[id(leaf)], f"{key}{number}", array

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Restore the random state, the running statistics and the layers' modes at the end of a ``with``."""
        start = random.current().state
        modes = [(layer, layer.training) for _, layer in walk(self.layers)]
        before = {name: array.copy() for name, array in self.state.items()}
        try:
            yield
        finally:
            random.current().state = start
            for layer, mode in modes:
                layer.training = mode
            for name, array in self.state.items():
                array[...] = before[name]

    def _saved(self) -> dict[str, Any]:
        return {**self.params, **self.state}

    def _plain_layers(self) -> Iterator[tuple[str, Layer]]:
        """The layers that are made of no others, with the names of their places."""
        return ((place, layer) for place, layer in walk(self.layers) if not layer.sublayers())

    def _leaves(self) -> Iterator[tuple[int, Layer]]:
        """Layers with parameters of their own, in order, numbered among those that share a name with them: the
        second with a W or a b has W2 and b2, the first with a gamma gamma1 and beta1.
        """
        counts: Counter[str] = Counter()
        for _, layer in self._plain_layers():
            names = [*layer.params, *layer.state]
            if names:
                number = 1 + max(counts[name] for name in names)
                for name in names:
                    counts[name] = number
                yield number, layer

    def _bind(self) -> None:
        leaves = list(self._leaves())
        arrays = {f"{key}{number}": array for number, leaf in leaves for key, array in leaf.params.items()}
        dtypes = sorted({str(array.dtype) for array in arrays.values()}) or ["float32"]
        if len(dtypes) > 1:
            raise TypeError(f"a network's parameters need one dtype, got {', '.join(dtypes)}")
        shapes = {name: array.shape for name, array in arrays.items()}
        library = array_module(*arrays.values())
        self.params = ParameterDict(shapes, dtypes[0], library)
        self.grads = ParameterDict(shapes, dtypes[0], library)
        for number, leaf in leaves:
            for key in list(leaf.params):
                leaf.bind(key, self.params[f"{key}{number}"], self.grads[f"{key}{number}"])

    def _check(self, x: Any) -> None:
        require_arrays(x=x)
        if not x.ndim:
            raise ValueError(f"samples x are (N, {', '.join(map(str, self.input_dim))}), got one number")
        if x.shape[1:] != self.input_dim and self.layers.output_shape(x.shape[1:]) != (self.classes,):
            raise ValueError(f"samples x are (N, {', '.join(map(str, self.input_dim))}), got {x.shape}")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("params", "grads")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._bind()  # a copy has buffers of its own

    def __repr__(self) -> str:
        size = sum(array.size for array in self.params.values())
        return f"{type(self).__name__}({self.input_dim} → {self.classes}, {size:,} parameters)\n{self.layers!r}"


def correct_count(scores: Any, t: Any) -> Any:
    """How many samples have their highest score at their label: 0-d, on the device."""
    require_arrays(scores=scores, t=t)
    array_module(scores, t)  # refuses a mix of host and device arrays
    labels = t if t.ndim == 1 else t.argmax(axis=1)
    return (scores.argmax(axis=1) == labels).sum()
