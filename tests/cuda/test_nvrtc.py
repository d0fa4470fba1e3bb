"""Every kernel compiles, for every architecture, to what the table says. Needs NVRTC, and neither driver nor GPU.

After a change of kernels, ``PYTHONPATH=. python tests/support/nvrtc.py`` writes the table
``kernels/resources.json`` anew: its diff shows what the change costs.
"""

import pytest

from kernels.core import catalog
from tests.support import nvrtc

KERNELS = [(file, kernel) for file in catalog.files() for kernel in catalog.kernels_of(file)]

# Kernels that add atomically, on purpose. Every other has one writer for every place.
ATOMIC = {"col2im_scatter"}

pytestmark = pytest.mark.skipif(nvrtc.library() is None, reason=nvrtc.MISSING)


@pytest.fixture(scope="module")
def architectures():
    return [architecture for architecture in nvrtc.ARCHITECTURES if architecture in nvrtc.supported()]


@pytest.fixture(scope="module")
def results(architectures):
    return nvrtc.build_all(architectures)


@pytest.fixture(scope="module")
def of_kernel(results):
    """{kernel: {(variant, architecture): Result}}"""
    return {kernel: {job: result for job, result in results.items() if job[0].file == file} for file, kernel in KERNELS}


@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
def test_every_file_compiles_without_a_warning(architecture, results):
    if architecture not in nvrtc.supported():
        pytest.skip(f"sm_{architecture} is not among what NVRTC {nvrtc.version()} can compile for")
    complaints = [
        f"{variant}: {line}" for (variant, at), result in results.items() if at == architecture
        for line in result.complaints
    ]  # fmt: skip
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("kernel", [kernel for _, kernel in KERNELS])
def test_registers_and_memory(kernel, of_kernel):
    rows, known = catalog.read_table()["kernels"], catalog.read_table()["compiler"]
    comparable = known == nvrtc.version()  # another compiler counts otherwise
    found = []
    for (variant, architecture), result in of_kernel[kernel].items():
        name, use = catalog.row_name(kernel, variant), result.uses[kernel]
        if use.spilled:
            found.append(f"{name} on sm_{architecture}: spills {use.spilled} bytes")
        if name not in rows or str(architecture) not in rows[name]["registers"]:
            found.append(f"{name} on sm_{architecture}: not in the table")
        elif comparable:
            found += nvrtc.growth(name, rows[name], architecture, use)
    assert not found, "\n".join([*found, f"where that is meant: {nvrtc.COMMAND}"])
    if not comparable:
        pytest.skip(f"the table is of NVRTC {known}, this is {nvrtc.version()}: registers and memory were not compared")


def test_table_is_of_these_kernels():
    rows = catalog.read_table()["kernels"]
    expected = {
        catalog.row_name(kernel, variant) for variant in catalog.variants()
        for kernel in catalog.kernels_of(variant.file)
    }  # fmt: skip
    assert set(rows) == expected, f"the table is stale: {nvrtc.COMMAND}"
    assert all(set(entry["registers"]) == set(map(str, nvrtc.ARCHITECTURES)) for entry in rows.values())
    stale = [file for file in catalog.files() if catalog.read_table()["sources"].get(file) != catalog.digest(file)]
    assert not stale, f"the table is of another text of these: {nvrtc.COMMAND}"
    assert catalog.read_table()["options"] == list(nvrtc.CUPY_OPTIONS), f"made with other options: {nvrtc.COMMAND}"


@pytest.mark.parametrize("kernel", [kernel for _, kernel in KERNELS])
def test_atomics_where_they_are_meant(kernel, of_kernel):
    for (variant, architecture), result in of_kernel[kernel].items():
        atomics = result.atomics(kernel)
        assert bool(atomics) == (kernel in ATOMIC), f"{variant} on sm_{architecture}: {kernel} has {atomics}"


# -- that these checks can fail -------------------------------------------------------------------------------

_GREEDY = """
extern "C" __global__ void __launch_bounds__(1024, 2) greedy(const float *x, float *y) {
    float kept[64];
    #pragma unroll
    for (int i = 0; i < 64; ++i) kept[i] = x[i * threadIdx.x];
    __syncthreads();
    #pragma unroll
    for (int i = 0; i < 64; ++i) y[(i * 37) % 64 * threadIdx.x] = kept[i] * kept[(i + 7) % 64];
}
"""
_ATOMIC = """
__shared__ float pool[100];
extern "C" __global__ void hidden(float *y) {
    pool[threadIdx.x] = y[threadIdx.x];
    if (threadIdx.x > 3) atomicAdd(&y[0], pool[99 - threadIdx.x]);
}
extern "C" __global__ void plain(float *y) { y[threadIdx.x] = 0; }
"""


def test_spills_are_seen():
    assert nvrtc.build(_GREEDY, 80).uses["greedy"].spilled > 0


def test_shared_memory_and_atomics_are_seen():
    result = nvrtc.build(_ATOMIC, 80)
    assert result.uses["hidden"].shared == 400
    assert result.atomics("hidden")
    assert not result.atomics("plain")


def test_warnings_and_errors_are_seen():
    unused = nvrtc.build('extern "C" __global__ void f(int *y) { int never; y[0] = 0; }', 80)
    assert any("never" in line for line in unused.complaints)
    wrong = nvrtc.build('extern "C" __global__ void f(int *y) { y[0] = z; }', 80)
    assert any("z" in line for line in wrong.complaints)


def test_growth_is_seen():
    entry = dict.fromkeys(nvrtc.BYTES, 0) | {"registers": {"80": 40}}
    assert not nvrtc.growth("k", entry, 80, nvrtc.Use(44, 0, 0, 0))
    assert nvrtc.growth("k", entry, 80, nvrtc.Use(45, 0, 0, 0)) == ["k on sm_80: 45 registers, the table has 40"]
    small = entry | {"registers": {"80": 8}}
    assert not nvrtc.growth("k", small, 80, nvrtc.Use(10, 0, 0, 0))
    assert len(nvrtc.growth("k", small, 80, nvrtc.Use(11, 4, 4, 4))) == 4


# -- CuPy's own options ---------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_options_are_those_of_cupy(monkeypatch):
    import cupy
    from cupy.cuda import compiler

    passed = []

    def record(program, options=(), log_stream=None):
        passed.append((program.src, options))
        raise compiler.CompileException("seen", program.src, program.name, options)

    monkeypatch.setattr(compiler._NVRTCProgram, "compile", record)
    code = 'extern "C" __global__ void never_cached() {}'
    monkeypatch.setattr(compiler, "_preprocess", lambda *_: "")
    with pytest.raises(compiler.CompileException):
        cupy.RawKernel(code, "never_cached").compile()
    (options,) = (options for source, options in passed if "never_cached" in source)
    left = {option for option in options if not option.startswith(("-I", "-arch="))}
    assert left == set(nvrtc.CUPY_OPTIONS)
