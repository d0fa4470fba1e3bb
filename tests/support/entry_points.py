"""Find every public constructor, function and method that takes numbers or arrays, by introspection.

An entry point is a callable with a valid example of each of its required arguments. Numbers need no example; arrays
get one by their name from ``ARRAYS``, or from ``EXAMPLES`` if the name is ambiguous. A new layer is found and tried
without a change here, unless it takes arrays with new names.
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

import backend
import kernels
import layers
import training
from kernels.core.window import Window
from layers import Affine, Dropout, Layer, Relu, Sequential
from training.data import Loader
from training.loop.trainer import Trainer
from training.models import Network
from training.optim.loss_scaling import LossScaler
from training.optim.optimizers import SGD

PRIVATE = {  # modules that programs do not call: parts of others, commands, records that the library makes, files
    "backend": ("blas", "blas_plans", "checks", "devices", "draws", "graph_numbers", "graphs", "memory", "philox",
                "profiling", "recording", "tf32", "transfer", "workspace"),
    "kernels": ("affine", "batch_norm", "batch_norm_across", "batch_norm_backward", "batch_statistics",
                "binary_cross_entropy", "col2im", "convolution_cuda", "core.arguments", "core.build_native",
                "core.catalog", "core.checks", "core.columns", "core.compiling", "core.dispatch", "core.dtypes",
                "core.filters", "core.gates", "core.geometry", "core.launch", "core.layout", "core.native", "core.pool",
                "core.ranges", "core.tensor_tiles", "core.tiling", "depthwise", "embedding", "gemm", "gru", "im2col",
                "implicit_gemm", "labels", "layer_norm", "loss_scale", "lstm", "masking", "optimizers", "regression",
                "soft_targets", "sums", "targets", "totals"),
    "layers": ("checks", "base", "places"),
    "training": ("check.bounds", "check.cases", "check.devices", "check.inputs", "check.layer_bounds", "check.links",
                 "check.lockstep", "check.loss_bounds", "check.replica", "cli", "compat", "data.blocks", "data.formats",
                 "data.pictures", "data.prefetch", "data.rows", "distributed",
                 "files", "interop", "loop.callbacks", "loop.checkpoint", "loop.display",
                 "loop.epoch", "loop.epoch_so_far", "loop.epoch_table", "loop.evaluation", "loop.figures", "loop.lock",
                 "loop.non_finite", "loop.progress", "loop.provenance", "loop.recipe", "loop.recorder",
                 "loop.run_folder", "loop.settings", "loop.shown_figure", "loop.step", "loop.stopping", "loop.watch",
                 "models.architecture", "models.config", "models.freezing", "models.layer_file", "models.loading",
                 "models.outputs", "models.saving",
                 "optim.checks", "optim.formulas", "optim.groups", "optim.optimizer", "profile", "report", "sweep",
                 "terminal", "zoo"),  # build_for, which is tried, calls those of the zoo
}  # fmt: skip

OPERATIONS = (
    "kernels.batch_norm.normalize", "kernels.col2im.col2im", "kernels.im2col.im2col",
)  # fmt: skip
"""Functions that users call in modules that are otherwise private."""

EXCLUDED = {
    "backend.active.allow_tf32": "asks the device whether it has TF32",
    "backend.forking.held_while_forking": "for the library's own locks",
    "backend.random.Generator.back_on_error": "for the library's own steps",
    "backend.random.Generator.drawing_part": "for the library's own steps",
    "backend.random.Generator.is_aligned": "for the library's own kernels",
    "backend.threads.run": "for the library's own loops",
    "backend.threads.spread": "for the library's own loops",
    "kernels.softmax.is_one_launch": "for the bench of kernels",
    "training.optim.schedules.observe": "for the Trainer and Warmup",
    "kernels.core.window.pair": "checks numbers for layers",
    "kernels.winograd.check_window": "checks numbers for layers",
    "layers.sequential.Sequential.backward": "belongs to a forward before it; its flag is checked",
    "layers.sequential.Sequential.end_backward_at": "for networks' own use",
    "layers.sequential.Sequential.plan": "for the library's own tools",
    "layers.affine.permutes_weight": "for Affine's own use",
    "training.optim.clipping.check_max_norm": "checks numbers for others",
    "training.check.gradients.GradientError": "a result",
    "training.loop.rate_search.RateSearch": "a result",
    "kernels.core.signature.Parameter": "a result",
    "training.data.download.fetch": "reaches for the network",
    "training.data.transfer.transfer": "reaches for the network",
    "training.data.collection.Data": "a result",
    "training.data.as_loader.as_loader": "for the Trainer, which is tried",
    "training.data.given.check_inputs": "for Loader.for_network, with a network's own number of rows",
    "training.data.batches.checksum": "for the comparison of batches between passes and ranks",
    "training.data.formats.folders.open_folder": "reads files",
    "training.data.image_files.ImageFiles": "reads files",
    "training.data.normalization.Normalization.from_config": "checks what is in a file",
    "training.data.normalization.Normalization.from_sums": "for ImageFiles' own use",
    "training.data.opening.open": "reads files",
    "training.data.idx.read_idx": "reads files",
    "training.data.idx.read_labelled_images": "reads files",
    "training.models.accuracy.accuracy": "for Network.accuracy, which is tried",
    "training.models.accuracy.right_count": "for Network.accuracy, which is tried",
    "training.models.metrics.as_metrics": "for the Trainer, which is tried",
    "training.data.loader.Loader.check_targets": "for the Trainer, which is tried",
    "training.models.network.Network.within_memory": "for the library's own loops",
}
"""Entry points that are not tried, with the reason."""


def numbers(*shape, dtype="float32"):
    """Return an array on the active device with different numbers."""
    size = int(np.prod(shape))
    return backend.asarray(((np.arange(size) * 7 % 11 - 5) / 4).reshape(shape).astype(dtype))


ARRAYS: dict[str, Callable[[], Any]] = {
    "x": lambda: numbers(2, 4, 6, 6),
    "images": lambda: np.asarray(numbers_on_host(5, 1, 4, 4)),
    "W": lambda: numbers(6, 4, 3, 3),
    "b": lambda: numbers(6),
    "weight": lambda: numbers(6, 4, 3, 3),
    "bias": lambda: numbers(6),
    "gamma": lambda: numbers(4),
    "beta": lambda: numbers(4),
    "mean": lambda: numbers(4),
    "variance": lambda: abs(numbers(4)) + 1,
    "window": lambda: Window(3),
}


def numbers_on_host(*shape):
    with backend.use("cpu"):
        return numbers(*shape)


def network():
    """Return a small network."""
    return Network(Sequential(Affine.of(16, 3), Relu(), Dropout(0.5), Affine.of(3, 2)), (16,))


def loader():
    return Loader(numbers_on_host(5, 16), np.arange(5) % 2, 2)


def labels():
    return np.arange(5) % 2


def _heads():
    return numbers(2, 2, 5, 3)


_LABELS = {"labels": labels}
_HEADS = dict.fromkeys("qkv", _heads)


def _recurrent(gates):
    """Return the examples of a recurrent layer's parameters."""
    shapes = {"Wx": (4, 3 * gates), "Wh": (3, 3 * gates), "bx": (3 * gates,), "bh": (3 * gates,)}
    return {name: lambda shape=shape: numbers(*shape) for name, shape in shapes.items()}


_PARAMS = {"params": lambda: {"W": numbers(3, 2)}, "grads": lambda: {"W": numbers(3, 2)}}

EXAMPLES: dict[str, dict[str, Callable[[], Any]]] = {
    "Affine": {"W": lambda: numbers(4, 3), "b": lambda: numbers(3)},
    "Embedding": {"W": lambda: numbers(5, 4)},
    "MultiHeadAttention": {
        "W_in": lambda: numbers(4, 12),
        "b_in": lambda: numbers(12),
        "W_out": lambda: numbers(4, 4),
        "b_out": lambda: numbers(4),
    },
    "PositionwiseAffine": {"W": lambda: numbers(4, 3), "b": lambda: numbers(3)},
    "PositionalEmbedding": {"W": lambda: numbers(5, 4)},
    "attention": _HEADS,
    "attention_backward": {"dy": _heads, "y": _heads, "log_sums": lambda: numbers(2, 2, 5), **_HEADS},
    **{name: _recurrent(gates) for name, gates in (("RNN", 1), ("LSTM", 4), ("GRU", 3))},
    "ConvolutionTranspose": {"W": lambda: numbers(4, 6, 3, 3)},
    "normalize": {"x": lambda: numbers(6, 4)},
    "convolution_backward_input": {"dy": lambda: numbers(2, 6, 4, 4), "input_shape": lambda: (2, 4, 6, 6)},
    "convolution_backward_weight": {"dy": lambda: numbers(2, 6, 4, 4), "weight_shape": lambda: (6, 4, 3, 3)},
    "col2im": {"columns": lambda: numbers(32, 36), "input_shape": lambda: (2, 4, 6, 6)},
    "average_pool_backward": {"dy": lambda: numbers(2, 4, 4, 4), "input_shape": lambda: (2, 4, 6, 6)},
    "dropout_mask": {"shape": lambda: (3, 4)},
    "softmax_cross_entropy_backward": {
        "y": lambda: abs(numbers(5, 2)),
        "t": lambda: backend.asarray(labels()),
    },
    "weights": {"shape": lambda: (3, 4)},
    "Residual": {"body": Relu},
    "Skip": {"body": Relu},
    "Reshape": {"shape": lambda: (4, 36, 1)},
    "Permute": {"axes": lambda: (2, 1, 3)},
    "Network": {"layers": lambda: Sequential(Affine.of(4, 2)), "input_dim": lambda: (4,)},
    "MappedInputs": {"array": lambda: np.zeros((4, 3), "int16"), "dtype": lambda: "float32"},
    "ParameterDict": {"shapes": lambda: {"W": (2, 3)}, "dtype": lambda: "float32", "library": lambda: np},
    "Checkpoints": {"folder": lambda: "checkpoints"},
    "Trainer": {"network": network, "train": loader, "test": loader, "optimizer": SGD},
    "find_learning_rate": {"trainer": lambda: Trainer(network(), loader(), loader(), SGD())},
    "Warmup": {"schedule": lambda: float},
    "clip_gradients": {"grads": lambda: {"W": numbers(3, 2)}},
    "Update": {"optimizer": SGD},
    "LossScaler.examine": {"grads": lambda: {"W": numbers(3, 2)}},
    "gradient_check": {"model": lambda: Affine.of(4, 3), "x": lambda: numbers(5, 4)},
    "Loader": _LABELS,
    "Batches": {"batches": lambda: [(numbers(5, 16), labels())]},
    "OneEpoch": {"batches": lambda: iter([(numbers(5, 16), labels())])},
    "Augmentation": {"changes": lambda: ["flip"]},
    "split": {"labels": lambda: None, "count": lambda: 10},
    "MultiLayerNet": {"hidden_size_list": lambda: [3]},
    "build_for": {"name": lambda: "TwoLayerNet", "input_dim": lambda: (1, 12, 12)},
    "Network.predict": {"x": lambda: numbers(5, 16)},
    "Network.loss": {"x": lambda: numbers(5, 16), "t": lambda: backend.asarray(labels())},
    "Network.accuracy": {"x": lambda: numbers(5, 16), "t": lambda: backend.asarray(labels())},
    "Network.step_gradients": {"x": lambda: numbers(5, 16), "t": lambda: backend.asarray(labels())},
    "im2col": {"input_data": lambda: numbers(2, 4, 6, 6)},
    "functions.col2im": {"col": lambda: numbers(32, 36), "filter_h": lambda: 3, "filter_w": lambda: 3},
    "schedules.by_name": {"name": lambda: "cosine"},
    "optimizers.by_name": {"name": lambda: "adam"},
    "leaky_relu": {"x": lambda: numbers(2, 4, 3, 2)},
    "leaky_relu_backward": {"dy": lambda: numbers(2, 4), "positive": lambda: numbers(2, 4) > 0},
    "Window.over": {"image": lambda: (5, 6)},
    "Window.transposed_size": {"output": lambda: (5, 6)},
    "course.im2col": {"x": lambda: numbers(4, 6, 6)},
    "course.col2im": {"columns": lambda: numbers(16, 36), "x_shape": lambda: (4, 6, 6)},
    "LayerNormalization.of": {"features": lambda: 4},
    "asarray": {"array": lambda: numbers(2)},
    "load_mnist": {"dataset": lambda: "mnist10k"},
    "astype": {"dtype": lambda: "float64"},
}

FIRST: dict[str, Any] = {  # arguments for which the default of 2 or 0.5 is invalid
    "hidden_size": 3, "channels": 4, "filters": 6, "groups": 2, "scale": 2.0, "size": 3, "kernel": 3, "pool_h": 2,
    "input_size": 16, "filter_h": 3, "filter_w": 3, "momentum": 0.5, "padding": 1, "pad": 1, "field_height": 3,
    "field_width": 3, "threads": 64, "kernel_shape": 3,
}  # fmt: skip

INSTANCES: dict[type, Callable[[], Any]] = {
    Network: network,
    Loader: loader,
    LossScaler: LossScaler,
    Sequential: lambda: Sequential(Affine.of(16, 3), Dropout(0.5)),
    layers.Residual: lambda: layers.Residual(Sequential(Dropout(0.5))),
    layers.Skip: lambda: layers.Skip(Sequential(Dropout(0.5))),
    layers.BatchNormalization: lambda: layers.BatchNormalization.of(4),
    Dropout: lambda: Dropout(0.5),
    Window: lambda: Window(2),
    backend.random.Generator: lambda: backend.random.Generator(3),
}
"""Functions that make an instance of a class whose methods take numbers."""


@dataclass(frozen=True)
class EntryPoint:
    """A callable: a constructor, a function, a class method, or a method of an instance that is made for each call."""

    name: str
    function: Callable[..., Any]
    parameters: dict[str, inspect.Parameter]
    owner: Callable[[], Any] | None = None
    examples: dict[str, Callable[[], Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    def arguments(self) -> dict[str, Any]:
        """Return a valid example of each argument that has no default."""
        return {name: self._example(name) for name, given in self.parameters.items() if given.default is given.empty}

    def _example(self, name: str) -> Any:
        made = self.examples.get(name) or ("number" not in self.kind(name) and ARRAYS.get(name))
        if made:
            return made()
        if "number" in self.kind(name):
            return FIRST.get(name, 2 if "whole" in self.kind(name) else 0.5)
        raise LookupError(f"{self.name} needs an example of {name} in tests/support/entry_points.py")

    def kind(self, name: str) -> str:
        """Return the kind of a parameter by its annotation: "number whole", "number real", "flag", "dtype" or ""."""
        return kind_of(self.parameters[name])

    def takes_none(self, name: str) -> bool:
        """Return whether None is a value of the parameter."""
        given = self.parameters[name]
        return given.default is None or "None" in str(given.annotation)

    def call(self, **changed: Any) -> Any:
        """Call the entry point with its examples, some of them replaced by the given arguments."""
        return self.function_of()(**{**self.arguments(), **changed})

    def function_of(self) -> Callable[..., Any]:
        """Return the function to call; a method is bound to a new instance."""
        return self.function if self.owner is None else getattr(self.owner(), self.function.__name__)


def kind_of(parameter: inspect.Parameter) -> str:
    """Return the kind of a parameter, see ``EntryPoint.kind``."""
    annotation = parameter.annotation
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    words = set(re.findall(r"\w+", text))
    if words & {"Callable", "Mapping", "dict", "Sequence", "ndarray", "tuple", "Shape", "Layout", "Iterable"}:
        return ""
    if words & {"int", "Pair", "Padding"}:
        return "number whole"
    if words & {"float", "Init"}:
        return "number real"
    if "bool" in words:
        return "flag"
    return "dtype" if parameter.name == "dtype" else ""


@cache
def entry_points() -> tuple[EntryPoint, ...]:
    """Return all entry points, sorted by name."""
    found: dict[str, EntryPoint] = {}
    for module in _modules():
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
                continue
            for entry in _of(module, name, value):
                found[entry.name] = entry
    for path in OPERATIONS:
        module_name, _, name = path.rpartition(".")
        module = importlib.import_module(module_name)
        for entry in _of(module, name, getattr(module, name)):
            found[entry.name] = entry
    return tuple(found[name] for name in sorted(found) if name not in EXCLUDED)


def _modules():
    for package in (backend, kernels, layers, training):
        yield package
        private = PRIVATE[package.__name__]
        for _, name, _ in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            inside = name.partition(".")[2]
            if inside.endswith("_native"):  # an operation's calls of C kernels
                continue
            if "._" not in name and not any(f"{inside}.".startswith(f"{module}.") for module in private):
                yield importlib.import_module(name)


def _of(module, name, value):
    if inspect.isclass(value):
        if issubclass(value, (BaseException, tuple)) or (issubclass(value, Layer) and value is Layer):
            return
        yield from _entry_point(module, name, value, value)
        for method, function in vars(value).items():
            if method.startswith("_"):
                continue
            if isinstance(function, classmethod):
                yield from _entry_point(module, f"{name}.{method}", getattr(value, method), value)
            elif inspect.isfunction(function) and value in INSTANCES:
                yield from _entry_point(module, f"{name}.{method}", function, value, INSTANCES[value])
    elif callable(value) and inspect.isfunction(inspect.unwrap(value)):
        yield from _entry_point(module, name, value, value)


def _entry_point(module, name, function, known_by, owner=None):
    try:
        parameters = dict(inspect.signature(function).parameters)
    except ValueError:
        return
    parameters.pop("self", None)
    parameters = {key: p for key, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    if not any(kind_of(parameter) for parameter in parameters.values()):
        return
    last = module.__name__.rpartition(".")[2]
    short = name.rpartition(".")[2]
    examples: dict = {}
    for key in (short, name.partition(".")[0] if short == "of" else short, name, f"{last}.{name}"):
        examples |= EXAMPLES.get(key, {})
    if short == "of":
        examples = EXAMPLES.get(name, {})
    yield EntryPoint(f"{module.__name__}.{name}", function, parameters, owner, examples)
