"""``python -m bench ranks``: processes that work together, their values, and what the exit code says."""

import importlib.util
import io
import json
import pickle

import numpy as np
import pytest

from bench import sides
from bench.ranks import command, team
from bench.ranks.team import Team, TeamError
from bench.ranks.worker import Worker, serve
from bench.workloads import check_agreement, first_values, workloads

SERIES = {"W2": 2, "W3": 1}
W2 = next(each for each in workloads() if each.name == "W2")
EXPECTED = first_values(W2, sides.load("xpnet"))
HAS_MPI = importlib.util.find_spec("mpi4py") is not None
HAS_TORCH = sides.installed("torch")


def assert_right(members):
    """A team computes in a step what one process does, and goes on from there."""
    case = command.by_name(W2).case(members, members.ways("training", images=True)[0], dropout=False)
    case.step()
    check_agreement(W2, members.name, case.values(), EXPECTED)
    case.step()
    assert not np.array_equal(case.values()["update"], EXPECTED["update"])


def test_a_process_of_its_own_computes_the_same():
    with Team("one", "xpnet", 1, 1, SERIES) as members:
        assert_right(members)
        with pytest.raises(TeamError, match="one: process 0: StopIteration"):
            members.training("no workload", dropout=True)
        assert_right(members)
        processes = members._processes
    assert [process.poll() for process in processes] == [0]


@pytest.mark.skipif(not HAS_MPI, reason="mpi4py is not installed")
def test_two_ranks_compute_what_one_process_does():
    with Team("ranks", "ranks", 2, 1, SERIES) as members:
        assert_right(members)


@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")
def test_two_processes_of_pytorch_compute_the_same():
    with Team("ddp", "ddp", 2, 1, SERIES) as members:
        assert_right(members)


def test_a_process_that_ends_is_told(monkeypatch):
    monkeypatch.setattr(team, "WORKER", "no.such.module")
    with pytest.raises(TeamError, match="one: a process ended with 1"), Team("one", "xpnet", 1, 1, SERIES):
        raise AssertionError("it has started")


def test_a_process_that_is_killed_is_told():
    with Team("one", "xpnet", 1, 1, SERIES) as members:
        for process in members._processes:
            process.kill()
        with pytest.raises(TeamError, match="one: process 0 did not answer 'ways'"):
            members.ways("training", images=True)


def test_a_series_has_so_many_steps_only_with_dropout():
    counts = []

    class Counting(Worker):
        def steps(self, count):
            counts.append(count)

    class Local(Team):
        def _told(self, name, *arguments):
            return [getattr(Counting(sides.load("xpnet")), name)(*arguments)]

    local = Local("local", "xpnet", 1, 1, SERIES)
    for dropout in (True, False):
        local.training("W2", dropout).step()
    assert counts == [2, 1]


def test_errors_are_answers():
    class Failing(Worker):
        def ways(self):
            raise ValueError("expected nothing")

    asked = b"".join(pickle.dumps(each) for each in [("ways", ()), ("steps", ())])
    stream = io.BytesIO(asked)
    stream.seek(0)
    answers = io.BytesIO()

    class Both:
        read, readline, readinto = stream.read, stream.readline, stream.readinto
        write, flush = answers.write, answers.flush

    serve(Failing(sides.load("xpnet")), Both())
    answers.seek(0)
    assert pickle.load(answers) == (False, "ValueError: expected nothing")
    is_done, text = pickle.load(answers)
    assert not is_done
    assert text.startswith("TypeError: ")


def row(xpnet, one, ddp):
    times = {"xpnet": xpnet, command.ONE: one, command.DDP: ddp}
    rest = {
        "samples": 20,
        "discarded": 0,
        "disturbed": False,
        "steps_in_a_sample": 1,
        "way": "",
        "tried_ms": {"a": 40.0},
    }
    named = {name: {"ms": ms, "quartiles_ms": [0.9 * ms, ms], **rest} for name, ms in times.items() if ms}
    ratios = {name: xpnet / ms for name, ms in times.items() if ms and name != "xpnet"}
    return {"workload": "W2", "title": "W2", "threads": 2, "sides": named, "ratios": ratios}


@pytest.mark.parametrize(
    ("times", "code"),
    [((220, 200, 300), 0), ((221, 200, 300), 1), ((200, 200, 199), 1), ((200, 200, 200), 1), ((200, 200, None), 0)],
)
def test_the_exit_code_says_whether_the_ratios_are_kept(bench, monkeypatch, tmp_path, times, code):
    monkeypatch.setattr(command, "measured", lambda only, repeats, seconds: [row(*times)])
    result = bench("ranks", "--json", tmp_path / "figures.json")
    assert result.code == code
    assert "xpnet: two ranks of one thread" in result.out
    written = json.loads((tmp_path / "figures.json").read_text())["steps"][0]
    assert written["sides"]["xpnet"]["ms"] == times[0] / command.SERIES["W2"]
    assert written["sides"]["xpnet"]["tried_ms"] == {"a": 2.0}


def test_a_team_that_fails_is_one_line(bench, monkeypatch):
    def measured(only, repeats, seconds):
        raise TeamError("torch DDP: a process ended with 1")

    monkeypatch.setattr(command, "measured", measured)
    result = bench("ranks")
    assert (result.code, result.out, result.err) == (2, "", "Error: torch DDP: a process ended with 1\n")
