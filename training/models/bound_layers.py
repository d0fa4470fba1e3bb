"""Layers with all parameters in one buffer: their names, freezing, loading, dtype and device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend import array_module, asarray, random
from backend.checks import instance
from backend.types import Array
from layers import Layer, Sequential
from layers.base import walk
from training.models import saving
from training.models.freezing import apply_frozen, matching, set_frozen
from training.models.parameters import ParameterDict, StateDict

if TYPE_CHECKING:
    from typing_extensions import Self


class BoundLayers:
    """Layers whose parameters lie in one flat buffer, and their gradients in another: the base of ``Network``.

    Args:
        layers: the layers. Their parameters move into the buffers.

    Attributes:
        layers: the ``layers.Sequential``.
        params: a ``training.models.ParameterDict``: W1, b1, W2, …; gamma1, beta1, … of normalizations.
        grads: the gradients of the latest step, by the same names; the next step overwrites them.
        state: arrays that are saved but not learned, by name, such as running_mean1.

    Raises:
        TypeError: parameters have different dtypes.
        ValueError: a layer stands in two places: it keeps what backward needs of its latest forward alone.
    """

    def __init__(self, layers: Sequential) -> None:
        _refuse_shared(layers)
        self.layers = layers
        self.foreign_frozen: list[str] = []
        self._bind()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "layers" and "params" in vars(self):
            raise AttributeError("the layers of a network cannot be replaced: make another Network")
        if name in ("params", "grads") and not isinstance(value, ParameterDict):
            raise AttributeError(
                f"{name} are the arrays of the layers and cannot be replaced by {type(value).__name__}; "
                f"network.{name}.update(...) copies into them"
            )
        super().__setattr__(name, value)

    def freeze(self, *patterns: str) -> Self:
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

    def unfreeze(self, *patterns: str) -> Self:
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

    def astype(self, dtype: Any) -> Self:
        """Convert parameters and state to a floating dtype. Return the network; nothing is copied if it has that dtype.

        Raises:
            TypeError: the dtype is not float16, float32 or float64.
        """
        self.layers.astype(dtype)
        self._bind_again()
        return self

    def to(self, device: Any) -> Self:
        """Move parameters and state to a device, as ``backend.use`` takes it. Return the network."""
        self.layers.to(device)
        self._bind_again()
        return self

    @property
    def state(self) -> StateDict:
        """The arrays that are saved but not learned, by name; found by dotted names, too."""
        found = [(f"{key}{number}", f"{place}.{key}", array) for place, number, leaf in self.leaves()
                 for key, array in leaf.state.items()]  # fmt: skip
        return StateDict({name: array for name, _, array in found}, {name: dotted for name, dotted, _ in found})

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

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("params", "grads")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._bind()  # a copy has its own buffers


def _refuse_shared(layers: Sequential) -> None:
    """Raise ValueError if a layer stands in two places."""
    places: dict[int, str] = {}
    for place, layer in walk(layers):
        if id(layer) in places:
            raise ValueError(
                f"a network needs a different layer object in each place; "
                f"one {type(layer).__name__} is {places[id(layer)]} and {place}"
            )
        places[id(layer)] = place
