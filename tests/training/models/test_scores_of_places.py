"""Networks that end in scores of the steps of sequences, (T, classes), or of the pixels of images, (classes, H, W)."""

import importlib.util

import numpy as np
import pytest

from backend import asarray, asnumpy, random
from layers import (
    LSTM,
    Convolution,
    Embedding,
    Flatten,
    HingeLoss,
    MeanSquaredError,
    Permute,
    PositionwiseAffine,
    Relu,
    Reshape,
    Sequential,
    Sigmoid,
    SigmoidWithLoss,
    Softmax,
    SoftmaxWithLoss,
)
from tests.support.checks import assert_same, frozen
from training.interop import from_torch, to_torch
from training.loop.evaluation import evaluate, predict
from training.models import Network
from training.models.loading import load_network
from training.models.metrics import IoU
from training.zoo.recurrent import char_lstm
from training.zoo.unet import unet

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))


def of_pixels(loss=None, dtype="float32"):
    """Return a network of 3 classes over images of 4x6, samples and labels."""
    random.seed(1)
    layers = Sequential(Convolution.of(2, 4, 3, pad=1), Relu(), Convolution.of(4, 3, 1))
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((5, 2, 4, 6)).astype(dtype), rng.integers(0, 3, (5, 4, 6))
    return Network(layers, (2, 4, 6), loss=loss).astype(dtype), asarray(x), asarray(t)


def of_steps(loss=None, dtype="float32"):
    """Return a network of 3 classes over sequences of 7 numbers, samples and labels."""
    random.seed(1)
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((5, 7, 2)).astype(dtype), rng.integers(0, 3, (5, 7))
    layers = Sequential(LSTM.of(2, 4), PositionwiseAffine.of(4, 3))
    return Network(layers, (7, 2), loss=loss).astype(dtype), asarray(x), asarray(t)


def of_characters(loss=None, dtype="float32"):
    """Return a network of 3 characters, samples and those that follow."""
    random.seed(1)
    text = np.random.default_rng(0).integers(0, 3, (5, 8))
    return Network(char_lstm(3, 4, 5), (7,), loss=loss).astype(dtype), asarray(text[:, :-1]), asarray(text[:, 1:])


KINDS = {"pixels": of_pixels, "steps": of_steps, "characters": of_characters}


def rows_of(kind, scores, t):
    """Return scores (rows, classes) and labels (rows,) on the host, row by row."""
    scores, t = asnumpy(scores), asnumpy(t)
    places = list(np.ndindex(t.shape))
    if kind == "pixels":
        return np.array([scores[n, :, row, column] for n, row, column in places]), np.array([t[at] for at in places])
    return np.array([scores[at] for at in places]), np.array([t[at] for at in places])


@pytest.mark.parametrize(("kind", "shape"), [("pixels", (3, 4, 6)), ("steps", (7, 3)), ("characters", (7, 3))])
def test_classes_and_the_shape_of_the_output(kind, shape):
    network, x, _ = KINDS[kind]()
    assert (network.output_dim, network.classes, network.has_places) == (shape, 3, True)
    assert network.predict(x).shape == (5, *shape)
    assert f"Network({network.input_dim} → {shape}, " in repr(network)
    assert f"{network.input_dim} → {shape}, " in network._repr_html_()


@pytest.mark.parametrize(("layers", "shape", "loss", "words"), [
    (Sequential(Reshape((1, 2, 2, 2))), (8,), None, r"ends in \(outputs,\).*\(T, classes\).*\(1, 2, 2, 2\) of \(8,\)"),
    (Sequential(Convolution.of(1, 2, 3)), (1, 8, 8), "sigmoid", r"SigmoidWithLoss takes .*, got \(2, 6, 6\)"),
    (Sequential(Convolution.of(1, 2, 3)), (1, 8, 8), "mean-squared", r"MeanSquaredError takes .*, got \(2, 6, 6\)"),
    (Sequential(Convolution.of(1, 2, 3)), (1, 8, 8), "huber", r"HuberLoss takes .*, got \(2, 6, 6\)"),
    (Sequential(PositionwiseAffine.of(2, 3)), (4, 2), "hinge", r"HingeLoss takes .*, got \(4, 3\); SoftmaxWithLoss"),
    (Sequential(Convolution.of(1, 1, 3)), (1, 8, 8), None, "got one score per sample"),
    (Sequential(PositionwiseAffine.of(2, 1)), (4, 2), None, "got one score per sample"),
    (Sequential(Convolution.of(1, 4, 3)), (1, 8, 8), SoftmaxWithLoss(class_weights=[1, 2]), "must be 4 numbers, got 2"),
])  # fmt: skip
def test_what_a_loss_does_not_take_is_refused_with_its_shape(layers, shape, loss, words):
    with pytest.raises(ValueError, match=words):
        Network(layers, shape, loss=loss)


@pytest.mark.parametrize("loss", [SigmoidWithLoss(), MeanSquaredError(), HingeLoss()])
def test_another_loss_cannot_take_the_place(loss):
    network, _, _ = of_pixels()
    with pytest.raises(ValueError, match=rf"{type(loss).__name__} takes \(outputs,\)"):
        network.last_layer = loss
    assert type(network.last_layer) is SoftmaxWithLoss


@pytest.mark.parametrize("options", [{}, {"ignore_index": 1}])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_accuracy_are_those_of_all_places(device, kind, options):
    network, x, t = KINDS[kind](SoftmaxWithLoss(**options))
    scores, labels = rows_of(kind, network.predict(x), t)
    counted = labels != options.get("ignore_index", -1)
    right = sum(int(row.argmax() == label) for row, label in zip(scores[counted], labels[counted], strict=True))
    wide = scores[counted].astype("float64")
    loss = np.mean(np.log(np.exp(wide).sum(axis=1)) - wide[np.arange(len(wide)), labels[counted]])
    with frozen(x, t):
        assert network.accuracy(x, t, batch_size=2) == pytest.approx(right / counted.sum(), rel=1e-12)
        assert float(network.loss(x, t, train_flg=False)) == pytest.approx(loss, rel=1e-5)
        found = evaluate(network, [(asnumpy(x)[:2], asnumpy(t)[:2]), (asnumpy(x)[2:], asnumpy(t)[2:])], metrics=["iou"])
    assert found.accuracy == pytest.approx(right / counted.sum(), rel=1e-12)
    assert found.loss == pytest.approx(loss, rel=1e-5)
    decided, labels = scores[counted].argmax(axis=1), labels[counted]
    unions = [((decided == c) | (labels == c)).sum() for c in range(3)]
    shares = [((decided == c) & (labels == c)).sum() / union for c, union in enumerate(unions) if union]
    assert found.metrics["iou"] == pytest.approx(np.mean(shares), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_one_hot_labels_are_the_same(device, kind):
    network, x, t = KINDS[kind]()
    one_hot = np.eye(3, dtype="float32")[asnumpy(t)]
    one_hot = asarray(one_hot.transpose(0, 3, 1, 2) if kind == "pixels" else one_hot)
    assert network.accuracy(x, one_hot) == network.accuracy(x, t)
    assert float(network.loss(x, one_hot)) == pytest.approx(float(network.loss(x, t)), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_its_gradient(device, kind):
    network, x, t = KINDS[kind](dtype="float64")
    with frozen(x, t):
        expected, found = network.numerical_gradient(x, t), network.gradient(x, t)
    for name, array in expected.items():
        assert float(abs(array).max()) > 1e-3
        np.testing.assert_allclose(asnumpy(found[name]), asnumpy(array), atol=1e-8, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_that_do_not_fit_are_named_before_anything_is_computed(kind):
    network, x, t = KINDS[kind]()
    wrong = t.copy()
    index = (3, 2, 1)[: t.ndim]
    wrong[index] = 3
    with pytest.raises(ValueError, match=rf"label 3 at index \({', '.join(map(str, index))}\) is out .* 0 to 2"):
        network.accuracy(x, wrong)
    with pytest.raises(ValueError, match=r"labels for scores of .* are .*, got \(5,\)"):
        network.accuracy(x, t.reshape(5, -1)[:, 0])
    with pytest.raises(TypeError, match="labels are class indices, of an integer dtype, got float32"):
        network.accuracy(x, t.astype("float32"))


def test_scores_that_are_not_finite_are_counted_by_samples():
    network, x, t = of_pixels()
    x[1, 0, 2, 3] = np.nan
    with pytest.warns(RuntimeWarning, match="1 of 5 samples have scores that are not finite"):
        network.accuracy(x, t)


def test_larger_images_and_longer_sequences_are_taken(device):
    network = Network(unet((1, 8, 8), 3, 4, 1), (1, 8, 8))
    x, t = asarray(np.zeros((2, 1, 12, 16), "float32")), asarray(np.zeros((2, 12, 16), "int32"))
    assert network.predict(x).shape == (2, 3, 12, 16)
    assert 0 <= network.accuracy(x, t) <= 1
    assert network.outputs_of((1, 4, 6)) == (3, 4, 6)
    characters, _, _ = of_characters()
    assert characters.predict(asarray(np.zeros((2, 30), "int32"))).shape == (2, 30, 3)


def test_samples_of_another_kind_are_refused_with_their_shape():
    network, _, _ = of_pixels()
    with pytest.raises(ValueError, match=r"Convolution1.*\(3, 4, 6\)"):
        network.predict(np.zeros((5, 3, 4, 6), "float32"))
    swapped = Network(Sequential(Permute((2, 1))), (7, 3))
    assert swapped.output_dim == (3, 7)
    with pytest.raises(ValueError, match=r"samples x are \(N, 7, 3\), got samples of \(6, 3\)"):
        swapped.predict(np.zeros((5, 6, 3), "float32"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_comes_back_from_its_file(tmp_path, device, kind):
    network, x, _ = KINDS[kind](SoftmaxWithLoss(ignore_index=2))
    network.save_params(tmp_path / "network.safetensors")
    again = load_network(tmp_path / "network.safetensors")
    assert (repr(again), again.output_dim) == (repr(network), network.output_dim)
    assert again.last_layer.ignore_index == 2
    assert_same(again.predict(x), asnumpy(network.predict(x)))
    network.save_params(tmp_path / "network.npz")
    other, _, _ = KINDS[kind]()
    other.params.flat[...] = 0
    other.load_params(tmp_path / "network.npz")
    assert_same(other.predict(x), asnumpy(network.predict(x)))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_go_to_pytorch_and_back(kind):
    network, x, _ = KINDS[kind]()
    state = to_torch(network)
    other, _, _ = KINDS[kind]()
    other.params.flat[...] = 0
    assert_same(from_torch(other, state).predict(x), network.predict(x))


@pytest.mark.skipif(not HAS_ONNX, reason="onnx and onnxruntime are not installed")
@pytest.mark.parametrize("kind", KINDS)
def test_onnxruntime_computes_the_same_and_the_model_is_read_back(tmp_path, kind):
    import onnxruntime

    from training.interop.onnx_export import export_onnx
    from training.interop.onnx_import import from_onnx

    network, x, _ = KINDS[kind]()
    export_onnx(network, tmp_path / "network.onnx")
    run = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    assert run.get_outputs()[0].shape == ["batch", *network.output_dim]
    (found,) = run.run(None, {"x": x})
    np.testing.assert_allclose(found, network.predict(x), atol=1e-5)
    again = from_onnx(tmp_path / "network.onnx")
    assert (again.output_dim, again.classes) == (network.output_dim, 3)
    np.testing.assert_allclose(again.predict(x), network.predict(x), atol=1e-6)


@pytest.mark.skipif(not HAS_ONNX, reason="onnx and onnxruntime are not installed")
@pytest.mark.parametrize("kind", ["pixels", "steps"])
def test_a_softmax_at_the_end_of_a_model_is_the_losss(kind):
    from training.interop.onnx_export import to_onnx
    from training.interop.onnx_import import from_onnx

    network, x, _ = KINDS[kind]()
    ending = Network(Sequential(*network.layers.layers.values(), Softmax()), network.input_dim)
    again = from_onnx(to_onnx(ending))
    assert not any(isinstance(layer, Softmax) for layer in again.layers.layers.values())
    np.testing.assert_allclose(again.predict(x), network.predict(x), atol=1e-6)


@pytest.mark.skipif(not HAS_ONNX, reason="onnx and onnxruntime are not installed")
def test_a_softmax_of_each_pixel_before_a_row_of_numbers_stays():
    from training.interop.onnx_export import to_onnx
    from training.interop.onnx_import import from_onnx

    network, x, _ = of_pixels()
    ending = Network(Sequential(*network.layers.layers.values(), Softmax(), Flatten()), network.input_dim)
    again = from_onnx(to_onnx(ending))
    assert any(isinstance(layer, Softmax) for layer in again.layers.layers.values())
    np.testing.assert_allclose(again.predict(x), ending.predict(x), atol=1e-6)


@pytest.mark.skipif(not HAS_ONNX, reason="onnx and onnxruntime are not installed")
def test_a_sigmoid_of_pixels_is_refused_in_words():
    from training.interop.onnx_export import to_onnx
    from training.interop.onnx_import import from_onnx

    network, _, _ = of_pixels()
    ending = to_onnx(Network(Sequential(*network.layers.layers.values(), Sigmoid()), network.input_dim))
    del ending.metadata_props[:]  # a model of another program's
    with pytest.raises(ValueError, match=r"SigmoidWithLoss takes \(outputs,\), a row .*, got \(3, 4, 6\)"):
        from_onnx(ending)


def test_one_class_for_each_sample_is_refused_in_words():
    network, x, t = of_pixels()
    with pytest.raises(ValueError, match=r"makes \(3, 4, 6\) of a sample predicts no one class for it; use evaluate"):
        predict(network, [(x, t)])


def test_metrics_of_a_batch_are_those_of_all_places(device):
    network, x, t = of_pixels()
    metric = IoU()
    found = metric.value(asnumpy(metric.sums(network.last_layer, network.predict(x), t)))
    assert evaluate(network, [(x, t)], metrics=[metric]).metrics["iou"] == found


def test_an_embedding_behind_other_layers_takes_no_indices_itself():
    assert Network(Sequential(Embedding.of(3, 4)), (5,)).takes_indices
    assert not Network(Sequential(PositionwiseAffine.of(3, 4)), (5, 3)).takes_indices
