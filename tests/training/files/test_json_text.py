"""Strict JSON, and JSON of numbers that are none."""

import io
import json
import math

import pytest

from training.files import FileError, json_text


@pytest.mark.parametrize("value", [None, True, 1, -1.5, "é\ud83d", [], {}, {"a": [1, {"b": None}]}])
def test_what_is_dumped_is_parsed(value):
    assert json_text.parse(json_text.dump(value)) == value
    assert json_text.parse(json_text.dump(value, indent=2).encode()) == value


def test_numbers_that_json_lacks_become_null_at_any_depth():
    value = {"a": math.nan, "b": [1.0, -math.inf, {"c": (math.inf,)}], "d": 2}
    assert json.loads(json_text.dump(value)) == {"a": None, "b": [1.0, None, {"c": [None]}], "d": 2}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("{} {}", "not JSON"),
        ("NaN", "NaN"),
        ("[-Infinity]", "-Infinity"),
        ('{"a": 1, "b": 2, "a": 3}', "duplicate key 'a'"),
        (b"\xff", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("1" * 5000, "not JSON"),
        (" " * (json_text.MAX_BYTES + 1), "at most 2,097,152"),
    ],
)
def test_other_texts_are_refused(text, words):
    with pytest.raises(FileError, match=words):
        json_text.parse(text)


def test_lines_of_any_length_are_told_apart_in_bounded_memory():
    long = b"x" * (3 * json_text.MAX_BYTES)
    first, second, third, fourth = json_text.lines(io.BytesIO(b'{"a": 1}\n' + long + b"\n\n{}"))
    assert (first, third, fourth) == (b'{"a": 1}', b"", b"{}")
    assert len(second) == json_text.MAX_BYTES + 1
    assert list(json_text.lines(io.BytesIO(long))) == [second]
    assert list(json_text.lines(io.BytesIO(b"{}\n"))) == [b"{}"]
    assert list(json_text.lines(io.BytesIO())) == []
