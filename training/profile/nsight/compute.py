"""Nsight Compute: the bytes of every kernel and its share of the memory's peak, from the GPU's counters.

Each kernel runs alone, once for every group of counters, with empty caches and at a fixed clock: the bytes are those
of a kernel that finds none of its data in the L2 cache, and a step's kernels do not overlap.

Formats: command line, and page ``raw`` as CSV, by the "Nsight Compute CLI" documentation of 2025: a line of names, a
line of units, a line for each launch. The ranges around it are in one cell, outermost first, each in quotes, as in
exports that others have published (the documentation names no cells):
``<thread>  "<domain>:<range>:<type of payload>:<payload>:<type of colour>:<colour>:<type of message>:<message>"``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from training.files.durable import write_atomically
from training.profile.nsight.errors import ToolError
from training.profile.nsight.exports import Table
from training.profile.nsight.rows import DOMAIN, LOAD, Row, bare_name, merged, place
from training.profile.nsight.systems import escaped

SECONDS, BYTES, PERCENT = METRICS = (
    "gpu__time_duration.sum",
    "dram__bytes.sum",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
)
RANGES = "thread Domain:Push/Pop_Range*"

name = "Nsight Compute"
oldest = "2023.3"
site = "https://developer.nvidia.com/nsight-compute"


def report_file(out: Path) -> Path:
    """What is kept, for the GUI."""
    return out / "profile.ncu-rep"


def exported_files(out: Path) -> list[Path]:
    """What ``save_export`` writes."""
    return [out / "profile_raw.csv"]


def capture_command(tool: str, command: Sequence[str], out: Path, kernels: str | None) -> list[str]:
    """The command line that profiles ``command``.

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
    """The command line that prints the CSV, apart from the profiling: there the command prints, too."""
    return [tool, f"--import={report_file(out)}", "--page=raw", "--csv", "--print-units=base"]


def save_export(out: Path, stdout: str) -> None:
    """Keeps what the export printed."""
    write_atomically(exported_files(out)[0], stdout.encode())


def read(out: Path, kernels: str | None) -> list[Row]:
    """The rows of the exported file; ``kernels`` were chosen when it was captured.

    Raises:
        ToolError: columns are missing, or no launch is in it.
    """
    (file,) = exported_files(out)
    rows = read_raw(file.read_text(errors="replace"), file.name)
    if not rows:
        raise ToolError(f"ncu captured no kernel; see {report_file(out)}")
    return merged(rows)


def read_raw(text: str, source: str) -> list[Row]:
    """One row for each launch, in the order of launches.

    Raises:
        ToolError: columns are missing.
    """
    table = Table(text, ("ID", "Kernel Name", RANGES, *METRICS), source)
    return [
        Row(
            *place(_ranges(table.text(row, RANGES))),
            bare_name(table.text(row, "Kernel Name")),
            1,
            table.number(row, SECONDS),
            table.number_if_any(row, BYTES),
            table.number_if_any(row, PERCENT),
        )
        for row in table.rows
    ]


def _ranges(cell: str) -> list[str]:
    """The names of the domain's ranges in a cell, outermost first."""
    entries = (entry.split(":") for entry in re.findall(r'"([^"]*)"', cell))
    return [fields[1] for fields in entries if fields[0] == DOMAIN and len(fields) > 1]
