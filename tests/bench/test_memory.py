from pathlib import Path

import pytest

from bench import memory, sides
from bench.workloads import workloads

W3 = next(each for each in workloads() if each.name == "W3")
XPNET, TEXTBOOK = sides.load("xpnet"), sides.load("textbook")


@pytest.fixture(autouse=True)
def root_first(monkeypatch):
    """The processes must find the bench, which is not installed."""
    monkeypatch.chdir(Path(__file__).parents[2])
    memory._peak.cache_clear()


def test_the_columns_of_the_textbook_are_seen():
    row = memory.measure_memory(W3, [XPNET, TEXTBOOK], 1)
    taken = {name: figures["mib"] for name, figures in row["sides"].items()}
    columns = 128 * 28 * 28 * 16 * 9 * 4 / 2**20  # of the second convolution
    assert taken["textbook"] > columns
    assert 0 < taken["xpnet"] < taken["textbook"]
    assert row["ratios"] == {"textbook": taken["xpnet"] / taken["textbook"]}
    assert row["by"] == memory.by()


def test_without_the_time_command_it_is_much_the_same(monkeypatch):
    ways = []
    for command in (memory._time_command(), None):
        monkeypatch.setattr(memory, "_time_command", lambda command=command: command)
        memory._peak.cache_clear()
        ways.append(memory._peak("xpnet", memory.BASELINE, "", 1))
    assert memory.by() == "getrusage(RUSAGE_CHILDREN)"
    assert ways[0] == pytest.approx(ways[1], rel=0.1)


def test_a_process_that_fails_tells_why():
    with pytest.raises(RuntimeError, match=r"(?s)ended with 1.*NoSuchSide"):
        memory._peak("NoSuchSide", "W3", "", 1)
