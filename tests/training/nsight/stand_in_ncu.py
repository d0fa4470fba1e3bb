"""Stands in for ``ncu``: takes the options that its documentation has (Nsight Compute 2025), runs the command, and
hands out a recorded export. What it is to get wrong is in the environment variable STAND_IN."""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

RECORDED = Path(os.environ["RECORDED"])
fault = os.environ.get("STAND_IN", "")


def file_name(text):
    """What is meant by a name in which %p, %h, %i, %q{VARIABLE} and %% are macros; only the last is known here."""
    if "%" in text.replace("%%", ""):
        raise argparse.ArgumentTypeError(f"{text} has a macro")
    return text.replace("%%", "%")


def ranges(text):
    """One push/pop range of a domain: the slash says that it is none of the start/end kind."""
    if not re.fullmatch(r"[^@/]+@[^@/]+/", text):
        raise argparse.ArgumentTypeError(f"{text} is no domain@range/")
    return text


parser = argparse.ArgumentParser(prog="ncu", allow_abbrev=False)
parser.add_argument("--version", action="version", version="NVIDIA (R) Nsight Compute\nVersion 2019.5.0 (Build 1234)")
parser.add_argument("--target-processes", choices=["application-only", "all"])
parser.add_argument("--profile-from-start", choices=["on", "off", "yes", "no"], default="yes")
parser.add_argument("--nvtx", action="store_true")
parser.add_argument("--nvtx-include", type=ranges, action="append")
parser.add_argument("--kernel-name")
parser.add_argument("--metrics")
parser.add_argument("--force-overwrite", action="store_true")
parser.add_argument("--export", type=file_name)
parser.add_argument("--import", dest="imported", type=Path)
parser.add_argument("--page", choices=["details", "raw", "source", "session"])
parser.add_argument("--csv", action="store_true")
parser.add_argument("--print-units", choices=["auto", "base"])
parser.add_argument("application", nargs=argparse.REMAINDER)
options = parser.parse_args()

if options.imported:
    assert options.csv
    assert options.page == "raw"
    assert json.loads(options.imported.read_text())["export"]
    print((RECORDED / "ncu_raw.csv").read_text(), end="")
    sys.exit(0)
if fault == "old":
    sys.exit("==ERROR== unrecognised option '--print-units'. Use --help for further details.")
assert options.nvtx or not options.nvtx_include, "NVTX filtering requires --nvtx"
print("==PROF== Connected to process 4242 (/usr/bin/python3)", flush=True)
code = subprocess.run(options.application).returncode
report = Path(options.export)
if fault == "denied":
    print(
        "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters on "
        "the target device 0. For instructions on enabling permissions and to get more information see "
        "https://developer.nvidia.com/ERR_NVGPUCTRPERM"
    )
    sys.exit(1)
if fault == "fails":
    print("==ERROR== Failed to prepare kernel for profiling")
    sys.exit(9)
if code:
    print(f"==ERROR== The application returned an error code ({code}).")
if fault == "nothing":
    print("==WARNING== No kernels were profiled.")
elif code == 0:
    assert options.force_overwrite or not report.exists()
    report.write_text(json.dumps({key: value for key, value in vars(options).items() if key != "imported"}))
print("==PROF== Disconnected from process 4242")
sys.exit(code)
