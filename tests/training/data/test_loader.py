"""The loader: every sample once an epoch, in an order that is a function of (seed, epoch), and no thread left."""

import contextlib
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend import asarray, asnumpy, profiling, random
from backend.recording import Recorder
from training.data import Loader, blocks, loader

DTYPES = ("float16", "float32", "float64")


def numbered(count, shape=(1, 2, 3)):
    """``count`` images, at most 256, whose every pixel is their number; the label is the number too."""
    numbers = np.arange(count)
    pixels = numbers.astype(np.uint8).reshape(-1, *(1 for _ in shape))
    return np.ascontiguousarray(np.broadcast_to(pixels, (count, *shape))), numbers


def drain(batches):
    return [(asnumpy(x), asnumpy(t)) for x, t in batches]


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("xpnet-loader")]


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert loader_threads() == []


@given(
    count=st.integers(1, 60),
    batch_size=st.integers(1, 20),
    drop_last=st.booleans(),
    shuffle=st.booleans(),
    prefetch=st.integers(0, 3),
    block_bytes=st.sampled_from([1, 100, 500, 1 << 20]),
    epoch=st.integers(0, 5),
)
def test_every_sample_once(count, batch_size, drop_last, shuffle, prefetch, block_bytes, epoch):
    images, labels = numbered(count)
    drop_last = drop_last and count >= batch_size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", block_bytes)
        load = Loader(images, labels, batch_size, shuffle=shuffle, seed=3, drop_last=drop_last, prefetch=prefetch)
    batches = drain(load.epoch(epoch))
    sizes = [len(t) for _, t in batches]
    rest = count % batch_size
    assert sizes == [batch_size] * (count // batch_size) + ([rest] if rest and not drop_last else [])
    assert len(load) == len(sizes)
    assert load.samples == sum(sizes)
    seen = np.concatenate([t for _, t in batches])
    if not shuffle:
        assert seen.tolist() == list(range(load.samples))
    elif not drop_last:
        assert sorted(seen) == list(range(count))
    assert len(set(seen)) == len(seen)
    for x, t in batches:
        expected = np.broadcast_to((t.astype(np.float32) / 255).reshape(-1, 1, 1, 1), (len(t), 1, 2, 3))
        np.testing.assert_array_equal(x, expected, strict=True)
        assert t.dtype == np.int32


@pytest.mark.parametrize("prefetch", [0, 2])
def test_batches_on_each_device(device, prefetch):
    images, labels = numbered(10, (3, 4, 5))
    load = Loader(images, labels, 4, prefetch=prefetch)
    batches = list(load.epoch(0))
    assert [x.shape for x, _ in batches] == [(4, 3, 4, 5), (4, 3, 4, 5), (2, 3, 4, 5)]
    for x, t in batches:
        assert isinstance(x, np.ndarray) == isinstance(t, np.ndarray) == (device.kind == "cpu")
        assert (x.dtype, t.dtype) == (np.float32, np.int32)
        assert x.transpose(0, 2, 3, 1).flags.c_contiguous  # channels-last memory
        np.testing.assert_array_equal(asnumpy(x)[:, 1, 2, 3], asnumpy(t).astype(np.float32) / 255)


def test_the_order_is_the_same_on_every_device(device):
    images, labels = numbered(20)
    seen = np.concatenate([t for _, t in drain(Loader(images, labels, 6, seed=5).epoch(2))])
    assert seen.tolist() == random.Generator(5, loader.SHUFFLE_STREAM + 2).permutation(20).tolist()


def test_epochs_differ_and_come_back():
    images, labels = numbered(200)
    first, again, other = (Loader(images, labels, 32, seed=seed) for seed in (1, 1, 2))
    orders = [first.order(epoch).tolist() for epoch in range(5)]
    assert len({tuple(order) for order in orders}) == 5
    assert again.order(3).tolist() == orders[3]  # without the epochs before it
    assert np.concatenate([t for _, t in drain(again.epoch(3))]).tolist() == orders[3]
    assert other.order(0).tolist() not in orders


def test_shuffling_leaves_the_global_generator_alone():
    images, labels = numbered(50)
    before = random.default.state
    drain(Loader(images, labels, 7).epoch(0))
    assert random.default.state == before


def test_drop_last_drops_others_each_epoch():
    images, labels = numbered(10)
    load = Loader(images, labels, 4, drop_last=True)
    dropped = {tuple(sorted(set(range(10)) - set(load.order(epoch)))) for epoch in range(8)}
    assert load.order(1).tolist() == Loader(images, labels, 4).order(1).tolist()[:8]
    assert len(dropped) > 1
    assert all(len(two) == 2 for two in dropped)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pixels_are_divided_exactly(device, dtype):
    images = np.arange(256, dtype=np.uint8).reshape(4, 1, 8, 8)
    ((x, _),) = drain(Loader(images, np.arange(4), 4, shuffle=False, dtype=dtype).epoch(0))
    np.testing.assert_array_equal(x, images.astype(dtype) / 255, strict=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("given_dtype", DTYPES)
def test_floating_images_are_only_cast(device, given_dtype, dtype):
    images = np.linspace(-3, 700, 60).reshape(5, 2, 3, 2).astype(given_dtype)
    ((x, t),) = drain(Loader(images, np.arange(5), 9, shuffle=False, dtype=dtype).epoch(0))
    np.testing.assert_array_equal(x, images.astype(dtype), strict=True)
    assert not np.shares_memory(x, images)
    assert t.tolist() == [0, 1, 2, 3, 4]


def test_rows_of_features_and_device_arrays(device):
    features = asarray(np.arange(12, dtype=np.float32).reshape(4, 3))
    ((x, t),) = drain(Loader(features, asarray(np.arange(4)), 4, shuffle=False).epoch(0))
    np.testing.assert_array_equal(x, asnumpy(features), strict=True)
    assert t.tolist() == [0, 1, 2, 3]


def test_strided_inputs_which_are_left_alone():
    images = np.random.default_rng(0).integers(0, 256, (20, 5, 4, 3), dtype=np.uint8)
    labels = np.arange(20)
    kept = images.copy(), labels.copy()
    strided = images[::-2].transpose(0, 3, 2, 1)
    for epoch in range(2):
        load = Loader(strided, labels[::-2], 3)
        for (x, t), first in zip(drain(load.epoch(epoch)), range(0, 10, 3), strict=True):
            chosen = load.order(epoch)[first : first + 3]
            np.testing.assert_array_equal(x, strided[chosen].astype(np.float32) / 255)
            np.testing.assert_array_equal(t, labels[::-2][chosen])
    np.testing.assert_array_equal(images, kept[0])
    np.testing.assert_array_equal(labels, kept[1])


@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_batches_may_be_kept_and_made_again(device, monkeypatch, prefetch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 2000)
    images = np.random.default_rng(1).integers(0, 256, (100, 2, 6, 6), dtype=np.uint8)
    load = Loader(images, np.arange(100) % 7, 8, seed=2, prefetch=prefetch)
    kept = [list(load.epoch(epoch)) for epoch in range(3)]  # all alive while the others are made
    for epoch, batches in enumerate(kept):
        for index, (x, t) in enumerate(batches):
            x_again, t_again = load.batch(epoch, index)
            assert x_again.transpose(0, 2, 3, 1).flags.c_contiguous
            np.testing.assert_array_equal(asnumpy(x), asnumpy(x_again), strict=True)
            np.testing.assert_array_equal(asnumpy(t), asnumpy(t_again), strict=True)
            chosen = load.order(epoch)[8 * index : 8 * index + 8]
            np.testing.assert_array_equal(asnumpy(x), images[chosen].astype(np.float32) / 255)


def test_gathers_ahead_on_a_thread_of_its_own(device, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)
    images, labels = numbered(10)
    load = Loader(images, labels, 1, shuffle=False, prefetch=2)
    gathered = [threading.Event() for _ in range(10)]
    threads, gather = set(), load._blocks._gather

    def watch(indices, *host):
        threads.add(threading.current_thread().name)
        gathered[indices[0]].set()
        gather(indices, *host)

    monkeypatch.setattr(load._blocks, "_gather", watch)
    for index, _ in enumerate(load.epoch(0)):
        # While batch `index` is in the consumer's hands, the next two are made, and no more than these.
        for ahead in gathered[index + 1 : index + 3]:
            assert ahead.wait(60)
        assert not any(event.is_set() for event in gathered[index + 3 :])
    assert len(threads) == 1
    assert threads.pop().startswith("xpnet-loader")


@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_exception_of_the_thread_is_raised_in_the_consumer(device, monkeypatch, prefetch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)
    images, labels = numbered(10)
    load = Loader(images, labels, 2, shuffle=False, prefetch=prefetch)
    gather = load._blocks._gather

    def fail(indices, *host):
        if indices[0] == 4:
            raise MemoryError("no room for block 2")
        gather(indices, *host)

    monkeypatch.setattr(load._blocks, "_gather", fail)
    batches = load.epoch(0)
    assert [next(batches)[1].tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(MemoryError, match="no room for block 2"):
        next(batches)
    assert loader_threads() == []


@pytest.mark.parametrize("stop", [None, RuntimeError, KeyboardInterrupt], ids=["break", "error", "ctrl-c"])
def test_leaving_early_stops_the_thread(device, monkeypatch, stop):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)
    images, labels = numbered(100)
    load = Loader(images, labels, 2, prefetch=4)
    started = []

    def leave():
        with contextlib.closing(load.epoch(0)) as batches:
            for _ in batches:
                started.extend(loader_threads())
                if stop:
                    raise stop
                break

    if stop:
        with pytest.raises(stop):
            leave()
    else:
        leave()
    assert len(started) == 1
    assert not started[0].is_alive()


def test_ctrl_c_while_waiting_for_the_thread_stops_it(monkeypatch):
    images, labels = numbered(10)
    load = Loader(images, labels, 2)

    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr("concurrent.futures.Future.result", interrupt)
    with pytest.raises(KeyboardInterrupt):
        next(load.epoch(0))
    assert loader_threads() == []


def test_a_forgotten_epoch_stops_its_thread():
    images, labels = numbered(10)
    batches = Loader(images, labels, 2).epoch(0)
    next(batches)
    assert len(loader_threads()) == 1
    del batches
    assert loader_threads() == []


def test_an_epoch_that_is_never_begun_starts_no_thread():
    images, labels = numbered(10)
    batches = Loader(images, labels, 2).epoch(0)
    assert loader_threads() == []
    batches.close()


def test_a_program_can_end_within_an_epoch():
    code = (
        "import numpy as np\n"
        "from training.data import Loader\n"
        "batches = Loader(np.zeros((999, 1, 28, 28), np.uint8), np.zeros(999, int), 2).epoch(0)\n"
        "next(batches)\n"
        "print('left')\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")


def test_a_thread_of_the_program_can_go_on_as_the_main_one_ends():
    """An executor of concurrent.futures would refuse: "cannot schedule new futures after interpreter shutdown"."""
    code = (
        "import threading, time\n"
        "import numpy as np\n"
        "from training.data import Loader, blocks\n"
        "blocks.BLOCK_BYTES = 1\n"
        "load = Loader(np.zeros((40, 1, 2, 2), np.uint8), np.zeros(40, int), 2)\n"
        "def work():\n"
        "    threading.main_thread().join()\n"
        "    time.sleep(0.1)\n"
        "    print(sum(len(t) for epoch in range(3) for _, t in load.epoch(epoch)))\n"
        "threading.Thread(target=work).start()\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "120\n", "")


@pytest.mark.parametrize("prefetch", [1, 2])
def test_no_thread_to_be_had_is_no_error(monkeypatch, prefetch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    images, labels = numbered(10)
    load = Loader(images, labels, 2, shuffle=False, prefetch=prefetch)
    assert np.concatenate([asnumpy(t) for _, t in load.epoch(0)]).tolist() == list(range(10))


def test_epochs_can_run_side_by_side(device):
    images, labels = numbered(40)
    load = Loader(images, labels, 3)
    pairs = list(zip(load.epoch(0), load.epoch(1), strict=True))
    for epoch in (0, 1):
        assert np.concatenate([asnumpy(pair[epoch][1]) for pair in pairs]).tolist() == load.order(epoch).tolist()


@pytest.mark.parametrize("prefetch", [0, 2])
def test_gathering_and_copying_are_seen_by_a_profiler(device, prefetch):
    images, labels = numbered(10)
    with Recorder() as recorder:
        drain(Loader(images, labels, 4, prefetch=prefetch).epoch(0))
    events = {event.name: event for event in recorder.events}
    on_gpu = device.kind != "cpu"
    # Three batches, one block; a CPU copies nothing.
    assert len(events) == len(recorder.events)
    assert set(events) == {"load", "blocks.gather", "blocks.divide_by_255", *(["copy"] if on_gpu else [])}
    scaled = events.pop("blocks.divide_by_255")
    assert scaled.category == ("" if on_gpu else "data")  # on a GPU in the range of the one who takes the batch
    assert {event.category for event in events.values()} == {"data"}
    gather = events["blocks.gather"]
    assert gather.parent is events["load"]
    assert gather.shapes == ((10,), (10, *images.shape[2:], images.shape[1]), (10,))
    assert gather.bytes == 10 * 8 + images.nbytes + 10 * 4
    assert gather.thread.startswith("xpnet-loader") == bool(prefetch)
    if on_gpu:
        assert events["copy"].bytes == images.nbytes + 10 * 4
        assert events["copy"].thread == threading.current_thread().name


@pytest.mark.parametrize("prefetch", [0, 2])
def test_ranges_of_a_loader_that_fails_are_left(prefetch):
    images, labels = numbered(10)
    load = Loader(images, labels, 4, prefetch=prefetch)
    load._blocks = load._blocks.with_labels(load._blocks.labels[:0])  # gathering fails, on whichever thread
    with Recorder() as recorder:
        with pytest.raises(IndexError):
            drain(load.epoch(0))
        with profiling.Range("after"):
            pass
    assert [event.name for event in recorder.events] == ["load", "blocks.gather", "after"]
    assert all(event.end for event in recorder.events)


IMAGES, LABELS = numbered(10)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((IMAGES.astype(bool), LABELS, 2), TypeError, "must be uint8, floating point or indices up to int64, got bool"),
        ((IMAGES.astype("uint64"), LABELS, 2), TypeError, "indices up to int64, got uint64"),
        ((IMAGES, LABELS.astype(bool), 2), TypeError, "labels are class indices, of an integer dtype, got bool"),
        ((IMAGES, LABELS.astype(complex), 2), TypeError, "labels are class indices, of an integer dtype, got complex"),
        ((IMAGES, np.where(LABELS == 3, np.nan, 0.5), 2), ValueError, "target nan at index 3 must be a finite number"),
        ((IMAGES, LABELS.astype(bool), 2), TypeError, "got bool"),
        ((IMAGES, LABELS.astype(object), 2), TypeError, "got object"),
        ((IMAGES, LABELS.astype(str), 2), TypeError, "got <U"),
        ((IMAGES, [*range(9), 2**32 + 3], 2), ValueError, "label 4294967299 at index 9 .* 0 to 2147483647"),
        ((IMAGES, np.array([*range(9), 2**63 + 3], "uint64"), 2), ValueError, "label 9223372036854775811 at index 9"),
        ((IMAGES, [*range(9), 2**31], 2), ValueError, "label 2147483648 at index 9"),
        ((IMAGES, [0, -(2**31) - 1, *range(8)], 2), ValueError, "label -2147483649 at index 1"),
        ((IMAGES, LABELS[:9], 2), ValueError, r"got \(10, 1, 2, 3\) and \(9,\)"),
        ((IMAGES, np.zeros((9, 2, 2)), 2), ValueError, r"labels \(N,\) or \(N, ...\), got .* and \(9, 2, 2\)"),
        ((IMAGES, np.zeros(()), 2), ValueError, r"labels \(N,\) or \(N, ...\), got .* and \(\)"),
        ((IMAGES, np.zeros((10, 2, 2), bool), 2), TypeError, "labels are class indices, of an integer dtype, got bool"),
        ((IMAGES, np.full((10, 2, 2), 2**31), 2), ValueError, r"label 2147483648 at index \(0, 0, 0\)"),
        ((IMAGES, np.zeros((9, 2)), 2), ValueError, r"and \(9, 2\)"),
        ((LABELS.astype(float), LABELS, 2), ValueError, r"got \(10,\) and \(10,\)"),
        ((IMAGES[:0], LABELS[:0], 2), ValueError, "at least one sample, got none"),
        ((IMAGES, LABELS, 0), ValueError, "batch_size must be .*, got 0"),
    ],
)
def test_bad_data_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Loader(*arguments)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dtype": "int32"}, TypeError, "dtype must be float16, float32 or float64, got 'int32'"),
        ({"dtype": "complex64"}, TypeError, "got 'complex64'"),
        ({"prefetch": -1}, ValueError, "prefetch must be .*, got -1"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": 1 << 64}, ValueError, "seed"),
        ({"drop_last": True}, ValueError, "full batch of 11 samples, got 10"),
    ],
)
def test_bad_options_are_refused(options, error, message):
    assert len(Loader(IMAGES, LABELS, 11)) == 1
    with pytest.raises(error, match=message):
        Loader(IMAGES, LABELS, 11, **options)


def test_bad_places_are_refused():
    load = Loader(IMAGES, LABELS, 4)
    with pytest.raises(ValueError, match=r"epoch must be .*, got -1"):
        load.epoch(-1)
    for index in (-1, 3):
        with pytest.raises(IndexError, match=f"batch {index} is out of range: expected 0 to 2"):
            load.batch(0, index)


def test_repr_says_what_is_loaded():
    load = Loader(IMAGES, LABELS, 4, seed=9)
    assert repr(load) == "Loader(uint8[10, 1, 2, 3] → float32, batch_size=4, batches=3, shuffle=True, seed=9)"
