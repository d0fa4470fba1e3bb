"""Power cuts: every state that a run can be left in is one that can be read; the writer's mistakes would be found."""

import os

from bench.faults import disk, power_cut
from training.files import durable
from training.loop import run_folder
from training.models import saving


def failures(count=10**6):
    return [failure for failure in power_cut.run(count, 0) if failure]


def test_nothing_that_was_reported_is_lost():
    states = list(power_cut.run(10**6, 0))
    assert len(states) > 200
    assert not any(states)


def test_a_file_that_is_not_synced_before_its_rename_is_found(monkeypatch):
    fsync = disk.Disk._fsync
    monkeypatch.setattr(
        disk.Disk, "_fsync", lambda self, handle: os.path.isdir(f"/dev/fd/{handle}") and fsync(self, handle)
    )
    found = failures()
    assert any("config cannot be read" in failure for failure in found)
    assert any("metrics is None, promised was" in failure for failure in found)


def test_a_folder_that_is_not_synced_is_found(monkeypatch):
    monkeypatch.setattr(durable, "sync_folder", lambda folder: None)
    assert any("model is None, promised was" in failure for failure in failures())


def test_a_file_written_in_place_is_found(monkeypatch):
    def in_place(file, content):
        handle = os.open(file, os.O_WRONLY | os.O_CREAT, 0o666)
        os.ftruncate(handle, 0)
        os.write(handle, content)
        os.fsync(handle)
        os.close(handle)

    monkeypatch.setattr(run_folder, "write_atomically", in_place)
    monkeypatch.setattr(saving, "write_atomically", in_place)
    found = failures()
    assert any("config cannot be read" in failure for failure in found)
    assert any("model cannot be read" in failure for failure in found)
