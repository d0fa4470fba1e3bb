"""Predictions over a data set: against plain loops, and against the trainer's own evaluation."""

import numpy as np
import pytest

import backend
from training.data import Loader
from training.loop.evaluation import Predictions, evaluate, predict
from training.loop.trainer import Trainer
from training.models import SimpleConvNet
from training.optim import optimizers


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), size=60).astype(np.float32)
    labels = rng.integers(0, 3, size=60)  # no sample of the last class
    return Predictions(1.5, labels, probabilities.argmax(axis=1), probabilities)


def test_confusion_counts_pairs_of_label_and_prediction(predictions):
    expected = np.zeros((4, 4), int)
    for label, predicted in zip(predictions.labels, predictions.predicted, strict=True):
        expected[label, predicted] += 1
    assert np.array_equal(predictions.confusion(), expected)
    assert predictions.correct == sum(expected[i, i] for i in range(4))
    assert predictions.accuracy == predictions.correct / 60


def test_worst_mistakes_believe_least_in_the_right_class(predictions):
    believed = {
        index: predictions.probabilities[index, label]
        for index, label in enumerate(predictions.labels)
        if predictions.predicted[index] != label
    }
    expected = sorted(believed, key=believed.__getitem__)
    assert predictions.worst_mistakes(1000).tolist() == expected
    assert predictions.worst_mistakes(5).tolist() == expected[:5]


def test_equally_bad_mistakes_keep_their_order():
    certain = np.eye(2, dtype=np.float32)[[0, 1, 0, 1]]
    labels = np.array([1, 1, 1, 0])
    assert Predictions(0.0, labels, certain.argmax(axis=1), certain).worst_mistakes(9).tolist() == [0, 2, 3]


def test_predict_agrees_with_the_trainer_to_the_last_bit(device):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (50, 1, 12, 12), dtype=np.uint8)
    labels = rng.integers(0, 10, 50)
    network = SimpleConvNet((1, 12, 12), hidden_size=20, weight_init_std="he")
    samples = Loader(images, labels, 16, shuffle=False)
    result = predict(network, samples)
    evaluated = Trainer(network, samples, samples, optimizers.SGD()).evaluate(samples)
    assert (result.loss, result.accuracy) == (evaluated.loss, evaluated.accuracy)
    x = backend.asarray(images.astype(np.float32) / 255)
    scores = backend.asnumpy(network.predict(x)).astype(np.float64)
    softmax = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert np.array_equal(result.labels, labels)
    np.testing.assert_allclose(result.probabilities, softmax, rtol=1e-4, atol=1e-7)
    assert np.array_equal(result.predicted, scores.argmax(axis=1))
    assert all(isinstance(array, np.ndarray) for array in (result.labels, result.predicted, result.probabilities))


def test_batches_of_a_program_are_evaluated_as_a_loader_is(device):
    rng = np.random.default_rng(2)
    x, t = rng.random((50, 1, 12, 12), dtype="float32"), rng.integers(0, 10, 50)
    network = SimpleConvNet((1, 12, 12), hidden_size=20, weight_init_std="he")
    batches = [(x[first : first + 16], t[first : first + 16]) for first in range(0, 50, 16)]
    loader = Loader(x, t, 16, shuffle=False)
    assert evaluate(network, batches, metrics=["top3"]) == evaluate(network, loader, metrics=["top3"])
    assert np.array_equal(predict(network, batches).probabilities, predict(network, loader).probabilities)
    for given in (iter(batches), 5):
        with pytest.raises(TypeError, match=r"samples must be a Loader, or \(x, t\) batches that can be gone through"):
            evaluate(network, given)
    with pytest.raises(ValueError, match="batch 0: label 99 at index 0 is out of range"):
        evaluate(network, [(x, t + 99 - t[0])])
