"""The loader's copies to a GPU: of bytes, ahead of the batches' use, ordered before it, and waited for by nobody."""

import gc
from concurrent.futures import Future

import numpy as np
import pytest

import backend
from backend import asnumpy, xp
from training.data import Loader, blocks, prefetch


class AtOnce:
    """A background thread that is never late: what is submitted has been done."""

    def __init__(self, *_, **__):
        pass

    def submit(self, function, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future

    def close(self):
        pass


@pytest.fixture
def pairs(monkeypatch):
    """A loader of six blocks, each a batch of two, on a GPU; two blocks are gathered ahead and never late."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)
    monkeypatch.setattr(prefetch, "Background", AtOnce)
    with backend.use("cuda"):
        yield Loader(np.zeros((12, 1, 2, 3), np.uint8), np.arange(12), 2, shuffle=False, prefetch=2)


@pytest.fixture
def order(pairs, monkeypatch):
    from tests.support.stream_order import StreamOrder

    with StreamOrder().recording(monkeypatch) as recorded:
        yield recorded


@pytest.mark.gpu
def test_blocks_are_copied_while_those_before_them_are_used(pairs, order):
    steps, seen = [], []
    for index, (_, t) in enumerate(pairs.epoch(0)):
        copies = [copy.number for copy in order.copies]
        assert len(copies) == 2 * min(index + 3, 6)  # images and labels of this block and the next two
        due, ahead = set(copies[: 2 * index + 2]), set(copies[2 * index + 2 :])
        assert due <= order.follows()
        assert not ahead & order.follows()
        steps.append(order.operation())
        seen.append(t)
    # The copy of block 5 was begun before step 3: it runs beside steps 3 and 4.
    assert set(steps) & order.copies[-1].follows == set(steps[:3])
    assert order.waits_of_the_host == 0
    assert np.concatenate([asnumpy(t) for t in seen]).tolist() == list(range(12))


@pytest.mark.gpu
def test_leaving_early_leaves_their_memory_to_the_copies_under_way(pairs, order):
    batches = pairs.epoch(0)
    next(batches)
    batches.close()
    del batches
    gc.collect()
    assert len(order.copies) == 6  # those of the block that was taken, and of two more
    others = [xp.empty(1) for _ in range(50)]  # CuPy's least allocation, as these are
    assert not {copy.target for copy in order.copies} & {other.data.ptr for other in others}
    assert order.waits_of_the_host == 0


@pytest.mark.gpu
def test_a_block_is_copied_as_bytes_and_converted_by_one_kernel():
    cuda_on_cpu = pytest.importorskip("cuda_on_cpu", reason="copies are counted on the emulated device only")
    load = Loader(np.zeros((64, 3, 4, 4), np.uint8), np.arange(64), 8)
    with backend.use("cuda"):
        for epoch in range(2):
            cuda_on_cpu.reset()
            batches = list(load.epoch(epoch))
        counters = cuda_on_cpu.counters()
    assert len(batches) == 8
    assert (counters["h2d_calls"], counters["h2d_bytes"]) == (2, 64 * 48 + 64 * 4)
    assert counters["kernel_launches"] == 1
    assert counters["synchronizations"] == counters["d2h_calls"] == 0


@pytest.mark.gpu
def test_pinned_memory_is_locked_once_not_every_epoch():
    cuda_on_cpu = pytest.importorskip("cuda_on_cpu", reason="allocations are counted on the emulated device only")
    load = Loader(np.zeros((64, 3, 4, 4), np.uint8), np.arange(64), 8)
    with backend.use("cuda"):
        for epoch in range(4):
            cuda_on_cpu.reset()
            for _ in load.epoch(epoch):
                pass
        assert cuda_on_cpu.counters()["host_alloc_calls"] == 0


@pytest.mark.gpu
def test_another_device_while_blocks_are_on_their_way_is_refused(pairs):
    batches = pairs.epoch(0)
    next(batches)
    with backend.use("cpu"), pytest.raises(RuntimeError, match=r"batches for cuda.* are taken while cpu is active"):
        next(batches)
