"""Splits are disjoint, stratified, and the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data import Data, DataError, Samples
from training.data.splits import split

labels_of_any_counts = st.lists(st.integers(0, 40), min_size=1, max_size=6).map(
    lambda counts: np.repeat(np.arange(len(counts)) * 3 - 4, counts)
)
shares = st.floats(0.001, 0.999)
seeds = st.integers(0, 2**64 - 1)


@given(labels_of_any_counts, shares, seeds)
def test_every_sample_is_in_one_part_and_classes_have_their_share(labels, share, seed):
    order = np.random.default_rng(0).permutation(len(labels))
    labels = labels[order]
    rest, taken = split(labels, len(labels), share, seed)
    assert sorted([*rest, *taken]) == list(range(len(labels)))
    assert (np.diff(rest) > 0).all()
    assert (np.diff(taken) > 0).all()
    for label in np.unique(labels):
        count, chosen = (labels == label).sum(), (labels[taken] == label).sum()
        assert abs(chosen - share * count) < 1 + 1e-9
        assert chosen < count
    if all((labels == label).sum() * (1 - share) >= 1 for label in np.unique(labels)):
        assert abs(len(taken) - share * len(labels)) <= 0.5 + 1e-9
    again = split(labels, len(labels), share, seed)
    np.testing.assert_array_equal(again[1], taken)


@given(st.integers(0, 100), shares, seeds)
def test_without_labels(count, share, seed):
    rest, taken = split(None, count, share, seed)
    assert sorted([*rest, *taken]) == list(range(count))
    assert count == 0 or abs(len(taken) - share * count) <= 1


def test_seeds_differ():
    parts = [tuple(split(np.zeros(100, int), 100, 0.5, seed)[1]) for seed in range(20)]
    assert len(set(parts)) == 20


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan"), 2])
def test_bad_shares_are_refused(share):
    with pytest.raises(ValueError, match="share must be a finite number"):
        split(None, 10, share)


def data(count=100, kind="classification"):
    targets = np.arange(count) % 2 if kind == "classification" else np.linspace(0, 1, count, dtype="float32")
    return Data(
        "d", kind, ("a", "b") if kind == "classification" else (), Samples(np.arange(count)[:, None] / 7, targets)
    )


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_both_parts_are_shares_of_all_samples(kind):
    whole = data(kind=kind)
    parts = whole.with_parts(val=0.1, test=0.2, seed=5)
    assert {name: len(part) for name, part in parts.parts.items()} == {"train": 70, "val": 10, "test": 20}
    seen = np.concatenate([part.inputs[:, 0] for part in parts.parts.values()])
    np.testing.assert_array_equal(np.sort(seen), whole.train.inputs[:, 0])
    assert parts.with_parts(val=0.5).val is parts.val  # a part that is there stays
    assert whole.with_parts(val=None).val is None


def test_a_share_that_leaves_nothing_is_refused():
    with pytest.raises(DataError, match=r"a share of 0\.001 of 100 samples leaves 100 to train and 0 to validate"):
        data().with_parts(val=0.001)
    with pytest.raises(DataError, match="leaves 1 to train and 0 to test"):
        data(1).with_parts(val=None, test=0.5)
