"""Work shared among threads: every call once, errors passed on, all waited for."""

import gc
import threading
import time
import warnings
import weakref
from queue import SimpleQueue

import numpy as np
import pytest
import threadpoolctl

from backend import threads
from tests.support.checks import thread_limit

LIMITS = [1, 2, 3, 4]


def blas_threads():
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 17])
def test_every_index_is_called_once(limit, count):
    calls = [0] * count
    lock = threading.Lock()

    def note(index):
        with lock:
            calls[index] += 1

    with thread_limit(limit):
        threads.run(note, range(count))
    assert calls == [1] * count


@pytest.mark.parametrize("limit", LIMITS)
def test_results_do_not_depend_on_the_threads(limit):
    x = np.random.default_rng(0).standard_normal((40, 200))
    expected = [float(np.exp(row).sum()) for row in x]
    results = [0.0] * 40

    def work(index):
        results[index] = float(np.exp(x[index]).sum())

    with thread_limit(limit):
        threads.run(work, range(40))
    assert results == expected


@pytest.mark.parametrize("limit", [2, 4])
def test_helpers_work_in_the_context_of_the_caller(limit):
    """Under ``numpy.errstate`` an overflow is silent, or an error, in whichever thread it comes up."""
    barrier, large = threading.Barrier(limit), np.full(8, 60000, "float16")
    seen = []

    def overflow(index):
        barrier.wait(timeout=20)
        seen.append((threading.get_ident(), np.geterr()["over"], float((large * large)[0])))

    with thread_limit(limit), warnings.catch_warnings():
        warnings.simplefilter("error")
        with np.errstate(over="ignore"):
            threads.run(overflow, range(limit))
        assert {state for _, state, _ in seen} == {"ignore"}
        assert len({thread for thread, _, _ in seen}) == limit
        with np.errstate(over="raise"), pytest.raises(FloatingPointError):
            threads.run(overflow, range(limit))


@pytest.mark.parametrize("limit", [2, 3, 4])
def test_calls_run_side_by_side(limit):
    """All must arrive at the barrier at the same time: one after the other they never would."""
    barrier = threading.Barrier(limit)
    seen = set()

    def meet(index):
        barrier.wait(timeout=20)
        seen.add(threading.get_ident())

    with thread_limit(limit):
        threads.run(meet, range(limit))
    assert len(seen) == limit


def test_one_thread_stays_on_the_caller():
    seen = []
    with thread_limit(1):
        threads.run(lambda index: seen.append((index, threading.get_ident())), range(3))
    assert seen == [(index, threading.get_ident()) for index in range(3)]


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("where", [0, 5, 19])
def test_an_exception_is_raised_here_and_stops_the_rest(limit, where):
    started, finished, lock = [], [], threading.Lock()

    def work(index):
        with lock:
            started.append(index)
        if index == where:
            raise ZeroDivisionError(f"call {index}")
        with lock:
            finished.append(index)

    before = blas_threads()
    with thread_limit(limit):
        with pytest.raises(ZeroDivisionError, match=f"call {where}"):
            threads.run(work, range(20))
        assert set(started) == set(finished) | {where}, "run returned while a call was under way"
        assert len(started) == len(set(started))
        assert blas_threads() == before
        calls = []
        threads.run(calls.append, range(9))  # and the threads go on working
        assert sorted(calls) == list(range(9))


@pytest.mark.parametrize("raiser", ["caller", "helper"])
def test_an_exception_does_not_keep_the_arrays_of_its_call(raiser):
    """They may be large buffers; a cycle through the traceback would hold them until the collector comes by."""
    barrier, caller = threading.Barrier(2), threading.get_ident()

    def fail():
        held = np.ones(3)
        watch = weakref.ref(held)

        def work(index):
            mine = held
            barrier.wait(timeout=20)
            if (threading.get_ident() == caller) == (raiser == "caller"):
                raise KeyError(len(mine))

        with pytest.raises(KeyError):
            threads.run(work, range(2))
        return watch

    gc.disable()
    try:
        with thread_limit(2):
            watch = fail()
            threads.run(
                lambda index: barrier.wait(timeout=20), range(2)
            )  # the helper has let go of its last job by now
        assert watch() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("raiser", ["caller", "helper"])
def test_an_exception_waits_for_the_other_thread(raiser):
    """One thread raises while the other is inside a call; buffers must be free of it when run returns."""
    barrier, release, done = threading.Barrier(2), threading.Event(), []
    caller = threading.get_ident()

    def work(index):
        barrier.wait(timeout=20)
        if (threading.get_ident() == caller) == (raiser == "caller"):
            release.set()
            raise KeyError(index)
        release.wait(timeout=20)
        done.append(index)

    with thread_limit(2), pytest.raises(KeyError):
        threads.run(work, range(2))
    assert len(done) == 1


def test_no_calls_are_handed_out_after_an_exception():
    barrier, calls, lock = threading.Barrier(2), [], threading.Lock()
    raised = threading.Event()

    def work(index):
        with lock:
            calls.append(index)
        if index < 2:
            barrier.wait(timeout=20)
        if index == 0:
            raised.set()
            raise KeyError(index)
        raised.wait(timeout=20)

    with thread_limit(2), pytest.raises(KeyError):
        threads.run(work, range(1000))
    assert len(calls) < 1000


def test_a_call_inside_another_runs_in_turn():
    calls, lock = [], threading.Lock()

    def inner(index):
        with lock:
            calls.append((threading.get_ident(), index))

    def outer(index):
        mine = []
        threads.run(lambda i: mine.append(threading.get_ident()), range(3))
        assert set(mine) == {threading.get_ident()}
        threads.run(inner, range(3))

    with thread_limit(3):
        threads.run(outer, range(4))
    assert sorted(index for _, index in calls) == [0] * 4 + [1] * 4 + [2] * 4


def test_a_call_inside_another_takes_no_thread_that_is_free():
    """The second inner call would start beside the first, which waits for it, if a free thread were given it."""
    met = []

    def outer(index):
        if index == 0:
            started = threading.Event()
            threads.run(lambda inner: started.set() if inner else met.append(started.wait(timeout=0.3)), range(2))

    with thread_limit(4):
        threads.run(outer, range(2))
    assert met == [False]


def test_calls_run_side_by_side_again_after_nesting_and_errors():
    with thread_limit(2):
        with pytest.raises(KeyError):
            threads.run(lambda index: threads.run({}.__getitem__, range(2)), range(4))
        barrier = threading.Barrier(2)
        threads.run(lambda index: barrier.wait(timeout=20), range(2))
        assert not barrier.broken


def test_two_callers_at_once():
    totals = [[], []]

    def caller(number):
        for _ in range(20):
            threads.run(totals[number].append, range(10))

    with thread_limit(3):
        callers = [threading.Thread(target=caller, args=(number,)) for number in (0, 1)]
        before = blas_threads()
        for thread in callers:
            thread.start()
        for thread in callers:
            thread.join(timeout=60)
        assert not any(thread.is_alive() for thread in callers)
        assert blas_threads() == before
    assert [sorted(total) for total in totals] == [sorted([*range(10)] * 20)] * 2


# -- the limit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, -3])
def test_less_than_one_thread_is_refused(count):
    before = threads.limit()
    with pytest.raises(ValueError, match=f"count must be a whole number from 1 to 65536, got {count}"):
        threads.set_limit(count)
    assert threads.limit() == before


def test_the_limit_is_the_number_of_threads_at_most():
    with thread_limit(3):
        assert threads.limit() == 3
        seen, lock = set(), threading.Lock()

        def note(index):
            with lock:
                seen.add(threading.get_ident())

        threads.run(note, range(200))
        assert len(seen) <= 3


def test_no_thread_to_be_had_is_no_error(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(threads, "_queue", None)  # with helpers that are there it would need none
    called = []
    with thread_limit(3):
        threads.run(called.append, range(5))
    assert called == [0, 1, 2, 3, 4]


def test_an_interrupt_as_helpers_are_waited_for_waits_for_them_all_the_same(monkeypatch):
    """What a helper still writes into is the caller's again once `run` has been left."""
    begun, ended = threading.Event(), []
    main = threading.current_thread()

    def work(index):
        if threading.current_thread() is main:
            assert begun.wait(20)
        else:
            begun.set()
            time.sleep(0.2)
            ended.append(index)

    class Interrupting(SimpleQueue):
        def get(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(threads, "_Job", type("Job", (threads._Job,), {}))
    make = threads._Job.__init__

    def init(self, *arguments):
        make(self, *arguments)
        self.finished = Interrupting()

    monkeypatch.setattr(threads._Job, "__init__", init)
    with thread_limit(2), pytest.raises(KeyboardInterrupt):
        threads.run(work, range(2))
    assert len(ended) == 1


def test_jobs_do_not_wait_for_threads_that_cannot_be_had(monkeypatch):
    """The caller does all the work, and nothing of it is kept for helpers that never come."""

    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads.threading.Thread, "start", start)
    before = threads.limit()
    threads.set_limit(3)
    try:
        for _ in range(5):
            done = []
            threads.run(done.append, range(4))
            assert sorted(done) == [0, 1, 2, 3]
        assert threads._queue.qsize() == 0
    finally:
        threads.set_limit(before)
