"""The limits that a device sets: operations and bytes a second, published for a GPU, measured on a CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy

from backend.devices import Gpu
from training.profile.cost import Work
from training.profile.cost.gpus import named_like

_SIDE, _BYTES, _REPEATS = 1024, 64 << 20, 5


@dataclass(frozen=True)
class Roof:
    """Peak rates of a device.

    Attributes:
        flops: floating-point operations a second.
        bandwidth: bytes a second to and from memory.
        source: where the numbers are from.
    """

    flops: float
    bandwidth: float
    source: str


def roof_of_cpu(threads: int) -> Roof:
    """Measure the roof of this CPU: the best of five matrix products of float32, and of five copies of 64 MB."""
    square = numpy.ones((_SIDE, _SIDE), "float32")
    product = numpy.empty_like(square)
    flops = 2 * _SIDE**3 / _best(lambda: numpy.matmul(square, square, out=product))
    given, copied = numpy.ones(_BYTES, "uint8"), numpy.empty(_BYTES, "uint8")
    parts = list(zip(numpy.array_split(given, threads), numpy.array_split(copied, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        seconds = _best(lambda: list(pool.map(lambda part: numpy.copyto(part[1], part[0]), parts)))
    return Roof(flops, 2 * _BYTES / seconds, "measured by matrix products and copies")


def roof_of_gpu(gpu: Gpu, precision: str) -> Roof | None:
    """Return the published rates of a GPU, of its matrix products in a precision; None if it is not a known one."""
    known = named_like(gpu.model)
    if known is None:
        return None
    flops = {"fp32": known.float32, "tf32": known.tf32, "fp16": known.float16}[precision]
    return Roof(flops, known.bandwidth, f"data sheet of {known.title}")


def record(
    seconds: Mapping[tuple[str, str], float], works: Mapping[tuple[str, str], Work], roof: Roof | None, about: Mapping
) -> dict[str, Any]:
    """Return a profile as what ``profile.json`` in a run's folder holds.

    Args:
        seconds: of a step, by layer and phase.
        works: the cost of a step by the model, likewise.
        roof: of the device.
        about: what was profiled, and where.
    """
    rows = []
    for (layer, phase), taken in seconds.items():
        work = works.get((layer, phase))
        cost = {} if work is None else {"flops": work.flops, "bytes": work.nbytes}
        rows.append({"layer": layer, "phase": phase, "seconds": taken, **cost})
    return {**about, "roof": None if roof is None else asdict(roof), "rows": rows}


def summed(rows: Iterable[tuple[tuple[str, str], float]]) -> dict[tuple[str, str], float]:
    """Add up the seconds of rows with the same layer and phase."""
    found: dict[tuple[str, str], float] = {}
    for place, seconds in rows:
        found[place] = found.get(place, 0.0) + seconds
    return found


def _best(run: Callable[[], object]) -> float:
    taken = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return max(min(taken), 1e-9)
