"""The text's table of accuracies, row by row, and its gradient check."""

import numpy as np
import pytest

import backend
from backend import asarray, asnumpy, random
from examples import two_layer_net
from examples.common import both_gradients, load_digits, mini_batches
from examples.two_layer_net import TEXT, accuracies, differences, main
from tests.support.example_checks import error_of, output_of
from training.models import TwoLayerNet


def test_backpropagated_and_numerical_gradient_are_one_to_1e_8():
    train, _ = load_digits("mnist10k")
    found = differences(train, hidden_size=10)  # the whole network takes 10 s
    assert list(found) == ["W1", "b1", "W2", "b2"]
    assert max(found.values()) < 1e-8
    assert min(found.values()) > 0  # two ways, not one


@pytest.mark.data
def test_so_they_are_in_the_text_s_network(data_dir):
    train, _ = load_digits("mnist", data_dir)
    assert max(differences(train).values()) < 1e-8


def test_gradients_of_a_small_network_on_every_device(device):
    network = TwoLayerNet(6, 3, 2, weight_init_std=0.5, dtype="float64")
    x, t = random.normal((3, 6), dtype="float64"), asarray(np.array([0, 1, 1]))
    for backward, numerical in both_gradients(network, x, t).values():
        np.testing.assert_allclose(backward, numerical, atol=1e-8, rtol=0)


def test_a_permutation_deals_out_every_sample_once_and_replacement_does_not(device):
    once = asnumpy(mini_batches(60, 20, replace=False))
    assert once.shape == (3, 20)
    assert sorted(once.ravel()) == list(range(60))
    drawn = asnumpy(mini_batches(60, 20, steps=50))
    assert drawn.shape == (50, 20)
    counts = np.bincount(drawn.ravel(), minlength=60)
    assert len(counts) == 60  # 0 … 59, nothing beyond
    assert counts.min() < counts.max()
    # Each count is binomial with 1000 draws of chance 1/60: 16.7 ± 4.0; all within five standard deviations.
    assert abs(counts - 1000 / 60).max() < 20


@pytest.mark.gpu
def test_draws_are_the_same_on_both_devices():
    drawn = []
    for name in ("cpu", "cuda"):
        with backend.use(name):
            random.seed(3)
            drawn.append([asnumpy(mini_batches(60, 20, replace=replace)) for replace in (True, False)])
    assert all(np.array_equal(*pair) for pair in zip(*drawn, strict=True))


@pytest.mark.data
def test_accuracies_lie_within_a_hundredth_of_the_text_s(data_dir):
    rows = np.array(list(accuracies(*load_digits("mnist", data_dir))))
    assert rows.shape == (18, 2)  # the start and 17 epochs; the text's table has the start and 16
    assert rows[0] == pytest.approx(0.1, abs=0.03)  # ten classes, nothing learned
    # Text and we differ in every random number. By the binomial law an accuracy of 10,000 images has a standard
    # deviation of 0.002 to 0.003 here: 0.01 is about four of them.
    np.testing.assert_allclose(rows[1:17], TEXT[1:], atol=0.01, rtol=0)


@pytest.mark.data
def test_without_replacement_it_learns_as_well(data_dir):
    rows = list(accuracies(*load_digits("mnist", data_dir), epochs=6, replace=False))
    # The text's table is of the other way of sampling; in its second epoch this one is a little ahead of it.
    np.testing.assert_allclose(rows[1:], TEXT[1:7], atol=0.015, rtol=0)


def test_prints_our_table_and_the_text_s_beside_it_for_its_data_only(monkeypatch):
    monkeypatch.setattr(two_layer_net, "differences", lambda train: {"W1": 2e-13})
    out = output_of(main, "--dataset", "mnist10k", "--epochs", 2, "--sampling", "permutation")
    header, *rows = out.splitlines()[2:]
    assert "W1: 2.0e-13" in out
    assert header.split() == ["epoch", "training", "test"]
    table = np.array([row.split() for row in rows], float)
    assert table[:, 0].tolist() == [0, 1, 2]
    assert table[0, 1] < 0.2 < 0.5 < table[1, 1] < table[2, 1]


def test_a_folder_without_the_data_is_one_clear_line(tmp_path):
    assert f"{tmp_path}: lacks train-images" in error_of(main, "--data-dir", tmp_path)
