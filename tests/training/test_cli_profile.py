"""``xpnet profile``: the table, the trace, and what is said where a tool cannot profile."""

import json
import os
import re
import subprocess
import sys

import pytest

import backend
from kernels.core import native
from layers import Affine, Sequential, Tanh
from tests.support.command_line import xpnet
from training.cli.common import Compute
from training.cli.profile import TOOLS, command
from training.cli.profile_with_tool import Prepared, _options, _works
from training.data import load
from training.loop.recipe import build_trainer
from training.loop.run_folder import RunFolder
from training.loop.settings import Settings
from training.models import Network, TwoLayerNet
from training.optim.optimizers import SGD, AdamW, Momentum
from training.profile import roof
from training.profile.cost import Work, cost_of_step
from training.profile.nsight.rows import KernelRow

QUICK = ["--model", "twolayernet", "--optimizer", "sgd", "--device", "cpu", "--threads", "1"]
RELU = 1 if native.available() else 4 + 1
"""Bytes a number: where it is positive; and itself, where the Relu is not computed along with the product."""

NO_GPU = not backend.inspect_cuda().usable


def rows(out):
    """The cells of the table's lines, by layer and phase; the step's by ("step", "")."""
    lines = out.splitlines()
    head = next(index for index, line in enumerate(lines) if line.startswith("layer"))
    words = "layer phase calls ms share MB GB/s least MB MFLOP GFLOP/s"
    assert lines[head].split() == words.split()
    found = {}
    for line in lines[head + 1 :]:
        if line.startswith(("meanwhile", "trace ")):
            break
        *names, calls, ms, share, mb, rate, least, mflop, gflops = line.split()
        cells = (float(calls), float(ms), float(share[:-1]), mb, rate, least, mflop, gflops)
        found[names[0], names[1] if len(names) > 1 else ""] = cells
    return found


@pytest.fixture(autouse=True)
def _device_and_threads_as_before():
    """The command chooses them for its process, which is ours."""
    import threadpoolctl

    limit = backend.threads.limit()
    with backend.use(backend.current_device()), threadpoolctl.threadpool_limits(None):
        yield
    backend.threads.set_limit(limit)


def test_a_table_that_adds_up():
    result = xpnet("profile", *QUICK, "--steps", 3, "--warmup", 1)
    assert result.code == 0, result.err
    first = result.out.splitlines()[0]
    assert first.startswith("TwoLayerNet, mnist10k, batch 50, fp32, cpu, 1 thread(s): 3 steps after 1, ")
    found = rows(result.out)
    layers = {(layer, phase) for layer in ("Affine1", "Affine2", "loss") for phase in ("forward", "backward")}
    assert set(found) == {*layers, ("loader", "data"), ("optimizer", "update"), ("loop", ""), ("step", "")}
    step = found.pop(("step", ""))
    for column in (0, 1, 2):
        total, rounding = sum(cells[column] for cells in found.values()), 0.06 * len(found)
        assert total == pytest.approx(step[column], abs=rounding)
    assert step[2] == 100
    matmul = 4 * (50 * 784 + 784 * 50 + 50 + 50 * 50) / 1e6
    relu = RELU * 50 * 50 / 1e6
    assert found["Affine1", "forward"][3] == f"{matmul + relu:.3f}"
    assert found["loop", ""][3:] == ("-",) * 5
    cost = cost_of_step(TwoLayerNet(784, 50, 10), 50, SGD())
    for row in cost.rows:
        for phase, work in row.work.items():
            ms, *_, least, mflop, gflops = found[row.name, phase][1:]
            assert (least, mflop) == (f"{work.nbytes / 1e6:.3f}", f"{work.flops / 1e6:.3f}")
            slow, fast = (work.flops / 1e6 / max(ms + error, 1e-9) for error in (0.0005, -0.0005))
            assert slow - 0.05 <= float(gflops) <= fast + 0.05
    assert step[5:7] == (f"{cost.total.nbytes / 1e6:.3f}", f"{cost.total.flops / 1e6:.3f}")
    mean, least, most = map(float, re.search(r"([\d.]+) ms a step \(([\d.]+) to ([\d.]+)\)", first).groups())
    assert step[1] <= mean + 0.001  # which has what lies between two steps
    assert least <= step[1] <= most


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_options_of_training(precision):
    options = ["--batch-size", 7, "--precision", precision, "--clip-norm", 1, "--seed", 5]
    result = xpnet("profile", *QUICK, *options, "--steps", 1, "--warmup", 0)
    assert result.code == 0, result.err
    assert f"batch 7, {precision}, cpu" in result.out


def test_a_process_of_its_own_writes_a_trace_and_nothing_else(tmp_path):
    words = [sys.executable, "-m", "training.cli", "profile", *QUICK, "--steps", "2", "--trace", "made.json"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert [file.name for file in tmp_path.iterdir()] == ["made.json"]
    events = json.loads((tmp_path / "made.json").read_text())["traceEvents"]
    assert [one["name"] for one in events].count("step") == 2
    assert done.stdout.splitlines()[-1] == "trace made.json: open it in https://ui.perfetto.dev"


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_without_a_gpu_is_told_in_one_line(tool):
    result = xpnet("profile", *QUICK, "--tool", tool)
    assert (result.code, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert f"{tool} profiles a GPU, and this would run on cpu" in line
    assert "leave out --tool" in line


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU: what is said without one does not come")
def test_auto_says_why_there_is_no_gpu():
    result = xpnet("profile", "--device", "auto", "--tool", "nsys")
    (line,) = result.err.splitlines()
    assert "would run on cpu (no GPU: " in line
    done = xpnet("profile", *QUICK[:4], "--device", "auto", "--steps", 1, "--warmup", 0)
    assert done.out.splitlines()[1] == f"no GPU: {backend.inspect_cuda()}"


def test_images_a_second_are_those_of_full_batches():
    """Of 10,000 images one is left after a batch of 9,999."""
    result = xpnet("profile", *QUICK, "--batch-size", 9999, "--steps", 3, "--warmup", 0)
    assert result.code == 0, result.err
    ms, images = re.search(r"([\d.]+) ms a step .* ([\d,]+) images/s", result.out).groups()
    assert int(images.replace(",", "")) * float(ms) / 1e3 == pytest.approx(9999, rel=1e-3)
    assert rows(result.out)["Affine1", "forward"][3] == f"{(4 * (9999 * 834 + 39250) + RELU * 9999 * 50) / 1e6:.3f}"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--steps", 0], "0 is not in the range 1<=x"),
        (["--warmup", -1], "-1 is not in the range 0<=x"),
        (["--tool", "gprof"], "'gprof' is not one of"),
        (["--tool", "nvprof"], "nvprof profiles no GPU of compute capability 8.0 or newer"),
        (["--trace", "nowhere/a.json"], "nowhere/a.json: there is no folder"),
        (["--kernels", "im2col("], "--kernels im2col( is not a regular expression: missing )"),
        (["--kernels", "im2col"], "--kernels im2col is for nsys and ncu"),
        (["--batch-size", 1, "--model", "vgg"], "'vgg' is not one of"),
    ],
)
def test_impossible_options_are_refused(arguments, reason):
    result = xpnet("profile", *QUICK, *arguments)
    assert (result.code, result.out) == (2, "")
    assert reason in result.err


def test_a_loss_that_is_not_finite_ends_with_1():
    result = xpnet("profile", *QUICK, "--lr", 1e30, "--steps", 5)
    assert (result.code, result.out) == (1, "")
    (line,) = result.err.splitlines()
    assert "the first number that is not finite is in" in line


@pytest.mark.parametrize("loss", ["softmax", "sigmoid", "mean-squared", "huber", "hinge"])
def test_the_file_of_any_network_is_profiled_on_random_samples(loss, tmp_path):
    file = tmp_path / "own.safetensors"
    Network(Sequential(Affine.of(6, 4), Tanh(), Affine.of(4, 3)), (6,), loss=loss).save_params(file)
    result = xpnet("profile", file, *QUICK[4:], "--steps", 2, "--warmup", 0, "--batch-size", 7)
    assert result.code == 0, result.err
    assert result.out.startswith("Network, random samples, batch 7, fp32, cpu, 1 thread(s): 2 steps after 0, ")
    assert {("Affine1", "forward"), ("Tanh1", "backward"), ("loss", "forward")} <= rows(result.out).keys()


def test_the_folder_of_a_run_is_profiled_as_its_file(tmp_path):
    TwoLayerNet(784, 5, 10).astype("float64").save_params(RunFolder(tmp_path).model)
    result = xpnet("profile", tmp_path, *QUICK[4:], "--steps", 1, "--warmup", 0, "--precision", "fp16")
    assert result.code == 0, result.err
    assert result.out.startswith("TwoLayerNet, random samples, batch 50, fp16, cpu, ")


def test_a_file_stands_alone(tmp_path):
    file = tmp_path / "own.safetensors"
    result = xpnet("profile", file)
    assert (result.code, result.err) == (2, f"Error: there is no file {file}\n")
    for option in ("--model", "twolayernet"), ("--dataset", "mnist"), ("--data", tmp_path):
        result = xpnet("profile", file, *option)
        assert result.code == 2
        assert result.err.endswith(f"is profiled on random samples: leave {option[0]} out\n")


@pytest.mark.gpu
def test_on_a_gpu_without_a_tool_the_host_is_profiled():
    result = xpnet("profile", *QUICK[:4], "--device", "cuda", "--tool", "none", "--steps", 2, "--warmup", 1)
    assert result.code == 0, result.err
    assert "times are those of the host's calls, which do not wait for kernels" in result.out
    assert ("Affine1", "forward") in rows(result.out)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "float32"), ("tf32", "float32"), ("fp16", "float16")])
def test_least_bytes_beside_a_tool_are_those_of_the_steps_that_it_sees(precision, dtype):
    """Also where a CPU could not do them, and where all images are less than a batch."""
    settings = Settings(model="TwoLayerNet", precision=precision, batch_size=10**6)
    cost = cost_of_step(TwoLayerNet(784, 50, 10).astype(dtype), 10_000, AdamW())
    data = load("mnist10k").as_data()
    _, works = _works(settings, lambda settings: Prepared(build_trainer(settings, data), data.name))
    found = {place: work.nbytes for place, work in works.items()}
    assert found.pop(("update", "")) == cost.rows[-1].work["update"].nbytes
    assert found == {(phase, row.name): work.nbytes for row in cost.rows[:-1] for phase, work in row.work.items()}


def test_a_tool_is_given_the_same_command_again(tmp_path):
    """With what was meant by auto and by the environment, and with --tool none in place of the tool's options."""
    arguments = ["--model", "simpleconvnet", "--lr", "0.25", "--clip-norm", "2", "--steps", "3", "--data-dir", tmp_path]
    arguments += ["--metrics", "top5", "--metrics", "f1", "--allow-import", tmp_path / "own.safetensors"]
    tools = ["--tool", "ncu", "--kernels", "im2col|gemm", "--report", tmp_path]
    first = command.make_context("profile", [str(word) for word in (*arguments, *tools)])
    compute = Compute(backend.devices.parse("cuda:1"), "", 3)
    second = command.make_context("profile", [*_options(first, compute), "--tool", "none"])
    changed = {name for name, value in first.params.items() if second.params[name] != value}
    assert changed <= {"tool", "kernels", "report", "device", "threads"}
    meant = {name: second.params[name] for name in ("model", "lr", "steps", "data_dir", "tool", "device", "threads")}
    assert meant == {
        "model": "SimpleConvNet",
        "lr": 0.25,
        "steps": 3,
        "data_dir": tmp_path,
        "tool": "none",
        "device": "cuda:1",
        "threads": 3,
    }


def test_a_run_is_profiled_as_it_was_trained_and_keeps_the_result(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("training.cli.run.draw_figures", lambda *_: {})
    trained = ["--model", "twolayernet", "--optimizer", "momentum", "--lr", "0.01", "--batch-size", "70"]
    assert xpnet("train", *trained, "--epochs", 1, "--device", "cpu", "--out", "run").code == 0
    result = xpnet("profile", "--run", "run", "--device", "cpu", "--steps", 2, "--warmup", 1, "--batch-size", 60)
    assert result.code == 0, result.err
    assert "TwoLayerNet, mnist10k, batch 60, fp32" in result.out  # what is given counts more than the run
    assert result.out.splitlines()[-1] == "profile run/profile.json: xpnet report run shows it"
    found = json.loads((tmp_path / "run/profile.json").read_text())
    assert (found["model"], found["batch"], found["steps"]) == ("TwoLayerNet", 60, 2)
    assert found["roof"]["flops"] > 1e8
    assert found["roof"]["bandwidth"] > 1e8
    cost = cost_of_step(TwoLayerNet(784, 50, 10), 60, Momentum())
    kept = {(row["layer"], row["phase"]): (row["flops"], row["bytes"]) for row in found["rows"] if "flops" in row}
    assert kept == {place: (work.flops, work.nbytes) for place, work in cost.works.items()}
    assert all(row["seconds"] >= 0 for row in found["rows"])
    for arguments, said in [(["--run", "nowhere"], "there is no folder nowhere"), (["--run", "."], "config.json")]:
        result = xpnet("profile", *arguments)
        assert (result.code, result.out) == (2, "")
        assert said in result.err


def test_kernels_of_a_layer_are_added_up_under_the_published_roof():
    gpu = backend.devices.Gpu(0, "NVIDIA H200", "9.0", 1 << 30)
    found = roof.roof_of_gpu(gpu, "fp16")
    assert (found.flops, found.bandwidth) == (989.5e12, 4800e9)
    assert roof.roof_of_gpu(backend.devices.Gpu(0, "GeForce 256", "1.0", 1), "fp32") is None
    seconds = roof.summed([(("a", "forward"), 1.0), (("b", "forward"), 2.0), (("a", "forward"), 0.5)])
    kept = roof.record(seconds, {("a", "forward"): Work(10, 5, 3)}, found, {"model": "M"})
    assert kept["rows"] == [
        {"layer": "a", "phase": "forward", "seconds": 1.5, "flops": 15, "bytes": 3},
        {"layer": "b", "phase": "forward", "seconds": 2.0},
    ]
    assert kept["roof"]["source"] == "data sheet of NVIDIA H200 SXM"


def test_kernels_under_a_tool_are_kept_by_layer_and_phase(tmp_path, monkeypatch):
    """The tool and the GPU are made up; the rest is real."""
    monkeypatch.chdir(tmp_path)
    with RunFolder.create("run") as run:
        run.save_config({"settings": {"model": "TwoLayerNet", "batch_size": 60, "lr": None, "metrics": []}})
    gpu = backend.devices.Gpu(0, "NVIDIA H200", "9.0", 1 << 30)
    rows = [
        KernelRow("data", "", "copy", 2, 0.5),
        KernelRow("forward", "Affine1", "gemm", 2, 1.0),
        KernelRow("forward", "Affine1", "bias", 2, 0.25),
        KernelRow("update", "", "adam", 2, 2.0),
    ]
    cuda = Compute(backend.devices.parse("cuda:0"), "", 1)
    monkeypatch.setattr("training.cli.profile.choose_compute", lambda *_: cuda)
    monkeypatch.setattr("training.cli.profile_with_tool.inspect_cuda", lambda: backend.CudaReport(gpus=(gpu,)))
    monkeypatch.setattr("training.cli.profile_with_tool.nsight.choose", lambda tool: "nsys")
    commands = []
    monkeypatch.setattr(
        "training.cli.profile_with_tool.nsight.run", lambda tool, again, *_: commands.append(again) or rows
    )
    result = xpnet("profile", "--run", "run", "--steps", 2)
    assert result.code == 0, result.err
    assert "--run" not in commands[0]  # the tool's own process keeps nothing
    assert commands[0][commands[0].index("--batch-size") + 1] == "60"
    found = json.loads((tmp_path / "run/profile.json").read_text())
    assert found["roof"]["bandwidth"] == 4800e9
    works = cost_of_step(TwoLayerNet(784, 50, 10), 60, AdamW()).works
    assert [(row["layer"], row["phase"], row["seconds"], row.get("flops")) for row in found["rows"]] == [
        ("loader", "data", 0.25, None),
        ("Affine1", "forward", 0.625, works["Affine1", "forward"].flops),
        ("optimizer", "update", 1.0, works["optimizer", "update"].flops),
    ]
