"""The host's cost of a training step on a GPU."""

import json

import pytest

from backend import inspect_cuda
from bench import host


@pytest.mark.parametrize(
    ("calls", "launches", "complaints"),
    [
        (110, 11, []),
        (80, 5, []),
        (110, None, []),  # a GPU without CUPTI
        (111, 11, ["a: expected at most 1.1 times 100 calls a step, got 111"]),
        (110, 12, ["a: expected at most 1.1 times 10 launches a step, got 12"]),
    ],
)
def test_counts_may_grow_by_a_tenth(calls, launches, complaints):
    assert host.growth({"a": host.Step(calls, launches)}, {"a": {"calls": 100, "launches": 10}}) == complaints


def test_calls_by_graph_may_grow_by_a_tenth():
    table = {"a": {"calls": 1, "launches": 1, "graph_calls": 20}}
    assert host.growth({"a": host.Step(1, 1, graph_calls=22)}, table) == []
    assert host.growth({"a": host.Step(1, 1, graph_calls=23)}, table) == [
        "a: expected at most 1.1 times 20 calls by graph a step, got 23"
    ]


def test_a_model_that_is_not_in_the_table_is_said():
    assert host.growth({"a": host.Step(1, 2)}, {}) == [
        "a: calls are not in host.json; --write adds them",
        "a: launches are not in host.json; --write adds them",
    ]


def test_the_table_has_every_model():
    table = json.loads(host.TABLE.read_text(encoding="utf-8"))
    assert list(table) == list(host.MODELS)
    assert all(table[model]["calls"] > table[model]["launches"] > 0 for model in table)
    assert all(table[model]["graph_calls"] <= 100 for model in table), "a step by graph is one launch"


def test_resnet20_has_the_parameters_of_the_paper():
    network, _ = host.MODELS["ResNet-20"]()
    # 0.27 million in the paper, whose shortcuts have none; two of them here have filters, 16 x 32 and 32 x 64.
    weights = sum(array.size for name, array in network.params.items() if name.startswith("W"))
    assert weights == 432 + 6 * 2304 + 4608 + 5 * 9216 + 18432 + 5 * 36864 + 16 * 32 + 32 * 64 + 640


@pytest.mark.skipif(inspect_cuda().usable, reason="there is a GPU")
def test_without_a_gpu_the_command_says_so_in_a_line(bench):
    result = bench("host", "--model", "TwoLayerNet")
    assert result.code == 2
    assert result.err.startswith("Error: cuda:0 cannot be used: ")
    assert len(result.err.splitlines()) == 1


@pytest.mark.gpu
def test_a_step_is_counted_and_timed(bench, tmp_path):
    file = tmp_path / "host.json"
    result = bench("host", "--model", "TwoLayerNet", "--batch", 4, "--samples", 3, "--json", file)
    assert result.code == 0, result.err
    results = json.loads(file.read_text(encoding="utf-8"))
    step = results["steps"]["TwoLayerNet"]
    assert step["calls"] > 0
    assert 0 < step["enqueue_us"] <= step["synchronized_us"]
    assert step["enqueue_us"] <= step["median_us"]
    assert 0 < step["graph_calls"] < step["calls"]
    assert step["graph_us"] > 0
    if step["products"] is not None:  # the device counts
        assert step["launches"] > step["products"] == 5
    assert "TwoLayerNet" in result.out


@pytest.mark.gpu
def test_check_ends_with_exit_code_1_where_calls_have_grown(bench, monkeypatch, tmp_path):
    table = tmp_path / "table.json"
    table.write_text("{}", encoding="utf-8")
    monkeypatch.setattr(host, "TABLE", table)
    chosen = ("host", "--model", "TwoLayerNet", "--batch", 4)
    assert bench(*chosen, "--check").code == 1
    assert bench(*chosen, "--write").code == 0
    assert bench(*chosen, "--check").code == 0
    counts = json.loads(table.read_text(encoding="utf-8"))
    counts["TwoLayerNet"]["calls"] //= 2
    table.write_text(json.dumps(counts), encoding="utf-8")
    result = bench(*chosen, "--check")
    assert result.code == 1
    assert "calls a step, got" in result.err
