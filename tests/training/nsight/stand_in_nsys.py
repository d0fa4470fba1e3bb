"""Stands in for ``nsys``: takes the options that its user guide has (Nsight Systems 2025), runs the command, and hands
out recorded exports. What it is to get wrong is in the environment variable STAND_IN."""

import argparse
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

RECORDED = Path(os.environ["RECORDED"])
fault = os.environ.get("STAND_IN", "")
TRACES = {"cuda", "nvtx", "cublas", "cublas-verbose", "cusparse", "cudnn", "cusolver", "opengl", "osrt", "mpi", "none"}


def file_name(text):
    """What is meant by a name in which %p, %h, %q{VARIABLE} and %% are macros; only the last is known here."""
    if "%" in text.replace("%%", ""):
        raise argparse.ArgumentTypeError(f"{text} has a macro")
    return text.replace("%%", "%")


def listed(allowed):
    def parse(text):
        if not set(text.split(",")) <= allowed:
            raise argparse.ArgumentTypeError(f"{text} is not of {sorted(allowed)}")
        return text

    return parse


parser = argparse.ArgumentParser(prog="nsys", allow_abbrev=False)
parser.add_argument("--version", action="version", version="NVIDIA Nsight Systems version 2022.4.2.1-df9881f")
commands = parser.add_subparsers(dest="switch", required=True)
profile = commands.add_parser("profile", allow_abbrev=False)
profile.add_argument("--trace", type=listed(TRACES), required=True)
profile.add_argument("--sample", choices=["process-tree", "system-wide", "none"])
profile.add_argument("--cpuctxsw", choices=["process-tree", "system-wide", "none"])
profile.add_argument("--capture-range", choices=["none", "cudaProfilerApi", "hotkey", "nvtx"])
profile.add_argument(
    "--capture-range-end", choices=["none", "stop", "stop-shutdown", "repeat"], default="stop-shutdown"
)
profile.add_argument("--force-overwrite", choices=["true", "false"], default="false")
profile.add_argument("--output", type=file_name, required=True)
profile.add_argument("application", nargs=argparse.REMAINDER)
export = commands.add_parser("export", allow_abbrev=False)
export.add_argument("--type", choices=["sqlite", "hdf", "text", "json", "info", "arrow", "jsonlines"])
export.add_argument("--force-overwrite", choices=["true", "false"], default="false")
export.add_argument("--output", type=Path)
export.add_argument("input", type=Path)
options = parser.parse_args()

if options.switch == "profile":
    if fault == "old":
        sys.exit("unrecognised option '--capture-range-end=stop'\n\nusage: nsys profile [<args>] [application]")
    report = Path(options.output + ".nsys-rep")
    code = subprocess.run(options.application).returncode
    if fault.startswith("fails"):
        message = "FATAL ERROR: target process not found"
        print(message, file=sys.stderr if fault.endswith("stderr") else sys.stdout)
        sys.exit(1)
    if fault == "nothing":
        print("WARNING: unable to trace CUDA: driver is too old")
    print("Generating '/tmp/nsys-report-1234.qdstrm'")
    if code == 0 and fault != "nothing":
        if report.exists() and options.force_overwrite == "false":
            sys.exit(f"File {report} already exists")
        report.write_text(json.dumps(vars(options)))
    sys.exit(code)

print(f"Processing events of {options.input}")
if not options.input.is_file():
    sys.exit(f"ERROR: File {options.input} does not exist.")
if fault == "export fails":
    sys.exit("ERROR: File is corrupt")
if options.output.exists() and options.force_overwrite == "false":
    sys.exit(f"File {options.output} already exists")
assert options.type == "sqlite"
options.output.unlink(missing_ok=True)
with closing(sqlite3.connect(options.output)) as database:
    database.executescript((RECORDED / "nsys_export.sql").read_text())
    if fault.startswith("no table "):  # tables are made where there is something to put in
        database.executescript(f"DROP TABLE {fault.removeprefix('no table ')}")
        print("WARNING: CUDA events were skipped.")
