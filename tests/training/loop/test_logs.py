"""Logs for other programs: a table that is complete at any time, and TensorBoard's events."""

import csv
import sys
from types import SimpleNamespace

import pytest

from tests.training.loop.small_runs import Every, small_trainer
from training import Checkpoints, CsvLog, TensorBoardLog


def table(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_table_of_the_epochs(tmp_path):
    lines = []
    log = CsvLog(tmp_path / "metrics.csv")
    run = small_trainer(callbacks=[log, Every(lambda run, step: lines.append(len(table(log.file)) if step > 4 else 0))])
    run.train()
    assert lines == [0] * 4 + [1] * 4
    rows = table(log.file)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for row, result in zip(rows, run.history, strict=True):
        expected = result.as_dict()
        assert {name: float(cell) for name, cell in row.items()} == {
            n: v for n, v in expected.items() if n != "metrics"
        }


def test_a_run_that_goes_on_has_one_row_for_each_epoch(tmp_path):
    small_trainer(callbacks=[CsvLog(tmp_path / "log.csv"), Checkpoints(tmp_path, every=6, keep=9)]).train()
    again = small_trainer(callbacks=[CsvLog(tmp_path / "log.csv")])
    again.resume(tmp_path / "step-00000006.safetensors")
    again.train()
    assert [row["epoch"] for row in table(tmp_path / "log.csv")] == ["1", "2"]


def test_columns_name_the_part_of_the_data(tmp_path):
    small_trainer(callbacks=[CsvLog(tmp_path / "log.csv", "val")]).train()
    assert "val_loss" in table(tmp_path / "log.csv")[0]
    assert "test_loss" not in table(tmp_path / "log.csv")[0]


def test_metrics_that_are_no_numbers_are_json(tmp_path):
    run = small_trainer(callbacks=[CsvLog(tmp_path / "log.csv")])
    from training.models.metrics import as_metrics

    run.metrics = as_metrics(["top2", "confusion"], run.network.last_layer, 3)
    run.train()
    row = table(tmp_path / "log.csv")[-1]
    assert float(row["top2"]) == run.history[-1].metrics["top2"]
    assert row["confusion"] == str(run.history[-1].metrics["confusion"])


class Writer:
    """Stands for tensorboardX's writer, and keeps what it is given."""

    made: list = []  # noqa: RUF012  (replaced by each test)

    def __init__(self, folder, purge_step=None):
        self.folder, self.purge_step, self.scalars, self.closed = folder, purge_step, [], False
        Writer.made.append(self)

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def flush(self):
        pass

    def close(self):
        self.closed = True


def test_numbers_for_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setattr(Writer, "made", [])
    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=Writer))
    run = small_trainer(callbacks=[TensorBoardLog(tmp_path / "events"), Checkpoints(tmp_path, every=6, keep=9)])
    run.train()
    (writer,) = Writer.made
    assert (writer.folder, writer.purge_step, writer.closed) == (str(tmp_path / "events"), None, True)
    assert [(value, step) for name, value, step in writer.scalars if name == "test_loss"] == [
        (result.test_loss, 4 * result.epoch) for result in run.history
    ]
    again = small_trainer(callbacks=[TensorBoardLog(tmp_path / "events")])
    again.resume(tmp_path / "step-00000006.safetensors")
    again.train()
    assert Writer.made[1].purge_step == 7, "what came after the checkpoint is forgotten"


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ModuleNotFoundError, match=r"remedy: pip install 'xpnet\[tensorboard\]'"):
        TensorBoardLog(tmp_path)
