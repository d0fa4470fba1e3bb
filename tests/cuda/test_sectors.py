"""Sectors a request of every kernel of the ``.cu`` files, held to a table that says why where they are not 4 or 16.

After a change of kernels, ``PYTHONPATH=. python tests/support/sectors.py --write`` on the emulated device
with CUDA_ON_CPU_COUNT=1 writes the table anew and keeps its reasons: its diff shows what the change costs.
"""

import json

import pytest

from kernels.core import catalog
from tests.support import sectors

IDEAL, NEAR = (4, 16), 0.1  # of 32 neighbouring numbers of 4 bytes, or of 16 bytes each


@pytest.fixture(scope="module")
def table():
    return json.loads(sectors.TABLE.read_text())


def test_the_table_has_every_kernel(table):
    kernels = {kernel for file in catalog.files() for kernel in catalog.kernels_of(file)}
    kernels -= {"dropout_mask_at", "dropout_at"}  # the same as others, with their numbers in device memory
    assert {case.partition(": ")[0] for case in table} == kernels


def test_where_sectors_are_not_ideal_the_table_says_why_and_only_there(table):
    far = {
        case
        for case, entry in table.items()
        if any(min(abs(entry[kind] - ideal) for ideal in IDEAL) > NEAR for kind in sectors.KINDS if kind in entry)
    }
    assert {case for case, entry in table.items() if entry["reason"]} == far


@pytest.mark.gpu
def test_kernels_touch_the_sectors_of_the_table(table):
    pytest.importorskip("cuda_on_cpu", reason="sectors are counted on the emulated device only")
    counted = sectors.figures()
    assert counted.keys() == table.keys()
    for case, found in counted.items():
        expected = {kind: value for kind, value in table[case].items() if kind != "reason"}
        assert found == pytest.approx(expected, abs=0.02), case
