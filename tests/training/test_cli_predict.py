"""``xpnet predict`` on files made from test images that the network knows."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

import backend
from layers import softmax
from tests.support.command_line import QUICK, xpnet
from training.data import load
from training.loop.run_folder import RunFolder
from training.models.loading import load_network


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict") / "runs" / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.cli.run.draw_figures", lambda *_: None)
        assert xpnet("train", *QUICK, "--epochs", 4, "--quiet", "--out", folder).code == 0
    return RunFolder(folder)


@pytest.fixture(scope="module")
def known(run):
    """Ten test images (28, 28) that the network is sure of, with labels and the probabilities it gives them."""
    data = load()
    x = data.test_images.astype(np.float32) / 255
    probabilities = backend.asnumpy(softmax(load_network(run.model).predict(backend.asarray(x))))
    sure = [np.argmax(np.where(data.test_labels == digit, probabilities[:, digit], 0)) for digit in range(10)]
    return data.test_images[sure, 0], data.test_labels[sure], probabilities[sure]


NOTE = "Note: pictures are prepared as those of mnist: cut out, inverted where needed, and centered\n"


def save(tmp_path, images, kind):
    """Writes each image as ``kind`` in a way of its own."""
    files = []
    for number, pixels in enumerate(images):
        image = Image.fromarray(pixels)
        if kind == "large dark on white":
            page = Image.new("L", (200, 160), 255)
            page.paste(Image.fromarray(255 - pixels).resize((84, 84)), (100, 20))
            image = page
        file = tmp_path / f"{number}.{'jpg' if kind == 'jpeg' else 'png'}"
        (image.resize((140, 140)).convert("RGB") if kind == "jpeg" else image).save(file)
        files.append(file)
    return files


@pytest.mark.parametrize("kind", ["as it is", "large dark on white", "jpeg"])
def test_known_digits_are_recognised(kind, run, known, tmp_path):
    images, labels, _ = known
    files = save(tmp_path, images, kind)
    result = xpnet("predict", *files, "--run", run.path)
    assert (result.code, result.err) == (0, NOTE)
    answers = [line.rpartition(": ")[2].split() for line in result.out.splitlines()]
    assert [line.rpartition(": ")[0] for line in result.out.splitlines()] == [str(file) for file in files]
    right = sum(answer[0] == str(label) for answer, label in zip(answers, labels, strict=True))
    assert right >= (10 if kind == "as it is" else 9)


def test_json_has_the_probabilities_of_the_network(run, known, tmp_path, monkeypatch):
    images, labels, probabilities = known
    files = save(tmp_path, images[:2], "as it is")
    monkeypatch.chdir(run.path.parent.parent)  # the newest run is found there
    records = [json.loads(line) for line in xpnet("predict", *files, "--json", "--top", 3).out.splitlines()]
    for record, file, label, row in zip(records, files, labels, probabilities, strict=False):
        assert record["image"] == str(file)
        assert record["class"] == str(label)
        assert [entry["class"] for entry in record["top"]] == [str(c) for c in np.argsort(-row)[:3]]
        np.testing.assert_allclose([entry["probability"] for entry in record["top"]], np.sort(row)[:-4:-1], rtol=1e-4)
        assert record["probability"] == record["top"][0]["probability"]


def test_what_is_no_image_is_named_and_the_others_are_told(run, known, tmp_path):
    (good,) = save(tmp_path, known[0][:1], "as it is")
    text, blank, missing = tmp_path / "text.png", tmp_path / "blank.png", tmp_path / "missing.png"
    text.write_text("no image")
    Image.new("RGB", (40, 30), "white").save(blank)
    result = xpnet("predict", text, blank, missing, good, "--run", run.model)
    assert result.code == 2
    assert result.out.startswith(f"{good}: 0 ")
    assert result.err == NOTE + (
        f"Error: {text}: not a PNG, JPEG, BMP, GIF, WebP or TIFF image\n"
        f"Error: {blank}: a blank image: nothing stands out from its background\n"
        f"Error: {missing}: No such file or directory\n"
    )


def test_top_names_all_classes_of_the_data_set(tmp_path, known):
    from training.models import TwoLayerNet

    network = TwoLayerNet(784, 5, 3)
    names = ["cat", "ant", "eel"]
    network.config = {**network.config, "classes": names, "input_dim": [1, 28, 28]}
    network.save_params(tmp_path / "animals.safetensors")
    (file,) = save(tmp_path, known[0][:1], "as it is")
    out = xpnet("predict", file, "--run", tmp_path / "animals.safetensors", "--top", 9).out
    answers = out.strip().removeprefix(f"{file}: ").split("   ")
    assert sorted(answer.split()[0] for answer in answers) == sorted(names)
    shares = [float(answer.split()[1]) for answer in answers]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.02)


def test_a_picture_unlike_the_training_images_is_marked(run, known, tmp_path):
    both = np.hstack([255 - np.asarray(Image.fromarray(digit).resize((112, 112))) for digit in known[0][:2]])
    Image.fromarray(both).save(tmp_path / "two.png")
    (tmp_path / "page.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    (good,) = save(tmp_path, known[0][:1], "large dark on white")
    result = xpnet("predict", tmp_path / "two.png", good, tmp_path / "page.png", "--run", run.path)
    assert result.code == 2
    assert [("WARNING: several figures" in line) for line in result.out.splitlines()] == [True, False]
    assert result.err == f"{NOTE}Error: {tmp_path / 'page.png'}: not a PNG, JPEG, BMP, GIF, WebP or TIFF image\n"
    two, one = (
        json.loads(line)
        for line in xpnet("predict", tmp_path / "two.png", good, "--run", run.path, "--json").out.splitlines()
    )
    assert (two["warnings"][0], one["warnings"]) == ("several figures", [])
    assert two["preparation"] == one["preparation"] == "mnist"


def test_the_input_is_described_in_the_models_file_and_named_in_the_config(run):
    in_file = load_network(run.model).config["input"]
    assert in_file["preparation"] == "mnist"
    assert len(in_file["likeness"]["mean"]) == 51
    assert run.load_config()["model"]["input"] == {"preparation": "mnist"}


def test_pictures_for_a_model_of_other_images_are_predicted_as_evaluation_does(tmp_path):
    """Bright ground, nothing in the middle: what MNIST's preparation would invert and reframe."""
    from training.models import SimpleConvNet

    network = SimpleConvNet(input_dim=(3, 20, 24), weight_init_std="he")
    network.config = {**network.config, "dataset": "mine", "input_dim": [3, 20, 24]}
    network.save_params(tmp_path / "own.safetensors")
    pixels = np.random.default_rng(0).integers(150, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "own.png")
    result = xpnet("predict", tmp_path / "own.png", "--run", tmp_path / "own.safetensors")
    assert result.code == 0
    assert (
        result.err
        == "Note: pictures are resized to 20x24, the size of the training images, and not changed otherwise\n"
    )
    record = json.loads(xpnet("predict", tmp_path / "own.png", "--run", tmp_path / "own.safetensors", "--json").out)
    x = backend.asarray(pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255)
    expected = backend.asnumpy(softmax(load_network(tmp_path / "own.safetensors").predict(x)))[0]
    assert record["class"] == str(expected.argmax())
    assert record["probability"] == pytest.approx(float(expected.max()), rel=1e-6)
    assert record["preparation"] == "none"


@pytest.fixture
def colors(tmp_path, monkeypatch):
    """A model of small color pictures, and pictures in folders: color, gray, and files that are none."""
    from training.models import SimpleConvNet

    monkeypatch.chdir(tmp_path)
    network = SimpleConvNet(input_dim=(3, 8, 8), weight_init_std="he", output_size=3)
    network.config = {**network.config, "classes": ["red, or so", "green", "blue"], "input_dim": [3, 8, 8]}
    network.save_params("model.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    for name in ("pics/b.png", "pics/a.JPG", "pics/deep/c.bmp", "other/gray.png", "empty/notes.txt", "pics/notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".txt":
            path.write_text("no picture")
        else:
            image = Image.fromarray(pixels[:, :, 0] if "gray" in name else pixels)
            image.save(path, "JPEG" if path.suffix == ".JPG" else None)
    return tmp_path


def test_folders_and_patterns(colors):
    run = ("--run", "model.safetensors", "--json")

    def seen(*given):
        result = xpnet("predict", *given, *run)
        assert result.code == 0, result.err
        return [json.loads(line)["image"] for line in result.out.splitlines()]

    assert seen("pics") == ["pics/a.JPG", "pics/b.png", "pics/deep/c.bmp"]
    assert seen("other", "pics/b.png") == ["other/gray.png", "pics/b.png"]
    assert seen("**/*.png") == ["other/gray.png", "pics/b.png"]
    assert seen("pics/[ab].*") == ["pics/a.JPG", "pics/b.png"]
    for given, words in (("empty", "empty has no pictures, whose names end in "), ("*.gif", "no file matches *.gif")):
        result = xpnet("predict", given, *run)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith(f"Error: {words}")


def test_a_table_of_predictions(colors):
    result = xpnet("predict", "pics", "--run", "model.safetensors", "--csv", "--top", "2")
    assert (result.code, result.err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(result.out)))
    assert [row["image"] for row in rows] == ["pics/a.JPG", "pics/b.png", "pics/deep/c.bmp"]
    columns = ["image", "class", "probability", "class2", "probability2", "warnings", "preparation"]
    assert list(rows[0]) == columns
    out = xpnet("predict", "pics", "--run", "model.safetensors", "--json", "--top", "2").out
    records = [json.loads(line) for line in out.splitlines()]
    for row, record in zip(rows, records, strict=True):
        assert row["class"] == record["class"] == record["top"][0]["class"]
        assert row["class2"] == record["top"][1]["class"]
        assert float(row["probability2"]) == pytest.approx(record["top"][1]["probability"], rel=1e-5)
        assert row["preparation"] == "none"
    both = xpnet("predict", "pics", "--csv", "--json")
    assert (both.code, both.err) == (2, "Error: --json and --csv are two forms of the output: give one of them\n")


def test_every_loss_that_knows_classes_predicts_them(colors):
    from layers import Affine, Flatten, Sequential
    from training.models import Network

    for loss in ("hinge", "sigmoid"):
        Network(Sequential(Flatten(), Affine.of(192, 3)), (3, 8, 8), loss=loss).save_params("own.safetensors")
        result = xpnet("predict", "pics/b.png", "--run", "own.safetensors", "--json")
        assert result.code == 0
        record = json.loads(result.out)
        names = record["labels"] if loss == "sigmoid" else [record["class"]]
        assert set(names) <= {"0", "1", "2"}
