"""A network: layers in a chain, a loss at the end, and all parameters in one buffer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy

from backend import array_module, asarray, asnumpy, is_array, memory, profiling, random, require_arrays
from backend.checks import flag, instance, real, sizes
from backend.tuning import COLUMN_BYTES
from backend.types import Array
from layers import Layer, Loss, Sequential, numerical_gradient
from layers.base import walk
from layers.losses import as_loss
from training.models import saving
from training.models.accuracy import accuracy
from training.models.architecture import describe
from training.models.freezing import apply_frozen, matching, set_frozen
from training.models.html import network_table
from training.models.parameters import ParameterDict

FORWARD, BACKWARD = profiling.Range("forward", "forward"), profiling.Range("backward", "backward")
_LOSS = {phase: profiling.Range("loss", phase, "layer") for phase in ("forward", "backward")}


class Network:
    """A network with the book's methods, over any ``layers.Sequential`` that ends in a row of numbers per sample.

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
        classes: how many numbers the layers make of a sample: the scores of a classifier.
        params: a ``training.models.ParameterDict``: W1, b1, W2, …; gamma1, beta1, … of normalizations.
        grads: the gradients of the latest step, by the same names; the next step overwrites them.
        state: arrays that are saved but not learned, by name, such as running_mean1.

    Methods that compute with samples raise ``backend.OutOfMemoryError`` if a batch is too large for the memory. They
    then free what they had computed and leave the parameters as they were: a smaller batch can follow.

    Raises:
        ValueError: a layer does not fit the one before it (the message names it), or the output of the last is not a
            row of numbers that the loss takes: two or more for softmax.
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
        self.layers = instance("layers", layers, Sequential, "a Sequential")
        self.input_dim = sizes("input_dim", input_dim, 1)
        self.config = config
        if not len(layers):
            raise ValueError("a network needs at least one layer")
        scores = layers.output_shape(self.input_dim)
        if len(scores) != 1:
            raise ValueError(
                f"a network ends in (outputs,), a row of numbers; its layers make {scores} of {self.input_dim}"
            )
        self.classes = scores[0]
        self.foreign_frozen: list[str] = []
        self.last_layer = as_loss(loss)
        self._bind()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "layers" and "params" in vars(self):
            raise AttributeError("the layers of a network cannot be replaced: make another Network")
        if name in ("params", "grads") and not isinstance(value, ParameterDict):
            raise AttributeError(
                f"{name} are the arrays of the layers and cannot be replaced by {type(value).__name__}; "
                f"network.{name}.update(...) copies into them"
            )
        if name == "last_layer":
            instance("last_layer", value, Loss, "a Loss").check_outputs(type(self).__name__, self.classes)
        super().__setattr__(name, value)

    def predict(self, x: Array, train_flg: bool = False) -> Array:
        """Return the scores (N, classes) of samples ``x`` (N, *input_dim), before a softmax or sigmoid.

        In evaluation ``x`` may lie on the host where the network is on a GPU: it is copied there. ``network(x)`` is the
        same.

        Args:
            train_flg: the mode that all layers are set to: training, or by default evaluation.
        """
        training = flag("train_flg", train_flg)
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

        Args:
            train_flg: the mode that all layers are set to: by default training, where dropout drops and batches are
                normalized by their own statistics; or evaluation.
        """
        scores = self.predict(x, train_flg)
        with self.within_memory(len(x)), _LOSS["forward"].of((scores, t)):
            return self.last_layer.forward(scores, t)

    def accuracy(self, x: Array, t: Array, batch_size: int = 1000) -> float:
        """Return the share of samples ``x`` whose highest score, in evaluation, is at their label ``t``.

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
        self._check(x)
        return accuracy(self.predict, x, t, self.classes, batch_size, self.last_layer)

    def gradient(self, x: Array, t: Array) -> ParameterDict:
        """Return the gradient of the loss with respect to every parameter, by backpropagation, in new arrays."""
        self.step_gradients(x, t)
        return self.grads.copy()

    def step_gradients(self, x: Array, t: Array, scale: Any = 1.0) -> Array:
        """Compute forward and backward of a training step. Fill ``grads`` and return the loss, 0-d and on the device.

        Args:
            scale: factor of the gradients, not of the loss: a number or a 0-d array.
        """
        if getattr(scale, "ndim", 1) or not is_array(scale):  # a number on the device is not read: that would wait
            scale = real("scale", scale)
        with FORWARD.of((x, t)):
            loss = self.loss(x, t, train_flg=True)
        with BACKWARD, self.within_memory(len(x)):
            with _LOSS["backward"]:
                dout = self.last_layer.backward(scale)
            self.layers.backward(dout)
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

    def freeze(self, *patterns: str) -> Network:
        """Freeze layers by the patterns of their names: "Convolution1", "Convolution*", "Residual1.body.*".

        A training leaves their parameters and running statistics as they are, and spends no work on their gradients,
        which are 0. Batch normalization uses its running statistics. Returns the network.

        Raises:
            TypeError: a pattern is not a string.
            ValueError: no layer matches one; nothing is changed.

        Examples:
            >>> from training import TwoLayerNet
            >>> network = TwoLayerNet(4, 3, 2).freeze("Affine1")
            >>> sorted(network.params.frozen)
            ['W1', 'b1']
            >>> network.params["Affine2.W"] is network.params["W2"]
            True
        """
        set_frozen(self, patterns, True)
        return self

    def unfreeze(self, *patterns: str) -> Network:
        """Let layers learn again, by patterns as of ``freeze``; all without a pattern. Return self."""
        set_frozen(self, patterns or ("*",), False)
        return self

    def load_params(self, file: str | Path = "params.npz", only: str | None = None) -> None:
        """Read parameters and state from a file of ``save_params``, or any ``.npz`` with these names.

        Values are converted to the network's dtype. Running statistics may be missing from the file.

        Args:
            only: read the arrays alone that match a pattern: "Convolution*" for layers, "W1" or "Affine?.b" for arrays.
                The file may be of another network, and have others.

        Raises:
            ValueError: a name, a shape or a dtype is wrong, a number is too large, the file is damaged, or no array
                matches; nothing was changed.
            OSError: the file cannot be read.
        """
        own = {**self.params, **self.state}
        if only is not None:
            dotted = {
                f"{key}{number}": f"{place}.{key}"
                for place, number, leaf in self.leaves()
                for key in {**leaf.params, **leaf.state}
            }
            chosen = matching(dotted, instance("only", only, str, "a pattern of names"))
            if not chosen:
                raise ValueError(f"no parameter matches {only!r}; there are {', '.join(dotted.values())}")
            own = {name: own[name] for name in chosen}
        arrays = saving.load_fitting(file, own, optional=set(self.state), partly=only is not None)
        for name, array in {name: asarray(array) for name, array in arrays.items()}.items():
            own[name][...] = array

    def astype(self, dtype: Any) -> Network:
        """Convert parameters and state to a floating dtype. Return the network; nothing is copied if it has that dtype.

        Raises:
            TypeError: the dtype is not float16, float32 or float64.
        """
        self.layers.astype(dtype)
        self._bind_again()
        return self

    def to(self, device: Any) -> Network:
        """Move parameters and state to a device, as ``backend.use`` takes it. Return the network."""
        self.layers.to(device)
        self._bind_again()
        return self

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
            library = array_module(self.params.flat).__name__
            cap = COLUMN_BYTES[library]
            # A batch larger than the buffers fails by its activations, which are many times its size.
            matters = cap > samples * math.prod(self.input_dim) * self.params.flat.itemsize
            buffers = f", or column buffers below {cap:,} bytes (backend.tuning.COLUMN_BYTES[{library!r}])"
            return f"a smaller batch (this one has {samples:,} samples){buffers if matters else ''}"

        return memory.guard(lower, release=self.forget)

    @property
    def state(self) -> dict[str, Array]:
        """The arrays that are saved but not learned, by name."""
        return {f"{key}{number}": array for _, number, leaf in self.leaves() for key, array in leaf.state.items()}

    def named_arrays(self) -> Iterator[tuple[str, str, Array]]:
        """Yield (layer's place, array's name in the network, array) for every parameter and state array."""
        for place, number, leaf in self.leaves():
            for key, array in {**leaf.params, **leaf.state}.items():
                yield place, f"{key}{number}", array

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

    def leaves(self) -> Iterator[tuple[str, int, Layer]]:
        """Yield the layers with arrays and without sublayers: place, number among those that share a name, layer.

        The second layer with a W or a b has W2 and b2; the first with a gamma has gamma1 and beta1.
        """
        counts: Counter[str] = Counter()
        for place, layer in walk(self.layers):
            names = [] if layer.sublayers() else [*layer.params, *layer.state]
            if names:
                number = 1 + max(counts[name] for name in names)
                for name in names:
                    counts[name] = number
                yield place, number, layer

    def _bind(self) -> None:
        leaves = list(self.leaves())
        arrays = {f"{key}{number}": array for _, number, leaf in leaves for key, array in leaf.params.items()}
        dtypes = sorted({str(array.dtype) for array in arrays.values()}) or ["float32"]
        if len(dtypes) > 1:
            raise TypeError(f"a network's parameters need one dtype, got {', '.join(dtypes)}")
        shapes = {name: array.shape for name, array in arrays.items()}
        library = array_module(*arrays.values())
        self.params = ParameterDict(shapes, dtypes[0], library)
        self.grads = ParameterDict(shapes, dtypes[0], library)
        for place, number, leaf in leaves:
            for key in list(leaf.params):
                name = f"{key}{number}"
                leaf.bind(key, self.params[name], self.grads[name])
                self.params.dotted[name] = self.grads.dotted[name] = f"{place}.{key}"
        apply_frozen(self)

    def _bind_again(self) -> None:
        """Bind the layers that have other arrays now; unchanged arrays stay where they are."""
        arrays = {f"{key}{i}": array for _, i, leaf in self.leaves() for key, array in leaf.params.items()}
        if any(array is not self.params[name] for name, array in arrays.items()):
            self._bind()

    def _on_its_device(self, x: Array) -> Array:
        """Return a host array on the network's device, if that is the active one."""
        is_there = array_module() is array_module(self.params.flat) is not numpy
        return asarray(x) if is_there else x

    def _check(self, x: Any) -> None:
        require_arrays(x=x)
        fits = x.ndim and (x.shape[1:] == self.input_dim or self.layers.output_shape(x.shape[1:]) == (self.classes,))
        if not fits:
            raise ValueError(f"samples x are (N, {', '.join(map(str, self.input_dim))}), got {x.shape}")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("params", "grads")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._bind()  # a copy has its own buffers

    def _repr_html_(self) -> str:
        return network_table(self)

    def __repr__(self) -> str:
        size = sum(array.size for array in self.params.values())
        loss = "" if repr(self.last_layer) == "SoftmaxWithLoss()" else f", {self.last_layer!r}"
        return f"{type(self).__name__}({self.input_dim} → {self.classes}, {size:,} parameters{loss})\n{self.layers!r}"
