"""A ``Trainer`` over networks of pixels and steps: tiny tasks learned, labels of every form, and runs that go on."""

import numpy as np
import pytest

from backend import asarray, asnumpy, random
from layers import (
    LSTM,
    Affine,
    Convolution,
    Embedding,
    PositionalEncoding,
    PositionwiseAffine,
    Sequential,
    SoftmaxWithLoss,
)
from tests.training.loop.small_runs import Every, numbers
from training import SGD, Adam, Loader, Trainer
from training.data.augment import Augmentation
from training.data.batches import Batches
from training.data.normalization import Normalization
from training.data.rows import Rows
from training.loop import checkpoint
from training.loop.epoch_so_far import EpochSoFar
from training.loop.non_finite import find_non_finite
from training.loop.progress import Progress
from training.loop.step import gradients_in_parts
from training.models import Network
from training.zoo.recurrent import char_lstm
from training.zoo.transformer import encoder
from training.zoo.unet import unet

TEXT = "the cat sat on the mat, and the rat sat on the cat. " * 6


def shapes(samples, seed):
    """Return noise, uint8, with a brighter square or a darker disc, 16x16; and 1 and 2 where they are, else 0."""
    rng = np.random.default_rng(seed)
    x, t = rng.normal(120, 15, (samples, 1, 16, 16)), np.zeros((samples, 16, 16), "uint8")
    down, across = np.mgrid[:16, :16]
    for number, (image, label) in enumerate(zip(x, t, strict=True)):
        (row, column), size = rng.integers(4, 12, 2), rng.integers(2, 4)
        far = np.stack([abs(down - row), abs(across - column)])
        inside = (far.max(axis=0) <= size) if number % 2 else ((far**2).sum(axis=0) <= size**2 + 1)
        image[0, inside] += 70 if number % 2 else -70
        label[inside] = 1 if number % 2 else 2
    return x.clip(0, 255).astype("uint8"), t


def text(length=12):
    """Return the alphabet, and pieces of a text as indices and those that follow: int (N, length) twice."""
    alphabet = sorted(set(TEXT))
    codes = np.array([alphabet.index(character) for character in TEXT])
    places = np.arange(0, len(codes) - length - 1, 3)[:, None] + np.arange(length + 1)
    return alphabet, codes[places[:, :-1]], codes[places[:, 1:]]


def segmentation(epochs=10, callbacks=(), collection=False, batch=8):
    random.seed(4)
    (x, t), (other_x, other_t) = shapes(48, 0), shapes(24, 1)
    network = Network(unet((1, 16, 16), 3, 6, 2), (1, 16, 16))
    if collection:
        train = Batches([(x[at : at + batch], t[at : at + batch]) for at in range(0, 48, batch)])
    else:
        train = Loader(x, t, batch, seed=2)
    test = Loader(other_x, other_t, 12, shuffle=False)
    return Trainer(network, train, test, Adam(0.02), epochs=epochs, callbacks=callbacks, metrics=["iou", "confusion"])


def writing(epochs=6, callbacks=(), collection=False, batch=12):
    random.seed(4)
    alphabet, x, t = text()
    network = Network(char_lstm(len(alphabet), 12, 48), (x.shape[1],))
    if collection:
        train = Batches([(x[at : at + batch], t[at : at + batch]) for at in range(0, len(x), batch)])
    else:
        train = Loader(x, t, batch, seed=2)
    return Trainer(network, train, Loader(x, t, 40, shuffle=False), Adam(0.02), epochs=epochs, callbacks=callbacks)


TASKS = {"segmentation": segmentation, "writing": writing}


def test_a_unet_finds_squares_and_discs():
    trainer = segmentation()
    history = trainer.train(quiet=True)
    assert history[-1].metrics["iou"] > 0.85
    x, t = shapes(24, 1)
    decided = asnumpy(trainer.network.predict(asarray((x / np.float32(255)).astype("float32")))).argmax(axis=1)
    unions = [((decided == c) & (t == c)).sum() / ((decided == c) | (t == c)).sum() for c in range(3)]
    assert history[-1].metrics["iou"] == pytest.approx(np.mean(unions), rel=1e-12)
    assert history[-1].test_accuracy == pytest.approx((decided == t).mean(), rel=1e-12)
    assert np.sum(history[-1].metrics["confusion"]) == t.size


def test_an_lstm_learns_a_text():
    """All but the first characters of a piece follow from those before them."""
    trainer = writing()
    history = trainer.train(quiet=True)
    assert history[-1].test_accuracy > 0.9
    alphabet, _, _ = text()
    written = [alphabet.index(character) for character in "the cat sat"]
    for _ in range(8):
        scores = asnumpy(trainer.network.predict(asarray(np.array([written[-12:]]))))
        written.append(int(scores[0, -1].argmax()))
    assert "".join(alphabet[code] for code in written) in TEXT


def test_a_causal_transformer_learns_a_text():
    random.seed(4)
    alphabet, x, t = text()
    blocks = encoder(1, 32, 4, 64, causal=True)
    ends = Embedding.of(len(alphabet), 32), PositionwiseAffine.of(32, len(alphabet), "xavier")
    network = Network(Sequential(ends[0], PositionalEncoding(12, 32), *blocks, ends[1]), (12,))
    test = Loader(x, t, 40, shuffle=False)
    history = Trainer(network, Loader(x, t, 12, seed=2), test, Adam(0.01), epochs=8).train(quiet=True)
    assert history[-1].test_accuracy > 0.85
    later = x[:2].copy()
    later[:, 6:] = 0
    before, after = (asnumpy(network.predict(asarray(given)))[:, :6] for given in (x[:2], later))
    np.testing.assert_allclose(before, after, atol=1e-5)  # no position sees a later one


@pytest.mark.parametrize("collection", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_a_run_goes_on_from_a_checkpoint_to_the_same_bits(tmp_path, device, task, collection):
    file, saved_at = tmp_path / "run.safetensors", 4

    def save(run, step):
        if step == saved_at:  # inside an epoch
            checkpoint.save(run, file)

    whole = TASKS[task](2, [Every(save)], collection, batch=16 if task == "segmentation" else 40)
    assert len(whole.train_loader) == 3
    whole.train(quiet=True)
    random.seed(99)
    again = TASKS[task](2, (), collection, batch=16 if task == "segmentation" else 40)
    again.resume(file)
    assert again.step == saved_at
    again.train(quiet=True)
    assert [numbers(result) for result in again.history] == [numbers(result) for result in whole.history]
    assert asnumpy(again.network.params.flat).tobytes() == asnumpy(whole.network.params.flat).tobytes()


@pytest.mark.parametrize("ignore_index", [None, 0])
@pytest.mark.parametrize("parts", [1, 3])
def test_the_figures_of_an_epoch_are_those_of_all_pixels(device, parts, ignore_index):
    """With a learning rate of nothing the network is the same in all steps."""
    random.seed(0)
    x, t = shapes(20, 3)
    loss = SoftmaxWithLoss(ignore_index=ignore_index)
    network = Network(Sequential(Convolution.of(1, 3, 3, pad=1)), (1, 16, 16), loss=loss)
    data = Loader(x, t, 8, shuffle=False)
    (result,) = Trainer(network, data, data, SGD(1e-30), epochs=1, parts=parts).train(quiet=True)
    assert result.accuracy == pytest.approx(result.test_accuracy, rel=1e-12)
    scores = asnumpy(network.predict(asarray((x / np.float32(255)).astype("float32")))).transpose(0, 2, 3, 1)
    counted = np.ones(t.shape, bool) if ignore_index is None else t != ignore_index
    assert result.test_accuracy == pytest.approx((scores.argmax(axis=3) == t)[counted].mean(), rel=1e-12)
    wide = scores[counted].astype("float64")
    loss = np.log(np.exp(wide).sum(axis=1)) - wide[np.arange(len(wide)), t[counted]]
    assert result.test_loss == pytest.approx(loss.mean(), rel=1e-5)
    assert result.loss == pytest.approx(result.test_loss, rel=1e-5)


@pytest.mark.parametrize(("data", "images"), [("loader", 20), ("iterator", 20), ("classifier", None)])
def test_the_rate_of_a_training_counts_samples_and_not_pixels(monkeypatch, data, images):
    x, t = shapes(20, 3)
    given = []
    figures = EpochSoFar.figures

    def keep(so_far, count=None):
        given.append(count)
        return figures(so_far, count)

    monkeypatch.setattr(EpochSoFar, "figures", keep)
    loader = Loader(x, t[:, 0, 0] if data == "classifier" else t, 8)
    layers = [Convolution.of(1, 3, 3, pad=1), *([Affine.of(768, 3)] if data == "classifier" else [])]
    train = iter(list(loader.epoch(0))) if data == "iterator" else loader
    Trainer(Network(Sequential(*layers), (1, 16, 16)), train, loader, SGD(), epochs=1).train(quiet=True)
    assert given == [images]
    so_far = EpochSoFar(np)
    so_far.resume(3, 4.0, 0)
    so_far.totals[...] = 10, 2560, 5120
    assert so_far.figures(20) == {"loss": 10 / 5120, "accuracy": 0.5, "images_per_second": 5.0}
    assert so_far.figures()["images_per_second"] == 1280


@pytest.mark.parametrize("task", TASKS)
def test_progress_counts_samples_and_not_pixels_or_steps(task):
    shown = []

    class Look(Progress):
        def show(self, trainer, loss, accuracy, samples, rate):
            shown.append((samples, loss, accuracy))

    trainer = TASKS[task](epochs=2, callbacks=[Look(interval=0.0)])
    trainer.train(quiet=True)
    loader = trainer.train_loader
    of_an_epoch = [min(loader.batch_size * step, loader.samples) for step in range(1, len(loader) + 1)]
    assert [samples for samples, _, _ in shown] == of_an_epoch * 2
    assert all(0 <= accuracy <= 1 and loss < 10 for _, loss, accuracy in shown)


@pytest.mark.parametrize("ignore_index", [None, 1])
def test_gradients_in_parts_are_those_of_the_batch(device, ignore_index):
    random.seed(0)
    network = Network(
        Sequential(LSTM.of(2, 4), PositionwiseAffine.of(4, 3)), (6, 2), loss=SoftmaxWithLoss(ignore_index=ignore_index)
    ).astype("float64")
    rng = np.random.default_rng(0)
    x, t = asarray(rng.standard_normal((7, 6, 2))), asarray(rng.integers(0, 3, (7, 6)))
    expected, loss = asnumpy(network.gradient(x, t).flat), float(network.loss(x, t))
    found, figures = gradients_in_parts(network, x, t, 1.0, Rows(0, 7, 7).parts(3))
    np.testing.assert_allclose(asnumpy(network.grads.flat), expected, atol=1e-14)
    assert float(found) == pytest.approx(loss, rel=1e-12)
    assert int(figures[2]) == (42 if ignore_index is None else int((asnumpy(t) != 1).sum()))


def test_integers_of_two_axes_are_class_indices_for_scores_of_steps_alone():
    x, t = np.zeros((6, 4, 2), "float32"), np.arange(24).reshape(6, 4) % 3
    loader = Loader(x, t, 6, shuffle=False)
    steps = Network(Sequential(PositionwiseAffine.of(2, 3)), (4, 2))
    of_steps = loader.for_network(steps)
    ((_, numbers_of_batch),), ((_, indices),) = list(loader.epoch(0)), list(of_steps.epoch(0))
    assert (numbers_of_batch.dtype, indices.dtype) == ("float32", "int32")
    np.testing.assert_array_equal(indices, t)
    assert of_steps.for_network(steps) is of_steps
    assert loader.for_network(Network(Sequential(Convolution.of(1, 2, 3)), (1, 8, 8))).batch(0, 0)[1].dtype == "int32"


@pytest.mark.parametrize(
    ("dtype", "expected"), [("int16", "int32"), ("int32", "int32"), ("uint32", "int64"), ("int64", "int64")]
)
def test_indices_stay_integers(device, dtype, expected):
    x = np.arange(24).reshape(6, 4).astype(dtype)
    loader = Loader(x, x % 5, 4, shuffle=False, dtype="float16")
    batches = list(loader.epoch(0))
    assert {(str(a.dtype), str(b.dtype)) for a, b in batches} == {(expected, "int32")}
    np.testing.assert_array_equal(np.concatenate([asnumpy(a) for a, _ in batches]), x)
    assert loader.gives_indices


def test_indices_in_a_mapped_file_are_read_as_they_are(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(24, dtype="int32").reshape(6, 4))
    ((x, _),) = list(Loader(np.load(tmp_path / "x.npy", mmap_mode="r"), np.arange(6), 9, shuffle=False).epoch(0))
    np.testing.assert_array_equal(x, np.arange(24, dtype="int32").reshape(6, 4), strict=True)


@pytest.mark.parametrize("options", [
    {"normalization": Normalization((0.0,), (1.0,))}, {"augment": Augmentation(["color"], 3, 6)}
])  # fmt: skip
def test_indices_are_neither_normalized_nor_augmented(options):
    with pytest.raises(ValueError, match="indices are neither normalized nor augmented, got images of int64"):
        Loader(np.zeros((6, 4), "int64"), np.zeros(6, "int64"), 3, **options)


@pytest.mark.parametrize("collection", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_a_label_out_of_range_is_named_before_the_first_step(task, collection):
    x, t = shapes(6, 0) if task == "segmentation" else text()[1:]
    t = t[:6].astype("int64")
    index = (4, 3, 2)[: t.ndim]
    t[index] = 77
    network = TASKS[task]().network
    before = network.params.flat.copy()
    data = [(x[:6], t)] if collection else Loader(x[:6], t, 6)
    place = "batch 0: " if collection else "training data: "
    with pytest.raises(ValueError, match=rf"{place}label 77 at index \({', '.join(map(str, index))}\) is out of range"):
        Trainer(network, data, data, SGD(), epochs=1).train(quiet=True)
    np.testing.assert_array_equal(network.params.flat, before)


def test_labels_of_another_size_are_named_before_the_first_step():
    x, t = shapes(6, 0)
    network = segmentation().network
    with pytest.raises(
        ValueError, match=r"training data: labels for scores of \(6, 3, 16, 16\) are .* got \(6, 8, 8\)"
    ):
        Trainer(network, Loader(x, t[:, ::2, ::2], 6), Loader(x, t, 6), SGD(), epochs=1)
    with pytest.raises(ValueError, match=r"training data: .*Convolution"):
        Trainer(network, Loader(x.repeat(2, axis=1), t, 6), Loader(x, t, 6), SGD(), epochs=1)


def test_larger_images_are_trained_on(device):
    x, t = shapes(8, 0)
    network = segmentation().network
    large = Loader(np.tile(x, (1, 1, 1, 2)), np.tile(t, (1, 1, 2)), 4)
    (result,) = Trainer(network, large, Loader(x, t, 8), SGD(0.01), epochs=1).train(quiet=True)
    assert np.isfinite(result.test_loss)


@pytest.mark.parametrize("change", ["flip", "crop", "turn", "mixup", "cutmix"])
def test_changes_that_move_pixels_are_refused(change):
    x, t = shapes(6, 0)
    data = Loader(x, t, 6, augment=Augmentation([change], 3, 6))
    with pytest.raises(ValueError, match=f"{change} moves or mixes pixels and not their labels.*can be cutout, color"):
        Trainer(segmentation().network, data, Loader(x, t, 6), SGD(), epochs=1)


def test_changes_of_colors_are_taken(device):
    x, t = shapes(6, 0)
    data = Loader(x, t, 6, augment=Augmentation(["color", "cutout"], 3, 6))
    (result,) = Trainer(segmentation().network, data, Loader(x, t, 6), SGD(0.01), epochs=1).train(quiet=True)
    assert np.isfinite(result.loss)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_loader_of_numbers_is_refused_where_indices_are_needed(dtype):
    trainer = writing()
    data = Loader(np.zeros((6, 12), dtype), np.zeros((6, 12), "int32"), 6)
    with pytest.raises(TypeError, match=f"training data: Network takes indices, .* and not uint8, got {dtype}"):
        Trainer(trainer.network, data, data, SGD(), epochs=1)


@pytest.mark.parametrize("mapped", [False, True])
def test_an_index_without_a_row_is_named_before_the_first_step(tmp_path, mapped):
    trainer = writing()
    count, before = trainer.network.index_count, trainer.network.params.flat.copy()
    x, t = (array.copy() for array in text()[1:])
    x[41, 7] = count
    if mapped:
        np.save(tmp_path / "x.npy", x)
        x = np.load(tmp_path / "x.npy", mmap_mode="r")
    words = rf"training data: sample 41 at \(7,\) has index {count}, expected 0 to {count - 1}"
    with pytest.raises(ValueError, match=words):
        Trainer(trainer.network, Loader(x, t, 12), trainer.test_loader, SGD(), epochs=1)
    np.testing.assert_array_equal(trainer.network.params.flat, before)


def test_an_index_without_a_row_is_where_nan_comes_from():
    network = writing().network
    x, t = (array[:4].copy() for array in text()[1:])
    x[2, 5] = -1
    found = find_non_finite(network, asarray(x), asarray(t))
    expected = f"index -1 at (5,), expected 0 to {network.index_count - 1}"
    assert found.place == f"the input: sample 2 of the batch has {expected}"


def test_large_numbers_are_targets_of_indices_as_they_are():
    """Not class indices, which would wrap around in int32."""
    random.seed(0)
    network = Network(Sequential(Embedding.of(5, 4), Affine.of(12, 2)), (3,), loss="mean-squared")
    x, t = np.arange(12).reshape(4, 3) % 5, np.full((4, 2), 3_000_000_000)
    loader = Loader(x, t, 4).for_network(network)
    ((_, given),) = loader.epoch(0)
    assert given.dtype == "float32"
    np.testing.assert_array_equal(asnumpy(given), t)


def test_masks_that_are_true_or_false_are_classes_of_pixels():
    network = Network(Sequential(Convolution.of(1, 2, 3, pad=1)), (1, 4, 4))
    x, t = np.zeros((2, 1, 4, 4), "float32"), np.eye(4, dtype=bool)[None].repeat(2, axis=0)
    trainer = Trainer(network, Batches([(x, t)]), Batches([(x, t)]), SGD(), epochs=1)
    assert trainer.train(quiet=True)[0].test_accuracy in np.arange(17) / 16
    with pytest.raises(TypeError, match="batch 0: labels are class indices, of an integer dtype, got float32"):
        Trainer(network, Batches([(x, t * 1.0)]), Batches([(x, t)]), SGD(), epochs=1).train(quiet=True)


def test_a_label_that_is_not_a_class_is_where_nan_comes_from():
    network = segmentation().network
    x, t = shapes(4, 0)
    t = t.astype("int32")
    t[2, 5, 7] = 9
    found = find_non_finite(network, asarray((x / 255).astype("float32")), asarray(t))
    assert found.place == "the labels: sample 2 of the batch has 9 at (5, 7), expected 0 to 2"
