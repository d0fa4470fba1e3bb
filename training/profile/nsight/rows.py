"""Rows of kernels by phase and layer: where a stack of ranges places a kernel, and sums over its launches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

DOMAIN = "xpnet"
"""The NVTX domain of this project's ranges."""

PHASES = ("data", "forward", "backward", "update")
"""The ranges directly inside a step."""

LOAD = "load"
"""The range of the loader's thread, which has no step: it belongs to the phase ``data``."""


class ToolError(RuntimeError):
    """A profiler is missing, has no permission, or exported what cannot be read; the message is one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


@dataclass(frozen=True)
class KernelRow:
    """All captured launches of one kernel in one layer and phase.

    Attributes:
        phase: one of ``PHASES``, or "" outside them.
        layer: its name in the model, or "" outside layers.
        kernel: the kernel's name without parameters.
        calls: the number of launches. Like seconds and bytes, it is of all captured steps together.
        seconds: time on the GPU.
        bytes: read from and written to the GPU's memory; None where the tool does not count them.
        percent_of_peak: of the memory's peak throughput, 0 to 100, mean over the time; None as above.
    """

    phase: str
    layer: str
    kernel: str
    calls: int
    seconds: float
    bytes: float | None = None
    percent_of_peak: float | None = None


def place(ranges: Sequence[str]) -> tuple[str, str]:
    """Return phase and layer of what runs inside these ranges of the domain, outermost first.

    The ranges inside a phase are layers, a layer of a layer inside that, and then operations. The name of an operation
    has a dot (its module and function) or a blank (before its arrays' shapes), that of a layer neither. A layer's name
    in the model is put together with dots, as its parameters' names are: "Residual1.body.Convolution1".

    What encloses the phase does not count: run and epoch begin before the capture, unseen by a profiler.
    """
    inside = list(ranges)
    while inside and inside[0] not in (*PHASES, LOAD):
        del inside[0]
    if not inside:
        return "", ""
    phase, *names = inside
    layers = takewhile(lambda name: not re.search(r"[. ]", name), names)
    return "data" if phase == LOAD else phase, ".".join(layers)


def bare_name(kernel: str) -> str:
    """Return a kernel's name without return type and parameters, but with its template arguments."""
    kernel = kernel.replace("(anonymous namespace)::", "")
    depth = 0
    for index, character in enumerate(kernel):
        if character == "(" and depth == 0:
            kernel = kernel[:index]
            break
        depth += {"<": 1, ">": -1}.get(character, 0)
    return kernel.strip().removeprefix("void ")


def merged(rows: Iterable[KernelRow]) -> list[KernelRow]:
    """Return one row for each phase, layer and kernel, in the order of first launches."""
    groups: dict[tuple[str, str, str], list[KernelRow]] = {}
    for row in rows:
        groups.setdefault((row.phase, row.layer, row.kernel), []).append(row)
    return [total(group, *key) for key, group in groups.items()]


def total(rows: Sequence[KernelRow], phase: str = "", layer: str = "", kernel: str = "") -> KernelRow:
    """Return the sum of some rows; bytes and percentage are None where they are None for any of them."""
    seconds = sum(row.seconds for row in rows)
    counts = [row.bytes for row in rows if row.bytes is not None]
    shares = [row.percent_of_peak * row.seconds for row in rows if row.percent_of_peak is not None]
    return KernelRow(
        phase,
        layer,
        kernel,
        sum(row.calls for row in rows),
        seconds,
        sum(counts) if len(counts) == len(rows) else None,
        sum(shares) / seconds if len(shares) == len(rows) and seconds else None,
    )
