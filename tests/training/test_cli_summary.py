"""``xpnet summary``: the table, the totals, and what it refuses."""

import json
import re

import pytest

from kernels.core import native
from tests.support.command_line import xpnet
from training.models import DeepConvNet, TwoLayerNet
from training.optim.loss_scaling import NAMES
from training.optim.optimizers import AdamW
from training.profile.cost import GPUS, cost_of_step


def summary(*arguments):
    result = xpnet("summary", *arguments)
    assert (result.code, result.err) == (0, "")
    return result.out


def record(*arguments):
    return json.loads(summary("--json", *arguments))


def test_the_table_has_every_layer_its_output_and_parameters():
    head, phases, columns, *lines = summary("--model", "deepconvnet", "--batch-size", 8).splitlines()
    assert head == "DeepConvNet (new, of no run) on 1x28x28 images, batch 8, fp32, AdamW"
    assert phases.split() == ["forward", "backward"]
    assert columns.split()[:4] == ["layer", "type", "output", "parameters"]
    rows = cost_of_step(DeepConvNet(), 8, AdamW()).rows
    for row, line in zip(rows, lines, strict=False):
        assert line.startswith(row.name)
        assert " x ".join(map(str, row.shape)) in line
        assert f"{row.parameters:,}" in line or not row.parameters
    assert lines[0].split()[:2] == ["Convolution1", "Convolution"]
    totals = lines[len(rows) :]
    assert totals[0].split() == ["parameters", "123,552"]
    assert totals[1].startswith("step ")
    assert totals[2].startswith("memory ")
    assert totals[3].startswith("on cpu, Convolution1, Convolution2, ")
    assert ": direct, in C (for " in totals[3] if native.available() else ": im2col and BLAS (in NumPy: " in totals[3]
    assert len(totals) == 4
    assert max(map(len, lines[: len(rows)])) <= 120


@pytest.mark.parametrize(
    ("gpu", "precision", "expected"),
    [
        ("t4", "fp32", "im2col and cuBLAS (an implicit GEMM needs compute capability 8.0; the GPU has 7.5)"),
        ("a100", "fp32", "implicit GEMM (float32 as three products of TF32 on tensor cores)"),
        ("h200", "fp16", "implicit GEMM (float16 on tensor cores)"),
    ],
)
def test_the_way_of_convolutions_is_said_for_a_gpu(gpu, precision, expected):
    arguments = ("--model", "simpleconvnet", "--gpu", gpu, "--precision", precision)
    assert summary(*arguments).splitlines()[-1] == f"on {GPUS[gpu].title}, Convolution1: {expected}"
    found = record(*arguments)["convolutions"]
    assert found["device"] == GPUS[gpu].title
    (path,) = found["paths"]
    assert path["layer"] == "Convolution1"
    assert f"{path['name']} ({path['reason']})" == expected


def test_a_line_says_what_the_model_says():
    """Of a TwoLayerNet: millions of operations and MB, forward and backward."""
    line = next(line for line in summary("--model", "twolayernet").splitlines() if line.startswith("Affine1"))
    assert line.split() == ["Affine1", "Affine", "50", "39,250", "0.314", "7.85", "0.496", "7.85", "0.496"]


def test_json_has_the_same_in_bytes_and_operations():
    found = record("--model", "twolayernet", "--batch-size", 10, "--gpu", "h100")
    cost = cost_of_step(TwoLayerNet(784, 50, 10), 10, AdamW(weight_decay=0.05))
    assert found["parameters"] == cost.parameters
    assert found["memory_bytes"] == cost.memory
    assert found["not_known"] == []
    gpu, total = GPUS["h100"], 0
    for row, entry in zip(cost.rows, found["layers"], strict=True):
        assert (entry["layer"], entry["type"], entry["kept_bytes"]) == (row.name, row.kind, row.kept)
        for phase, work in row.work.items():
            assert entry[phase]["flops"] == work.flops
            assert entry[phase]["bytes"] == work.nbytes
            assert entry[phase]["least_seconds"] == gpu.seconds(work, "fp32")
            total += gpu.seconds(work, "fp32")
    assert found["gpu"]["least_seconds"] == pytest.approx(total)


def test_a_gpu_adds_its_least_time():
    out = summary("--model", "twolayernet", "--gpu", "H100-PCIe")
    assert out.splitlines()[2].split().count("least") == 2
    assert re.fullmatch(r"NVIDIA H100 PCIe: \d+\.\d µs at its peak rates", out.splitlines()[-1])


@pytest.mark.parametrize("precision", NAMES)
def test_precision_is_that_of_the_products(precision):
    found = record("--model", "deepconvnet", "--precision", precision, "--gpu", "a100")
    assert found["precision"] == precision
    convolution = next(layer for layer in found["layers"] if layer["layer"] == "Convolution6")["forward"]
    rate = {"fp32": 19.5e12, "tf32": 156e12, "fp16": 312e12}[precision]
    computing = convolution["product_flops"] / rate + convolution["other_flops"] / 19.5e12
    assert convolution["least_seconds"] == pytest.approx(max(computing, convolution["bytes"] / 2039e9))
    assert found["memory_bytes"]["parameters"] == found["parameters"] * (2 if precision == "fp16" else 4)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_measured_times_stand_beside_the_model(precision):
    arguments = ("--model", "twolayernet", "--batch-size", 4, "--precision", precision, "--measure", "--device", "cpu")
    found = record(*arguments)
    assert found["measured"]["device"] == "cpu"
    times = [layer[phase]["measured_seconds"] for layer in found["layers"] for phase in layer if phase in PHASES]
    assert len(times) == 7
    assert all(time > 0 for time in times)
    assert found["measured"]["seconds"] == pytest.approx(sum(times))
    out = summary(*arguments)
    assert out.splitlines()[2].split().count("seen") == 2
    assert out.splitlines()[-1].startswith("measured ")


PHASES = ("forward", "backward", "update")


@pytest.mark.gpu
def test_launches_are_counted_on_a_gpu():
    arguments = ("--model", "deepconvnet", "--batch-size", 4, "--measure", "--device", "cuda")
    found = record(*arguments)
    launches = {
        (layer["layer"], phase): layer[phase]["launches"]
        for layer in found["layers"]
        for phase in PHASES
        if phase in layer
    }
    if found["measured"]["launches"] is None:
        assert "launches are not counted: libcupti.so" in summary(*arguments)
        pytest.skip("CUPTI is not installed")
    assert launches["Pooling1", "forward"] == launches["Pooling1", "backward"] == launches["optimizer", "update"] == 1
    assert min(launches.values()) > 0
    assert sum(launches.values()) == found["measured"]["launches"]
    head, *_, end = summary(*arguments).splitlines()[2:]
    assert head.split().count("launches") == 2
    assert end.endswith(f", {found['measured']['launches']} launches")


def test_no_gpu_is_needed_and_nothing_is_measured_unless_asked_for():
    assert "measured" not in summary("--device", "cuda:77")
    refused = xpnet("summary", "--device", "cuda:77", "--measure")
    assert refused.code == 2
    assert "cuda:77" in refused.err


def test_tf32_is_not_measured_on_a_cpu():
    refused = xpnet("summary", "--model", "twolayernet", "--precision", "tf32", "--measure", "--device", "cpu")
    assert refused.code == 2
    assert refused.err.startswith("Error: TF32 needs a CUDA GPU")


def test_no_data_set_is_loaded(monkeypatch):
    monkeypatch.setattr("training.data.datasets.load", None)
    monkeypatch.setenv("XPNET_DATA_DIR", "/nowhere")
    assert record("--dataset", "fashion-mnist")["parameters"] == record()["parameters"]


def test_an_unknown_gpu_is_refused_with_those_that_are_known():
    refused = xpnet("summary", "--gpu", "rtx5000")
    assert (refused.code, refused.out) == (2, "")
    names = ", ".join(f"'{name}'" for name in GPUS)
    assert refused.err.startswith(f"Error: Invalid value for '--gpu': 'rtx5000' is not one of {names}")


def test_a_layer_that_is_not_known_is_shown_so(monkeypatch):
    from layers import Pooling
    from training.profile.cost import work

    monkeypatch.delitem(work._FORMULAS, Pooling)
    lines = summary("--model", "simpleconvnet", "--gpu", "h100").splitlines()
    line = next(line for line in lines if line.startswith("Pooling1"))
    assert line.split() == ["Pooling1", "Pooling", *["30", "x", "12", "x", "12"], *["?"] * 5]
    assert lines[-1].startswith("not known, and in no total: Pooling1 ")
