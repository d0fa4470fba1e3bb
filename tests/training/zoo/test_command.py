"""The zoo on the command line: by name, from training to prediction."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.support.command_line import xpnet
from training.models.loading import load_network
from training.zoo import PLACE_NETWORKS


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("training.cli.run.draw_figures", lambda *_: {})


def said(*arguments):
    result = xpnet(*arguments)
    assert (result.code, result.err) == (0, ""), result
    return result.out


def pictures(folder, count=12, size=12):
    rng = np.random.default_rng(0)
    for name, brighter in (("dark", 0), ("light", 120)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 120, (size, size, 3)) + brighter
            Image.fromarray(pixels.astype("uint8")).save(folder / name / f"{number}.png")


def test_a_network_is_trained_resumed_evaluated_and_asked_by_name(tmp_path):
    pictures(tmp_path / "two")
    options = ("--data", "two", "--model", "resnet20", "--epochs", 1, "--batch-size", 8, "--device", "cpu")
    out = said("train", *options, "--out", "run")
    assert "ResNet20, 272,738 parameters" in out  # 8 classes fewer than the paper's
    assert "has ended" in said("train", "--resume", "run")
    assert json.loads(said("evaluate", "run", "--json"))["model"] == "ResNet20"
    assert xpnet("predict", "two/dark/0.png", "--run", "run").out.startswith("two/dark/0.png: ")
    assert load_network("run/model.safetensors").title == "ResNet20"
    assert said("summary", "run").startswith("ResNet20 (run) on 3x12x12 images")
    said("train", *options, "--init", "run", "--out", "again")


def test_a_transformer_is_trained_by_name(tmp_path):
    pictures(tmp_path / "two", count=4, size=8)
    options = ("--data", "two", "--model", "ViTTiny", "--epochs", 1, "--batch-size", 4, "--device", "cpu")
    out = said("train", *options, "--out", "run")
    assert "ViTTiny, 5,349,314 parameters" in out  # with 4 patches and 2 classes
    assert json.loads(said("evaluate", "run", "--json"))["model"] == "ViTTiny"
    assert "MultiHeadAttention" in said("summary", "run")


def test_a_run_s_folder_has_the_network_s_name(tmp_path):
    pictures(tmp_path / "two", count=4)
    said("train", "--data", "two", "--model", "LeNet5", "--epochs", 1, "--batch-size", 4, "--device", "cpu")
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.endswith("-LeNet5-two")


@pytest.mark.parametrize(
    ("options", "inputs", "parameters"),
    [
        (("--model", "ResNet18"), "3x224x224", "11,689,512"),
        (("--model", "wideresnet16-4"), "3x32x32", "2,748,890"),
        (("--model", "LeNet5", "--dataset", "mnist"), "1x28x28", "61,706"),
    ],
)
def test_summary_shows_a_network_in_its_usual_size_or_for_a_data_set(options, inputs, parameters):
    out = said("summary", *options, "--batch-size", 1)
    assert f"on {inputs} images" in out.splitlines()[0]
    assert f"parameters  {parameters}\n" in out


@pytest.mark.parametrize(("options", "inputs", "layer", "parameters"), [
    (("--model", "unet"), "1x512x512 images", "2 x 512 x 512", "31,036,546"),
    (("--model", "CharLSTM"), "50 indices", "50 x 65", "93,409"),
    (("--model", "chargru", "--measure", "--gpu", "h100"), "50 indices", "50 x 65", "72,673"),
    (("--model", "CharTransformer"), "50 indices", "50 x 65", "413,505"),
])  # fmt: skip
def test_summary_shows_networks_that_score_pixels_and_steps(options, inputs, layer, parameters):
    out = said("summary", *options, "--batch-size", 1, "--device", "cpu")
    assert f"on {inputs}, batch 1" in out.splitlines()[0]
    assert f"  {layer}  " in out
    assert f"parameters  {parameters}\n" in out
    assert ("measured" in out) == ("--measure" in options)


@pytest.mark.parametrize(("options", "words"), [
    (("--model", "UNet"), "a U-Net of depth 4 takes images whose sides are multiples of 16, got (1, 28, 28)"),
    (("--model", "CharRNN"), "CharRNN takes sequences of indices (T,), got inputs of (1, 28, 28)"),
])  # fmt: skip
def test_summary_refuses_a_data_set_that_does_not_fit(options, words):
    result = xpnet("summary", *options, "--dataset", "mnist")
    assert (result.code, result.out, result.err) == (2, "", f"Error: {words}\n")


@pytest.mark.parametrize("name", ["UNet", "CharRNN", "charlstm", "CHARGRU", "chartransformer"])
@pytest.mark.parametrize("command", ["train", "train --find-lr", "profile", "evaluate model.npz", "train --config"])
def test_commands_with_data_refuse_them_before_anything_is_made(tmp_path, command, name):
    (tmp_path / "run.toml").write_text(f'model = "{name}"\n')
    words = (*command.split(), "run.toml") if "--config" in command else (*command.split(), "--model", name)
    result = xpnet(*words, "--device", "cpu")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    shown = {each.casefold(): each for each in PLACE_NETWORKS}[name.casefold()]
    assert result.err.endswith(
        f"{shown} makes scores of each pixel or step, and the data of commands have one target for each sample: such a "
        "network is trained and used in a program, by training.Trainer\n"
    )
    assert [file.name for file in tmp_path.iterdir()] == ["run.toml"]


def test_a_name_that_does_not_exist_is_refused_with_those_that_do():
    result = xpnet("summary", "--model", "ResNet21")
    assert result.code == 2
    assert "'resnet20'" in result.err
