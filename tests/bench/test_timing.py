import itertools

import pytest

from bench import timing
from bench.sides import Case
from bench.timing import Samples, quick_time, take_turns


class World:
    """A clock that only work moves, and threads that wait during some of the samples."""

    def __init__(self, durations, waiting=()):
        self.now = 0.0
        self.waited = 0.0
        self.log = []
        self.durations = durations
        self.waiting = dict(waiting)  # number of the reading that ends a sample → seconds waited in it
        self.readings = 0

    def clock(self):
        return self.now

    def pressure(self):
        self.waited += self.waiting.get(self.readings, 0.0)
        self.readings += 1
        return self.waited

    def case(self, name):
        def step():
            self.log.append(name)
            self.now += self.durations[name]

        return Case(step, dict)

    def take_turns(self, **limits):
        limits = {"repeats": 4, "seconds": 1e9} | limits
        cases = {name: self.case(name) for name in self.durations}
        return take_turns(cases, clock=self.clock, pressure=self.pressure, **limits)


def test_one_sample_of_each_side_in_turn_of_enough_steps():
    world = World({"a": 0.022, "b": 0.5})
    samples = world.take_turns(repeats=3)
    assert (samples["a"].steps, samples["b"].steps) == (5, 1)
    turns = [(name, len(list(group))) for name, group in itertools.groupby(world.log)]
    # After the warm-up of both, a sample of a is five steps and two before them that are not timed.
    assert turns[-6:] == [("a", 7), ("b", 1)] * 3


def test_seconds_are_of_one_step():
    samples = World({"a": 0.004, "b": 0.5}).take_turns()
    assert samples["a"].seconds == pytest.approx([0.004] * 4)
    assert samples["b"].seconds == pytest.approx([0.5] * 4)


def test_a_sample_under_pressure_is_replaced_by_a_further_round():
    # Readings 0 and 1 are around the first sample of a, 2 and 3 around that of b, and so on.
    world = World({"a": 1.0, "b": 1.0}, waiting={3: 0.5, 5: 0.06})
    samples = world.take_turns(repeats=4)
    assert (len(samples["a"].seconds), len(samples["a"].disturbed)) == (4, 1)
    assert (len(samples["b"].seconds), len(samples["b"].disturbed)) == (4, 1)
    assert not samples["a"].is_disturbed


def test_the_systems_own_short_waits_do_not_count():
    world = World({"a": 1.0}, waiting={1: 0.04, 3: 0.05})
    assert not world.take_turns()["a"].disturbed


def test_no_pressure_is_known():
    world = World({"a": 1.0})
    samples = take_turns({"a": world.case("a")}, repeats=4, seconds=9, clock=world.clock, pressure=lambda: None)
    assert (len(samples["a"].seconds), samples["a"].disturbed) == (4, [])


def test_where_everything_is_disturbed_it_ends_and_says_so():
    world = World({"a": 1.0}, waiting=dict.fromkeys(range(1000), 0.2))
    samples = world.take_turns(repeats=4)["a"]
    assert samples.seconds == []
    assert len(samples.disturbed) == timing.TRIES * 4
    assert samples.is_disturbed
    assert samples.quartiles == (1.0, 1.0, 1.0)


def test_time_ends_it_after_the_fewest_rounds():
    assert len(World({"a": 1.0}).take_turns(repeats=100, seconds=2)["a"].seconds) == timing.FEWEST
    assert len(World({"a": 1.0}).take_turns(repeats=100, seconds=7)["a"].seconds) == 7


def test_the_median_and_quartiles_are_of_what_counts():
    samples = Samples(1, seconds=[5.0, 1.0, 3.0, 2.0, 4.0], disturbed=[100.0])
    assert samples.quartiles == (2.0, 3.0, 4.0)
    assert Samples(1, seconds=[1.0, 2.0], disturbed=[6.0]).quartiles == (1.5, 2.0, 4.0)
    assert Samples(1, disturbed=[6.0]).quartiles == (6.0, 6.0, 6.0)


def test_a_quick_time_is_the_least():
    durations = itertools.chain([9.0, 0.2, 0.1], itertools.repeat(0.15))
    world = World({})

    def step():
        world.now += next(durations)

    assert quick_time(Case(step, dict), clock=world.clock) == pytest.approx(0.1)


def test_pressure_is_read_where_there_is_any(tmp_path, monkeypatch):
    file = tmp_path / "cpu"
    file.write_text("some avg10=0.59 avg60=0.44 avg300=0.23 total=2500000\nfull avg10=0.00 total=7\n")
    monkeypatch.setattr(timing, "PRESSURE_FILE", file)
    assert timing.waited() == 2.5
    file.unlink()
    assert timing.waited() is None
