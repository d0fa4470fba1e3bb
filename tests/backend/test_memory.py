"""Exhausted memory: what the error says, and that nothing of what failed is held. Memory is exhausted truly."""

import gc
import re
import traceback
import weakref

import numpy as np
import pytest

import backend
from backend import OutOfMemoryError, memory, transfer, workspace, xp
from tests.support.fresh import fresh

TOO_MUCH = 1 << 60
"""Bytes that no machine has."""

GAP = 512
"""Bytes that a checked device puts behind an array."""


def guard(release=None):
    return memory.guard(lambda: "ask for fewer bytes", release)


def number(text, before, after):
    """The one number of a message that stands between two pieces of text."""
    (found,) = re.findall(rf"{before}([\d,]+){after}", text)
    return int(found.replace(",", ""))


def test_without_an_error_nothing_is_called():
    def fail():
        raise AssertionError("called without an error")

    with memory.guard(fail, fail):
        pass


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, KeyboardInterrupt, OSError])
def test_other_errors_pass_as_they_are(kind):
    error, released = kind("nothing to do with memory"), []
    with pytest.raises(kind) as caught, guard(lambda: released.append(1)):
        raise error
    assert caught.value is error
    assert not released


@pytest.mark.parametrize("allocate", [np.empty, workspace.empty, bytearray])
def test_on_the_host_the_error_says_what_was_asked_and_what_to_lower(allocate):
    with pytest.raises(MemoryError) as plain:
        np.empty(TOO_MUCH, "uint8")
    with pytest.raises(OutOfMemoryError) as caught, guard():
        allocate(TOO_MUCH) if allocate is bytearray else allocate(TOO_MUCH, "uint8")
    text = str(caught.value)
    assert isinstance(caught.value, MemoryError)
    if allocate is np.empty:
        assert text.startswith(f"{plain.value}; recycled buffers hold ")
    elif allocate is bytearray:  # Python's own says nothing
        assert text.startswith("out of memory; ")
    assert text.endswith("; to need less: ask for fewer bytes")
    assert "\n" not in text


def test_recycled_buffers_are_counted_and_the_idle_ones_freed():
    workspace.clear()
    kept, idle = workspace.empty(1 << 20, "uint8"), workspace.empty(1 << 22, "uint8")
    del idle
    with pytest.raises(OutOfMemoryError) as caught, guard():
        np.empty(TOO_MUCH, "uint8")
    assert number(str(caught.value), "hold ", " bytes in use") == 1 << 20
    assert number(str(caught.value), "in use and ", " idle") == 1 << 22
    assert workspace.held_bytes()[1] == 0
    assert len(kept) == 1 << 20


def test_the_failed_calls_are_shown_and_hold_no_array():
    """Neither in local variables nor in closures, at any depth, while the error is being handled."""
    arrays = []

    def hold(array):
        arrays.append(weakref.ref(array))
        return array

    def inner(x):
        local, enclosed = hold(np.ones(3)), hold(np.ones(4))

        def deepest():
            return enclosed + local[0] + np.empty(TOO_MUCH, "uint8")

        try:
            np.empty(TOO_MUCH, "uint8")
        except MemoryError:  # a second attempt, as the workspace makes: the first is the second's context
            deepest()

    try:
        with guard():
            inner(hold(np.ones(2)))
    except OutOfMemoryError as error:
        assert [array() for array in arrays] == [None] * 3
        shown = "".join(traceback.format_exception(error))
        assert "in deepest" in shown
        assert shown.count("Unable to allocate") > 1
    else:
        pytest.fail("no guard told")


def test_the_inner_of_two_guards_tells_and_both_let_go():
    released = []
    outer = memory.guard(lambda: "too far out to know", lambda: released.append("outer"))
    with pytest.raises(OutOfMemoryError, match=r"fewer bytes$"), outer, guard(lambda: released.append("inner")):
        np.empty(TOO_MUCH, "uint8")
    assert released == ["inner", "outer"]


def test_errors_being_handled_outside_keep_their_traceback():
    outside = KeyError("handled outside")

    def handle():
        try:
            raise outside
        except KeyError:
            with guard():
                np.empty(TOO_MUCH, "uint8")

    with pytest.raises(OutOfMemoryError):
        handle()
    assert "in handle" in "".join(traceback.format_exception(outside))


@pytest.fixture
def room():
    """A device on which CuPy's pool may hold 32 MiB more than it does."""
    with backend.use("cuda"):
        pool = xp.get_default_memory_pool()
        gc.collect()  # or what earlier tests left behind might go while this one counts:
        transfer.let_go()  # in cycles, or held by their copies until memory runs out
        pool.free_all_blocks()
        before = pool.get_limit()
        pool.set_limit(pool.total_bytes() + (32 << 20))
        yield pool
        pool.set_limit(before)


@pytest.mark.gpu
def test_on_a_device_the_error_has_every_figure(room):
    kept = [xp.empty(1 << 20, "uint8") for _ in range(20)]
    del kept[1:20:2]  # gaps between arrays: no large block can be had of them
    used, limit = room.used_bytes(), room.get_limit()
    with pytest.raises(OutOfMemoryError) as caught, guard():
        xp.empty(64 << 20, "uint8")
    text = str(caught.value)
    total = xp.cuda.runtime.memGetInfo()[1]
    assert 64 << 20 <= number(text, "^Out of memory allocating ", " bytes") <= (64 << 20) + GAP
    assert number(text, "pool holds ", " bytes in use") == used
    assert number(text, "its limit of ", ";") == limit
    assert number(text, " bytes free of ", ";") == total
    assert 0 < number(text, "cuda:0 has ", " bytes free") <= total
    assert text.endswith("; to need less: ask for fewer bytes")
    assert "\n" not in text
    largest = number(text, "to be had is ", " bytes")
    xp.empty(largest, "uint8")
    room.free_all_blocks()
    with pytest.raises(MemoryError):
        xp.empty(largest + largest // 128 + 4 * GAP, "uint8")
    assert room.used_bytes() == used


@pytest.mark.gpu
def test_without_a_limit_none_is_named():
    with backend.use("cuda"), pytest.raises(OutOfMemoryError) as caught, guard():
        xp.empty(1 << 50, "uint8")
    assert "limit" not in str(caught.value)
    assert 1 << 50 <= number(str(caught.value), "^Out of memory allocating ", " bytes") <= (1 << 50) + GAP


@pytest.mark.gpu
@pytest.mark.parametrize("allocator", ["malloc", "alloc_pinned_memory"])
def test_exhaustion_that_cuda_reports_is_told_the_same_way(allocator):
    """Not everything comes from CuPy's pool: these errors are no MemoryError."""
    with backend.use("cuda"):
        allocate = xp.cuda.runtime.malloc if allocator == "malloc" else xp.cuda.alloc_pinned_memory
        with pytest.raises(xp.cuda.runtime.CUDARuntimeError):
            allocate(1 << 50)
        with pytest.raises(OutOfMemoryError, match=r"cudaErrorMemoryAllocation.*the largest block to be had"), guard():
            allocate(1 << 50)


@pytest.mark.gpu
def test_other_errors_of_cuda_pass_as_they_are():
    with backend.use("cuda"), pytest.raises(xp.cuda.runtime.CUDARuntimeError, match="InvalidDevice"), guard():
        xp.cuda.runtime.setDevice(1000)


@pytest.mark.gpu
def test_an_array_that_the_failed_calls_held_is_free_again(room):
    def fill():
        arrays = [xp.empty(8 << 20, "uint8")]

        def grow():
            while True:
                arrays.append(xp.empty(8 << 20, "uint8"))

        grow()

    before = room.used_bytes()
    try:
        with guard():
            fill()
    except OutOfMemoryError:
        assert room.used_bytes() == before
        xp.empty(30 << 20, "uint8")
    else:
        pytest.fail("no guard told")


def test_no_cupy_is_imported():
    program = """
import sys, numpy, backend
try:
    with backend.memory.guard(str):
        numpy.empty(1 << 60, "uint8")
except backend.OutOfMemoryError:
    print("cupy" in sys.modules)
"""
    assert fresh(program, XPNET_DEVICE="cpu") == "False"
