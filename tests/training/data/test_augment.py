"""Random changes of samples: what each does, and that they depend on seed, epoch and sample alone."""

import numpy as np
import pytest

import backend
from backend import asarray, asnumpy
from layers import HingeLoss, SoftmaxWithLoss
from training.data import Loader
from training.data.augment import (
    CHANGES,
    Augmentation,
    Color,
    Crop,
    CutMix,
    Cutout,
    Flip,
    Mixup,
    Turn,
    standard,
)

IMAGES = np.random.default_rng(0).random((12, 7, 6, 3)).astype("float32")
LABELS = np.arange(12, dtype="int32") % 3


def changed(change, u, dtype="float32"):
    """The result of a change on the active device, on the host; its inputs are shown not to be written to."""
    x, t = asarray(IMAGES.astype(dtype)), asarray(LABELS)
    y, labels = change.apply(x, t, np.asarray(u, "float64"), 3)
    np.testing.assert_array_equal(asnumpy(x), IMAGES.astype(dtype))
    assert y.dtype == dtype
    assert y.flags.c_contiguous
    return asnumpy(y), asnumpy(labels)


def test_flip_mirrors_half(device):
    u = np.linspace(0, 0.99, 12)[:, None]
    y, t = changed(Flip(), u)
    np.testing.assert_array_equal(y[:6], IMAGES[:6, :, ::-1])
    np.testing.assert_array_equal(y[6:], IMAGES[6:])
    np.testing.assert_array_equal(t, LABELS)


@pytest.mark.parametrize("share", [0, 0.3, 1])
def test_crop_is_a_window_of_the_padded_image(device, share):
    u = np.random.default_rng(1).random((12, 2))
    y, _ = changed(Crop(share), u)
    pads = [round(share * size) for size in (7, 6)]
    padded = np.pad(IMAGES, [(0, 0), *((pad, pad) for pad in pads), (0, 0)])
    for place in range(12):
        top, left = (int(u[place, axis] * (2 * pads[axis] + 1)) for axis in (0, 1))
        np.testing.assert_array_equal(y[place], padded[place, top : top + 7, left : left + 6])


def test_turn_samples_bilinearly(device):
    u = np.random.default_rng(1).random((12, 2))
    y, _ = changed(Turn(30, 0.2), u)
    for place in range(12):
        angle, factor = np.radians((2 * u[place, 0] - 1) * 30), 1 + (2 * u[place, 1] - 1) * 0.2
        for row, column in np.ndindex(7, 6):
            i, j = row - 3, column - 2.5
            source = (
                (np.cos(angle) * i - np.sin(angle) * j) / factor + 3,
                (np.sin(angle) * i + np.cos(angle) * j) / factor + 2.5,
            )
            expected = np.zeros(3)
            for r, c in np.ndindex(7, 6):
                weight = max(0, 1 - abs(source[0] - r)) * max(0, 1 - abs(source[1] - c))
                expected += weight * IMAGES[place, r, c]
            np.testing.assert_allclose(y[place, row, column], expected, atol=1e-6)


def test_a_turn_by_nothing_changes_nothing(device):
    y, _ = changed(Turn(0, 0), np.zeros((12, 2)))
    np.testing.assert_array_equal(y, IMAGES)


def test_cutout_leaves_a_square_out(device):
    u = np.full((12, 2), 0.5)
    y, _ = changed(Cutout(0.5), u)
    expected = IMAGES.copy()
    expected[:, 1:5, 2:5] = 0  # 4 of 7 rows about row 3, 3 of 6 columns about column 3
    np.testing.assert_array_equal(y, expected)


def test_color_changes_contrast_brightness_and_saturation(device):
    u = np.random.default_rng(1).random((12, 3))
    y, _ = changed(Color(0.5), u)
    factor, added, saturation = (((2 * u[:, k] - 1) * 0.5)[:, None, None, None] for k in range(3))
    gray = IMAGES.mean(axis=3, keepdims=True)
    expected = (gray + (IMAGES - gray) * (1 + saturation)) * (1 + factor) + added
    np.testing.assert_allclose(y, expected, atol=1e-6)
    u[:, :2] = 0.5  # neither contrast nor brightness: the mean of the channels stays
    y, _ = changed(Color(0.5), u)
    np.testing.assert_allclose(y.mean(axis=3, keepdims=True), gray, atol=1e-6)
    assert np.abs(y - IMAGES).max() > 0.05


def test_mixup_mixes_with_the_neighbor(device):
    u = np.random.default_rng(1).random((12, 1))
    y, t = changed(Mixup(), u)
    share, rows = u[:, :, None, None], np.eye(3)[LABELS]
    np.testing.assert_allclose(y, share * IMAGES + (1 - share) * np.roll(IMAGES, 1, axis=0), atol=1e-6)
    np.testing.assert_allclose(t, u * rows + (1 - u) * np.roll(rows, 1, axis=0), atol=1e-6)


def test_cutmix_mixes_labels_by_area(device):
    u = np.random.default_rng(1).random((12, 3))
    y, t = changed(CutMix(), u)
    other = np.roll(IMAGES, 1, axis=0)
    own, theirs = (y == IMAGES).all(axis=3), (y == other).all(axis=3)
    assert (own ^ theirs).all()
    share = own.mean(axis=(1, 2))[:, None]
    rows = np.eye(3)[LABELS]
    np.testing.assert_allclose(t, share * rows + (1 - share) * np.roll(rows, 1, axis=0), atol=1e-6)
    assert 0 < share.mean() < 1


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_sums_of_labels_stay_and_dtypes_are_kept(device, name, dtype):
    change = CHANGES[name]()
    _, t = changed(change, np.random.default_rng(2).random((12, change.draws)), dtype)
    if t.ndim == 2:
        np.testing.assert_allclose(t.sum(axis=1), 1, atol=1e-6)


def loader(batch_size=5, seed=3, names=tuple(CHANGES), **options):
    images = (IMAGES.transpose(0, 3, 1, 2) * 255).astype("uint8")
    augment = Augmentation(names, 3, 12, seed)
    return Loader(images, LABELS, batch_size, seed=1, augment=augment, **options)


def batches(loader, epoch=0, first=0):
    return [(asnumpy(x), asnumpy(t)) for x, t in loader.epoch(epoch, first)]


def test_the_same_bits_on_every_device(device):
    with backend.use("cpu"):
        expected = batches(loader())
    for (x, t), (y, u) in zip(batches(loader()), expected, strict=True):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(t, u)


def test_batches_can_be_made_again_and_epochs_begun_inside(device):
    whole = batches(loader(), epoch=2)
    for place, (x, t) in enumerate(whole):
        again = loader().batch(2, place)
        np.testing.assert_array_equal(asnumpy(again[0]), x)
        np.testing.assert_array_equal(asnumpy(again[1]), t)
    for (x, _), (y, _) in zip(whole[1:], batches(loader(), 2, first=1), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_sample_is_changed_alike_in_any_batch(prefetch):
    names = [name for name in CHANGES if name not in ("mixup", "cutmix")]
    few, many = (batches(loader(size, names=names, prefetch=prefetch)) for size in (2, 12))
    np.testing.assert_array_equal(np.concatenate([x for x, _ in few]), many[0][0])


def test_seeds_and_epochs_differ():
    one = batches(loader())[0][0]
    assert not np.array_equal(one, batches(loader(seed=4))[0][0])
    of_epochs = [np.sort(batches(loader(12), epoch)[0][0].reshape(12, -1).sum(axis=1)) for epoch in (0, 1)]
    assert not np.array_equal(*of_epochs)
    assert loader().identity() != loader(seed=4).identity() != loader(names=["flip"], seed=4).identity()


def test_standard_changes_and_mistakes():
    assert standard((3, 32, 32)) == ("flip", "crop")
    assert standard((1, 28, 28)) == ("crop", "turn")
    with pytest.raises(ValueError, match=r"augmentation is for images \(C, H, W\), got inputs of \(5,\)"):
        standard((5,))
    with pytest.raises(ValueError, match="changes must be one of"):
        Augmentation(["twist"], 3, 12)
    with pytest.raises(ValueError, match="degrees"):
        Turn(float("nan"))


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_mixed_labels_are_for_losses_that_take_them(name):
    data = Loader(IMAGES, LABELS, 4, augment=Augmentation(["flip", name], 3, 12))
    data.check_targets(SoftmaxWithLoss(label_smoothing=0.1), lambda shape: (3,))
    Loader(IMAGES, LABELS, 4, augment=Augmentation(["flip"], 3, 12)).check_targets(HingeLoss(), lambda shape: (3,))
    for loss in (HingeLoss(), SoftmaxWithLoss(ignore_index=-1)):
        with pytest.raises(ValueError, match=rf"{name} mixes labels, which {type(loss).__name__}\(.*\) does not take"):
            data.check_targets(loss, lambda shape: (3,))
