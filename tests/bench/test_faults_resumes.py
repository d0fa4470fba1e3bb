"""Kills of real trainings that go on by a resume; `python -m bench faults resumes --count 100` tries many."""

import os

import pytest

from bench.faults import resumes


@pytest.mark.skipif(os.name != "posix", reason="signals and limits of files are those of POSIX")
def test_killed_trainings_go_on_to_the_same_bits():
    assert [failure for failure in resumes.run(4, 5) if failure] == []


@pytest.mark.skipif(os.name != "posix", reason="signals and limits of files are those of POSIX")
def test_random_numbers_that_do_not_go_on_are_found(monkeypatch):
    """The kill test itself, tested: a resume that forgets where the generator was must fail it."""
    broken = "from training.loop import checkpoint\n"
    broken += "restore = checkpoint.restore\n"
    broken += "def forgetful(trainer, sections):\n"
    broken += "    state = trainer.random.state\n    restore(trainer, sections)\n    trainer.random.state = state\n"
    broken += "checkpoint.restore = forgetful\n"
    monkeypatch.setattr(resumes, "PROGRAM", broken + resumes.PROGRAM)
    monkeypatch.setattr(resumes, "KINDS", {"dropout": resumes.KINDS["dropout"]})
    monkeypatch.setattr(resumes.random.Random, "random", lambda self: 0.0)  # inside a write
    monkeypatch.setattr(resumes.random.Random, "randrange", lambda self, *bounds: 40)
    assert any("random/trainer" in (failure or "") for failure in list(resumes.run(3, 0))[2:])
