"""Kernels by phase and layer: where a stack of ranges places a kernel, and the sums over its launches."""

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


@dataclass(frozen=True)
class Row:
    """All captured launches of one kernel in one layer and phase.

    Attributes:
        phase: one of ``PHASES``, or "" outside them.
        layer: its name in the model, or "" outside layers.
        kernel: the kernel's name without parameters.
        calls: launches, of all captured steps together, as are seconds and bytes.
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
    """Phase and layer of what runs inside these ranges of the domain, outermost first.

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
    """A kernel's name without return type and parameters; template arguments stay, since they often say which it is."""
    kernel = kernel.replace("(anonymous namespace)::", "")
    depth = 0
    for index, character in enumerate(kernel):
        if character == "(" and depth == 0:
            kernel = kernel[:index]
            break
        depth += {"<": 1, ">": -1}.get(character, 0)
    return kernel.strip().removeprefix("void ")


def merged(rows: Iterable[Row]) -> list[Row]:
    """One row for each phase, layer and kernel, in the order of first launches."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.phase, row.layer, row.kernel), []).append(row)
    return [total(group, *key) for key, group in groups.items()]


def total(rows: Sequence[Row], phase: str = "", layer: str = "", kernel: str = "") -> Row:
    """The row of some rows together; its bytes and percentage are None where they are None for any of them."""
    seconds = sum(row.seconds for row in rows)
    counts = [row.bytes for row in rows if row.bytes is not None]
    shares = [row.percent_of_peak * row.seconds for row in rows if row.percent_of_peak is not None]
    return Row(
        phase,
        layer,
        kernel,
        sum(row.calls for row in rows),
        seconds,
        sum(counts) if len(counts) == len(rows) else None,
        sum(shares) / seconds if len(shares) == len(rows) and seconds else None,
    )
