"""Image files as a network's input."""

import numpy as np
import pytest
from PIL import Image

from training.data import load
from training.images import FASHION_MNIST, MNIST, ImageError, load_image, prepare, read_grayscale


@pytest.fixture(scope="module")
def digits():
    """Ten test images (28, 28), uint8."""
    return load().test_images[:10, 0]


def draw(height, width, box, background=0.0, ink=1.0):
    """A rectangle (top, left, bottom, right) on a page."""
    page = np.full((height, width), background, np.float32)
    page[box[0] : box[2], box[1] : box[3]] = ink
    return page


def centre_of_mass(image):
    return [float((image.sum(axis=1 - axis) @ np.arange(image.shape[axis])) / image.sum()) for axis in range(2)]


def extent(image, threshold=0.0):
    rows, columns = np.nonzero(image > threshold)
    return np.ptp(rows) + 1, np.ptp(columns) + 1


def likeness(a, b):
    """The correlation of two images."""
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def test_an_image_of_the_right_size_is_taken_as_it_is(digits, tmp_path):
    for number, digit in enumerate(digits):
        Image.fromarray(digit).save(tmp_path / f"{number}.png")
        image = load_image(tmp_path / f"{number}.png")
        assert (image.shape, image.dtype) == ((1, 28, 28), np.float32)
        assert np.array_equal(image[0], np.divide(digit, 255, dtype=np.float32))  # the loader's values, bit for bit


def test_dark_on_bright_of_the_right_size_is_only_inverted(digits, tmp_path):
    Image.fromarray(255 - digits[0]).save(tmp_path / "inverted.png")
    np.testing.assert_allclose(load_image(tmp_path / "inverted.png")[0], digits[0] / 255, atol=1e-7)


def test_an_image_of_the_right_size_with_half_a_bright_border_is_not_inverted():
    image = np.zeros((28, 28), np.float32)
    image[:, 6:22] = 1  # a dress from edge to edge
    image[0] = image[-1] = 1
    assert np.array_equal(prepare(image, framing=FASHION_MNIST), image)


@pytest.mark.parametrize(("scale", "dark_on_bright", "contrast"), [(3, True, 1.0), (10, False, 1.0), (6, True, 0.4)])
def test_enlarged_digits_come_back_to_size_and_place(digits, scale, dark_on_bright, contrast):
    likenesses = []
    for digit in digits:
        large = np.asarray(Image.fromarray(digit).resize((28 * scale, 28 * scale)), np.float32) / 255
        page = np.pad(0.2 + contrast * large if contrast < 1 else large, ((0, 9 * scale), (5 * scale, 0)), mode="edge")
        image = prepare(1 - page if dark_on_bright else page)
        assert image.dtype == np.float32
        assert 0 <= image.min() <= image.max() <= 1
        assert max(extent(image, 0.1)) in (19, 20)
        assert np.allclose(centre_of_mass(image), 14, atol=0.6)
        likenesses.append(likeness(image, digit))
    assert min(likenesses) > 0.75  # a thin stroke half a pixel beside its place
    assert np.mean(likenesses) > 0.9


def test_the_longest_side_fills_20_of_28_and_the_mass_is_centred():
    image = prepare(draw(300, 200, (10, 20, 210, 120)))
    assert extent(image) == (20, 10)
    assert np.array_equal(image, draw(28, 28, (4, 9, 24, 19)))
    flat = prepare(draw(100, 300, (40, 20, 60, 220)))
    assert extent(flat) == (2, 20)
    line = prepare(draw(900, 300, (100, 50, 800, 52)))
    assert extent(line) == (20, 1)  # a line of a pixel's width is not lost


def test_nothing_is_cut_off_where_the_mass_lies_at_one_end():
    page = draw(200, 200, (20, 95, 180, 97))
    page[160:180, 40:160] = 1  # a foot as heavy as the rest is light
    image = prepare(page)
    assert extent(image) == (20, 15)
    assert image[:28].sum() == pytest.approx(prepare(np.pad(page, 50)).sum())


def test_clothes_fill_the_frame_in_its_middle():
    page = draw(120, 90, (10, 20, 110, 70))
    page[10:60, 45:70] = 0.5
    image = prepare(1 - page, framing=FASHION_MNIST)
    assert extent(image) == (28, 14)
    assert np.flatnonzero(image.any(axis=0))[[0, -1]].tolist() == [7, 20]


def test_other_frames(digits):
    large = np.asarray(Image.fromarray(digits[0]).resize((90, 90)), np.float32) / 255
    image = prepare(large, (32, 48))
    assert image.shape == (32, 48)
    assert max(extent(image, 0.1)) in (22, 23)  # 20/28 of 32


def test_transparency_is_laid_on_what_makes_the_figure_visible(digits, tmp_path):
    large = np.asarray(Image.fromarray(digits[3]).resize((80, 80)))
    plain = prepare(large.astype(np.float32) / 255)
    for ink in (0, 255):  # black strokes on a transparent page, then white ones
        pixels = np.full((80, 80, 4), ink, np.uint8)
        pixels[..., 3] = large
        Image.fromarray(pixels).save(tmp_path / "transparent.png")
        np.testing.assert_allclose(load_image(tmp_path / "transparent.png")[0], plain, atol=1e-6)


def test_the_camera_held_sideways_is_set_upright(digits, tmp_path):
    large = Image.fromarray(255 - digits[0]).resize((120, 120))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90° clockwise to view
    large.rotate(90).save(tmp_path / "sideways.png", exif=exif)
    large.save(tmp_path / "upright.png")
    assert np.array_equal(load_image(tmp_path / "sideways.png"), load_image(tmp_path / "upright.png"))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "CMYK", "1", "I;16", "F"])
def test_every_kind_of_pixel_is_read_as_grey(mode, tmp_path):
    gray = np.repeat(np.uint8([0, 255, 255, 0]), 4)[None].repeat(9, axis=0)
    image = Image.fromarray(gray)
    if mode == "I;16":
        image = Image.fromarray(gray.astype(np.uint16) * 257)
    elif mode != "L":
        image = image.convert("RGB").convert(mode) if mode in ("P", "CMYK") else image.convert(mode)
    file = tmp_path / "image.tiff"
    image.save(file)
    with Image.open(file) as opened:
        assert opened.mode == mode
    assert np.array_equal(read_grayscale(file), gray / np.float32(255))


def test_sixteen_bits_are_not_clipped(tmp_path):
    gray = np.arange(0, 65536, 4096, dtype=np.uint16).reshape(4, 4)
    Image.fromarray(gray).save(tmp_path / "deep.png")
    np.testing.assert_allclose(read_grayscale(tmp_path / "deep.png"), gray / 65535, rtol=1e-6)


@pytest.mark.parametrize("colour", ["white", "black", "#777777", (0, 0, 0, 0)])
def test_a_blank_image_is_refused(colour, tmp_path):
    file = tmp_path / "blank.png"
    Image.new("RGBA", (60, 40), colour).save(file)
    with pytest.raises(ImageError, match=r"blank\.png: a blank image"):
        load_image(file)


def test_a_blank_page_with_noise_is_blank():
    noise = 0.9 + 0.03 * np.random.default_rng(0).random((50, 50))
    with pytest.raises(ImageError, match="blank"):
        prepare(noise)


def test_what_is_no_image_or_damaged_is_refused_by_name(digits, tmp_path):
    file = tmp_path / "digit.png"
    Image.fromarray(digits[0]).save(file)
    content = file.read_bytes()
    for damaged, message in (
        (b"text", "not an image"),
        (b"", "not an image"),
        (content[: len(content) // 2], "cannot be read"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(ImageError, match=rf"digit\.png: {message}"):
            load_image(file)
    with pytest.raises(FileNotFoundError):
        load_image(tmp_path / "missing.png")


def test_an_image_beyond_pillows_limit_is_refused(tmp_path, monkeypatch):
    Image.new("1", (300, 300)).save(tmp_path / "large.png")
    for limit in (80_000, 20_000):  # Pillow warns above its limit, and raises above twice that
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ImageError, match=r"large\.png: too large \(Image size \(90000 pixels\)"):
            load_image(tmp_path / "large.png")


def test_any_damage_is_told_as_such(digits, tmp_path):
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    told = 0
    for kind in ("png", "jpeg", "gif", "tiff", "bmp"):
        file = tmp_path / f"image.{kind}"
        Image.fromarray(255 - digits[1]).resize((50, 50)).convert("RGB").save(file, exif=exif)
        content = np.frombuffer(file.read_bytes(), np.uint8)
        for _ in range(40):
            damaged = content.copy()
            damaged[rng.integers(0, min(len(damaged), 400), 4)] = rng.integers(0, 256, 4)
            file.write_bytes(damaged.tobytes())
            try:
                assert load_image(file).shape == (1, 28, 28)
            except ImageError:
                told += 1
    assert told > 50


def test_framings_are_those_of_the_data_sets(digits):
    assert (MNIST.fill, FASHION_MNIST.fill) == (20 / 28, 1.0)
    for digit in digits:
        assert max(extent(digit)) == 20
        assert np.allclose(centre_of_mass(digit), 14, atol=0.5)
