"""Pictures as a network's input: as the training images were made, and as the model's file says."""

import json

import numpy as np
import pytest
from PIL import Image

from training.data import load
from training.data.pictures import FASHION_MNIST, MNIST, ImageError, Picture, Preparation, prepare
from training.data.pictures.likeness import Likeness

GRAY = (1, 28, 28)


@pytest.fixture(scope="module")
def data():
    return load()


@pytest.fixture(scope="module")
def digits(data):
    """Ten test images (28, 28), float32."""
    return data.test_images[:10, 0] / np.float32(255)


@pytest.fixture(scope="module")
def described(data):
    """Return the description of a model's input after a round trip through JSON."""
    return json.loads(json.dumps({"input": Preparation.describe(data.name, data.train_images)}))


def large(digit, scale=5, margin=30):
    """A digit in dark ink on white."""
    pixels = Image.fromarray(digit).resize((28 * scale, 28 * scale), Image.Resampling.BICUBIC)
    return np.pad(1 - np.asarray(pixels).clip(0, 1), margin, constant_values=1).astype(np.float32)


def picture(pixels):
    return Picture(pixels.astype(np.float32), pixels.shape[:2])


def likeness(one, other):
    """The correlation of two images, at best after a shift by a pixel: a center may lie between two."""
    shifts = [(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1)]
    return max(np.corrcoef(np.roll(one, shift, (0, 1)).ravel(), other.ravel())[0, 1] for shift in shifts)


def test_images_of_the_data_set_are_used_as_they_are(data):
    images = data.test_images[:500, 0] / np.float32(255)
    for image in images:
        for given in (image, 1 - image):
            prepared, findings = prepare(given)
            assert findings == ()
            np.testing.assert_allclose(prepared, image, atol=1e-7)
        assert np.array_equal(prepare(image)[0], image)  # the loader's values, bit for bit


def test_a_name_alone_does_not_say_how_images_were_prepared(data):
    images = data.train_images[:300]
    for given, expected in (
        (images, "mnist"),
        (images / np.float32(255), "mnist"),
        (255 - images, "none"),  # dark on bright: a model of them takes pictures as they are
        (np.roll(images, 4, axis=3), "none"),
        (images.repeat(3, axis=1), "none"),
    ):
        assert Preparation.describe("mnist", given)["preparation"] == expected
    assert Preparation.describe("digits", images)["preparation"] == "none"


def test_the_framing_is_that_of_the_data_set(digits):
    for digit in digits:
        rows, columns = np.nonzero(digit)
        assert max(np.ptp(rows), np.ptp(columns)) + 1 == round(28 * MNIST.fill)


@pytest.mark.parametrize("turned", ["dark on bright", "bright on dark"])
@pytest.mark.parametrize("scale", [1, 2, 5, 12])
def test_enlarged_digits_come_back(scale, turned, digits):
    for digit in digits:
        page = large(digit, scale, 6 * scale)
        prepared, findings = prepare(page if turned == "dark on bright" else 1 - page)
        assert findings == ()
        assert likeness(prepared, digit) > 0.7


def disturbances(page):
    """The same page with something on it that is not the digit."""
    height, width = page.shape
    one_pixel, half, ruled, corner, blot = (page.copy() for _ in range(5))
    one_pixel[height // 2, 3] = 0
    half[:, : width // 2] *= 0.4
    ruled[12::25] *= 0.6
    corner[:9, :14] = 0.2
    blot[-12:-8, 6:10] = 0
    y = np.linspace(0.3, 1, height)[:, None]
    noise = np.random.default_rng(0).normal(0, 0.05, page.shape)
    return {
        "one dark pixel": one_pixel,
        "half in shadow": half,
        "ruled": ruled,
        "a dark corner": corner,
        "a blot": blot,
        "light from above": page * y,
        "noise": (page + noise).clip(0, 1),
        "off-center": np.pad(page, ((0, 300), (200, 0)), mode="edge"),
    }


@pytest.mark.parametrize("name", disturbances(np.ones((60, 60))))
def test_what_is_not_the_digit_makes_no_difference(name, digits):
    for digit in digits:
        page = large(digit)
        plain, _ = prepare(page)
        assert likeness(prepare(disturbances(page)[name].astype(np.float32))[0], plain) > 0.85


def test_digits_of_several_strokes_stay_whole():
    page = np.ones((200, 160), np.float32)
    page[30:170, 40:52] = page[30:42, 62:120] = page[60:170, 110:122] = 0.1  # three strokes that do not touch
    prepared, findings = prepare(page)
    assert findings == ()
    assert prepared.any(axis=1).sum() == 20
    assert prepared[:, 20:].sum() > 10


def test_several_figures_are_doubted(digits):
    both = np.concatenate([large(digits[0]), large(digits[1])], axis=1)
    assert prepare(both)[1] == ("several figures",)


def test_thin_and_thick_strokes_get_the_width_of_the_training_images():
    widths = []
    for stroke in (2, 30):
        page = np.ones((260, 200), np.float32)
        page[40:220, 100 - stroke // 2 : 100 + stroke // 2] = 0.1
        prepared, _ = prepare(page)
        widths.append(prepared.sum() / 20)
        assert prepared.max() > 0.8
    assert 1.2 < widths[0] <= widths[1] < 4


@pytest.mark.parametrize("level", [0.1, 0.5, 0.95])
def test_a_blank_picture_is_refused(level):
    noise = np.random.default_rng(0).normal(0, 0.02, (80, 60))
    for page in (np.full((80, 60), level), np.full((28, 28), level), (level + noise).clip(0, 1)):
        with pytest.raises(ImageError, match="a blank image"):
            prepare(page.astype(np.float32))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 3), (3, 500)])
def test_pictures_of_any_shape_are_prepared_or_refused(shape):
    rng = np.random.default_rng(0)
    for page in (rng.random(shape), np.eye(*shape), np.zeros(shape)):
        for framing in (MNIST, FASHION_MNIST):
            try:
                prepared, _ = prepare(page.astype(np.float32), framing=framing)
            except ImageError:
                continue
            assert prepared.shape == (28, 28)
            assert 0 <= prepared.min() <= prepared.max() <= 1


def test_clothes_fill_the_frame_in_its_middle():
    page = np.zeros((120, 90), np.float32)
    page[10:110, 20:70] = 1
    page[10:60, 45:70] = 0.5
    page[3, 3] = 1  # a speck
    prepared, _ = prepare(1 - page, framing=FASHION_MNIST)
    rows, columns = np.nonzero(prepared)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 27, 7, 20)
    dress = np.zeros((28, 28), np.float32)
    dress[:, 6:22] = dress[0] = dress[-1] = 1  # from edge to edge: half of the border is bright
    assert np.array_equal(prepare(dress, framing=FASHION_MNIST)[0], dress)


def test_other_frames(digits):
    prepared, _ = prepare(large(digits[0]), (32, 48))
    assert prepared.shape == (32, 48)
    rows, columns = np.nonzero(prepared > 0.1)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in (22, 23, 24)  # 20/28 of 32


def test_a_models_file_says_how_pictures_are_prepared(described, digits):
    page = picture(large(digits[3]))
    known = Preparation.from_config(described, GRAY)
    assert known.name == "mnist"
    assert np.array_equal(known(page).image[0], prepare(page.gray())[0])
    assert known(page).warnings == ()
    assert Preparation.from_config({"dataset": "fashion-mnist"}, GRAY).name == "fashion-mnist"
    assert len(json.dumps(described)) < 20_000


@pytest.mark.parametrize("config", [{}, {"dataset": "mine"}, {"input": {"preparation": "none"}}])
def test_images_of_ones_own_are_only_brought_to_size(config):
    """Bright on the border, off-center, low in contrast: nothing is inverted, reframed or stretched."""
    rng = np.random.default_rng(0)
    own = (0.6 + 0.3 * rng.random((28, 28))).astype(np.float32)
    preparation = Preparation.from_config(config, GRAY)
    assert preparation.name == "none"
    assert np.array_equal(preparation(picture(own)).image[0], own)
    blocks = np.kron(own, np.ones((4, 4), np.float32))
    np.testing.assert_allclose(preparation(picture(blocks)).image[0], own, atol=0.1)


def test_color_is_kept_where_the_model_takes_it_and_gray_where_not():
    color = np.random.default_rng(0).random((8, 9, 3)).astype(np.float32)
    kept = Preparation.from_config({"dataset": "mine"}, (3, 8, 9))(picture(color)).image
    assert np.array_equal(kept, color.transpose(2, 0, 1))
    gray = Preparation.from_config({"dataset": "mine"}, (1, 8, 9))(picture(color)).image
    np.testing.assert_allclose(gray[0], color @ [0.299, 0.587, 0.114], atol=0.003)
    from_gray = Preparation.from_config({"dataset": "mine"}, (3, 8, 9))(picture(color[..., 0])).image
    assert np.array_equal(from_gray, np.stack([color[..., 0]] * 3))


@pytest.mark.parametrize("shape", [(784,), (2, 28, 28), (4, 28, 28), (1, 28), (0, 28, 28)])
def test_a_model_that_takes_no_pictures_is_refused(shape):
    with pytest.raises(ValueError, match="an image file gives"):
        Preparation.from_config({}, shape)


DAMAGED = [
    7,
    {},
    {"preparation": ["mnist"]},
    {"preparation": "mnist\x1b"},
    {"preparation": "mnist", "likeness": 3},
    {"preparation": "mnist", "likeness": {}},
    {"preparation": "mnist", "likeness": {"grid": [7, 7], "mean": [0.0], "whitening": [1.0], "limit": 1}},
    {"preparation": "mnist", "likeness": {"grid": [10**9, 10**9], "mean": [], "whitening": [], "limit": 1}},
    {"preparation": "mnist", "likeness": {"grid": ["7", 7], "mean": [], "whitening": [], "limit": 1}},
    {"preparation": "mnist", "likeness": {"grid": [1, 1], "mean": ["x"] * 3, "whitening": [0] * 6, "limit": 1}},
    {"preparation": "mnist", "likeness": {"grid": [1, 1], "mean": [1e999] * 3, "whitening": [0] * 6, "limit": 1}},
]


@pytest.mark.parametrize("about_input", DAMAGED)
def test_a_damaged_description_is_refused_in_one_line(about_input):
    with pytest.raises(ValueError, match="the model's input") as refused:
        Preparation.from_config({"input": about_input}, GRAY)
    assert str(refused.value).isprintable()


def test_the_likeness_of_training_images(data, described):
    like = Preparation.from_config(described, GRAY).likeness
    images = data.test_images / np.float32(255)
    assert np.mean([like.includes(image) for image in images]) > 0.99
    rng = np.random.default_rng(0)
    for image in (np.ones(GRAY), rng.random(GRAY), 1 - images[0]):
        assert not like.includes(image.astype(np.float32))
    same = Likeness.from_config(like.as_config(), GRAY)
    assert same.distance(images[0]) == pytest.approx(like.distance(images[0]), rel=1e-3)


def test_the_likeness_of_color_images_and_of_few():
    rng = np.random.default_rng(0)
    ground = rng.random((300, 3, 1, 1)) * np.ones((300, 3, 16, 16))
    images = (ground * 255).astype(np.uint8)
    like = Likeness.of(images)
    assert np.mean([like.includes(image / np.float32(255)) for image in images]) > 0.99
    assert not like.includes(rng.random((3, 16, 16)).astype(np.float32).round())
    assert Likeness.of(images[:20]) is None
    assert Likeness.of(np.full((300, 1, 4, 4), np.nan, np.float32)) is None
