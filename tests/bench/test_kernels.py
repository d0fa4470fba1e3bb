"""``python -m bench kernels``: what it launches, checks and says. What it says of time is for a GPU to show."""

import json

import numpy as np
import pytest

import backend
from backend import CudaReport, array_module, asnumpy
from bench.kernels import measure, report, window_cases
from bench.kernels.stopwatch import Samples, Stopwatch
from kernels.core import catalog, launch
from kernels.core.launch import BLOCK, Kernel
from kernels.im2col import im2col

KERNELS = {name for file in catalog.files() for name in catalog.kernels_of(file)} - {"dropout_mask_at", "dropout_at"}
"""All kernels; the two are dropout_mask and dropout with their numbers in device memory, for graphs."""
TINY = measure.cases(tiny=True)


@pytest.fixture
def launched(monkeypatch):
    """Collects (kernel, threads in a block) of every launch."""
    found = []
    compiled = Kernel.compiled

    def watched(kernel, dtype, wide):
        launch = compiled(kernel, dtype, wide)
        return lambda grid, block, arguments: found.append((kernel.name, *block)) or launch(grid, block, arguments)

    monkeypatch.setattr(Kernel, "compiled", watched)
    monkeypatch.setattr(launch, "_plans", {})  # what was planned before is not watched
    return found


def arrays(result):
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.gpu
def test_every_kernel_is_checked_and_timed_in_blocks_of_every_size(bench, launched, tmp_path):
    file = tmp_path / "kernels.json"
    with backend.use("cuda"):
        result = bench("kernels", "--tiny", "--repeats", "1", "--block", "64,512", "--json", file)
    assert result.code == 0, result.err
    made = json.loads(file.read_text())
    assert set(made) == {"schema", "machine", "gpu", "settings", "copy", "rows"}
    assert made["settings"] == {"repeats": 1, "blocks": [64, 512], "own_block": BLOCK, "tiny": True}
    assert made["gpu"]["l2_bytes"] > 0
    assert made["copy"]["gbps"] > 0
    rows = made["rows"]
    assert {name for row in rows for name in row["kernels"]} == KERNELS
    assert {(name, row["block"]) for row in rows for name in row["kernels"]} == set(launched)
    for row in rows:
        assert 0 <= row["error_ulps"] <= row["tolerance_ulps"]
        assert row["least_bytes"] == sum(row["moves"].values()) > 0
        assert row["gbps"] == pytest.approx(row["least_bytes"] / row["us"] / 1e3)
        assert row["samples"] == 1
    for case in TINY:
        sizes = [
            row["block"]
            for row in rows
            if all(row[key] == getattr(case, key) for key in ("operation", "shape", "dtype"))
        ]
        one_of_ours = [BLOCK, 64, 512] if measure.most_threads(case) == 1024 else [BLOCK, 64]
        assert sizes == (one_of_ours if case.kernels else [None])
        assert case.operation in result.out
    for name in KERNELS:
        assert name in result.out


@pytest.mark.gpu
def test_a_case_launches_the_kernels_that_it_names(launched):
    with backend.use("cuda"):
        for case in TINY:
            call = case.bind(*case.inputs())
            launched.clear()
            call()
            assert tuple(name for name, _ in launched) == case.kernels, str(case)


@pytest.mark.gpu
def test_a_wrong_value_ends_the_run_and_names_the_case(bench, monkeypatch):
    def off_by_one(x, *arguments):
        return im2col(x, *arguments) + (array_module(x) is not np)

    monkeypatch.setattr(window_cases, "im2col", off_by_one)
    with backend.use("cuda"):
        result = bench("kernels", "--tiny", "--repeats", "1", "--only", "im2col_chw")
    assert (result.code, result.out) == (1, "")
    assert "Error: im2col CHW of 2x3x5x4, kernel 3x3, padding 1 in float32, blocks of 256 threads: cuda:0" in result.err


@pytest.mark.gpu
def test_the_cache_is_emptied_before_every_call_that_counts(monkeypatch):
    done = []
    with backend.use("cuda"):
        watch = Stopwatch()
        assert watch._buffer.nbytes >= 2 * backend.xp.cuda.Device().attributes["L2CacheSize"]
        write = watch._write
        monkeypatch.setattr(watch, "_write", lambda value, times: done.append("write") or write(value, min(times, 1)))
        samples = watch.samples([lambda: done.append("first"), lambda: done.append("second")], 3)
    assert done == ["first", "second", "first", "write", "first", "write", "second", "write", "first"]
    assert len(samples.microseconds) == 3


MOVES_ALL = ("im2col", "col2im", "GEMM", "convolution", "max pooling", "average", "softmax", "batch norm statistics")


@pytest.mark.parametrize("case", [case for case in TINY if case.operation.startswith(MOVES_ALL)], ids=str)
def test_least_bytes_are_those_of_the_arrays(case):
    with backend.use("cpu"):
        inputs = case.inputs()
        results = arrays(case.bind(*inputs)())
    moved = sum(array.nbytes for array in (*inputs, *results))
    if case.operation == "max pooling backward":  # takes what the forward pass found, and not its input
        moved += case.moves["argmax"] - inputs[0].nbytes
    assert case.least_bytes == moved


@pytest.mark.parametrize("case", [case for case in TINY if case.operation != "dropout mask"], ids=str)
def test_inputs_are_others_at_every_call(case):
    with backend.use("cpu"):
        one, other = (np.concatenate([asnumpy(a).ravel() for a in case.inputs()]) for _ in range(2))
    assert (one != other).mean() > 0.3


def test_users_shapes_are_there():
    shapes = {case.shape for case in measure.cases(tiny=False)}
    for shape in ("32x64x32x32, kernel 3x3, padding 1", "64x3x224x224, kernel 7x7, stride 2, padding 3", "128x1000"):
        assert shape in shapes
    assert {name for case in measure.cases(tiny=False) for name in case.kernels} == KERNELS


def test_without_a_gpu_one_line_says_what_is_missing(bench, monkeypatch):
    report = CudaReport(problem="no CUDA device is visible", remedy="see to it")
    monkeypatch.setattr("backend.active.inspect_cuda", lambda: report)
    result = bench("kernels", "--tiny")
    assert (result.code, result.out) == (2, "")
    assert result.err == "Error: cuda:0 cannot be used: no CUDA device is visible; remedy: see to it\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--block", "64,100"], "'100' is no size of a block: 32, 64, 128, 256, 512, 1024"),
        (["--only", "conv3d"], "no operation or kernel has 'conv3d' in its name; there are im2col HWC, "),
        (["--json", "nowhere/a.json"], "the folder nowhere does not exist"),
    ],
)
def test_errors_are_one_line(bench, arguments, reason):
    result = bench("kernels", *arguments)
    assert (result.code, result.out) == (2, "")
    (line,) = [line for line in result.err.splitlines() if line.startswith("Error:")]
    assert reason in line


def test_quartiles_of_samples():
    assert Samples([4.0, 1.0, 3.0, 2.0, 5.0], 0).quartiles == (2.0, 3.0, 4.0)
    assert Samples([7.0], 0).quartiles == (7.0, 7.0, 7.0)


class TestTable:
    @staticmethod
    def row(operation, us, block=BLOCK, kernels=("k",), **others):
        return {
            "operation": operation, "shape": "1x2x3x4", "detail": "", "dtype": "float32", "kernels": list(kernels),
            "block": block, "most_threads": 256 if kernels else None, "moves": {"x": 10**6}, "least_bytes": 10**6,
            "flops": 0, "us": us, "quartiles_us": [0.9 * us, 1.1 * us], "samples": 30, "late": 0,
            "gbps": 1e3 / us,
        } | others  # fmt: skip

    @staticmethod
    def lines(*rows):
        settings = {"blocks": [64, 256, 512], "own_block": 256}
        text = report.table({"settings": settings, "copy": {"gbps": 400.0}, "rows": list(rows)})
        return [" ".join(line.split()) for line in text.splitlines()]

    def test_a_line_has_times_bandwidth_and_blocks(self):
        lines = self.lines(self.row("relu", 5.0), self.row("relu", 7.0, 64))
        assert lines[0].endswith("of copy at 64 at 512")
        assert lines[1] == "relu 1x2x3x4 float32 1 5.0 ± 10 % 200 50% 7.0 at most 256"

    def test_a_call_that_began_too_early_is_marked(self):
        lines = self.lines(self.row("relu", 5.0, late=16))
        assert "%!" in lines[1]
        assert lines[2].startswith("!: ")
        assert "%!" not in self.lines(self.row("relu", 5.0, late=15))[1]

    def test_kernels_are_named(self):
        lines = self.lines(self.row("a", 1.0, kernels=("k", "l")), self.row("a", 1.0, kernels=("m",), dtype="float16"))
        assert "a k, l or m" in lines
        assert "b of one block size" in self.lines(self.row("b", 1.0, None, ()))

    def test_gather_and_scatter_stand_side_by_side(self):
        gather, scatter = self.row("col2im gather HWC", 4.0), self.row("col2im scatter HWC", 6.0)
        assert self.lines(gather, scatter)[-1] == "HWC 1x2x3x4 float32 4.0 6.0 1.50 atomicAdd"
        assert "atomicAdd" not in self.lines(gather)[-1]

    def test_a_convolution_stands_beside_its_pieces(self):
        rows = [
            self.row("im2col HWC", 2.0),
            self.row("GEMM", 6.0, None, (), detail="5 filters", flops=12 * 10**6),
            self.row("convolution", 10.0, detail="5 filters"),
        ]
        assert self.lines(*rows)[-1] == "1x2x3x4, 5 filters float32 2.0 6.0 2 8.0 10.0 1.25"
