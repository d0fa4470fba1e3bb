"""Damaged files: the readers' promises, a few thousand times, and the injector that tries them."""

import io
import random

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load, save

from bench.faults import readers
from training.files import FileError
from training.files.safetensors import SafetensorsReader


@pytest.mark.parametrize("seed", [0])
def test_every_reader_refuses_in_words(seed):
    failures = [failure for failure in readers.run(2500, seed) if failure]
    assert not failures, "\n".join(failures[:10])


def test_the_files_are_the_same_for_a_seed(monkeypatch, tmp_path):
    def files(seed):
        seen = []
        monkeypatch.setattr(readers, "trial", lambda kind, folder, draw: seen.append(kind.damaged(folder, draw)[1]))
        list(readers.run(20, seed))
        return seen

    assert files(3) == files(3)
    assert files(3) != files(4)


class Reads:
    def __init__(self, error):
        self._error = error

    def damaged(self, folder, draw):
        return folder / "file", b"content"

    def read(self, file):
        if isinstance(self._error, Exception):
            raise self._error
        self._error(file)


def draws(file):
    import backend

    backend.random.uniform(1)


def warns(file):
    import warnings

    warnings.warn("a loose end", stacklevel=1)


def refuses(file):
    raise ValueError(f"{file} is damaged")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("W1"), "KeyError"),
        (RecursionError("deep"), "RecursionError"),
        (ValueError("no name"), "does not name the file"),
        (draws, "'position': 0.* is .*'position': 1"),
        (warns, "warned: a loose end"),
        (OSError("cannot be read"), None),
        (refuses, None),
        (lambda file: None, None),
    ],
)
def test_the_injector_sees_what_breaks_a_promise(tmp_path, error, words):
    import re

    failure = readers.trial(Reads(error), tmp_path, random.Random(0))
    assert (failure is None) if words is None else re.search(words, failure)


def test_what_the_library_refuses_is_refused():
    """Of damaged files the library takes some that this reader does not, and not one the other way round."""
    whole = save({"W1": np.arange(6, dtype="f4").reshape(2, 3), "b1": np.ones(3, "f8")}, {"xpnet": "{}"})
    draw = random.Random(0)
    both = 0
    for _ in range(3000):
        content = readers.damage(whole, draw)
        try:
            reader = SafetensorsReader(io.BytesIO(content))
        except FileError:
            continue
        try:
            expected = load(content)
        except SafetensorError as error:
            raise AssertionError(f"{error}: {content[:200]!r}") from error
        assert set(expected) == set(reader.headers)
        for name, array in expected.items():
            np.testing.assert_array_equal(reader.read(name), array)
        both += 1
    assert both > 100
