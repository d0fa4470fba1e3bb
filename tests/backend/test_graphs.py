"""Captured work: the same bits as eager work, memory of its own, numbers that change, and what is refused."""

import contextlib
import gc
import re
import threading

import numpy as np
import pytest

from backend import DeviceError, OutOfMemoryError, blas, graph_numbers, graphs, synchronize, use
from backend.graph_numbers import GraphNumbers, refuse_capture, repeat
from backend.graph_numbers import numbers as numbers_of
from backend.graphs import CaptureError, Recorder
from tests.support.product_calls import Refusing

gpu = pytest.mark.gpu


@pytest.fixture
def cp():
    with use("cuda"):
        import cupy

        yield cupy
        assert cupy.cuda.get_current_stream() == cupy.cuda.Stream.null
        assert cupy.cuda.get_allocator() == cupy.get_default_memory_pool().malloc
        assert gc.isenabled()


def a_step(cp, x, weights):
    """Several kernels, products and arrays that come and go."""

    def step():
        hidden = x
        for _ in range(3):
            hidden = cp.maximum(blas.gemm(hidden, weights) + 0.25, 0)
        gradient = blas.gemm(x.T, hidden)
        weights[...] -= 0.125 * gradient
        return hidden.sum(axis=0), gradient

    return step


def numbers(cp, *shape):
    return cp.asarray(np.random.default_rng(0).standard_normal(shape).astype("f4"))


def test_a_cpu_has_no_graphs():
    with use("cpu"), pytest.raises(DeviceError, match="CUDA graphs need a CUDA device; the active device is cpu"):
        Recorder()


# ---------------------------------------------------------------- replays
@gpu
def test_replays_give_the_bits_of_eager_steps(cp):
    eager, captured = numbers(cp, 8, 8), numbers(cp, 8, 8)
    batches = [numbers(cp, 16, 8) * k for k in (1, -0.5, 2)]
    static = batches[0].copy()
    recorder = Recorder()
    graph = recorder.capture(a_step(cp, static, captured))
    assert (captured == eager).all(), "the capture itself ran the step"
    for batch in batches:
        static[...] = batch
        results = graph.launch()
        assert results is graph.result
        wanted = a_step(cp, batch, eager)()
        for got, want in zip((*results, captured), (*wanted, eager), strict=True):
            assert got.get().tobytes() == want.get().tobytes()


@gpu
def test_a_replay_is_one_launch(cp):
    cuda_on_cpu = pytest.importorskip("cuda_on_cpu", reason="launches are counted by the emulated device only")
    recorder = Recorder()
    step = a_step(cp, numbers(cp, 16, 8), numbers(cp, 8, 8))
    with recorder.active():
        step()
        graph = recorder.capture(step)
        cuda_on_cpu.reset()
        for _ in range(5):
            graph.launch()
    counted = cuda_on_cpu.counters()
    assert counted["graph_launches"] == 5
    calls = ("kernel_launches", "cublas_calls", "malloc_calls", "h2d_calls", "d2h_calls", "d2d_calls", "memset_calls")
    assert {name: counted[name] for name in (*calls, "synchronizations")} == dict.fromkeys(
        (*calls, "synchronizations"), 0
    )


@gpu
def test_a_graph_keeps_what_it_needs(cp):
    """The inputs, the pool and the recorder live as long as the graph, whoever else lets go of them."""

    def captured():
        x = cp.arange(50000, dtype="f4")
        return Recorder().capture(lambda: (x * 2 + 1).sum())

    graph = captured()
    gc.collect()
    held = [cp.full(50000, 7, "f4") for _ in range(8)]
    assert graph.launch() == 50000 * 50000
    assert all((array == 7).all() for array in held)


def overwritten(cp, recorder):
    """Return the number of arrays, allocated after a capture, that a replay overwrites."""
    x = cp.ones(50000, "f4")

    def work():
        y = x
        for _ in range(6):
            y = y * 2 + 1
        return y.sum()

    with recorder.active():
        work()
    graph = recorder.capture(work)
    with recorder.active():  # as eager steps between replays; CuPy's pool has an arena for each stream
        held = [cp.full(50000, 7, "f4") for _ in range(12)]
        graph.launch()
        return sum(bool((array != 7).any()) for array in held)


@gpu
def test_a_replay_overwrites_nothing_of_others(cp, monkeypatch):
    assert overwritten(cp, Recorder()) == 0
    monkeypatch.setattr(graphs, "_new_pool", lambda chunks: cp.get_default_memory_pool())
    seen = ""
    try:
        seen = f"{overwritten(cp, Recorder())} arrays overwritten"
    except cp.cuda.runtime.CUDARuntimeError as error:  # from the emulated device's checked mode
        seen = str(error)
    assert re.search("^[1-9]\\d* arrays overwritten|now part of another array", seen), "a shared pool was not seen"


@gpu
def test_memory_goes_back_with_the_last_graph(cp, monkeypatch):
    """Count what the driver gave and took back: other processes may change how much of the device is free."""
    held = {}

    class Chunks(graphs._Chunks):
        def malloc(self, size, device):
            address = super().malloc(size, device)
            held[address] = size
            return address

        def free(self, address, device):
            super().free(address, device)
            del held[address]

    monkeypatch.setattr(graphs, "_Chunks", Chunks)
    x = cp.ones(4 << 20, "u1")
    recorder = Recorder()
    graph = recorder.capture(lambda: ((x + 1) * 2)[:1] + 1)
    del recorder
    assert graph.launch() == 5
    assert sum(held.values()) >= 8 << 20
    graph = None
    assert not held


@gpu
def test_recorders_in_turn_share_a_stream_and_its_cublas_handle(cp):
    """A handle and its workspace last as long as the process: a sweep over many trainings must not collect them."""
    a = cp.ones((4, 4), "f4")

    def once():
        recorder = Recorder()
        recorder.capture(lambda: blas.gemm(a, a)).launch()
        return recorder.stream.ptr

    first = once()
    gc.collect()
    contexts = len(blas._cublas().contexts)
    for _ in range(3):
        assert once() == first
        gc.collect()
    assert len(blas._cublas().contexts) == contexts
    one, other = Recorder(), Recorder()
    assert one.stream.ptr != other.stream.ptr


@gpu
def test_a_recorder_makes_its_handle_before_any_work_takes_memory(cp, monkeypatch):
    monkeypatch.setattr(graphs, "_idle_streams", {})
    monkeypatch.setattr(blas._cublas(), "contexts", {})
    monkeypatch.setattr(blas._cublas(), "library", Refusing(blas._cublas().library, cublasCreate_v2=[3, 3]))
    pool = cp.get_default_memory_pool()
    before = pool.get_limit()
    pool.set_limit(pool.total_bytes() + (64 << 20))  # asking for the largest block is quick then
    with pytest.raises(OutOfMemoryError, match=r"cublasCreate_v2 failed"):
        Recorder()
    pool.set_limit(before)
    ((stream,),) = graphs._idle_streams.values()
    recorder = Recorder()
    assert recorder.stream is stream, "a stream without a handle is used again"
    assert [key[1] for key in blas._cublas().contexts] == [stream.ptr]


@gpu
def test_a_limit_of_cupys_pool_holds_for_graphs(cp):
    pool = cp.get_default_memory_pool()
    held = cp.zeros(1 << 20, "u1")
    gc.collect()
    pool.free_all_blocks()
    before = pool.get_limit()
    pool.set_limit(pool.total_bytes() + (4 << 20))
    try:
        recorder = Recorder()
        assert recorder.pool.get_limit() == 4 << 20
        recorder.capture(lambda: cp.zeros(3 << 20, "u1"))
        with pytest.raises(MemoryError, match="Out of memory allocating"):
            recorder.capture(lambda: cp.zeros(5 << 20, "u1"))
    finally:
        pool.set_limit(before)
    assert recorder.pool.total_bytes() <= 4 << 20
    del held


@gpu
def test_memory_that_is_given_back_within_a_capture_is_exhausted_memory(cp):
    """Recorded kernels would use what CuPy's pool has freed to find room."""
    recorder, x = Recorder(), cp.ones(1 << 18, "f4")
    recorder.pool.set_limit(size=recorder.pool.total_bytes() + (3 << 20))

    def work():
        y = x + 1
        y = y * 2
        del y
        return cp.concatenate((x, x))

    with pytest.raises(MemoryError, match="memory was exhausted while work was captured"):
        recorder.capture(work)
    recorder.pool.set_limit(size=0)
    assert (recorder.capture(work).launch() == 1).all()


@gpu
def test_graphs_of_one_recorder_take_turns(cp):
    """They share memory, and a result stays until its own graph's next replay."""
    recorder, x = Recorder(), cp.zeros(3000, "f4")
    many = [recorder.capture(lambda k=k: ((x + k) * 2 - 1).sum()) for k in range(4)]
    for value in range(3):
        x[...] = value
        results = [graph.launch() for graph in many]
        assert [float(result) for result in results] == [3000 * (2 * (value + k) - 1) for k in range(4)]


@gpu
def test_the_current_stream_and_the_recorders_wait_for_each_other(cp, monkeypatch):
    from tests.support.stream_order import StreamOrder

    order = StreamOrder()
    monkeypatch.setattr(graphs, "_idle_streams", {})  # a stream that the record knows
    with order.recording(monkeypatch):
        recorder = Recorder()
        graph = recorder.capture(lambda: None)
        monkeypatch.setattr(graph, "_graph", type("", (), {"launch": lambda _, stream: launch(stream)})())
        seen = []

        def launch(stream):
            with stream:
                seen.append((order.follows(), order.operation()))

        for _ in range(3):  # events are used again
            before = order.operation()
            graph.launch()
            follows, replay = seen[-1]
            assert before in follows
            assert replay in order.follows()
        with recorder.active():
            assert replay in order.follows()
            last = order.operation()
        assert last in order.follows()
        assert not order.waits_of_the_host


# ---------------------------------------------------------------- numbers that change from step to step
class Counter:
    """Counts on the host, as an optimizer or a random stream does, and adds what it counts to an array."""

    def __init__(self, cp):
        self.count, self.position = 0, 1 << 40
        self.total = cp.zeros(3, "f8")
        self.add = cp.ElementwiseKernel(
            "float64 by, uint64 position, uint8 small",
            "float64 total",
            "total += by + (position >> 40) + small",
            "count",
        )

    def step(self):
        (by,) = numbers_of(lambda: (self.count + 0.1,), "float64")
        (position,) = numbers_of(self.reserve, "uint64")
        (small,) = numbers_of(lambda: (self.count % 200,), "uint8")
        self.add(by, position, small, self.total)
        repeat(self.advance)
        return self.total

    def reserve(self):
        first = self.position
        self.position += 1 << 40
        return (first,)

    def advance(self):
        self.count += 1


@gpu
def test_numbers_of_the_host_change_between_replays(cp):
    eager, captured = Counter(cp), Counter(cp)
    graph = Recorder().capture(captured.step)
    assert (captured.total == 0).all()
    for _ in range(3 * graph_numbers._SLOTS):  # more than may be under way
        graph.launch()
        eager.step()
        assert (captured.count, captured.position) == (eager.count, eager.position)
        assert captured.total.get().tobytes() == eager.total.get().tobytes()


@gpu
def test_sources_and_actions_keep_their_order(cp):
    recorder, total, calls = Recorder(), cp.zeros(1, "f4"), []

    def note(name):
        calls.append(name)
        return (float(len(calls)),)

    def work():
        repeat(lambda: note("first"))
        (one,) = numbers_of(lambda: note("second"))
        repeat(lambda: note("third"))
        (two,) = numbers_of(lambda: note("fourth"))
        cp.add(total, one * 100 + two, out=total)

    graph = recorder.capture(work)
    for _ in range(3):
        graph.launch()
    assert calls == ["first", "second", "third", "fourth"] * 3
    assert float(total[0]) == (200 + 600 + 1000) + (4 + 8 + 12)


@gpu
def test_two_graphs_have_numbers_of_their_own(cp):
    recorder, counters = Recorder(), [Counter(cp), Counter(cp)]
    many = [recorder.capture(counter.step) for counter in counters]
    for index in (0, 1, 0, 0, 1):
        many[index].launch()
    for counter, steps in zip(counters, (3, 2), strict=True):
        eager = Counter(cp)
        for _ in range(steps):
            eager.step()
        assert (counter.count, counter.total.get().tobytes()) == (eager.count, eager.total.get().tobytes())


def test_outside_of_a_capture_numbers_are_plain_and_actions_are_done_once():
    calls = []
    assert numbers_of(lambda: (0.1, 3), "float32") == (0.1, 3)
    repeat(lambda: calls.append(1))
    refuse_capture("this")
    assert calls == [1]


@gpu
def test_numbers_are_those_of_their_own_capture_only(cp):
    """A source that asks for numbers itself, as an eager call does, is not recorded; nor is what follows."""
    recorder, x = Recorder(), cp.zeros(2, "f4")
    seen = []

    def source():
        seen.append(numbers_of(lambda: (5.0,), "float32"))
        return (1.0,)

    recorder.capture(lambda: cp.add(x, numbers_of(source)[0], out=x)).launch()
    assert seen == [(5.0,)]
    with pytest.raises(CaptureError):
        recorder.capture(lambda: (numbers_of(lambda: (1.0,)), 1 / 0))
    assert numbers_of(lambda: (1.0,)) == (1.0,)


@gpu
def test_too_many_numbers(cp):
    with pytest.raises(CaptureError, match="at most 65,536 bytes of numbers that change from step to step"):
        Recorder().capture(lambda: numbers_of(lambda: [0.0] * 20_000, "float32"))


@gpu
def test_what_would_be_stale_is_refused(cp):
    with pytest.raises(CaptureError, match="dice cannot be captured: every replay would repeat it"):
        Recorder().capture(lambda: refuse_capture("dice"))


@gpu
def test_a_pinned_buffer_is_written_again_only_when_its_copy_is_done(cp, monkeypatch):
    from tests.support.stream_order import StreamOrder

    order = StreamOrder()
    with order.recording(monkeypatch):
        numbers = GraphNumbers(cp)
        (rate,) = numbers.add(lambda: (1.0,), "float32")
        stream = cp.cuda.get_current_stream()
        slots = graph_numbers._SLOTS
        for _ in range(slots):
            numbers.upload(stream)
        assert len({copy.source for copy in order.copies}) == slots
        assert {(copy.target, copy.size) for copy in order.copies} == {(rate.data.ptr, 8)}
        assert {copy.stream for copy in order.copies} == {stream.ptr}
        assert not order.waits_of_the_host
        numbers.upload(stream)
        assert order.waits_of_the_host == 1, "the oldest copy was under way"
        order.finish()
        for _ in range(slots):
            numbers.upload(stream)
        assert order.waits_of_the_host == 1


# ---------------------------------------------------------------- refusals
class Layer:
    """A layer of a user's, of each kind that cannot be captured."""

    def __init__(self, cp, recorder):
        self.cp, self.stream = cp, recorder.stream
        self.x = cp.ones((4, 4), "f4")
        recorder.pool.malloc(64)

    def reads(self):
        return float((self.x + 1).sum())

    def copies(self):
        return (self.x + 1).get()

    def uploads(self):
        return self.cp.asarray(np.ones(4)) + 1

    def waits(self):
        y = self.x + 1
        self.stream.synchronize()
        return y

    def waits_for_the_device(self):
        self.cp.cuda.Device().synchronize()

    def asks(self):
        event = self.cp.cuda.Event()
        event.record(self.stream)
        self.x + 1
        return event.synchronize()

    def draws(self):
        return self.cp.random.uniform(size=3)

    def multiplies(self):
        return self.x @ self.x

    def fails(self):
        y = self.x + 1
        raise ValueError(f"too large: {y.shape}")

    def hides(self):
        with contextlib.suppress(Exception):
            self.waits()
        return 1

    def forks(self):
        self.other = self.cp.cuda.Stream(non_blocking=True)
        event = self.cp.cuda.Event()
        event.record(self.stream)
        self.other.wait_event(event)
        with self.other:
            return self.x + 1


CAUSES = {
    "reads": r"Layer\.reads \(test_graphs\.py, line \d+\): RuntimeError: .*D2H",
    "copies": r"Layer\.copies \(test_graphs\.py, line \d+\): RuntimeError: .*D2H",
    "uploads": r"Layer\.uploads \(test_graphs\.py, line \d+\): RuntimeError: .*H2D",
    "waits": r"Layer\.waits \(test_graphs\.py, line \d+\): it waits for the GPU, .*StreamCaptureUnsupported",
    "waits_for_the_device": r"Layer\.waits_for_the_device \(test_graphs\.py, line \d+\): it waits for the GPU",
    "asks": r"Layer\.asks \(test_graphs\.py, line \d+\): it waits .* \(CUDARuntimeError",
    "draws": r"Layer\.draws \(test_graphs\.py, line \d+\): NotImplementedError: .*cuRAND",
    "multiplies": r"Layer\.multiplies \(test_graphs\.py, line \d+\): NotImplementedError: .*cuBLAS",
    "fails": r"Layer\.fails \(test_graphs\.py, line \d+\): ValueError: too large: \(4, 4\)",
    "hides": r"the work cannot be captured: an error before, which the work handled by itself",
    "forks": r"the work cannot be captured: a stream that it started other work in was not joined again",
}


@gpu
@pytest.mark.parametrize("kind", CAUSES)
def test_what_cannot_be_captured_is_named_and_leaves_nothing_behind(cp, kind):
    recorder = Recorder()
    layer = Layer(cp, recorder)
    graph = recorder.capture(lambda: layer.x * 2)
    with pytest.raises(CaptureError, match=CAUSES[kind]) as raised:
        recorder.capture(getattr(layer, kind))
    assert raised.value.__cause__ is not None
    assert not recorder.stream.is_capturing()
    assert cp.cuda.get_current_stream() == cp.cuda.Stream.null
    if kind == "fails":
        with pytest.raises(ValueError, match="too large"):
            layer.fails()
    else:
        getattr(layer, kind)()  # eagerly it works as before
    assert (graph.launch() == 2).all()
    assert (recorder.capture(lambda: layer.x * 3).launch() == 3).all()


@gpu
def test_the_line_named_is_the_one_of_the_call(cp):
    recorder = Recorder()
    layer = Layer(cp, recorder)
    line = Layer.reads.__code__.co_firstlineno + 1
    with pytest.raises(CaptureError, match=rf"Layer\.reads \(test_graphs\.py, line {line}\)"):
        recorder.capture(lambda: layer.reads() + 1)
    with pytest.raises(CaptureError, match=r": <lambda> \(test_graphs\.py, line \d+\): ZeroDivisionError"):
        recorder.capture(lambda: 1 / 0)


@gpu
def test_interrupts_and_exhausted_memory_are_passed_on(cp):
    recorder, x = Recorder(), cp.ones(4, "f4")
    for error in (KeyboardInterrupt("stop"), MemoryError("full")):

        def work(error=error):
            x + 1
            raise error

        with pytest.raises(type(error), match=str(error)):
            recorder.capture(work)
        assert not recorder.stream.is_capturing()
        assert (recorder.capture(lambda: x + 1).launch() == 2).all()
    with pytest.raises(MemoryError, match="Out of memory allocating"):
        recorder.capture(lambda: cp.empty(1 << 60, "u1"))
    assert (recorder.capture(lambda: x + 1).launch() == 2).all()


@gpu
def test_no_capture_inside_another(cp):
    recorder, x = Recorder(), cp.ones(4, "f4")
    with pytest.raises(CaptureError, match="work cannot be captured inside another capture"):
        recorder.capture(lambda: Recorder().capture(lambda: x + 1))
    assert (recorder.capture(lambda: x + 1).launch() == 2).all()


@gpu
def test_other_threads_do_not_spoil_a_capture(cp):
    """They wait for the device, read from it, allocate, multiply, and capture themselves."""
    done, errors = threading.Event(), []

    def work():
        try:
            with use("cuda"):
                recorder, x = Recorder(), cp.ones((4, 4), "f4")
                while not done.is_set():
                    synchronize()
                    assert (blas.gemm(x, x) + x).get()[0, 0] == 5
                    assert (recorder.capture(lambda: x + 1).launch() == 2).all()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        recorder, x = Recorder(), cp.ones((8, 8), "f4")
        for _ in range(30):
            assert (recorder.capture(lambda: blas.gemm(x, x) + x).launch() == 9).all()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not errors


@gpu
def test_waiting_for_the_device_inside_a_capture_is_refused(cp):
    recorder, x = Recorder(), cp.ones(4, "f4")
    with pytest.raises(CaptureError, match="it waits for the GPU"):
        recorder.capture(synchronize)
    assert (recorder.capture(lambda: x + 1).launch() == 2).all()


@gpu
def test_work_that_leaves_another_stream_current(cp):
    recorder, x = Recorder(), cp.ones(4, "f4")
    other = cp.cuda.Stream(non_blocking=True)

    def work():
        y = x + 1
        other.use()
        return y

    assert (recorder.capture(work).launch() == 2).all()


@gpu
def test_an_eager_block_that_fails_leaves_nothing_behind(cp):
    recorder = Recorder()
    with pytest.raises(ValueError, match=re.escape("mine")), recorder.active():
        raise ValueError("mine")


@gpu
def test_nothing_is_collected_while_a_stream_is_captured(cp):
    """A finalizer may wait for the GPU: an array in a cycle whose memory goes back to the driver, for one."""
    recorder, x = Recorder(), cp.ones(4, "f4")
    seen = []
    recorder.capture(lambda: seen.append(gc.isenabled()) or x + 1)
    gc.disable()
    try:
        recorder.capture(lambda: seen.append(gc.isenabled()) or x + 1)
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert seen == [False, False]
