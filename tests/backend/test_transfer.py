"""Copies that nobody waits for: what arrives, and that no memory is touched before its time.

The order of streams is recorded (see ``stream_order``), since no device shows an error in it reliably.
"""

import gc
import threading

import numpy as np
import pytest

import backend
from backend import array_module, asnumpy, copy_to_device, copy_to_host, empty_pinned, xp
from backend.recording import Recorder
from tests.support.checks import assert_same, frozen, normal, variants, whole

DTYPES = ["float16", "float32", "float64", "int8", "int32", "int64", "uint8", "uint32", "bool", "complex64"]


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3, 4, 5)])
def test_a_copy_to_the_host_is_a_copy_of_that_moment(device, shape):
    x = whole(shape, seed=1)
    expected = asnumpy(x).copy()
    with frozen(x):
        copy = copy_to_host(x)
    x += 1
    assert_same(copy.get(), expected)
    assert copy.done
    assert isinstance(copy.get(), np.ndarray)
    assert not np.shares_memory(copy.get(), asnumpy(x))


def test_a_copy_to_the_host_takes_any_layout(device):
    x = normal((2, 3, 4, 5))
    for name, view in variants(x):
        np.testing.assert_array_equal(copy_to_host(view).get(), asnumpy(x), err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_copy_to_the_host_keeps_the_dtype(device, dtype):
    assert_same(copy_to_host(xp.ones((3, 2), dtype)).get(), np.ones((3, 2), dtype))


def filled(*values):
    """Host arrays in memory to copy from, with these values."""
    made = []
    for value in map(np.asarray, values):
        made.append(empty_pinned(value.shape, value.dtype))
        made[-1][...] = value
    return made


def copied(*values):
    return copy_to_device(*filled(*values))


def ones(size, dtype="float32"):
    return np.ones(size, dtype)


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3, 4, 5)])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float64", "int32"])
def test_a_copy_to_the_device_arrives(device, shape, dtype):
    expected = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    (array,) = copied(expected).get()
    assert isinstance(array, xp.ndarray)
    assert array.flags.c_contiguous
    assert_same(array, expected)


def test_several_arrays_travel_together(device):
    copy = copied(np.full((3, 2), 7, "uint8"), np.array([1, 2, 3], "int32"))
    x, t = copy.get()
    assert array_module(x, t) is array_module()
    assert_same(x, np.full((3, 2), 7, "uint8"))
    assert_same(t, np.array([1, 2, 3], "int32"))
    assert copy.get() is copy.get()


def test_host_memory_may_be_filled_by_another_thread(device):
    host = empty_pinned((1000,), "float32")
    thread = threading.Thread(target=host.__setitem__, args=(..., np.arange(1000)))
    thread.start()
    thread.join()
    assert_same(copy_to_device(host).get()[0], np.arange(1000, dtype="float32"))


def test_copies_on_the_device_may_be_kept(device):
    kept = [copied(np.full(50, number, "float32")).get()[0] for number in range(40)]
    for number, array in enumerate(kept):
        assert_same(array, np.full(50, number, "float32"))


def test_nothing_is_copied_on_a_cpu():
    with backend.use("cpu"):
        (host,) = filled(ones(3))
        assert copy_to_device(host).get()[0] is host


@pytest.mark.gpu
def test_a_copy_is_seen_by_a_profiler():
    with backend.use("cuda"), Recorder() as recorder:
        copied(ones(3)).get()
    (copy,) = recorder.events
    assert (copy.name, copy.category, copy.shapes, copy.bytes) == ("copy", "data", ((3,),), 12)


# -- the order of streams: on a CPU there is none ------------------------------------------------------------


@pytest.fixture
def order(monkeypatch):
    with backend.use("cuda"):
        from tests.support.stream_order import StreamOrder

        with StreamOrder().recording(monkeypatch) as recorded:
            yield recorded


def pinned(address):
    import cupy

    return cupy.cuda.runtime.pointerGetAttributes(address).type == cupy.cuda.runtime.memoryTypeHost


def main_stream():
    import cupy

    return cupy.cuda.get_current_stream().ptr


@pytest.mark.gpu
def test_copies_run_from_pinned_memory_on_a_stream_of_their_own(order):
    x, t = copied(ones(100), ones(100, "int32")).get()
    assert [copy.size for copy in order.copies] == [400, 400]
    assert [copy.target for copy in order.copies] == [x.data.ptr, t.data.ptr]
    assert all(pinned(copy.source) for copy in order.copies)
    (stream,) = {copy.stream for copy in order.copies}
    assert stream not in (0, main_stream())
    assert backend.transfer._streams[x.device.id].is_non_blocking


@pytest.mark.gpu
def test_a_copy_follows_all_that_may_still_use_its_memory(order):
    freed = xp.zeros(1000, "float32")
    address, last_use = freed.data.ptr, order.operation()
    del freed
    block = copied(ones(1000))
    (copy,) = order.copies
    assert copy.target == address  # else this shows nothing
    assert last_use in copy.follows
    assert_same(block.get()[0], np.ones(1000, "float32"))


@pytest.mark.gpu
def test_a_copy_follows_what_is_started_until_its_memory_is_allocated(order, monkeypatch):
    empty, last_uses = xp.empty, []

    def another_is_faster(*arguments):
        last_uses.append(order.operation())  # of an array that is then freed: the allocation may get its memory
        return empty(*arguments)

    monkeypatch.setattr(xp, "empty", another_is_faster)
    copied(ones(10), ones(10)).get()
    assert len(last_uses) == 2
    assert all(set(last_uses) <= copy.follows for copy in order.copies)


@pytest.mark.gpu
def test_the_first_use_follows_the_copies(order):
    block = copied(ones(9, "uint8"), ones(9, "int32"))
    copies = {copy.number for copy in order.copies}
    assert not copies & order.follows()  # nothing waits before it must
    block.get()
    assert len(copies) == 2
    assert copies <= order.follows()


@pytest.mark.gpu
def test_the_host_waits_for_nothing(order):
    for _ in range(5):
        copied(ones(64)).get()
    assert len(order.copies) == 5
    assert order.waits_of_the_host == 0


@pytest.mark.gpu
def test_pinned_memory_is_written_anew_only_when_its_copy_is_done(order):
    def sources():
        start = len(order.copies)
        for _ in range(3):
            copied(ones(5000)).get()
        return {copy.source for copy in order.copies[start:]}

    under_way = sources() | sources()
    assert len(under_way) == 6  # none is done, so each has memory of its own
    order.finish()
    assert sources() <= under_way


@pytest.mark.gpu
def test_a_copy_that_is_dropped_leaves_its_memory_to_the_copy(order):
    block = copied(ones(7000))
    del block
    gc.collect()
    (copy,) = order.copies
    assert copy.target not in fresh_device_memory(7000)
    assert copy.source not in fresh_pinned_memory(7000)
    order.finish()
    filled(ones(1))  # here it is seen that the copy is done
    assert copy.target in fresh_device_memory(7000, count=40)  # more than were freed above
    assert copy.source in fresh_pinned_memory(7000, count=40)


@pytest.mark.gpu
def test_a_copy_that_fails_leaves_its_memory_to_those_started_before(order, monkeypatch):
    import cupy

    host = filled(ones(3000), ones(3000))
    recorded = cupy.cuda.runtime.memcpyAsync

    def second_fails(*arguments):
        if order.copies:
            raise KeyboardInterrupt
        recorded(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(cupy.cuda.runtime, "memcpyAsync", second_fails)
        with pytest.raises(KeyboardInterrupt):
            copy_to_device(*host)
    del host
    gc.collect()
    (copy,) = order.copies
    assert copy.target not in fresh_device_memory(3000)
    assert copy.source not in fresh_pinned_memory(3000)


def fresh_device_memory(size, count=20):
    """Addresses of new float32 arrays: those of all freed memory of that size, where ``count`` is large enough."""
    arrays = [xp.empty(size, "float32") for _ in range(count)]
    return {array.data.ptr for array in arrays}


def fresh_pinned_memory(size, count=20):
    import cupy

    arrays = [np.ndarray(size, "float32", cupy.cuda.alloc_pinned_memory(4 * size)) for _ in range(count)]
    return {array.ctypes.data for array in arrays}
