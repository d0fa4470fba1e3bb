"""``python -m bench faults``: which injectors there are, how often they run, and what becomes of a failure."""

import itertools

import pytest
from click.testing import CliRunner

from bench.faults import command
from bench.faults.command import Injector, faults, inject


def endless(count, seed):
    for number in itertools.count(seed):
        yield f"number {number} broke" if number % 3 == 2 else None


@pytest.fixture
def two_injectors(monkeypatch):
    found = {"good": Injector("good", "Holds.", lambda count, seed: (None for _ in range(5)))}
    found["bad"] = Injector("bad", "Breaks.", endless)
    monkeypatch.setattr(command, "injectors", lambda: found)


def invoke(*arguments):
    return CliRunner().invoke(faults, list(map(str, arguments)))


def test_an_injector_stops_at_its_count_and_at_its_time():
    outcome = inject(Injector("bad", "", endless), 7, 1)
    assert (outcome.trials, outcome.failures) == (7, ["number 2 broke", "number 5 broke"])
    assert inject(Injector("bad", "", endless), 10**9, 0, seconds=0).trials == 1


def test_a_failure_is_a_line_and_the_exit_code(two_injectors):
    result = invoke("--count", 9, "--seed", 1)
    assert result.exit_code == 1
    good, bad, *lines = result.output.splitlines()
    assert good.split()[:5] == ["good", "5", "trials", "0", "failed"]
    assert bad.split()[:5] == ["bad", "9", "trials", "3", "failed"]
    assert lines == ["  number 2 broke", "  number 5 broke", "  number 8 broke"]
    assert invoke("good").exit_code == 0


def test_time_is_shared_and_every_injector_gets_a_trial(two_injectors):
    result = invoke("--minutes", 1e-12, "bad", "good")
    assert [line.split()[1] for line in result.output.splitlines()] == ["1", "1"]


def test_many_failures_are_counted_not_listed(two_injectors):
    assert "  and 13 more" in invoke("bad", "--count", 99).output.splitlines()


def test_injectors_are_listed_and_unknown_names_refused(two_injectors):
    assert invoke("--list").output.splitlines() == ["good         Holds.", "bad          Breaks."]
    result = invoke("good", "worse")
    assert result.exit_code == 2
    assert "unknown injector 'worse': expected one of good, bad" in result.output


def test_every_injector_says_what_it_does():
    for injector in command.injectors().values():
        assert injector.about.endswith(".")
