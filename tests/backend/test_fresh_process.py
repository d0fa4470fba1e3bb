"""Properties of a first import: nothing heavy is loaded, no device is touched, environment variables are obeyed."""

import json
import pkgutil

import pytest

import backend
import kernels
from backend import inspect_cuda
from tests.support.fresh import fresh

MODULES = [
    name
    for package in (backend, kernels)
    for _, name, _ in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
]
HEAVY = [
    "cupy",
    "matplotlib",
    "PIL",
    "requests",
    "rich",
    "tqdm",
    "click",
    "safetensors",
    "threadpoolctl",
    "scipy",
    "torch",
]


def test_the_list_of_modules_is_whole():
    assert {"backend.active", "backend.philox", "kernels.core.window", "kernels.softmax"} <= set(MODULES)


@pytest.mark.parametrize("device", [None, "cpu", "cuda", "nonsense"])
def test_imports_load_nothing_heavy_and_touch_no_device(device):
    code = f"""
import sys, {", ".join(MODULES)}
from backend import xp, active
print(*(name for name in {HEAVY} if name in sys.modules), active._device)
"""
    assert fresh(code, XPNET_DEVICE=device) == "None"


def test_an_operation_on_the_cpu_does_not_import_cupy():
    code = """
import sys, numpy, backend
from kernels.convolution import convolution
from kernels.core.window import Window
x = numpy.ones((2, 3, 5, 5), "float32")
y = convolution(x, numpy.ones((4, 3, 3, 3), "float32"), None, Window(3))
backend.asnumpy(backend.asarray(y)), backend.random.normal((3,)), backend.array_module(y), backend.synchronize()
print(y[0, 0, 0, 0], "cupy" in sys.modules)
"""
    assert fresh(code, XPNET_DEVICE="cpu") == "27.0 False"


SHOW = "import json, backend; print(json.dumps([str(backend.current_device()), repr(backend.xp)]))"


def test_the_variable_names_the_first_device():
    assert json.loads(fresh(SHOW, XPNET_DEVICE="cpu")) == ["cpu", "<xp: numpy on cpu>"]


@pytest.mark.parametrize("value", [None, "", "auto"])
def test_without_a_name_the_device_is_automatic(value):
    expected = "cuda:0" if inspect_cuda().usable else "cpu"
    assert json.loads(fresh(SHOW, XPNET_DEVICE=value))[0] == expected


def test_a_name_that_is_none_is_refused_at_the_first_use():
    message = fresh("import backend; print('imported'); backend.xp.zeros(3)", fails=True, XPNET_DEVICE="tpu")
    assert "ValueError: device must be 'auto', 'cpu', 'cuda', 'cuda:<index>' or a Device, got 'tpu'" in message


@pytest.mark.skipif(inspect_cuda().usable, reason="a GPU is usable here")
def test_a_gpu_that_was_asked_for_and_is_missing_is_an_error_with_the_remedy():
    """As this machine really is: without CuPy, or with CuPy and no driver."""
    report = inspect_cuda()
    message = fresh("import backend; backend.xp.zeros(3)", fails=True, XPNET_DEVICE="cuda")
    assert f"DeviceError: cuda:0 cannot be used: {report.problem}; remedy: {report.remedy}" in message


@pytest.mark.skipif(inspect_cuda().usable, reason="a GPU is usable here")
def test_the_fallback_is_said_on_standard_error_and_the_variable_silences_it():
    code = """
import contextlib, io, logging, backend
said = io.StringIO()
logging.getLogger("xpnet").addHandler(logging.StreamHandler(said))
for _ in range(3):
    backend.use("auto" if {auto} else "cpu")
    backend.xp.zeros(3)
print(said.getvalue().count("xpnet runs on the CPU"))
"""
    assert fresh(code.format(auto=True), XPNET_DEVICE=None) == "1"
    assert fresh(code.format(auto=False), XPNET_DEVICE="cpu") == "0"


@pytest.mark.skipif(not inspect_cuda().usable, reason="needs a usable GPU")
@pytest.mark.gpu
def test_a_gpu_is_the_first_device_where_the_variable_says_so():
    assert json.loads(fresh(SHOW, XPNET_DEVICE="cuda")) == ["cuda:0", "<xp: cupy on cuda:0>"]


def test_the_random_numbers_of_a_process_start_at_seed_zero():
    code = "import backend; print(backend.random.bits(4).tolist(), backend.random.default.state['position'])"
    seeded = "import backend; backend.random.seed(0);" + code.removeprefix("import backend;")
    first = fresh(code, XPNET_DEVICE="cpu")
    assert first == fresh(seeded, XPNET_DEVICE="cpu")
    assert first.endswith(" 1")


THREADS = "from backend import threads; print(threads.limit())"


def test_the_variable_sets_the_number_of_threads():
    assert fresh(THREADS, XPNET_THREADS="3") == "3"


def test_without_the_variable_every_core_is_used():
    code = (
        THREADS
        + "; import os; print(len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count())"
    )
    for value in (None, ""):
        limit, cores = fresh(code, XPNET_THREADS=value).split()
        assert limit == cores


@pytest.mark.parametrize("value", ["0", "-1", "2.5", "many", "³"])
def test_a_number_of_threads_that_is_none_is_refused(value):
    message = fresh(THREADS, fails=True, XPNET_THREADS=value)
    assert f"ValueError: XPNET_THREADS is a whole number of at least 1, not {value!r}" in message


def test_threads_work_again_after_a_fork():
    code = """
import os, threading, warnings
warnings.simplefilter("ignore")  # Python 3.12 warns of any fork with threads about
from backend import threads
threads.set_limit(2)
threads.run(lambda index: None, range(8))
child = os.fork()
if child == 0:
    together = threading.Barrier(2)
    threads.run(lambda index: together.wait(timeout=20), range(2))  # breaks unless two threads run
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert fresh(code, XPNET_DEVICE="cpu") == "0"


@pytest.mark.parametrize("module", ["nvtx", "cupy"])
def test_a_missing_package_is_no_error(module):
    code = f"""
import sys
sys.modules[{module!r}] = None  # importing it raises ImportError
import numpy, backend
from backend import profiling
with profiling.range("outer", category="step"), profiling.range("inner"):
    profiling.Range("by hand").push()
    profiling.pop()
print(backend.asnumpy(backend.xp.ones(2)).tolist())
"""
    assert fresh(code, XPNET_DEVICE="cpu") == "[1.0, 1.0]"


def test_a_missing_cupy_is_named_with_the_command_that_installs_it():
    code = """
import sys
sys.modules["cupy"] = None
import backend
from backend import cuda_faults
cuda_faults._packages = lambda: []  # this environment may have one
report = backend.inspect_cuda()
print(report.problem, "|", report.remedy)
"""
    problem, remedy = fresh(code).split(" | ")
    assert problem == "CuPy is not installed"
    assert "-m pip install 'cupy-cuda12x[ctk]'" in remedy
    assert "'cupy-cuda13x[ctk]'" in remedy
