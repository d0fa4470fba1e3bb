"""Open ONNX models: files and ``ModelProto``, checked, and what they say of their input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from backend.checks import sizes
from layers.base import Shape
from training.files import clipped

OLDEST = 6
"""The oldest version of the operators that is read."""


class Input(NamedTuple):
    """The input of a model.

    Attributes:
        name: of the value.
        shape: of a sample.
        batch: the number of samples that the model is for; None for any.
        dtype: of the network, floating.
        kind: the number by which ONNX names that.
        has_indices: whether it takes whole numbers, for an embedding.
    """

    name: str
    shape: Shape
    batch: int | None
    dtype: numpy.dtype
    kind: int
    has_indices: bool


@contextmanager
def damage_in_words() -> Iterator[None]:
    """Raise a ValueError that says that the model is damaged where a text in it is none: texts are decoded late."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"the ONNX model is damaged: {error}") from error


def opened(onnx: Any, model: Any) -> Any:
    """Return a checked ``ModelProto``, without functions of its own."""
    if isinstance(model, (str, Path)):
        try:
            model = onnx.load(str(model))
        except OSError:
            raise
        except Exception as error:  # what the package raises differs by what is damaged
            raise ValueError(f"{model} is no ONNX model: {type(error).__name__}: {error}") from error
    elif not isinstance(model, onnx.ModelProto):
        raise TypeError(f"model: expected the name of a file or an onnx.ModelProto, got {type(model).__name__}")
    model = _with_shapes(onnx, model)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ValueError(f"the ONNX model is damaged: {error}") from error
    if model.functions:
        from onnx.inliner import inline_local_functions

        model = inline_local_functions(model)
    return model


def _with_shapes(onnx: Any, model: Any) -> Any:
    """Return a model whose outputs all have a shape: the checker wants one, onnxruntime does not."""

    def lacking(outputs: Any) -> list[Any]:
        tensors = [each.type.tensor_type for each in outputs if each.type.HasField("tensor_type")]
        return [tensor for tensor in tensors if not tensor.HasField("shape")]

    if not lacking(model.graph.output):
        return model
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    for tensor in lacking(copied.graph.output):
        tensor.shape.SetInParent()
    return copied


def opset_of(model: Any) -> int:
    """Return the version of a model's operators, or raise a ValueError if it is too old."""
    version = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    if version < OLDEST:
        raise ValueError(f"expected operators of opset {OLDEST} or later, got {version}")
    return int(version)


def input_of(onnx: Any, graph: Any, shape: Shape | None) -> Input:
    """Return the only input of a graph that is no constant.

    Args:
        shape: of a sample, where the graph does not say it, or None.

    Raises:
        ValueError: there are more or none, its shape is not known, or it is not of floating-point numbers.
    """
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [each for each in graph.input if each.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(clipped(each.name) for each in inputs[:5])
        raise ValueError(f"expected a model of one input, got {len(inputs)}: {names or 'none'}")
    name, tensor = inputs[0].name, inputs[0].type.tensor_type
    kinds, kind = onnx.TensorProto, tensor.elem_type
    has_indices = kind in (kinds.INT32, kinds.INT64)
    if has_indices:
        kind = kinds.FLOAT
    dtype = {kinds.FLOAT16: "float16", kinds.FLOAT: "float32", kinds.DOUBLE: "float64"}.get(kind)
    if dtype is None:
        given = {number: each.lower() for each, number in kinds.DataType.items()}.get(kind, "others")
        expected = "float16, float32 or float64, or int32 or int64 for indices"
        raise ValueError(f"expected an input {clipped(name)} of {expected}, got {given}")
    known = [each.dim_value if each.HasField("dim_value") else None for each in tensor.shape.dim]
    given = ", ".join("?" if size is None else str(size) for size in known)
    if shape is None:
        if not known or None in known[1:]:
            raise ValueError(f"the input {clipped(name)} is ({given}): give the shape of a sample as shape=")
        shape = tuple(size for size in known[1:] if size is not None)
    shape = sizes("shape", shape)
    fits = len(shape) == len(known) - 1 and all(size in (None, own) for size, own in zip(known[1:], shape, strict=True))
    if known and not fits:
        raise ValueError(f"the input {clipped(name)} is ({given}): samples of shape={shape} do not fit")
    return Input(name, shape, known[0] if known else None, numpy.dtype(dtype), kind, has_indices)
