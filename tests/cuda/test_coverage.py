"""The checks on the host run nearly every line of the kernels. Needs g++ with gcov, and neither NVRTC nor GPU."""

import shutil

import pytest
from hypothesis import given, settings

from kernels.core import catalog, launch
from tests.support import geometries, host_kernels
from tests.support.kernel_operations import EXAMPLES, OPERATIONS, check, max_pool_backward

LEAST = 0.95

pytestmark = [
    pytest.mark.skipif(not host_kernels.available(), reason=host_kernels.MISSING),
    pytest.mark.skipif(shutil.which("gcov") is None, reason="no gcov: lines are not counted (it comes with g++)"),
]


def run(operation, programs):
    """The operation on every example and some drawn geometries, in few threads: lines do not count them."""
    for case in EXAMPLES:
        check(operation, case, programs, block=64)
    for dtype in catalog.DTYPES:  # the prelude has functions for each
        check(operation, EXAMPLES[0]._replace(dtype=dtype), programs, block=64)

    @settings(max_examples=5)
    @given(geometries.cases(ceil=True, layouts=("contiguous",), no_empty_window=True))
    def further(case):
        check(operation, case, programs, block=64)

    further()


def lines_of(programs):
    """Return how often each line ran: {file: {line: count}}."""
    total = {}
    for program in programs.values():
        program.close()
        for file, lines in program.lines().items():
            for line, count in lines.items():
                total.setdefault(file, {}).setdefault(line, 0)
                total[file][line] += count
    return total


def gaps(lines):
    """In words, the files of which less than LEAST ran: {file: words}."""
    found = {}
    for file, counts in lines.items():
        missed = sorted(line for line, count in counts.items() if not count)
        share = 1 - len(missed) / len(counts)
        if share < LEAST:
            found[file] = f"{file}: {share:.1%} of {len(counts)} lines ran; not: {', '.join(map(str, missed))}"
    return found


def test_nearly_every_line_runs():
    """First without an operation, whose kernels then show as a gap: so a gap would be seen."""
    programs = {file: host_kernels.Program(file, host_kernels.COVERAGE) for file in catalog.files()}
    (left_out,) = (operation for operation in OPERATIONS if operation.run is max_pool_backward)
    for operation in OPERATIONS:
        if operation is not left_out:
            run(operation, programs.__getitem__)
    assert set(gaps(lines_of(programs))) == {"pooling.cu"}
    run(left_out, programs.__getitem__)
    lines = lines_of(programs)
    shared = {name for file in catalog.files() for name in launch.JOINED.get(file, ())}
    assert set(lines) == {*catalog.files(), "prelude.cu", *shared}
    assert not gaps(lines), "\n".join(gaps(lines).values())
