"""Compare a case with the CPU, time it in blocks of several sizes, and return the figures for JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any

import numpy as np

from backend import asnumpy, current_device, use, xp
from bench.kernels import (
    attention_cases,
    depthwise_cases,
    embedding_cases,
    layer_norm_cases,
    other_cases,
    recurrent_cases,
    step_cases,
    sum_cases,
    window_cases,
)
from bench.kernels.case import DTYPES, Call, KernelCase, KernelRow
from bench.kernels.stopwatch import Samples, Stopwatch
from bench.workloads import DisagreementError
from kernels.core import catalog
from kernels.core.launch import BLOCK, Kernel, blocks_of
from training.check import Bound

SETS = 3
"""Number of sets of random inputs of a case, which the repeats use in turn."""


def cases(tiny: bool) -> list[KernelCase]:
    """Return every case, on realistic or tiny shapes, ordered by operation."""
    kinds = (
        window_cases, depthwise_cases, other_cases, layer_norm_cases, step_cases, sum_cases, embedding_cases,
        attention_cases, recurrent_cases,
    )  # fmt: skip
    found = [case for kind in kinds for dtype in DTYPES for case in kind.cases(dtype, tiny)]
    operations = list(dict.fromkeys(case.operation for case in found))
    return sorted(found, key=lambda case: operations.index(case.operation))


def most_threads(case: KernelCase) -> int | None:
    """Return the most threads in a block of the case's kernels; None if it has no kernel whose block size can be
    chosen."""
    return min((_kernels()[name].most_threads for name in case.kernels), default=None)


def measure(case: KernelCase, blocks: Sequence[int], repeats: int, stopwatch: Stopwatch) -> Iterator[KernelRow]:
    """Check and time a case in blocks of the library's own size, then of each other size that it can have; yield a row
    for each.

    Raises:
        DisagreementError: the results of GPU and CPU differ.
    """
    sets = [case.inputs() for _ in range(min(SETS, repeats))]
    expected = _on_cpu(case, sets[0])
    most = most_threads(case)
    sizes: list[int | None] = [None] if most is None else [BLOCK, *(size for size in blocks if BLOCK != size <= most)]
    for block in sizes:
        with nullcontext() if block is None else blocks_of(block):
            error = _check(case, case.bind(*sets[0]), expected, block)
            samples = stopwatch.samples([case.bind(*arrays) for arrays in sets], repeats)
        yield _row(case, block, error, samples)


def _on_cpu(case: KernelCase, inputs: tuple[Any, ...]) -> list[Any]:
    host = [asnumpy(array) for array in inputs]
    with use("cpu"):
        return _arrays(case.bind(*host))


def _check(case: KernelCase, call: Call, expected: list[Any], block: int | None) -> float:
    """Return the largest error of the call's arrays, in ulps of the largest number of each."""
    found = _arrays(call)
    error = max(_bound(right).error(actual) for actual, right in zip(found, expected, strict=True))
    if error > case.tolerance:
        where = "" if block is None else f", blocks of {block} threads"
        raise DisagreementError(
            f"{case}{where}: {current_device()} and the CPU differ by {error:.3g} ulps of the largest number, "
            f"more than {case.tolerance:.3g}"
        )
    return error


def _arrays(call: Call) -> list[Any]:
    result = call()
    return [asnumpy(array) for array in (result if isinstance(result, tuple) else (result,))]


@cache
def _kernels() -> dict[str, Kernel]:
    return {name: Kernel(file, name) for file in catalog.files() for name in catalog.kernels_of(file)}


def bandwidth(stopwatch: Stopwatch, repeats: int, tiny: bool) -> KernelRow:
    """Return the bandwidth of a plain copy on the GPU, the upper limit for a kernel."""
    moved, samples = stopwatch.copy(repeats, tiny)
    return {"bytes": moved, **_figures(samples, moved)}


def _figures(samples: Samples, moved: int) -> KernelRow:
    low, median, high = samples.quartiles
    return {
        "us": median,
        "quartiles_us": [low, high],
        "samples": len(samples.microseconds),
        "late": samples.late,
        "gbps": moved / median / 1e3,
    }


def _row(case: KernelCase, block: int | None, error: float, samples: Samples) -> KernelRow:
    return {
        "operation": case.operation,
        "shape": case.shape,
        "detail": case.detail,
        "dtype": case.dtype,
        "kernels": list(case.kernels),
        "block": block,
        "most_threads": most_threads(case),
        "moves": case.moves,
        "least_bytes": case.least_bytes,
        "flops": case.flops,
        "error_ulps": error,
        "tolerance_ulps": case.tolerance,
        **_figures(samples, case.least_bytes),
    }


def describe_gpu() -> dict[str, Any]:
    """Return a description of the active GPU and its software, for JSON."""
    runtime, device = xp.cuda.runtime, xp.cuda.Device()
    properties = runtime.getDeviceProperties(device.id)
    return {
        "name": properties["name"].decode(),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "multiprocessors": properties["multiProcessorCount"],
        "memory_bytes": properties["totalGlobalMem"],
        "l2_bytes": device.attributes["L2CacheSize"],
        "cupy": xp.__version__,
        "driver": _version(runtime.driverGetVersion()),
        "runtime": _version(runtime.runtimeGetVersion()),
    }


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _bound(right: Any) -> Bound:
    """Return the bound of an array, with errors in ulps of its largest finite number."""
    largest = np.abs(right[np.isfinite(right)]).max(initial=0) if right.dtype.kind == "f" else None
    return Bound(right, right.dtype, magnitude=largest)
