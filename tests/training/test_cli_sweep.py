"""``xpnet sweep``: real runs of a small network, chosen by optuna."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.command_line import xpnet
from training.cli.sweep import check_value_of_train
from training.sweep.plan import Plan
from training.sweep.space import OneOf, Range, read_choice
from training.sweep.study import Study
from training.sweep.trial import arguments, run_trial

pytest.importorskip("optuna", reason="optuna is not installed; the extra `sweep` has it")

PLAN = """
data = "{data}"
epochs = {epochs}
threads = 1
val = 0.2
batch_size = 20

[search]
lr = {{low = 1e-6, high = 0.1, log = true}}
optimizer = ["adamw", "momentum"]

[sweep]
trials = {trials}
metric = "{metric}"
"""


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 3))
    lines = [f"{a:.4f},{b:.4f},{'yes' if a + b > c else 'no'}" for a, b, c in rows]
    file = tmp_path / "table.csv"
    file.write_text("\n".join(["a,b,kind", *lines]) + "\n")
    return file


@pytest.fixture
def numbers(tmp_path):
    rows = np.random.default_rng(0).normal(size=(300, 2))
    file = tmp_path / "numbers.csv"
    file.write_text("\n".join(["a,b,y", *(f"{a:.4f},{b:.4f},{2 * a - b:.4f}" for a, b in rows)]) + "\n")
    return file


def plan_file(tmp_path, data, *, epochs=2, trials=3, metric="accuracy", more="", search="", last=""):
    file = tmp_path / "sweep.toml"
    text = PLAN.format(data=data, epochs=epochs, trials=trials, metric=metric)
    file.write_text(f"{more}\n{text.replace('[search]', f'[search]{chr(10)}{search}')}{last}\n")
    return file


def sweep(*arguments):
    result = xpnet("sweep", *arguments, "--json")
    return result, [json.loads(line) for line in result.out.splitlines()]


def figures(records):
    """What runs came to, without their times and places."""
    return [{k: v for k, v in record.items() if k not in ("seconds", "run")} for record in records]


def test_a_sweep_makes_runs_and_names_the_best(tmp_path, table):
    file, out = plan_file(tmp_path, table, more='target = "kind"'), tmp_path / "out"
    result, (*runs, last) = sweep("--config", file, "--out", out)
    assert result.code == 0, result.err
    assert [run["trial"] for run in runs] == [1, 2, 3]
    assert all(1e-6 <= run["lr"] <= 0.1 and run["optimizer"] in ("adamw", "momentum") for run in runs)
    best = max(runs, key=lambda run: run["accuracy"])
    assert (last["best"], last["run"], last["trials"]) == (best["accuracy"], best["run"], 3)
    for run in runs:
        config = json.loads((Path(run["run"]) / "config.json").read_text())
        assert (config["settings"]["lr"], config["settings"]["optimizer"]) == (run["lr"], run["optimizer"])
        assert config["results"]["best_val_accuracy"] == run["accuracy"]
    for name in ("history", "settings", "importances"):
        with Image.open(out / f"{name}.png") as image:
            assert min(image.size) > 300
    again = xpnet("train", "--config", best["run"], "--out", tmp_path / "again", "--json", "--quiet")
    assert json.loads(again.out)["best_val_accuracy"] == best["accuracy"]


def test_a_sweep_goes_on_as_if_it_had_not_been_killed(tmp_path, table):
    file = plan_file(tmp_path, table, trials=4, more='target = "kind"')
    _, whole = sweep("--config", file, "--out", tmp_path / "whole")
    _, first = sweep("--config", file, "--out", tmp_path / "out", "--trials", 2)
    command = [sys.executable, "-m", "training.cli", "sweep", "--resume", str(tmp_path / "out"), "--trials", "4"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "out" / "trial-0002").is_dir():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    result, rest = sweep("--resume", tmp_path / "out", "--trials", 4)
    assert result.code == 0, result.err
    assert figures([*first[:2], *rest[:-1]]) == figures(whole[:-1])
    assert rest[-1]["trials"] == 4


def test_numbers_are_swept_by_their_loss(tmp_path, numbers):
    more = 'target = "y"\nmetrics = ["mae"]'
    file = plan_file(tmp_path, numbers, trials=2, more=more)
    result = xpnet("sweep", "--config", file, "--out", tmp_path / "a")
    assert (result.code, result.out) == (2, "")
    assert "the runs have no accuracy: set metric in [sweep] to one of loss, mae" in result.err
    for metric in ("loss", "mae"):
        result, (*runs, last) = sweep(
            "--config", plan_file(tmp_path, numbers, trials=2, more=more, metric=metric), "--out", tmp_path / metric
        )
        assert result.code == 0, result.err
        assert last["best"] == min(run[metric] for run in runs if "failed" not in run)


def test_a_run_that_fails_does_not_end_the_sweep(tmp_path, numbers):
    # One learning rate after another: the second diverges.
    text = plan_file(tmp_path, numbers, more='target = "y"\noptimizer = "sgd"', metric="loss").read_text()
    file = tmp_path / "sweep.toml"
    ranged = "lr = {low = 1e-6, high = 0.1, log = true}\n" + 'optimizer = ["adamw", "momentum"]'
    file.write_text(text.replace(ranged, "lr = [0.01, 1e25]").replace("trials = 3", "trials = 6"))
    result, (*runs, last) = sweep("--config", file, "--out", tmp_path / "out")
    assert result.code == 0, result.err
    failed = [run for run in runs if "failed" in run]
    assert failed
    assert all("not finite" in run["failed"] for run in failed)
    assert last["settings"] == {"lr": 0.01}
    assert all(math.isfinite(run["loss"]) for run in runs if run not in failed)
    assert last["trials"] == 6


def test_a_run_that_falls_behind_is_ended_early(tmp_path):
    study = Study(tmp_path, Plan(search={"lr": Range(0.1, 1.0)}))
    for _ in range(5):
        trial, _ = study.ask()
        for epoch in (1, 2, 3):
            trial.report(0.9, epoch)
            assert not trial.should_prune()
        study.complete(trial, 0.9)
    trial, _ = study.ask()
    trial.report(0.1, 1)
    assert not trial.should_prune()  # the first epoch says little
    trial.report(0.1, 2)
    assert trial.should_prune()
    study.prune(trial)
    assert len(study.ended) == 6
    study.close()


@pytest.mark.parametrize(("last", "sixth"), [("", (2, True)), ("prune = false", (4, False))])
def test_a_sweep_ends_runs_early(tmp_path, monkeypatch, last, sixth):
    """Not the second run, which has no five before it, nor the seventh, which is better from its second epoch on."""
    good, bad = [0.9] * 4, [0.1] * 4
    runs_to_make = [good, bad, good, good, good, bad, [0.1, 0.95, 0.95, 0.95]]

    def made_up(settings, folder, goes_on):
        accuracies = runs_to_make.pop(0)
        return all(goes_on({"epoch": epoch, "val_accuracy": value}) for epoch, value in enumerate(accuracies, 1))

    monkeypatch.setattr("training.cli.sweep.run_trial", made_up)
    monkeypatch.setattr(Study, "draw", lambda *_: {})
    file = plan_file(tmp_path, "table.csv", epochs=4, trials=7, last=last)
    result, (*runs, _) = sweep("--config", file, "--out", tmp_path / "out")
    assert result.code == 0, result.err
    assert [(run["epochs"], run["pruned"]) for run in runs] == [(4, False)] * 5 + [sixth, (4, False)]


def test_a_run_can_be_ended_after_an_epoch(tmp_path, table):
    epochs = []
    settings = {"data": table, "target": "kind", "epochs": 500, "threads": 1}
    is_whole = run_trial(settings, tmp_path / "run", lambda epoch: epochs.append(epoch["epoch"]) or len(epochs) < 2)
    assert not is_whole
    assert epochs == [1, 2]
    result = xpnet("evaluate", tmp_path / "run", "--json")
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("epochs = 3", "nothing to search"),
        ("nosuch = 3\n[search]\nlr = [0.1]", "unknown name 'nosuch'"),
        ("epoch = 3\n[search]\nlr = [0.1]", "did you mean epochs"),
        ("epochs = 0\n[search]\nlr = [0.1]", "epochs"),
        ("[search]\nlr = 0.1", "search.lr: expected a list of values"),
        ("[search]\nlr = []", "search.lr: expected different values, at least one"),
        ("[search]\nlr = [0.1, 'x']", "lr: expected a number, got 'x'"),
        ("[search]\nlr = {low = 1}", "search.lr: a range needs high"),
        ("[search]\nlr = {low = 1, high = 2, by = 3}", "unknown 'by' of a range"),
        ("[search]\nlr = {low = 1, high = 1}", "expected low < high, got 1 and 1"),
        ("[search]\nlr = {low = 0, high = 1, log = true}", "low > 0"),
        ("[search]\nlr = {low = -1, high = 1}", "lr: "),
        ("[search]\nbatch_size = {low = 1.5, high = 2}", "batch_size: expected a whole number"),
        ("lr = 0.1\n[search]\nlr = [0.1]", "lr is given twice"),
        ("[search]\nthreads = [1, 2]", "runs with different threads do not compare"),
        ("out = 'x'\n[search]\nlr = [0.1]", "out: the sweep sets it itself"),
        ("search = 3", "search: expected a table"),
        ("[search]\nlr = [0.1]\n[sweep]\ntrials = 0", "sweep.trials: expected 1 to"),
        ("[search]\nlr = [0.1]\n[sweep]\nprune = 1", "sweep.prune: expected true or false, got 1"),
        ("[search]\nlr = [0.1]\n[sweep]\ntrails = 1", "sweep: unknown name 'trails'"),
        ("[search\n", "not TOML"),
    ],
)
def test_a_file_with_a_mistake_is_refused_before_anything_is_made(tmp_path, monkeypatch, text, error):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.toml").write_text(text)
    result = xpnet("sweep", "--config", "sweep.toml")
    assert (result.code, result.out) == (2, "")
    assert error in result.err
    assert result.err.startswith("Error: sweep.toml: ")
    assert result.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweep.toml"]


def test_what_is_missing_or_in_conflict_is_said(tmp_path, table):
    file = plan_file(tmp_path, table)
    assert "give --config FILE for a new sweep, or --resume SWEEP" in xpnet("sweep").err
    assert "give --config FILE" in xpnet("sweep", "--config", file, "--resume", tmp_path).err
    assert "not the folder of a sweep" in xpnet("sweep", "--resume", tmp_path).err
    assert "--out conflicts with --resume" in xpnet("sweep", "--resume", tmp_path, "--out", "x").err
    assert "exists and is not an empty folder" in xpnet("sweep", "--config", file, "--out", tmp_path).err
    result = xpnet("sweep", "--config", plan_file(tmp_path, tmp_path / "nosuch.csv"), "--out", tmp_path / "out")
    assert result.code == 2
    assert "the first run, with lr=" in result.err
    assert "nosuch.csv" in result.err


def test_choices_are_read():
    assert read_choice([1, "a", True]) == OneOf((1, "a", True))
    assert read_choice({"low": 1, "high": 5, "step": 2}) == Range(1, 5, False, 2)
    assert read_choice({"low": 1e-3, "high": 1, "log": True}) == Range(1e-3, 1, True)


def test_a_plan_is_kept_whole():
    content = {"epochs": 3, "search": {"lr": {"low": 0.1, "high": 1.0}, "batch-size": [1, 2]}, "sweep": {"seed": 4}}
    plan = Plan.read(content, check_value_of_train)
    assert list(plan.search) == ["lr", "batch_size"]
    assert plan.seed == 4
    assert plan.trials == 20
    assert Plan.read(json.loads(json.dumps(plan.as_dict())), check_value_of_train) == plan


def test_settings_become_arguments():
    given = {"lr": 0.1, "sync_batch_norm": True, "metrics": ["f1", "top5"], "model": "ConvNet"}
    assert arguments(given) == [
        "--set=lr=0.1", "--set=sync_batch_norm=true", "--set=metrics=f1", "--set=metrics=top5", "--set=model=ConvNet",
    ]  # fmt: skip


def test_a_range_between_whole_numbers_is_of_the_options_kind():
    content = {"search": {name: {"low": 0 if name == "weight_decay" else 1, "high": 4} for name in
               ("weight_decay", "batch_size")}}  # fmt: skip
    plan = Plan.read(content, check_value_of_train)
    assert plan.search == {"weight_decay": Range(0.0, 4.0), "batch_size": Range(1, 4)}
    assert isinstance(plan.search["weight_decay"].low, float)


def test_folders_with_any_name_have_their_own_database(tmp_path, table):
    file = plan_file(tmp_path, table, more='target = "kind"', epochs=1, trials=1)
    for name in ("a?1", "a%3F2", "ä 3"):
        result, (*_, last) = sweep("--config", file, "--out", tmp_path / name)
        assert result.code == 0, result.err
        assert last["run"] == str(tmp_path / name / "trial-0000")
        assert (tmp_path / name / "sweep.db").is_file()


def test_a_damaged_folder_is_named(tmp_path, table):
    out = tmp_path / "out"
    sweep("--config", plan_file(tmp_path, table, more='target = "kind"', epochs=1, trials=1), "--out", out)
    plan, database = (out / "sweep.json").read_bytes(), (out / "sweep.db").read_bytes()
    for content in (b"nothing", database[:3000]):
        (out / "sweep.db").write_bytes(content)
        result = xpnet("sweep", "--resume", out)
        assert (result.code, result.err.count("\n")) == (2, 1)
        assert "sweep.db: not the database of a sweep" in result.err
    (out / "sweep.db").unlink()
    assert "it has no sweep.db" in xpnet("sweep", "--resume", out).err
    (out / "sweep.db").write_bytes(database)
    for content in (b"[1]", b"{", b"{}"):
        (out / "sweep.json").write_bytes(content)
        result = xpnet("sweep", "--resume", out)
        assert (result.code, result.err.count("\n")) == (2, 1)
        assert "sweep.json: " in result.err
    (out / "sweep.json").write_bytes(plan)
    assert xpnet("sweep", "--resume", out).code == 0


def test_a_sweep_goes_on_from_another_folder(tmp_path, table, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.toml").write_text("[[layers]]\ntype = 'Affine'\noutputs = 2\n")
    more = 'target = "kind"\nmodel = "net.toml"'
    plan_file(tmp_path, "table.csv", more=more, epochs=1, trials=1)
    result, _ = sweep("--config", "sweep.toml", "--out", "out")
    assert result.code == 0, result.err
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "net.toml").rename(tmp_path / "gone.toml")
    result = xpnet("sweep", "--resume", "../out", "--trials", 2)
    assert result.code == 2
    assert f"model: there is no file {tmp_path / 'net.toml'}" in result.err
    (tmp_path / "gone.toml").rename(tmp_path / "net.toml")
    result, (run, last) = sweep("--resume", "../out", "--trials", 2)
    assert result.code == 0, result.err
    assert (run["trial"], last["trials"]) == (2, 2)
