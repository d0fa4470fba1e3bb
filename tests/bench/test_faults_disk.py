"""Full disks and kills at some operations of a training; `python -m bench faults` tries all."""

import os

import pytest

import training.files.durable as durable
from bench.faults import disk_full, kills
from training.loop import figures, recorder


def test_a_full_disk():
    assert [failure for failure in disk_full.run(25, 1) if failure] == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_kill():
    assert [failure for failure in kills.run(25, 1) if failure] == []


def write_in_place(file, content):
    with durable._naming(file):
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            os.write(handle, content)
        finally:
            os.close(handle)


@pytest.mark.parametrize("injector", [disk_full, kills])
def test_a_figure_that_is_written_in_place_is_found(monkeypatch, injector):
    monkeypatch.setattr(recorder, "write_atomically", write_in_place)
    monkeypatch.setattr(figures, "write_atomically", write_in_place)
    assert any("is torn" in (failure or "") for failure in injector.run(10**6, 1))


def test_an_error_that_names_no_file_is_found(monkeypatch):
    monkeypatch.setattr(durable._naming, "__exit__", lambda *arguments: None)
    assert any("'Error: No space left on device; " in (failure or "") for failure in disk_full.run(10**6, 1))
