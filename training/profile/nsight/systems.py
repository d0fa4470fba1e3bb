"""Nsight Systems: the time of every kernel, by the ranges that were open in the thread that launched it.

The report is exported to SQLite. Tables and columns are those of the "Exporting" chapter of its user guide (2025): a
kernel and the API call that launched it have the same ``correlationId``, the call has its thread, and ``NVTX_EVENTS``
the ranges of that thread.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from training.profile.nsight.rows import DOMAIN, KernelRow, ToolError, bare_name, merged, place

KERNELS, CALLS, RANGES = "CUPTI_ACTIVITY_KIND_KERNEL", "CUPTI_ACTIVITY_KIND_RUNTIME", "NVTX_EVENTS"

_PUSH_POP_RANGES = f"""
SELECT range.globalTid, range.start, COALESCE(range.end, {2**63 - 1}) AS ended, COALESCE(range.text, string.value)
FROM {RANGES} AS range LEFT JOIN StringIds AS string ON string.id = range.textId
WHERE range.eventType = 59  -- push/pop range
  AND range.domainId IN (
    SELECT domain.domainId
    FROM {RANGES} AS domain LEFT JOIN StringIds AS string ON string.id = domain.textId
    WHERE domain.eventType = 75  -- creation of a domain
      AND COALESCE(domain.text, string.value) = '{DOMAIN}'
  )
ORDER BY range.start, ended DESC
"""
"""A range that was open when the capture stopped has no end."""

_LAUNCHES = f"""
SELECT call.globalTid, call.start, kernel.end - kernel.start, string.value
FROM {KERNELS} AS kernel
JOIN StringIds AS string ON string.id = kernel.demangledName
JOIN {CALLS} AS call ON call.correlationId = kernel.correlationId
  AND call.globalTid / 0x1000000 % 0x1000000 = kernel.globalPid / 0x1000000 % 0x1000000  -- the process
ORDER BY call.start
"""

Range = tuple[int, int, str]
"""Begin and end in nanoseconds, and name."""

name = "Nsight Systems"
oldest = "2023.4"
site = "https://developer.nvidia.com/nsight-systems"


def report_file(out: Path) -> Path:
    """Return the report that is kept for the GUI."""
    return out / "profile.nsys-rep"


def export_file(out: Path) -> Path:
    """Return the file that the export writes."""
    return out / "profile.sqlite"


def capture_command(tool: str, command: Sequence[str], out: Path, kernels: str | None) -> list[str]:
    """Return the command line that captures ``command``, with all kernels: ``read`` selects among them."""
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
    """Return the command line that writes the SQLite file."""
    return [
        tool,
        "export",
        "--type=sqlite",
        "--force-overwrite=true",
        f"--output={export_file(out)}",
        str(report_file(out)),
    ]


def save_export(out: Path, stdout: str) -> None:
    """Do nothing: nsys has written its file."""


def escaped(path: Path) -> str:
    """Return a path in which neither tool finds a macro such as %p, the process's number."""
    return str(path).replace("%", "%%")


def read(out: Path, kernels: str | None) -> list[KernelRow]:
    """Return the rows of the exported file.

    Args:
        out: the folder of the export.
        kernels: a regular expression; only kernels in whose names it is found. None: all.

    Raises:
        ToolError: the file is missing or damaged, has no kernel or no range, or no kernel has such a name.
    """
    file = export_file(out)
    rows = _rows(file)
    chosen = [row for row in rows if kernels is None or re.search(kernels, row.kernel)]
    if not chosen:
        names = ", ".join(dict.fromkeys(row.kernel for row in rows))
        raise ToolError(f"nsys captured no kernel with {kernels!r} in its name; {file} has {names}")
    return merged(chosen)


def _rows(file: Path) -> list[KernelRow]:
    """Return one row for each launch, in the order of launches."""
    if not file.is_file():
        raise ToolError(f"the export by nsys wrote no file {file}")
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
            tables = {table for (table,) in database.execute("SELECT name FROM sqlite_master")}
            # nsys makes no table without content.
            launches = database.execute(_LAUNCHES).fetchall() if {KERNELS, CALLS} <= tables else []
            ranges = database.execute(_PUSH_POP_RANGES).fetchall() if RANGES in tables else []
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise ToolError(f"{file} is not an export of {name} {oldest} or newer: {error}") from error
    if not launches:
        raise ToolError(
            "nsys captured no kernel: the profiled steps launched none on a GPU; train with --device cuda, "
            f"and see {file}"
        )
    for *numbers, text in (*ranges, *launches):
        wrong = [number for number in numbers if not isinstance(number, int)]
        if wrong or not isinstance(text, str):
            what = f"{wrong[0]!r} is not a whole number" if wrong else f"{text!r} is not a name"
            raise ToolError(f"{file} is damaged: {what}")
    if not ranges:
        raise ToolError(
            f"nsys captured no range of the NVTX domain {DOMAIN}, so no kernel has a layer: pip install nvtx; "
            f"see {file}"
        )
    rows = []
    for thread in {thread for thread, *_ in launches}:
        of_thread = [launch for owner, *launch in launches if owner == thread]
        stacks = _stacks([(begin, end, text) for owner, begin, end, text in ranges if owner == thread], of_thread)
        for (moment, nanoseconds, kernel), stack in zip(of_thread, stacks, strict=True):
            rows.append((moment, KernelRow(*place(stack), bare_name(kernel), 1, 1e-9 * nanoseconds)))
    return [row for _, row in sorted(rows, key=lambda one: one[0])]


def _stacks(ranges: Sequence[Range], launches: Sequence[Sequence[int]]) -> Iterator[list[str]]:
    """Yield the names of the ranges that are open at each launch, outermost first. Both are in the order of time."""
    stack: list[Range] = []
    coming = 0
    for moment, *_ in launches:
        while coming < len(ranges) and ranges[coming][0] <= moment:
            stack.append(ranges[coming])
            coming += 1
        stack = [one for one in stack if moment < one[1]]
        yield [text for _, _, text in stack]
