"""Two ranks with a GPU each, whose gradients NCCL sums, eagerly and in captured graphs."""

import importlib.util

import numpy as np
import pytest

import backend
from tests.training.distributed import on_gpus
from tests.training.distributed.launch import finished, results_of, started

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def two():
    if importlib.util.find_spec("cuda_on_cpu") is None and len(backend.inspect_cuda().gpus) < 2:
        pytest.skip("two ranks need two GPUs, or an emulated one for each")
    return results_of(2, module="tests.training.distributed.on_gpus", XPNET_DEVICE="cuda")


@pytest.mark.parametrize("name", on_gpus.NAMES)
def test_graphs_have_the_bits_of_eager_steps(two, name):
    by_graph, eager = two[name]
    assert by_graph["graphs"]
    assert by_graph["refusal"] == ""
    assert by_graph["bits"] == eager["bits"]
    assert by_graph["history"] == eager["history"]


@pytest.mark.parametrize("name", on_gpus.NAMES)
def test_mpi_sums_the_same_bits_where_a_rank_has_no_nccl(two, name):
    """In the host's memory, and eagerly; said once a training."""
    found, expected = two["without NCCL"][name], two[name][0]
    assert (found["graphs"], found["refusal"]) == (0, None)
    assert found["bits"] == expected["bits"]
    assert found["history"] == expected["history"]
    assert len(two["said"]) == len(on_gpus.NAMES)
    assert all(
        said.startswith("CuPy finds no NCCL on rank 1: gradients are summed by MPI in the host") for said in two["said"]
    )


@pytest.mark.parametrize("name", ["plain", "normalized"])
def test_two_ranks_have_the_bits_of_one_gpu_with_the_same_parts(two, name):
    with backend.use("cuda"):
        expected = on_gpus.trained(None, name, parts=2)
    assert two[name][0]["bits"] == expected["bits"]


def test_synchronized_statistics_are_those_of_the_whole_batch(two):
    with backend.use("cuda"):
        expected = on_gpus.trained(None, "synchronized")
    found = two["synchronized"][0]
    np.testing.assert_allclose(found["parameters"], expected["parameters"], rtol=0, atol=1e-5)
    for name, values in expected["state"].items():
        np.testing.assert_allclose(found["state"][name], values, rtol=1e-5, atol=1e-6)


def test_gpus_that_wait_for_a_rank_end_with_its_name(two, tmp_path):
    """NCCL itself would wait without end."""
    rows = ["a,b,kind", *(f"{row % 7},{row % 5},{'xy'[row % 2]}" for row in range(60))]
    (tmp_path / "table.csv").write_text("\n".join(rows))
    arguments = ["train", "--data", tmp_path / "table.csv", "--batch-size", 5, "--out", tmp_path / "run"]
    variables = {"FAULT": "hang 1", "XPNET_RANKS_TIMEOUT": "2", "XPNET_DEVICE": "cuda"}
    code, _, err = finished(started(2, *arguments, module="tests.training.distributed.command", **variables))
    assert code != 0
    assert err.count("Error: ") == 1
    assert "Error: rank 0 of 2: rank 1 did not go on for 2 s, as the GPUs summed gradients; all ranks end" in err
