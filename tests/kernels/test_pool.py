"""How threads share a C kernel's work: every item once, whoever helps, and also after a fork, or without any thread."""

import ctypes
import threading
from pathlib import Path

import numpy as np
import pytest

from backend import threads, tuning
from kernels.core import native, pool
from kernels.core.native import Function
from tests.conftest import require_c_kernels
from tests.support import c_kernels
from tests.support.checks import thread_limit
from tests.support.fresh import fresh

SOURCE = Path(__file__).with_name("vectors.c")
FLOAT = np.dtype("float32")
LONG = 200_000  # steps of an item, some 0.1 ms


@pytest.fixture
def marked(tmp_path_factory):
    """Return a function that computes items, and returns which thread computed each; each must be computed once."""
    c_kernels.require_compiler()
    handle = c_kernels.compiled(str(SOURCE), str(tmp_path_factory.getbasetemp()))
    function = Function(str(SOURCE), "marked")

    def computed(count, steps=0, numbers=8, **options):
        by, times, inside = (np.zeros(size, "int32") for size in (count, count, numbers))
        given = by, times, inside, steps, count, numbers
        computed.is_one = function.share(FLOAT, count, tuning.WORTH_CUTTING, *given, **options)
        assert times.tolist() == [1] * count
        assert not inside.any()
        return by.tolist()

    with c_kernels.as_library(handle, c_kernels.own_levels()[-1]):
        yield computed


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 100, 101])
def test_every_item_is_computed_once(marked, count, limit):
    with thread_limit(limit):
        for steps in (0, 0, 0, 1000):
            assert set(marked(count, steps)) <= set(range(min(limit, max(count, 1))))
            assert marked.is_one == (limit == 1 or count < 2)


def test_threads_help(marked):
    with thread_limit(2):
        assert set(marked(2000, LONG)) == {0, 1}


def test_pieces_are_ranges_of_nearly_equal_length(marked):
    with thread_limit(3):
        by = marked(10, LONG, each=1)
    assert [by[first] for first in (0, 3, 6)] == [by[last] for last in (2, 5, 9)]


def test_no_more_threads_than_the_kernel_has_memory_for(marked):
    with thread_limit(5):
        assert set(marked(500, LONG // 10, numbers=2)) <= {0, 1}
        assert set(marked(500, LONG // 10, numbers=1)) == {0}


def test_little_work_stays_in_one_piece(marked, monkeypatch):
    with thread_limit(3):
        assert marked.is_one if marked(1) else True
        monkeypatch.setattr(tuning, "WORTH_CUTTING", 1 << 40)
        assert native.sharers(100, 1) == 1


def test_a_call_inside_a_shared_one_stays_on_its_thread(marked):
    seen = []
    with thread_limit(2):
        threads.spread(lambda _: seen.append(set(marked(100, 1000))), range(4))
    assert seen == [{0}] * 4


def test_callers_at_once_each_get_their_own_work_done(marked):
    errors = []

    def call():
        try:
            for count in range(2, 100):
                marked(count, 100)
        except AssertionError as error:
            errors.append(error)

    with thread_limit(3):
        callers = [threading.Thread(target=call) for _ in range(3)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert errors == []


def test_no_thread_to_be_had_is_no_error(marked, monkeypatch):
    pool.forget()

    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with thread_limit(3):
        assert set(marked(100, 1000)) == {0}
    pool.forget()


def test_wrong_arguments_are_refused_before_any_thread_helps(marked):
    function, by = Function(str(SOURCE), "marked"), np.zeros(10, "int32")
    with thread_limit(2), native.checked(False):
        for wrong in ((by[::2], by, by), (by, None, by), (by, by, "text")):
            with pytest.raises((ctypes.ArgumentError, TypeError)):
                function.share(FLOAT, 10, tuning.WORTH_CUTTING, *wrong, 0, 10, 10)
    with (
        thread_limit(2),
        native.checked(),
        pytest.raises(ValueError, match=r"times of marked in .* 10 elements, got 9"),
    ):
        function.share(FLOAT, 10, tuning.WORTH_CUTTING, by, by[:9], by, 0, 10, 10)
    assert not by.any()


USED = """
import os, sys, threading, time
import numpy
from backend import threads
from kernels import activations
threads.set_limit(3)
x = numpy.linspace(-1, 1, 1 << 20, dtype="float32")
def used():
    y, positive = activations.relu(x)
    assert positive.sum() == 1 << 19 and y.min() == 0
for _ in range(20):
    used()
"""

FORKED = (
    USED
    + """
stop = False
def often():
    while not stop:
        used()
thread = threading.Thread(target=often, daemon=True)
thread.start()
for _ in range(20):
    time.sleep(0.002)
    child = os.fork()
    if not child:
        used()
        used()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop = True
thread.join()
print("done")
"""
)


@pytest.mark.skipif(not hasattr(native.os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_process_computes_and_ends():
    require_c_kernels()
    assert fresh(FORKED) == "done"


def test_a_process_ends_while_threads_wait():
    require_c_kernels()
    assert fresh(USED + "print('done')") == "done"
    assert fresh(USED + "time.sleep(0.01); used(); print('done')") == "done"
