"""Photographs of digits: what a trained model reads of them, and what is doubted."""

import numpy as np
import pytest
from PIL import Image

import backend
from bench.photographs.draw import KINDS, draw, thinned
from bench.photographs.measure import photographs, score_digits, score_nonsense
from bench.photographs.nonsense import NONSENSE
from layers import softmax
from training.data import load
from training.data.pictures import Picture, Preparation
from training.loop.recipe import build_trainer, describe_input
from training.loop.settings import Settings

EACH = 16
"""Pictures of a kind; `python -m bench photographs` shows more."""


@pytest.fixture(scope="module")
def data():
    return load()


@pytest.fixture(scope="module")
def network(data):
    """The default model after two epochs: 97 to 98 % of the test images right."""
    with backend.use("cpu"):
        trainer = build_trainer(Settings(epochs=2), data.as_data())
        describe_input(trainer.network, data.as_data())
        trainer.train()
        return trainer.network


def test_photographs_are_read_and_rarely_doubted(network, data):
    scores = list(score_digits(network, data, EACH))
    assert [score.kind for score in scores] == list(KINDS)
    few = {score.kind: score.right for score in scores if score.right < 0.8 * EACH}
    assert not few
    assert sum(score.right for score in scores) >= 0.93 * EACH * len(KINDS)
    assert sum(score.doubted for score in scores) <= 0.05 * EACH * len(KINDS)


def test_pictures_without_a_digit_are_doubted(network, data):
    scores = list(score_nonsense(network, data, 8))
    assert [score.kind for score in scores] == list(NONSENSE)
    assert not {score.kind: score.doubted for score in scores if score.doubted < 5}
    assert sum(score.doubted for score in scores) >= 0.85 * 8 * len(NONSENSE)


def one_dark_pixel(page, rng):
    row, column = rng.integers(page.shape[0]), rng.integers(6)
    page[row, column] = 0
    return page


def half_in_shadow(page, rng):
    page[:, : page.shape[1] // 2] *= 0.5
    return page


@pytest.mark.parametrize("disturb", [one_dark_pixel, half_in_shadow])
def test_digits_that_are_read_surely_stay_right(disturb, network, data):
    images = data.test_images / np.float32(255)
    sure = np.asarray(softmax(network.predict(backend.asarray(images)))).max(axis=1) > 0.999
    right = np.flatnonzero(sure & (network.predict(images).argmax(axis=1) == data.test_labels))[:60]
    rng = np.random.default_rng(0)
    preparation = Preparation.from_config(network.config, (1, 28, 28))
    read = 0
    for chosen in right:
        pixels = np.asarray(Image.fromarray(images[chosen, 0]).resize((84, 84), Image.Resampling.BICUBIC)).clip(0, 1)
        page = disturb(np.pad(1 - pixels, 14, constant_values=1), rng)
        image = preparation(Picture(page, page.shape)).image
        read += network.predict(image[None]).argmax() == data.test_labels[chosen]
    assert read >= 0.95 * len(right)


def test_the_same_seed_draws_the_same_pages(data):
    for kind in ("plain", "thin", "combined"):
        pages, again, others = (list(photographs(data, kind, 3, seed)) for seed in (1, 1, 2))
        for (page, label), (same, same_label) in zip(pages, again, strict=True):
            assert label == same_label
            assert np.array_equal(page, same)
        assert any(page.shape != other.shape for (page, _), (other, _) in zip(pages, others, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_pages_are_grey_and_show_ink(kind, data):
    page = draw(data.test_images[0, 0], kind, np.random.default_rng(0))
    assert page.ndim == 2
    assert min(page.shape) >= 20
    assert np.ptp(page) > 0.1


def test_thinning_keeps_lines_of_one_pixel():
    mask = np.zeros((40, 40), bool)
    mask[5:35, 10:17] = mask[28:35, 10:32] = True
    lines = thinned(mask)
    assert not (lines & ~mask).any()
    assert 35 < lines.sum() < 60
    assert lines[8:30].sum(axis=1).max() == 1
