"""Fixtures for every test: the devices one body runs on, and the full data sets where they are."""

import os
import sys
from collections import Counter
from pathlib import Path

os.environ.setdefault("XPNET_DEVICE", "cpu")  # a test that wants the GPU says so through the fixture

import pytest
from hypothesis import HealthCheck, settings

import backend
from backend import tf32
from kernels.core import native

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # for bench, examples and tests.support; last, so that the installed packages are tested

REQUIRE_GPU = os.environ.get("XPNET_REQUIRE_GPU") == "1"
REQUIRE_NATIVE = os.environ.get("XPNET_REQUIRE_NATIVE") == "1"

# Derandomised: the same examples in every run. A GPU, and more so an emulated one, is slow on tiny arrays.
settings.register_profile(
    "xpnet", deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile("xpnet")


def pytest_configure(config):
    config.cuda = backend.inspect_cuda()


def pytest_collection_modifyitems(config, items):
    if config.cuda.usable or REQUIRE_GPU:
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=f"no GPU: {config.cuda}"))


def pytest_terminal_summary(terminalreporter, config):
    """Every reason for which a test was skipped, and one loud line for the GPU."""
    skipped = terminalreporter.stats.get("skipped", [])
    on_gpu = [report for report in skipped if "gpu" in report.keywords]
    reasons = Counter(report.longrepr[2] for report in skipped if "gpu" not in report.keywords)
    for reason, count in reasons.items():
        terminalreporter.write_line(f"{count} skipped: {reason.removeprefix('Skipped: ')}", yellow=True)
    if on_gpu:
        terminalreporter.write_line(f"{len(on_gpu)} GPU TESTS DID NOT RUN: {config.cuda}", red=True, bold=True)


@pytest.fixture(autouse=True)
def _float32_products():
    """Forbid TF32 again after a test that allowed it, or ran a command that did."""
    yield
    if tf32.is_allowed():
        backend.allow_tf32(False)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """Runs the test once on each device: inside it, ``xp`` is that device's library."""
    with backend.use(request.param) as active:
        backend.random.seed(0)
        yield active


def require_c_kernels():
    """Skip a test where there are no C kernels; fail it where they are out of date, or XPNET_REQUIRE_NATIVE is 1.

    With that variable the tests of operations run by C kernels alone.
    """
    library = native.library()
    if library.reason and (REQUIRE_NATIVE or (native.LIBRARY.exists() and library.remedy)):
        pytest.fail(f"{library.reason}; remedy: {library.remedy}")
    if library.reason:
        pytest.skip(library.reason)


@pytest.fixture(params=[*([] if REQUIRE_NATIVE else ["numpy"]), "native", pytest.param("cuda", marks=pytest.mark.gpu)])
def way(request):
    """Runs the test once for each way to compute an operation: NumPy, C kernels, CUDA kernels.

    The tests of ``kernels`` and ``layers`` have it in place of ``device``.
    """
    if request.param == "native":
        require_c_kernels()
    on = request.param == "native"
    with backend.use("cuda" if request.param == "cuda" else "cpu") as active, native.enabled(on):
        backend.random.seed(0)
        yield active


@pytest.fixture
def in_c():
    """Runs a test on the CPU, by C kernels."""
    require_c_kernels()
    with backend.use("cpu"), native.enabled(True):
        yield


@pytest.fixture(autouse=True, scope="session")
def _checked_calls():
    """Hold every call of a C kernel against its source, as launches of CUDA kernels always are."""
    with native.checked():
        yield


@pytest.fixture(autouse=True)
def _same_start():
    """Every test starts from the same random state, whichever ran before."""
    backend.random.seed(0)


@pytest.fixture
def data_dir() -> Path:
    """The folder with the full data sets (``mnist/``, ``fashion-mnist/``), or a skip that says what to set."""
    folder = os.environ.get("XPNET_DATA_DIR")
    if not folder:
        pytest.skip("needs the full data sets: set XPNET_DATA_DIR to a folder that holds mnist/ and fashion-mnist/")
    return Path(folder)
