"""The tests find mistakes that are put into C kernels: a sample here, more by ``tests/support/mistakes_in_c.py``.

``.ci/steps native`` tries one in each C file.
"""

import pytest

from kernels.core import build_native
from tests.conftest import require_c_kernels
from tests.support import c_kernels
from tests.support.c_mistakes import MISTAKES, Mistake
from tests.support.mistakes_in_c import is_found, one_each, place_of

SAMPLE = ("a tail left out", "one rate for both averages")


@pytest.fixture
def compiler():
    c_kernels.require_compiler()
    require_c_kernels()


@pytest.mark.parametrize("name", SAMPLE)
def test_a_mistake_is_found(compiler, name):
    assert is_found(MISTAKES[name])


def test_no_mistake_is_not_found(compiler):
    """A file as it is, compiled and put in the library's place as those with mistakes are."""
    assert not is_found(MISTAKES[SAMPLE[0]]._replace(old="", new=""))


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (Mistake("masking.c", "index i = first;", "index i = first", "masking"), "expected ';'"),
        (MISTAKES[SAMPLE[0]]._replace(tests="masking::test_that_is_not_there"), "not found: .*test_that_is_not_there"),
    ],
    ids=["does not compile", "has no tests"],
)
def test_a_mistake_that_is_not_tested_is_not_found(compiler, mistake, words):
    with pytest.raises(RuntimeError, match=rf"pytest ended with [2-9](.|\n)*{words}"):
        is_found(mistake)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_fits_its_source(name):
    mistake = MISTAKES[name]
    assert mistake.old in place_of(mistake).read_text(encoding="utf-8")
    assert mistake.old not in ("", mistake.new)


def test_a_text_that_no_source_has_is_refused():
    with pytest.raises(ValueError, match=r"masking\.c has no text 'a goto': put the mistake in another place"):
        place_of(Mistake("masking.c", "a goto", "", "masking"))


def test_every_c_file_has_a_mistake():
    files = {path.name for path in build_native.sources()}
    assert {mistake.file for mistake in MISTAKES.values()} == files
    assert {MISTAKES[name].file for name in one_each()} == files
