"""Running a profiler, and the reasons why it could not do its work."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import backend
from training.profile.nsight import compute, systems
from training.profile.nsight.rows import KernelRow, ToolError

Done = subprocess.CompletedProcess[str]

TOOLS: dict[str, ModuleType] = {"nsys": systems, "ncu": compute}
"""In the order of preference: nsys needs no permission and hardly slows a run down."""

DENIED = "ERR_NVGPUCTRPERM"
NO_OPTION = r"unrecogni[sz]ed option '?(--[\w-]+)"
LAST_LINES = 3
NOTICE = ("==PROF==", "==ERROR== The application returned", "Generating", "Processing", "Collecting data")
COMPLAINT = (
    r"(?i)^==(?:error|warning)==|\b(?:error|fatal|fail(?:ed|ure)?|cannot|unable|denied|un(?:supported|known)|skipped)\b"
)
"""Matches what a tool writes when something is wrong, on either stream; its command writes to both as well."""

REPLACED = ("nvprof", "nvvp", "pgprof")
"""Older profilers of NVIDIA."""

SUCCESSORS = (
    "profiles no GPU of compute capability 8.0 or newer and is not part of CUDA 13: take --tool nsys for times (its "
    "summary and timeline), --tool ncu for counters (its --metrics)"
)


def choose(tool: str | None) -> str:
    """Return the name of the tool to use: for None, nsys, or ncu where that is missing.

    Raises:
        ToolError: it is not on the PATH, or there is no such tool.
    """
    if tool in REPLACED:
        raise ToolError(f"{tool} {SUCCESSORS}")
    if tool is not None and tool not in TOOLS:
        raise ToolError(f"there is no tool {tool!r}; there are {' and '.join(TOOLS)}")
    for candidate in TOOLS if tool is None else (tool,):
        if shutil.which(candidate):
            return candidate
    missing = f"{tool} is" if tool else f"neither {' nor '.join(TOOLS)} is"
    kit = TOOLS[tool or "nsys"]
    older = next((name for name in REPLACED if shutil.which(name)), None)
    raise ToolError(
        f"{missing} on the PATH: install {kit.name} (with the CUDA Toolkit, or alone from {kit.site}), or profile "
        f"without it: --tool none{f'; {older}, which is there, {SUCCESSORS}' if older else ''}"
    )


def report_file(tool: str, out: Path) -> Path:
    """Return the report that ``run`` keeps, for the tool's own viewer."""
    return TOOLS[tool].report_file(out)


def run(tool: str | None, command: Sequence[str], out: Path, kernels: str | None = None) -> list[KernelRow]:
    """Profile a command and read the tool's export.

    Args:
        tool: "nsys", "ncu", or None for the one that is there.
        command: with its arguments. It calls cudaProfilerStart and cudaProfilerStop around the steps to profile.
        out: a folder, made if needed, for the report (``report_file``) and the export; those of an earlier profile are
            replaced.
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
            raise ToolError(f"{kernels!r} is not a regular expression: {error}") from None
    report = backend.inspect_cuda()
    if not report.usable:
        raise ToolError(f"{tool} profiles a GPU: {report}; without one, profile the CPU: --tool none")
    kit = TOOLS[tool]
    executable = shutil.which(tool) or tool
    out.mkdir(parents=True, exist_ok=True)
    for file in (kit.report_file(out), kit.export_file(out)):
        file.unlink(missing_ok=True)  # a file found there later is of this run
    captured = _call(
        tool, executable, kit.capture_command(executable, command, out, kernels), "the command under {tool}"
    )
    if not kit.report_file(out).is_file():
        named = "" if kernels is None else f" with {kernels!r} in its name"
        raise ToolError(
            f"{tool} captured nothing: no kernel{named} was launched in a step between cudaProfilerStart and "
            f"cudaProfilerStop; train with --device cuda{_complaints(tool, captured)}"
        )
    exported = _call(tool, executable, kit.export_command(executable, out), "the export by {tool}")
    kit.save_export(out, exported.stdout)
    try:
        return kit.read(out, kernels)
    except ToolError as error:
        raise ToolError(f"{error}{_complaints(tool, captured, exported)}") from None


def _call(tool: str, executable: str, command: Sequence[str], what: str) -> Done:
    """Run a command line of a tool.

    Raises:
        ToolError: it failed; the tool's own last lines, and those of the command, are in the message.
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
    if done.returncode == 0:
        return done
    unknown = re.search(NO_OPTION, said)
    if unknown:
        kit = TOOLS[tool]
        raise ToolError(
            f"this {tool}{_version(executable)} does not know {unknown[1]}: {kit.name} {kit.oldest} or newer is "
            f"needed, from {kit.site}"
        )
    who = tool if any(line.startswith("==ERROR==") for line in _lines(said)) else what.format(tool=tool)
    raise ToolError(f"{who} failed ({_ending(done.returncode)}): {' | '.join(_last(done)) or 'it said nothing'}")


def _version(executable: str) -> str:
    """Return the version with a space before it, or "" where the tool does not say it."""
    try:
        done = subprocess.run([executable, "--version"], capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = re.search(r"\b20\d\d\.\d+(?:\.\d+)*", done.stdout + done.stderr)
    return f" {match[0]}" if match else ""


def _ending(code: int) -> str:
    """Return in words how a process ended; a negative code is a signal's number."""
    if code >= 0:
        return f"exit code {code}"
    names = {number.value: number.name for number in signal.Signals}
    return f"killed by {names.get(-code, f'signal {-code}')}"


def _last(done: Done) -> list[str]:
    """Return the last lines of standard error, after what looks like complaints on standard output: the tool and its
    command share both streams. Without either, return the last lines of the output.
    """
    errors, output = _lines(done.stderr), _lines(done.stdout)
    complaints = [line for line in output if re.search(COMPLAINT, line)]
    chosen = [*complaints[-LAST_LINES:], *errors[-LAST_LINES:]]
    of_tool = [line for line in errors[:-LAST_LINES] if line.startswith("==ERROR==")]
    return list(dict.fromkeys([*of_tool[-LAST_LINES:], *chosen])) or output[-LAST_LINES:]


def _complaints(tool: str, *calls: Done) -> str:
    """Return the complaints of a tool that ended with code 0, as the end of a message; "" where there are none."""
    lines = [line for done in calls for line in _lines(done.stdout + done.stderr) if re.search(COMPLAINT, line)]
    return f"; {tool} said: {' | '.join(list(dict.fromkeys(lines))[-LAST_LINES:])}" if lines else ""


def _lines(text: str) -> list[str]:
    """Return the lines that are not empty, without the tools' notices."""
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith(NOTICE)]
