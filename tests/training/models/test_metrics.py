"""Metrics against plain loops, in batches of any size, on every device."""

import math

import numpy as np
import pytest

import backend
from backend import asnumpy
from layers import Affine, HingeLoss, MeanSquaredError, Sequential, SigmoidWithLoss, SoftmaxWithLoss
from training.data import Loader
from training.loop.evaluation import evaluate, predict
from training.loop.trainer import Trainer
from training.models import Network
from training.models import metrics as metrics_module
from training.models.metrics import (
    F1,
    NAMES,
    R2,
    Accuracy,
    Confusion,
    IoU,
    MeanAbsoluteError,
    PerClass,
    Precision,
    Recall,
    TopK,
    as_metrics,
    values_of,
)
from training.optim.optimizers import SGD, Adam

N, CLASSES = 60, 5


def scores_and(kind, seed=0):
    """Return scores with ties, and targets: class 3 has no samples, class 4 is never decided for."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(-3, 4, (N, CLASSES)).astype("float32")
    scores[:, 4] = -9
    if kind == "classes":
        return scores, rng.choice([0, 1, 2, 4], N).astype("int32")
    if kind == "labels":
        t = rng.integers(0, 2, (N, CLASSES))
        t[:, 3] = 0
        return scores, t
    return scores, (scores + rng.normal(1e4, 1, (N, CLASSES))).astype("float32")


def measured(metrics, loss, scores, t, batch):
    totals = [None] * len(metrics)
    for first in range(0, len(t), batch):
        x, y = (backend.asarray(part[first : first + batch]) for part in (scores, t))
        for place, metric in enumerate(metrics):
            sums = metric.sums(loss, x, y)
            totals[place] = sums if totals[place] is None else metric.merged(totals[place], sums)
    return values_of(metrics, totals)


def per_class(decided, truth):
    found = {"precision": [], "recall": [], "f1": []}
    for label in range(truth.shape[1]):
        right = sum(d and t for d, t in zip(decided[:, label], truth[:, label], strict=True))
        said, there = int(decided[:, label].sum()), int(truth[:, label].sum())
        precision, recall = (right / said if said else 0.0), (right / there if there else math.nan)
        f1 = 2 * precision * recall / (precision + recall) if right else 0.0
        for name, value in (("precision", precision), ("recall", recall), ("f1", f1)):
            found[name].append(value if there else math.nan)
    return found


@pytest.mark.parametrize("samples", ["rows", "steps", "pixels"])
@pytest.mark.parametrize("batch", [1, 7, 60])
@pytest.mark.parametrize("ignored", [None, 2])
def test_of_classes(device, batch, ignored, samples):
    scores, t = scores_and("classes")
    kept = t != ignored if ignored is not None else np.ones(N, bool)
    truth = np.eye(CLASSES, dtype=bool)[t[kept]]
    order = np.argsort(-scores[kept], axis=1, kind="stable")
    decided = np.eye(CLASSES, dtype=bool)[order[:, 0]]
    expected = per_class(decided, truth)
    metrics = [Accuracy(), TopK(1), TopK(3), PerClass(), Precision(), Recall(), F1(), Confusion()]
    given = {
        "rows": (scores, t),
        "steps": (scores.reshape(12, 5, CLASSES), t.reshape(12, 5)),
        "pixels": (scores.reshape(10, 2, 3, CLASSES).transpose(0, 3, 1, 2), t.reshape(10, 2, 3)),
    }[samples]
    found = measured(metrics, SoftmaxWithLoss(ignore_index=ignored), *given, batch)
    assert found["accuracy"] == found["top1"] == np.mean(order[:, 0] == t[kept])
    assert found["top3"] == np.mean([label in row[:3] for label, row in zip(t[kept], order, strict=True)])
    for name, values in expected.items():
        np.testing.assert_allclose(found["per-class"][name], values, rtol=1e-12)
        assert found[name] == pytest.approx(np.nanmean(values), rel=1e-12)
    confusion = np.zeros((CLASSES, CLASSES), int)
    np.add.at(confusion, (t[kept], order[:, 0]), 1)
    assert found["confusion"] == confusion.tolist()


def test_a_confusion_of_more_rows_than_float32_counts(monkeypatch):
    """Products are of as many rows at a time as are exact: here of 3."""
    scores, labels = np.eye(3, dtype="float32")[[0, 1, 2, 0, 1, 2, 0]], np.array([0, 1, 1, 2, 1, 2, 0])
    expected = Confusion().sums(SoftmaxWithLoss(), scores, labels)
    monkeypatch.setattr(metrics_module, "_EXACT", 3)
    np.testing.assert_array_equal(Confusion().sums(SoftmaxWithLoss(), scores, labels), expected)
    assert expected.tolist() == [[2, 0, 0], [0, 2, 1], [1, 0, 1]]


@pytest.mark.parametrize("metric", [Accuracy(), TopK(2), F1(), IoU(), Confusion()], ids=str)
@pytest.mark.parametrize(("shape", "labels", "words"), [
    ((2, 3, 4, 4), (2, 4), r"labels for scores of \(2, 3, 4, 4\) are \(2, 4, 4\) or \(2, 3, 4, 4\), got \(2, 4\)"),
    ((2, 4, 3), (2,), r"labels for scores of \(2, 4, 3\) are \(2, 4\) or \(2, 4, 3\), got \(2,\)"),
])  # fmt: skip
def test_labels_that_do_not_fit_pixels_or_steps_are_refused(metric, shape, labels, words):
    with pytest.raises(ValueError, match=words):
        metric.sums(SoftmaxWithLoss(), backend.xp.zeros(shape, "float32"), backend.xp.zeros(labels, "int32"))


def jaccard(decided, truth):
    """Return the mean over classes of what two sets have in common by what either has."""
    pairs = zip(decided.T, truth.T, strict=True)
    sets = [({*np.flatnonzero(one)}, {*np.flatnonzero(other)}) for one, other in pairs]
    return np.mean([len(one & other) / len(one | other) for one, other in sets if one | other])


@pytest.mark.parametrize("batch", [1, 7, 60])
@pytest.mark.parametrize("ignored", [None, 2])
def test_intersection_over_union(device, batch, ignored):
    scores, t = scores_and("classes")
    kept = t != ignored if ignored is not None else np.ones(N, bool)
    decided = np.eye(CLASSES, dtype=bool)[scores[kept].argmax(axis=1)]
    expected = jaccard(decided, np.eye(CLASSES, dtype=bool)[t[kept]])
    loss = SoftmaxWithLoss(ignore_index=ignored)
    assert measured([IoU()], loss, scores, t, batch)["iou"] == pytest.approx(expected, rel=1e-12)
    pixels = scores.reshape(4, 5, 3, CLASSES).transpose(0, 3, 1, 2)
    of_pixels = measured([IoU()], loss, pixels, t.reshape(4, 5, 3), -(-batch // 15))
    assert of_pixels["iou"] == pytest.approx(expected, rel=1e-12)
    labels = scores_and("labels")[1]
    of_labels = jaccard(scores > 0, labels.astype(bool))
    assert measured([IoU()], SigmoidWithLoss(), scores, labels, batch)["iou"] == pytest.approx(of_labels, rel=1e-12)


def test_without_samples_there_is_no_union():
    assert math.isnan(IoU().value(np.zeros((3, 2))))


@pytest.mark.parametrize("batch", [1, 60])
def test_of_labels(device, batch):
    scores, t = scores_and("labels")
    expected = per_class(scores > 0, t.astype(bool))
    found = measured([Accuracy(), PerClass(), F1()], SigmoidWithLoss(), scores, t, batch)
    assert found["accuracy"] == pytest.approx(np.mean((scores > 0) == t), rel=1e-12)
    for name, values in expected.items():
        np.testing.assert_allclose(found["per-class"][name], values, rtol=1e-12)
    assert found["f1"] == pytest.approx(np.nanmean(expected["f1"]), rel=1e-12)


@pytest.mark.parametrize("batch", [1, 7, 60])
def test_of_values(device, batch):
    """Targets far from 0 leave R² its digits: Σt² - (Σt)² / n would lose eight of them."""
    scores, t = scores_and("values")
    t[:, 1] = 5  # all equal: left out
    y, wide = scores.astype("float64"), t.astype("float64")
    residual, squares = ((wide - y) ** 2).sum(0), ((wide - wide.mean(0)) ** 2).sum(0)
    known = [0, 2, 3, 4]
    found = measured([MeanAbsoluteError(), R2()], MeanSquaredError(), scores, t, batch)
    assert found["mae"] == pytest.approx(abs(wide - y).mean(), rel=1e-12)
    assert found["r2"] == pytest.approx((1 - residual[known] / squares[known]).mean(), rel=1e-9)
    assert measured([R2()], MeanSquaredError(), t, t, batch) == {"r2": 1}
    assert math.isnan(measured([R2()], MeanSquaredError(), y[:1], wide[:1], 1)["r2"])


def test_a_score_that_is_not_a_number_is_never_right(device):
    scores = np.full((2, CLASSES), np.nan, "float32")
    assert measured([TopK(CLASSES - 1)], SoftmaxWithLoss(), scores, np.array([4, 3]), 2) == {"top4": 0}


def test_soft_targets_count_by_their_largest(device):
    scores, t = scores_and("classes")
    soft = np.eye(CLASSES, dtype="float32")[t] * 0.6 + 0.08
    metrics = [Accuracy(), F1(), TopK(2)]
    assert measured(metrics, SoftmaxWithLoss(), scores, soft, 7) == measured(metrics, SoftmaxWithLoss(), scores, t, 7)


@pytest.mark.parametrize(
    ("given", "loss", "kind", "message"),
    [
        (
            ["mae"],
            SoftmaxWithLoss(),
            ValueError,
            "'mae' measures predicted values; a network with SoftmaxWithLoss pred",
        ),
        (["confusion"], SigmoidWithLoss(), ValueError, "'confusion' measures predicted classes; .* predicts labels"),
        (["accuracy"], MeanSquaredError(), ValueError, "'accuracy' measures predicted classes or labels; .* values"),
        (["top9"], HingeLoss(), ValueError, "metric 'top9' needs at least 9 classes, the network has 5"),
        (["top0"], HingeLoss(), ValueError, "metrics must be a Metric or one of 'accuracy', .*'top<k>', got 'top0'"),
        (["auc"], HingeLoss(), ValueError, "got 'auc'"),
        ([3], HingeLoss(), TypeError, "metrics must be a Metric or one of"),
        (3, HingeLoss(), TypeError, "metrics must be a list of metrics, got 3"),
        (["f1", F1()], HingeLoss(), ValueError, "metrics must differ, got f1, f1"),
    ],
)
def test_wrong_metrics_are_refused(given, loss, kind, message):
    with pytest.raises(kind, match=message):
        as_metrics(given, loss, CLASSES)


def test_every_name_is_a_metric():
    losses = {"classes": SoftmaxWithLoss(), "labels": SigmoidWithLoss(), "values": MeanSquaredError()}
    for name in (*NAMES[:-1], "top2", "top-3"):
        metric = as_metrics([name], losses["values" if name in ("mae", "r2") else "classes"], 5)[0]
        assert metric.name == name.replace("-3", "3")
    assert as_metrics("f1", SoftmaxWithLoss(), 2) == (F1(),)


# -- networks that predict labels or numbers, through the whole of a training ---------------------------------------


def problem(kind, n=200, seed=3):
    """Return samples of 4 numbers and targets that an affine layer can learn."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)).astype("float32")
    plan = np.random.default_rng(9).normal(size=(4, 3))
    scores = x @ plan
    if kind == "classes":
        return x, scores.argmax(1)
    return x, (scores > 0).astype("float32") if kind == "labels" else scores + 100.0


TASKS = {
    "softmax": ("classes", {"loss": "softmax"}),
    "hinge": ("classes", {"loss": "hinge"}),
    "smooth": ("classes", {"loss": SoftmaxWithLoss(0.1, [1, 2, 1])}),
    "sigmoid": ("labels", {"loss": "sigmoid"}),
    "mean-squared": ("values", {"loss": "mean-squared"}),
    "huber": ("values", {"loss": "huber"}),
}


def trained(name, epochs=12, lr=0.1, **options):
    kind, how = TASKS[name]
    network = Network(Sequential(Affine.of(4, 3)), (4,), **how)
    if kind == "values":
        network.params["b1"][...] = 100
    loaders = [Loader(*problem(kind, seed=seed), 32, seed=1) for seed in (3, 4)]
    run = Trainer(network, *loaders, Adam(lr=lr), epochs=epochs, **options)
    return run, run.train()


@pytest.mark.parametrize("name", TASKS)
def test_every_loss_is_learned(device, name):
    if device.kind == "cuda" and name not in ("sigmoid", "huber", "smooth"):
        return  # by steps, each on a GPU is slow where it is emulated
    run, history = trained(name, 12 if device.kind == "cpu" else 4)
    assert history[-1].test_loss < history[0].test_loss
    if TASKS[name][0] == "values":
        assert math.isnan(history[-1].accuracy)
        assert math.isnan(history[-1].test_accuracy)
        assert set(history[-1].metrics) == {"mae"}
        assert run.best.test_loss == min(result.test_loss for result in history)
    else:
        assert history[-1].test_accuracy > 0.85
        assert history[-1].metrics == {}


def test_metrics_come_with_each_epoch():
    _, history = trained("softmax", 2, metrics=["top2", "f1", Confusion()])
    assert [set(result.metrics) for result in history] == [{"top2", "f1", "confusion"}] * 2
    assert history[-1].metrics["top2"] >= history[-1].test_accuracy
    assert np.sum(history[-1].metrics["confusion"]) == 200
    assert np.trace(history[-1].metrics["confusion"]) == 200 * history[-1].test_accuracy
    assert history[-1].as_dict()["metrics"] == history[-1].metrics
    with pytest.raises(ValueError, match="'mae' measures predicted values"):
        trained("softmax", metrics=["mae"])


@pytest.mark.parametrize("batch", [7, 64])
def test_weighted_losses_do_not_depend_on_the_batch(device, batch):
    """The mean over a data set divides by the sum of all weights, not by each batch's."""
    x, t = problem("classes", 50)
    t = np.where(np.arange(50) % 5 == 0, 7, t)
    network = Network(Sequential(Affine.of(4, 3)), (4,), loss=SoftmaxWithLoss(0, [1, 5, 0.25], ignore_index=7))
    samples = Loader(x, t, batch, shuffle=False)
    whole = network.loss(backend.asarray(x), backend.asarray(t), train_flg=False)
    result = evaluate(network, samples, lambda *_: None, metrics=["accuracy"])
    assert result.loss == pytest.approx(float(whole), rel=1e-6)
    kept = t != 7
    right = asnumpy(network.predict(backend.asarray(x))).argmax(1)[kept] == t[kept]
    assert result.accuracy == result.metrics["accuracy"] == right.mean()
    assert network.accuracy(backend.asarray(x), backend.asarray(t)) == right.mean()


def test_a_network_says_its_loss_and_refuses_what_does_not_fit():
    layers = lambda outputs: Sequential(Affine.of(4, outputs))  # noqa: E731
    assert "15 parameters, HingeLoss())" in repr(Network(layers(3), (4,), loss="hinge"))
    assert "15 parameters)" in repr(Network(layers(3), (4,)))
    with pytest.raises(ValueError, match="SigmoidWithLoss takes one score for yes or no"):
        Network(layers(1), (4,))
    network = Network(layers(1), (4,), loss="sigmoid")
    with pytest.raises(ValueError, match="expected a score for each class"):
        network.last_layer = SoftmaxWithLoss()
    with pytest.raises(TypeError, match="last_layer must be a Loss, got"):
        network.last_layer = Affine.of(1, 1)
    network.last_layer = MeanSquaredError()
    with pytest.raises(ValueError, match="predicts numbers, which have no accuracy"):
        network.accuracy(np.ones((2, 4), "float32"), np.ones(2))
    with pytest.raises(ValueError, match="predicts no classes"):
        predict(network, Loader(np.ones((2, 4), "float32"), np.ones(2), 2))


@pytest.mark.parametrize(
    ("loss", "t", "message"),
    [
        ("sigmoid", np.array([0.5, 2, 0]), "training data: target 2 at index 1 is out of range: expected 0 to 1"),
        ("sigmoid", np.array([0, 1, 5]), "training data: target 5 at index 2 is out of range"),
        ("softmax", np.array([0.5, 1, 0]), "training data: labels are class indices, of an integer dtype, got float32"),
        ("mean-squared", np.zeros((3, 2)), r"training data: targets t for outputs of \(3, 1\)"),
    ],
)
def test_a_trainer_checks_targets_before_the_first_step(loss, t, message):
    x = np.ones((3, 4), "float32")
    network = Network(Sequential(Affine.of(4, 2 if loss == "softmax" else 1)), (4,), loss=loss)
    with pytest.raises((TypeError, ValueError), match=message):
        Trainer(network, Loader(x, t, 2), Loader(x, t, 2), SGD())


def test_yes_or_no_is_learned_from_whole_labels():
    """One score per sample, and the labels 0 and 1 of an ordinary data set."""
    x, t = problem("labels")
    t = t[:, 0].astype("int64")
    network = Network(Sequential(Affine.of(4, 1)), (4,), loss="sigmoid")
    data = Loader(x, t, 20)
    assert Trainer(network, data, data, Adam(lr=0.1), epochs=6).train()[-1].test_accuracy > 0.95


def test_float16_learns_numbers():
    x, t = problem("values")
    network = Network(Sequential(Affine.of(4, 3)), (4,), loss="huber").astype("float16")
    data = Loader(x, t - 100, 20, dtype="float16")
    history = Trainer(network, data, data, Adam(lr=0.05), epochs=8).train()
    assert history[-1].test_loss < history[0].test_loss / 4
