"""Host arrays on the GPU, device arrays on the CPU, one of each: every operation refuses them in words."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import backend
from kernels import (
    activations,
    affine,
    attention,
    batch_norm,
    batch_norm_across,
    batch_norm_backward,
    batch_statistics,
    col2im,
    convolution,
    cross_entropy,
    depthwise,
    dropout,
    embedding,
    gemm,
    hinge,
    im2col,
    layer_norm,
    masking,
    max_pooling,
    pooling,
    softmax,
    sums,
    totals,
    winograd,
)
from kernels.core import layout, tiling
from kernels.core.window import Window

WINDOW = Window(2, stride=2)
SHAPE = (2, 4, 6, 4)


class Operation(NamedTuple):
    """A function, its array arguments by name (shape and dtype), and its other arguments."""

    function: Callable
    arrays: dict[str, tuple[tuple[int, ...], str]]
    others: dict[str, Any]

    def __str__(self):
        return f"{self.function.__module__.rpartition('.')[2]}.{self.function.__name__}"


def floats(**shapes):
    return {name: (shape, "float32") for name, shape in shapes.items()}


OUT = (2, 4, 3, 2)
WEIGHT = (3, 4, 2, 2)
DY = (2, 3, 3, 2)
ROWS, VECTOR = (12, 4), (4,)
OPERATIONS = [
    Operation(im2col.im2col, floats(x=SHAPE), {"window": WINDOW}),
    Operation(col2im.col2im, floats(columns=(12, 16)), {"input_shape": SHAPE, "window": WINDOW}),
    Operation(col2im.col2im, floats(columns=(12, 16)), {"input_shape": SHAPE, "window": WINDOW, "method": "scatter"}),
    Operation(max_pooling.max_pool, floats(x=SHAPE), {"window": WINDOW}),
    Operation(
        max_pooling.max_pool_backward,
        {"dy": (OUT, "float32"), "argmax": (OUT, "int32")},
        {"input_shape": SHAPE, "window": WINDOW},
    ),
    Operation(pooling.average_pool, floats(x=SHAPE), {"window": WINDOW}),
    Operation(pooling.average_pool_backward, floats(dy=OUT), {"input_shape": SHAPE, "window": WINDOW}),
    Operation(convolution.convolution, floats(x=SHAPE, weight=WEIGHT, bias=(3,)), {"window": WINDOW}),
    Operation(convolution.convolution, floats(x=SHAPE, weight=WEIGHT), {"bias": None, "window": WINDOW}),
    Operation(convolution.convolution_measured, floats(x=SHAPE, weight=WEIGHT, bias=(3,)), {"window": WINDOW}),
    Operation(
        convolution.convolution, floats(x=SHAPE, weight=(4, 1, 2, 2), bias=(4,)), {"window": WINDOW, "groups": 4}
    ),
    Operation(
        convolution.convolution_backward_input,
        floats(dy=DY, weight=WEIGHT),
        {"input_shape": SHAPE, "window": WINDOW},
    ),
    Operation(
        convolution.convolution_backward_weight,
        floats(x=SHAPE, dy=DY, out=WEIGHT, bias_out=(3,)),
        {"weight_shape": WEIGHT, "window": WINDOW},
    ),
    *(
        Operation(function, floats(**shapes), {"window": Window(3), **others})
        for function, shapes, others in (
            (winograd.convolution, {"x": SHAPE, "weight": (3, 4, 3, 3), "bias": (3,)}, {}),
            (
                winograd.convolution_backward_input,
                {"dy": (2, 3, 4, 2), "weight": (3, 4, 3, 3)},
                {"input_shape": SHAPE},
            ),
            (
                winograd.convolution_backward_weight,
                {"x": SHAPE, "dy": (2, 3, 4, 2), "out": (3, 4, 3, 3), "bias_out": (3,)},
                {"weight_shape": (3, 4, 3, 3)},
            ),
        )
    ),
    Operation(gemm.matmul, floats(a=(5, 3), b=(3, 4), out=(5, 4), bias=(4,)), {}),
    Operation(gemm.matmul, floats(a=(5, 3), b=(3, 4)), {}),
    Operation(embedding.embedding, {"weight": ((5, 4), "float32"), "indices": ((2, 3), "int64")}, {}),
    Operation(
        embedding.embedding_backward,
        {"dout": ((2, 3, 4), "float32"), "indices": ((2, 3), "int64"), "out": ((5, 4), "float32")},
        {},
    ),
    Operation(sums.column_sums, floats(matrix=(5, 4), out=(4,)), {}),
    Operation(sums.axis_sums, floats(x=SHAPE), {"axes": (0, 2)}),
    Operation(sums.axis_means, floats(x=SHAPE), {"axes": 1}),
    Operation(batch_statistics.batch_statistics, floats(x=ROWS), {}),
    Operation(
        batch_norm.batch_norm,
        floats(x=ROWS, gamma=VECTOR, beta=VECTOR, running_mean=VECTOR, running_variance=VECTOR),
        {"epsilon": 1e-3, "momentum": 0.9},
    ),
    Operation(
        batch_norm.normalize, floats(x=ROWS, mean=VECTOR, variance=VECTOR, gamma=VECTOR, beta=VECTOR), {"epsilon": 1e-3}
    ),
    Operation(
        batch_norm_backward.normalize_backward, floats(dy=ROWS, x=ROWS, mean=VECTOR, inverse=VECTOR, gamma=VECTOR), {}
    ),
    Operation(
        batch_norm_backward.normalize_backward_fixed,
        floats(dy=ROWS, x=ROWS, mean=VECTOR, inverse=VECTOR, gamma=VECTOR),
        {},
    ),
    Operation(layer_norm.layer_norm, floats(x=ROWS, gamma=VECTOR, beta=VECTOR), {"epsilon": 1e-3}),
    Operation(layer_norm.layer_norm_backward, floats(dy=ROWS, normalized=ROWS, inverse=(12, 1), gamma=VECTOR), {}),
    Operation(layer_norm.group_norm, floats(x=SHAPE, gamma=VECTOR, beta=VECTOR), {"groups": 2, "epsilon": 1e-3}),
    Operation(
        layer_norm.group_norm_backward,
        floats(dy=SHAPE, normalized=(2, 24, 2, 2), inverse=(2, 1, 2, 1), gamma=VECTOR),
        {},
    ),
    Operation(pooling.global_average_pool, floats(x=SHAPE), {}),
    Operation(pooling.global_average_pool_backward, floats(dy=(2, 4)), {"input_shape": SHAPE}),
    Operation(softmax.softmax, floats(x=(5, 4)), {}),
    Operation(softmax.softmax_backward, floats(dy=(5, 4), y=(5, 4)), {}),
    Operation(hinge.hinge, {"x": ((5, 4), "float32"), "t": ((5,), "int64")}, {}),
    Operation(softmax.softmax_cross_entropy, {"x": ((5, 4), "float32"), "t": ((5,), "int64")}, {}),
    Operation(softmax.softmax_cross_entropy, floats(x=(5, 4), t=(5, 4)), {}),
    Operation(
        softmax.softmax_cross_entropy_backward,
        {"y": ((5, 4), "float32"), "t": ((5,), "int64"), "scale": ((), "float32")},
        {},
    ),
    Operation(cross_entropy.cross_entropy, {"y": ((5, 4), "float32"), "t": ((5,), "int64")}, {}),
    Operation(activations.relu, floats(x=SHAPE), {}),
    Operation(affine.affine, floats(x=(5, 3), weight=(3, 4), bias=(4,)), {"relu": True}),
    Operation(
        affine.bias_gradient, {"dy": ((5, 4), "float32"), "positive": ((5, 4), "bool"), "out": ((4,), "float32")}, {}
    ),
    Operation(attention.attention, floats(q=SHAPE, k=SHAPE, v=SHAPE), {}),
    Operation(
        attention.attention_backward,
        floats(dy=SHAPE, q=SHAPE, k=SHAPE, v=SHAPE, y=SHAPE, log_sums=SHAPE[:3]),
        {"causal": True},
    ),
    Operation(dropout.dropout, floats(x=SHAPE), {"ratio": 0.5}),
    Operation(
        totals.add_to_totals,
        {"totals": ((3,), "float64"), "loss": ((), "float32"), "y": ((5, 4), "float32"), "t": ((5,), "int32")},
        {},
    ),
    Operation(activations.multiply, floats(a=SHAPE, b=SHAPE), {}),
    Operation(activations.scale, floats(x=SHAPE), {"factor": 0.5}),
    Operation(activations.relu6, floats(x=SHAPE), {}),
    Operation(activations.leaky_relu, floats(x=SHAPE), {"slope": 0.1}),
    Operation(activations.leaky_relu_backward, {"dy": (SHAPE, "float32"), "positive": (SHAPE, "bool")}, {"slope": 0.1}),
    Operation(activations.sigmoid, floats(x=(5, 4)), {}),
    Operation(activations.sigmoid_backward, floats(dy=SHAPE, y=SHAPE), {}),
    Operation(activations.tanh, floats(x=SHAPE), {}),
    Operation(activations.tanh_backward, floats(dy=SHAPE, y=SHAPE), {}),
    Operation(activations.gelu, floats(x=SHAPE), {}),
    Operation(activations.gelu_backward, floats(dy=SHAPE, x=SHAPE), {}),
    Operation(activations.add, floats(a=SHAPE, b=SHAPE), {}),
    Operation(masking.masked, {"values": (SHAPE, "float32"), "mask": (SHAPE, "bool")}, {}),
]

REFUSAL = r"host and device arrays are mixed: numpy\.ndarray .* and cupy\.ndarray|does not lie on the active device"
PART_OF_OTHERS = {  # called by the operations above with arrays that these have looked at, or with none
    activations: "rectify relu_in_place",
    affine: "add_bias",
    batch_norm: "factors normalized",
    batch_norm_across: "batch_norm backward",
    batch_norm_backward: "positive input_gradient_fixed",
    batch_statistics: (
        "fewer in_ranges join joined moments lines_of move_running narrow parts_of pass_tiling statistics tiling_of"
    ),
    depthwise: "forward backward_input backward_weight",
    im2col: "windows padded im2col_numpy part_columns_cuda device_columns",
    col2im: "add_windows",
    gemm: "check_product into matmul_native add_rows matmul_part",
    sums: "column_totals square_sum stages sum_terms total_of_parts",
    layout: "to_nhwc as_nchw channels_last copy_channels_last is_channels_last elementwise target joined parted "
    "channel_axis",
    dropout: "dropout_mask",
    softmax: "is_one_launch",
    max_pooling: "pool pool_backward",
    winograd: "check_window",
    tiling: "cut partial_sums parallel_for power_of_two ranges row_group together",
}


def arrays_of(operation, device, seed=0):
    rng = np.random.default_rng(seed)
    with backend.use(device):
        return {
            name: backend.asarray(np.asarray(rng.integers(0, 2, shape)).astype(dtype))
            for name, (shape, dtype) in operation.arrays.items()
        }


def call(operation, arrays):
    """By position where the function takes no names: what makes a function elementwise takes its arrays so."""
    names = list(inspect.signature(operation.function).parameters)
    given = {**arrays, **operation.others}
    positional = [given[name] for name in names if name in arrays and names.index(name) < len(arrays)]
    rest = {name: value for name, value in given.items() if name not in names[: len(positional)]}
    return operation.function(*positional, **rest)


def test_no_operation_is_left_out():
    modules = [
        activations,
        affine,
        attention,
        batch_norm,
        batch_norm_backward,
        batch_statistics,
        col2im,
        convolution,
        depthwise,
    ]
    modules += [dropout, gemm, hinge, im2col, layer_norm, layout, masking, max_pooling, pooling, softmax, sums, tiling]
    modules += [totals, winograd]
    covered = {operation.function.__name__ for operation in OPERATIONS}
    for module in modules:
        public = {
            name
            for name, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
        }
        assert public - covered - set(PART_OF_OTHERS.get(module, "").split()) == set(), module.__name__


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_the_examples_are_right(operation, device):
    call(operation, arrays_of(operation, device))


SWAPS = [(operation, name) for operation in OPERATIONS for name in operation.arrays if len(operation.arrays) > 1]


@pytest.mark.gpu
@pytest.mark.parametrize("active", ["cpu", "cuda"])
@pytest.mark.parametrize(("operation", "name"), SWAPS, ids=[f"{o}-{name}" for o, name in SWAPS])
def test_one_array_on_the_other_device(operation, name, active):
    arrays, other = (arrays_of(operation, device) for device in (active, "cpu" if active == "cuda" else "cuda"))
    given = {**arrays, name: other[name]}
    before = {key: backend.asnumpy(array).copy() for key, array in given.items()}
    with backend.use(active), pytest.raises(TypeError, match=REFUSAL):
        call(operation, given)
    for key, array in given.items():
        assert np.array_equal(backend.asnumpy(array), before[key]), f"{key} was changed"


RUNS_ANYWHERE = cross_entropy.cross_entropy


@pytest.mark.gpu
@pytest.mark.parametrize("active", ["cpu", "cuda"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_all_arrays_on_the_other_device(operation, active):
    """Refused, except by the one that needs nothing of the active device: its result lies where its arrays do."""
    given = arrays_of(operation, "cpu" if active == "cuda" else "cuda")
    with backend.use(active):
        if operation.function is not RUNS_ANYWHERE:
            with pytest.raises(TypeError, match="does not lie on the active device"):
                call(operation, given)
            return
        results = call(operation, given)
        assert backend.array_module(*given.values(), *(results if isinstance(results, tuple) else [results]))
