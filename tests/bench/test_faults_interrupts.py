"""Interrupts at every moment of the threads' code leave BLAS as it was; mistakes would be found."""

import sys

import pytest

from backend import threads
from bench.faults import interrupts

EVERYTHING = 10**6

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="from Python 3.12 on, tracing reports too few of the bytecodes"
)


def failures(*bodies):
    return [failure for failure in interrupts.run(EVERYTHING, 0, bodies) if failure]


@pytest.mark.parametrize("body", ["hold", "share", "load"])
def test_every_moment(body):
    trials = list(interrupts.run(EVERYTHING, 0, [body]))
    assert len(trials) > 30
    assert not any(trials)


def test_moments_of_a_training():
    assert not any(interrupts.run(60, 0, ["train"]))


def test_a_hold_that_is_only_left_by_its_block_is_found(monkeypatch):
    monkeypatch.delattr(threads.single_threaded_blas, "__del__")
    try:
        assert any("BLAS has [1] threads and had [2]" in failure for failure in failures("hold"))
    finally:
        threads._holding_threads.clear()
        threads._restore_blas()


def test_a_setting_that_is_forgotten_before_it_is_put_back_is_found(monkeypatch):
    def restore():
        before = list(threads._blas_before)
        threads._blas_before.clear()
        for library, count in list(zip(threads._blas(), before, strict=False)):  # an interrupt after this call loses it
            library.set_num_threads(count)

    monkeypatch.setattr(threads, "_restore_blas", restore)
    monkeypatch.setattr(interrupts, "FILES", interrupts.FILES | {__file__})
    assert any("BLAS has [1] threads and had [2]" in failure for failure in failures("hold"))
