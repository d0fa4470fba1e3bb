"""The folder of a run."""

import json
import os
from datetime import datetime

import numpy as np
import pytest

import backend
from training import run_folder, saving
from training.models import TwoLayerNet
from training.run_folder import RunFolder, json_line, load_network


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
    for config in (None, ["no", "dict"]):
        saving.save_arrays(file, {"W1": np.zeros((2, 2), np.float32)}, config)
        with pytest.raises(ValueError, match="does not say which model it is"):
            load_network(file)
    saving.save_arrays(file, {"W1": np.zeros((2, 2), np.float32)}, {"model": "LeNet", "arguments": {}})
    with pytest.raises(ValueError, match="not 'LeNet'"):
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
