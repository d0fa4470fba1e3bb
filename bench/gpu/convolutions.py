"""Time convolutions on a GPU in three ways: ``python -m bench convolutions``.

The implicit product of ``kernels.implicit_gemm``; im2col and cuBLAS, the public operations one after the other; and
cuDNN, through PyTorch, where it is installed with CUDA.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import click

from backend import DeviceError, allow_tf32, random, use, xp
from backend.types import Array
from bench.kernels.measure import describe_gpu
from bench.kernels.stopwatch import Stopwatch
from bench.report import check_folder, write_json
from bench.workloads import DisagreementError
from kernels import implicit_gemm
from kernels.col2im import col2im
from kernels.core import tensor_tiles
from kernels.core.geometry import Geometry
from kernels.core.layout import as_nchw
from kernels.core.window import Window
from kernels.gemm import matmul
from kernels.im2col import im2col
from training.cli.common import Real, choose_compute, count_from, user_errors
from training.profile.cost.gpus import named_like
from training.terminal.tables import aligned

PRECISIONS = {"fp32": "float32", "tf32": "float32", "fp16": "float16"}
PRODUCTS = ("forward", "input gradient", "weight gradient")
TOLERANCE = {"fp32": 2e-5, "tf32": 5e-3, "fp16": 5e-3}
"""The largest difference between two ways, of the largest number of the result."""

Call = Callable[[], Any]
Row = dict[str, Any]


class Layer(NamedTuple):
    """A convolution of images (n, channels, size, size) with square filters."""

    n: int
    channels: int
    size: int
    filters: int
    kernel: int = 3
    stride: int = 1

    @property
    def window(self) -> Window:
        """Return the window, padded so that it can stand on each pixel."""
        return Window(self.kernel, self.stride, self.kernel // 2)

    @property
    def geometry(self) -> Geometry:
        """Return the window laid over the images."""
        return self.window.over((self.size, self.size))

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """Return the shape of the filters."""
        return self.filters, self.channels, self.kernel, self.kernel

    @property
    def flops(self) -> int:
        """Return the multiplications and additions of each of the three products."""
        height, width = self.geometry.output
        return 2 * self.n * height * width * self.filters * self.channels * self.kernel**2

    def __str__(self) -> str:
        stride = f", stride {self.stride}" if self.stride > 1 else ""
        return (
            f"{self.n}x{self.channels}x{self.size}x{self.size}, {self.filters} of {self.kernel}x{self.kernel}{stride}"
        )


LAYERS = (
    Layer(128, 3, 32, 16),
    Layer(128, 16, 32, 16),
    Layer(128, 16, 32, 32, stride=2),
    Layer(128, 32, 16, 32),
    Layer(128, 64, 8, 64),
    Layer(64, 64, 56, 64),
    Layer(64, 256, 14, 256),
    Layer(64, 512, 7, 512),
)
"""The kinds of ResNet-20, and three of a ResNet-50."""

TINY = (Layer(2, 3, 6, 5), Layer(2, 4, 7, 8, stride=2))


class Arrays(NamedTuple):
    """The arrays of a layer with channels-last memory: x (N, H, W, C), w (FH, FW, C, FN), dy (N, OH, OW, FN)."""

    x: Array
    w: Array
    dy: Array


def arrays_of(layer: Layer, dtype: str) -> Arrays:
    """Return random numbers from -1 to 1 on the active device."""
    shape = layer.n, layer.size, layer.size, layer.channels
    fn, c, fh, fw = layer.weight_shape
    outputs = layer.n, *layer.geometry.output, layer.filters
    return Arrays(*(random.uniform(each, dtype) * 2 - 1 for each in (shape, (fh, fw, c, fn), outputs)))


def implicit(layer: Layer, given: Arrays) -> dict[str, Call]:
    """Return the three products by ``kernels.implicit_gemm``."""
    x, w, dy = given
    y, dx, dw = (xp.empty_like(array) for array in (dy, x, w))

    def forward() -> Array:
        implicit_gemm.forward(x, w, None, layer.geometry, 1, y, None)
        return y

    def backward_input() -> Array:
        implicit_gemm.backward_input(dy, w, layer.geometry, 1, dx)
        return dx

    def backward_weight() -> Array:
        implicit_gemm.backward_weight(x, dy, layer.geometry, 1, dw, None)
        return dw

    return {"forward": forward, "input gradient": backward_input, "weight gradient": backward_weight}


def by_columns(layer: Layer, given: Arrays) -> dict[str, Call]:
    """Return the three products by im2col, cuBLAS and col2im."""
    x, w, dy = given
    images, matrix, rows = as_nchw(x), w.reshape(-1, layer.filters), dy.reshape(-1, layer.filters)
    back = images.shape, layer.window, "HWC"
    return {
        "forward": lambda: matmul(im2col(images, layer.window, "HWC"), matrix).reshape(dy.shape),
        "input gradient": lambda: col2im(matmul(rows, matrix.T), *back).transpose(0, 2, 3, 1),
        "weight gradient": lambda: matmul(im2col(images, layer.window, "HWC").T, rows).reshape(w.shape),
    }


def cudnn(layer: Layer, given: Arrays) -> dict[str, Call]:
    """Return the three products by PyTorch, over the same memory."""
    import torch

    torch.backends.cudnn.benchmark = True
    x, w, dy = (torch.from_dlpack(array) for array in given)
    x, w, dy = (
        x.permute(0, 3, 1, 2),
        w.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last),
        dy.permute(0, 3, 1, 2),
    )
    stride, padding = [layer.stride] * 2, [layer.kernel // 2] * 2

    def backward(*mask: bool) -> Any:
        return torch.ops.aten.convolution_backward(
            dy, x, w, None, stride, padding, [1, 1], False, [0, 0], 1, [*mask, False]
        )

    return {
        "forward": lambda: torch.nn.functional.conv2d(x, w, None, stride, padding),
        "input gradient": lambda: backward(True, False)[0],
        "weight gradient": lambda: backward(False, True)[1],
    }


def _has_cudnn() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def _set_precision(precision: str, with_torch: bool) -> None:
    allow_tf32(precision == "tf32")
    if with_torch:
        import torch

        torch.backends.cudnn.allow_tf32 = precision == "tf32"


def measure(layer: Layer, precision: str, repeats: int, stopwatch: Stopwatch, with_torch: bool) -> list[Row]:
    """Compare the ways with each other, and time them.

    Raises:
        DeviceError: the GPU has no TF32.
        DisagreementError: two ways differ by more than ``TOLERANCE``.
    """
    _set_precision(precision, with_torch)
    dtype = PRECISIONS[precision]
    given, rows = arrays_of(layer, dtype), []
    ways = {"im2col and cuBLAS": by_columns(layer, given)}
    if not implicit_gemm.refusal(given.x.dtype, layer.weight_shape, layer.geometry, 1):
        ways["implicit"] = implicit(layer, given)
    if with_torch:
        ways["cuDNN"] = cudnn(layer, given)
    for product in PRODUCTS:
        expected = ways["im2col and cuBLAS"][product]()
        for way, calls in ways.items():
            _compare(f"{layer}, {product}, {precision}: {way}", calls[product](), expected, precision)
            low, median, high = stopwatch.samples([calls[product]], repeats).quartiles
            rows.append({
                "layer": str(layer), "product": product, "precision": precision, "way": way,
                "us": median, "quartiles_us": [low, high], "tflops": layer.flops / median / 1e6,
            })  # fmt: skip
    return rows


def _compare(what: str, result: Any, expected: Any, precision: str) -> None:
    if not isinstance(result, type(expected)):
        order = (2, 3, 1, 0) if "weight" in what else (0, 2, 3, 1)
        result = xp.from_dlpack(result.detach().permute(*order).contiguous())
    wide, right = result.astype("float64"), expected.astype("float64")
    difference = float(abs(wide - right).max() / abs(right).max())
    if not difference <= TOLERANCE[precision]:
        raise DisagreementError(f"{what} and im2col and cuBLAS differ by {difference:.2g} of the largest number")


def _compile_ahead(layers: Sequence[Layer]) -> None:
    """Compile all kernels of the implicit products into CuPy's cache, in as many processes as there are cores.

    One after the other they would take longer than all that is measured.
    """
    wanted = {
        tensor_tiles.plan(
            product, dtype, layer.n, layer.channels, layer.filters, layer.geometry, 1, precision == "tf32", 16, 16
        ).variant
        for layer in layers
        for precision, dtype in PRECISIONS.items()
        for product in tensor_tiles.KERNELS
    }
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(os.cpu_count() or 1, 12), mp_context=context) as pool:
        list(pool.map(_compile, wanted))


def _compile(variant: tensor_tiles.Variant) -> None:
    with use("cuda"):
        implicit_gemm._compiled(variant, tensor_tiles.KERNELS[variant.product])
        if variant.product == tensor_tiles.BACKWARD_WEIGHT:
            implicit_gemm._compiled(variant, "conv_add_parts")


def peak_of(precision: str, gpu: dict[str, Any]) -> float | None:
    """Return the published peak of the GPU's tensor cores in TFLOP/s; float32 is three TF32 products."""
    known = named_like(gpu["name"])
    if known is None:
        return None
    return {"fp32": known.tf32 / 3, "tf32": known.tf32, "fp16": known.float16}[precision] / 1e12


def as_table(rows: list[Row]) -> str:
    """Return the rows as lines for a terminal, a line for each layer, product and precision."""
    ways = list(dict.fromkeys(row["way"] for row in rows))
    lines = [["layer", "product", "precision", *(f"{way} us" for way in ways), "implicit TFLOP/s", "of the peak"]]
    groups: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in rows:
        groups.setdefault((row["layer"], row["product"], row["precision"]), {})[row["way"]] = row
    for key, found in groups.items():
        own = found.get("implicit")
        share = "-" if own is None or own["of_peak"] is None else f"{own['of_peak']:.0%}"
        times = [f"{found[way]['us']:,.1f}" if way in found else "-" for way in ways]
        lines.append([*key, *times, "-" if own is None else f"{own['tflops']:.1f}", share])
    return "\n".join(aligned(lines, words=3))


@click.command("convolutions")
@click.option("--repeats", type=count_from(1), default=20, show_default=True, help="Samples of each.")
@click.option("--seconds", type=Real(0), help="No further layer after so long.  [default: all]")
@click.option("--tiny", is_flag=True, help="Tiny shapes: to see that it runs; the times say nothing.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures there.")
def convolutions(repeats: int, seconds: float | None, tiny: bool, json_file: Path | None) -> None:
    """Time convolutions on a GPU: without columns, by im2col and cuBLAS, and by cuDNN where PyTorch is installed.

    Forward, input gradient and weight gradient of layers of ResNets, in float32, TF32 and float16, one by one with an
    empty L2 cache. The ways are compared first: a wrong value ends the run with exit code 1.
    """
    with user_errors():
        check_folder(json_file)
    choose_compute("cuda", None)
    begin = time.perf_counter()
    if not tiny:
        _compile_ahead(LAYERS)
    stopwatch, gpu, with_torch, rows = Stopwatch(), describe_gpu(), _has_cudnn(), []
    if not with_torch:
        click.echo("PyTorch with CUDA is not installed: cuDNN is left out", err=True)
    try:
        for layer in TINY if tiny else LAYERS:
            if seconds is not None and time.perf_counter() - begin > seconds:
                click.echo(f"left out after {seconds:g} s: {layer}", err=True)
                continue
            for precision in PRECISIONS:
                click.echo(f"{layer}, {precision}", err=True)
                try:
                    found = measure(layer, precision, repeats, stopwatch, with_torch)
                except DeviceError as error:
                    click.echo(f"{error}", err=True)
                    continue
                except DisagreementError as error:
                    raise click.ClickException(f"{error}") from error
                peak = peak_of(precision, gpu)
                rows += [row | {"of_peak": row["tflops"] / peak if peak else None} for row in found]
    finally:
        _set_precision("fp32", with_torch)
    click.echo(as_table(rows))
    if json_file:
        write_json({"schema": 1, "gpu": gpu, "torch": with_torch, "rows": rows}, json_file)
