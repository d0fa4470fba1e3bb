"""The losses: softmax with its options, binary cross-entropy, squared error, Huber and hinge."""

import math

import numpy as np
import pytest

import backend
import layers
from backend import asnumpy, xp
from layers import HingeLoss, HuberLoss, MeanSquaredError, SigmoidWithLoss, SoftmaxWithLoss
from layers.losses import NAMES, as_loss
from tests.support.checks import assert_close, check_gradient, frozen, normal
from tests.support.layer_checks import Contract, Expected, LayerCase, Oracle

# -- oracles: loops over samples and outputs ---------------------------------------------------------------------


def log_softmax(row):
    shifted = [value - max(row) for value in row]
    total = math.log(sum(math.exp(value) for value in shifted))
    return [value - total for value in shifted]


def weighted_softmax(x, t, smoothing=0.0, weights=None, ignore=None):
    """Return loss and gradient by the definition: Σ w[c]·q[c]·(-log y[c]) over Σ w[label]."""
    n, k = x.shape
    weights = [1.0] * k if weights is None else weights
    loss, total, dx = 0.0, 0.0, np.zeros((n, k))
    for i in range(n):
        if t.ndim == 1 and t[i] == ignore:
            continue
        given = [float(c == t[i]) for c in range(k)] if t.ndim == 1 else [float(value) for value in t[i]]
        total += sum(weights[c] * given[c] for c in range(k))
        logs = log_softmax([float(value) for value in x[i]])
        q = [weights[c] * ((1 - smoothing) * given[c] + smoothing * sum(given) / k) for c in range(k)]
        loss -= sum(q[c] * logs[c] for c in range(k))
        dx[i] = [math.exp(logs[c]) * sum(q) - q[c] for c in range(k)]
    return (loss / total, dx / total) if total else (0.0, dx)


def binary(x, t):
    t = t.reshape(x.shape).astype("float64")
    loss, dx = 0.0, np.zeros(x.shape)
    for at, score in np.ndenumerate(x):
        y = 1 / (1 + math.exp(-score))
        loss -= t[at] * math.log(y) + (1 - t[at]) * math.log(1 - y)
        dx[at] = y - t[at]
    return loss / x.size, dx / x.size


def squared(x, t):
    error = x - t.reshape(x.shape)
    return sum(float(e) ** 2 for e in error.ravel()) / x.size, 2 * error / x.size


def huber(delta):
    def compute(x, t):
        loss, dx = 0.0, np.zeros(x.shape)
        for at, e in np.ndenumerate(x - t.reshape(x.shape)):
            inside = abs(e) <= delta
            loss += e * e / 2 if inside else delta * (abs(e) - delta / 2)
            dx[at] = e if inside else math.copysign(delta, e)
        return loss / x.size, dx / x.size

    return compute


def hinge(x, t):
    loss, dx = 0.0, np.zeros(x.shape)
    for i, label in enumerate(t):
        for j in range(x.shape[1]):
            margin = x[i, j] - x[i, label] + 1
            if j != label and margin > 0:
                loss, dx[i, j], dx[i, label] = loss + margin, dx[i, j] + 1, dx[i, label] - 1
    return loss / len(x), dx / len(x)


def oracle(compute):
    """Magnitudes bound what is rounded: scores up to 2, weights up to 3, targets up to 3."""

    def forward(p, x, t):
        return Expected(compute(x, t)[0], 40.0, x.size + 12)

    def backward(p, dout, x, t):
        return {"x": Expected(compute(x, t)[1] * dout, 20 * abs(dout) / len(x), x.shape[1] + 16, 3)}

    return Oracle(forward, backward)


def case(name, make, compute, t, shape=(3, 5)):
    return LayerCase(name, lambda draw: make(), shape, oracle(compute), args=lambda: (backend.asarray(t),), widens=True)


INDICES = np.array([2, 0, 4])
SOFT = np.array([[0.5, 0.25, 0.25, 0, 0], [0, 0, 1, 0, 0], [0.125, 0.375, 0, 0, 0.5]], "float32")
WEIGHTS = [1, 3, 0, 0.5, 2]
BITS = np.array([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 0, 1]])
VALUES = np.array([[0.5, -3, 1, 0, 2], [1, 1, 1, -1, 0.25], [0, 0, 3, -2, 1.5]], "float32")


def smooth(t, **options):
    def compute(x, t):
        names = {"label_smoothing": "smoothing", "class_weights": "weights", "ignore_index": "ignore"}
        return weighted_softmax(x, t, **{names[key]: value for key, value in options.items()})

    return lambda: SoftmaxWithLoss(**options), compute, t


SOFTMAX = {
    "smoothing": smooth(INDICES, label_smoothing=0.1),
    "weights": smooth(INDICES, class_weights=WEIGHTS),
    "an ignored label": smooth(np.array([2, -1, 4]), ignore_index=-1),
    "an ignored class, bytes": smooth(np.array([2, 4, 4], "uint8"), ignore_index=4),
    "all of it": smooth(np.array([255, 3, 1], "uint8"), label_smoothing=0.25, class_weights=WEIGHTS, ignore_index=255),
    "all of it, soft": smooth(SOFT, label_smoothing=0.25, class_weights=WEIGHTS),
    "one-hot labels": smooth(np.eye(5, dtype=bool)[INDICES], label_smoothing=0.5),
}
CASES = [
    *(case(f"SoftmaxWithLoss, {name}", make, compute, t) for name, (make, compute, t) in SOFTMAX.items()),
    case("SigmoidWithLoss", SigmoidWithLoss, binary, BITS),
    case("SigmoidWithLoss of probabilities", SigmoidWithLoss, binary, SOFT),
    case("SigmoidWithLoss, yes or no", SigmoidWithLoss, binary, np.array([True, False, True]), (3, 1)),
    case("MeanSquaredError", MeanSquaredError, squared, VALUES),
    case("MeanSquaredError of one number", MeanSquaredError, squared, np.array([1, -2, 3]), (3, 1)),
    case("HuberLoss", HuberLoss, huber(1.0), VALUES),
    case("HuberLoss(0.3)", lambda: HuberLoss(0.3), huber(0.3), VALUES),
    case("HingeLoss", HingeLoss, hinge, INDICES),
    case("HingeLoss of bytes", HingeLoss, hinge, INDICES.astype("uint8")),
]


@pytest.mark.parametrize("case", CASES, ids=str)
class TestContract(Contract):
    pass


LOSSES = {
    "softmax": (lambda: SoftmaxWithLoss(0.1, WEIGHTS, 1), np.array([2, 1, 4])),
    "sigmoid": (SigmoidWithLoss, BITS),
    "mean-squared": (MeanSquaredError, VALUES),
    "huber": (HuberLoss, VALUES),
    "hinge": (HingeLoss, INDICES),
}


def test_every_name_is_tried_and_names_itself():
    assert tuple(LOSSES) == NAMES
    for name in NAMES:
        assert type(as_loss(name)) is type(LOSSES[name][0]())
    loss = HuberLoss(2)
    assert as_loss(loss) is loss
    assert type(as_loss(None)) is SoftmaxWithLoss
    with pytest.raises(ValueError, match=r"loss must be a Loss or one of 'softmax', .*'hinge', got 'mse'"):
        as_loss("mse")
    with pytest.raises(TypeError, match="loss must be a Loss or one of"):
        as_loss(3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_backward_is_scaled_by_numbers_on_host_and_device(device, name, dtype):
    """A loss scale of float16 comes in before the gradient is rounded to it."""
    make, t = LOSSES[name]
    x, t = normal((3, 5), dtype), backend.asarray(t)
    layer = make()
    with frozen(x, t):
        layer.forward(x, t)
        one = asnumpy(layer.backward())
        for factor in (4, 0.5, np.float32(0.5), xp.asarray(0.5), xp.asarray(2.0, "float32")):
            dx = layer.backward(factor)
            assert dx.dtype == dtype
            assert_close(dx, asnumpy(one).astype("float64") * float(factor), dtype, terms=2, magnitude=4, roundings=2)
        large = layer.backward(xp.asarray(2.0**-20, "float32"))
    if dtype == "float16":
        assert asnumpy(large).any()  # as 0.2 · 2⁻²⁰, which float16 can hold


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_scores_cost_what_they_are(device, dtype):
    """exp(1000) overflows; -log σ(-1000) is 1000, and -log σ(1000) is 0, for an infinite score too."""
    x = xp.asarray([[1000.0, -1000.0, math.inf, -math.inf]], dtype)
    layer = SigmoidWithLoss()
    assert float(layer.forward(x, xp.asarray([[1, 0, 1, 0]]))) == 0
    assert asnumpy(layer.backward()).tolist() == [[0, 0, 0, 0]]
    assert asnumpy(layer.y).tolist() == [[1, 0, 1, 0]]
    assert float(layer.forward(x, xp.asarray([[0, 1, 1, 0]]))) == 500
    assert asnumpy(layer.backward()).tolist() == [[0.25, -0.25, 0, 0]]
    assert float(layer.forward(x, xp.asarray([[1, 0, 0, 0]]))) == math.inf
    assert math.isnan(float(layer.forward(xp.full((1, 4), math.nan, dtype), xp.asarray([[1, 0, 0, 0]]))))


def test_small_differences_are_not_lost(device):
    """1 - σ(20) is 2e-9, which is lost where 1 - y is computed in float32."""
    layer = SigmoidWithLoss()
    assert float(layer.forward(xp.full((1, 1), 20, "float32"), xp.ones(1))) == pytest.approx(2.0611537e-9, rel=1e-6)


def test_published_values(device):
    """Label smoothing as in the paper's equation (K = 4, ε = 0.1), and a binary score of log 3, whose σ is ¾."""
    x = xp.log(xp.asarray([[0.5, 0.25, 0.125, 0.125]]))
    expected = 0.925 * math.log(2) + 0.025 * (math.log(4) + 2 * math.log(8))
    assert float(SoftmaxWithLoss(0.1).forward(x, xp.asarray([0]))) == pytest.approx(expected, rel=1e-12)
    score = xp.full((1, 1), math.log(3))
    assert float(SigmoidWithLoss().forward(score, xp.asarray([1]))) == pytest.approx(math.log(4 / 3), rel=1e-12)


def test_a_one_hot_row_is_what_its_index_is(device):
    x = normal((3, 5), "float64")
    for options in ({"label_smoothing": 0.2}, {"class_weights": WEIGHTS}, {}):
        by_index, by_row = SoftmaxWithLoss(**options), SoftmaxWithLoss(**options)
        loss = by_index.forward(x, xp.asarray(INDICES))
        assert float(by_row.forward(x, xp.eye(5)[INDICES])) == pytest.approx(float(loss), rel=1e-14)
        np.testing.assert_allclose(asnumpy(by_index.backward()), asnumpy(by_row.backward()), rtol=1e-13, atol=1e-16)


def test_ignored_samples_change_nothing_else(device):
    x, t = normal((6, 4)), np.array([1, 9, 3, 9, 0, 2])
    full, part = SoftmaxWithLoss(0.1, [1, 2, 3, 4], ignore_index=9), SoftmaxWithLoss(0.1, [1, 2, 3, 4])
    loss, kept = full.forward(x, xp.asarray(t)), t != 9
    expected = part.forward(x[xp.asarray(kept)], xp.asarray(t[kept]))
    assert_close(loss, float(expected), "float32", terms=20, magnitude=4)
    dx = asnumpy(full.backward())
    assert not dx[~kept].any()
    np.testing.assert_allclose(dx[kept], asnumpy(part.backward()), rtol=1e-5, atol=1e-7)
    assert int(full.samples(xp.asarray(t))) == 4
    assert part.samples(xp.asarray(t)) == 6
    nothing = xp.full(6, 9)
    assert float(full.forward(x, nothing)) == 0
    assert not asnumpy(full.backward()).any()
    assert full.samples(xp.asarray(np.zeros(3, "int8"))) == 3


def test_an_index_that_the_dtype_cannot_hold_ignores_nothing(device):
    x, t = normal((3, 5)), xp.asarray(INDICES.astype("int8"))
    loss = SoftmaxWithLoss(ignore_index=255)
    assert float(loss.forward(x, t)) == pytest.approx(float(SoftmaxWithLoss().forward(x, t)), rel=1e-6)
    assert loss.samples(t) == 3


FORMS = [
    ("softmax", [0, 7, 5], ValueError, "label 7 at index 1 is out of range: expected 0 to 4"),
    ("softmax", [0.0, 1.0, 2.0], TypeError, "labels are class indices, of an integer dtype, got float64"),
    ("softmax", SOFT, TypeError, r"ignore_index needs labels as class indices \(N,\), got float32\[3, 5\]"),
    ("sigmoid", BITS * 2, ValueError, r"target 2 at index \(0, 0\) is out of range: expected 0 to 1"),
    ("sigmoid", np.where(BITS, np.nan, 0), ValueError, r"target nan at index \(0, 0\) is out of range"),
    ("sigmoid", -SOFT, ValueError, r"target -0.5 at index \(0, 0\)"),
    ("sigmoid", INDICES, ValueError, r"targets t for outputs of \(3, 5\) must be of shape \(3, 5\), got \(3,\)"),
    ("sigmoid", BITS.astype(complex), TypeError, "targets t must be numbers, got complex128"),
    ("mean-squared", VALUES[:2], ValueError, r"must be of shape \(3, 5\), got \(2, 5\)"),
    ("mean-squared", VALUES.astype(str), TypeError, "targets t must be numbers, got <U"),
    (
        "mean-squared",
        np.where(VALUES == 3, np.inf, VALUES),
        ValueError,
        r"target inf at index \(2, 2\) must be a finite",
    ),
    ("huber", np.where(VALUES == 3, np.nan, VALUES), ValueError, r"target nan at index \(2, 2\) must be a finite"),
    ("hinge", [0, -1, 4], ValueError, "label -1 at index 1 is out of range: expected 0 to 4"),
    ("hinge", SOFT, ValueError, r"labels for scores of \(3, 5\) are \(3,\), got \(3, 5\)"),
]


@pytest.mark.parametrize(("name", "t", "kind", "message"), FORMS)
def test_wrong_targets_are_named(name, t, kind, message):
    """By the layer, and for all of a data set before a training."""
    layer, t = LOSSES[name][0](), np.asarray(t)
    before = layer.t
    with pytest.raises(kind, match=message):
        layer.forward(normal((3, 5)), t)
    assert layer.t is before
    if "ignore_index" not in message:
        with pytest.raises(kind, match=message):
            layer.check_targets(t, (3, 5))


@pytest.mark.parametrize(("outputs", "at", "words"), [
    ((2, 3, 4, 4), (1, 2, 0, 3), r"nan was given for class 2 at index \(1, 0, 3\)"),
    ((2, 5, 3), (1, 4, 2), r"nan was given for class 2 at index \(1, 4\)"),
])  # fmt: skip
def test_a_wrong_number_in_distributions_of_places_is_named(outputs, at, words):
    t = np.full(outputs, 1 / 3, "float32")
    t[at] = np.nan
    with pytest.raises(ValueError, match=words):
        SoftmaxWithLoss().check_targets(t, outputs)


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "t", "kind", "message"), [form for form in FORMS if "index" in form[3]])
def test_a_gpu_gives_nan_for_a_wrong_target(name, t, kind, message):
    if kind is TypeError or "inf" in message:
        return  # told on a GPU as well, or infinite there
    with backend.use("cuda"):
        assert math.isnan(float(LOSSES[name][0]().forward(normal((3, 5)), backend.asarray(np.asarray(t)))))


@pytest.mark.parametrize("name", ["softmax", "hinge"])
def test_one_score_is_refused_with_the_remedy(name):
    with pytest.raises(ValueError, match=r"expected a score for each class .*, got one score") as error:
        as_loss(name).forward(normal((3, 1)), np.zeros(3, int))
    assert name == "hinge" or "SigmoidWithLoss takes one score for yes or no" in str(error.value)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"label_smoothing": 1}, ValueError, "label_smoothing must be a finite number, at least 0 and below 1, got 1"),
        ({"class_weights": [1, -1]}, ValueError, r"class_weights\[1\] must be a finite number, at least 0, got -1"),
        ({"class_weights": [0, 0]}, ValueError, "class_weights must be a list of numbers, not all 0"),
        ({"class_weights": 3}, TypeError, "class_weights must be a list of numbers, one for each class, got 3"),
        ({"ignore_index": 0.5}, TypeError, "ignore_index must be a whole number"),
    ],
)
def test_options_are_checked(options, kind, message):
    with pytest.raises(kind, match=message):
        SoftmaxWithLoss(**options)


def test_weights_are_one_for_each_class():
    with pytest.raises(ValueError, match="class_weights must be 5 numbers, got 2"):
        SoftmaxWithLoss(class_weights=[1, 2]).forward(normal((3, 5)), INDICES)
    with pytest.raises(ValueError, match="delta must be a finite number, above 0, got 0"):
        HuberLoss(0)


def test_losses_name_their_options():
    assert repr(SoftmaxWithLoss()) == "SoftmaxWithLoss()"
    made = SoftmaxWithLoss(0.1, np.array([1, 2.5]), -1)
    assert repr(made) == "SoftmaxWithLoss(label_smoothing 0.1, class_weights [1, 2.5], ignore_index -1)"
    assert [repr(as_loss(name)) for name in NAMES[1:]] == [
        "SigmoidWithLoss()", "MeanSquaredError()", "HuberLoss(delta 1)", "HingeLoss()",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_predictions_are_those_of_a_forward(device, name):
    make, t = LOSSES[name]
    layer, x = make(), normal((3, 5))
    layer.forward(x, backend.asarray(t))
    found = layer.predictions(x)
    if name != "hinge":
        np.testing.assert_allclose(asnumpy(found), asnumpy(layer.y), rtol=1e-6, atol=1e-7)
    else:
        assert (asnumpy(found).argmax(1) == asnumpy(x).argmax(1)).all()
    layer.forget()
    assert layer.y is layer.t is layer.loss is layer.weight is None


def test_gradient_through_a_network(device):
    """Sums of squares of outputs with any shape: images, too."""
    x, t = normal((2, 3, 4, 4), "float64"), normal((2, 3, 4, 4), "float64", 1)
    for layer in (MeanSquaredError(), HuberLoss(0.7), SigmoidWithLoss()):
        target = xp.abs(xp.sin(t)) if isinstance(layer, SigmoidWithLoss) else t
        layer.forward(x, target)
        check_gradient(lambda x, layer=layer, t=target: float(layer.forward(x, t)), [x], [layer.backward()])


def test_all_losses_are_exported():
    assert {"HingeLoss", "HuberLoss", "Loss", "MeanSquaredError", "SigmoidWithLoss", "SoftmaxWithLoss"} <= set(
        layers.__all__
    )


def test_class_weights_that_are_set_anew_count(device):
    x, t = normal((3, 2)), backend.asarray(np.array([0, 1, 1]))
    loss = SoftmaxWithLoss(class_weights=[1, 2])
    before = float(loss.forward(x, t))
    loss.class_weights = (5.0, 1.0)
    expected = float(SoftmaxWithLoss(class_weights=[5, 1]).forward(x, t))
    assert float(loss.forward(x, t)) == expected != before
