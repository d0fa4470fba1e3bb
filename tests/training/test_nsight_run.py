"""Profiling with stand-ins for nsys and ncu on the PATH.

They are processes of their own: options, exit codes, standard output and error, and files are those that a real tool
would be given and give, as far as its documentation says. They run the command really. What they export was written
by its formats; no GPU has made it.
"""

import json
import sys
from pathlib import Path

import pytest

import backend
from training.profile.nsight import ToolError, choose, report_file, run

RECORDED = Path(__file__).parent / "nsight"
COMMAND = [sys.executable, "-c", "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"]


@pytest.fixture
def path(tmp_path, monkeypatch):
    """An empty folder that is the whole PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("RECORDED", str(RECORDED))
    monkeypatch.delenv("STAND_IN", raising=False)
    return folder


@pytest.fixture
def gpu(monkeypatch):
    """A machine that has a GPU, as far as is asked."""
    monkeypatch.setattr(backend, "inspect_cuda", lambda: backend.CudaReport())


def install(folder, *names):
    for name in names:
        program = folder / name
        program.write_text(f"#!{sys.executable}\n{(RECORDED / f'stand_in_{name}.py').read_text()}")
        program.chmod(0o755)


def error_of(tool, command, out, **options):
    with pytest.raises(ToolError) as caught:
        run(tool, command, out, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_auto_takes_nsys_before_ncu(path):
    install(path, "ncu")
    assert choose(None) == "ncu"
    install(path, "nsys")
    assert choose(None) == "nsys"
    assert choose("ncu") == "ncu"


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        (None, ["neither nsys nor ncu", "https://developer.nvidia.com/nsight-systems"]),
        ("nsys", ["nsys is", "install Nsight Systems", "--tool none"]),
        ("ncu", ["ncu is", "install Nsight Compute", "https://developer.nvidia.com/nsight-compute"]),
    ],
)
def test_a_missing_tool_is_said_with_where_to_get_it(path, tmp_path, tool, words):
    message = error_of(tool, COMMAND, tmp_path / "out")
    assert all(word in message for word in words)
    assert not (tmp_path / "out").exists()


def test_no_such_tool(tmp_path):
    assert error_of("gprof", COMMAND, tmp_path) == "there is no tool 'gprof'; there are nsys and ncu"


@pytest.mark.parametrize("tool", ["nvprof", "nvvp"])
def test_tools_that_were_replaced_are_told_by_what(path, tmp_path, tool):
    message = error_of(tool, COMMAND, tmp_path)
    assert message.startswith(f"{tool} profiles no GPU of compute capability 8.0 or newer")
    assert "--tool nsys for times" in message
    assert "--tool ncu for counters" in message
    assert tool not in error_of(None, COMMAND, tmp_path)
    (path / tool).write_text("#!/bin/sh\n")
    (path / tool).chmod(0o755)
    assert f"--tool none; {tool}, which is there, profiles no GPU" in error_of(None, COMMAND, tmp_path)


def test_no_gpu(path, tmp_path, monkeypatch):
    install(path, "nsys")
    report = backend.CudaReport(problem="no CUDA device is visible", remedy="look for one")
    monkeypatch.setattr(backend, "inspect_cuda", lambda: report)
    message = error_of("nsys", COMMAND, tmp_path / "out")
    assert "no CUDA device is visible; remedy: look for one" in message
    assert "--tool none" in message
    assert not (tmp_path / "out").exists()


def test_nsys_runs_the_command_and_its_export_is_read(path, gpu, tmp_path):
    install(path, "nsys")
    out = tmp_path / "50% new"
    rows = run(None, [*COMMAND, tmp_path / "ran", "a b"], out)
    assert (tmp_path / "ran").read_text() == "a b"
    given = json.loads(report_file("nsys", out).read_text())
    assert given["trace"] == "cuda,nvtx,cublas"
    assert (given["capture_range"], given["capture_range_end"]) == ("cudaProfilerApi", "stop")
    assert (given["sample"], given["cpuctxsw"]) == ("none", "none")
    assert sum(row.calls for row in rows) == 26
    assert rows[0].bytes is None


def test_ncu_runs_the_command_and_its_export_is_read(path, gpu, tmp_path):
    install(path, "ncu")
    out = tmp_path / "50% new"
    rows = run("ncu", [*COMMAND, tmp_path / "ran", "a b"], out, kernels="im2col|gemm")
    assert (tmp_path / "ran").read_text() == "a b"
    given = json.loads(report_file("ncu", out).read_text())
    assert given["profile_from_start"] == "off"
    assert given["nvtx_include"] == ["xpnet@step/", "xpnet@load/"]
    assert given["kernel_name"] == "regex:im2col|gemm"
    assert given["metrics"].split(",")[:2] == ["gpu__time_duration.sum", "dram__bytes.sum"]
    assert sum(row.calls for row in rows) == 6
    assert (out / "profile_raw.csv").read_text() == (RECORDED / "ncu_raw.csv").read_text()


def test_ncu_takes_all_kernels_without_a_name(path, gpu, tmp_path):
    install(path, "ncu")
    run("ncu", [*COMMAND, tmp_path / "ran", ""], tmp_path)
    assert json.loads(report_file("ncu", tmp_path).read_text())["kernel_name"] is None


def test_nsys_captures_all_kernels_and_the_named_ones_are_read(path, gpu, tmp_path):
    install(path, "nsys")
    rows = run("nsys", [*COMMAND, tmp_path / "ran", ""], tmp_path, kernels="^im2col|adam")
    assert {row.kernel for row in rows} == {"im2col", "adam_step"}


def test_no_kernel_of_the_name_is_told_with_those_that_there_are(path, gpu, tmp_path):
    install(path, "nsys")
    message = error_of("nsys", [*COMMAND, tmp_path / "ran", ""], tmp_path, kernels="^col2im$")
    assert message.startswith("nsys captured no kernel with '^col2im$' in its name; ")
    assert "col2im_gather" in message


def test_an_earlier_profile_is_replaced(path, gpu, tmp_path):
    install(path, "nsys", "ncu")
    for tool in ("nsys", "ncu"):
        first = run(tool, [*COMMAND, tmp_path / "ran", ""], tmp_path)
        assert run(tool, [*COMMAND, tmp_path / "ran", ""], tmp_path) == first


@pytest.mark.parametrize("tool", ["nsys", "ncu"])
def test_what_an_earlier_profile_left_does_not_pass_for_this_one(path, gpu, tmp_path, monkeypatch, tool):
    install(path, tool)
    run(tool, [*COMMAND, tmp_path / "ran", ""], tmp_path)
    monkeypatch.setenv("STAND_IN", "nothing")
    message = error_of(tool, [*COMMAND, tmp_path / "ran", ""], tmp_path)
    assert "captured nothing" in message
    assert "--device cuda" in message


@pytest.mark.parametrize("tool", ["nsys", "ncu"])
def test_a_command_that_fails(path, gpu, tmp_path, tool):
    install(path, tool)
    failing = (
        "import sys; print('epoch 1'); print('one\\ntwo\\n\\nthree\\nError: no data', file=sys.stderr); sys.exit(2)"
    )
    message = error_of(tool, [sys.executable, "-c", failing], tmp_path)
    assert message == f"the command under {tool} failed (exit code 2): two | three | Error: no data"


def test_a_command_that_fails_silently(path, gpu, tmp_path):
    install(path, "ncu")
    message = error_of("ncu", [sys.executable, "-c", "raise SystemExit(3)"], tmp_path)
    assert message == "the command under ncu failed (exit code 3): it said nothing"


def test_a_command_that_crashes(path, gpu, tmp_path):
    """A program in the tool's place that is killed itself, since tools give a command's signal as a code."""
    (path / "ncu").write_text("#!/bin/sh\nkill -SEGV $$\n")
    (path / "ncu").chmod(0o755)
    assert error_of("ncu", COMMAND, tmp_path).startswith("the command under ncu failed (killed by SIGSEGV): ")


CHATTER = "import sys; print('epoch 1'); print('a\\nb\\nUserWarning: c\\nd\\ne\\nf', file=sys.stderr)"


@pytest.mark.parametrize(
    ("tool", "fault", "words"),
    [
        (
            "nsys",
            "fails",
            "the command under nsys failed (exit code 1): FATAL ERROR: target process not found | d | e | f",
        ),
        ("nsys", "fails on stderr", "failed (exit code 1): e | f | FATAL ERROR: target process not found"),
        ("ncu", "fails", "ncu failed (exit code 9): ==ERROR== Failed to prepare kernel for profiling | d | e | f"),
        ("nsys", "export fails", "the export by nsys failed (exit code 1): ERROR: File is corrupt"),
        ("nsys", "nothing", "train with --device cuda; nsys said: WARNING: unable to trace CUDA: driver is too old"),
        ("ncu", "nothing", "train with --device cuda; ncu said: ==WARNING== No kernels were profiled."),
        ("nsys", "no table CUPTI_ACTIVITY_KIND_KERNEL", "; nsys said: WARNING: CUDA events were skipped"),
    ],
)
def test_a_tool_that_fails_is_quoted(path, gpu, tmp_path, monkeypatch, tool, fault, words):
    """Its own last lines, whichever stream they come on, and whatever its command has said on the other."""
    install(path, tool)
    monkeypatch.setenv("STAND_IN", fault)
    message = error_of(tool, [sys.executable, "-c", CHATTER], tmp_path)
    assert words in message
    assert "epoch 1" not in message


def test_denied_counters(path, gpu, tmp_path, monkeypatch):
    install(path, "ncu")
    monkeypatch.setenv("STAND_IN", "denied")
    message = error_of("ncu", [*COMMAND, tmp_path / "ran", ""], tmp_path)
    for word in ("ERR_NVGPUCTRPERM", "NVreg_RestrictProfilingToAdminUsers=0", "/etc/modprobe.d", "--tool nsys"):
        assert word in message


@pytest.mark.parametrize(
    ("tool", "fault", "words"),
    [
        ("nsys", "old", ["nsys 2022.4.2.1 does not know --capture-range-end", "Nsight Systems 2023.4 or newer"]),
        ("ncu", "old", ["ncu 2019.5.0 does not know --print-units", "Nsight Compute 2023.3 or newer"]),
    ],
)
def test_a_tool_that_is_too_old(path, gpu, tmp_path, monkeypatch, tool, fault, words):
    install(path, tool)
    monkeypatch.setenv("STAND_IN", fault)
    message = error_of(tool, [*COMMAND, tmp_path / "ran", ""], tmp_path)
    assert all(word in message for word in words)


@pytest.mark.parametrize(
    ("table", "words"),
    [("CUPTI_ACTIVITY_KIND_KERNEL", "captured no kernel"), ("NVTX_EVENTS", "captured no range of the NVTX domain")],
)
def test_nsys_makes_no_table_without_data(path, gpu, tmp_path, monkeypatch, table, words):
    install(path, "nsys")
    monkeypatch.setenv("STAND_IN", f"no table {table}")
    assert words in error_of("nsys", [*COMMAND, tmp_path / "ran", ""], tmp_path)


def test_a_program_of_the_name_that_cannot_be_started(path, gpu, tmp_path):
    program = path / "nsys"
    program.write_text("#!/nowhere/interpreter\n")
    program.chmod(0o755)
    assert "cannot be started" in error_of("nsys", COMMAND, tmp_path)


def test_kernels_are_a_regular_expression(path, gpu, tmp_path):
    install(path, "ncu")
    assert "'im2col(' is not a regular expression" in error_of("ncu", COMMAND, tmp_path / "out", kernels="im2col(")
    assert not (tmp_path / "out").exists()
