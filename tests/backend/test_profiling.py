"""Ranges: who is told of them, what of, and as many ends as beginnings, whatever happens inside."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backend
from backend import profiling
from backend.recording import Recorder


def seen(recorder):
    """(depth, name, category, kind) of each event."""

    def depth(event):
        return 0 if event.parent is None else 1 + depth(event.parent)

    return [(depth(event), event.name, event.category, event.kind) for event in recorder.events]


@profiling.operation
def double(x, out=None, fail=False):
    """Twice x."""
    if fail:
        raise KeyError(x)
    return np.multiply(x, 2, out=out)


def test_ranges_lie_in_one_another():
    conv, step = profiling.Range("conv1", "forward", "layer"), profiling.Range("step", "step", "loop")
    with Recorder() as recorder:
        with step, conv as entered:
            assert entered is conv
        conv.push()
        profiling.pop()
    assert seen(recorder) == [
        (0, "step", "step", "loop"),
        (1, "conv1", "forward", "layer"),
        (0, "conv1", "forward", "layer"),
    ]
    first, second, third = recorder.events
    assert first.begin <= second.begin <= second.end <= first.end <= third.begin <= third.end
    assert {event.thread for event in recorder.events} == {threading.current_thread().name}


def test_a_range_may_be_entered_inside_itself():
    layer = profiling.Range("layer")
    with Recorder() as recorder, layer, layer:
        pass
    assert [depth for depth, *_ in seen(recorder)] == [0, 1]


def test_a_range_without_category_has_that_of_the_range_it_is_in():
    with Recorder() as recorder:
        with profiling.Range("forward", "forward"), profiling.Range("own"):
            double(np.ones(1))
        double(np.ones(1))
    assert [event.category for event in recorder.events] == ["forward", "forward", "forward", ""]


def test_arrays_make_shapes_and_bytes():
    x, t = np.ones((3, 2), "float32"), np.ones(3, "int32")
    layer = profiling.Range("layer")
    with Recorder() as recorder:
        with layer.of((x, {"state": [x, t]}, None, 3.0, "name", (1, 2))):
            pass
        layer.push(t)
        profiling.pop([t, (x,)])
    assert [(event.shapes, event.bytes) for event in recorder.events] == [
        (((3, 2), (3,)), 24 + 12),
        (((3,),), 12 + 24),
    ]


def test_an_operation_is_about_its_arguments_and_results():
    x, out = np.ones((3, 2), "float32"), np.empty((3, 2), "float32")
    with Recorder() as recorder:
        double(x)
        assert double(x, out=out) is out
    module = __name__.rpartition(".")[2]
    assert [(event.name, event.kind, event.bytes) for event in recorder.events] == [
        (f"{module}.double", "operation", 48),
        (f"{module}.double", "operation", 48),
    ]
    assert [len(event.shapes) for event in recorder.events] == [1, 2]
    assert (double.__name__, double.__doc__) == ("double", "Twice x.")


def test_a_recording_keeps_no_array_alive():
    class Watched(np.ndarray):
        pass

    import weakref

    x = np.ones(3).view(Watched)
    gone = weakref.ref(x)
    with Recorder() as recorder:
        profiling.Range("open").push(x)
        del x
        assert gone() is None
        profiling.pop()
    assert recorder.events[0].bytes == 24


LEVELS = st.lists(st.sampled_from(["with", "of", "push", "operation"]), min_size=1, max_size=6)


@given(LEVELS, st.integers(0, 6))
def test_ranges_are_balanced_under_exceptions(levels, fails_at):
    """Each level is entered in one of the ways; the exception is thrown at one of them, or at none."""

    def enter(index):
        if index == fails_at:
            raise KeyError(index)
        if index == len(levels):
            return
        way, level = levels[index], profiling.Range(f"level{index}")
        if way == "operation":
            profiling.operation(lambda x: enter(index + 1))(np.ones(1))
        elif way == "push":
            level.push(np.ones(1))
            try:
                enter(index + 1)
            finally:
                profiling.pop()
        else:
            with level if way == "with" else level.of(np.ones(1)):
                enter(index + 1)

    with Recorder() as recorder:
        for _ in range(2):
            if fails_at <= len(levels):
                with pytest.raises(KeyError):
                    enter(0)
            else:
                enter(0)
        with profiling.Range("after"):
            pass
    entered = min(fails_at, len(levels))
    assert [depth for depth, *_ in seen(recorder)] == [*range(entered)] * 2 + [0]
    for event in recorder.events:
        assert event.begin <= event.end
        if event.parent:
            assert event.parent.begin <= event.begin
            assert event.end <= event.parent.end


def test_a_generator_left_early_closes_its_range():
    def batches():
        with profiling.Range("data", "data"):
            yield 1
            yield 2

    with Recorder() as recorder:
        iterator = batches()
        next(iterator)
        iterator.close()
        with profiling.Range("after"):
            pass
    assert [depth for depth, *_ in seen(recorder)] == [0, 0]


def test_a_recording_begins_and_ends_anywhere():
    before, inside, across = profiling.Range("before"), profiling.Range("inside"), profiling.Range("across")
    with before:
        recorder = Recorder()
        recorder.__enter__()
        with inside:
            pass
    across.push()
    recorder.__exit__(None, None, None)
    profiling.pop()
    assert seen(recorder) == [(0, "inside", "", "phase"), (0, "across", "", "phase")]
    assert all(event.end >= event.begin for event in recorder.events)
    with inside:
        pass
    assert len(recorder.events) == 2


def test_a_recording_may_end_while_another_thread_enters_and_leaves_a_range():
    """As that thread sees it: it has begun to tell the recorder, and goes on when there is no recording any more."""

    class Last:
        """An array: asked for its size, it ends the recording."""

        @property
        def nbytes(self):
            recorder.__exit__(None, None, None)
            return 1

        shape = ()

    for way in ("enter", "leave"):
        recorder = Recorder()
        recorder.__enter__()
        with profiling.Range("around"):
            profiling.Range("inside").push(Last() if way == "enter" else ())
            profiling.pop(Last() if way == "leave" else ())
        assert [event.name for event in recorder.events] == ["around", "inside"][: 1 if way == "enter" else 2]
        for event in recorder.events:
            assert 0 < event.begin <= event.end
            assert event.parent is None or event.end <= event.parent.end


def test_every_thread_has_ranges_of_its_own():
    def work():
        with profiling.Range("there"):
            ready.set()
            go_on.wait(10)

    ready, go_on = threading.Event(), threading.Event()
    thread = threading.Thread(target=work, name="helper")
    with Recorder() as recorder, profiling.Range("here"):
        thread.start()
        assert ready.wait(10)
        with profiling.Range("inside"):
            go_on.set()
            thread.join()
    events = {event.name: event for event in recorder.events}
    assert (events["there"].thread, events["there"].parent) == ("helper", None)
    assert events["inside"].parent is events["here"]


def test_two_may_listen():
    with Recorder() as first, profiling.Range("a"), Recorder() as second, profiling.Range("b"):
        pass
    assert [event.name for event in first.events] == ["a", "b"]
    assert [event.name for event in second.events] == ["b"]


def test_nobody_listening_nothing_is_asked_of_an_array(monkeypatch):
    """Neither shapes nor bytes are looked at in a whole training step, nor is any list of arrays made."""
    from training.models import SimpleConvNet
    from training.optim.optimizers import Adam

    def refuse(*arguments):
        raise AssertionError("a payload is built")

    monkeypatch.setattr(profiling, "arrays_in", refuse)
    monkeypatch.setattr(profiling, "_Given", refuse)
    network, optimizer = SimpleConvNet(), Adam()
    x, t = backend.xp.ones((2, 1, 28, 28), "float32"), backend.xp.zeros(2, "int32")

    def step():
        network.step_gradients(x, t)
        optimizer.update(network.params, network.grads)

    step()
    with pytest.raises(AssertionError, match="a payload is built"), Recorder():
        step()


def test_a_range_by_name_is_built_once():
    first = profiling.range("once", "forward")
    assert profiling.range("once", "forward") is first
    assert profiling.range("once", "backward") is not first
    assert (first.name, first.category) == ("once", "forward")


def test_capture_is_for_a_gpu():
    with backend.use("cpu"), profiling.capture():
        pass


@pytest.mark.gpu
def test_capture_starts_and_stops_the_profiler(monkeypatch):
    import cupy

    calls = []
    monkeypatch.setattr(cupy.cuda.profiler, "start", lambda: calls.append("start"))
    monkeypatch.setattr(cupy.cuda.profiler, "stop", lambda: calls.append("stop"))
    with backend.use("cuda"), pytest.raises(KeyError), profiling.capture():
        raise KeyError
    assert calls == ["start", "stop"]
