"""``xpnet kernels``: the list, with and without a GPU, and compiling ahead."""

import json
import re
import sys

import pytest

import backend
from backend import CudaReport
from kernels.core import catalog, launch
from kernels.core.launch import Kernel
from tests.support.command_line import xpnet
from tests.support.fresh import fresh
from tests.support.kernel_cache import cache_of, compiled_in_a_new_process
from tests.support.terminals import Terminal
from training.cli import kernels as commands

FOLDER = launch.FOLDER
SOURCES = {file: (FOLDER / file).read_text() for file in catalog.files()}
KERNELS = [name for text in SOURCES.values() for name in re.findall(r"__global__ void (\w+)", text)]
EVERY = {(k, t, bits) for k in KERNELS for t in ("float16", "float32", "float64") for bits in (32, 64)}


@pytest.fixture
def _no_gpu(monkeypatch):
    monkeypatch.setattr("backend.active.inspect_cuda", lambda: CudaReport(problem="no card", remedy="buy one"))
    with backend.use("cpu"):
        yield


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of compiled kernels; its folder."""
    import cupy
    from cupy.cuda import compiler

    cupy.clear_memo()  # what this process has compiled before would not be asked of the cache
    monkeypatch.setattr(compiler, "_kernel_cache_backend", cache_of(tmp_path))
    return tmp_path


def listed(*arguments):
    result = xpnet("kernels", "--json", *arguments)
    assert (result.code, result.err) == (0, "")
    return json.loads(result.out)


@pytest.mark.usefixtures("_no_gpu")
def test_the_list_has_every_kernel_and_fits_the_terminal():
    result = xpnet("kernels")
    assert (result.code, result.err) == (0, "")
    heading, names, *lines = result.out.splitlines()
    assert heading.startswith(f"NVRTC {catalog.read_table()['compiler']}, 32-bit indices; ")
    assert names.split()[:2] == ["kernel", "dtype"]
    assert names.split()[-2:] == ["shared", "spills"]
    assert sorted(line.split()[0] for line in lines) == sorted(KERNELS * 3)
    assert {len(line.split()) for line in lines} == {len(names.split())}
    assert max(map(len, [heading, names, *lines])) <= 110


@pytest.mark.usefixtures("_no_gpu")
def test_json_has_what_the_table_has():
    found, table = listed(), catalog.read_table()
    assert {(row["kernel"], row["dtype"], row["index_bits"]) for row in found["kernels"]} == EVERY
    assert len(found["kernels"]) == len(EVERY)
    for row in found["kernels"]:
        entry = table["kernels"][f"{row['kernel']} {row['dtype']} {row['index_bits']}-bit"]
        assert entry == {name: row[name] for name in ("shared", "stack", "spilled", "registers")}
        assert f"void {row['kernel']}(" in SOURCES[row["file"]]
    assert found["build"] is None


@pytest.mark.usefixtures("_no_gpu")
def test_a_changed_file_has_no_figures(monkeypatch):
    """Figures of another text would be wrong; those of other files stand. A comment changes nothing."""
    original = Kernel.source.func
    added = {"pooling.cu": "\n__device__ int more;\n", "col2im.cu": "\n// more\n"}
    monkeypatch.setattr(Kernel, "source", property(lambda kernel: original(kernel) + added.get(kernel.file, "")))
    assert {row["file"] for row in listed()["kernels"] if row["registers"] is None} == {"pooling.cu"}
    out = xpnet("kernels").out
    assert "no figures for pooling.cu: new, or changed since they were taken\n" in out
    pooled = [line.split() for line in out.splitlines() if line.startswith("max_pool ")]
    assert [set(words[2:]) for words in pooled] == [{"-"}] * 3


@pytest.mark.usefixtures("_no_gpu")
def test_building_without_a_gpu_is_an_error_in_one_line():
    for arguments in (["--build"], ["--build", "--json"]):
        result = xpnet("kernels", *arguments)
        assert (result.code, result.out) == (2, "")
        assert result.err == "Error: cuda:0 cannot be used: no card; remedy: buy one\n"


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cpu", "kernels are compiled for cuda or cuda:<index>, not for 'cpu'"),
        ("auto", "kernels are compiled for cuda or cuda:<index>, not for 'auto'"),
        ("cuda:x", "'cuda:<index>' or a Device, got 'cuda:x'"),
    ],
)
def test_another_device_is_refused(device, words):
    for arguments in ([], ["--build"]):
        result = xpnet("kernels", "--device", device, *arguments)
        assert (result.code, result.out) == (2, "")
        assert result.err.endswith(f"{words}\n")


def test_the_list_imports_nothing_heavy():
    program = """
import sys
from training.cli import main
try:
    main(["kernels"])
except SystemExit:
    print(sorted({"matplotlib", "PIL", "requests", "safetensors", "layers"} & set(sys.modules)))
"""
    assert fresh(program).splitlines()[-1] == "[]"


def test_building_shows_how_far_it_is_on_a_terminal_alone(monkeypatch, capsys):
    shown, seen = catalog.variants()[:3], []
    monkeypatch.setattr(catalog.Variant, "compile", lambda variant: seen.append(variant))
    commands._compile(shown)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("COLUMNS", "120")
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", Terminal())
        commands._compile(shown)
        lines = sys.stderr.lines
    assert re.fullmatch(rf"{re.escape(str(shown[-1]))} ━.*  67% 2 of 3 .*", lines[-1])
    assert seen == shown * 2


@pytest.mark.gpu
def test_build_compiles_all_for_the_processes_after(cache):
    count = len(catalog.variants())
    first = xpnet("kernels", "--build")
    assert (first.code, first.err) == (0, "")
    variants = r"variants \(file, dtype, width of indices\)"
    assert re.fullmatch(rf"{count} {variants} compiled for cuda:0 in \d+\.\d s\n", first.out)
    again = listed("--build")["build"]
    assert (again["gpu"], again["variants"]) == ("cuda:0", count)
    assert set(compiled_in_a_new_process(cache)) <= {"made by CuPy"}


@pytest.mark.gpu
@pytest.mark.usefixtures("cache")
def test_a_kernel_that_does_not_compile_is_an_error(monkeypatch):
    original, file = Kernel.source.func, catalog.files()[0]
    name = catalog.kernels_of(file)[0]
    monkeypatch.setattr(Kernel, "source", property(lambda kernel: original(kernel) + "wrong"))
    result = xpnet("kernels", "--build")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"Error: kernel {name} in {file} for float16 does not compile: ")
    assert f"{file}({1 + SOURCES[file].count(chr(10))})" in result.err
