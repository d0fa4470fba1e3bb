"""Labels at every entry point: good ones of any dtype count alike, bad ones are named and change nothing."""

import re

import numpy as np
import pytest

import backend
from backend import asarray, asnumpy
from layers import Affine, Sequential, SoftmaxWithLoss, cross_entropy_error
from layers.compat.course import softmax_loss
from training.data import Loader
from training.loop.evaluation import Predictions, predict
from training.loop.trainer import Trainer
from training.models import Network, TwoLayerNet
from training.models.parameters import ParameterDict
from training.optim.optimizers import SGD

CLASSES = 5
SCORES = np.random.default_rng(0).standard_normal((4, CLASSES)).astype("float32")
GOOD = np.array([4, 0, 3, 1])
DTYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", ">i4", ">u8"]
ENTRY_POINTS = {
    "loss": lambda net, t: net.loss(asarray(SCORES), t),
    "gradient": lambda net, t: net.gradient(asarray(SCORES), t),
    "step_gradients": lambda net, t: net.step_gradients(asarray(SCORES), t),
    "accuracy": lambda net, t: net.accuracy(asarray(SCORES), t),
    "SoftmaxWithLoss": lambda net, t: SoftmaxWithLoss().forward(asarray(SCORES), t),
    "softmax_loss": lambda net, t: softmax_loss(asarray(SCORES), t)[0],
    "cross_entropy_error": lambda net, t: cross_entropy_error(abs(asarray(SCORES)), t),
}
BY_ENTRY_POINT = pytest.mark.parametrize("entry", ENTRY_POINTS.values(), ids=ENTRY_POINTS)


def network():
    backend.random.seed(3)
    return TwoLayerNet(CLASSES, 6, CLASSES)


@BY_ENTRY_POINT
def test_indices_of_any_integer_dtype_are_one_label(device, entry):
    net = network()
    expected = entry(net, asarray(GOOD))
    for dtype in DTYPES if device.kind == "cpu" else DTYPES[:8]:
        found = entry(net, asarray(GOOD.astype(dtype)))
        one, two = (result.flat if isinstance(result, ParameterDict) else result for result in (expected, found))
        np.testing.assert_array_equal(asnumpy(two), asnumpy(one))


@BY_ENTRY_POINT
@pytest.mark.parametrize(
    ("t", "message"),
    [
        (GOOD.astype("float32"), "labels are class indices, of an integer dtype, got float32"),
        (np.array([np.nan, 0, 1, 2]), "got float64"),
        (GOOD > 1, "got bool"),
        (GOOD.astype(str), "got <U"),
        (GOOD.astype(object), "got object"),
        (GOOD.astype("complex64"), "got complex64"),
        (GOOD.astype("m8[s]"), "got timedelta64"),
        (np.full((4, CLASSES), "a"), "are numbers, got <U1"),
        (np.eye(5, dtype=object)[GOOD], "are numbers, got object"),
    ],
    ids=str,
)
def test_other_dtypes_are_refused(entry, t, message):
    with backend.use("cpu"), pytest.raises(TypeError, match=re.escape(message)):
        entry(network(), t)


@BY_ENTRY_POINT
@pytest.mark.parametrize("dtype", ["float32", "bool"])
def test_other_dtypes_are_refused_on_a_device(device, entry, dtype):
    with pytest.raises(TypeError, match=f"of an integer dtype, got {dtype}"):
        entry(network(), asarray(GOOD.astype(dtype)))


@BY_ENTRY_POINT
@pytest.mark.parametrize("shape", [(3,), (5,), (4, 1), (4, 4), (1, 4), (4, 5, 1), ()], ids=str)
def test_other_shapes_are_refused(device, entry, shape):
    with pytest.raises(ValueError, match=re.escape(f"labels for scores of (4, 5) are (4,) or (4, 5), got {shape}")):
        entry(network(), asarray(np.zeros(shape, "int64")))


BAD = [(5, "int64"), (-1, "int8"), (-100, "int64"), (2**32 + 3, "int64"), (2**63 + 1, "uint64"), (200, "uint8")]


@BY_ENTRY_POINT
@pytest.mark.parametrize(("bad", "dtype"), BAD)
def test_an_index_that_is_no_class_is_named(entry, bad, dtype):
    t = GOOD.astype(dtype)
    t[2] = bad
    with backend.use("cpu"):
        net = network()
        before = net.params.flat.copy()
        with pytest.raises(ValueError, match=f"label {bad} at index 2 is out of range: expected 0 to 4"):
            entry(net, t)
        np.testing.assert_array_equal(net.params.flat, before)
        assert not net.grads.flat.any()


@pytest.mark.parametrize(("bad", "dtype"), BAD)
def test_accuracy_and_loaders_name_it_on_every_device(device, bad, dtype):
    t = GOOD.astype(dtype)
    t[2] = bad
    net, message = network(), f"label {bad} at index 2 is out of range: expected 0 to "
    with pytest.raises(ValueError, match=message):
        net.accuracy(asarray(SCORES), asarray(t))
    with pytest.raises(ValueError, match=message):
        predict(net, Loader(SCORES, asarray(t), 2, shuffle=False))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_distribution_is_finite(device, bad):
    t = np.eye(CLASSES, dtype="float32")[GOOD]
    assert network().accuracy(asarray(SCORES), asarray(t)) == network().accuracy(asarray(SCORES), asarray(GOOD))
    t[3, 1] = bad
    with pytest.raises(ValueError, match=f"labels are finite; {bad} was given for class 1 at index 3"):
        network().accuracy(asarray(SCORES), asarray(t))


def test_a_list_is_no_array(device):
    for entry in ("loss", "gradient", "accuracy", "SoftmaxWithLoss"):  # the functions of courses and book take lists
        with pytest.raises(TypeError, match="labels are an array, not list"):
            ENTRY_POINTS[entry](network(), GOOD.tolist())
    with pytest.raises(ValueError, match=r"batch_size must be .*, got 0"):
        network().accuracy(asarray(SCORES), asarray(GOOD), batch_size=0)


@pytest.mark.parametrize("data", ["training", "test"])
@pytest.mark.parametrize("bad", [5, 200])
def test_a_trainer_says_the_loader_and_the_place_in_the_data_set(device, data, bad):
    """Before the first step, on every device; not the place in a shuffled batch."""
    x = np.zeros((60, CLASSES), "float32")
    good, t = np.arange(60, dtype="uint8") % CLASSES, np.arange(60, dtype="uint8") % CLASSES
    t[[41, 53]] = bad
    loaders = [Loader(x, t if name == data else good, 16) for name in ("training", "test")]
    with pytest.raises(ValueError, match=f"{data} data: label {bad} at index 41 is out of range: expected 0 to 4"):
        Trainer(network(), *loaders, SGD(0.1))
    run = Trainer(network(), Loader(x, good, 16), Loader(x, good, 16), SGD(0.1))
    with pytest.raises(ValueError, match=f"label {bad} at index 41"):
        run.evaluate(Loader(x, t, 16))


def test_answers_are_classes():
    probabilities = np.full((2, 3), 1 / 3)
    fine = np.array([0, 2])
    assert Predictions(0.0, fine, fine, probabilities).confusion().tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]
    for labels, predicted in ((np.array([0, 3]), fine), (fine, np.array([0, 3])), (np.array([0, -1]), fine)):
        with pytest.raises(ValueError, match="at index 1 is out of range: expected 0 to 2"):
            Predictions(0.0, labels, predicted, probabilities)
    with pytest.raises(TypeError, match="got float64"):
        Predictions(0.0, fine, fine.astype(float), probabilities)


def test_one_score_is_no_classifier(device):
    """Its loss would be 0 and its accuracy 1 from the first step on."""
    for labels in (np.zeros(4, int), np.ones((4, 1), "float32")):
        with pytest.raises(ValueError, match=r"a score for each class \(two for yes or no\), got one score per sample"):
            SoftmaxWithLoss().forward(asarray(SCORES[:, :1]), asarray(labels))
    for make in (lambda: TwoLayerNet(5, 6, 1), lambda: Network(Sequential(Affine.of(5, 1)), (5,))):
        with pytest.raises(ValueError, match=r"a score for each class \(two for yes or no\), got one score per sample"):
            make()


def test_a_label_below_zero_is_for_a_loss_that_ignores_it(device):
    """Here those of every third sample: what is learned is what is learned without these samples."""
    x, t = np.random.default_rng(0).normal(size=(12, CLASSES)).astype("float32"), np.arange(12) % CLASSES
    ignored = np.where(np.arange(12) % 3, t, -100)
    kept = np.flatnonzero(ignored >= 0)

    def losses(loss, *data):
        net = network()
        net.last_layer = loss
        loader = Loader(*data, 12, shuffle=False)
        result = Trainer(net, loader, loader, SGD(0.1), epochs=1).train(quiet=True)[-1]
        return result.loss, result.test_loss

    found = losses(SoftmaxWithLoss(ignore_index=-100), x, ignored)
    np.testing.assert_allclose(found, losses(SoftmaxWithLoss(), x[kept], t[kept]), rtol=1e-6)
    with pytest.raises(ValueError, match="training data: label -100 at index 0 is out of range: expected 0 to 4"):
        losses(SoftmaxWithLoss(), x, ignored)
