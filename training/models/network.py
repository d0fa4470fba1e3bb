"""A network: layers in a chain, and a loss at the end."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

from backend import array_module, asarray, asnumpy, is_array, memory, profiling, random, require_arrays
from backend.checks import flag, instance, real, sizes
from backend.foreign import opened
from backend.tuning import COLUMN_BYTES
from backend.types import Array
from layers import Layer, Loss, Sequential, numerical_gradient
from layers.base import Shape
from layers.losses import as_loss
from training.models import saving
from training.models.accuracy import accuracy
from training.models.architecture import describe
from training.models.bound_layers import BoundLayers
from training.models.html import network_table
from training.models.indices import index_count
from training.models.outputs import check_loss, checked_classes, classes_in
from training.models.parameters import ParameterDict

FORWARD, BACKWARD = profiling.Range("forward", "forward"), profiling.Range("backward", "backward")
_LOSS = {phase: profiling.Range("loss", phase, "layer") for phase in ("forward", "backward")}


class Network(BoundLayers):
    """A network with the book's methods, over any ``layers.Sequential`` that ends in what a loss takes.

    That is a row of numbers per sample, (outputs,); or, with ``SoftmaxWithLoss``, scores of each step of a sequence,
    (T, classes), or of each pixel of an image, (classes, H, W).

    Args:
        layers: the layers. The network takes them over: their parameters move into its flat buffers.
        input_dim: shape of one sample, such as (784,) or (1, 28, 28).
        config: anything in the types of JSON that is to be saved with the parameters, such as names of ``classes``;
            of one of xpnet's models also what ``training.models.build`` needs to make it again.
        loss: a ``layers.Loss``, or the name of one with its defaults: "softmax" (for None, too), "sigmoid",
            "mean-squared", "huber" or "hinge".

    Attributes:
        layers: the ``layers.Sequential``.
        last_layer: the loss; another may take its place.
        output_dim: shape of what the layers make of a sample of ``input_dim``: (classes,), (T, classes) or
            (classes, H, W).
        classes: how many numbers that are of a sample, or of each of its steps or pixels: the scores of a classifier.
        params: a ``training.models.ParameterDict``: W1, b1, W2, …; gamma1, beta1, … of normalizations.
        grads: the gradients of the latest step, by the same names; the next step overwrites them.
        state: arrays that are saved but not learned, by name, such as running_mean1.

    Methods that compute with samples raise ``backend.OutOfMemoryError`` if a batch is too large for the memory. They
    then free what they had computed and leave the parameters as they were: a smaller batch can follow.

    Raises:
        ValueError: a layer does not fit the one before it (the message names it), or the output of the last is not one
            that the loss takes: for softmax two scores or more.
        TypeError: parameters have different dtypes.

    Examples:
        >>> from backend import xp
        >>> from layers import Affine, Relu, Sequential
        >>> from training import Network
        >>> network = Network(Sequential(Affine.of(4, 8), Relu(), Affine.of(8, 3)), (4,))
        >>> {name: array.shape for name, array in network.params.items()}
        {'W1': (4, 8), 'b1': (8,), 'W2': (8, 3), 'b2': (3,)}
        >>> x, t = xp.ones((5, 4), "float32"), xp.asarray([0, 1, 2, 0, 1])
        >>> network.predict(x).shape, network.gradient(x, t)["W2"].shape
        ((5, 3), (8, 3))
    """

    def __init__(
        self,
        layers: Sequential,
        input_dim: tuple[int, ...],
        config: dict[str, Any] | None = None,
        loss: str | Loss | None = None,
    ) -> None:
        instance("layers", layers, Sequential, "a Sequential")
        self.input_dim = sizes("input_dim", input_dim, 1)
        self.config = config
        if not len(layers):
            raise ValueError("a network needs at least one layer")
        self.output_dim = layers.output_shape(self.input_dim)
        self.classes = checked_classes(self.output_dim, self.input_dim)
        self.last_layer = as_loss(loss)
        super().__init__(layers)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "last_layer":
            loss: Loss = instance("last_layer", value, Loss, "a Loss")
            check_loss(type(self).__name__, loss, self.output_dim)
        super().__setattr__(name, value)

    @property
    def has_places(self) -> bool:
        """Whether the scores are those of steps or pixels: ``output_dim`` is (T, classes) or (classes, H, W)."""
        return len(self.output_dim) > 1

    @property
    def takes_indices(self) -> bool:
        """Whether samples are whole numbers: the layers begin with an ``Embedding``."""
        return self.index_count is not None

    @property
    def index_count(self) -> int | None:
        """How many indices there are, the rows of that ``Embedding``; None where samples are other numbers."""
        return index_count(self.layers)

    def outputs_of(self, shape: Shape) -> Shape:
        """Return the shape of the scores of a sample of a shape, such as those of a longer sequence or a larger image.

        Raises:
            ValueError: the layers do not take such samples, or make another number of scores of them.
        """
        if tuple(shape) == self.input_dim:
            return self.output_dim
        made = self.layers.output_shape(shape)
        if len(made) != len(self.output_dim) or classes_in(made) != self.classes:
            raise ValueError(f"samples x are (N, {', '.join(map(str, self.input_dim))}), got samples of {shape}")
        return made

    @property
    def title(self) -> str:
        """The name of the network: that in its ``config``, as of one from ``training.zoo``, or of its class."""
        name = (self.config or {}).get("name")
        return name if isinstance(name, str) and name.isprintable() else type(self).__name__

    def predict(self, x: Array, train_flg: bool = False) -> Array:
        """Return the scores (N, *output_dim) of samples ``x`` (N, *input_dim), before a softmax or sigmoid.

        Sequences may be longer or shorter, and images larger or smaller, where the layers take them.
        In evaluation ``x`` may lie on the host where the network is on a GPU: it is copied there. Arrays of other
        libraries, such as tensors of PyTorch, are taken without a copy, as ``backend.from_dlpack`` takes them.
        ``network(x)`` is the same.

        Args:
            train_flg: the mode that all layers are set to: training, or by default evaluation.
        """
        training, x = flag("train_flg", train_flg), opened(x, "x")
        if not training and isinstance(x, numpy.ndarray):
            x = self._on_its_device(x)
        self._check(x)
        with self.within_memory(len(x)):
            return self.layers.train(training).forward(x)

    def __call__(self, x: Array) -> Array:
        """Return ``predict(x)``."""
        return self.predict(x)

    def loss(self, x: Array, t: Array, train_flg: bool = True) -> Array:
        """Return the mean loss, 0-d, of samples ``x`` against targets ``t``: for softmax indices or one-hot rows.

        Scores of steps have labels (N, T), those of pixels (N, H, W); the mean is that over all of them.

        Args:
            train_flg: the mode that all layers are set to: by default training, where dropout drops and batches are
                normalized by their own statistics; or evaluation.
        """
        scores = self.predict(x, train_flg)
        with self.within_memory(len(scores)), _LOSS["forward"].of((scores, t)):
            return self.last_layer.forward(scores, opened(t, "t"))

    def accuracy(self, x: Array, t: Array, batch_size: int = 1000) -> float:
        """Return the share of samples ``x`` whose highest score, in evaluation, is at their label ``t``.

        Of a network of sequences or pixels it is the share of steps or pixels.
        Both may lie on the host where the network is on a GPU. With ``SigmoidWithLoss`` it is the share of labels whose
        score is above 0 where they are right, and only there.

        Args:
            batch_size: samples computed at a time; every sample counts, also in a smaller last batch.

        Raises:
            TypeError: labels are not an array of integers or of one-hot rows, or lie on another device.
            ValueError: there are no samples, labels do not fit them, a label is out of range (on a GPU, too), or the
                loss is one of numbers, which has no accuracy.

        Warns:
            RuntimeWarning: scores are not finite, so the highest means nothing; not under
                ``numpy.errstate(invalid="ignore")``.
        """
        x, t = opened(x, "x"), opened(t, "t")
        self._check(x)
        return accuracy(self.predict, x, t, self.outputs_of(x.shape[1:]), batch_size, self.last_layer)

    def gradient(self, x: Array, t: Array) -> ParameterDict:
        """Return the gradient of the loss with respect to every parameter, by backpropagation, in new arrays."""
        self.step_gradients(x, t)
        return self.grads.copy()

    def step_gradients(
        self, x: Array, t: Array, scale: Any = 1.0, filled: Callable[[Layer], None] | None = None
    ) -> Array:
        """Compute forward and backward of a training step. Fill ``grads`` and return the loss, 0-d and on the device.

        Args:
            scale: factor of the gradients, not of the loss: a number or a 0-d array.
            filled: called in backward after each layer of the chain; or None.
        """
        if getattr(scale, "ndim", 1) or not is_array(scale):  # a number on the device is not read: that would wait
            scale = real("scale", scale)
        x = opened(x, "x")
        with FORWARD.of((x, t)):
            loss = self.loss(x, t, train_flg=True)
        with BACKWARD, self.within_memory(len(x)):
            with _LOSS["backward"]:
                dout = self.last_layer.backward(scale)
            if type(self.layers).backward is Sequential.backward:
                self.layers.backward(dout, filled, forgetting=True)
            else:  # a class of one's own
                self.layers.backward(dout, *([] if filled is None else [filled]))
            for name in self.foreign_frozen:  # a layer of one's own fills them all the same
                self.grads[name][...] = 0
        return loss

    def numerical_gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Return ``gradient`` by central differences, one parameter at a time: for small networks.

        Dropout draws the same mask for every evaluation: that of the next call of ``gradient``.
        """
        start = random.current().state

        def loss(_: Array) -> Array:
            random.current().state = start
            return self.loss(x, t, train_flg=True)

        with self.undisturbed():
            return {name: numerical_gradient(loss, array) for name, array in self.params.items()}

    def save_params(self, file: str | Path = "params.npz") -> None:
        """Write parameters and state to ``.npz`` or ``.safetensors`` (with ``description()``), by name, atomically.

        Raises:
            ValueError: the file's name has another ending.
            OSError: the file cannot be written; an older file of that name is unchanged.
        """
        arrays = {name: asnumpy(array) for name, array in {**self.params, **self.state}.items()}
        saving.save_arrays(file, arrays, self.description())

    def description(self) -> dict[str, Any]:
        """Return the ``config`` and what makes the network again, in the types of JSON, as a file keeps it.

        That is the model with its arguments, or for a network of one's own its architecture
        (``training.models.architecture``) and ``input_shape``; and ``loss`` and ``dtype``. Where a layer cannot be
        described, ``undescribed`` says why: such a file has to be loaded by ``load_params``.
        """
        config = dict(self.config or {})
        try:
            described: dict[str, Any] = {"loss": describe(self.last_layer), "dtype": self.params.flat.dtype.name}
            if not {"model", "arguments"} <= config.keys():
                own = {"model": "Network", "architecture": describe(self.layers), "input_shape": list(self.input_dim)}
                described = {**own, **described}
        except ValueError as error:
            described = {"undescribed": str(error)}
        return {**config, **described}

    def forget(self) -> None:
        """Free what the layers keep of the latest forward for a backward: most of the memory of a network."""
        self.layers.forget()
        self.last_layer.forget()

    def within_memory(self, samples: int) -> memory.guard:
        """Raise ``backend.OutOfMemoryError``, which names the batch size, if memory runs out inside a ``with``.

        The network then forgets its latest forward. ``predict`` and all that is built on it have this inside; around
        a loop it covers the loading of batches and the optimizer, too.

        Args:
            samples: the batch size.
        """

        def lower() -> str:
            on_gpu, cap = array_module(self.params.flat) is not numpy, COLUMN_BYTES["cupy"]
            # A batch larger than the buffers fails by its activations, which are many times its size.
            matters = on_gpu and cap > samples * math.prod(self.input_dim) * self.params.flat.itemsize
            buffers = f", or column buffers below {cap:,} bytes (backend.tuning.COLUMN_BYTES['cupy'])"
            return f"a smaller batch (this one has {samples:,} samples){buffers if matters else ''}"

        return memory.guard(lower, release=self.forget)

    def _on_its_device(self, x: Array) -> Array:
        """Return a host array on the network's device, if that is the active one."""
        is_there = array_module() is array_module(self.params.flat) is not numpy
        return asarray(x) if is_there else x

    def _check(self, x: Any) -> None:
        require_arrays(x=x)
        if not x.ndim:
            raise ValueError(f"samples x are (N, {', '.join(map(str, self.input_dim))}), got {x.shape}")
        self.outputs_of(x.shape[1:])

    def _repr_html_(self) -> str:
        return network_table(self)

    def __repr__(self) -> str:
        size = sum(array.size for array in self.params.values())
        loss = "" if repr(self.last_layer) == "SoftmaxWithLoss()" else f", {self.last_layer!r}"
        made = self.output_dim if self.has_places else self.classes
        return f"{type(self).__name__}({self.input_dim} → {made}, {size:,} parameters{loss})\n{self.layers!r}"
