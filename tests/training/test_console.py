"""Text for a terminal."""

import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.support.command_line import xpnet
from training.files.printable import one_line, printable
from training.models import TwoLayerNet

CONTROL = "\x1b[2J\x1b]0;title\x07\r\n\u202e\x9b1m"


def test_text_that_a_terminal_shows_stays_as_it_is():
    text = "zwölf Häuser/七.png ☃ 100 % C:\\new\\table \u00a0\u202f'\""
    assert printable(text) == text
    assert printable(Path("a b")) == "a b"


@pytest.mark.parametrize(
    "number", [*range(32), *range(127, 160), 0xAD, 0x200B, 0x2028, 0x2029, 0x202E, 0xDCFF, 0xE0001]
)
def test_what_a_terminal_obeys_is_escaped(number):
    escaped = printable(f"a{chr(number)}b")
    assert escaped.isprintable()
    assert escaped.isascii()
    assert escaped.encode().decode("unicode_escape") == f"a{chr(number)}b"
    assert printable(escaped) == escaped


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("one", "one"),
        ("one\ntwo\r\n\nthree\x1b", "one; two; three\\x1b"),
        (
            "not found:\n  /a: lacks b\n  /c: damaged\nMend it.\nOr not\n",
            "not found: /a: lacks b; /c: damaged; Mend it. Or not",
        ),
        ("\n\n", ""),
        ("", ""),
    ],
)
def test_messages_are_one_line(text, line):
    assert one_line(text) == line


def test_file_and_class_names_do_not_reach_the_terminal_raw(tmp_path):
    names = [f"class {CONTROL}{number}" for number in range(3)]
    network = TwoLayerNet(784, 5, 3)
    network.config = {**network.config, "classes": names, "input_dim": [1, 28, 28]}
    network.save_params(tmp_path / "model.safetensors")
    picture = tmp_path / f"picture{CONTROL}.png"
    Image.effect_noise((28, 28), 90).save(picture)
    missing = tmp_path / f"missing{CONTROL}.png"
    result = xpnet("predict", picture, missing, "--run", tmp_path / "model.safetensors", "--top", 3)
    assert result.code == 2
    (line,) = result.out.splitlines()
    assert line.isprintable()
    assert r"picture\x1b[2J" in line
    assert r"class \x1b[2J" in line
    assert all(line.isprintable() for line in result.err.splitlines())
    assert r"missing\x1b[2J" in result.err
    record = json.loads(xpnet("predict", picture, "--run", tmp_path / "model.safetensors", "--json").out)
    assert record["class"] in names
    assert record["image"] == str(picture)


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems hold UTF-8 names only")
def test_a_file_name_that_is_not_utf_8_is_shown(tmp_path):
    folder = os.fsencode(tmp_path)
    missing = os.fsdecode(folder + b"/a\xff.png")
    network = TwoLayerNet(784, 5, 3)
    network.config = {**network.config, "input_dim": [1, 28, 28]}
    network.save_params(tmp_path / "model.safetensors")
    result = xpnet("predict", missing, "--run", tmp_path / "model.safetensors")
    assert (result.code, result.out) == (2, "")
    assert r"a\udcff.png: No such file" in result.err
