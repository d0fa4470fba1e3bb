"""Batches of programs' own and of other loaders train as a Loader's do."""

import numpy as np
import pytest

from backend import asarray, asnumpy, copy_to_host, random
from training import SGD, Loader, Trainer, TwoLayerNet
from training.data.batches import Batches
from training.data.one_epoch import OneEpoch
from training.loop import checkpoint
from training.loop.non_finite import NonFiniteError
from training.loop.rate_search import find_learning_rate

X = (np.random.default_rng(0).random((10, 4)) * 255).astype("uint8")
T = np.arange(10) % 3


class Collection:
    """What a torch DataLoader has: a length, a data set, and other objects for arrays."""

    class Tensor:
        def __init__(self, array):
            self.array = array

        def __array__(self, dtype=None, copy=None):
            return self.array

    def __init__(self, size=4):
        self.size, self.dataset, self.batch_size = size, X, size

    def __len__(self):
        return -(-len(X) // self.size)

    def __iter__(self):
        for first in range(0, len(X), self.size):
            part = slice(first, first + self.size)
            yield [self.Tensor(X[part]), self.Tensor(T[part])]


class Unreadable:
    """What a tensor of bfloat16 is to NumPy."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("bfloat16")


def pairs(size=4):
    return [(X[first : first + size], T[first : first + size]) for first in range(0, len(X), size)]


def trained(train, test):
    random.seed(0)
    trainer = Trainer(TwoLayerNet(4, 5, 3, 0.1), train, test, SGD(0.1), epochs=3)
    trainer.train()
    return asnumpy(trainer.network.params.flat), trainer


@pytest.mark.parametrize("make", [Collection, pairs])
def test_training_on_them_gives_the_bits_of_a_loader(device, make):
    expected, by_loader = trained(Loader(X, T, 4, shuffle=False), Loader(X, T, 4, shuffle=False))
    found, trainer = trained(make(), make())
    np.testing.assert_array_equal(found, expected)
    assert [(r.loss, r.test_accuracy) for r in trainer.history] == [
        (r.loss, r.test_accuracy) for r in by_loader.history
    ]


def test_arrays_of_the_device_are_taken_too(device):
    x, t = Batches([(asarray(X), asarray(T))]).batch(0, 0)
    assert (type(x), x.dtype, t.dtype) == (type(asarray(X)), "float32", "int32")


def test_images_lie_with_their_channels_last():
    ((x, _),) = Batches([(np.ones((2, 3, 4, 5), "float64"), np.zeros(2, int))]).epoch(0)
    assert x.dtype == "float32"
    assert x.transpose(0, 2, 3, 1).flags.c_contiguous


def test_an_epoch_can_be_begun_inside_and_batches_made_again():
    batches = Batches(pairs())
    whole = list(batches.epoch(0))
    np.testing.assert_array_equal(next(batches.epoch(0, 2))[0], whole[2][0])
    np.testing.assert_array_equal(batches.batch(0, 1)[0], whole[1][0])
    assert batches.indices(0, 2).tolist() == [8, 9]
    assert (len(batches), batches.largest_batch) == (3, 4)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (5, TypeError, "train must be a Loader, or"),
        (iter(pairs()), ValueError, r"train is an iterator \(list_iterator\), .* and epochs is 20: give epochs=1, or"),
        ((pair for pair in pairs()), ValueError, "train is an iterator"),
        ([], ValueError, "expected at least one batch"),
        ([X], TypeError, r"train: batch 0 must be a pair \(x, t\), got an array of uint8"),
        ([(Unreadable(), T)], TypeError, "train: batch 0 must be arrays that NumPy can read: bfloat16"),
        ([(X, T[:3])], ValueError, r"batch 0 must be x \(n, ...\) and t \(n,\)"),
    ],
)
def test_what_is_no_collection_of_batches_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        Trainer(TwoLayerNet(4, 5, 3), given, pairs(), SGD())


class Shuffled(Collection):
    """A loader that shuffles by a generator of its own, which is where its last pass left it."""

    def __init__(self, seed):
        super().__init__(2)
        self.generator = np.random.default_rng(seed)

    def __iter__(self):
        order = self.generator.permutation(len(X))
        return iter([[X[part], T[part]] for part in np.split(order, 5)])


def stopped(train, step):
    """Return a trainer that Ctrl-C has ended inside of a step, and the samples of its steps so far."""
    random.seed(0)
    trainer, seen = Trainer(TwoLayerNet(4, 5, 3, 0.1), train, pairs(), SGD(0.1), epochs=2), []
    right = trainer._train_step

    def interrupt(x, t):
        if len(seen) == step and not interrupt.done:
            interrupt.done = True
            raise KeyboardInterrupt
        right(x, t)
        seen.append((trainer.position, asnumpy(x).tobytes()))

    interrupt.done = False
    trainer._train_step = interrupt
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    return trainer, seen


@pytest.mark.parametrize("step", [0, 1, 3, 5, 7])
def test_a_run_that_is_interrupted_goes_on_with_the_pass_under_way(step):
    trainer, seen = stopped(Shuffled(1), step)
    trainer.train()
    assert [place for place, _ in seen] == [(epoch, batch) for epoch in (0, 1) for batch in range(5)]
    for epoch in (seen[:5], seen[5:]):  # every sample once in each
        rows = b"".join(x for _, x in epoch)
        assert sorted(np.frombuffer(rows, "float32")) == sorted((X / np.float32(255)).ravel())


def test_a_checkpoint_inside_an_epoch_is_gone_on_from_where_the_order_is_the_same(tmp_path):
    file = tmp_path / "step-00000003.safetensors"

    def made(train):
        random.seed(0)
        return Trainer(TwoLayerNet(4, 5, 3, 0.1), train, pairs(), SGD(0.1), epochs=1)

    undisturbed, run = made(Shuffled(1)), made(Shuffled(1))
    undisturbed.train()
    steps = run.steps(1)
    for _ in range(3):
        next(steps)
    checkpoint.save(run, file)
    again, other = made(Shuffled(1)), made(Shuffled(2))
    again.resume(file)
    again.train()
    np.testing.assert_array_equal(asnumpy(again.network.params.flat), asnumpy(undisturbed.network.params.flat))
    other.resume(file)
    before = other.network.params.flat.copy()
    with pytest.raises(ValueError, match="batch 2 of epoch 1 is not the one before the interruption: Batches"):
        other.train()
    np.testing.assert_array_equal(asnumpy(other.network.params.flat), asnumpy(before))


def test_mistakes_in_a_batch_are_named():
    wrong = [*pairs(), (X[:2], np.array([0, 7]))]
    with pytest.raises(ValueError, match="batch 3: label 7 at index 1 is out of range: expected 0 to 2"):
        Trainer(TwoLayerNet(4, 5, 3), wrong, pairs(), SGD()).train()
    bad = X[:4] / np.float32(255)
    bad[2, 1] = np.nan
    with pytest.raises(NonFiniteError, match="sample 2"):
        Trainer(TwoLayerNet(4, 5, 3), [(bad, T[:4])], pairs(), SGD()).train()


def once(*steps, count=None):
    """Return a generator of the pairs, which tells the steps at which it was asked for a batch."""
    for number, pair in enumerate(pairs()[:count]):
        for taken in steps:
            taken.append(number)
        yield pair


def one_epoch(train, test=None):
    random.seed(0)
    return Trainer(TwoLayerNet(4, 5, 3, 0.1), train, test or pairs(), SGD(0.1), epochs=1)


def bits(trainer):
    return asnumpy(trainer.network.params.flat).tobytes()


def test_a_generator_is_one_epoch_of_the_same_bits(device):
    expected, trainer = one_epoch(pairs()), one_epoch(once())
    expected.train()
    assert len(trainer.train()) == 1
    assert (trainer.step, trainer.samples, bits(trainer)) == (3, 10, bits(expected))
    assert trainer.history[0].loss == expected.history[0].loss
    assert trainer.train() is trainer.history  # nothing is left to do
    single = one_epoch(once(count=1))
    assert (len(single.train()), single.step) == (1, 1)


def test_a_generator_is_never_more_than_two_batches_ahead():
    asked = []
    trainer = one_epoch(once(asked))
    steps = trainer.steps(1)
    assert asked == [0]
    for step in (1, 2, 3):
        next(steps)
        assert len(asked) == min(step + 1, 3)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_an_interrupted_generator_goes_on_with_the_batch_under_way(step):
    expected = one_epoch(pairs())
    expected.train()
    random.seed(0)
    trainer = one_epoch(once())
    right = trainer._train_step

    def interrupt(x, t):
        if trainer.step == step:
            trainer._train_step = right
            raise KeyboardInterrupt
        right(x, t)

    trainer._train_step = interrupt
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert (trainer.step, trainer.history) == (step, [])
    trainer.train()
    assert (trainer.step, bits(trainer)) == (3, bits(expected))


def test_a_checkpoint_goes_on_with_a_generator_that_yields_the_same_again(tmp_path):
    file = tmp_path / "step-00000002.safetensors"
    expected, run = one_epoch(pairs()), one_epoch(once())
    expected.train()
    steps = run.steps(1)
    for _ in range(2):
        next(steps)
    checkpoint.save(run, file)
    again = one_epoch(once())
    again.resume(file)
    again.train()
    assert (again.step, bits(again)) == (3, bits(expected))
    for other, message in (
        (iter([pairs()[1], pairs()[0], pairs()[2]]), "batch 1 of epoch 1 is not the one before the interruption"),
        (once(count=1), "expected 2 batches in an epoch, got 1"),
    ):
        trainer = one_epoch(other)
        trainer.resume(file)
        before = bits(trainer)
        with pytest.raises(ValueError, match=message):
            trainer.train()
        assert bits(trainer) == before


def test_a_generator_that_is_used_up_says_so():
    with pytest.raises(TypeError, match="test must be a Loader, or"):
        one_epoch(pairs(), once())
    trainer = one_epoch(once())
    with pytest.raises(ValueError, match="would use up the batches of OneEpoch"):
        find_learning_rate(trainer)
    trainer.train()
    trainer.total_epochs = 2
    before = bits(trainer)
    with pytest.raises(ValueError, match="has no batches for a new epoch: an iterator can be gone through once"):
        trainer.train()
    assert (bits(trainer), trainer.step) == (before, 3)
    with pytest.raises(ValueError, match="expected at least one batch"):
        one_epoch(once(count=0))
    loader = OneEpoch(once())
    list(loader.epoch(0))
    with pytest.raises(LookupError, match="batch 0 of epoch 1 came once, and is gone"):
        loader.batch(0, 0)
    assert loader.batch(0, 2)[0].shape == (2, 4)


def test_not_a_number_in_a_batch_that_is_gone_is_reported_without_its_sample():
    bad = X[:4] / np.float32(255)
    bad[2, 1] = np.nan
    with pytest.raises(NonFiniteError, match="sample 2"):
        one_epoch(iter([(bad, T[:4])])).train()
    trainer = one_epoch(once())
    list(trainer.steps(1))
    watch = trainer.callbacks[0]
    watch._losses.append((0, 0, 0, copy_to_host(asarray(np.float32("nan")))))
    with pytest.raises(NonFiniteError, match=r"is nan at step 1 .*; batch 0 of epoch 1 came once, and is gone"):
        watch._check_losses(trainer, wait=True)
