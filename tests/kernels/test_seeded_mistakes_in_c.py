"""The tests find mistakes that are put into C kernels: a sample here, all by ``tests/support/mistakes_in_c.py``."""

import pytest

from kernels.core import build_native
from tests.conftest import require_c_kernels
from tests.support import c_kernels
from tests.support.mistakes_in_c import MISTAKES, is_found

SAMPLE = ("a tail left out", "one rate for both averages", "kept and dropped")


@pytest.mark.parametrize("name", SAMPLE)
def test_a_mistake_is_found(name):
    c_kernels.require_compiler()
    require_c_kernels()
    assert is_found(name)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_fits_its_source(name):
    mistake = MISTAKES[name]
    assert mistake.old in (build_native.KERNELS / mistake.file).read_text(encoding="utf-8")
    assert mistake.old != mistake.new


def test_there_are_twenty_mistakes_in_ten_files():
    assert len(MISTAKES) >= 20
    assert len({mistake.file for mistake in MISTAKES.values()}) >= 10
