"""Recycled buffers: memory that anyone can still reach is never handed out again."""

import gc
import math
import random as python_random
import threading

import numpy as np
import pytest

import backend
from backend import tuning, workspace, xp

LARGE = 1 << 20  # elements: well beyond the size from which buffers are recycled


@pytest.fixture
def pool():
    """An empty pool on the CPU."""
    with backend.use("cpu"):
        workspace.clear()
        yield workspace
        workspace.clear()


def address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("shape", [(), 0, 3, (0, 5), (3, 4), (7, 64, 33, 65), LARGE])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", "int32", "bool"])
def test_arrays_are_as_asked_for(device, shape, dtype):
    expected = (shape,) if isinstance(shape, int) else shape
    for make in (workspace.empty, workspace.zeros):
        array = make(shape, dtype)
        assert isinstance(array, xp.ndarray)
        assert (array.shape, array.dtype, array.size) == (expected, np.dtype(dtype), math.prod(expected))
        assert array.flags.c_contiguous
        array.fill(1)
    assert not xp.any(workspace.zeros(shape, dtype))


def test_float32_is_the_default(device):
    assert workspace.empty((2,)).dtype == workspace.zeros((2,)).dtype == "float32"


def test_zeros_are_zero_in_a_buffer_that_was_full(pool):
    array = pool.empty(LARGE)
    array.fill(7)
    before = address(array)
    del array
    array = pool.zeros(LARGE)
    assert address(array) == before
    assert not array.any()


def test_a_buffer_let_go_is_used_again(pool):
    first = pool.empty((LARGE,))
    before = address(first)
    del first
    for shape, dtype in (((1024, 1024), "float32"), ((2 * LARGE,), "float16"), ((2, LARGE // 4), "float64")):
        array = pool.empty(shape, dtype)
        assert address(array) == before
        assert array.flags.writeable
        assert array.flags.aligned
        del array
    near = pool.empty(LARGE - 1000)
    assert address(near) == before


def test_the_last_buffer_let_go_is_the_first_to_come_back(pool):
    arrays = [pool.empty(LARGE) for _ in range(3)]
    last = address(arrays[-1])
    del arrays
    assert address(pool.empty(LARGE)) == last


HOLDERS = {
    "itself": lambda a: a,
    "a view": lambda a: a[1000:1001],
    "a view of a view": lambda a: a[::2][::-1][5:7],
    "another shape": lambda a: a.reshape(1024, 1024).T[3],
    "another dtype": lambda a: a.view("uint8")[:3],
    "strides of its own": lambda a: np.lib.stride_tricks.as_strided(a, (4, 4), (4, 4)),
    "a broadcast": lambda a: np.broadcast_to(a[:1], (3, 3)),
    "a subclass": lambda a: a.view(np.ma.MaskedArray),
    "a memoryview": lambda a: memoryview(a),
    "an iterator": lambda a: a.flat,
    "a closure": lambda a: lambda: a[0],
    "a cycle": lambda a: (lambda box: box.append((box, a)) or box)([]),
    "DLPack": lambda a: np.from_dlpack(a[4:8]),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_buffer_that_is_held_is_never_handed_out(pool, holder):
    array = pool.empty(LARGE)
    where = address(array)
    held = HOLDERS[holder](array)
    del array
    assert address(pool.empty(LARGE)) != where
    assert held is not None
    del held
    gc.collect()
    assert pool.held_bytes()[0] == 0, "the buffer was not let go with its last holder"


def test_nothing_held_is_ever_overwritten(pool):
    """A long random history: every array keeps the number it was filled with until it is dropped."""
    rng, held = python_random.Random(0), []
    for tag in range(1500):
        while len(held) > rng.randrange(30):
            held.pop(rng.randrange(len(held)))
        array = pool.empty(rng.choice([17000, 20000, 40000, (128, 257), (9, 8, 7, 40)]))
        array.fill(tag)
        view = rng.choice([array, array[3:], array.T, array[::-2], array.reshape(-1)[7:]])
        held.append((tag, view))
        del array, view
        if tag % 50 == 0:
            for mark, view in held:
                assert (view == mark).all()
    mark, view = held.pop()
    del view
    in_use, idle = pool.held_bytes()
    assert in_use >= sum(view.size * 4 for _, view in held)
    assert idle + in_use < 5 * 31 * 40000 * 4 * 9 / 8, "nothing was recycled"  # 5 sizes, at most 31 held of each


def test_threads_never_share_a_buffer(pool):
    errors = []

    def work(number):
        rng, held = python_random.Random(number), []
        for step in range(150):
            array = pool.empty(rng.choice([17000, 20000, 33000]))
            mark = number * 1000 + step
            array.fill(mark)
            held.append((mark, array))
            del array
            if len(held) > 4:
                mark, array = held.pop(rng.randrange(len(held)))
                if not (array == mark).all():
                    errors.append(mark)
                del array

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_a_buffer_may_be_let_go_by_another_thread(pool):
    array = pool.empty(LARGE)
    where, box = address(array), [array]
    del array
    thread = threading.Thread(target=box.clear)
    thread.start()
    thread.join()
    del thread
    assert address(pool.empty(LARGE)) == where


def test_small_arrays_leave_the_pool_alone(pool):
    arrays = [pool.empty(10), pool.zeros((5, 5)), pool.empty(0)]
    assert pool.held_bytes() == (0, 0)
    assert len(arrays) == 3


def test_the_pool_counts_its_bytes(pool):
    a, b = pool.empty(LARGE), pool.empty(LARGE)
    in_use, idle = pool.held_bytes()
    assert 8 * LARGE <= in_use <= 9 * LARGE
    assert idle == 0
    del b
    assert pool.held_bytes() == (in_use // 2, in_use // 2)
    del a
    assert pool.held_bytes() == (0, in_use)
    pool.clear()
    assert pool.held_bytes() == (0, 0)


def test_clear_leaves_what_is_held(pool):
    array = pool.empty(LARGE)
    array.fill(3)
    pool.clear()
    others = [pool.zeros(LARGE) for _ in range(3)]
    assert (array == 3).all()
    assert not any(np.shares_memory(array, other) for other in others)


def test_idle_buffers_are_freed_beyond_the_limit(pool, monkeypatch):
    monkeypatch.setattr(tuning, "POOL_IDLE_BYTES", 10 << 20)
    for step in range(20):
        pool.empty(LARGE // 4 + step * LARGE // 8)  # each of another size: none can be used again
    assert pool.held_bytes()[0] == 0
    assert pool.held_bytes()[1] <= (10 << 20) + 4 * (LARGE // 4 + 19 * LARGE // 8) * 9 / 8


def test_pooled_arrays_begin_on_a_cache_line(pool):
    held = [pool.empty(size, "uint8") for size in (1 << 16, 99_999, 1 << 20, 5_000_001)]
    held += [pool.empty(array.size, "uint8") for array in held]
    assert [array.ctypes.data % 64 for array in held] == [0] * 8


def test_a_buffer_wastes_at_most_an_eighth(pool):
    for size in (1 << 16, (1 << 16) + 1, 99_999, 131_071, 131_072, 131_073, 1_000_003, (1 << 24) - 1):
        array = pool.empty(size, "uint8")
        assert size <= pool.held_bytes()[0] <= size * 9 / 8
        del array
        pool.clear()
    large = pool.empty(1 << 24, "uint8")
    del large
    array = pool.empty(1 << 16, "uint8")  # must not take the large one
    assert pool.held_bytes()[0] <= array.nbytes * 9 / 8


@pytest.mark.gpu
def test_a_gpu_array_does_not_touch_the_pool():
    with backend.use("cuda"):
        workspace.clear()
        array = workspace.empty((512, 512))
        assert array.shape == (512, 512)
        assert workspace.held_bytes() == (0, 0)


def test_a_larger_buffer_serves_down_to_a_third_of_its_size(pool):
    large = pool.empty(3 * LARGE)
    before = address(large)
    del large
    assert address(pool.empty(LARGE)) == before
    assert address(pool.empty(LARGE // 2)) != before  # more than two thirds would lie waste


def test_the_smallest_buffer_that_fits_is_taken(pool):
    arrays = [pool.empty(size) for size in (3 * LARGE, LARGE, 2 * LARGE)]
    places = [address(array) for array in arrays]
    del arrays
    held = [pool.empty(size) for size in (LARGE, 2 * LARGE, LARGE)]
    assert [address(array) for array in held] == [places[1], places[2], places[0]]
