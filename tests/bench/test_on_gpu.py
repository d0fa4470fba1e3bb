"""``bench/on_gpu.sh`` and the commands that it runs, on tiny shapes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from backend import inspect_cuda
from bench.gpu import convolutions, table
from bench.gpu.convolutions import PRECISIONS, PRODUCTS, TINY
from training.profile.cost.gpus import GPUS, named_like

SCRIPT = Path(__file__).parents[2] / "bench" / "on_gpu.sh"


def run(folder, *stages, **environment):
    return subprocess.run(
        ["bash", SCRIPT, folder, *stages], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHON": sys.executable, "TINY": "1"} | environment,
    )  # fmt: skip


def test_the_default_stages_take_less_than_eight_minutes():
    text = SCRIPT.read_text(encoding="utf-8")
    limits = {name: int(seconds) for name, seconds in re.findall(r"\[(\w+)\]=(\d+)", text)}
    default = re.search(r"\|\| stages=\((.*)\)", text)[1].split()
    assert sum(limits[name] for name in default) < 8 * 60
    assert set(limits) - set(default) == {"memcheck", "racecheck"}


def test_a_stage_that_does_not_exist_is_said_before_any_runs(tmp_path):
    done = run(tmp_path, "machine", "tets")
    assert done.returncode == 2
    assert done.stderr.startswith("no stage 'tets'; there are: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(inspect_cuda().usable, reason="there is a GPU")
def test_a_stage_that_fails_is_named_at_the_end_and_the_others_run(tmp_path):
    done = run(tmp_path, "host", "nsys")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "failed: host"
    results = json.loads((tmp_path / "results.json").read_text())
    assert {name: stage["exit"] for name, stage in results["stages"].items()} == {"host": 2, "nsys": 0}
    assert results["host"] is None
    assert "FAILED: exit 2" in (tmp_path / "table.txt").read_text()


def test_a_factor_of_the_time_limits_that_is_no_number_is_said(tmp_path):
    done = run(tmp_path, "machine", SLOWNESS="0.5")
    assert (done.returncode, done.stderr) == (2, "SLOWNESS is a whole number of at least 1, not '0.5'\n")


def test_the_table_has_a_line_for_each_figure(tmp_path):
    same = {"layer": "l", "product": "forward", "precision": "tf32"}
    figures = {
        "host": {"steps": {"ConvNet": {"enqueue_us": 900.0, "graph_us": 30.0}}},
        "steps": {"rows": [{"model": "ConvNet", "precision": "fp16", "eager_us": 2000.0, "graph_us": 400.0}]},
        "kernels": {
            "copy": {"gbps": 4000.0},
            "rows": [{
                "operation": "softmax", "shape": "5x7", "dtype": "float32", "block": 256, "us": 1.5, "gbps": 3000.0
            }],
        },
        "convolutions": {"rows": [
            {**same, "way": "cuDNN", "us": 12.0, "tflops": 60.0, "of_peak": 0.12},
            {**same, "way": "implicit", "us": 10.0, "tflops": 72.0, "of_peak": 0.146},
        ]},
    }  # fmt: skip
    for name, part in figures.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
    (tmp_path / "check.json").write_text("{")  # its stage was stopped
    (tmp_path / "stages.tsv").write_text("host\t3\t0\ncheck\t35\t124\n")
    read = table.read(tmp_path)
    assert (read["machine"], read["check"]) == (None, None)
    lines = [re.sub("  +", " | ", line.strip()) for line in table.table(read).splitlines()]
    assert lines[1:] == [
        "stage | host | 3 s",
        "stage | check | 35 s | FAILED: exit 124",
        "host | ConvNet | 900 us eager | 30 us by graph",
        "step | ConvNet fp16 | 2,000 us eager | 400 us by graph",
        "kernel | softmax, 5x7, float32 | 1.5 us | 3,000 GB/s, 75% of a copy",
        "convolution | l, forward, tf32 | 10.0 us, 72.0 TFLOP/s, 15% of the peak | 12.0 us by cuDNN",
    ]


def test_a_folder_without_a_run_is_said_in_a_line(bench, tmp_path):
    result = bench("gpu-table", tmp_path)
    assert (result.code, len(result.err.splitlines())) == (2, 1)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA L40S", "l40s"),
        ("Tesla T4", "t4"),
        ("NVIDIA A10", None),
    ],
)
def test_peaks_are_found_by_the_drivers_name(name, key):
    assert named_like(name) == GPUS.get(key)


@pytest.mark.gpu
def test_convolutions_are_compared_and_timed(bench, tmp_path):
    file = tmp_path / "convolutions.json"
    result = bench("convolutions", "--tiny", "--repeats", 1, "--json", file)
    assert result.code == 0, result.err
    rows = json.loads(file.read_text())["rows"]
    keys = {(row["layer"], row["product"], row["precision"]) for row in rows if row["way"] == "implicit"}
    assert keys == {
        (str(layer), product, precision) for layer in TINY for product in PRODUCTS for precision in PRECISIONS
    }
    assert len(rows) == 2 * len(keys)
    assert all(row["us"] > 0 and row["tflops"] > 0 for row in rows)


@pytest.mark.gpu
def test_a_wrong_convolution_ends_the_run_and_is_named(bench, monkeypatch):
    right = convolutions.implicit
    monkeypatch.setattr(
        convolutions,
        "implicit",
        lambda *given: {name: lambda call=call: call() * 1.001 for name, call in right(*given).items()},
    )
    result = bench("convolutions", "--tiny", "--repeats", 1)
    assert result.code == 1
    assert "Error: 2x3x6x6, 5 of 3x3, forward, fp32: implicit and im2col and cuBLAS differ by 0.001" in result.err


@pytest.mark.gpu
def test_steps_are_compared_and_timed(bench, tmp_path):
    file = tmp_path / "steps.json"
    chosen = ("--model", "TwoLayerNet", "--precision", "fp16", "--precision", "fp32")
    result = bench("steps", *chosen, "--batch", 2, "--count", 4, "--json", file)
    assert result.code == 0, result.err
    rows = json.loads(file.read_text())["rows"]
    assert [row["precision"] for row in rows] == ["fp16", "fp32"]
    assert all(row["same_bits"] and not row["refusal"] and row["graph_us"] > 0 for row in rows)
