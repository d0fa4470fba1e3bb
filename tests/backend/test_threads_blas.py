"""BLAS is held to one thread while ours compute, whoever started them, and gets its own number back."""

import threading

import pytest
import threadpoolctl

from backend import threads
from tests.support.checks import thread_limit


def blas_threads():
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]


def anyone_may_set_blas():
    """threadpoolctl lets one thread alone set OpenBLAS until it is told otherwise: here each test starts free."""
    controller = threadpoolctl.OpenBLASController
    if hasattr(controller, "clear_controlling_thread"):
        controller.clear_controlling_thread(force=True)


@pytest.fixture
def two_blas_threads():
    """BLAS at two threads, whatever this machine has."""
    anyone_may_set_blas()
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        if set(blas_threads()) != {2}:
            pytest.skip(f"this BLAS cannot be set to two threads: {threadpoolctl.threadpool_info()}")
        anyone_may_set_blas()
        yield
        anyone_may_set_blas()


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_blas_has_one_thread_inside_and_its_own_number_after(two_blas_threads, limit):
    """With one thread of ours too: how a product is summed up must not depend on the limit."""
    inside = []
    with thread_limit(limit):
        threads.run(lambda index: inside.append(set(blas_threads())), range(4))
    assert inside == [{1}] * 4
    assert set(blas_threads()) == {2}


def test_blas_is_let_go_after_an_exception(two_blas_threads):
    with thread_limit(2), pytest.raises(KeyError):
        threads.run({}.__getitem__, range(4))
    assert set(blas_threads()) == {2}


def test_the_last_to_leave_lets_blas_go(two_blas_threads):
    with threads.single_threaded_blas():
        with threads.single_threaded_blas():
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {1}
    assert set(blas_threads()) == {2}
    with pytest.raises(KeyError), threads.single_threaded_blas():
        raise KeyError
    assert set(blas_threads()) == {2}


@pytest.mark.parametrize("first", ["caller", "other"])
@pytest.mark.parametrize("last", ["caller", "other"])
def test_two_threads_hold_blas_together(two_blas_threads, first, last):
    """Whoever came first and whoever leaves last: it has one thread until then, and its own number after."""
    other_may_enter, other_entered, other_may_leave = (threading.Event() for _ in range(3))
    inside = []

    def other():
        other_may_enter.wait(timeout=20)
        with threads.single_threaded_blas():
            other_entered.set()
            other_may_leave.wait(timeout=20)
            inside.append(set(blas_threads()))

    thread = threading.Thread(target=other)
    thread.start()
    if first == "other":
        other_may_enter.set()
        assert other_entered.wait(timeout=20)
    with threads.single_threaded_blas():
        other_may_enter.set()
        assert other_entered.wait(timeout=20)
        inside.append(set(blas_threads()))
        if last == "caller":
            other_may_leave.set()
            thread.join(timeout=20)
            inside.append(set(blas_threads()))
    if last == "other":
        inside.append(set(blas_threads()))
        other_may_leave.set()
        thread.join(timeout=20)
    assert inside == [{1}] * 3
    assert set(blas_threads()) == {2}


def test_every_thread_in_turn_holds_blas(two_blas_threads):
    """A loader's thread computes after the main one did, and the main one after it."""
    inside = []

    def compute():
        threads.run(lambda index: inside.append(set(blas_threads())), range(2))

    with thread_limit(2):
        for _ in range(2):
            compute()
            thread = threading.Thread(target=compute)
            thread.start()
            thread.join(timeout=20)
            assert set(blas_threads()) == {2}
    assert inside == [{1}] * 8


def test_blas_is_held_by_another_thread_than_the_one_that_set_it(two_blas_threads):
    threadpoolctl.threadpool_limits(2, user_api="blas")  # as a program may at its start: this thread has the say now
    inside = []
    with thread_limit(2):
        thread = threading.Thread(target=threads.run, args=(lambda index: inside.append(set(blas_threads())), range(2)))
        thread.start()
        thread.join(timeout=20)
    assert inside == [{1}] * 2
    assert set(blas_threads()) == {2}
