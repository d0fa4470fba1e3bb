"""From MNIST's files to arrays, and what ``load_mnist`` returns."""

import numpy as np
import pytest

from examples.mnist_reader import TEXT_FIRST_LABEL, cache_round_trip, conversion_steps, main, summary
from tests.support.checks import assert_same
from tests.support.example_checks import check_png, error_of, output_of
from training.data import load_mnist, read_idx


def test_every_step_is_that_of_load_mnist():
    steps = conversion_steps()
    assert steps["its header"] == steps["IDX file"][:16] == bytes.fromhex("00000803 00002710 0000001c 0000001c")
    assert len(steps["IDX file"]) == 16 + 10_000 * 28 * 28
    assert steps["array"].shape == (10_000, 28, 28)

    def images(**options):
        return load_mnist(**options, dataset="mnist10k")[0][0]

    assert_same(steps["with a channel"], images(normalize=False, flatten=False), "uint8")
    assert_same(steps["normalize"], images(flatten=False), "float32")
    assert_same(steps["flatten"], images(), "float32")
    assert_same(steps["labels"], load_mnist(dataset="mnist10k")[0][1], "uint8")
    assert_same(steps["one_hot_label"], load_mnist(one_hot_label=True, dataset="mnist10k")[0][1], "float32")
    assert steps["labels"][0] == TEXT_FIRST_LABEL


def test_the_cache_holds_the_same_array(tmp_path):
    same, *seconds = cache_round_trip(tmp_path)
    assert same
    assert min(seconds) > 0
    cache = tmp_path / "train-images-idx3-ubyte"
    assert cache.read_bytes() == conversion_steps()["IDX file"]
    assert_same(read_idx(cache, 3), conversion_steps()["array"])


def test_summary():
    assert summary(np.float32([[0, 0.5], [1, 0.25]])).split() == ["(2,", "2)", "float32", "0", "...", "1"]
    assert summary(bytes(4)) == "4 bytes: 00000000"
    assert summary(bytes(17)).endswith("00000000 ...")


def test_prints_and_draws(device, tmp_path):
    out = tmp_path / "new" / "digits.png"
    output = output_of(main, "--dataset", "mnist10k", "--device", device.kind, "--out", out)
    options = {line.split()[0]: line for line in output.split("by option:\n")[1].splitlines()}
    assert "(10000, 784)       uint8    0 ... 255" in options["normalize=False"]
    assert "(10000, 1, 28, 28) float32  0 ... 1" in options["flatten=False"]
    assert "(10000, 10)        float32  0 ... 1" in options["one_hot_label=True"]
    assert "(10000,)           uint8    0 ... 9" in options["the"]
    check_png(out)


@pytest.mark.data
def test_the_full_set_has_the_texts_shapes(data_dir, tmp_path):
    output = output_of(main, "--data-dir", data_dir, "--out", tmp_path / "digits.png")
    table = output.split("text\n")[1].split("\n\n")[0].splitlines()
    ours, text = ([line[begin : begin + 14].strip() for line in table] for begin in (38, 52))
    assert ours == text == ["(60000, 784)", "(60000,)", "(10000, 784)", "(10000,)", "5"]


def test_missing_files_are_an_error_in_words(tmp_path):
    output = error_of(main, "--data-dir", tmp_path / "nowhere", "--out", tmp_path / "digits.png")
    assert "Error: MNIST was not found" in output
    assert not (tmp_path / "digits.png").exists()
