"""``python -m bench accuracy RUN``: a run of ``xpnet train`` is repeated in PyTorch."""

import json

import pytest

from bench import sides
from tests.support.command_line import QUICK, xpnet

with_torch = pytest.mark.skipif(not sides.installed("torch"), reason="torch is not installed")


def train(folder, *options):
    result = xpnet("train", "--out", folder, "--epochs", "2", "--quiet", *options)
    assert result.code == 0, result.err
    return folder


@with_torch
def test_pytorch_learns_from_the_same_batches_as_much(bench, tmp_path):
    run = train(tmp_path / "run", *QUICK)
    result = bench("accuracy", run, "--json")
    assert result.code == 0, result.err
    *epochs, last = map(json.loads, result.out.splitlines())
    own = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in epochs] == [1, 2]
    for row, ours in zip(epochs, own, strict=True):
        assert row["val_accuracy"] == pytest.approx(ours["val_accuracy"], abs=0.003)
    assert last["torch"]["test_accuracy"] == pytest.approx(last["xpnet"]["test_accuracy"], abs=0.003)
    assert last["torch"]["epochs"] == last["xpnet"]["epochs"] == 2
    assert last["xpnet"]["seconds"] == pytest.approx(sum(row["seconds"] for row in own))


@with_torch
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "adam", "adamw"])
def test_every_optimizer_makes_the_steps_of_pytorchs(optimizer, bench, tmp_path):
    options = ["--model", "twolayernet", "--schedule", "constant", "--lr", "0.002", "--weight-decay", "0.01"]
    run = train(tmp_path / "run", *options, "--optimizer", optimizer)
    result = bench("accuracy", run, "--epochs", "1", "--json")
    assert result.code == 0, result.err
    first = json.loads(result.out.splitlines()[0])
    own = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert first["val_accuracy"] == pytest.approx(own["val_accuracy"], abs=0.003)


@with_torch
def test_epochs_are_lines_and_both_are_told(bench, tmp_path):
    result = bench("accuracy", train(tmp_path / "run", *QUICK), "--epochs", "1")
    epoch, own, torch = result.out.splitlines()
    assert epoch.startswith("epoch   1 of 1  val 9")
    assert own.startswith("xpnet    ")
    assert " of the test data, epoch 2 of 2, " in own
    assert torch.startswith("PyTorch  ")
    assert " of the test data, epoch 1 of 1, " in torch


@with_torch
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--ema", "0.9"], "the repetition in PyTorch has no ema: expected a run without"),
        (["--clip-norm", "1", "--accumulate", "2"], "has no accumulate, clip_norm: expected a run without"),
        (["--optimizer", "rmsprop"], "the repetition in PyTorch has no optimizer rmsprop"),
        (["--precision", "fp16"], "has no precision fp16"),
    ],
)
def test_what_is_not_repeated_is_named(options, reason, bench, tmp_path):
    result = bench("accuracy", train(tmp_path / "run", "--model", "twolayernet", *options))
    assert (result.code, result.out) == (2, "")
    assert reason in result.err


def test_without_pytorch_the_extra_is_named(bench, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.accuracy.installed", lambda peer: False)
    result = bench("accuracy", tmp_path)
    assert (result.code, result.out) == (2, "")
    assert result.err == "Error: not installed: torch; the extra `bench` of xpnet has the peers\n"
