"""Folders of classes: which pictures are found, how they are read, and what is said of mistakes."""

import os

import numpy as np
import pytest
from PIL import Image

import training.data
from training.data import DataError, image_files


def picture(path, color=(10, 20, 30), size=(8, 6), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = options.pop("mode", "RGB" if isinstance(color, tuple) else "L")
    Image.new(mode, size, color).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    for name, shade in (("cat", 50), ("dog", 200)):
        for number, ending in enumerate(("png", "jpg", "bmp", "webp")):
            picture(tmp_path / "pets" / name / f"{number}.{ending}", (shade, shade // 2, 0))
    return tmp_path / "pets"


def test_classes_are_folders_and_pixels_are_bytes(folder):
    data = training.data.open(folder)
    assert (data.name, data.kind, data.classes) == ("pets", "classification", ("cat", "dog"))
    assert (data.shape, data.dtype, len(data.train)) == ((3, 6, 8), np.uint8, 8)
    assert data.val is None
    assert data.test is None
    assert data.counts("train").tolist() == [4, 4]
    x, t = data.train[4]  # the dog's 0.png is lossless
    assert x[:, 0, 0].tolist() == [200, 100, 0]
    assert t == 1
    assert data.train.inputs[2:4].shape == (2, 3, 6, 8)


def test_parts_are_sub_folders(folder):
    for part in ("train", "Validation", "TEST"):
        for name in ("a", "b"):
            picture(folder.parent / "parts" / part / name / "1.png")
    data = training.data.open(folder.parent / "parts")
    assert {part: len(samples) for part, samples in data.parts.items()} == {"train": 2, "val": 2, "test": 2}


def test_pictures_are_gray_if_all_are_and_else_in_color(tmp_path):
    picture(tmp_path / "a" / "1.png", 70)
    picture(tmp_path / "b" / "1.png", 90)
    assert training.data.open(tmp_path).shape == (1, 6, 8)
    assert training.data.open(tmp_path, channels=3).train.inputs[0][:, 0, 0].tolist() == [70, 70, 70]
    picture(tmp_path / "b" / "2.png", (255, 0, 0))
    data = training.data.open(tmp_path)
    assert data.shape == (3, 6, 8)
    assert data.train.inputs[0][:, 0, 0].tolist() == [70, 70, 70]
    assert training.data.open(tmp_path, channels=1).train.inputs[2][0, 0, 0] == 76  # 0.299 · 255


@pytest.mark.parametrize(
    ("ending", "mode"),
    [("png", "RGB"), ("png", "LA"), ("png", "RGBA"), ("png", "P"), ("webp", "L"), ("gif", "L"), ("tif", "L")],
)
@pytest.mark.parametrize("kept", [True, False])
def test_gray_pictures_are_gray_however_a_file_stores_them(tmp_path, ending, mode, kept, monkeypatch):
    monkeypatch.setattr(image_files, "KEPT_BYTES", 1 << 30 if kept else -1)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 8), dtype="uint8")
    for number, shades in enumerate(pixels):
        file = tmp_path / "ab"[number % 2] / f"{number // 2}.{ending}"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(shades).convert(mode).save(file, **({"lossless": True} if ending == "webp" else {}))
    data = training.data.open(tmp_path)
    np.testing.assert_array_equal(data.train.inputs[:], pixels[[0, 2, 1, 3], None])
    mean = pixels.mean() / 255
    assert data.normalization.mean == pytest.approx((mean,))
    picture(tmp_path / "a" / "9.png", (70, 71, 72), (8, 6))
    assert training.data.open(tmp_path).shape == (3, 6, 8)
    (tmp_path / "a" / "9.png").unlink()
    color = training.data.open(tmp_path, channels=3)
    np.testing.assert_array_equal(color.train.inputs[:], pixels[[0, 2, 1, 3], None].repeat(3, axis=1))
    assert color.normalization.mean == pytest.approx((mean,) * 3)


def test_gray_pictures_of_a_lossy_webp_are_gray(tmp_path):
    shades = np.arange(0, 256, 2, "uint8").repeat(8).reshape(32, 32)
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.fromarray(shades).save(tmp_path / name / "1.webp", quality=80)
    assert np.ptp(np.asarray(Image.open(tmp_path / "a" / "1.webp")), axis=2).max() == 1
    assert training.data.open(tmp_path).shape == (1, 32, 32)


@pytest.mark.parametrize("kept", [True, False])
def test_pictures_that_are_not_kept_are_decoded_again_and_give_the_same(folder, monkeypatch, kept):
    monkeypatch.setattr(image_files, "KEPT_BYTES", 1 << 30 if kept else -1)
    data = training.data.open(folder, size=(5, 7))
    decoded = []
    read = image_files.read_picture
    monkeypatch.setattr(image_files, "read_picture", lambda file: decoded.append(file) or read(file))
    x = np.concatenate([x for x, _ in data.loader("train", 3, shuffle=False)])
    assert len(decoded) == (0 if kept else 8)
    np.testing.assert_allclose(x.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(x[:, :2].std(axis=(0, 2, 3)), 1, atol=1e-5)
    wide = data.train.inputs[:].astype("float64") / 255
    np.testing.assert_allclose(data.normalization.mean, wide.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(data.normalization.std[:2], wide.std(axis=(0, 2, 3))[:2], rtol=1e-12)
    assert data.normalization.std[2] == 1 or wide[:, 2].std() > 0


def test_normalization_is_of_the_training_part_alone(folder):
    data = training.data.open(folder, val=0.25)
    wide = data.train.inputs[:] / 255
    assert len(data.val) == 2
    np.testing.assert_allclose(data.normalization.mean, wide.mean(axis=(0, 2, 3)), rtol=1e-12)


def test_sizes_that_differ_need_a_size(folder):
    picture(folder / "cat" / "wide.png", size=(30, 20))
    with pytest.raises(DataError, match=r"2 sizes: most are 6x8, but .*wide\.png is 20x30; .*--size 64"):
        training.data.open(folder)
    assert training.data.open(folder, size=16).shape == (3, 16, 16)


def test_every_kind_of_picture_becomes_bytes(tmp_path):
    pictures = tmp_path / "kinds" / "a"
    picture(tmp_path / "kinds" / "b" / "1.png")
    picture(pictures / "cmyk.jpg", (0, 0, 0, 0), mode="CMYK")
    picture(pictures / "sixteen.png", 65535, mode="I;16")
    Image.new("RGB", (8, 6), (255, 255, 255)).convert("P").save(pictures / "palette.png")
    frames = [Image.new("RGB", (8, 6), (255, 255, 255)), Image.new("RGB", (8, 6))]
    frames[0].save(pictures / "animated.webp", save_all=True, append_images=frames[1:], lossless=True)
    picture(pictures / "clear.png", (255, 0, 0, 0), mode="RGBA")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture(pictures / "turned.jpg", (255, 255, 255), size=(6, 8), exif=turned)
    picture(pictures / "a png by name.jpg", (255, 255, 255), format="PNG")
    picture(pictures / "ünïcode\nline ✓.png", (255, 255, 255))
    data = training.data.open(tmp_path / "kinds")
    assert data.shape == (3, 6, 8)
    x = data.train.inputs[:-1]
    assert len(x) == 8
    assert x.min() >= 250


def test_links_are_followed_to_files_and_loops_are_not(folder):
    os.symlink(folder, folder / "cat" / "loop")
    os.symlink(folder / "cat" / "0.png", folder / "dog" / "linked.png")
    assert len(training.data.open(folder).train) == 9
    os.symlink("round.png", folder / "dog" / "round.png")
    with pytest.raises(DataError, match=r"1 of 10 pictures cannot be read: .*round\.png: expected a file"):
        training.data.open(folder)


def test_hidden_and_other_files_are_left_out(folder):
    (folder / "cat" / ".hidden.png").write_bytes(b"")
    (folder / ".git").mkdir()
    (folder / "cat" / "notes.txt").write_text("")
    data = training.data.open(folder)
    assert len(data.train) == 8
    assert data.notes == ("1 files that are no pictures, by their endings, are left out",)


def test_the_runs_of_xpnet_are_no_class(folder):
    picture(folder / "runs" / "1" / "filters.png")
    assert training.data.open(folder).classes == ("cat", "dog", "runs")
    (folder / "runs" / "1" / "metrics.jsonl").write_text("")
    assert training.data.open(folder).classes == ("cat", "dog")


def test_a_target_column_is_for_tables(folder):
    with pytest.raises(DataError, match=r"is not a table: expected a \.csv or \.tsv for the target column 'price'"):
        training.data.open(folder, target="price")


def test_pictures_that_cannot_be_read_are_named_before_training(folder):
    (folder / "cat" / "empty.png").write_bytes(b"")
    whole = (folder / "cat" / "1.jpg").read_bytes()
    (folder / "dog" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "dog" / "text.png").write_text("a text")
    os.mkfifo(folder / "dog" / "pipe.png")
    with pytest.raises(DataError, match=r"^4 of 12 pictures cannot be read: ") as caught:
        training.data.open(folder)
    assert "empty.png" in str(caught.value)
    assert str(caught.value).endswith("; and 1 more")


def test_mistakes_in_folders_are_told(tmp_path):
    def refused(match, folder=tmp_path):
        with pytest.raises(DataError, match=match):
            training.data.open(folder)

    refused("there are no pictures in folders of classes; expected CLASS/PICTURE.png")
    picture(tmp_path / "loose.png")
    refused("1 pictures lie in no folder of a class")
    picture(tmp_path / "a" / "1.png")
    refused("expected the folders of two classes or more, got a alone")
    (tmp_path / "b").mkdir()
    refused("class 'b' has no pictures; fill or remove its folder")
    picture(tmp_path / "b" / "1.png")
    assert training.data.open(tmp_path).classes == ("a", "b")
    for name in ("a", "b", "c"):
        picture(tmp_path / "more" / "test" / name / "1.png")
        if name != "c":
            picture(tmp_path / "more" / "train" / name / "1.png")
    refused(r"class 'c' is not among the training classes \(a, b\)", tmp_path / "more")
    with pytest.raises(FileNotFoundError, match="there is no file or folder"):
        training.data.open(tmp_path / "nothing")


def test_numbered_classes_are_in_the_order_of_their_numbers(tmp_path):
    for number in range(12):
        picture(tmp_path / str(number) / "1.png")
    assert training.data.open(tmp_path).classes == tuple(map(str, range(12)))


def test_warnings_of_pillow_are_switched_off_and_on_together(folder):
    import warnings

    before = list(warnings.filters)
    training.data.open(folder)
    assert warnings.filters == before
