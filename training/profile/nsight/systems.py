"""Nsight Systems: the time of every kernel, at a run's own speed.

Its reports that sum by range mix what is needed apart: ``nvtx_kern_sum`` counts a kernel in every range around it and
sums a layer's forward and backward under one name, ``nvtx_gpu_proj_trace`` knows no kernels. So two traces are joined,
as Nsight itself does it: a kernel belongs to the ranges that were open in the thread that launched it, when it did.

Formats: the reports ``nvtx_pushpop_trace`` and ``cuda_kern_exec_trace`` by the "Post-Collection Analysis Guide" of
Nsight Systems 2025, which has their columns. What it does not say, units in the header and a range's name as
``domain:name``, is as in exports that others have published, of 2023.4 to 2026.3.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from training.profile.nsight.errors import ToolError
from training.profile.nsight.exports import Table
from training.profile.nsight.rows import DOMAIN, Row, bare_name, merged, place

RANGES, KERNELS = "nvtx_pushpop_trace", "cuda_kern_exec_trace"
Range = tuple[float, float, str]  # start, end, name
Thread = tuple[str, str]  # process and thread

name = "Nsight Systems"
oldest = "2023.4"
site = "https://developer.nvidia.com/nsight-systems"


def report_file(out: Path) -> Path:
    """What is kept, for the GUI."""
    return out / "profile.nsys-rep"


def exported_files(out: Path) -> list[Path]:
    """What the export writes: ``--output`` names the beginning, nsys adds the report's name."""
    return [out / f"profile_{report}.csv" for report in (RANGES, KERNELS)]


def capture_command(tool: str, command: Sequence[str], out: Path, kernels: str | None) -> list[str]:
    """The command line that captures ``command``; all kernels, whatever ``kernels`` says: that is for the reader."""
    return [
        tool,
        "profile",
        "--trace=cuda,nvtx,cublas",
        "--sample=none",
        "--cpuctxsw=none",
        "--capture-range=cudaProfilerApi",
        "--capture-range-end=stop",  # not the default stop-shutdown, which ends the command with the capture
        "--force-overwrite=true",
        f"--output={escaped(out / 'profile')}",
        *command,
    ]


def export_command(tool: str, out: Path) -> list[str]:
    """The command line that writes the CSV files."""
    return [
        tool,
        "stats",
        f"--report={RANGES}",
        f"--report={KERNELS}",
        "--format=csv",
        "--timeunit=nsec",
        "--force-export=true",
        "--force-overwrite=true",
        f"--output={out / 'profile'}",
        str(report_file(out)),
    ]


def save_export(out: Path, stdout: str) -> None:
    """Nothing to do: nsys has written its files."""


def escaped(path: Path) -> str:
    """A path in which neither tool finds a macro such as %p, the process's number."""
    return str(path).replace("%", "%%")


def read(out: Path, kernels: str | None) -> list[Row]:
    """The rows of the exported files.

    Args:
        out: their folder.
        kernels: a regular expression; only kernels in whose names it is found. None: all.

    Raises:
        ToolError: a file is not there (nsys writes none where nothing was captured), or lacks columns or ranges; or
            no kernel has such a name.
    """
    ranges_file, kernels_file = exported_files(out)
    nothing = (
        "nsys captured no kernel: the profiled steps launched none on a GPU; train with --device cuda, and see "
        f"{report_file(out)}"
    )
    if not kernels_file.is_file():
        raise ToolError(nothing)
    if not ranges_file.is_file():
        raise ToolError(f"nsys captured no NVTX range, so no kernel has a layer: pip install nvtx; see {out}")
    ranges = read_ranges(ranges_file.read_text(errors="replace"), ranges_file.name)
    rows = read_kernels(kernels_file.read_text(errors="replace"), ranges, kernels_file.name)
    chosen = [row for row in rows if kernels is None or re.search(kernels, row.kernel)]
    if not chosen:
        names = ", ".join(dict.fromkeys(row.kernel for row in rows))
        raise ToolError(f"nsys captured no kernel with {kernels!r} in its name; there are {names}" if rows else nothing)
    return merged(chosen)


def read_ranges(text: str, source: str) -> dict[Thread, list[Range]]:
    """The domain's ranges by thread, in the order of their starts, an outer one before an inner one.

    Raises:
        ToolError: columns are missing, or there is no range of the domain.
    """
    table = Table(text, ("Start", "End", "Name", "PID", "TID"), source)
    found: dict[Thread, list[Range]] = {}
    domains = set()
    for row in table.rows:
        domain, _, text_of_range = table.text(row, "Name").partition(":")
        domains.add(domain or "(default)")
        if domain == DOMAIN:
            end = table.number_if_any(row, "End")
            # A range that was still open when the capture stopped has no end.
            one = (table.number(row, "Start"), float("inf") if end is None else end, text_of_range)
            found.setdefault((table.text(row, "PID"), table.text(row, "TID")), []).append(one)
    if not found:
        has = ", ".join(sorted(domains)) or "none"
        raise ToolError(f"{source} has no range of the NVTX domain {DOMAIN}; domains in it: {has}. pip install nvtx")
    return {thread: sorted(ranges, key=lambda one: (one[0], -one[1])) for thread, ranges in found.items()}


def read_kernels(text: str, ranges: dict[Thread, list[Range]], source: str) -> list[Row]:
    """One row for each launch, in the order of launches.

    Raises:
        ToolError: columns are missing.
    """
    table = Table(text, ("API Start", "Kernel Dur", "PID", "TID", "Kernel Name"), source)
    launches: dict[Thread, list[tuple[float, int]]] = {}
    for index, row in enumerate(table.rows):
        thread = table.text(row, "PID"), table.text(row, "TID")
        launches.setdefault(thread, []).append((table.number(row, "API Start"), index))
    rows = []
    for thread, of_thread in launches.items():
        of_thread.sort()
        stacks = _stacks(ranges.get(thread, []), [moment for moment, _ in of_thread])
        for (moment, index), stack in zip(of_thread, stacks, strict=True):
            row = table.rows[index]
            kernel = bare_name(table.text(row, "Kernel Name"))
            rows.append((moment, Row(*place(stack), kernel, 1, table.number(row, "Kernel Dur"))))
    return [row for _, row in sorted(rows, key=lambda one: one[0])]


def _stacks(ranges: Sequence[Range], moments: Sequence[float]) -> Iterator[list[str]]:
    """The names of the ranges that are open at each moment, outermost first. Both arguments in the order of time."""
    stack: list[Range] = []
    coming = 0
    for moment in moments:
        while coming < len(ranges) and ranges[coming][0] <= moment:
            stack.append(ranges[coming])
            coming += 1
        stack = [one for one in stack if moment < one[1]]
        yield [one[2] for one in stack]
