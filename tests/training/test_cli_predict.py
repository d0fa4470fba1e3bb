"""``xpnet predict`` on files made from test images that the network knows."""

import json

import numpy as np
import pytest
from command_line import QUICK, xpnet
from PIL import Image

import backend
from layers import softmax
from training.data import load
from training.run_folder import RunFolder, load_network


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict") / "runs" / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.loop.recorder.draw_figures", lambda *_: None)
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
    assert (result.code, result.err) == (0, "")
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
    assert result.err == (
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
