"""NVTX ranges: as many pops as pushes, whatever happens inside."""

import pytest

from backend import profiling


class Recorder:
    """Stands in for the NVTX domain and writes down what it is told."""

    def __init__(self):
        self.open, self.log = [], []

    def get_event_attributes(self, *, message, category):
        return message, category

    def push_range(self, attributes):
        self.open.append(attributes)
        self.log.append(("push", attributes))

    def pop_range(self):
        self.log.append(("pop", self.open.pop()))


@pytest.fixture
def recorder(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(profiling, "_domain", recorder)
    monkeypatch.setattr(profiling, "pop", recorder.pop_range)
    return recorder


def test_a_range_pushes_its_name_and_category_and_pops(recorder):
    conv, step = profiling.Range("conv1", "forward"), profiling.Range("step")
    with step, conv as entered:
        assert entered is conv
        assert recorder.open == [("step", None), ("conv1", "forward")]
    assert recorder.open == []
    assert [what for what, _ in recorder.log] == ["push", "push", "pop", "pop"]


def test_ranges_are_balanced_under_exceptions(recorder):
    outer = profiling.Range("outer")
    for _ in range(3):
        with pytest.raises(KeyError), outer, profiling.Range("inner"):
            raise KeyError
        assert recorder.open == []
    assert len(recorder.log) == 12


def test_a_range_may_be_entered_inside_itself(recorder):
    layer = profiling.Range("layer")
    with layer, layer:
        assert len(recorder.open) == 2
    assert recorder.open == []


def test_a_generator_left_early_closes_its_range(recorder):
    def batches():
        with profiling.Range("data", "data"):
            yield 1
            yield 2

    iterator = batches()
    next(iterator)
    iterator.close()
    assert recorder.open == []


def test_push_and_pop_by_hand(recorder):
    profiling.Range("loop").push()
    assert recorder.open == [("loop", None)]
    profiling.pop()
    assert recorder.open == []


def test_a_range_is_built_once():
    first = profiling.range("once", "forward")
    assert profiling.range("once", "forward") is first
    assert profiling.range("once", "backward") is not first
    assert (first.name, first.category) == ("once", "forward")


def test_the_real_domain_takes_ranges():
    """With the nvtx package, if installed, and no profiler listening."""
    with profiling.range("step", category="step"), profiling.range("no category"):
        profiling.range("by hand", "data").push()
        profiling.pop()
