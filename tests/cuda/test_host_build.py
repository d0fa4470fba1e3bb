"""The CUDA kernels, built by the host's C++ compiler, do what their twins do, in any order of threads, inside their
arrays, and without a race. Needs g++, and neither NVRTC nor GPU.
"""

import pytest
from hypothesis import given, settings

from kernels.core import catalog
from tests.support import geometries, host_kernels
from tests.support.kernel_operations import EXAMPLES, OPERATIONS, check

KERNELS = {name for file in catalog.files() for name in catalog.kernels_of(file)}

pytestmark = pytest.mark.skipif(not host_kernels.available(), reason=host_kernels.MISSING)


def _programs(watch):
    found = {}

    def program(file):
        if file not in found:
            found[file] = host_kernels.Program(file, watch)
        return found[file]

    yield program
    for each in found.values():
        each.close()


@pytest.fixture(scope="module")
def programs():
    """The files' programs, watched by AddressSanitizer and UndefinedBehaviorSanitizer."""
    yield from _programs(host_kernels.MEMORY)


@pytest.fixture(scope="module")
def threaded():
    """The files' programs with a thread for every CUDA thread, watched by ThreadSanitizer."""
    yield from _programs(host_kernels.RACES)


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_kernels_do_what_their_twins_do(operation, programs):
    @settings(max_examples=25)
    @given(geometries.cases(ceil=True, layouts=("contiguous",), no_empty_window=True))
    def run(case):
        forward = check(operation, case, programs)
        shuffled = check(operation, case, programs, seed=case.seed + 1)
        assert [a.tobytes() for a in forward] == [a.tobytes() for a in shuffled], "the order of threads matters"
        check(operation, case, programs, wide=True)

    run()


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_no_races(operation, threaded):
    for case in [*EXAMPLES[:2], EXAMPLES[-1]]:
        check(operation, case, threaded, seed=case.seed, block=64)


def test_every_kernel_is_among_these():
    launched = set()

    class Recorder:
        def launch(self, name, *_):
            launched.add(name)

    with host_kernels.on_host(lambda _: Recorder()):
        for operation in OPERATIONS:
            for case in EXAMPLES:
                operation.run(case)
    assert launched == KERNELS
