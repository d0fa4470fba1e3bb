"""Two, three and four ranks, by real mpirun, compute what one process computes with the same batches."""

import numpy as np
import pytest

from tests.training.distributed import program
from tests.training.distributed.launch import finished, results_of, started

EPS = float(np.finfo("float32").eps)
OF_FOUR = ("plain", "odd", "synchronized")
FEW = 1e-5
"""Parameters of eight steps of Adam differ by less, where sums are rounded in another order."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def two(folder):
    return results_of(2, folder / "two")


@pytest.fixture(scope="module")
def three(folder):
    return results_of(3, folder / "three")


@pytest.fixture(scope="module")
def four(folder):
    return results_of(4, folder / "four", *OF_FOUR)


def alone(name, ranks, **more):
    """Return the outcome of one process with the same parts of the same batches."""
    own = {"parts": ranks * program.RUNS[name].get("parts", 1), "compress": "none"}
    return program.trained(None, name, **{**own, **more})


@pytest.mark.parametrize("name", ["plain", "normalized", "odd", "half", "clipped"])
def test_two_ranks_have_the_bits_of_one_process_with_the_same_parts(two, name):
    """Dropout, the last batch of two samples and the evaluation among them."""
    expected = alone(name, 2)
    assert two[name]["bits"] == expected["bits"]
    assert (two[name]["samples"], two[name]["position"]) == (expected["samples"], expected["position"])
    if name != "normalized":  # whose running statistics are the mean of the ranks'
        assert two[name]["history"] == expected["history"]


@pytest.mark.parametrize(
    ("ranks", "name"),
    [
        *((ranks, name) for ranks in (2, 3) for name in ("plain", "odd", "accumulated", "clipped", "synchronized")),
        *((4, name) for name in OF_FOUR),
    ],
)
def test_ranks_compute_what_one_process_computes_with_whole_batches(request, ranks, name):
    """Within rounding: masks of dropout, shuffles, means and results. A rank has no sample of the last batch."""
    found, expected = request.getfixturevalue({2: "two", 3: "three", 4: "four"}[ranks])[name], alone(name, 1, parts=1)
    np.testing.assert_allclose(found["parameters"], expected["parameters"], rtol=0, atol=FEW)
    assert (found["samples"], found["position"]) == (expected["samples"], expected["position"])
    for result, other in zip(found["history"], expected["history"], strict=True):
        assert result["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert result["test_loss"] == pytest.approx(other["test_loss"], rel=1e-5)
        assert result["accuracy"] == other["accuracy"]
        assert result["metrics"]["confusion"] == other["metrics"]["confusion"]
    for statistic, values in expected["state"].items():
        np.testing.assert_allclose(found["state"][statistic], values, rtol=1e-5, atol=1e-6)


def test_running_statistics_are_the_mean_of_the_ranks(two):
    """Those of two processes that each see their rows alone, and average after each step."""
    names = two["normalized"]["state"]
    expected = alone("normalized", 2)["state"]
    for name, values in names.items():
        assert not np.array_equal(values, expected[name])  # one process takes two steps of them
        assert np.isfinite(values).all()


@pytest.mark.parametrize("name", ["compressed", "compressed, odd"])
def test_compressed_gradients_are_near(two, name):
    """Also where one rank has four samples and the other five: both divide by the same power of two."""
    found, exact = two[name], alone(name, 2)
    assert found["bits"] != exact["bits"]
    np.testing.assert_allclose(found["parameters"], exact["parameters"], rtol=0, atol=0.03)


def test_ranks_train_networks_of_steps(two):
    """float16 gradients are divided by the number of labels, not of samples: no step is skipped."""
    expected = program.of_steps(None, parts=2)
    assert two["steps"]["bits"] == expected["bits"]
    assert two["steps"]["history"] == expected["history"]
    found = two["steps, compressed"]
    assert found["bits"] != expected["bits"]
    assert [result["skipped_steps"] for result in found["history"]] == [0, 0]
    np.testing.assert_allclose(found["parameters"], expected["parameters"], rtol=0, atol=0.01)


@pytest.mark.parametrize("ranks", ["two", "three"])
def test_a_run_goes_on_to_the_same_bits(request, ranks):
    found = request.getfixturevalue(ranks)
    assert found["saved"]["bits"] == found["plain"]["bits"]
    assert found["resumed"]["bits"] == found["plain"]["bits"]
    assert found["resumed"]["history"] == found["plain"]["history"]


def test_a_run_goes_on_with_another_number_of_ranks(two, three, folder):
    """One process, with the parts of two ranks, goes on with what two began: to the same bits."""
    assert program.resumed(None, folder / "two", parts=2)["bits"] == two["plain"]["bits"]
    found = program.resumed(None, folder / "three", parts=2)
    np.testing.assert_allclose(found["parameters"], three["plain"]["parameters"], rtol=0, atol=FEW)


def test_sums(two, three):
    for ranks, found in ((2, two["sums"]), (3, three["sums"])):
        each = [np.float32(1 + rank * 1e-3) * np.arange(1, 6, dtype="float32") for rank in range(ranks)]
        np.testing.assert_allclose(found["float32"], np.sum(each, axis=0), rtol=ranks * EPS)
        halves = np.sum([one.astype("float16").astype("float32") for one in each], axis=0)
        np.testing.assert_allclose(found["float16"], halves, rtol=ranks * float(np.finfo("float16").eps))
        assert found["gathered"] == list(range(ranks))


def test_ranks_share_the_batches_of_a_generator_and_of_a_list(two, three):
    """The last batch has fewer samples than there are ranks."""
    for name, given, epochs in (("generator", program.batches(), 1), ("list", list(program.batches()), 2)):
        expected = program.of_batches(None, given, parts=2, epochs=epochs)
        assert two[name]["bits"] == expected["bits"]
        assert two[name]["history"] == expected["history"]
        assert (three[name]["samples"], three[name]["position"]) == (expected["samples"], expected["position"])
        np.testing.assert_allclose(three[name]["parameters"], expected["parameters"], rtol=0, atol=FEW)


@pytest.mark.parametrize("ranks", ["two", "three"])
def test_batches_that_differ_are_refused_on_all_ranks(request, ranks):
    """Instead of a wait for the rank whose batches have ended, or a silent training on other samples."""
    fewer, other, shorter, of_list = request.getfixturevalue(ranks)["other batches"]
    assert fewer == ("rank 1 has another number of batches after batch 3 of epoch 1 than rank 0: expected 1, got 0")
    assert "rank 1 has another checksum of batch 1 of epoch 1 than rank 0: expected " in other
    assert shorter == ("rank 1 has another number of samples in batch 2 of epoch 1 than rank 0: expected 9, got 4")
    assert "rank 1 has another training data than rank 0: expected {'batches': 4}, got {'batches': 3}" in of_list


@pytest.mark.parametrize("ranks", ["two", "three"])
def test_ranks_that_differ_are_refused_on_all_of_them(request, ranks):
    data, optimizer = request.getfixturevalue(ranks)["refusals"]
    assert "rank 1 has another training data than rank 0: expected {'inputs': " in data
    assert "rank 1 has another optimizer than rank 0: expected Momentum(lr=0.1" in optimizer
    diverged = request.getfixturevalue(ranks)["diverged"]
    assert "rank 1 has other parameters than rank 0 after step 1: its processor or its libraries compute" in diverged


@pytest.mark.parametrize(("ranks", "rank"), [("two", 1), ("three", 1)])
def test_the_rank_with_the_sample_that_is_not_finite_is_named(request, ranks, rank):
    """Sample 41 of batches of 16 is the tenth of the third batch."""
    said = request.getfixturevalue(ranks)["not finite"]
    assert "the loss is nan at step 3 (epoch 1, batch 3 of 4)" in said
    assert f"is in rank {rank}, the input: sample 41 of the training data has nan at (2,)" in said


@pytest.mark.parametrize("rank", [0, 1])
def test_an_exception_that_a_program_does_not_handle_ends_all_ranks(rank):
    code, _, err = finished(started(2, "raise", rank))
    assert code != 0
    assert err.count("RuntimeError: a bug of this program\n") == 1
    assert err.count(f"Error: rank {rank} of 2: RuntimeError; all ranks end\n") == err.count("Error: rank") == 1
