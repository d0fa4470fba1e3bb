"""Nsight Compute: the bytes of every kernel and its share of the memory's peak, from the GPU's counters.

Each kernel runs alone, once for every group of counters, with empty caches and at a fixed clock: the bytes are those
of a kernel that finds none of its data in the L2 cache, and a step's kernels do not overlap.

Command line and CSV of page ``raw`` follow the "Nsight Compute CLI" documentation of 2025: a line of names, a line of
units, a line for each launch. The ranges around a launch are in one cell, outermost first, each in quotes:
``<thread>  "<domain>:<range>:<type of payload>:<payload>:<type of colour>:<colour>:<type of message>:<message>"``.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from training.files import clipped
from training.files.durable import write_atomically
from training.profile.nsight.rows import DOMAIN, LOAD, KernelRow, ToolError, bare_name, merged, place
from training.profile.nsight.systems import escaped

SECONDS, BYTES, PERCENT = METRICS = (
    "gpu__time_duration.sum",
    "dram__bytes.sum",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
)
RANGES = "thread Domain:Push/Pop_Range"
"""The beginning of the name of the ranges' column."""

SCALES = {
    "second": 1.0,
    "s": 1.0,
    "nsecond": 1e-9,
    "ns": 1e-9,
    "usecond": 1e-6,
    "us": 1e-6,
    "msecond": 1e-3,
    "ms": 1e-3,
}
SCALES |= {"byte": 1.0, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9, "%": 1.0}
"""The factors from units to seconds, bytes and percent; prefixes are 1000 (documentation, "Metrics and Units")."""

name = "Nsight Compute"
oldest = "2023.3"
site = "https://developer.nvidia.com/nsight-compute"


def report_file(out: Path) -> Path:
    """Return the report that is kept for the GUI."""
    return out / "profile.ncu-rep"


def export_file(out: Path) -> Path:
    """Return the file that ``save_export`` writes."""
    return out / "profile_raw.csv"


def capture_command(tool: str, command: Sequence[str], out: Path, kernels: str | None) -> list[str]:
    """Return the command line that profiles ``command``.

    Args:
        tool: the executable.
        command: with its arguments.
        out: folder of the report.
        kernels: a regular expression; only kernels in whose names it is found. None: all.
    """
    # A name with a slash behind it is a push/pop range anywhere on the thread's stack.
    included = [f"--nvtx-include={DOMAIN}@{outermost}/" for outermost in ("step", LOAD)]
    return [
        tool,
        "--target-processes=all",
        "--profile-from-start=off",
        "--nvtx",
        *included,
        *([] if kernels is None else [f"--kernel-name=regex:{kernels}"]),
        f"--metrics={','.join(METRICS)}",
        "--force-overwrite",
        f"--export={escaped(report_file(out))}",
        *command,
    ]


def export_command(tool: str, out: Path) -> list[str]:
    """Return the command line that prints the CSV, apart from the profiling, where the command prints, too."""
    return [tool, f"--import={report_file(out)}", "--page=raw", "--csv", "--print-units=base"]


def save_export(out: Path, stdout: str) -> None:
    """Write what the export printed to a file."""
    write_atomically(export_file(out), stdout.encode())


def read(out: Path, kernels: str | None) -> list[KernelRow]:
    """Return the rows of the exported file; ``kernels`` were chosen when it was captured.

    Raises:
        ToolError: columns are missing, or no launch is in it.
    """
    file = export_file(out)
    rows = read_raw(file.read_text(errors="replace"), str(file))
    if not rows:
        raise ToolError(f"ncu captured no kernel; see {file}")
    return merged(rows)


def read_raw(text: str, source: str) -> list[KernelRow]:
    """Return one row for each launch, in the order of launches. Lines that begin with ``==`` are notices.

    Raises:
        ToolError: columns or units are missing, or a number is not one.
    """
    try:
        header, units, *launches = csv.reader(line for line in text.splitlines() if line and line[:2] != "==")
    except (ValueError, csv.Error) as error:
        raise ToolError(f"{source} is not a table of Nsight Compute: {error}") from error
    columns = {RANGES if cell.startswith(RANGES) else cell: index for index, cell in enumerate(header)}
    missing = [column for column in ("Kernel Name", RANGES, *METRICS) if column not in columns]
    if missing:
        raise ToolError(f"{source} lacks the column {', '.join(missing)}; its columns are {clipped(header)}")

    def number(launch: Sequence[str], column: str) -> float | None:
        cell, unit = launch[columns[column]].replace(",", ""), units[columns[column]]
        try:
            return None if cell in ("", "n/a") else float(cell) * SCALES[unit]
        except (KeyError, ValueError):
            raise ToolError(f"{source} has {clipped(cell)} {clipped(unit)} in the column {column}") from None

    rows = []
    for launch in launches:
        if not len(launch) == len(header) == len(units):
            raise ToolError(f"{source} has a line of {len(launch)} cells below a header of {len(header)}")
        ranges, kernel = launch[columns[RANGES]], bare_name(launch[columns["Kernel Name"]])
        seconds = number(launch, SECONDS)
        if seconds is None:
            raise ToolError(f"{source} has no duration of {clipped(kernel)}")
        rows.append(
            KernelRow(*place(_ranges(ranges)), kernel, 1, seconds, number(launch, BYTES), number(launch, PERCENT))
        )
    return rows


def _ranges(cell: str) -> list[str]:
    """Return the names of the domain's ranges in a cell, outermost first."""
    entries = (entry.split(":") for entry in re.findall(r'"([^"]*)"', cell))
    return [fields[1] for fields in entries if fields[0] == DOMAIN and len(fields) > 1]
