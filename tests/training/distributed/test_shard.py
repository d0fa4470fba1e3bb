"""The shares of a loader's batches that ranks get: disjoint, complete, and in the order of the whole."""

import numpy as np
import pytest

from layers import Convolution, Sequential
from training import Loader, Network
from training.data.as_loader import as_loader
from training.data.augment import Augmentation
from training.data.batches import Batches
from training.distributed.shard import Shard

SAMPLES = 53


def images(augment=None, batch=12):
    pictures = np.random.default_rng(0).integers(0, 255, (SAMPLES, 1, 6, 6), "uint8")
    changes = None if augment is None else Augmentation([augment], 4, SAMPLES)
    return Loader(pictures, np.arange(SAMPLES) % 4, batch, seed=5, augment=changes)


def collection():
    return Batches([(np.full((size, 3), size, "float32"), np.arange(size) % 2) for size in (6, 6, 2)])


LOADERS = {
    "plain": images,
    "a change of each": lambda: images("crop"),
    "a change that mixes": lambda: images("mixup"),
    "a last batch of one": lambda: images(batch=13),
    "batches from elsewhere": collection,
}


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_shards_are_the_whole(name, ranks):
    """In the second epoch from the second batch on, too."""
    for epoch, first in ((0, 0), (1, 1)):
        whole = list(LOADERS[name]().epoch(epoch, first))
        shards = [Shard(LOADERS[name](), rank, ranks) for rank in range(ranks)]
        parts = []
        for shard in shards:
            assert len(shard) == len(shard.whole)
            assert shard.identity() == shard.whole.identity()
            taken = []
            for index, (x, t) in enumerate(shard.epoch(epoch, first), first):
                rows = shard.rows(index)
                assert (rows.size, rows.whole) == (len(t), len(whole[index - first][1]))
                assert len(t) <= shard.largest_batch
                again = shard.batch(epoch, index)
                np.testing.assert_array_equal(again[0], x)
                taken.append((x, t))
            parts.append(taken)
        for index, (x, t) in enumerate(whole):
            np.testing.assert_array_equal(np.concatenate([taken[index][0] for taken in parts]), x)
            np.testing.assert_array_equal(np.concatenate([taken[index][1] for taken in parts]), t)


@pytest.mark.parametrize("ranks", [2, 3])
def test_indices_name_the_samples_of_the_data_set(ranks):
    for rank in range(ranks):
        shard = Shard(images(), rank, ranks)
        for index, (x, _) in enumerate(shard.epoch(0)):
            for place, sample in enumerate(shard.indices(0, index)):
                np.testing.assert_array_equal(x[place], shard.sample(sample) / np.float32(255))


def test_only_its_own_samples_are_read():
    shard, seen = Shard(images(), 1, 2), []
    gather = shard._blocks._gather
    shard._blocks._gather = lambda indices, x, t: (seen.extend(indices), gather(indices, x, t))
    for _ in shard.epoch(0):
        pass
    assert len(seen) == 24 + 3


def test_a_share_is_of_a_loader_that_was_made_for_its_network():
    """As `find_learning_rate` gives it to a trainer of its own."""
    network = Network(Sequential(Convolution.of(1, 2, 3, pad=1)), (1, 4, 4))
    batches = [(np.zeros((4, 1, 4, 4), "float32"), np.ones((4, 4, 4), "int32"))] * 2
    share = Shard(as_loader("train", batches, network), 1, 2)
    assert as_loader("train", share, network) is share
    assert [t.shape for _, t in share.epoch(0)] == [(2, 4, 4)] * 2
