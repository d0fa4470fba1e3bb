"""Measure the peak memory of a step in another process, beyond that of the interpreter and the imports.

``python -m bench.memory SIDE WORKLOAD WAY THREADS`` makes some steps; the system tells its peak memory. Subtracted is
the peak after a step of a small network with a batch of one, for which everything is imported and every thread pool
exists. Parameters, optimizer state and the batch count.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

from bench.measure import ratios
from bench.sides import Side
from bench.workloads import Workload

STEPS = 3
BASELINE = "W1a"
NAMES = ("W3", "W4")
"""The workloads whose memory is measured."""

# wait tells a process the peak of its children. A child's peak starts at that of the process that forked it, so a small
# process must start it, unlike this one with its imports.
_STARTER = (
    "import resource, subprocess, sys;"
    "subprocess.run(sys.argv[1:], check=True);"
    "print('Maximum resident set size (kbytes):',"
    " resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // (1024 if sys.platform == 'darwin' else 1),"
    " file=sys.stderr)"
)


def measure_memory(workload: Workload, sides: Sequence[Side], count: int) -> dict[str, Any]:
    """Return the MiB that steps of a workload take on each side, in the way that takes least."""
    figures: dict[str, dict[str, Any]] = {}
    for side in sides:
        if workload.case(side, workload.ways(side)[0], batch=1) is None:
            continue
        baseline = _peak(side.name, BASELINE, side.ways("training", images=False)[0], count)
        peaks = {way: _peak(side.name, workload.name, way, count) for way in workload.ways(side)}
        way = min(peaks, key=lambda each: peaks[each])
        figures[side.name] = {"mib": peaks[way] - baseline, "way": way, "whole_process_mib": peaks[way]}
    return {
        "workload": workload.name,
        "threads": count,
        "by": by(),
        "sides": figures,
        "ratios": ratios({name: each["mib"] for name, each in figures.items()}),
    }


def by() -> str:
    """Return the source of the peak memory."""
    return "/usr/bin/time -v" if _time_command() else "getrusage(RUSAGE_CHILDREN)"


def _time_command() -> str | None:
    return shutil.which("time") if sys.platform == "linux" else None


@cache
def _peak(side: str, workload: str, way: str, count: int) -> float:
    """Return the peak memory of a process in MiB."""
    time = _time_command()
    starter = [time, "-v"] if time else [sys.executable, "-c", _STARTER]
    command = [*starter, sys.executable, "-m", "bench.memory", side, workload, way, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in done.stderr.splitlines():
        if done.returncode == 0 and "Maximum resident set size (kbytes):" in line:
            return int(line.rpartition(":")[2]) / 1024
    raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")


def _steps(side_name: str, workload_name: str, way: str, count: int) -> None:
    from bench.measure import thread_limit
    from bench.sides import load
    from bench.workloads import workloads

    side = load(side_name)
    workload = next(each for each in workloads() if each.name == workload_name)
    small = workload_name == BASELINE
    with thread_limit(count, [side]):
        case = workload.case(side, way, batch=1 if small else None)
        assert case is not None
        with case.inside():
            for _ in range(1 if small else STEPS):
                case.step()


if __name__ == "__main__":
    _, *names, threads = sys.argv
    _steps(names[0], names[1], names[2], int(threads))
