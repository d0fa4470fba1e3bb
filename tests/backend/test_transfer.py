"""Copies that nobody waits for: what arrives, and that no memory is touched before its time.

The order of streams is recorded (see ``stream_order``), since no device shows an error in it reliably.
"""

import gc
import threading

import numpy as np
import pytest
from checks import assert_same, frozen, normal, variants, whole

import backend
from backend import Upload, array_module, asnumpy, copy_to_host, upload, xp
from backend.recording import Recorder

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
    """A ``write`` that fills the arrays with these values."""

    def write(*arrays):
        for array, value in zip(arrays, values, strict=True):
            array[...] = value

    return write


def unchanged(*arrays):
    return arrays


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3, 4, 5)])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float64", "int32"])
def test_an_upload_arrives(device, shape, dtype):
    expected = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    (array,) = upload([(shape, dtype)], filled(expected), unchanged).get()
    assert isinstance(array, xp.ndarray)
    assert array.flags.c_contiguous
    assert_same(array, expected)


def test_several_arrays_travel_together_and_are_finished_on_the_device(device):
    def finish(x, t):
        assert array_module(x, t) is array_module()
        return xp.divide(x, 4, dtype="float32"), t, x

    block = upload([((3, 2), "uint8"), ((3,), "int32")], filled(7, [1, 2, 3]), finish)
    x, t, raw = block.write().start().get()
    assert_same(x, np.full((3, 2), 1.75, "float32"))
    assert_same(t, np.array([1, 2, 3], "int32"))
    assert_same(raw, np.full((3, 2), 7, "uint8"))


@pytest.mark.parametrize("steps", [[], ["write"], ["start"], ["write", "start"], ["write", "write", "start", "start"]])
def test_a_step_left_out_is_taken_and_none_is_taken_twice(device, steps):
    calls = []
    block = upload([((2,), "int32")], lambda x: calls.append("write"), lambda x: (calls.append("finish"), x))
    for step in steps:
        assert getattr(block, step)() is block
    first = block.get()
    assert calls == ["write", "finish"]
    assert block.get() is first
    assert calls == ["write", "finish"]


def test_writing_may_run_on_another_thread(device):
    block = upload([((1000,), "float32")], filled(np.arange(1000)), unchanged)
    thread = threading.Thread(target=block.write)
    thread.start()
    thread.join()
    assert_same(block.get()[0], np.arange(1000, dtype="float32"))


def test_uploads_may_be_kept(device):
    kept = [upload([((50,), "float32")], filled(number), unchanged).get()[0] for number in range(40)]
    for number, array in enumerate(kept):
        assert_same(array, np.full(50, number, "float32"))


def test_an_error_while_writing_is_raised(device):
    def write(array):
        raise MemoryError("no room")

    block = upload([((3,), "float32")], write, unchanged)
    for step in (block.write, block.start, block.get):
        with pytest.raises(MemoryError, match="no room"):
            step()


@pytest.mark.gpu
@pytest.mark.parametrize("first", ["cpu", "cuda"])
def test_another_device_meanwhile_is_refused(first):
    with backend.use(first):
        block = upload([((3,), "float32")], filled(1), unchanged).write()
    with backend.use("cuda" if first == "cpu" else "cpu"):
        for step in (block.start, block.get):
            with pytest.raises(RuntimeError, match=f"on their way to {first}.* are taken while .* is active"):
                step()
    with backend.use(first):
        assert_same(block.get()[0], np.ones(3, "float32"))


def test_nothing_is_copied_on_a_cpu():
    with backend.use("cpu"):
        written = []
        block = upload([((3,), "float32")], written.append, unchanged)
        assert type(block) is Upload
        assert block.get()[0] is written[0]


@pytest.mark.gpu
def test_a_copy_is_seen_by_a_profiler():
    with backend.use("cuda"), Recorder() as recorder:
        upload([((3,), "float32")], filled(1), unchanged).get()
    (copy,) = recorder.events
    assert (copy.name, copy.category, copy.shapes, copy.bytes) == ("copy", "data", ((3,),), 12)


# -- the order of streams: on a CPU there is none ------------------------------------------------------------


@pytest.fixture
def order(monkeypatch):
    with backend.use("cuda"):
        from stream_order import StreamOrder

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
    x, t = upload([((100,), "float32"), ((100,), "int32")], filled(1, 2), unchanged).get()
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
    block = upload([((1000,), "float32")], filled(1), unchanged).start()
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
    upload([((10,), "float32"), ((10,), "float32")], filled(1, 2), unchanged).get()
    assert len(last_uses) == 2
    assert all(set(last_uses) <= copy.follows for copy in order.copies)


@pytest.mark.gpu
def test_the_first_use_follows_the_copies(order):
    finished = []
    block = upload(
        [((9,), "uint8"), ((9,), "int32")], filled(1, 2), lambda x, t: finished.append(order.follows()) or (x, t)
    )
    block.start()
    copies = {copy.number for copy in order.copies}
    assert not copies & order.follows()  # nothing waits before it must
    block.get()
    assert len(copies) == 2
    assert copies <= finished[0]


@pytest.mark.gpu
def test_the_host_waits_for_nothing(order):
    for _ in range(5):
        upload([((64,), "float32")], filled(1), unchanged).start().get()
    assert len(order.copies) == 5
    assert order.waits_of_the_host == 0


@pytest.mark.gpu
def test_pinned_memory_is_written_anew_only_when_its_copy_is_done(order):
    def sources():
        start = len(order.copies)
        for _ in range(3):
            upload([((5000,), "float32")], filled(1), unchanged).get()
        return {copy.source for copy in order.copies[start:]}

    under_way = sources() | sources()
    assert len(under_way) == 6  # none is done, so each has memory of its own
    order.finish()
    assert sources() <= under_way


@pytest.mark.gpu
def test_an_upload_that_is_dropped_leaves_its_memory_to_the_copy(order):
    block = upload([((7000,), "float32")], filled(1), unchanged).start()
    del block
    gc.collect()
    (copy,) = order.copies
    assert copy.target not in fresh_device_memory(7000)
    assert copy.source not in fresh_pinned_memory(7000)
    order.finish()
    upload([((1,), "float32")], filled(1), unchanged)  # here it is seen that the copy is done
    assert copy.target in fresh_device_memory(7000, count=40)  # more than were freed above
    assert copy.source in fresh_pinned_memory(7000, count=40)


@pytest.mark.gpu
def test_a_copy_that_fails_leaves_its_memory_to_those_started_before(order, monkeypatch):
    import cupy

    block = upload([((3000,), "float32"), ((3000,), "float32")], filled(1, 2), unchanged)
    recorded = cupy.cuda.runtime.memcpyAsync

    def second_fails(*arguments):
        if order.copies:
            raise KeyboardInterrupt
        recorded(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(cupy.cuda.runtime, "memcpyAsync", second_fails)
        with pytest.raises(KeyboardInterrupt):
            block.start()
    del block
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
