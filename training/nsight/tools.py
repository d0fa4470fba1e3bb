"""Running a profiler, and what it says when it cannot do its work."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import backend
from training.nsight import compute, systems
from training.nsight.errors import ToolError
from training.nsight.rows import Row

TOOLS: dict[str, ModuleType] = {"nsys": systems, "ncu": compute}
"""In the order of preference: nsys needs no permission and hardly slows a run down."""

DENIED = "ERR_NVGPUCTRPERM"
NO_OPTION = r"unrecogni[sz]ed option '?(--[\w-]+)"
NO_REPORT = rf"({systems.RANGES}|{systems.KERNELS})\W+(?:was |could |is )?not (?:be )?found"
LAST_LINES = 3
NOTICE = ("==PROF==", "==WARNING==", "Generating", "Processing", "Collecting data")


def choose(tool: str | None) -> str:
    """The tool by name; None takes nsys, or ncu where that is missing.

    Raises:
        ToolError: it is not on the PATH, or there is no such tool.
    """
    if tool is not None and tool not in TOOLS:
        raise ToolError(f"there is no tool {tool!r}; there are {' and '.join(TOOLS)}")
    for candidate in TOOLS if tool is None else (tool,):
        if shutil.which(candidate):
            return candidate
    missing = f"{tool} is" if tool else f"neither {' nor '.join(TOOLS)} is"
    kit = TOOLS[tool or "nsys"]
    raise ToolError(
        f"{missing} on the PATH: install {kit.name} (with the CUDA Toolkit, or alone from {kit.site}), or profile "
        "without it: --tool none"
    )


def report_file(tool: str, out: Path) -> Path:
    """The report that ``run`` keeps, for the tool's own viewer."""
    return TOOLS[tool].report_file(out)


def run(tool: str | None, command: Sequence[str], out: Path, kernels: str | None = None) -> list[Row]:
    """Profiles a command and reads the tool's export.

    Args:
        tool: "nsys", "ncu", or None for the one that is there.
        command: with its arguments. It calls cudaProfilerStart and cudaProfilerStop around the steps to look at.
        out: a folder, made if need be, for the report (:func:`report_file`) and the export; those of an earlier
            profile are replaced.
        kernels: a regular expression; only kernels in whose names it is found. None: all.

    Returns:
        A row for each phase, layer and kernel, in the order of first launches.

    Raises:
        ToolError: the tool is missing, too old or not permitted, there is no GPU, the command failed, or nothing was
            captured.
    """
    tool = choose(tool)
    if kernels is not None:
        try:
            re.compile(kernels)
        except re.error as error:
            raise ToolError(f"{kernels!r} is no regular expression for kernels: {error}") from None
    report = backend.inspect_cuda()
    if not report.usable:
        raise ToolError(f"{tool} profiles a GPU: {report}; without one, profile the CPU: --tool none")
    kit = TOOLS[tool]
    executable = shutil.which(tool) or tool
    out.mkdir(parents=True, exist_ok=True)
    for file in (kit.report_file(out), *kit.exported_files(out)):
        file.unlink(missing_ok=True)  # what lies there later is of this run
    _call(tool, executable, kit.capture_command(executable, command, out, kernels))
    if not kit.report_file(out).is_file():
        named = "" if kernels is None else f" with {kernels!r} in its name"
        raise ToolError(
            f"{tool} captured nothing: no kernel{named} was launched in a step between cudaProfilerStart and "
            "cudaProfilerStop; train with --device cuda"
        )
    kit.save_export(out, _call(tool, executable, kit.export_command(executable, out)))
    return kit.read(out, kernels)


def _call(tool: str, executable: str, command: Sequence[str]) -> str:
    """What a command line of a tool prints on standard output.

    Raises:
        ToolError: it failed.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    except OSError as error:
        raise ToolError(f"{executable} cannot be started: {error.strerror or error}") from error
    said = done.stderr + done.stdout
    if DENIED in said:
        raise ToolError(
            f"{tool} may not read the GPU's counters ({DENIED}): as root, put 'options nvidia "
            "NVreg_RestrictProfilingToAdminUsers=0' into a file in /etc/modprobe.d and reboot, or run this command as "
            "root, or take --tool nsys, which needs none"
        )
    unknown = re.search(NO_REPORT, said)
    if not unknown and done.returncode == 0:
        return done.stdout
    unknown = unknown or re.search(NO_OPTION, said)
    if unknown:
        kit = TOOLS[tool]
        raise ToolError(
            f"this {tool}{_version(executable)} does not know {unknown[1]}: {kit.name} {kit.oldest} or newer is "
            f"needed, from {kit.site}"
        )
    raise ToolError(f"the command under {tool} failed (exit code {done.returncode}): {_last(done.stderr, done.stdout)}")


def _version(executable: str) -> str:
    """The version with a space before it, or "" where the tool does not say it."""
    try:
        done = subprocess.run([executable, "--version"], capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = re.search(r"\b20\d\d\.\d+(?:\.\d+)*", done.stdout + done.stderr)
    return f" {match[0]}" if match else ""


def _last(*outputs: str) -> str:
    """The last lines of the first output that has any, without the tool's notices."""
    for output in outputs:
        lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith(NOTICE)]
        if lines:
            return " | ".join(lines[-LAST_LINES:])
    return "it said nothing"
