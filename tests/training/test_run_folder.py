"""The folder of a run."""

import errno
import json
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import numpy as np
import pytest
from safetensors.numpy import save_file

import backend
from layers import Affine, Sequential
from training.cli.common import UserError
from training.cli.inputs import find_model
from training.files import opening
from training.loop import figures, run_folder
from training.loop.run_folder import RunFolder, json_line
from training.models import Network, TwoLayerNet, saving
from training.models.loading import load_network


def test_a_new_folder_is_named_by_time_and_never_one_that_exists(tmp_path, monkeypatch):
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2025, 3, 9, 7, 5, 2)

    monkeypatch.setattr(run_folder, "datetime", Clock)
    names = [RunFolder.create(name="Net-data", root=tmp_path / "runs").path.name for _ in range(3)]
    assert names == ["20250309-070502-Net-data", "20250309-070502-Net-data-2", "20250309-070502-Net-data-3"]
    assert sorted(os.listdir(tmp_path / "runs")) == names


def test_a_named_folder_is_new_or_empty(tmp_path):
    assert RunFolder.create(tmp_path / "a" / "b").path.is_dir()
    RunFolder.create(tmp_path / "a" / "b").add_metrics({"epoch": 1})
    with pytest.raises(FileExistsError, match="not an empty folder"):
        RunFolder.create(tmp_path / "a" / "b")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        RunFolder.create(tmp_path / "a" / "b" / "metrics.jsonl")


def test_config_and_metrics_come_back(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    folder.save_config({"settings": {"lr": 0.1, "out": None}})
    assert folder.load_config() == {"settings": {"lr": 0.1, "out": None}}
    for epoch in (1, 2):
        folder.add_metrics({"epoch": epoch, "loss": 0.1 + 0.2})
        assert folder.load_metrics()[-1] == {"epoch": epoch, "loss": 0.1 + 0.2}  # on disk at once, every bit kept
    assert len(folder.load_metrics()) == 2


def test_numbers_that_json_lacks_become_null():
    line = json_line({"a": float("nan"), "b": float("inf"), "c": 1.5, "d": True})
    assert json.loads(line) == {"a": None, "b": None, "c": 1.5, "d": True}
    assert "\n" not in line


def test_the_model_comes_back_with_what_was_said_of_its_data(tmp_path, device):
    folder = RunFolder.create(tmp_path / "run")
    folder.close()
    network = TwoLayerNet(6, 4, 3)
    network.config = {**network.config, "dataset": "pets", "classes": ["a", "b", "c"], "input_dim": [1, 2, 3]}
    folder.save_model(network)
    loaded = load_network(folder.model)
    assert loaded.config == network.config
    assert list(loaded.params) == list(network.params)
    for name, array in network.params.items():
        assert np.array_equal(backend.asnumpy(loaded.params[name]), backend.asnumpy(array))
    assert sorted(path.name for path in folder.path.iterdir()) == ["model.safetensors"]  # nothing temporary is left


def test_a_model_without_description_is_refused(tmp_path):
    file = tmp_path / "arrays.safetensors"
    saving.save_arrays(file, {"W1": np.zeros((2, 2), np.float32)}, ["no", "dict"])
    with pytest.raises(ValueError, match=r"which model it is: its config is \['no', 'dict'\], expected an object"):
        load_network(file)


def test_a_network_of_ones_own_is_made_from_its_file(tmp_path):
    """Its class does not matter: its layers are in the file. An .npz has arrays alone."""

    class MyNet(Network):
        def __init__(self):
            super().__init__(Sequential(Affine.of(4, 3)), (4,))

    network = MyNet()
    network.save_params(tmp_path / "own.safetensors")
    network.save_params(tmp_path / "own.npz")
    again = load_network(tmp_path / "own.safetensors")
    assert np.array_equal(backend.asnumpy(again.params.flat), backend.asnumpy(network.params.flat))
    assert type(again) is Network
    why = (
        "own.npz does not say which model it is: an .npz holds arrays alone; build the network and call its load_params"
    )
    with pytest.raises(ValueError, match=why):
        load_network(tmp_path / "own.npz")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"model": "LeNet", "arguments": {}},
            "is of the model 'LeNet', neither one of xpnet's own (TwoLayerNet, ",
        ),
        ({"model": ["TwoLayerNet"]}, "is of the model ['TwoLayerNet'], neither one of xpnet's own"),
        ({"layers": 3}, "has a config without a model, neither one of xpnet's own"),
        ({}, "has a config without a model"),
    ],
)
def test_a_model_that_is_not_ours_is_named(tmp_path, config, words):
    file = tmp_path / "arrays.safetensors"
    saving.save_arrays(file, {"W1": np.zeros((2, 2), np.float32)}, config)
    with pytest.raises(ValueError, match=re.escape(f"{file} {words}")) as error:
        load_network(file)
    assert str(error.value).endswith("; build the network and call its load_params('arrays.safetensors')")


def test_a_file_of_another_program_is_told_by_its_header(tmp_path):
    file = tmp_path / "torch.safetensors"
    save_file({"W1": np.zeros((2, 2), np.float32)}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"its header has 'format': 'pt', and no config of xpnet"):
        load_network(file)


def test_the_newest_run_is_the_one_whose_model_was_written_last(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run with a model"):
        RunFolder.newest(tmp_path / "runs")
    for time, name in ((300, "c"), (400, "a"), (200, "d")):
        folder = RunFolder.create(tmp_path / "runs" / name)
        folder.model.touch()
        os.utime(folder.model, (time, time))
    RunFolder.create(tmp_path / "runs" / "without-model")
    (tmp_path / "runs" / "file").touch()
    assert RunFolder.newest(tmp_path / "runs").path == tmp_path / "runs" / "a"


def test_a_torn_line_of_the_metrics_is_named_and_the_rest_is_read(tmp_path, caplog):
    folder = RunFolder.create(tmp_path / "run")
    file = folder.path / "metrics.jsonl"
    whole = b'{"epoch": 1}\n{"epoch": 2}\n'
    for torn in (b'{"epo', b"\0" * 12, b"\xff\xfe", b"17", b"[" * 100_000):
        caplog.clear()
        file.write_bytes(whole + torn)
        assert folder.load_metrics() == [{"epoch": 1}, {"epoch": 2}]
        (record,) = caplog.records
        assert record.getMessage().startswith(f"{file}: line 3 is torn and was left out: ")
        folder.add_metrics({"epoch": 3})  # not glued to what was torn
        assert [record["epoch"] for record in folder.load_metrics()] == [1, 2, 3]


def test_metrics_cost_memory_in_proportion_and_few_warnings(tmp_path, caplog, monkeypatch):
    folder = RunFolder.create(tmp_path / "run")
    file = folder.path / "metrics.jsonl"
    file.write_bytes(b"[]\n" * 1000 + b'{"epoch": 1}\n')
    assert folder.load_metrics() == [{"epoch": 1}]
    assert len(caplog.records) == 11
    assert caplog.records[-1].getMessage() == f"{file}: 1000 lines in all are torn and were left out"
    monkeypatch.setattr(run_folder, "MAX_EPOCHS", 1001)
    assert folder.load_metrics() == [{"epoch": 1}]
    file.write_bytes(b"{}\n" * 1002)
    with pytest.raises(ValueError, match=r"metrics\.jsonl has more than 1,001 lines"):
        folder.load_metrics()
    with file.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(ValueError, match=rf"{re.escape(str(file))} has 1,099,511,627,776 bytes; .* at most 33,554,432"):
        folder.load_metrics()


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
def test_reading_neither_waits_for_a_planted_pipe_nor_follows_a_link_of_the_last_moment(tmp_path, monkeypatch, name):
    folder = RunFolder.create(tmp_path / "run")
    read = folder.load_config if name == "config.json" else folder.load_metrics
    os.mkfifo(folder.path / name)
    with pytest.raises(OSError, match="Not a regular file"):
        read()
    os.unlink(folder.path / name)
    os.symlink("/etc/passwd", folder.path / name)
    monkeypatch.setattr(opening, "not_a_link", lambda file: file)  # it was none when that was looked at
    with pytest.raises(OSError, match="symbolic links"):
        read()


def test_a_file_above_the_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=rf"Not a folder: '{re.escape(str(tmp_path / 'file'))}'"):
        RunFolder.create(tmp_path / "file" / "run")


def test_a_folder_belongs_to_one_run_at_a_time(tmp_path):
    with RunFolder.create(tmp_path / "run") as first:
        with pytest.raises(FileExistsError, match="another training is running in"):
            RunFolder.create(tmp_path / "run")
        assert os.listdir(first.path) == [".lock"]
    assert os.listdir(first.path) == []
    with RunFolder.create(tmp_path / "run") as second:
        second.save_config({})
        first.close()  # once is enough: the lock is the other's now
        with pytest.raises(FileExistsError, match="another training is running in"):
            RunFolder.create(tmp_path / "run")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        RunFolder.create(tmp_path / "run")
    assert os.listdir(tmp_path / "run") == ["config.json"]


def test_many_that_want_one_folder_at_once_get_it_once(tmp_path):
    def attempt(path):
        start.wait()
        try:
            folder = RunFolder.create(path)
        except FileExistsError:
            return None
        folder.save_config({})
        return folder

    with ThreadPoolExecutor(4) as pool:
        for number in range(50):
            start = threading.Barrier(4)
            folders = list(pool.map(attempt, [tmp_path / f"run-{number}"] * 4))
            assert sum(folder is not None for folder in folders) == 1


def test_the_lock_ends_with_its_process(tmp_path):
    program = """
import os, signal, sys
from training.loop.run_folder import RunFolder
folder = RunFolder.create(sys.argv[1])
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program, tmp_path / "run"], timeout=60)
    assert os.listdir(tmp_path / "run") == [".lock"]
    RunFolder.create(tmp_path / "run").close()
    assert os.listdir(tmp_path / "run") == []


def test_a_file_system_without_locks_still_keeps_two_runs_apart(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl", reason="locks are others on this system")

    def unsupported(handle, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    said = r"another training may be running in .*; if none is, remove .*\.lock"
    with RunFolder.create(tmp_path / "run"), pytest.raises(FileExistsError, match=said):
        RunFolder.create(tmp_path / "run")
    RunFolder.create(tmp_path / "run").close()


def test_planted_links_are_not_followed(tmp_path):
    folder, victim = RunFolder.create(tmp_path / "run"), tmp_path / "victim"
    network, metrics = TwoLayerNet(6, 4, 3), folder.path / "metrics.jsonl"
    for plant in (os.symlink, os.link):
        victim.write_text("precious")
        for name in ("config.json", "model.safetensors", "filters.png", "metrics.jsonl"):
            (folder.path / name).unlink(missing_ok=True)
            plant(victim, folder.path / name)
        folder.save_config({"a": 1})
        folder.save_model(network)
        figures.save(figures.filters(np.zeros((4, 1, 3, 3)), (1, 6, 6)), folder.figure("filters"))
        if plant is os.symlink:
            with pytest.raises(OSError, match=r"metrics\.jsonl"):
                folder.add_metrics({"epoch": 1})
            with pytest.raises(OSError, match="a symbolic link"):
                folder.load_metrics()
            metrics.unlink()
        folder.add_metrics({"epoch": 1})
        assert victim.read_text() == "precious"
        assert folder.load_config() == {"a": 1}
        assert load_network(folder.model).classes == 3


def test_links_are_not_read_either(tmp_path):
    run = RunFolder.create(tmp_path / "runs" / "a")
    elsewhere = tmp_path / "model.safetensors"
    saving.save_arrays(elsewhere, {"W1": np.zeros((2, 2), np.float32)})
    for name in ("config.json", "model.safetensors"):
        os.symlink(elsewhere, run.path / name)
    with pytest.raises(OSError, match="a symbolic link"):
        run.load_config()
    with pytest.raises(UserError, match="a symbolic link"):
        find_model(run.path)
    assert find_model(run.model) == run.model  # named itself, it is what is meant
    with pytest.raises(FileNotFoundError, match="no run with a model"):
        RunFolder.newest(tmp_path / "runs")


def test_a_planted_pipe_does_not_make_a_run_wait(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    os.mkfifo(folder.path / "metrics.jsonl")
    with pytest.raises(OSError, match="Not a regular file"):
        folder.add_metrics({"epoch": 1})


def test_a_new_run_removes_what_killed_ones_left(tmp_path):
    runs = tmp_path / "runs"
    killed = RunFolder.create(name="killed", root=runs)
    for name in (leftover(), ".xpnet-notes"):
        (killed.path / name).touch()
    RunFolder.create(name="next", root=runs)
    assert sorted(os.listdir(killed.path)) == [".lock", ".xpnet-notes"]
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / leftover()).touch()
    assert os.listdir(RunFolder.create(tmp_path / "named").path) == [".lock"]


def leftover():
    """The name of a temporary file of a process that has ended."""
    program = "from training.files import leftovers; print(leftovers.new_name('.xpnet'))"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_a_file_in_the_place_of_the_runs_is_told(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(NotADirectoryError, match="Not a folder"):
        RunFolder.create(root=tmp_path / "runs")
