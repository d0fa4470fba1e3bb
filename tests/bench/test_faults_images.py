"""The injector of damaged images: every file of it is read or refused in one line."""

import pytest

from bench.faults import images
from training.data.pictures import ImageError, decode


def test_the_corpus_is_whole():
    files = images.corpus()
    assert len(files) >= 25
    for name, content in files.items():
        assert min(decode(content).size) >= 37, name


def test_thousands_of_damaged_images_raise_nothing_else():
    assert [failure for failure in images.run(6000, 0) if failure] == []


def test_what_breaks_is_named(monkeypatch):
    def explode(content):
        raise KeyError("tag")

    monkeypatch.setattr(images, "decode", explode)
    (failure,) = images.run(1, 0)
    assert failure == "gray PNG, trial 0 of seed 0: KeyError: 'tag'"


def test_damage_is_the_same_for_the_same_seed_and_reaches_the_decoders():
    def outcomes(seed):
        found = []

        def note(content, name):
            try:
                found.append(decode(content).pixels.shape)
            except ImageError as error:
                found.append(str(error))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(images, "broken", note)
            list(images.run(520, seed))
        return found

    first = outcomes(1)
    assert first == outcomes(1) != outcomes(2)
    read = sum(isinstance(outcome, tuple) for outcome in first)
    assert 50 < read < 470
