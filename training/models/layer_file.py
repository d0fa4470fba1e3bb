"""Networks from a TOML file of layers.

    [[layers]]
    type = "Convolution"
    filters = 16
    size = 3

    [[layers]]
    type = "Relu"

    [[layers]]
    type = "Affine"
    outputs = "classes"

Each layer is a type of ``layers`` and the arguments of its ``of``, or else of its constructor. What the layer before
decides is left out: ``channels``, ``inputs``, ``features`` and the ``size`` of a ``PositionalEncoding``. ``"classes"``
is the number of classes of the data: the layers end in a number for each, or in scores of steps, (T, classes), or of
pixels, (classes, H, W). ``Residual`` has a list of layers as ``body`` and, if it has a shortcut, as ``shortcut``;
``Skip`` has one as ``body``; ``repeat = 3`` with a list as ``layers`` stands for them three times.
``name``, ``input`` and ``classes`` at the top are the network's name, by default the file's, and the size in which
``xpnet summary`` shows it.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import layers
from backend.checks import LARGEST_SIZE, sizes, whole
from layers import GRU, LSTM, RNN, Layer, Loss, PositionalEncoding, Residual, Sequential, Skip
from layers.base import Shape
from training.files import clipped, toml_text
from training.models.architecture import DEEPEST, MOST
from training.models.network import Network
from training.models.outputs import classes_in

SUFFIX = ".toml"

_FROM_BEFORE = ("channels", "inputs", "features")
_OF_SEQUENCES: dict[type[Layer], str] = {RNN: "inputs", LSTM: "inputs", GRU: "inputs", PositionalEncoding: "size"}
"""The argument that is the last axis of sequences (T, D), by the type of the layer."""


class LayerFile(NamedTuple):
    """What a file says of a network.

    Attributes:
        name: of the network.
        input_dim, classes: the size in which it is shown; None where the file does not say.
        layers: descriptions of the layers.
        digest: SHA-256 of the file.
    """

    name: str
    input_dim: tuple[int, ...] | None
    classes: int | None
    layers: list[Any]
    digest: str


def read_layer_file(file: Path) -> LayerFile:
    """Read the description of a network.

    Raises:
        ValueError: it is not TOML, has no layers, or something unknown.
        OSError: it cannot be read.
    """
    written = toml_text.read_content(file)
    content = toml_text.parse(file, written)
    unknown = [key for key in content if key not in ("name", "input", "classes", "layers")]
    if unknown:
        raise ValueError(f"{file}: unknown name {clipped(unknown[0])}: expected name, input, classes and layers")
    described, name = content.get("layers"), content.get("name", file.stem)
    if not isinstance(described, list) or not described:
        raise ValueError(f'{file}: expected layers, as in [[layers]] and type = "Relu", got {clipped(described)}')
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= 60:
        raise ValueError(f"{file}: name: expected a text of 1 to 60 letters, got {clipped(name)}")
    try:
        input_dim = sizes("input", content["input"], 1) if "input" in content else None
        classes = whole("classes", content["classes"], 1, LARGEST_SIZE) if "classes" in content else None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from error
    return LayerFile(name, input_dim, classes, described, hashlib.sha256(written).hexdigest())


def build_from_file(file: Path, shape: Shape, classes: int, loss: str | Loss | None = None) -> Network:
    """Return the network of a TOML file for inputs of a shape and a number of classes, with fresh weights.

    Raises:
        ValueError: a layer is not one, or does not take what the layer before it makes; the message names it.
        OSError: the file cannot be read.
    """
    described = read_layer_file(file)
    with _in_file(file):
        made, end = _Builder(classes).sequence(described.layers, tuple(shape), "layer ", 0)
    if classes_in(end) != classes:
        raise ValueError(
            f"{file}: the layers make {end} of {tuple(shape)}, expected ({classes},): a last layer of type Affine with "
            'outputs = "classes" makes a number for each class; or scores of steps (T, classes) or of pixels '
            "(classes, H, W)"
        )
    return Network(made, tuple(shape), {"name": described.name, "layers_sha256": described.digest}, loss)


def check_layer_file(file: Path) -> None:
    """Refuse a file with a mistake that no shape is needed for: before data are read, and without any array.

    Raises:
        ValueError: it is not as ``read_layer_file`` expects, a type is unknown, or an argument.
        OSError: the file cannot be read.
    """
    described = read_layer_file(file)
    with _in_file(file):
        _Builder(described.classes or 1).check(described.layers, "layer ", 0)


@contextmanager
def _in_file(file: Path) -> Iterator[None]:
    try:
        yield
    except _LayerError as error:
        raise ValueError(f"{file}: {error}") from error


class _LayerError(ValueError):
    """What is wrong, with the place of the layer."""


class _Builder:
    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._left = MOST

    def sequence(self, described: Any, shape: Shape, place: str, depth: int) -> tuple[Sequential, Shape]:
        """Return the layers of a list, and the shape that they make of ``shape``."""
        made = []
        for number, one in self._unrolled(described, place, depth):
            where = f"{place}{number}"
            layer = self._layer(one, shape, where, depth)
            try:
                shape = layer.output_shape(shape)
            except ValueError as error:
                raise _LayerError(f"{where}, {layer!r}: {error}") from error
            made.append(layer)
        return Sequential(*made), shape

    def _unrolled(self, described: Any, place: str, depth: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the layers of a list with their places; those that are repeated, so many times."""
        if not isinstance(described, list) or depth > DEEPEST:
            raise _LayerError(f"{place.strip()}: expected a list of layers, at most {DEEPEST} in each other")
        for number, one in enumerate(described, 1):
            if not isinstance(one, Mapping):
                raise _LayerError(f"{place}{number}: expected a table with a type, got {clipped(one)}")
            if "repeat" not in one:
                self._left -= 1
                if self._left < 0:
                    raise _LayerError(f"expected at most {MOST:,} layers")
                yield str(number), one
                continue
            if one.keys() != {"repeat", "layers"}:
                raise _LayerError(f"{place}{number}: repeat takes layers alone, a list, got {clipped(dict(one))}")
            try:
                times = whole("repeat", one["repeat"], 1, MOST)
            except (TypeError, ValueError) as error:
                raise _LayerError(f"{place}{number}: {error}") from error
            for _ in range(times):
                yield from (
                    (f"{number}.{inner}", each) for inner, each in self._unrolled(one["layers"], place, depth + 1)
                )

    def check(self, described: Any, place: str, depth: int) -> None:
        """Raise if a layer of a list has an unknown type or argument."""
        for number, one in self._unrolled(described, place, depth):
            where = f"{place}{number}"
            kind, _, given = _read(one, where)
            for key, value in given.items():
                if kind in (Residual, Skip):
                    self.check(value, f"{where} {key} ", depth + 1)
                else:
                    self._value(value, where)

    def _layer(self, one: Mapping[str, Any], shape: Shape, where: str, depth: int) -> Layer:
        kind, make, given = _read(one, where)
        if kind in (Residual, Skip):
            arguments: dict[str, Any] = {
                key: self.sequence(value, shape, f"{where} {key} ", depth + 1)[0] for key, value in given.items()
            }
        else:
            arguments = {key: self._value(value, where) for key, value in given.items()}
            taken = inspect.signature(make).parameters
            for key in (*_FROM_BEFORE, *filter(None, [_OF_SEQUENCES.get(kind)])):
                if key in taken and key not in arguments:
                    arguments[key] = _before(key, kind, shape, where)
        try:
            return make(**arguments)
        except (TypeError, ValueError) as error:
            raise _LayerError(f"{where}, {kind.__name__}: {error}") from error

    def _value(self, value: Any, where: str) -> Any:
        if value == "classes":
            return self._classes
        if isinstance(value, Mapping):
            raise _LayerError(f"{where}: expected a number, a text or a list, got {clipped(dict(value))}")
        return tuple(value) if isinstance(value, list) else value


def _read(one: Mapping[str, Any], where: str) -> tuple[type[Layer], Any, dict[str, Any]]:
    """Return the type of a layer, what makes it, and the arguments that a file gives."""
    name = one.get("type")
    kind = getattr(layers, name, None) if isinstance(name, str) and name in _TYPES else None
    if kind is None:
        raise _LayerError(f"{where}: type is one of {', '.join(_TYPES)}, not {clipped(name)}")
    given, make = {key: value for key, value in one.items() if key != "type"}, getattr(kind, "of", kind)
    taken = inspect.signature(make).parameters
    unknown = [key for key in given if key not in taken]
    if unknown:
        raise _LayerError(f"{where}: {name} takes {', '.join(taken) or 'no arguments'}, not {clipped(unknown[0])}")
    return kind, make, given


def _before(key: str, kind: type[Layer], shape: Shape, where: str) -> int:
    """Return the argument that the output of the layer before decides."""
    of_sequences = key == _OF_SEQUENCES.get(kind)
    if key == "inputs" and not of_sequences:
        return math.prod(shape)
    if not shape:
        raise _LayerError(f"{where}: {kind.__name__} has no output before it")
    if of_sequences:
        return shape[-1]
    return shape[0] if len(shape) in (1, 3) else shape[-1]


_TYPES = tuple(
    name
    for name in layers.__all__
    if isinstance(kind := getattr(layers, name), type)
    and issubclass(kind, Layer)
    and not issubclass(kind, Loss)
    and name not in ("Layer", "Sequential", "AddLayer", "MulLayer")
)
"""The types that a file can have: layers that take one input."""
