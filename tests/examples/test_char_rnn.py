"""A recurrent network that writes like a text."""

import math
import re

import numpy as np
import pytest

from backend import asarray, random
from examples.char_rnn import Alphabet, default_text, losses, main, write
from tests.support.example_checks import error_of, output_of
from training.models.bound_layers import BoundLayers
from training.zoo.recurrent import char_gru

TEXT = "the quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 20


def test_an_alphabet_has_the_characters_in_order():
    alphabet = Alphabet("banana")
    assert len(alphabet) == 3
    assert alphabet.encode("nab").tolist() == [2, 0, 1]
    assert alphabet.encode("nab").dtype == "int32"
    assert alphabet.decode([1, 0, 2, 0, 2, 0]) == "banana"


def test_the_default_text_is_english():
    text = default_text()
    assert len(text) == 100_000
    assert text.count(" the ") > 300


def test_the_loss_falls_and_the_text_is_written(device):
    random.seed(0)
    alphabet = Alphabet(TEXT)
    network, codes = BoundLayers(char_gru(len(alphabet), 8, 32)), alphabet.encode(TEXT)
    found = list(losses(network, asarray(codes), 60, 12, batch_size=16, lr=0.02))
    assert len(found) == 10
    assert found[0] < 1.1 * math.log(len(alphabet))
    assert found[-1] < found[0] / 2
    written = write(network, codes[:4].tolist(), 80, 12)
    assert len(written) == 80
    words = alphabet.decode(written)
    assert sum(word in TEXT for word in words.split()) >= 3, words


def test_a_network_that_is_sure_writes_what_it_is_sure_of():
    class Next:
        """A network that gives the next of five characters nearly all probability."""

        class layers:  # noqa: N801
            @staticmethod
            def eval():
                pass

            @staticmethod
            def forward(x):
                return np.eye(5, dtype="float32")[(x + 1) % 5] * 100

    assert write(Next, [3], 7, 4) == [4, 0, 1, 2, 3, 4, 0]


@pytest.mark.parametrize("model", ["CharRNN", "CharTransformer"])
def test_the_command(tmp_path, model):
    file = tmp_path / "text.txt"
    file.write_text(TEXT, "utf-8")
    arguments = ("--text", file, "--model", model, "--hidden", 8, "--steps", 20, "--length", 10, "--write", 30)
    shown = output_of(main, *arguments, "--device", "cpu")
    assert shown.startswith(f"{len(TEXT):,} characters, {len(set(TEXT))} different")
    found = [float(loss) for loss in re.findall(r"steps   loss (\d+\.\d+)", shown)]
    assert len(found) == 10
    assert found[-1] < found[0]
    assert set(shown.rpartition("\n\n")[2].rstrip("\n")) <= set(TEXT)
    assert shown == output_of(main, *arguments, "--device", "cpu")


@pytest.mark.parametrize("content", ["too short", "a" * 100])
def test_a_text_without_enough_is_refused(tmp_path, content):
    file = tmp_path / "text.txt"
    file.write_text(content, "utf-8")
    assert "at least 52 characters, two of them different" in error_of(main, "--text", file, "--device", "cpu")
