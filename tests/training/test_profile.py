"""A profile: each nanosecond of its steps in one row, and the trace that shows them."""

import json
from itertools import pairwise

import numpy as np
import pytest

import backend
from backend.recording import Event
from kernels.core import native
from layers import Affine, Relu, Residual, Sequential
from training.data import Loader
from training.loop.trainer import Trainer
from training.models import Network
from training.optim.optimizers import SGD
from training.profile.steps import Profile, profile
from training.profile.trace import trace, write_trace

KEYS = {"X": {"ph", "name", "cat", "pid", "tid", "ts", "dur", "args"}, "M": {"ph", "name", "pid", "tid", "args"}}


def trainer(samples=12, **options):
    layers = Sequential(Affine.of(6, 5), Relu(), Residual(Affine.of(5, 5)), Affine.of(5, 3))
    images, labels = np.random.default_rng(0).integers(0, 256, (samples, 6), "uint8"), np.arange(samples) % 3
    load = Loader(images, labels, 4, **options)
    return Trainer(Network(layers, (6,)), load, load, SGD(0.1))


def event(name, kind, parent, begin, end, category="", thread="main", size=0):
    return Event(name, category, kind, thread, parent, begin, end, ((size,),) if size else (), size)


def test_rows_are_layers_phases_and_what_is_left():
    step = event("step", "loop", None, 100, 200, "step")
    data = event("data", "phase", step, 101, 104, "data")
    forward = event("forward", "phase", step, 110, 160, "forward")
    block = event("Residual1", "layer", forward, 111, 151, "forward")
    body = event("body", "layer", block, 112, 132, "forward")
    product = event("gemm.matmul", "operation", body, 113, 131, "forward", size=1000)
    inner = event("sums.column_sums", "operation", product, 114, 120, "forward", size=10)
    add = event("activations.add", "operation", block, 140, 150, "forward", size=70)
    update = event("update", "phase", step, 170, 190, "update")
    before = event("evaluate", "phase", None, 1, 50, "evaluate")
    load = event("load", "phase", None, 90, 95, "data", "loader")
    again = event("load", "phase", None, 105, 195, "data", "loader")
    events = [before, load, step, data, forward, block, body, product, inner, add, update, again]
    found = Profile(1, 1e-7, events)
    rows = {(row.layer, row.phase): (row.operations, row.nanoseconds, row.bytes) for row in found.rows()}
    assert rows == {
        ("loader", "data"): (0, 3, 0),
        ("Residual1", "forward"): (1, 20, 70),
        ("Residual1.body", "forward"): (1, 20, 1000),
        ("optimizer", "update"): (0, 20, 0),
        ("loop", ""): (0, 100 - 3 - 20 - 20 - 20, 0),
    }
    assert found.rows()[-1].layer == "loop"
    assert found.other_threads() == {("loader", "load"): 95}


def test_what_does_not_add_up_is_refused():
    step = event("step", "loop", None, 100, 200, "step")
    with pytest.raises(RuntimeError, match="2 steps do not add up: 1 steps, 100 ns"):
        Profile(2, 1e-7, [step]).rows()
    lost = event("data", "phase", event("step", "loop", None, 300, 400, "step"), 301, 310, "data")
    with pytest.raises((RuntimeError, KeyError)):
        Profile(1, 1e-7, [step, lost]).rows()


@pytest.mark.parametrize(("steps", "warmup", "prefetch"), [(1, 0, 2), (3, 2, 0), (7, 1, 2)])
def test_a_profile_adds_up(device, steps, warmup, prefetch):
    """Also over the ends of epochs, which have three steps."""
    training = trainer(prefetch=prefetch)
    found = profile(training, steps, warmup)
    assert training.step == steps + warmup
    rows = {(row.layer, row.phase): row for row in found.rows()}
    taken = found.durations()
    assert len(taken) == steps
    assert sum(row.nanoseconds for row in rows.values()) == sum(taken) <= 1e9 * found.seconds
    layers = ["Affine1", "Residual1", "Residual1.body", "Affine2", "loss"]
    expected = {(layer, phase) for layer in layers for phase in ("forward", "backward")}
    assert set(rows) == expected | {("loader", "data"), ("optimizer", "update"), ("loop", "")}
    by_numpy = device.kind == "cpu" and not native.available()
    if device.kind == "cpu":  # a GPU's launches are operations of their own
        assert rows["Affine1", "forward"].operations == (2 if by_numpy else 1) * steps
        # x, W, b and y: float32; where y is positive, and for the Relu by NumPy y again
        count = 4 * (4 * 6 + 6 * 5 + 5 + 4 * 5) + (4 * by_numpy + 1) * 4 * 5
        assert rows["Affine1", "forward"].bytes == steps * count
    assert rows["Affine2", "backward"].operations == 3 * steps
    # The data needs no gradient; the mask of the Relu is applied along with the sums, by NumPy before them.
    assert rows["Affine1", "backward"].operations == (3 if by_numpy else 2) * steps


def test_every_step_is_of_a_full_batch():
    """An epoch of 14 samples ends with a batch of two."""
    training = trainer(samples=14)
    found = profile(training, 6, 1)
    assert training.samples == 7 * 4
    forward = [each.shapes[0] for each in found.events if each.name == "forward"]
    assert forward == [(4, 6)] * 6


def test_a_profile_trains_as_training_does():
    trained, profiled = trainer(), trainer()
    profiled.network.params.flat[...] = trained.network.params.flat
    for _ in trained.steps(1):
        pass
    profile(profiled, 2, 1)
    assert np.array_equal(trained.network.params.flat, profiled.network.params.flat)


@pytest.mark.parametrize(("steps", "warmup"), [(0, 1), (1, -1)])
def test_numbers_of_steps_that_cannot_be(steps, warmup):
    with pytest.raises(ValueError, match=r"(steps|warmup) must be a whole number of at least"):
        profile(trainer(), steps, warmup)


@pytest.mark.gpu
def test_the_steps_are_captured_and_waited_for(monkeypatch):
    import cupy

    calls = []
    monkeypatch.setattr(cupy.cuda.profiler, "start", lambda: calls.append(("start", training.step)))
    monkeypatch.setattr(cupy.cuda.profiler, "stop", lambda: calls.append(("stop", training.step)))
    with backend.use("cuda"):
        training = trainer()
        profile(training, 3, 2)
    assert calls == [("start", 2), ("stop", 5)]


def check_format(made):
    """Assert the rules of the "Trace Event Format", and that the ranges of a thread are nested."""
    assert set(made) == {"traceEvents", "displayTimeUnit"}
    threads = {}
    for one in made["traceEvents"]:
        assert set(one) == KEYS[one["ph"]]
        assert isinstance(one["pid"], int)
        assert isinstance(one["tid"], int)
        if one["ph"] == "M":
            assert one["name"] in ("process_name", "thread_name")
            assert list(one["args"]) == ["name"]
        else:
            assert one["ts"] >= 0
            assert one["dur"] >= 0
            threads.setdefault(one["tid"], []).append((one["ts"], one["ts"] + one["dur"]))
    named = {one["tid"] for one in made["traceEvents"] if one["name"] == "thread_name"}
    assert named == set(threads)
    rounding = 1e-6  # of the sum, a millionth of a nanosecond in microseconds
    for ranges in threads.values():
        open_ends = []
        for begin, end in ranges:
            while open_ends and open_ends[-1] <= begin + rounding:
                open_ends.pop()
            assert not open_ends or end <= open_ends[-1] + rounding
            open_ends.append(end)
        assert all(first <= second for (first, _), (second, _) in pairwise(ranges))
    return threads


def test_a_trace_has_every_range_with_its_arrays(tmp_path):
    found = profile(trainer(), 4, 1)
    file = tmp_path / "trace.json"
    write_trace(found.events, file)
    made = json.loads(file.read_text())
    assert made == trace(found.events)
    threads = check_format(made)
    ranges = [one for one in made["traceEvents"] if one["ph"] == "X"]
    assert len(ranges) == len(found.events)
    assert min(one["ts"] for one in ranges) == 0
    first = next(one for one in ranges if one["args"]["kind"] == "operation")
    assert first["cat"] == "forward"
    mask = 20 * native.available()  # C kernels write where the Relu is positive along with the product
    assert first["args"] == {"kind": "operation", "shape": "4x6 6x5 5", "bytes": 4 * (24 + 30 + 5 + 20) + mask}
    assert len(threads) == 2  # the loader's is the other
    names = {one["args"]["name"] for one in made["traceEvents"] if one["name"] == "thread_name"}
    assert any(name.startswith("xpnet-loader") for name in names)


def test_a_trace_of_nothing():
    assert check_format(trace([])) == {}
